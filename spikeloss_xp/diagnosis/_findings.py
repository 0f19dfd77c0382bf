"""The numbers and the findings that a report shows for one batch."""

import math
from typing import Any

import numpy as np

from spikeloss_xp._arrays import concrete_or_none, floating, read_values
from spikeloss_xp.diagnosis import _layers, _losses, _spikes
from spikeloss_xp.diagnosis._batch import MOST, Batch
from spikeloss_xp.diagnosis._report import Observations

MOST_CLASSES = 100  # with more classes, a report has no confusion matrix
SOME = 0.5
UNIT = 300  # two times whose ratio is above UNIT may have different units


def share(what: Any, which: Any) -> float:
    """Among the entries that `which` selects, return the fraction for which `what` is True."""
    if not which.any():
        return 0.0
    return float(what[which].mean())


# Numbers ------------------------------------------------------------------------------------------


def numbers_of(batch: Batch) -> dict[str, Any]:
    """Return the numbers about a batch, keyed by name and in the order of the report."""
    numbers: dict[str, Any] = {"loss": batch.value}
    if batch.equal is not None:
        numbers["loss of equal scores"] = batch.equal
    if "silent" in batch.found:
        numbers["loss of silent outputs"] = float(batch.found["silent"])
    if batch.has_labels:
        numbers["accuracy"] = batch.accuracy
    if batch.reads_rates:
        numbers |= _numbers_of_rates(batch)
    numbers |= _numbers_of_classes(batch)
    if batch.has_labels:
        numbers |= _numbers_of_labels(batch)
    if batch.reads_rates:
        numbers |= _numbers_of_rates(batch, " of each neuron")
    return numbers


def _numbers_of_rates(batch: Batch, of_each: str = "") -> dict[str, Any]:
    """Return the bits per spike, the mean predicted rate and the mean count for a likelihood.

    If `of_each` is not empty, it is appended to the keys, and each value is a list with one number
    for each neuron.
    """
    shape = batch.layout.batch, batch.layout.neurons, 1
    entries = np.broadcast_to(batch.entries, shape).sum(axis=(0, 2), dtype=float)
    sums = [*(batch.found[key] for key in ("gain", "recorded", "predicted")), entries]
    gain, spikes, predicted, entries = sums if of_each else [x.sum() for x in sums]
    return {
        f"bits per spike{of_each}": _ratio(gain, spikes * math.log(2)),
        f"mean rate{of_each}": _ratio(predicted, entries),
        f"mean count{of_each}": _ratio(spikes, entries),
    }


def _ratio(x: Any, y: Any) -> Any:
    """Return ``x / y`` as a number or a list. The ratio is NaN where `y` is 0."""
    return np.where(y > 0, x / y, math.nan).tolist()


def _numbers_of_classes(batch: Batch) -> dict[str, Any]:
    """Return the order of the input's axes as text, and numbers about its classes or neurons."""
    neurons = batch.layout.neurons
    classes = batch.prepared.num_classes
    has_classes = batch.names_classes or classes != neurons
    word = "class" if has_classes else "neuron"
    numbers: dict[str, Any] = {"input, as it is read": _layers.axes(batch.layout, word)}
    if has_classes:
        numbers["classes, neurons of a class"] = classes, neurons // classes
    else:
        numbers["neurons"] = neurons
    numbers["fraction that is masked"] = batch.masked
    if not batch.reads_rates:
        plural = "classes" if has_classes else "neurons"
        numbers[f"{plural} that never fire"] = int((~batch.fires.any(axis=0)).sum())
    numbers[f"largest gradient of each {word}"] = batch.size.max(axis=0).tolist()
    return numbers


def _numbers_of_labels(batch: Batch) -> dict[str, Any]:
    """Return the entries of the report that describe the labels and the predictions."""
    samples = batch.hot.sum(axis=0)
    numbers: dict[str, Any] = {"samples of each class": samples.tolist()}
    if samples.size <= MOST_CLASSES:  # converting a larger matrix takes longer than the loss
        numbers["confusion, labels by predictions"] = batch.confusion.tolist()
    numbers["fraction of labels without a gradient"] = share(batch.size == 0, batch.hot)
    return numbers


# Findings -----------------------------------------------------------------------------------------


def findings_of(batch: Batch) -> Observations:
    """Yield all findings about a batch except the findings about its layers."""
    if not (math.isfinite(batch.value) and np.isfinite(batch.size).all()):
        odd = batch.output is not None and not batch.output.finite
        entries = ", and entries of the input are NaN or infinite" if odd else ""
        yield "not-finite", f"the loss is {batch.value:.3g}{entries}"
    yield from _of_times(batch) if batch.reads_times else _of_values(batch)
    yield from _of_masks(batch)
    if batch.has_labels and not batch.multi_hot:
        yield from _of_absent_classes(batch)
        yield from _of_missed_classes(batch)
    yield from _of_zero_gradient(batch)
    yield from _losses.of_options(batch.loss, batch)


def _of_zero_gradient(batch: Batch) -> Observations:
    """Yield a finding if the gradient is 0 although the network does not predict well."""
    if batch.learned:
        return
    at_labels = 0.0 if batch.hot is None else share(batch.size == 0, batch.hot)
    if at_labels >= MOST or not batch.size.any():
        where = "at labels" if at_labels else "everywhere"
        yield "zero-gradient", f"the gradient of the loss is 0 {where}"


# Spike times --------------------------------------------------------------------------------------


def _of_times(batch: Batch) -> Observations:
    """Yield a finding if spike times are too late, look like padding, or have the wrong unit."""
    x = np.reshape(batch.x, batch.prepared.values.shape)
    mask = batch.prepared.mask
    known = x[np.isfinite(x) if mask is None else np.isfinite(x) & mask]
    if not known.size:
        return
    spikes = known[_losses.spike_mask(batch.loss, known)]
    early = len(spikes) / len(known)
    has_zeros = ((x == 0).sum(axis=2) > 1).any()  # two spikes cannot both be at time 0
    if early < 1 - MOST:
        silent = batch.loss.silent_time
        seen = f"{early:.0%} of the times are below silent_time={silent:g}"
    elif (known == 0).sum() > batch.kept * SOME or (x == -1).any() or has_zeros:
        seen = "many times are 0 or -1, which look like padding"
    else:
        seen = _other_unit(batch.loss, spikes)
    if seen:
        yield "times-out-of-range", seen


def _other_unit(loss: Any, times: Any) -> str:
    """Describe an option whose unit seems to differ from the unit of the spike times, if any."""
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


# Binned spikes ------------------------------------------------------------------------------------


def _of_values(batch: Batch) -> Observations:
    """Yield findings if the input does not hold spikes, or if its time axis may be wrong."""
    layout, output = batch.layout, batch.output
    odd = output is not None and not output.holds_spikes
    if layout.steps > 1 and _losses.expects_spikes(batch.loss) and odd:
        yield "not-spikes", _spikes.odd_values(batch.found["sample"], batch.found.get("kept"))
    if any(layout.shape.count(length) > 1 for length in (layout.batch, layout.steps)):
        seen = f"several axes of {layout.shape} have the same length"
        classes = batch.prepared.num_classes
        labels = [] if batch.hot is None else np.flatnonzero(batch.hot.any(axis=0)).tolist()
        if labels and labels[-1] + 1 == layout.steps < classes:
            seen += f", and the labels are below {layout.steps}, as if the last axis held classes"
        yield "ambiguous-layout", seen


def _of_masks(batch: Batch) -> Observations:
    """Yield findings if all spikes or most entries are masked, or if the lengths are very short."""
    has_mask = "where" in batch.masks
    if has_mask and _hides_all_spikes(batch):
        yield "inverted-mask", "all spikes are masked"
    steps = batch.layout.steps
    lengths: Any = concrete_or_none(batch.masks.get("lengths", ()))
    if lengths.size and steps >= 20 and lengths.max() * 10 <= steps:
        seen = f"lengths are at most {lengths.max()}, but there are {steps} steps"
        yield "short-lengths", seen
    # For a likelihood, a mask that excludes most entries is common, so the limit is higher.
    limit = MOST if has_mask and batch.reads_rates else SOME
    if batch.masked > limit:
        yield "mostly-masked", f"{batch.masked:.0%} of the entries are masked"


def _hides_all_spikes(batch: Batch) -> bool:
    """Return whether all spikes are masked, although some entries are not masked."""
    if batch.output is None or batch.output.rate != 0 or batch.masked >= 1:
        return False
    fired = batch.adapter.xp.any(floating(batch.adapter, batch.x) != 0)
    return bool(read_values(batch.adapter, fired, "input"))


def _of_absent_classes(batch: Batch) -> Observations:
    """Yield a finding if a class is not the label of any sample."""
    number = int(batch.hot.any(axis=1).sum())  # the number of samples with a label
    occurs = batch.hot.any(axis=0)
    classes = len(occurs)
    if batch.labels.indices is None:
        occurs = _with_shares(batch, occurs)
    absent = np.flatnonzero(~occurs)
    absent = absent[absent != batch.loss.ignore_index]
    if not absent.size:
        return
    first = classes - len(absent)
    if occurs.sum() == 1 and number >= _spikes.ENOUGH:
        yield "one-class", f"all {number} labels are {int(occurs.argmax())}"
    elif occurs[:first].all() and number * len(absent) >= 4 * classes:
        yield "absent-class", f"the largest label is {first - 1}, but there are {classes} classes"
    elif number >= 4 * classes:
        yield "absent-class", f"no sample has label {absent.tolist()}"


def _with_shares(batch: Batch, occurs: Any) -> Any:
    """Return an array that is True for classes with a probability above 0 for any sample.

    If all samples have the same probabilities, only the most probable class is True.
    """
    q = read_values(batch.adapter, batch.labels.numbers, "target")
    q = np.moveaxis(q, (batch.layout.batch_axis, batch.layout.class_axis), (0, 1))
    q = q.reshape(*q.shape[:2], -1)[batch.hot.any(axis=1)]
    return occurs if np.ptp(q, axis=0).max() == 0 else (q > 0).any(axis=(0, 2))


def _of_missed_classes(batch: Batch) -> Observations:
    """Yield a finding if a class that occurs in the labels never fires or is never predicted."""
    answers, labels = batch.confusion.sum(axis=0), batch.confusion.sum(axis=1)
    if labels.sum() < 4 * len(labels) or not batch.fires.any():
        return
    silent = ~batch.fires.any(axis=0) & (labels > 0)
    missed = silent if silent.any() else (answers == 0) & (labels > 0)
    if missed.any():
        seen = "never fires" if silent.any() else "is never predicted"
        yield "missed-class", f"class {', '.join(map(str, np.flatnonzero(missed)))} {seen}"


class Call(Batch):
    """A `Batch` that also has the methods `numbers` and `findings` for the report."""

    numbers = numbers_of
    findings = findings_of
