"""Compare with the 205 reference cases computed by the published implementation (lava-dl)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.backends import TESTED
from spikeloss_xp.slayer import published

CASES = 205
FEW = range(3, CASES, 19)  # some of each loss and mode
PAIRS = [(name, i) for name in TESTED for i in (range(CASES) if name == "numpy" else FEW)]
REFERENCE = np.load(Path(__file__).parent / "data" / "lava_dl.npz")
RTOL = 2e-5  # both sides are float32 sums of up to 10^5 terms


LAVA_DEFAULTS = {"time_axis": -1, "reduction": "sum"}


def load_case(i: int, losses: Any = sx) -> tuple[Any, ...]:
    """Return a loss, the factors of the arrays that it collects, and the recorded arrays."""
    spec = json.loads(str(REFERENCE[f"case/{i}/spec"]))
    defaults = LAVA_DEFAULTS if losses is sx else {}
    if losses is sx and spec["loss"] == "SparsityEnforcer":
        losses, defaults = published, {}
    options = defaults | spec["kwargs"]
    if "lam" in options and losses is published:
        options["rate_weight"] = options.pop("lam")
    loss = getattr(losses, spec["loss"])(**options)
    arrays = (REFERENCE[f"case/{i}/{key}"] for key in ("input", "target", "loss", "grad"))
    return loss, spec.get("append"), *arrays


@pytest.mark.parametrize(("backend", "i"), PAIRS, indirect=["backend"])
def test_value_and_gradient_equal_the_published_ones(backend, i):
    loss, append, input, target, value, gradient = load_case(i)
    spikes = backend.asarray(input, "float32")
    evaluate = backend.compiled(sx.value_and_grad(loss))
    if append:  # each term is of `input` times a factor: the gradient follows by the chain rule
        scaled = [evaluate(spikes * factor) for factor in append]
        got = (
            sum(v for v, _ in scaled),
            sum(f * g for f, (_, g) in zip(append, scaled, strict=True)),
        )
    else:
        dtype = None if target.dtype.kind == "i" else "float32"
        got = evaluate(spikes, backend.asarray(target, dtype))
    np.testing.assert_allclose(backend.numpy(got[0]), value, rtol=RTOL)
    np.testing.assert_allclose(backend.numpy(got[1]), gradient, atol=RTOL * abs(gradient).max())
