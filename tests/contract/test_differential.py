"""Random calls of every loss and option agree with the float64 reference on every backend.

Values and gradients, in every dtype, layout and reduction, with masks, weights and ignored labels.
A new option of a loss belongs in `_loss` of random_calls.py, and its formula in reference.py:
test_contract.py fails without them.

Each call is drawn from a seed. The quick run has a few seeds and the slow run more, and two runs
have the same ones. ``--new-seeds SECONDS`` draws new ones. A failure names its seed, and ``--seed``
runs that one alone.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import reference
from _support.backends import TESTED, Backend, on
from _support.calls import Call, agree, take_samples, with_layout
from _support.contract import COMPUTED_IN, FLOATS, INTEGERS
from _support.random_calls import (
    MIN_SCALE,
    ON_TIMES,
    RandomCall,
    in_other_memory,
    is_published,
    named,
    pick,
    random_call,
    tolerance,
)
from spikeloss_xp import _tuning

# A drawn batch may have no spike at all.
pytestmark = pytest.mark.filterwarnings("ignore:no spike in the batch is before")

QUICK = {  # the number of seeds of each kind
    "small": {"numpy": 340, "torch": 100, "array-api-strict": 100, "jax-x64": 8},
    "times": {"numpy": 120, "torch": 30, "array-api-strict": 20, "jax-x64": 2},
    "long": {"numpy": 40, "torch": 10, "array-api-strict": 4, "jax-x64": 1},
    "large": {"numpy": 4, "torch": 4, "array-api-strict": 1, "jax-x64": 1},
}
SPACING = {"float16": 2.0**-11, "bfloat16": 2.0**-8}  # half a unit in the last place
# Arrays are split from two chunks on. Two chunks of NumPy are as large as a chunk of PyTorch.
THRESHOLDS = _tuning.CHUNK, 2 * _tuning.CHUNK, 2 * _tuning.AUTOGRAD_CHUNK

Evaluate = Callable[[Backend, Call, Any], tuple[Any, Any]]


# How a value and a gradient are obtained ---------------------------------------------------------


def by_value_and_grad(backend: Backend, call: Call, spikes: Any) -> tuple[Any, Any]:
    target, options = call.arguments(backend)
    evaluate = backend.compiled(sx.value_and_grad(call.loss))
    return evaluate(spikes, *target, cotangent=backend.asarray(call.cotangent), **options)


def by_closed_form(backend: Backend, call: Call, spikes: Any) -> tuple[Any, Any]:
    target, options = call.arguments(backend)

    def evaluate(spikes: Any, cotangent: Any, *target: Any, **options: Any) -> tuple[Any, Any]:
        value, pullback = call.loss.value_and_pullback(spikes, *target, **options)
        return value, pullback(backend.xp.astype(cotangent, value.dtype))

    return backend.compiled(evaluate)(spikes, backend.asarray(call.cotangent), *target, **options)


def by_backward(backend: Backend, call: Call, spikes: Any) -> tuple[Any, Any]:
    target, options = call.arguments(backend)
    spikes.requires_grad_()
    value = call.loss(spikes, *target, **options)
    value.backward(backend.asarray(call.cotangent).to(value.dtype))
    return value, spikes.grad


def by_jax_vjp(backend: Backend, call: Call, spikes: Any) -> tuple[Any, Any]:
    import jax

    target, options = call.arguments(backend)

    def evaluate(spikes: Any, cotangent: Any, target: Any, options: Any) -> tuple[Any, Any]:
        value, pullback = jax.vjp(lambda x: call.loss(x, *target, **options), spikes)
        return value, pullback(cotangent.astype(value.dtype))[0]

    return jax.jit(evaluate)(spikes, backend.asarray(call.cotangent), target, options)


WAYS: dict[str, tuple[Evaluate, ...]] = {
    "torch": (by_value_and_grad, by_closed_form, by_backward),
    "jax": (by_value_and_grad, by_closed_form, by_jax_vjp),
}


# The test ----------------------------------------------------------------------------------------


def check(backend: Backend, seed: int, kind: str) -> None:
    """Compare a random call, in a random dtype and by a random way, with the reference."""
    drawn = random_call(seed, kind, THRESHOLDS)
    random = np.random.default_rng([seed, 1])
    way = pick(random, *WAYS.get(backend.library, (by_value_and_grad,)))
    dtypes = ["float32", backend.dtype]
    if kind == "small":
        dtypes += FLOATS
        if way is by_value_and_grad and np.isin(drawn.call.spikes, (0, 1)).all():
            dtypes += ("bool", *INTEGERS)
    dtype = pick(random, *filter(backend.has, dtypes))
    if is_published(drawn.call):
        dtype = backend.dtype

    def run() -> None:
        call = drawn.in_full()
        spikes = backend.asarray(call.spikes, dtype)
        if backend.library == "numpy":
            spikes = in_other_memory(np.random.default_rng([seed, 2]), spikes)
        before = contents(backend, spikes, call)
        with np.errstate(all="ignore"):
            value, gradient = way(backend, call, spikes)
        check_dtypes(backend, dtype, value, gradient)
        assert contents(backend, spikes, call) == before  # nothing is changed in place
        got = backend.numpy(value), backend.numpy(gradient).astype(np.float64)
        computed_in = str(got[0].dtype)
        rtol = tolerance(computed_in, drawn.call) + SPACING.get(dtype, 0)
        # A small sum of logarithms near 0 has the absolute rounding error of each.
        roundings = float(np.finfo(computed_in).eps) * call.spikes.size
        if kind == "large":
            agree_with_samples(drawn, got, rtol, roundings)
        else:
            agree(call, got, rtol, min_scale=MIN_SCALE, roundings=roundings)
            check_masked_entries(call, *got)

    test = "test_differential.py::test_random_calls_agree_with_the_reference"
    repeat = f"'tests/contract/{test}[{backend.name}-{kind}]' --seed {seed}"
    with named(drawn, f"{repeat} ({way.__name__} in {dtype})"):
        run()


def contents(backend: Backend, spikes: Any, call: Call) -> list[bytes]:
    """Return the bytes of the spikes and of the target, whose memory some libraries share."""
    return [backend.numpy(spikes).tobytes(), np.asarray(call.target).tobytes()]


def check_dtypes(backend: Backend, dtype: str, value: Any, gradient: Any) -> None:
    """Assert that value and gradient have the dtypes of the page."""
    value_dtype = next(found for dtypes, (found, _) in COMPUTED_IN.items() if dtype in dtypes)
    if dtype in FLOATS:
        assert gradient.dtype == getattr(backend.xp, dtype)
        assert value.dtype == getattr(backend.xp, value_dtype)
    else:
        default = backend.xp.__array_namespace_info__().default_dtypes()["real floating"]
        assert value.dtype == gradient.dtype == default


def check_masked_entries(call: Call, value: np.ndarray, gradient: np.ndarray) -> None:
    """Assert that masked entries, and terms that do not count, are exactly 0."""
    loss, shape = call.loss, call.spikes.shape
    if isinstance(loss, ON_TIMES):  # in which a mask is of samples, and the last axis of spikes
        assert call.where is None or not gradient[~call.where].any()
        return
    axis = loss.time_axis
    mask = reference.full_mask(shape, axis, call.where, call.lengths)
    assert not reference.to_batch_class_time(gradient, axis)[~mask].any()
    if value.ndim:
        evaluated = reference.evaluate(loss, call.spikes, call.target, **call.options)
        assert not value[~reference.to_input_layout(loss, shape, evaluated.term_mask)].any()


def agree_with_samples(
    drawn: RandomCall, got: tuple[np.ndarray, np.ndarray], rtol: float, roundings: float
) -> None:
    """Assert that a call of repeated samples agrees with the reference of the distinct ones.

    `roundings` is the error of the sum of all terms, which is divided as the sum is.
    """
    call, samples, loss = drawn.call, drawn.samples, drawn.call.loss
    reduced = loss
    sparsity = isinstance(loss, sx.SparsityEnforcer)
    if not sparsity and loss.reduction != "none":
        reduced = dataclasses.replace(loss, reduction="sum")
    with on("numpy") as numpy:
        value, gradient = call.replace(loss=reduced).on(numpy)
    agree(call.replace(loss=reduced), (value, gradient), 1e-12, min_scale=MIN_SCALE)
    divisor = 1.0
    if sparsity:  # all samples are repeated equally often
        divisor = len(samples) / len(call.spikes)
        if loss.reduction == "sum" and loss.per.startswith("sample"):
            value, divisor = value * divisor, 1.0
    elif loss.reduction != "none":
        evaluated = reference.evaluate(loss, call.spikes, call.target, **call.options)
        repeated = reference.Terms(*(x[samples] for x in vars(evaluated).values()))
        divisor = reference.divisor(loss.reduction, repeated) or 1  # if nothing counts
        value = math.fsum(repeated.terms[repeated.term_mask]) / divisor
    terms = with_layout(
        take_samples(call.replace(cotangent=value), samples), *drawn.layout
    ).cotangent
    expected = gradient[samples]
    moved = np.moveaxis(got[1], drawn.layout[1], -1).reshape(expected.shape)
    pairs = ((got[0], terms, roundings / divisor), (moved * divisor, expected, 0.0))
    for ours, theirs, error in pairs:
        scale = max(MIN_SCALE, float(np.max(np.abs(theirs))))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=rtol * scale + error)


@pytest.mark.parametrize("kind", QUICK)
@pytest.mark.parametrize("name", TESTED)
def test_random_calls_agree_with_the_reference(name, kind, seeds, monkeypatch):
    with on(name) as backend:
        fewer = {"slow": 4} if backend.library == "jax" else {}  # each seed is compiled
        for seed in seeds(QUICK[kind].get(name, 1), **fewer):
            if kind == "small":  # every third one in chunks, as if it were large
                for chunk in ("CHUNK", "AUTOGRAD_CHUNK"):
                    monkeypatch.setattr(_tuning, chunk, 12 if seed % 3 == 0 else 1 << 18)
            check(backend, seed, kind)
