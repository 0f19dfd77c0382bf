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
from pathlib import Path
from typing import Any

import numpy as np

import spikeloss_xp as sx

sys.path.insert(0, str(Path(__file__).parents[1]))

from _support.calls import Call, example, with_everything
from _support.contract import FORMS, ONE_OF_EACH

LIBRARIES = ("CuPy", "PyTorch")
RANDOM = np.random.default_rng(0)
SHAPE = BATCH, CLASSES, STEPS = 32, 10, 300
SPIKES = (RANDOM.random(SHAPE) < 0.05) * RANDOM.uniform(0.5, 1, SHAPE)
LABEL = np.arange(BATCH) % CLASSES
TIMES = np.sort(RANDOM.uniform(0, STEPS, (BATCH, CLASSES, 12)), axis=-1)
TIMES[RANDOM.random(TIMES.shape) < 0.2] = np.inf
COTANGENT = RANDOM.uniform(0.5, 1.5, (CLASSES, CLASSES))
SILENT = {"silent_time": 300.0}
DISTANCE, SIMILARITY = (
    functools.partial(function, time_constant=20.0)
    for function in (sx.distances.van_rossum, sx.distances.similarity)
)
CASES = {  # those with a limit for their launches, small calls of every loss, and those on times
    "SpikeMax": Call(sx.SpikeMax(), SPIKES, LABEL),
    "SpikeMax, window 50": Call(sx.SpikeMax(50), SPIKES, LABEL),
    "CrossEntropy": Call(sx.CrossEntropy(time_axis=-1), SPIKES, LABEL),
    "SpikeLatency": Call(sx.SpikeLatency(true_time=20.0, time_axis=-1), SPIKES, LABEL),
    "PoissonNLL": Call(sx.PoissonNLL(time_axis=-1), SPIKES, 1.0 * (SPIKES[::-1] > 0)),
    **{
        f"{name}, {make.__name__}": make(FORMS[name])
        for name in ONE_OF_EACH
        for make in (example, with_everything)
    },
    "times.CrossEntropy": Call(sx.times.CrossEntropy(temperature=5.0, **SILENT), TIMES, LABEL),
    "times.SpikeLatency": Call(sx.times.SpikeLatency(true_time=20.0, **SILENT), TIMES, LABEL),
    "times.SpikeTime": Call(sx.times.SpikeTime(time_constant=20.0), TIMES, TIMES[::-1].copy()),
    "times.VictorPurpura": Call(sx.times.VictorPurpura(cost=0.1), TIMES, TIMES[::-1].copy()),
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


def main() -> None:
    results(sys.argv[-1])
    sys.stdout.flush()
    os._exit(0)  # the threads of a device in PyTorch 2.10 may abort a process that ends


if __name__ == "__main__":
    main()
