"""Count what value and gradient of each loss do on a GPU, on the stand-ins for CuPy and PyTorch.

``python tests/_support/launches.py CuPy`` or ``PyTorch`` prints the results as lines of JSON.
``--write`` records the launches, some of which are in a table of docs/benchmarks.md.

Each result is compared with NumPy's, and the counts are those of a second call.
"""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import spikeloss_xp as sx

sys.path.insert(0, str(Path(__file__).parents[1]))

from _support.calls import Call, example, with_everything
from _support.contract import FORMS, ONE_OF_EACH

LIBRARIES = ("CuPy", "PyTorch")
RECORD = Path(__file__).parents[1] / "data" / "launches.json"
"""The launches of each row of the table. A test fails if there are more."""
RANDOM = np.random.default_rng(0)
SHAPE = BATCH, CLASSES, STEPS = 32, 10, 300
SPIKES = (RANDOM.random(SHAPE) < 0.05) * RANDOM.uniform(0.5, 1, SHAPE)
LABEL = np.arange(BATCH) % CLASSES
TIMES = np.sort(RANDOM.uniform(0, STEPS, (BATCH, CLASSES, 12)), axis=-1)
TIMES[RANDOM.random(TIMES.shape) < 0.2] = np.inf
COTANGENT = RANDOM.uniform(0.5, 1.5, (CLASSES, CLASSES))
LABELLED = LABEL[:, None] == np.arange(CLASSES)
SHARES = RANDOM.dirichlet(np.ones(CLASSES), BATCH)
COUNTS = 1.0 * (SPIKES[::-1] > 0)
WHERE = {"where": RANDOM.random(SHAPE) < 0.9}
LENGTHS = {"lengths": RANDOM.integers(STEPS // 2, STEPS + 1, BATCH)}
ALL = WHERE | LENGTHS | {"weight": RANDOM.uniform(0.5, 1.5, CLASSES)}
MASKS = {"": {}, ", `lengths`": LENGTHS, ", `where`": WHERE, ", all three": ALL}


def rows() -> Iterator[tuple[str, Call]]:
    """Yield the rows of the table: names and calls."""
    time, options = {"time_axis": -1}, {"": {}, ", all three": ALL}
    entropy, poisson = sx.CrossEntropy(**time), sx.PoissonNLL(**time)
    for name, given in MASKS.items():
        yield f"`CrossEntropy`{name}", Call(entropy, SPIKES, LABEL, **given)
    for name, given in options.items():
        yield f"`CrossEntropy`, probabilities{name}", Call(entropy, SPIKES, SHARES, **given)
    for readout in ("sqrt_count", "max", "softmax_sum", "latency"):
        loss = sx.CrossEntropy(readout=readout, **time)
        yield f'`CrossEntropy`, `"{readout}"`', Call(loss, SPIKES, LABEL)
    yield '`CrossEntropy`, `"latency"`, all three', Call(loss, SPIKES, LABEL, **ALL)
    for loss in (
        sx.SpikeRate(0.1, 0.01, time_axis=-1, reduction="sum"),
        sx.SpikeMax(time_axis=-1, reduction="sum"),
        sx.SpikeMoid(alpha=1, theta=0.1, time_axis=-1, reduction="sum"),
        LATENCY,
    ):
        target = LABELLED if isinstance(loss, sx.SpikeMoid) else LABEL
        for name, given in options.items():
            yield f"`{type(loss).__name__}`{name}", Call(loss, SPIKES, target, **given)
    yield (
        "`SpikeMax`, a window of 50 steps",
        Call(sx.SpikeMax(moving_window=50, time_axis=-1, reduction="sum"), SPIKES, LABEL),
    )
    yield "`SquaredError`", Call(sx.SquaredError(**time), SPIKES, SHARES)
    for name, given in MASKS.items():
        yield f"`PoissonNLL`{name}", Call(poisson, SPIKES, COUNTS, **given)
    yield "`BernoulliNLL`", Call(sx.BernoulliNLL(**time), SPIKES, COUNTS)
    yield '`BernoulliNLL`, `"hazard"`', Call(sx.BernoulliNLL(link="hazard", **time), SPIKES, COUNTS)
    silent, other = {"silent_time": 300.0}, TIMES[::-1].copy()
    loss = sx.times.CrossEntropy(temperature=5.0, **silent)
    yield "`times.CrossEntropy`", Call(loss, TIMES, LABEL)
    loss = sx.times.SpikeLatency(true_time=20.0, **silent)
    yield "`times.SpikeLatency`", Call(loss, TIMES, LABEL)
    yield "`times.SpikeTime`", Call(sx.times.SpikeTime(time_constant=20.0), TIMES, other)
    yield "`times.VictorPurpura`", Call(sx.times.VictorPurpura(cost=0.1), TIMES, other)


LATENCY = sx.SpikeLatency(true_time=20.0, time_axis=-1)
DISTANCE, SIMILARITY = (
    functools.partial(function, time_constant=20.0)
    for function in (sx.distances.van_rossum, sx.distances.similarity)
)
CASES = {
    **dict(rows()),
    **{
        f"{name}, {make.__name__}": make(FORMS[name])
        for name in ONE_OF_EACH
        for make in (example, with_everything)
    },
    "van_rossum": Call(DISTANCE, SPIKES[0], cotangent=COTANGENT),
    "similarity": Call(SIMILARITY, SPIKES[0], cotangent=COTANGENT),
}


def evaluate(call: Call, place: Callable[[np.ndarray], Any]) -> Callable[[], Any]:
    """Return a function without arguments for value and gradient of a call."""
    input = place(call.spikes)
    targets = [] if call.target is None else [place(call.target)]
    options = {name: place(x) for name, x in call.options.items()}
    if call.cotangent is not None:
        options["cotangent"] = place(call.cotangent)
    if not hasattr(input, "requires_grad_") or call.cotangent is not None:
        return functools.partial(sx.value_and_grad(call.loss), input, *targets, **options)
    input.requires_grad_()

    def run() -> Any:  # as in a training step
        input.grad = None
        value = call.loss(input, *targets, **options)
        value.backward()
        return value, input.grad

    return run


def error(got: tuple[Any, Any], expected: tuple[Any, Any]) -> float:
    """Return the larger of the errors of value and gradient, relative to their largest entries."""
    return max(
        float(np.max(np.abs(ours - wanted)) / np.max(np.abs(wanted)))
        for ours, wanted in zip(got, expected, strict=True)
    )


def library(name: str) -> tuple[Any, list[Any], Callable[..., Any], Callable[..., Any]]:
    """Return the module that counts, the devices, and how arrays go to one and to the host.

    The stand-ins come onto the path of this process, which is one of its own.
    """
    sys.path.insert(0, str(Path(__file__).with_name("stand_ins")))
    if name == "CuPy":
        import cupy

        def place(values: np.ndarray, device: Any) -> Any:
            with device:
                return cupy.asarray(values)

        # The other device is the one that is not current.
        return cupy, [cupy.cuda.Device(0), cupy.cuda.Device(1)], place, cupy.asnumpy
    import torch
    import torch_device

    torch_device.install()
    to_host = lambda x: x.detach().cpu().numpy()  # noqa: E731
    return torch_device, [torch_device.DEVICE], torch.asarray, to_host


def results(name: str) -> None:
    """Print a line of JSON for each case on each device."""
    counts, devices, place, to_host = library(name)
    for case_name, call in CASES.items():
        expected = evaluate(call, lambda x: x)()
        for number, device in enumerate(devices):
            run = evaluate(call, functools.partial(place, device=device))
            run()
            counts.reset_counts()
            got = run()
            line = {kind: sum(count.values()) for kind, count in counts.COUNTS.items()}
            line |= {"case": case_name, "device": number}
            line["names"] = {kind: dict(+count) for kind, count in counts.COUNTS.items()}
            line["elsewhere"] = [str(x.device) for x in got if str(x.device) != str(device)]
            line["error"] = error([to_host(x) for x in got], expected)
            print(json.dumps(line))


def of_library(name: str) -> list[dict[str, Any]]:
    """Return the results of one library, from a process of its own."""
    ran = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(ran.stderr)
    return [json.loads(line) for line in ran.stdout.splitlines()]


def record() -> None:
    """Record the launches of the rows."""
    launches: dict[str, dict[str, int]] = {name: {} for name, _ in rows()}
    for library in LIBRARIES:
        for result in of_library(library):
            if result["case"] in launches:
                launches[result["case"]][library] = result["launches"]
    RECORD.write_text(json.dumps(launches, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    if sys.argv[-1] == "--write":
        return record()
    results(sys.argv[-1])
    sys.stdout.flush()
    os._exit(0)  # the threads of a device in PyTorch 2.10 may abort a process that ends


if __name__ == "__main__":
    main()
