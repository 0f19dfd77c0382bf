"""On stand-ins for a GPU the losses equal NumPy's, launch little, and neither copy nor wait.

`launches.py` evaluates each loss in a process of its own, because a stand-in stays in its process.
"""

import json
from collections.abc import Iterator

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import launches
from _support.programs import run_python
from _support.root import STAND_INS
from spikeloss_xp.backends import _copies

RTOL = 1e-12
"""The results differ by the order of the sums, in float64."""
LAUNCHES = json.loads(launches.RECORD.read_text())


def problems(library: str) -> Iterator[str]:
    """Yield a sentence for each wrong result and each exceeded limit of a loss on a stand-in."""
    for line in launches.of_library(library):
        case = line["case"]
        if not line["error"] < RTOL:
            yield f"{case}: differs from NumPy by {line['error']}"
        most = LAUNCHES[case][library] if case in LAUNCHES else np.inf
        for kind, limit in {"launches": most, "copies": 0, "waits": 0}.items():
            if line[kind] > limit:
                yield f"{case}: {line[kind]} {kind}, at most {limit}: {line['names'][kind]}"
        if line.get("foreign") or line["elsewhere"]:
            yield f"{case}: computes on another device than that of the input"


@pytest.mark.compiles
@pytest.mark.parametrize("library", launches.LIBRARIES)
def test_losses_equal_numpy_with_few_launches_and_without_waits_and_copies(library):
    if library == "PyTorch":
        pytest.importorskip("torch")
    assert not list(problems(library))


def test_copies_that_are_not_asked_for_are_dropped():
    made, kept = _copies.Copies(), np.zeros(2)
    first = made.get((0.5,), "float32", "gpu 1", object)
    of_array = made.get(kept, "float32", "gpu 0", object)
    assert made.get((0.5,), "float32", "gpu 1", object) is first
    for dtype, device in (("float64", "gpu 1"), ("float32", "gpu 0")):
        assert made.get((0.5,), dtype, device, object) is not first
    for _ in range(3 * _copies.USES):
        assert made.get(kept, "float32", "gpu 0", object) is of_array
    assert made.get((0.5,), "float32", "gpu 1", object) is not first


def test_made_once_arrays_are_complete_before_another_stream_uses_them():
    program = """
import cupy
from spikeloss_xp.backends._available import adapter
like = cupy.ones(3)
for make in (
    lambda: adapter("cupy").scalar(like, 2.0),
    lambda: adapter("cupy").arange(3, like),
    lambda: adapter("cupy").constants((1.0, 2.0), like),
):
    for waits in (1, 0):
        cupy.reset_counts()
        make()
        assert cupy.COUNTS["waits"].total() == waits
"""
    run_python(program, path=STAND_INS)


def test_copies_made_in_inference_mode_serve_a_gradient():
    torch = pytest.importorskip("torch")
    loss, spikes = (
        sx.SpikeTime(time_constant=7.25, length=20, time_axis=-1),
        torch.ones(1, 2, 80, device="meta"),
    )
    with torch.inference_mode():
        loss(spikes, spikes)
    leaf = spikes.clone().requires_grad_()
    loss.value(leaf, spikes).backward()
    assert leaf.grad.shape == spikes.shape
