"""Properties that hold for every loss and every valid call, checked by Hypothesis.

The examples are the same in every run. Hypothesis draws the loss, its options, the layout, the
masks, and a seed for the numbers, which avoid points where a loss is not differentiable.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("hypothesis")

from hypothesis import assume, given, settings
from hypothesis import strategies as st

import spikeloss_xp as sx
from _support import reference
from _support.backends import TESTED, on
from _support.calls import (
    IGNORED,
    Call,
    agree,
    arguments_with_time,
    take_samples,
    with_layout,
    with_nan_where_masked,
)
from _support.cases import close
from _support.contract import COMPETING, FLOATS, INTEGERS, WINDOWED

EXAMPLES = {  # few for JAX, which compiles each of them
    "numpy": 200,
    "torch": 100,
    "jax": 6,
    "jax-x64": 12,
    "array-api-strict": 100,
    "array-api-strict-device1": 20,
    "cupy": 20,
    "torch-cuda": 20,
    "jax-cuda": 6,
}
MIN_SCALE = 0.01
"""Terms are around 1. Smaller ones are differences of such numbers, and no more accurate."""
SPACING = {"float16": 2.0**-11, "bfloat16": 2.0**-8}  # half a unit in the last place


def for_all(share: float = 1.0, **strategies: Any) -> Callable[[Callable[..., None]], Any]:
    """Check a property on every backend, with `share` times its number of examples."""

    def decorate(check: Callable[..., None]) -> Any:
        def test(name: str) -> None:
            examples = max(2, round(share * EXAMPLES.get(name, 100)))
            chosen = settings(max_examples=examples, derandomize=True, deadline=None, database=None)
            with on(name) as backend:
                chosen(given(**strategies)(check))(backend)

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return pytest.mark.parametrize("name", TESTED)(test)

    return decorate


# Strategies --------------------------------------------------------------------------------------

LOSSES = (sx.SpikeTime, sx.SpikeRate, sx.SpikeMax, sx.SpikeMoid, sx.SparsityEnforcer)
SHAPES = ((3, 6, 5), (2, 4, 3), (2, 1, 4))  # batch, neurons, time
SPACES = {6: ((6,), (2, 3)), 4: ((4,), (2, 2)), 1: ((1,), (1, 1), ())}
POTENTIALS = (0.6875, 0.0625, 1.4375, -0.5625)  # the first two are also valid rates
PSEUDO_COUNTS = (0.45, 0.3, 1.7)  # never equal to a count of spikes, which is in eighths


@st.composite
def losses(draw: Any, neurons: int, kinds: tuple[type, ...] = LOSSES) -> Any:
    """Draw a loss of one of the kinds, with options that fit the number of neurons."""
    kind, pick = draw(st.sampled_from(kinds)), lambda *of: draw(st.sampled_from(of))
    if kind is sx.SparsityEnforcer:
        options = {"min_rate": pick(0.0, 0.53), "per": pick("array", "neuron")}
        return kind(pick(0.53, 0.77), pick(1.0, 2.5), **options)
    options = {"reduction": pick("none", "sum", "mean", "batchmean")}
    if kind is sx.SpikeTime:
        if pick(True, False, False):
            return kind(kernel=pick((0.75,), (0.0, 1.0, -0.5), (1.0,) * 7), **options)
        return kind(pick(0.75, 3.0), pick(1, 4, 100), pick(1, 2), **options)
    if kind is sx.SpikeMax and pick(True, False):
        options |= {"mode": "softmax", "temperature": pick(1.0, 0.25)}
    readouts = (
        WINDOWED if kind is sx.SpikeMax and "mode" not in options else (*WINDOWED, "max", "last")
    )
    if "mode" in options:
        readouts = (*readouts, *COMPETING)
    options["readout"] = pick(*readouts)
    if options["readout"] in WINDOWED:
        options["moving_window"] = pick(None, 1, 2, 7)
    group = 1 if options["readout"] == "max" else pick(*(n for n in (1, 2, 3) if neurons % n == 0))
    if group > 1:
        options["num_classes"] = neurons // group
    if kind is sx.SpikeMax:
        return kind(label_smoothing=pick(0.0, 0.25), pseudo_count=pick(*PSEUDO_COUNTS), **options)
    if kind is sx.SpikeMoid:
        options["pos_weight"] = pick(
            1.0, 2.5, tuple(pick(0.25, 4.0) for _ in range(neurons // group))
        )
        return kind(alpha=pick(1.0, 0.25), theta=pick(0.0, 0.375), **options)
    targets = POTENTIALS if options["readout"] not in WINDOWED else POTENTIALS[:2]
    per_class = tuple(pick(*targets) for _ in range(neurons // group))
    return kind(pick(pick(*targets), per_class), pick(*targets), **options)


@st.composite
def calls(draw: Any, kinds: tuple[type, ...] = LOSSES, *, masked: bool = True) -> Call:
    """Draw a call with time as the last axis and one class axis."""
    batch, neurons, steps = shape = draw(st.sampled_from(SHAPES))
    loss = draw(losses(neurons, kinds))
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    call = Call(loss, _spikes(draw, random, loss, shape))
    call = call.replace(target=_target(draw, random, loss, shape))
    if isinstance(loss, sx.SpikeRate | sx.SpikeMax | sx.SpikeMoid) and draw(st.booleans()):
        call = call.replace(weight=random.choice([0, 0.25, 1, 2], size=loss.num_classes or neurons))
    if masked:
        axes = draw(st.sampled_from((None, (0,), (0, 2), (0, 1, 2))))
        if axes is not None:  # mask single entries, and some samples or neurons at all steps
            where = random.random([shape[axis] for axis in axes]) < 0.75
            call = call.replace(where=where & (random.random(where.shape[:-1])[..., None] < 0.8))
        if draw(st.booleans()):
            call = call.replace(lengths=random.integers(0, steps + 1, size=batch))
        if draw(st.booleans()):
            call = with_nan_where_masked(call)
    return call.with_loss_options()


def _spikes(draw: Any, random: Any, loss: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Draw spikes in eighths or ones, exact in every dtype; some neurons never or always spike."""
    if getattr(loss, "readout", None) == "max":  # all steps differ, so that the maximum is unique
        return random.permuted(np.broadcast_to(np.arange(1.0, 1 + shape[-1]) / 8, shape), axis=-1)
    binary = draw(st.booleans())
    size = np.ones(shape) if binary else random.integers(1, 9, size=shape) / 8
    if isinstance(loss, sx.SparsityEnforcer):  # no zeros, where |x| is not differentiable
        return size * random.choice([-1, 1], size=shape)
    if not binary and not (isinstance(loss, sx.SpikeMax) and loss.mode == "probability"):
        size *= random.choice([-1, 1], size=shape)
    return size * (random.random(shape) < random.choice([0, 0.5, 1], size=(*shape[:2], 1)))


def _target(draw: Any, random: Any, loss: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    batch, neurons, steps = shape
    if isinstance(loss, sx.SparsityEnforcer):
        return None
    if isinstance(loss, sx.SpikeTime):
        return random.integers(0, 9, size=shape) / 8
    time = (steps,) if loss.moving_window and draw(st.booleans()) else ()
    classes = loss.num_classes or neurons
    if isinstance(loss, sx.SpikeMoid):
        return random.integers(0, 9, size=(batch, classes, *time)) / 8
    label = random.integers(classes, size=(batch, *time))
    return np.where(random.random(label.shape) < 0.2, IGNORED, label)


@st.composite
def layouts(draw: Any, call: Call) -> tuple[tuple[int, ...], int]:
    """Draw lengths of class axes to replace the single one, and a time axis."""
    spaces = SPACES[call.spikes.shape[1]]
    # these losses require a class axis
    if isinstance(call.loss, sx.SpikeRate | sx.SpikeMax | sx.SpikeMoid):
        spaces = spaces[:2]
    space = draw(st.sampled_from(spaces))
    return space, draw(st.sampled_from((-1, *range(2 + len(space)))))


@st.composite
def calls_with_layout(draw: Any) -> Call:
    call = draw(calls())
    return with_layout(call, *draw(layouts(call)))


# Properties --------------------------------------------------------------------------------------


@for_all(call=calls_with_layout(), dtype=st.sampled_from((*FLOATS, "bool", *INTEGERS)))
def test_value_and_gradient_match_the_reference(backend, call, dtype):
    binary = bool(np.isin(call.spikes, (0, 1)).all())
    lacks_64_bits = backend.lacks_64_bits and dtype.endswith("64")
    if not hasattr(backend.xp, dtype) or lacks_64_bits or not (binary or dtype in FLOATS):
        dtype = backend.dtype
    value, gradient = call.on(backend, dtype)
    rtol = {"float64": 1e-12}.get(dtype, 1e-5)  # as `Backend.rtol`
    agree(
        call,
        (value, gradient.astype(np.float64)),
        rtol + SPACING.get(dtype, 0),
        min_scale=MIN_SCALE,
    )


@for_all(0.5, call=calls(), data=st.data())
def test_layout_does_not_change_the_result(backend, call, data):
    value, gradient = call.on(backend)
    space, axis = data.draw(layouts(call))
    got, moved_gradient = with_layout(call, space, axis).on(backend)
    # the cotangent has the layout of the terms, so the terms are moved in its place
    close(got, with_layout(call.replace(cotangent=value), space, axis).cotangent, backend.rtol)
    close(np.moveaxis(moved_gradient, axis, -1).reshape(gradient.shape), gradient, backend.rtol)


@for_all(0.5, call=calls(), seed=st.integers(0, 99))
def test_sample_order_does_not_change_the_result(backend, call, seed):
    order = np.random.default_rng(seed).permutation(len(call.spikes))
    value, gradient = call.on(backend)
    permuted_value, permuted_gradient = take_samples(call, order).on(backend)
    close(permuted_value, value[order] if np.ndim(value) else value, backend.rtol)
    close(permuted_gradient, gradient[order], backend.rtol)


LOSSES_WITH_REDUCTION = (sx.SpikeTime, sx.SpikeRate, sx.SpikeMax, sx.SpikeMoid)


@for_all(0.5, call=calls(LOSSES_WITH_REDUCTION))
def test_sum_over_a_batch_equals_sum_over_its_samples(backend, call):
    call = call.with_loss_options(reduction="sum").replace(cotangent=None)
    value, gradient = call.on(backend)
    per_sample = [take_samples(call, [b]).on(backend) for b in range(len(call.spikes))]
    np.testing.assert_allclose(value, sum(v for v, _ in per_sample), rtol=backend.rtol)
    close(gradient, np.concatenate([g for _, g in per_sample]), backend.rtol)


@for_all(0.5, call=calls(masked=False), seed=st.integers(0, 99))
def test_mask_equals_cropping(backend, call, seed):
    """The mask removes some samples and the last steps."""
    batch, _, steps = call.spikes.shape
    random = np.random.default_rng(seed)
    samples, last = np.flatnonzero(random.random(batch) < 0.7), random.integers(1, steps + 1)
    assume(len(samples))
    mask = np.zeros(call.spikes.shape, dtype=bool)
    mask[samples, :, :last] = True
    if random.random() < 0.5:
        masked = with_nan_where_masked(call.replace(where=mask))
    else:
        masked = call.replace(where=mask[:, 0, 0], lengths=np.full(batch, last))
        masked = with_nan_where_masked(masked)
    cropped = take_first_steps(take_samples(call, samples), last)
    value, gradient = masked.on(backend)
    expected, expected_gradient = cropped.on(backend)
    if np.ndim(value):  # crop the terms as a cotangent, which has the same layout
        remaining = take_samples(call.replace(cotangent=value), samples)
        remaining = take_first_steps(remaining, last).cotangent
        assert np.count_nonzero(value) == np.count_nonzero(remaining)
        value = remaining
    close(value, expected, backend.rtol)
    close(gradient[samples, :, :last], expected_gradient, backend.rtol)
    assert not gradient[~mask].any()


def take_first_steps(call: Call, last: int) -> Call:
    """Return the same call with the first steps only."""
    cropped = {name: getattr(call, name)[..., :last] for name in arguments_with_time(call)}
    return call.replace(**cropped)


@for_all(0.5, call=calls(), factor=st.sampled_from((0.5, 2.0, 4.0)))
def test_scaling_spikes_equals_scaling_parameters(backend, call, factor):
    """Scaling spikes and parameters by a power of 2 multiplies the value by a power of it."""
    loss, power = call.loss, 2
    target = call.target
    if isinstance(loss, sx.SpikeTime):
        target = target * factor
    elif isinstance(loss, sx.SparsityEnforcer):
        loss = dataclasses.replace(
            loss, max_rate=loss.max_rate * factor, min_rate=loss.min_rate * factor
        )
    elif isinstance(loss, sx.SpikeMoid):
        loss, power = (
            dataclasses.replace(loss, alpha=loss.alpha * factor, theta=loss.theta * factor),
            0,
        )
    elif isinstance(loss, sx.SpikeMax) and loss.mode == "softmax":
        assume(loss.readout not in COMPETING)
        loss, power = dataclasses.replace(loss, temperature=loss.temperature * factor), 0
    elif isinstance(loss, sx.SpikeRate) and loss.readout not in WINDOWED:
        rates = (np.multiply(rate, factor).tolist() for rate in (loss.true_rate, loss.false_rate))
        loss = dataclasses.replace(
            loss, **dict(zip(("true_rate", "false_rate"), rates, strict=True))
        )
    else:
        assume(False)
    value, gradient = call.on(backend)
    scaled = call.replace(loss=loss, spikes=call.spikes * factor, target=target)
    got, scaled_gradient = scaled.on(backend)
    close(got, value * factor**power, backend.rtol)
    close(scaled_gradient, gradient * factor ** (power - 1), backend.rtol)


@for_all(0.5, call=calls(masked=False))
def test_silent_input_has_a_known_value(backend, call):
    loss, (_, neurons, steps) = call.loss, call.spikes.shape
    call = call.replace(spikes=np.zeros(call.spikes.shape), weight=None, cotangent=None)
    if not isinstance(loss, sx.SparsityEnforcer):
        call = call.replace(loss=dataclasses.replace(loss, reduction="mean"))
    if isinstance(loss, sx.SpikeRate | sx.SpikeMax):
        assume((call.target != IGNORED).any())
        classes = loss.num_classes or neurons
        # the number of steps in a count; rates are averages
        length = (loss.moving_window or steps) if loss.readout == "count" else 1
    if isinstance(loss, sx.SparsityEnforcer):
        expected = loss.lam * loss.min_rate**2
    elif isinstance(loss, sx.SpikeTime):
        call, expected = call.replace(target=call.spikes), 0.0
    elif isinstance(loss, sx.SpikeMoid):
        z = -loss.theta / loss.alpha
        positive = np.broadcast_to(loss.pos_weight, call.target.shape[1]) * np.moveaxis(
            call.target, 1, -1
        )
        expected = positive.mean() * math.log1p(math.exp(-z))
        expected += (1 - call.target.mean()) * math.log1p(math.exp(z))
    elif isinstance(loss, sx.SpikeRate):
        true, false = (
            np.broadcast_to(r, classes) * length for r in (loss.true_rate, loss.false_rate)
        )
        labels = call.target[call.target != IGNORED]
        terms = [true[label] ** 2 + (false**2).sum() - false[label] ** 2 for label in labels]
        expected = np.mean(terms) / classes
    elif loss.mode == "softmax":
        expected = math.log(classes)
    else:  # one nat worse than guessing
        divisor = 1 if loss.readout == "count" else loss.moving_window or steps
        min_reading = loss.pseudo_count / divisor / (neurons // classes)
        expected = 1 + math.log(classes + reference.EPSILON / min_reading)
    value, gradient = call.on(backend)
    close(value, np.asarray(expected), backend.rtol)
    assert np.isfinite(gradient).all()
