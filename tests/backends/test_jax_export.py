"""JAX lowers the losses for GPUs and TPUs, which needs none of them."""

import re

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.backends import on
from _support.calls import with_everything
from _support.contract import FORMS, ONE_OF_EACH

jax = pytest.importorskip("jax")
PLATFORMS = ("cuda", "tpu", "rocm")
SHAPE = (8, 500, 1000)


def lowered(function, *arguments):
    """Return the module that `jax.export` makes of a function, for all platforms at once.

    JAX raises an error if the function calls back to the host.
    """
    return jax.export.export(jax.jit(function), platforms=PLATFORMS)(*arguments).mlir_module()


def check_precision(name, module):
    """By default a GPU may round the factors of a product to 10 bits, and a TPU to 8."""
    for line in re.findall(r"stablehlo\.dot_general.*", module):
        assert "precision = [HIGHEST, HIGHEST]" in line, f"{name}: {line}"


@pytest.mark.parametrize(
    "form",
    [form if form in ONE_OF_EACH else pytest.param(form, marks=pytest.mark.slow) for form in FORMS],
)
def test_loss_lowers_with_exact_products_and_without_callbacks(form):
    with on("jax") as backend:
        call = with_everything(FORMS[form])
        target, options = call.arguments(backend)
        evaluate = sx.value_and_grad(call.loss)
        arrays = backend.asarray(call.spikes), *target
        check_precision(form, lowered(lambda *x: evaluate(*x, **options), *arrays))


@pytest.mark.parametrize(
    ("name", "function", "arrays"),
    [
        ("SpikeMax", jax.value_and_grad(sx.SpikeMax(100)), "label"),
        ("SpikeTime", jax.value_and_grad(sx.SpikeTime(30.0, 500)), "trains"),
        ("causal_filter", lambda x: sx.causal_filter(x, jax.numpy.ones(100)), ""),
        ("VanRossum", lambda x: sx.distances.VanRossum(time_constant=20.0)(x[0, :9, :50]), ""),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_large_arrays_have_no_loop_that_a_cpu_needs(name, function, arrays):
    with on("jax"):
        spikes = jax.ShapeDtypeStruct(SHAPE, np.float32)
        label = jax.ShapeDtypeStruct(SHAPE[:1], np.int32)
        others = {"label": [label], "trains": [spikes], "": []}[arrays]
        module = lowered(function, spikes, *others)
    check_precision(name, module)
    assert "stablehlo.while" not in module
