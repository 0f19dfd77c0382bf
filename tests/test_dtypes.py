"""Spikes of every dtype that a library has, and targets of every dtype that a loss takes."""

import functools

import numpy as np
import pytest
from calls import example, one_jax
from cases import close
from conftest import BACKENDS, on
from contract import COMPUTED_IN, CONTRACTS, FLOATS, FORMS, INTEGERS, LABELS

import spikeloss_xp as sx

COMPUTED = {dtype: computed for dtypes, computed in COMPUTED_IN.items() for dtype in dtypes}
SPACING = {"float16": 2.0**-11, "bfloat16": 2.0**-8}  # half a unit in the last place
FORM_OF = {
    "SpikeTime": "SpikeTime",
    "SpikeRate": "SpikeRate-rate",
    "SpikeMax": "SpikeMax-smoothed-rate",
    "SpikeMoid": "SpikeMoid-rate",
    "SparsityEnforcer": "SparsityEnforcer-neuron",
}


assert list(FORM_OF) == [contract.name for contract in CONTRACTS]

# In JAX, where each dtype is a computation of its own to make ready, some losses speak for all.
IN_JAX = {"jax": ("SpikeMax",), "jax-x64": ("SpikeRate",)}
PAIRS = [
    (name, contract)
    for name in BACKENDS
    for contract in FORM_OF
    if contract in IN_JAX.get(name, FORM_OF)
]


def there(backend, dtypes):
    """Those of the dtypes that the library has, on this device and in this state."""
    narrow = backend.library == "jax" and backend.dtype == "float32"
    return [d for d in dtypes if hasattr(backend.xp, d) and not (narrow and d.endswith("64"))]


def whole(form):
    """A call with spikes that every dtype can hold."""
    call = example(FORMS[form])
    spikes = np.random.default_rng(3).random(call.spikes.shape) < 0.4
    call = call.but(spikes=spikes.astype(float), lengths=np.asarray([6, 5, 2, 6, 4]))
    if "weight" in FORMS[form].contract.call:
        call = call.but(weight=np.asarray([0.5, 1, 2, 0.25]))
    return call


def arguments(backend, call):
    arrays = [] if call.target is None else [backend.asarray(call.target)]
    return arrays, {name: backend.asarray(value) for name, value in call.options.items()}


@functools.cache
def of_the_formulas(contract):
    """Value by the reference, and gradient by the closed forms, which other tests have compared."""
    call = whole(FORM_OF[contract])
    with on("numpy") as backend:
        return call.value(), call.on(backend)[1]


@pytest.mark.parametrize(("name", "contract"), PAIRS)
def test_spikes_of_every_dtype(name, contract):
    call, (wanted, wanted_gradient) = whole(FORM_OF[contract]), of_the_formulas(contract)
    with on(name) as backend:
        arrays, options = arguments(backend, call)
        xp = backend.xp
        default = xp.__array_namespace_info__().default_dtypes()["real floating"]
        dtypes = there(backend, COMPUTED)
        assert {"bool", "uint8", "float32"} <= set(dtypes)
        for dtype in dtypes:
            spikes = backend.asarray(call.spikes, dtype)
            value, gradient = sx.value_and_grad(call.loss)(spikes, *arrays, **options)
            computed = getattr(xp, COMPUTED[dtype][0]) if dtype in FLOATS else default
            assert value.dtype == computed, dtype
            assert gradient.dtype == (spikes.dtype if dtype in FLOATS else computed), dtype
            rtol = 1e-5 if computed == xp.float32 else 1e-12  # as `Backend.rtol`
            close(backend.numpy(value), wanted, rtol)
            stored = rtol + SPACING.get(dtype, 0)
            close(backend.numpy(gradient).astype(float), wanted_gradient, stored)


@pytest.mark.parametrize(("name", "contract"), [p for p in PAIRS if p[1] != "SparsityEnforcer"])
def test_targets_of_every_dtype(name, contract):
    call, target = whole(FORM_OF[contract]), FORMS[FORM_OF[contract]].contract.target
    if target is not LABELS:  # what bool and integers can hold
        hot = np.random.default_rng(4).random(np.shape(call.target)) < 0.5
        call = call.but(target=hot.astype(float))
    wanted = call.value()
    with on(name) as backend:
        _, options = arguments(backend, call)
        spikes = backend.asarray(call.spikes)
        for dtype in there(backend, target.dtypes):
            value = call.loss(spikes, backend.asarray(call.target, dtype), **options)
            assert value.dtype == spikes.dtype
            close(backend.numpy(value), wanted, backend.rtol)
        others = {"bool", *INTEGERS, *FLOATS} - set(target.dtypes)
        for dtype in there(backend, sorted(others)):
            with pytest.raises(TypeError, match=rf"target must .*{dtype}"):
                call.loss(spikes, backend.asarray(call.target, dtype))


@one_jax
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_long_sums_in_half_precision(backend, dtype):
    """Counts stall at 2048 in float16 and at 256 in bfloat16, and squares overflow."""
    if not there(backend, [dtype]):
        pytest.skip(f"{backend.library} has no {dtype}")
    steps = 70000  # more than float16 can tell
    losses = [
        sx.SpikeRate(1, 0, readout="count"),
        sx.SpikeMax(),
        sx.SpikeRate(0.5, 0.5, num_classes=1),
    ]
    sparsity = sx.SparsityEnforcer(0.25, per="neuron")

    def run(spikes, label, lengths):
        terms = [loss(spikes, label, lengths=lengths) for loss in losses]
        return [*terms, sparsity(spikes, lengths=lengths)]

    spikes = np.ones((1, 2, steps))
    spikes[0, 1, ::2] = 0  # a rate of 1/2
    arrays = backend.asarray(spikes, dtype), backend.asarray([0]), backend.asarray([steps - 2])
    got = [float(value) for value in backend.compiled(run)(*arrays)]
    wanted = [(steps / 2 - 1) ** 2, np.log(1.5), 0.25**2, (0.75**2 + 0.25**2) / 2]
    np.testing.assert_allclose(got, wanted, rtol=1e-5)  # as `Backend.rtol` of float32
