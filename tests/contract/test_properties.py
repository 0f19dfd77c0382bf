"""Properties that hold for every loss and every valid call, on random calls.

The calls have seeds, as those of `test_differential.py`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import reference
from _support.backends import TESTED, on
from _support.calls import (
    Call,
    agree,
    run,
    take_samples,
    take_steps,
    with_layout,
    with_nan_where_masked,
)
from _support.cases import close
from _support.contract import FLOATS, INTEGERS, WINDOWED
from _support.random_calls import (
    MIN_SCALE,
    RandomCall,
    check_and_shrink,
    is_published,
    pick,
    random_call,
    tolerance,
)

QUICK = {  # the number of seeds
    **{"numpy": 60, "torch": 30, "array-api-strict": 15, "array-api-strict-device1": 2},
    **{"cupy": 20, "torch-cuda": 20},
}
SPACING = {"float16": 2.0**-11, "bfloat16": 2.0**-8}  # half a unit in the last place


def for_all(
    *,
    kinds: tuple[str, ...] = ("small",),
    masked: bool = True,
    accept: Callable[[Call], bool] = lambda call: True,
) -> Callable[[Callable[..., None]], Any]:
    """Check a property of the accepted calls on every backend, but for the published numerics.

    `check` gets a backend, a random call, a random generator, and a layout of the call.
    """

    def accepted(call: Call) -> bool:
        return not is_published(call) and accept(call)

    def decorate(check: Callable[..., None]) -> Any:
        def test(name: str, seeds: Any) -> None:
            with on(name) as backend:
                for seed in seeds(QUICK.get(name, 1), slow=8):
                    kind = kinds[seed % len(kinds)]
                    drawn = random_call(seed, kind, masked=masked, accept=accepted)

                    def check_drawn(drawn: RandomCall, seed: int = seed) -> None:
                        random = np.random.default_rng([seed, 2])
                        if accepted(drawn.call):
                            check(backend, drawn.call, random, drawn.layout)

                    file = "tests/contract/test_properties.py"
                    repeat = f"'{file}::{check.__name__}[{name}]' --seed {seed}"
                    check_and_shrink(check_drawn, drawn, repeat)

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return pytest.mark.parametrize("name", TESTED)(test)

    return decorate


@for_all()
def test_value_and_gradient_match_the_reference_in_every_dtype(backend, call, random, layout):
    dtype, call = pick(random, *FLOATS, "bool", *INTEGERS), with_layout(call, *layout)
    binary = bool(np.isin(call.spikes, (0, 1)).all())
    if not backend.has(dtype) or not (binary or dtype in FLOATS):
        dtype = backend.dtype
    value, gradient = call.on(backend, dtype)
    rtol = tolerance("float64" if dtype == "float64" else "float32", call) + SPACING.get(dtype, 0)
    agree(call, (value, gradient.astype(np.float64)), rtol, min_scale=MIN_SCALE)


@for_all()
def test_layout_does_not_change_the_result(backend, call, random, layout):
    value, gradient = call.on(backend)
    got, moved_gradient = with_layout(call, *layout).on(backend)
    # the cotangent has the layout of the terms, so the terms are moved in its place
    close(got, with_layout(call.replace(cotangent=value), *layout).cotangent, backend.rtol)
    moved = np.moveaxis(moved_gradient, layout[1], -1).reshape(gradient.shape)
    close(moved, gradient, backend.rtol)


@for_all()
def test_sample_order_does_not_change_the_result(backend, call, random, layout):
    order = random.permutation(len(call.spikes))
    value, gradient = call.on(backend)
    permuted_value, permuted_gradient = take_samples(call, order).on(backend)
    close(permuted_value, value[order] if np.ndim(value) else value, backend.rtol)
    close(permuted_gradient, gradient[order], backend.rtol)


def in_segments(call: Call) -> bool:
    """Tell whether sums of segments of time add up: docs/segments.md names the one exception."""
    loss = call.loss
    some_neurons = loss.num_classes and np.ndim(call.where) == 3 if hasattr(loss, "mode") else False
    return loss.memory is not None and loss.reduction != "batchmean" and not some_neurons


@for_all(
    kinds=("small", "small", "times"),
    accept=lambda call: getattr(call.loss, "reduction", "none") != "none",
)
def test_sums_of_parts_add_up(backend, call, random, layout):
    """Of two micro-batches or, with a term at each step, of two segments of time."""
    segments = random.random() < 0.7 and in_segments(call)
    memory, size = (call.loss.memory, call.spikes.shape[-1]) if segments else (0, len(call.spikes))
    cut, total, weight, pullbacks = random.integers(size + 1), 0.0, 0.0, []
    for start, stop in ((0, cut), (cut, size)) if 0 < cut < size else ((0, size),):
        first = max(start - memory, 0)
        part = (take_steps if segments else take_some)(call, first, stop)
        part = with_layout(part, *layout) if layout else part
        target, options = part.arguments(backend)
        context = {"context": int(start - first)} if segments else {}
        spikes = backend.asarray(part.spikes)
        given = part.loss.sum_weight_and_pullback(spikes, *target, **context, **options)
        total, weight = total + backend.numpy(given[0]), weight + backend.numpy(given[1])
        pullbacks.append((given[2], first, stop))
    divisor = 1.0 if call.loss.reduction == "sum" else weight or 1.0
    value, expected = call.replace(cotangent=None).on(backend)
    np.testing.assert_allclose(total / divisor, value, rtol=backend.rtol, atol=1e-13)
    gradient = np.zeros(call.spikes.shape)
    for pullback, first, stop in pullbacks:
        slope = backend.numpy(pullback(backend.asarray(np.asarray(1.0 / divisor))))
        at = (..., slice(first, stop)) if segments else slice(first, stop)
        slope = np.moveaxis(slope, layout[1], -1) if layout else slope
        gradient[at] += slope.reshape(gradient[at].shape)
    close(gradient, expected, backend.rtol)


def take_some(call: Call, first: int, stop: int) -> Call:
    """Return the same call with some of the samples."""
    return take_samples(call, range(first, stop))


@for_all(masked=False)
def test_mask_equals_cropping(backend, call, random, layout):
    """The mask removes some samples and the last steps."""
    batch, _, steps = call.spikes.shape
    samples = np.sort(random.permutation(batch)[: random.integers(1, batch + 1)])
    last = random.integers(1, steps + 1)
    mask = np.zeros(call.spikes.shape, dtype=bool)
    mask[samples, :, :last] = True
    if random.random() < 0.5:
        masked = with_nan_where_masked(call.replace(where=mask))
    else:
        masked = call.replace(where=mask[:, 0, 0], lengths=np.full(batch, last))
        masked = with_nan_where_masked(masked)
    cropped = take_steps(take_samples(call, samples), 0, last)
    value, gradient = masked.on(backend)
    expected, expected_gradient = cropped.on(backend)
    if np.ndim(value):  # crop the terms as a cotangent, which has the same layout
        remaining = take_samples(call.replace(cotangent=value), samples)
        remaining = take_steps(remaining, 0, last).cotangent
        assert np.count_nonzero(value) == np.count_nonzero(remaining)
        value = remaining
    close(value, expected, backend.rtol)
    close(gradient[samples, :, :last], expected_gradient, backend.rtol)
    assert not gradient[~mask].any()


UNSCALED = ("latency", "softmax_sum", "sqrt_count")


def scaled(call: Call, factor: float) -> tuple[Call, int] | None:
    """Return a call with scaled spikes and parameters, and which power of the factor its value has.

    None for losses of which no parameters undo the scale.
    """
    loss, target, power = call.loss, call.target, 2
    if isinstance(loss, sx.SpikeTime):
        target = target * factor
    elif isinstance(loss, sx.SparsityEnforcer):
        power = loss.power
        loss = dataclasses.replace(
            loss, max_rate=loss.max_rate * factor, min_rate=loss.min_rate * factor
        )
    elif isinstance(loss, sx.SpikeLatency) or loss.readout in UNSCALED:
        return None
    elif isinstance(loss, sx.SpikeMoid):
        loss = dataclasses.replace(loss, alpha=loss.alpha * factor, theta=loss.theta * factor)
        power = 0
    elif isinstance(loss, sx.CrossEntropy):
        loss, power = dataclasses.replace(loss, temperature=loss.temperature * factor), 0
    elif isinstance(loss, sx.SpikeRate) and loss.readout not in WINDOWED:
        rates = (np.multiply(rate, factor).tolist() for rate in (loss.true_rate, loss.false_rate))
        loss = dataclasses.replace(
            loss, **dict(zip(("true_rate", "false_rate"), rates, strict=True))
        )
    else:
        return None
    return call.replace(loss=loss, spikes=call.spikes * factor, target=target), power


@for_all(accept=lambda call: scaled(call, 2.0) is not None)
def test_scaling_spikes_equals_scaling_parameters(backend, call, random, layout):
    """Scaling spikes and parameters by a power of 2 multiplies the value by a power of it."""
    factor = pick(random, 0.5, 2.0, 4.0)
    value, gradient = call.on(backend)
    scaled_call, power = scaled(call, factor)
    got, scaled_gradient = scaled_call.on(backend)
    close(got, value * factor**power, backend.rtol)
    close(scaled_gradient, gradient * factor ** (power - 1), backend.rtol)


def is_decided(call: Call) -> bool:
    """Tell whether a loss predicts, and no prediction depends on the rounding of a reading."""
    loss = call.loss
    if not hasattr(loss, "num_classes") or isinstance(loss, sx.SquaredError):
        return False
    readout = getattr(loss, "readout", "latency")
    counts = readout not in ("latency", "softmax_sum") and not isinstance(loss, sx.SpikeRate)
    if counts and not (loss.num_classes and np.ndim(call.where) == 3):
        return True
    ordered = []
    for per_step in (False, True):
        score, mask = reference.scores(call.loss, call.spikes, call.where, call.lengths, per_step)
        ordered.append(np.sort(np.where(mask, score, np.nan), axis=1))
    if isinstance(loss, sx.SpikeMoid):
        return not any((abs(score) < 1e-9).any() for score in ordered)
    return not any((abs(np.diff(score, axis=1)) < 1e-9).any() for score in ordered)


@for_all(kinds=("small", "small", "times"), accept=is_decided)
def test_predictions_and_their_counts_match_the_reference(backend, call, random, layout):
    loss, options, independent = call.loss, call.options, isinstance(call.loss, sx.SpikeMoid)
    options.pop("weight", None)
    per_step = bool(random.random() < 0.7 and getattr(loss, "moving_window", None))
    score, mask = reference.scores(loss, call.spikes, call.where, call.lengths, per_step)
    predicted = reference.predictions(score, mask, independent=independent)
    label = random.integers(2 if independent else score.shape[1], size=predicted.shape)
    ignored = None if independent else loss.ignore_index
    label = (
        label == 1 if independent else np.where(random.random(label.shape) < 0.2, ignored, label)
    )
    counts = reference.confusion(predicted, mask, label, ignored)
    shown = [x if independent else x[:, 0] for x in (label, predicted)]
    shown = [x if per_step else x[..., 0] for x in shown]
    placed = call.replace(target=shown[0], cotangent=shown[1] if per_step else None)
    placed = with_layout(placed, *layout) if layout else placed
    masks = {name: x for name, x in placed.options.items() if name != "weight"}
    steps = {"per_step": True} if per_step else {}

    def evaluate(x: Any, y: Any, **masks: Any) -> Any:
        counted = [f(x, y, **masks) for f in (placed.loss.confusion, placed.loss.accuracy)]
        return [placed.loss.predict(x, **steps, **masks), *counted]

    got = run(backend, evaluate, placed.spikes, placed.target, **masks)
    np.testing.assert_array_equal(got[0], placed.cotangent if per_step else shown[1])
    np.testing.assert_array_equal(got[1], counts)
    right = np.trace(counts, axis1=-2, axis2=-1).sum()
    np.testing.assert_allclose(got[2], right / counts.sum() if counts.any() else np.nan, rtol=1e-6)
