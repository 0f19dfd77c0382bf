"""Diagnosis: find out from outputs, labels and gradients why a network does not learn."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from spikeloss_xp import losses
from spikeloss_xp._arrays import host_values
from spikeloss_xp._input.labels import MULTI_HOT, PROBABILITIES
from spikeloss_xp._typing import Array, ArrayLike
from spikeloss_xp.losses.parts import divisor_of

Seen = Iterator[tuple[str, str]]  # for each finding, its code and the observation behind it
SOME, MOST, ENOUGH = 0.5, 0.9, 8


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that `diagnose` found.

    Attributes
    ----------
    code : str
        The stable name of the finding, which is also the anchor of its section in the
        documentation.
    severity : {"problem", "note"}
        A problem keeps a network from learning. A note may describe something that is intended.
    seen, why, remedy : str
        What was seen, why it matters, and what to do.
    """

    code: str
    severity: str
    seen: str
    why: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.code}: {self.seen}\n    {self.why}\n    {self.remedy}"


@dataclasses.dataclass(frozen=True)
class Report:
    """The result of `diagnose`: numbers and findings. Its string shows both as a table.

    Attributes
    ----------
    numbers : dict
        The numbers, keyed by their names in words.
    findings : tuple of Finding
        The findings, with problems before notes and causes before their consequences.
    """

    numbers: Mapping[str, Any]
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        width = max(map(len, self.numbers))
        words = {name: _in_words(x) for name, x in self.numbers.items()}
        short = {name: x if len(x) < 200 else f"{x[:196]} ..." for name, x in words.items()}
        lines = [f"{name:{width}}  {x}" for name, x in short.items()]
        return "\n".join([*lines, "", *map(str, self.findings or ("nothing found",))])

    def _repr_html_(self) -> str:
        return "<pre>" + str(self).translate({38: "&amp;", 60: "&lt;", 62: "&gt;"}) + "</pre>"


def diagnose(
    loss: Any, spikes: Any, target: ArrayLike | None = None, *, hidden: Any = None,
    where: ArrayLike | None = None, lengths: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> Report:  # fmt: skip
    """Inspect one batch and report what keeps a network from learning.

    Values are copied to the host, which synchronises the device. Neither the
    arguments nor the graphs and gradients of the caller are modified.

    Parameters
    ----------
    loss : callable
        A loss of this library.
    spikes : array
        The input of the loss, which is the output of the network.
    target : array or sequence, optional
        The target. Omit it for `SparsityEnforcer`.
    hidden : array, or sequence or mapping of arrays, optional
        Spikes of hidden layers, in the same layout as `spikes`. Sequences and mappings may be
        nested.
    where, lengths, weight : array or sequence, optional
        The other arguments of a call of the loss.

    Returns
    -------
    diagnosis.Report
        A report whose string is a table. Its `findings` are empty if nothing was found.

    Raises
    ------
    ValueError, TypeError
        If an argument has the wrong shape or type, just as when the loss is called. Values that the
        loss does not accept are reported as a finding instead.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> report = sx.diagnose(sx.CrossEntropy(time_axis=0), np.zeros((20, 4, 3)), [0, 1, 2, 0])
    >>> [finding.code for finding in report.findings]
    ['silent-output']
    """
    given = {"where": where, "lengths": lengths, "weight": weight}
    masks = {name: _read(x, name) for name, x in given.items() if x is not None}
    if not isinstance(loss, losses.Loss):
        raise TypeError(f"loss must be a loss of this library, such as SpikeMax(); got {loss!r}")
    loss = dataclasses.replace(loss, reduction="mean")  # type: ignore[type-var]
    penalty = isinstance(loss, losses.SparsityEnforcer)
    inputs = dict(_named(spikes, "input")) if penalty else {"input": _read(spikes, "input")}
    x: Any = list(inputs.values()) if penalty else inputs["input"]
    targets = () if target is None else (_read(target, "target"),)
    batch, value, refused = _evaluated(loss, x, targets, masks)
    found = [("refused", refused)] if refused else [*loss.findings(x)]
    numbers: dict[str, Any] = {"mean loss": value}
    if value is not None and not math.isfinite(value):
        found += [("not-finite", f"the loss is {value}")]
    if batch is not None:
        numbers |= batch.numbers()
        found += batch.findings()
    for name, layer in ((inputs if penalty else {}) | dict(_named(hidden, "hidden"))).items():
        if loss.reads_times:
            found += [] if np.isfinite(layer).any() else [_silent(name, layer)]
            continue
        train = np.moveaxis(layer, loss.time_axis, -1) if layer.ndim > 2 else layer[..., None]
        more, wrong = _layer(name, train.reshape(len(train), -1, train.shape[-1]))
        numbers, found = numbers | more, found + wrong
    import tomllib  # imported here, because few uses of the library need them
    from importlib.resources import files

    path = files("spikeloss_xp") / "data" / "findings.toml"
    texts = tomllib.loads(path.read_text(encoding="utf-8"))  # with problems first, in causal order
    found.sort(key=lambda each: list(texts).index(each[0]))
    return Report(numbers, tuple(Finding(code, seen=seen, **texts[code]) for code, seen in found))


def _read(x: Any, name: str) -> np.ndarray:
    """Return an argument as a NumPy array, with narrow floats converted to float32."""
    found = host_values(x, name)
    narrow = found.dtype.kind not in "biuf" or found.dtype == np.float16
    return found.astype(np.float32) if narrow else found


def _named(x: Any, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays in nested sequences and mappings, each with its path as its name."""
    if isinstance(x, Mapping | list | tuple):
        for key, each in sorted(x.items()) if isinstance(x, Mapping) else enumerate(x):
            yield from _named(each, f"{name}[{key!r}]")
    elif x is not None:
        yield name, _read(x, name)


def _evaluated(loss: Any, x: Any, targets: Any, masks: Any) -> tuple[Any, Any, str]:
    """Return the batch and the value of the loss, or the error message if values are refused.

    For `SparsityEnforcer`, `x` is a list of arrays whose samples have no labels, so the batch is
    None.
    """
    try:
        with np.errstate(all="ignore"):
            if isinstance(x, list):
                return None, float(loss(x, *targets, **masks)), ""
            batch = Batch(loss, x, masks, *targets)
            return batch, batch.value, ""
    except (ValueError, TypeError) as error:
        of_times = 2 * loss.reads_times  # the loss refuses times of 0 as trains
        silent = [0 * each for each in x] if isinstance(x, list) else np.full_like(x, of_times)
        plain = [np.full_like(y, of_times if y.dtype.kind == "f" else 0) for y in targets]
        zeros = {name: np.zeros_like(y) for name, y in masks.items()}
        loss(silent, *plain, **zeros)  # a wrong shape or type raises here
        return None, None, str(error)


class Batch:
    """A batch ``[sample, neuron, step]`` as the loss sees it, with its labels and gradient."""

    def __init__(self, loss: Any, x: Array, masks: Any, target: Any) -> None:
        prepared, labels = loss._prepare(x, target, masks)
        total, weight, pullback = loss._sum(prepared, labels, True, True)
        divisor = divisor_of(prepared.adapter, weight)
        self.value, gradient = float(total / divisor), pullback(1 / divisor)
        mask, self.loss, self.masks, self.layout = prepared.mask, loss, masks, prepared.layout
        self.x = self._arranged(prepared, x).astype(float)
        full = np.broadcast_to(True if mask is None else mask, prepared.values.shape)
        self.counts = self._arranged(prepared, full)
        self.classes = prepared.num_classes
        self.size = np.abs(self._of_classes(self._arranged(prepared, gradient))).max(axis=-1)
        self.layer = ({}, []) if loss.reads_times else _layer("output", self.x, self.counts)
        self.fires = self._of_classes(loss.fires(self.x) & self.counts).any(axis=-1)
        self.hot: Any = self._hot(labels)
        self.accuracy, self.ties, self.confusion = math.nan, 0.0, [[0.0]]
        if self.hot is not None:
            given = labels.numbers if labels.indices is None else labels.indices
            per_step = loss.per_step and given.shape[self.layout.time] > 1
            matrix = np.asarray(loss._scores(prepared, per_step).confusion(labels))
            self.confusion, right = matrix.tolist(), np.trace(matrix, axis1=-2, axis2=-1).sum()
            self.accuracy = float(right / matrix.sum()) if matrix.any() else math.nan
            if loss.targets[0] != MULTI_HOT and prepared.pixels is None:
                found = loss._scores(prepared, False)
                scores = found.result(found.of_classes())
                best = (scores == scores.max(axis=1, keepdims=True)).sum(axis=1)
                self.ties = _share(best > 1, self.hot.any(axis=1))

    def _arranged(self, prepared: Any, y: Any) -> Any:
        """Rearrange an array from the axes of the input to ``[sample, neuron, step]``."""
        y = self.layout.collapsed(prepared.adapter, y) if self.layout.has_time else y
        y = np.reshape(y, prepared.values.shape)
        if prepared.pixels is not None:
            return prepared.pixels.samples(prepared.adapter, y)
        return np.moveaxis(y, self.layout.time, -1)

    def _of_classes(self, y: Any) -> Any:
        """Reshape an array ``[sample, neuron, step]`` to ``[sample, class, neuron * step]``."""
        return y.reshape(len(y), self.classes, -1)

    def _hot(self, labels: Any) -> Any:
        """Return which classes are labels of each sample at any step; None for other targets."""
        time, kinds = self.layout.time, self.loss.targets
        if labels.indices is not None:
            hot = np.moveaxis(labels.indices, time, -1) == np.arange(self.classes)[:, None]
            if labels.ignored is not None:
                hot &= ~np.moveaxis(labels.ignored, time, -1)
        elif MULTI_HOT in kinds or PROBABILITIES in kinds:
            q = np.moveaxis(labels.numbers, time, -1)
            if MULTI_HOT in kinds and not np.isin(q, (0, 1)).all():  # accuracy needs hard labels
                return None
            hot = (q == q.max(axis=1, keepdims=True)) & (q > 0)
        else:
            return None
        return hot.any(axis=-1) & self.counts.any(axis=(1, 2))[:, None]

    def numbers(self) -> dict[str, Any]:
        """Return the numbers of the batch, keyed by name."""
        time = "time" if self.layout.has_time else "spike"
        axes = {self.layout.batch_axis: "batch", self.layout.time_axis: time}
        names = ", ".join(axes.get(i, "class") for i in range(len(self.layout.shape)))
        found: dict[str, Any] = {
            "input, as it is read": f"[{names}] = {self.layout.shape}",
            "classes, neurons of a class": (self.classes, self.x.shape[1] // self.classes),
            "classes that never fire": int((~self.fires.any(axis=0)).sum()),
            "share that is masked": float(1 - self.counts.mean()),
            "largest gradient of each class": self.size.max(axis=0).tolist(),
        }
        if (equal := self.loss.value_of_equal_scores(self.classes)) is not None:
            found["loss of equal scores"] = equal
        if self.hot is not None:
            found["samples of each class"] = self.hot.sum(axis=0).tolist()
            found["accuracy"], found["share of ties"] = self.accuracy, self.ties
            found["confusion, labels by answers"] = self.confusion
            found["share of labels without a gradient"] = _share(self.size == 0, self.hot)
        return found | self.layer[0]

    def findings(self) -> Seen:
        """Yield the findings of the batch."""
        yield from self._of_times() if self.loss.reads_times else self._of_values()
        yield from [*self.layer[1], *self._of_masks()]
        value, equal = self.value, self.loss.value_of_equal_scores(self.classes)
        learned, share = not value, 0.0
        if self.hot is not None:
            yield from self._of_labels()
            learned, share = self.accuracy >= MOST, _share(self.size == 0, self.hot)
        if equal is not None and self.accuracy < SOME and value > 4 * equal > 0:
            yield "certain-and-wrong", f"the loss is {value:.3g}, of equal scores {equal:.3g}"
        if not learned and (share >= MOST or not self.size.any()):
            yield "zero-gradient", "the gradient is 0 " + ("at labels" if share else "everywhere")
        answers = np.sum(self.confusion, axis=0) if self.ties < SOME else np.zeros(1)
        several = answers.ndim == 1 < len(answers) and answers.sum() >= ENOUGH
        if several and np.count_nonzero(answers) == 1:
            yield "one-answer", f"class {answers.argmax()} is the answer to all samples"
        if self.fires.any() and self.ties >= SOME:
            yield "ties", f"in {self.ties:.0%} of the samples several classes have the best score"

    def _of_times(self) -> Seen:
        x = self.x[self.counts]
        known = x[np.isfinite(x)]
        padding = max(np.mean(self.x == -1), np.mean((self.x == 0).sum(axis=2) > 1))
        if len(x) and not len(known):
            yield _silent("output", self.x)
        elif len(known) and (early := np.mean(self.loss.fires(known))) < 1 - MOST:
            silent = self.loss.silent_time
            yield "times-out-of-range", f"{early:.0%} of the times are below silent_time={silent:g}"
        elif padding or (known == 0).sum() > len(x) * SOME:
            yield "times-out-of-range", "many times are 0 or -1, as padding often is"

    def _of_values(self) -> Seen:
        x, shape = self.x[self.counts], self.layout.shape
        if self.loss.expects_spikes and (odd := _odd(x)):
            bounds = f"from {np.nanmin(x):.3g} to {np.nanmax(x):.3g}"
            yield "not-spikes", f"{odd:.0%} of the values are fractions or below 0, {bounds}"
        if max(shape.count(shape[i]) for i in (self.layout.batch_axis, self.layout.time_axis)) > 1:
            yield "ambiguous-layout", f"several axes of {shape} have one size"

    def _of_masks(self) -> Seen:
        steps, lengths = self.x.shape[2], self.masks.get("lengths")
        masked = 1 - self.counts.mean()
        masked_by_user = "where" in self.masks and self.counts.any()
        if masked_by_user and self.x.any() and not self.x[self.counts].any():
            yield "inverted-mask", "all spikes are masked"
        if lengths is not None and steps >= 20 and lengths.max() * 10 <= steps:
            yield "short-lengths", f"lengths are at most {lengths.max()} of {steps} steps"
        if masked > SOME:
            yield "mostly-masked", f"{masked:.0%} of the entries are masked"

    def _of_labels(self) -> Seen:
        labelled, occurs = self.hot.any(axis=1), self.hot.any(axis=0)
        silent = _share(~(self.fires & self.hot).any(axis=1), labelled)
        if self.fires.any() and silent >= MOST:
            yield "silent-labels", f"the label is silent in {silent:.0%} of the samples"
        number, absent = int(labelled.sum()), np.flatnonzero(~occurs)
        last = self.classes - len(absent)  # the number of classes, if only the last are absent
        if self.loss.targets[0] == MULTI_HOT or not len(absent):
            return
        if last == 1 and number >= ENOUGH:
            yield "one-class", f"all {number} labels are {int(occurs.argmax())}"
        elif occurs[:last].all() and number * len(absent) >= 4 * self.classes:
            yield "labels-too-low", f"the largest label is {last - 1}, of {self.classes} classes"
        elif number >= 4 * self.classes:
            yield "absent-class", f"no sample has label {absent.tolist()}"


def _share(what: Array, which: Array) -> float:
    """Return the share of the entries in `which` that are True."""
    return float(what[which].mean()) if which.any() else 0.0


def _odd(x: Array) -> float:
    """Return the share of values that are not spike counts, or 0 if these have few levels."""
    odd = x[np.isfinite(x) & ((x < 0) | (x != np.round(x)))]
    levels = len(np.unique(odd))  # graded spikes and means of several neurons have few levels
    return len(odd) / x.size if levels > min(16, x.size // 4) else 0.0


def _layer(name: str, x: np.ndarray, counts: Any = True) -> tuple[dict[str, Any], list[Any]]:
    """Return the numbers and the findings for a layer ``[sample, neuron, step]``."""
    counts, finite = np.broadcast_to(counts, x.shape), np.isfinite(x)
    fires, enough = counts & finite & (x != 0), counts.sum(axis=(0, 2)) >= ENOUGH
    silent, always = ~fires.any(axis=(0, 2)), (fires | ~counts).all(axis=(0, 2)) & enough
    numbers = {
        f"{name}: share of steps with a spike": _share(fires, counts),
        f"{name}: share of neurons that are silent": float(silent.mean()),
        f"{name}: share of neurons that fire at every step": float(always.mean()),
        f"{name}: share of samples that are silent": float((~fires.any(axis=(1, 2))).mean()),
    }
    if bad := int((counts & ~finite).sum()):
        return numbers, [("not-finite", f"{name} has {bad} entries that are NaN or infinite")]
    if silent.all() and counts.any():
        return numbers, [_silent(name, x)]
    if always.mean() > SOME and not _odd(x):
        return numbers, [("saturated", f"{always.mean():.0%} of {name} fire at every step")]
    return numbers, []


def _silent(name: str, x: np.ndarray) -> tuple[str, str]:
    """Return a finding for a layer that is silent in every sample."""
    code = "silent-output" if name == "output" else "silent-hidden"
    return code, f"{name} is silent in all {len(x)} samples"


def _in_words(x: Any) -> str:
    """Return one or several numbers as text, with floats rounded to three significant digits."""
    if isinstance(x, list | tuple):
        inside = ", ".join(map(_in_words, x))
        return f"[{inside}]" if isinstance(x, list) else f"({inside})"
    return f"{x:.3g}" if isinstance(x, float) else str(x)
