"""What a report says about a batch: its numbers and its findings.

The class `Batch` measures, and this module says which measurements are signs of a mistake.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from spikeloss_xp._arrays import concrete_or_none, floating, read_values
from spikeloss_xp.diagnosis import _layers, _losses, _spikes
from spikeloss_xp.diagnosis._report import Observations

if TYPE_CHECKING:
    from spikeloss_xp.diagnosis._batch import Batch

MOST_CLASSES = 100  # of a confusion matrix in a report
SOME = 0.5
MOST = 0.9
UNIT = 300  # if two times differ by a larger factor, one of them may have another unit


def share(what: Any, which: Any) -> float:
    """Among the entries that `which` selects, return the fraction for which `what` is True."""
    if not which.any():
        return 0.0
    return float(what[which].mean())


# Numbers ------------------------------------------------------------------------------------------


def numbers_of(batch: "Batch") -> dict[str, Any]:
    """Return the numbers about a batch, keyed by name and in the order of the report."""
    numbers: dict[str, Any] = {"loss": batch.value}
    if batch.equal is not None:
        numbers["loss of equal scores"] = batch.equal
    if batch.hot is not None:
        numbers["accuracy"] = batch.accuracy
        numbers["fraction of ties"] = batch.ties
    if batch.reads_rates:
        numbers |= _numbers_of_rates(batch)
    numbers |= _numbers_of_classes(batch)
    if batch.hot is not None:
        numbers |= _numbers_of_labels(batch)
    return numbers


def _numbers_of_rates(batch: "Batch") -> dict[str, float]:
    """Return the numbers that are usually plotted for a likelihood."""
    gain = float(batch.found["gain"])
    spikes = float(batch.found["recorded"])
    predicted = float(batch.found["predicted"])
    entries = math.prod(batch.layout.shape) * (1 - batch.masked)
    return {
        "bits per spike": _ratio(gain, spikes * math.log(2)),
        "mean rate": _ratio(predicted, entries),
        "mean count": _ratio(spikes, entries),
    }


def _ratio(x: float, y: float) -> float:
    """Return the ratio of two numbers, or NaN if the second is 0."""
    return x / y if y else math.nan


def _numbers_of_classes(batch: "Batch") -> dict[str, Any]:
    """Return how the input was read, and the numbers about its classes or neurons."""
    neurons = batch.layout.neurons
    classes = batch.prepared.num_classes
    has_classes = batch.names_classes or classes != neurons
    word = "class" if has_classes else "neuron"
    plural = "classes" if has_classes else "neurons"
    numbers: dict[str, Any] = {}
    numbers["input, as it is read"] = _layers.axes(batch.layout, word)
    if has_classes:
        numbers["classes, neurons of a class"] = classes, neurons // classes
    else:
        numbers["neurons"] = neurons
    numbers["fraction that is masked"] = batch.masked
    if not batch.reads_rates:
        never_fire = ~batch.fires.any(axis=0)
        numbers[f"{plural} that never fire"] = int(never_fire.sum())
    largest = batch.size.max(axis=0)
    numbers[f"largest gradient of each {word}"] = largest.tolist()
    return numbers


def _numbers_of_labels(batch: "Batch") -> dict[str, Any]:
    """Return the numbers about the labels and the predictions."""
    samples = batch.hot.sum(axis=0)
    numbers: dict[str, Any] = {"samples of each class": samples.tolist()}
    if samples.size <= MOST_CLASSES:  # otherwise, converting the matrix takes longer than the loss
        numbers["confusion, labels by predictions"] = batch.confusion.tolist()
    numbers["fraction of labels without a gradient"] = share(batch.size == 0, batch.hot)
    return numbers


# Findings -----------------------------------------------------------------------------------------


def findings_of(batch: "Batch") -> Observations:
    """Yield the findings about a batch."""
    yield from _of_infinity(batch)
    if batch.reads_times:
        yield from _of_times(batch)
    else:
        yield from _of_values(batch)
    yield from _of_masks(batch)
    if batch.hot is not None:
        yield from _of_labels(batch)
    yield from _of_certainty(batch)
    yield from _of_zero_gradient(batch)
    yield from _of_predictions(batch)
    yield from _losses.of_options(batch.loss, batch)
    for finding in batch.about_output:
        # The loss may ignore NaN, so NaN is reported only if it reaches the loss or its gradient.
        if finding[0] != "not-finite":
            yield finding


def _of_infinity(batch: "Batch") -> Observations:
    """Yield a finding if the loss or its gradient is NaN or infinite."""
    if math.isfinite(batch.value) and np.isfinite(batch.size).all():
        return
    seen = f"the loss is {batch.value:.3g}"
    if batch.output is not None and not batch.output.finite:
        seen += ", and entries of the input are NaN or infinite"
    yield "not-finite", seen


def _of_certainty(batch: "Batch") -> Observations:
    """Yield a finding if the loss is much larger than for equal scores."""
    value, equal = batch.value, batch.equal
    if equal is None or not batch.accuracy < SOME:  # the accuracy may be NaN
        return
    if value > 4 * equal > 0:
        yield "certain-and-wrong", f"the loss is {value:.3g}, but {equal:.3g} for equal scores"


def _of_zero_gradient(batch: "Batch") -> Observations:
    """Yield a finding if the gradient is 0, although the network has not learned."""
    if batch.learned:
        return
    at_labels = 0.0
    if batch.hot is not None:
        at_labels = share(batch.size == 0, batch.hot)
    if at_labels >= MOST or not batch.size.any():
        where = "at labels" if at_labels else "everywhere"
        yield "zero-gradient", f"the gradient of the loss is 0 {where}"


def _of_predictions(batch: "Batch") -> Observations:
    """Yield findings if one class is always predicted, or if classes share the best score."""
    answers = np.sum(batch.confusion, axis=0)
    if batch.ties < SOME and _is_one_answer(answers):
        yield "one-answer", f"class {answers.argmax()} is predicted for all samples"
    if batch.ties >= SOME and batch.fires.any():
        seen = f"several classes share the best score in {batch.ties:.0%} of the predictions"
        yield "ties", seen


def _is_one_answer(answers: Any) -> bool:
    """Return whether all of several predictions are the same class.

    `answers` holds the number of predictions of each class. For multi-hot labels it is a matrix,
    and the result is False.
    """
    if answers.ndim > 1 or len(answers) < 2:
        return False
    enough = answers.sum() >= _spikes.ENOUGH
    return bool(enough and np.count_nonzero(answers) == 1)


# Findings about spike times -----------------------------------------------------------------------


def _of_times(batch: "Batch") -> Observations:
    """Yield the finding about an input that holds spike times."""
    x = np.reshape(batch.x, batch.prepared.values.shape)
    unmasked = x
    if batch.prepared.mask is not None:
        mask = np.broadcast_to(batch.prepared.mask, x.shape)
        unmasked = x[mask]
    known = unmasked[np.isfinite(unmasked)]
    if unmasked.size and not known.size:
        yield _spikes.silent_layer("output", len(x))
        return
    spikes = known[_losses.spike_mask(batch.loss, known)]
    early = 1.0
    if known.size:
        early = len(spikes) / len(known)
    zeros = (known == 0).sum()
    if early < 1 - MOST:
        silent = batch.loss.silent_time
        seen = f"{early:.0%} of the times are below silent_time={silent:g}"
    elif zeros > unmasked.size * SOME or _looks_padded(x):
        seen = "many times are 0 or -1, which look like padding"
    else:
        seen = _other_unit(batch.loss, spikes)
    if seen:
        yield "times-out-of-range", seen


def _looks_padded(times: Any) -> bool:
    """Return whether a time is -1, or several times of one neuron are 0."""
    zeros = (times == 0).sum(axis=2)
    return bool((times == -1).any() or (zeros > 1).any())


def _other_unit(loss: Any, times: Any) -> str:
    """Describe an option that seems to have another unit than the times, or return ""."""
    if not times.size:
        return ""
    first, last = times.min(), times.max()
    for name in ("silent_time", "true_time", "false_time"):
        option = getattr(loss, name, None) or 0.0  # a target time of 0 fits any unit
        too_early = 0 < option < first / UNIT
        too_late = 0 < last * UNIT < option < math.inf
        if too_early or too_late:
            return f"{name} is {option:g}, and times are {first:.3g} to {last:.3g}"
    return ""


# Findings about binned spikes, masks and labels ---------------------------------------------------


def _of_values(batch: "Batch") -> Observations:
    """Yield findings if the input holds no spikes, or if its axes may be in another order."""
    layout = batch.layout
    if layout.steps > 1 and _losses.expects_spikes(batch.loss):
        odd = batch.odd_values()
        if odd:
            yield "not-spikes", odd
    samples = layout.shape.count(layout.batch)
    steps = layout.shape.count(layout.steps)
    if samples > 1 or steps > 1:
        yield "ambiguous-layout", f"several axes of {layout.shape} have the same length"


def _of_masks(batch: "Batch") -> Observations:
    """Yield the findings about the mask and the lengths."""
    has_mask = "where" in batch.masks
    if has_mask and _hides_all_spikes(batch):
        yield "inverted-mask", "all spikes are masked"
    steps = batch.layout.steps
    lengths: Any = concrete_or_none(batch.masks.get("lengths", ()))
    if lengths.size and steps >= 20 and lengths.max() * 10 <= steps:
        seen = f"lengths are at most {lengths.max()}, but there are {steps} steps"
        yield "short-lengths", seen
    # For a likelihood, a mask may leave out most entries on purpose.
    limit = MOST if has_mask and batch.reads_rates else SOME
    if batch.masked > limit:
        yield "mostly-masked", f"{batch.masked:.0%} of the entries are masked"


def _hides_all_spikes(batch: "Batch") -> bool:
    """Return whether there are spikes, all of which are masked, but other entries are not."""
    if batch.output is None or batch.output.rate != 0:
        return False
    if batch.masked >= 1:
        return False
    adapter = batch.adapter
    x = floating(adapter, batch.x)
    fired = adapter.xp.any(x != 0)
    return bool(read_values(adapter, fired, "input"))


def _of_labels(batch: "Batch") -> Observations:
    """Yield the findings about the labels and about the spikes of the labelled classes."""
    labelled = batch.hot.any(axis=1)
    fires = (batch.fires & batch.hot).any(axis=1)
    silent = share(~fires, labelled)
    if silent >= MOST and batch.fires.any():
        yield "silent-labels", f"the labelled class is silent in {silent:.0%} of the samples"
    if not batch.multi_hot:
        yield from _of_absent_classes(batch, int(labelled.sum()))
        yield from _of_missed_classes(batch)


def _of_absent_classes(batch: "Batch", number: int) -> Observations:
    """Yield a finding if no sample has the label of some class. There are `number` labels."""
    occurs = batch.hot.any(axis=0)
    classes = len(occurs)
    if batch.labels.indices is None:
        occurs = _with_shares(batch, occurs)
    absent = np.flatnonzero(~occurs)
    absent = absent[absent != batch.loss.ignore_index]
    if not absent.size:
        return
    first = classes - len(absent)  # if the absent classes are the last classes, they begin here
    if occurs.sum() == 1 and number >= _spikes.ENOUGH:
        yield "one-class", f"all {number} labels are {int(occurs.argmax())}"
    elif occurs[:first].all() and number * len(absent) >= 4 * classes:
        seen = f"the largest label is {first - 1}, but there are {classes} classes"
        yield "labels-too-low", seen
    elif number >= 4 * classes:
        yield "absent-class", f"no sample has label {absent.tolist()}"


def _with_shares(batch: "Batch", occurs: Any) -> Any:
    """Return which classes have a share in the labels, unless the labels of all samples are equal.

    If all labels are equal, return `occurs`, which is True for the class with the largest share.
    """
    q = read_values(batch.adapter, batch.labels.numbers, "target")
    q = np.moveaxis(q, (batch.layout.batch_axis, batch.layout.class_axis), (0, 1))
    q = q.reshape(*q.shape[:2], -1)[batch.hot.any(axis=1)]
    return occurs if np.ptp(q, axis=0).max() == 0 else (q > 0).any(axis=(0, 2))


def _of_missed_classes(batch: "Batch") -> Observations:
    """Yield a finding if a class with labels never fires or is never predicted."""
    answers, labels = batch.confusion.sum(axis=0), batch.confusion.sum(axis=1)
    if labels.sum() < 4 * len(labels) or batch.ties >= SOME or _is_one_answer(answers):
        return
    silent = ~batch.fires.any(axis=0)
    for missed, seen in ((silent, "never fires"), (answers == 0, "is never predicted")):
        found = np.flatnonzero(missed & (labels > 0))
        if found.size:
            yield "missed-class", f"class {', '.join(map(str, found))} {seen}"
            return
