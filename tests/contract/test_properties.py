"""Properties that hold for every loss and every valid call, on random calls.

The calls have seeds, as those of `test_differential.py`.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import reference
from _support.backends import TESTED, on
from _support.calls import Call, run, take_samples, take_steps, with_layout, with_nan_where_masked
from _support.cases import close
from _support.random_calls import is_published, named, pick, random_call

# A drawn batch may have no spike at all.
pytestmark = pytest.mark.filterwarnings("ignore:no spike in the batch is before")

QUICK = {  # the number of seeds
    **{"numpy": 60, "torch": 30, "array-api-strict": 15, "array-api-strict-device1": 2},
    **{"cupy": 20, "torch-cuda": 20},
}


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
                for seed in seeds(QUICK.get(name, 1), slow=4):
                    kind = kinds[seed % len(kinds)]
                    drawn = random_call(seed, kind, masked=masked, accept=accepted)
                    random = np.random.default_rng([seed, 2])
                    file = "tests/contract/test_properties.py"
                    repeat = f"'{file}::{check.__name__}[{name}]' --seed {seed}"
                    with named(drawn, repeat):
                        check(backend, drawn.call, random, drawn.layout)

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return pytest.mark.parametrize("name", TESTED)(test)

    return decorate


def in_segments(call: Call) -> bool:
    """Tell whether sums of segments of time add up: docs/segments.md names the one exception."""
    loss = call.loss
    some_neurons = loss.num_classes and np.ndim(call.where) == 3 if hasattr(loss, "mode") else False
    return loss.memory is not None and loss.reduction != "batchmean" and not some_neurons


def check_sums_of_parts(backend: Any, call: Call, random: Any, layout: Any) -> None:
    """Of two micro-batches or, with a term at each step, of two segments of time.

    One of the micro-batches may have no samples.
    """
    segments = random.random() < 0.7 and in_segments(call)
    memory, size = (call.loss.memory, call.spikes.shape[-1]) if segments else (0, len(call.spikes))
    cut, parts, places = random.integers(size + 1), [], []
    whole = segments and not 0 < cut < size
    for start, stop in itertools.pairwise((0, size) if whole else (0, cut, size)):
        first = int(max(start - memory, 0))
        at = (..., slice(first, stop)) if segments else slice(first, stop)
        part = take_steps(call, first, stop) if segments else take_samples(call, at)
        part = with_layout(part, *layout) if layout else part
        target, options = part.arguments(backend)
        parts.append(([backend.asarray(part.spikes), *target], options))
        places.append((at, {"context": int(start) - first} if segments else {}))

    def evaluate(parts: Any) -> Any:
        given = [(x, kept | y) for (x, y), (_, kept) in zip(parts, places, strict=True)]
        sums = [part.loss.sum_and_weight(*x, **y) for x, y in given]
        total, weight = map(sum, zip(*sums, strict=True))
        pullbacks = [part.loss.sum_weight_and_pullback(*x, **y)[2] for x, y in given]
        one = backend.xp.ones_like(total)
        divisor = one
        if call.loss.reduction != "sum":  # the loss is 0 if nothing counts
            divisor = backend.xp.where(weight > 0, weight, one * math.inf)
        return total / divisor, [pullback(one / divisor) for pullback in pullbacks]

    value, slopes = backend.compiled(evaluate)(parts)
    expected, of_whole = call.replace(cotangent=None).on(backend)
    close(backend.numpy(value), expected, backend.rtol)
    gradient = np.zeros(call.spikes.shape)
    for slope, (at, _) in zip(map(backend.numpy, slopes), places, strict=True):
        slope = np.moveaxis(slope, layout[1], -1) if layout else slope
        gradient[at] += slope.reshape(gradient[at].shape)
    close(gradient, of_whole, backend.rtol)


@for_all(
    kinds=("small", "small", "times"),
    accept=lambda call: call.target is not None and call.loss.reduction != "none",
)
def test_sums_of_parts_add_up(backend, call, random, layout):
    check_sums_of_parts(backend, call, random, layout)


@for_all(accept=lambda call: call.target is None and call.loss.per.startswith("sample"))
def test_sums_of_a_penalty_of_samples_add_up(backend, call, random, layout):
    check_sums_of_parts(backend, call, random, layout)


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


@for_all(masked=False)
def test_mask_with_axes_of_length_1_equals_the_whole_mask(backend, call, random, layout):
    """Or with the axes of samples and time only, or of time only."""
    call = with_layout(call, *layout)
    shape, axis = call.spikes.shape, call.loss.time_axis
    batch, steps = np.moveaxis(np.empty(shape), axis, -1).shape[:: len(shape) - 1]
    whole = [pick(random, 1, size) for size in shape]
    of_time = (steps,) if steps != batch else (1, steps)  # otherwise it is a mask of samples
    short = pick(random, (batch, steps), (1, steps), of_time)
    sizes = pick(random, whole, short) if len(shape) > 2 else whole
    where = random.random(sizes) < 0.7
    full = np.broadcast_to(where, shape if len(sizes) == len(shape) else (batch, steps))
    if len(sizes) == 2 < len(shape):
        where = np.moveaxis(where, -1, reference.target_time_axis(shape, axis))
    if full.ndim < len(shape):
        full = np.moveaxis(full, -1, reference.target_time_axis(shape, axis))
    given = (call.replace(where=x).on(backend) for x in (where, full))
    for array, wanted in zip(*given, strict=True):
        close(array, wanted, backend.rtol)


def is_decided(call: Call) -> bool:
    """Tell whether a loss predicts, and no prediction depends on the rounding of a reading."""
    loss, arguments = call.loss, (call.spikes, call.where, call.lengths)
    if not hasattr(loss, "num_classes") or isinstance(loss, sx.SquaredError):
        return False
    readout = getattr(loss, "readout", "latency")  # spike times have only this one
    rounded = isinstance(loss, sx.SpikeRate) or readout in ("latency", "softmax_sum")
    if rounded or (loss.num_classes and np.ndim(call.where) == 3):
        both = [reference.scores(loss, *arguments, per_step) for per_step in (False, True)]
        gaps = [
            score if isinstance(loss, sx.SpikeMoid) else np.diff(np.sort(score, axis=1), axis=1)
            for score in (np.where(mask, score, np.nan) for score, mask in both)
        ]
        return not any((abs(gap) < 1e-9).any() for gap in gaps)
    return True


@for_all(kinds=("small", "small", "times"), accept=is_decided)
def test_predictions_and_their_counts_match_the_reference(backend, call, random, layout):
    loss, independent = call.loss, isinstance(call.loss, sx.SpikeMoid)
    per_step = bool(random.random() < 0.7 and getattr(loss, "moving_window", None))
    score, mask = reference.scores(loss, call.spikes, call.where, call.lengths, per_step)
    predicted = reference.predictions(score, mask, independent=independent)
    label = random.integers(2 if independent else score.shape[1], size=predicted.shape)
    ignored = None if independent else loss.ignore_index
    omitted = random.random(label.shape) < 0.2
    label = label == 1 if independent else np.where(omitted, ignored, label)
    if not independent:  # a label is not read where all classes are masked
        label = np.where(mask.any(axis=1, keepdims=True), label, 77)
    counts = reference.confusion(predicted, mask, label, ignored)
    shown = [x if independent else x[:, 0] for x in (label, predicted)]
    shown = [x if per_step else x[..., 0] for x in shown]
    placed = call.replace(target=shown[0], cotangent=shown[1] if per_step else None)
    placed = with_layout(placed, *layout) if layout else placed
    masks = {name: x for name, x in placed.options.items() if name != "weight"}
    steps = {"per_step": True} if per_step else {}

    def evaluate(x: Any, y: Any, **masks: Any) -> Any:
        counted = [f(x, y, **masks) for f in (placed.loss.confusion, placed.loss.accuracy)]
        scores = placed.loss.scores(x, **steps, **masks)
        return [placed.loss.predict(x, **steps, **masks), *counted, scores]

    got = run(backend, evaluate, placed.spikes, placed.target, **masks)
    np.testing.assert_array_equal(got[0], placed.cotangent if per_step else shown[1])
    np.testing.assert_array_equal(got[1], counts)
    right = np.trace(counts, axis1=-2, axis2=-1).sum()
    np.testing.assert_allclose(got[2], right / counts.sum() if counts.any() else np.nan, rtol=1e-6)
    some = np.broadcast_to(mask.any(axis=1, keepdims=True), score.shape)
    expected, compared = np.where(mask | ~some, score, -np.inf), got[3]
    if not per_step:
        some, expected = some[..., 0], expected[..., 0]
    elif layout:  # classes have one axis, and time has its place
        axis = min(layout[1] % placed.spikes.ndim, 2)
        some, expected = (np.moveaxis(x, -1, axis) for x in (some, expected))
    np.testing.assert_array_equal(np.isfinite(compared), np.isfinite(expected))
    rtol = 100 * backend.rtol
    np.testing.assert_allclose(compared[some], expected[some], rtol=rtol, atol=rtol)
