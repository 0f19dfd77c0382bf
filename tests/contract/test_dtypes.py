"""Losses accept targets of the listed dtypes, and sum spikes of half precision without loss.

The random calls of test_differential.py have spikes of every dtype.
"""

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.backends import TESTED, on
from _support.calls import example, one_jax
from _support.cases import close
from _support.contract import CONTRACTS, FLOATS, FORMS, INTEGERS, LABELS

FORM_OF = {
    "SpikeTime": "SpikeTime",
    "SpikeRate": "SpikeRate-rate",
    "SpikeMax": "SpikeMax",
    "CrossEntropy": "CrossEntropy-groups-cold-rate",
    "CrossEntropy-probabilities": "CrossEntropy-probabilities-sqrt_count",
    "SpikeLatency": "SpikeLatency",
    "SpikeLatency-times": "SpikeLatency-times-groups",
    "SquaredError": "SquaredError-rate",
    "SpikeMoid": "SpikeMoid-rate",
    "SparsityEnforcer": "SparsityEnforcer-neuron",
}


assert list(FORM_OF) == [contract.name for contract in CONTRACTS]

# JAX compiles a computation for each dtype, so its backends test one loss each.
JAX_CONTRACTS = {"jax": ("SpikeMax",), "jax-x64": ("SpikeRate",), "jax-cuda": ("SpikeMax",)}
PAIRS = [
    (name, contract)
    for name in TESTED
    for contract in JAX_CONTRACTS.get(name, FORM_OF)
    if contract != "SparsityEnforcer"
]


def supported_dtypes(backend, dtypes):
    """Return the dtypes that the library supports in the state under test."""
    return [dtype for dtype in dtypes if backend.has(dtype)]


def binary_call(form):
    """Return a call with spikes of 0 and 1, which every dtype represents exactly."""
    call = example(FORMS[form])
    spikes = np.random.default_rng(3).random(call.spikes.shape) < 0.4
    call = call.replace(spikes=spikes.astype(float), lengths=np.asarray([6, 5, 2, 6, 4]))
    if "weight" in FORMS[form].contract.call:
        call = call.replace(weight=np.asarray([0.5, 1, 2, 0.25]))
    return call


@pytest.mark.parametrize(("name", "contract"), PAIRS)
def test_targets_accept_listed_dtypes_and_reject_others(name, contract):
    call, target = binary_call(FORM_OF[contract]), FORMS[FORM_OF[contract]].contract.target
    if target is not LABELS:  # values that bool and integers represent exactly
        binary_target = np.random.default_rng(4).random(np.shape(call.target)) < 0.5
        call = call.replace(target=binary_target.astype(float))
    expected = call.value()
    with on(name) as backend:
        _, options = call.arguments(backend)
        spikes = backend.asarray(call.spikes)
        evaluate = backend.compiled(lambda *y: [call.loss(spikes, x, **options) for x in y])
        listed = supported_dtypes(backend, target.dtypes)
        for value in evaluate(*(backend.asarray(call.target, dtype) for dtype in listed)):
            assert value.dtype == spikes.dtype
            close(backend.numpy(value), expected, backend.rtol)
        others = {"bool", *INTEGERS, *FLOATS} - set(target.dtypes)
        for dtype in supported_dtypes(backend, sorted(others)):
            with pytest.raises(TypeError, match=rf"target must .*{dtype}"):
                call.loss(spikes, backend.asarray(call.target, dtype))


@one_jax
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_sums_over_many_steps_stay_accurate(backend, dtype):
    """Summed in the dtype of the input, float16 counts stall at 2048 and bfloat16 counts at 256."""
    if not supported_dtypes(backend, [dtype]):
        pytest.skip(f"{backend.library} has no {dtype}")
    steps = 70000  # above the maximum of float16
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
    expected = [(steps / 2 - 1) ** 2, np.log(1.5), 0.25**2, (0.75**2 + 0.25**2) / 2]
    np.testing.assert_allclose(got, expected, rtol=1e-5)  # as `Backend.rtol` of float32
