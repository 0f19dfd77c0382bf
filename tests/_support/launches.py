"""Count what value and gradient of each loss do on a GPU, on the stand-ins for CuPy and PyTorch.

``python tests/_support/launches.py CuPy`` or ``PyTorch`` prints the results as lines of JSON.

Each result is compared with NumPy's, and the counts are those of a second call.
"""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import spikeloss_xp as sx

SHAPE = BATCH, CLASSES, STEPS = 32, 10, 300
LIBRARIES = ("CuPy", "PyTorch")


@dataclass(frozen=True)
class Case:
    """A loss, the kind of its input and of its target, and options of the call."""

    loss: Any
    target: str = "label"
    options: tuple[str, ...] = ()
    input: str = "spikes"


MASKED = ("where", "lengths", "weight")
RATES, LATE = tuple(0.05 + 0.01 * c for c in range(CLASSES)), {"true_time": 20.0, "time_axis": -1}
READOUTS = ("max", "last", "sqrt_count", "latency", "softmax_sum")
SILENT, LOGITS = {"silent_time": 300.0}, {"alpha": 0.1, "theta": 0.2}
NEURON = sx.SparsityEnforcer(0.05, min_rate=0.04, per="neuron")
DISTANCE = functools.partial(sx.distances.van_rossum, time_constant=20.0)
SIMILARITY = functools.partial(sx.distances.similarity, time_constant=20.0)
CASES = {
    "SpikeTime": Case(sx.SpikeTime(20.0, 100), "trains"),
    "SpikeTime, order 2": Case(sx.SpikeTime(20.0, 100, 2), "trains"),
    "SpikeRate": Case(sx.SpikeRate(0.1, 0.02)),
    "SpikeRate, window 50": Case(sx.SpikeRate(0.1, 0.02, 50)),
    "SpikeRate, masked": Case(sx.SpikeRate(RATES, 0.02), options=MASKED),
    "SpikeMax": Case(sx.SpikeMax()),
    "SpikeMax, window 50": Case(sx.SpikeMax(50)),
    "SpikeMax, masked": Case(sx.SpikeMax(), options=MASKED),
    "SpikeMoid": Case(sx.SpikeMoid(**LOGITS), "multi-hot"),
    "SpikeMoid, masked": Case(sx.SpikeMoid(**LOGITS, pos_weight=RATES), "multi-hot", MASKED),
    "CrossEntropy": Case(sx.CrossEntropy(time_axis=-1)),
    **{
        f"CrossEntropy, {readout}": Case(sx.CrossEntropy(time_axis=-1, readout=readout))
        for readout in READOUTS
    },
    "CrossEntropy, masked": Case(sx.CrossEntropy(time_axis=-1), "multi-hot", MASKED),
    "SquaredError": Case(sx.SquaredError(time_axis=-1), "multi-hot"),
    "SpikeLatency": Case(sx.SpikeLatency(**LATE)),
    "PoissonNLL": Case(sx.PoissonNLL(time_axis=-1), "trains"),
    "PoissonNLL, masked": Case(sx.PoissonNLL(time_axis=-1), "trains", MASKED),
    "PoissonNLL, rates": Case(sx.PoissonNLL(time_axis=-1, log_rates=False), "trains", (), "rates"),
    "BernoulliNLL": Case(sx.BernoulliNLL(time_axis=-1), "trains"),
    "BernoulliNLL, hazard": Case(sx.BernoulliNLL(time_axis=-1, link="hazard"), "trains"),
    "SpikeLatency, masked": Case(sx.SpikeLatency(time_axis=-1), "multi-hot", MASKED),
    "SparsityEnforcer, neurons": Case(NEURON, ""),
    "times.CrossEntropy": Case(sx.times.CrossEntropy(temperature=5.0, **SILENT), input="times"),
    "times.SpikeLatency": Case(sx.times.SpikeLatency(true_time=20.0, **SILENT), input="times"),
    "times.SpikeTime": Case(sx.times.SpikeTime(time_constant=20.0), "desired", input="times"),
    "times.VictorPurpura": Case(sx.times.VictorPurpura(cost=0.1), "desired", input="times"),
    "van_rossum": Case(DISTANCE, "", ("cotangent",), "trial"),
    "similarity": Case(SIMILARITY, "", ("cotangent",), "trial"),
}  # fmt: skip


@functools.cache
def arrays() -> dict[str, np.ndarray]:
    """Return the inputs, targets and options, by the names that the cases have for them."""
    random = np.random.default_rng(0)
    spikes = (random.random(SHAPE) < 0.05) * random.uniform(0.5, 1, SHAPE)
    times = np.sort(random.uniform(0, STEPS, (BATCH, CLASSES, 12)), axis=-1)
    times[random.random(times.shape) < 0.2] = np.inf
    return {
        "spikes": spikes,
        "trains": 1.0 * (random.random(SHAPE) < 0.05),
        "trial": spikes[0],
        "rates": random.uniform(0.01, 0.5, SHAPE),
        "times": times,
        "desired": times[::-1].copy(),
        "label": np.arange(BATCH) % CLASSES,
        "multi-hot": random.uniform(0, 1, (BATCH, CLASSES)),
        "where": random.random(SHAPE) < 0.8,
        "lengths": random.integers(100, STEPS, BATCH),
        "weight": random.uniform(0.5, 2, CLASSES),
        "cotangent": random.uniform(0.5, 1.5, (CLASSES, CLASSES)),
    }


def call(case: Case, place: Callable[[np.ndarray], Any]) -> Callable[[], Any]:
    """Return a function without arguments for value and gradient of a case."""
    input, *targets = (place(arrays()[name]) for name in (case.input, case.target) if name)
    options = {name: place(arrays()[name]) for name in case.options}
    if not hasattr(input, "requires_grad_") or "cotangent" in options:
        return functools.partial(sx.value_and_grad(case.loss), input, *targets, **options)
    input.requires_grad_()

    def run() -> Any:  # as in a training step
        input.grad = None
        value = case.loss(input, *targets, **options)
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
    for case_name, case in CASES.items():
        expected = call(case, lambda x: x)()
        for number, device in enumerate(devices):
            run = call(case, functools.partial(place, device=device))
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


def main() -> None:
    results(sys.argv[-1])
    sys.stdout.flush()
    os._exit(0)  # the threads of a device in PyTorch 2.10 may abort a process that ends


if __name__ == "__main__":
    main()
