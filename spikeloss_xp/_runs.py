"""Find the first difference between two runs of a network, in one or two array libraries."""

import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from spikeloss_xp._arrays import adapter_of, host_values
from spikeloss_xp._checks import integer, optional
from spikeloss_xp._tolerance import (
    LARGEST,
    PRECISION,
    ROUNDINGS,
    distances,
    dtype_name,
    largest_finite,
)

# If fewer than FEWEST trains differ, no hint is given, because a wrong explanation may fit a few
# trains by chance. The hint about resets is given only if at least FEWEST_RESET trains differ, and
# at least the fraction SHARE_RESET of the trains that fired. In 600 networks with 12 faults each, a
# shift fitted at most 3 trains by chance, and a reset fitted at most 16.
FEWEST, FEWEST_RESET, SHARE_RESET = 5, 20, 0.1
HEAD = "layer", "entries", ("spikes 1", "spikes 2"), "differ", "first difference"
WHICH = "first", "second"
AXIS = optional(integer)
Axes = tuple[int | None, int | None]


class Difference(NamedTuple):
    """The position of an entry that differs between two runs.

    In an array without a time axis, `step` and `sample` are None.
    """

    layer: str
    step: int | None
    sample: int | None
    neuron: tuple[int, ...]

    def __str__(self) -> str:
        index = self.neuron[0] if len(self.neuron) == 1 else self.neuron
        if self.step is None:
            return f"entry {index}"
        return f"step {self.step}, sample {self.sample}, neuron {index}"


class Row(NamedTuple):
    """A row of the table that `Runs` prints, with numbers about one layer."""

    layer: str
    entries: int
    spikes: tuple[int, ...] | None
    differ: int
    first: Difference | None


@dataclass(frozen=True)
class Runs:
    """The result of `compare_runs`, printed as a table.

    The docstring of `compare_runs` describes the attributes of this class.
    """

    rows: tuple[Row, ...]
    first: Difference | None = None
    batch: int | None = None
    hints: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether the two runs agree in all entries."""
        return self.first is None

    def __repr__(self) -> str:
        width = max(len(name) for name, *_ in (HEAD, *self.rows))
        lines = [_line(width, *row) for row in (HEAD, *self.rows)]
        if self.first is None:
            return "\n".join([*lines, "The runs agree."])
        batch = f"batch {self.batch}, " if self.batch else ""
        found = f"The first difference is in {self.first.layer}: {batch}{self.first}."
        hints = (textwrap.fill(hint, 80) for hint in self.hints)
        return "\n".join([*lines, found, *hints])


def _line(width: int, name: str, entries: Any, spikes: Any, differ: Any, first: Any) -> str:
    """Return a line of the table, with a column of the given width for the name."""
    one, other = spikes or ("-", "-")
    numbers = f"{entries:>9}  {one:>8}  {other:>8}  {differ:>8}"
    return f"{name:{width}}  {numbers}  {first or ''}".rstrip()


class Layer(NamedTuple):
    """The arrays of one layer in both runs, for one batch.

    If `is_timed` is True, the first two axes of the arrays are time and sample.
    """

    names: tuple[str, str]
    runs: list[np.ndarray]
    is_timed: bool
    holds_spikes: bool
    differs: np.ndarray

    def first(self) -> Difference | None:
        """Return the position of the first entry that differs, or None if no entry differs."""
        if not self.differs.any():
            return None
        at = np.unravel_index(np.argmax(self.differs), self.differs.shape)
        index = tuple(map(int, at))
        if not self.is_timed:
            return Difference(self.names[0], None, None, index)
        step, sample, *neuron = index
        return Difference(self.names[0], step, sample, tuple(neuron))

    def spikes(self, run: int) -> int:
        """Return the number of spikes in one of the runs. NaN and infinite entries are left out."""
        return int(np.abs(self.runs[run]).sum(where=np.isfinite(self.runs[run])))


def compare_runs(
    first: Any,
    second: Any,
    *,
    time_axis: int | tuple[int, int] | None,
    names: Mapping[str, str] | None = None,
    potentials: Any = None,
    thresholds: Any = None,
) -> Runs:
    """Find the first difference between two runs of the same network.

    The runs may come from two frameworks, two versions of a program or two devices. A difference
    does not raise an error: in a test, check the attribute `agrees` of the result. The arrays are
    copied to the host.

    If an array holds only whole numbers in both runs, its entries are treated as spikes, which must
    be equal. The surrogate gradients of some frameworks return spikes such as 0.9999999. Entries
    within 0.01 of a whole number other than 0 are therefore rounded first. Other arrays, such as
    potentials and gradients, may differ by rounding errors. The tolerance is 100 times the machine
    epsilon of the coarser dtype, relative to the largest entry. Two entries that are both NaN are
    equal.

    Parameters
    ----------
    first, second : mapping of str to array, Recording, or list
        The spikes of each layer, keyed by name and in the order of the layers. The mapping may also
        hold other arrays of the network. The arrays may come from different libraries. If you pass
        a `Recording` from `spikeloss_xp.torch.record`, its ``spikes`` are compared. For several
        batches, pass a list with one mapping or recording for each batch.
    time_axis : int, tuple of int or None
        The time axis of the arrays, or a tuple with the time axis in each run. Pass None if no
        array has a time axis, as for gradients of weights. Unless `time_axis` is None, the first
        array must have a time axis. Any other array is assumed to have a time axis if its batch and
        time axes are as long as the batch and time axes of the first array.
    names : mapping of str to str, optional
        A mapping from the names in the first run to the names in the second run. Layers that have
        the same name in both runs may be left out of the mapping. By default, layers with the same
        name are compared, and layers with different names are matched by their order.
    potentials : mapping, Recording, list or tuple, optional
        The membrane potentials before the reset. Pass the potentials of the first run in the same
        form as `first`, or pass a tuple with the potentials of both runs. The potentials of some
        layers may be missing.
    thresholds : float, array or mapping of str, optional
        The firing threshold: a number, or an array with an entry for each neuron. If the layers
        have different thresholds, pass a mapping from the names in the first run to numbers or
        arrays. This argument is required if `potentials` is given.

    Returns
    -------
    Runs
        An object that is printed as a table, with these attributes:

        - ``agrees``: whether no entry differs between the two runs.
        - ``first``: the position of the earliest difference, or None if the runs agree. ``first``
          is a named tuple with the fields ``layer``, ``step``, ``sample`` and ``neuron``. If
          several layers differ at the earliest step, ``layer`` is the first of these layers.
          ``neuron`` is a tuple with an index for each axis other than time and sample. An array
          without a time axis is named only if no array with a time axis differs. ``step`` and
          ``sample`` are then None, and ``neuron`` is the index of the entry.
        - ``batch``: the index of the first batch that differs, or None if the runs agree. The
          attribute ``first`` is a position in this batch.
        - ``rows``: a named tuple for each layer, with the fields ``layer``, ``entries`` (the number
          of entries), ``spikes`` (the number of spikes in each run, or None if the array does not
          hold spikes), ``differ`` (the number of entries that differ) and ``first`` (the first
          difference).
        - ``hints``: sentences that name possible causes of the differences: a shift by one step,
          different resets, or a state that was kept from the previous batch. Hints are given only
          if at least 5 trains differ. The hint about resets is given only if at least 20 trains
          differ. If you pass `potentials`, further sentences say how far the potential of the
          neuron was from its threshold, and whether rounding explains the difference.

    Raises
    ------
    ValueError
        If a layer has no counterpart or a different shape in the other run, if the runs have
        different numbers of batches, or if `potentials` or `thresholds` do not fit the spikes.
    TypeError
        If a run is not a mapping, or holds something that is not an array.

    Examples
    --------
    The decay is 0.9 in the first run, and 0.8 in the second run:

    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> def run(decay):
    ...     potential, spikes = 0.0, []
    ...     for current in np.full((6, 1, 2), [0.2, 0.4]):
    ...         potential = decay * potential + current
    ...         spikes.append(potential > 1)
    ...         potential = potential - spikes[-1]
    ...     return {"hidden": np.stack(spikes)}
    >>> result = sx.testing.compare_runs(run(0.9), run(0.8), time_axis=0)
    >>> result
    layer     entries  spikes 1  spikes 2    differ  first difference
    hidden         12         2         1         3  step 2, sample 0, neuron 1
    The first difference is in hidden: step 2, sample 0, neuron 1.
    >>> result.agrees, result.first.step
    (False, 2)
    """
    if (potentials is None) != (thresholds is None):
        raise ValueError("potentials and thresholds must be passed together, as in thresholds=1")
    of_each = time_axis if isinstance(time_axis, tuple) else (time_axis, time_axis)
    if len(of_each) != 2:
        raise ValueError(f"time_axis must have one axis for each of the two runs; got {time_axis}")
    axes = AXIS(of_each[0], "time_axis"), AXIS(of_each[1], "time_axis")
    runs = _mappings(first, "first"), _mappings(second, "second")
    if len(runs[0]) != len(runs[1]):
        raise ValueError(f"first has {len(runs[0])} batches, but second has {len(runs[1])}")
    given = potentials if isinstance(potentials, tuple) else (potentials,)
    states = [] if potentials is None else [_mappings(run, "potentials") for run in given]
    if any(len(run) != len(runs[0]) for run in states):
        raise ValueError(f"potentials must have {len(runs[0])} batches, as the spikes have")
    batches = [list(_layers(pair, axes, names)) for pair in zip(*runs, strict=True)]
    pairs = [[layer.names for layer in layers] for layers in batches]
    for number, each in enumerate(pairs):
        if each != pairs[0]:
            raise ValueError(f"batch {number} has layers {each}, but batch 0 {pairs[0]}")
    rows = tuple(_rows(batches))
    for number, layers in enumerate(batches):
        found = _earliest(layer.first() for layer in layers)
        if found is None:
            continue
        hints = [*_hints(layers, found, number)]
        if states:
            of_batch = [run[number] for run in states]
            layer = next(layer for layer in layers if layer.names[0] == found.layer)
            hints += _from_threshold(layer, found, of_batch, axes, thresholds)
        return Runs(rows, found, number, tuple(hints))
    return Runs(rows)


def _earliest(found: Iterable[Difference | None]) -> Difference | None:
    """Return the difference at the earliest step. Differences without a step come last."""
    places = [each for each in found if each is not None]
    return min(places, key=lambda x: math.inf if x.step is None else x.step, default=None)


def _rows(batches: list[list[Layer]]) -> Iterator[Row]:
    """Yield a row for each layer, with numbers that are summed over the batches."""
    for parts in zip(*batches, strict=True):
        holds_spikes = all(part.holds_spikes for part in parts)
        numbers = (sum(part.spikes(run) for part in parts) for run in (0, 1))
        yield Row(
            layer=parts[0].names[0],
            entries=sum(part.differs.size for part in parts),
            spikes=tuple(numbers) if holds_spikes else None,
            differ=sum(int(part.differs.sum()) for part in parts),
            first=next(filter(None, (part.first() for part in parts)), None),
        )


# Reading the runs ---------------------------------------------------------------------------------


def _mappings(run: Any, argument: str) -> list[Mapping[str, Any]]:
    """Return the batches of a run, as a list of mappings from names to arrays."""
    found: list[Any] = [getattr(x, "spikes", x) for x in (run if isinstance(run, list) else [run])]
    for each in found or [run]:
        if not (isinstance(each, Mapping) and each):
            raise TypeError(
                f"{argument} must be a non-empty mapping from names to arrays, a recording, or a "
                f"list with one of them for each batch; got {type(each).__qualname__}"
            )
    return found


def _pairs(
    first: Mapping[str, Any], second: Mapping[str, Any], names: Mapping[str, str] | None
) -> list[tuple[str, str]]:
    """Return the names of each layer in both runs, in the order of the first run."""
    if names is None and len(first) == len(second):
        pairs = list(zip(first, second, strict=True))
        if all(a == b or (a not in second and b not in first) for a, b in pairs):
            return pairs
    names = names or {}
    pairs = [(name, names.get(name, name)) for name in first]
    alone = [a for a in names if a not in first] + [a for a, b in pairs if b not in second]
    alone += [b for b in second if b not in dict(pairs).values()]
    if alone:
        raise ValueError(
            f"{', '.join(map(repr, alone))} has no counterpart: the first run has {[*first]} and "
            f"the second has {[*second]}. If they are the same layers, pass names={{'name in the "
            "first run': 'name in the second'}"
        )
    return pairs


def _layers(
    runs: tuple[Mapping[str, Any], Mapping[str, Any]], axes: Axes, names: Mapping[str, str] | None
) -> Iterator[Layer]:
    """Yield the layers of a batch in the order of the first run."""
    lengths = None  # the numbers of steps and samples in the first layer
    for pair in _pairs(*runs, names):
        arrays = [run[name] for run, name in zip(runs, pair, strict=True)]
        for x, name in zip(arrays, pair, strict=True):
            adapter_of(x, name)  # `adapter_of` raises an error unless `x` is an array
        hosts = list(map(host_values, arrays, pair))
        if any(map(np.iscomplexobj, hosts)):
            raise TypeError(f"{pair[0]} must hold real numbers: compare real and imaginary parts")
        values, is_timed = _aligned(pair, hosts, axes, lengths)
        lengths = lengths or values[0].shape[:2]
        holds_spikes = all(map(_holds_spikes, values))
        if holds_spikes:
            values = [np.round(x) for x in values]
        differs = distances(*values) > (0 if holds_spikes else _allowed(arrays, values))
        yield Layer(pair, values, is_timed, holds_spikes, differs)


def _aligned(
    names: tuple[str, str], arrays: list[np.ndarray], axes: Axes, lengths: tuple[int, ...] | None
) -> tuple[list[np.ndarray], bool]:
    """Return the arrays of a layer in both runs, and whether they have a time axis.

    If the arrays have a time axis, their time and sample axes are moved to the front. `lengths`
    gives the numbers of steps and samples in the first layer. A later layer has a time axis if its
    numbers of steps and samples are equal to `lengths`.
    """
    moved: list[Any] = [_time_first(x, axis) for x, axis in zip(arrays, axes, strict=True)]
    is_timed = moved[0] is not None and moved[0].shape[:2] == (lengths or moved[0].shape[:2])
    one, other = moved if is_timed else arrays
    lacks_time = lengths is None and not is_timed and axes[0] is not None
    if lacks_time or other is None or one.shape != other.shape:
        raise ValueError(
            f"{names[0]} has shape {arrays[0].shape} in the first run, and {names[1]} has shape "
            f"{arrays[1].shape} in the second, which do not match with the time axes {axes}"
        )
    return [one.astype(np.float64), other.astype(np.float64)], is_timed


def _time_first(x: np.ndarray, time_axis: int | None) -> np.ndarray | None:
    """Return a view whose first axes are time and sample, or None if `x` has no such axes."""
    if time_axis is None or x.ndim < 2 or not -x.ndim <= time_axis < x.ndim:
        return None
    sample_axis = 1 if time_axis % x.ndim == 0 else 0
    return np.moveaxis(x, (time_axis, sample_axis), (0, 1))


def _holds_spikes(x: np.ndarray) -> bool:
    """Return whether each finite entry is 0 or within 0.01 of another whole number.

    The tolerance is for surrogate gradients, which may return spikes such as 0.9999999. There is no
    tolerance around 0, because an array of small gradients does not hold spikes.
    """
    x = x[np.isfinite(x)]
    whole = np.round(x)
    is_far = np.abs(x - whole) > 0.01 * np.minimum(np.abs(whole), 1)
    return not np.any(is_far | (np.abs(whole) >= LARGEST))


def _allowed(arrays: Iterable[Any], values: Iterable[np.ndarray]) -> float:
    """Return the tolerance for rounding errors in a comparison of two arrays."""
    known = [PRECISION.get(dtype_name(x), PRECISION["float64"]) for x in arrays]
    epsilon, smallest = map(max, zip(*known, strict=True))
    # The largest entry of a run that diverges would hide the first differences. The tolerance is
    # therefore relative to the smaller of the two runs' largest entries.
    scale = min(map(largest_finite, values))
    return float(smallest + ROUNDINGS * epsilon * scale)


# Hints --------------------------------------------------------------------------------------------


def _hints(layers: list[Layer], found: Difference, batch: int) -> Iterator[str]:
    """Yield sentences about possible explanations of the differences in a batch."""
    differing = [x for x in layers if x.is_timed and x.holds_spikes and x.differs.any()]
    trains = [x.differs.any(axis=0).sum() for x in differing]
    if sum(trains) < FEWEST:
        return
    consistent, name = "This is consistent with", differing[0].names[0]
    if batch and found.step == 0:
        yield (
            f"{consistent} a state that one run kept from the previous batch: the differences "
            f"begin at step 0 of batch {batch}."
        )
    for early, late in ((0, 1), (1, 0)):
        if all(np.array_equal(x.runs[early][:-1], x.runs[late][1:], True) for x in differing):
            shift = f"from {name} on, the {WHICH[late]} run is one step later"
            yield f"{consistent} a shift: {shift}."
    if _differs_after_spikes(differing[0]):  # the first layer that differs
        yield f"{consistent} different resets: in {name}, no neuron differs before its first spike."


def _differs_after_spikes(layer: Layer) -> bool:
    """Return whether many trains differ, but no train differs before its first spike."""
    has_fired = np.cumsum(layer.runs[0] != 0, axis=0) > 0
    trains, fired = layer.differs.any(axis=0).sum(), has_fired[-1].sum()
    too_early = layer.differs[0].any() or (layer.differs[1:] & ~has_fired[:-1]).any()
    return bool(trains >= max(FEWEST_RESET, SHARE_RESET * fired) and not too_early)


def _from_threshold(
    layer: Layer, at: Difference, runs: list[Mapping[str, Any]], axes: Axes, thresholds: Any
) -> Iterator[str]:
    """Yield sentences about the potentials at the first difference."""
    given = list(zip(runs, layer.names, axes, strict=False))
    if isinstance(thresholds, Mapping) and at.layer not in thresholds:
        raise ValueError(f"thresholds has no entry for {at.layer}; got {[*thresholds]}")
    if not layer.is_timed or any(name not in run for run, name, _ in given):
        return
    arrays = [run[name] for run, name, _ in given]
    hosts = [host_values(x, f"potentials of {at.layer}").astype(np.float64) for x in arrays]
    values = [_time_first(x, axis) for x, (*_, axis) in zip(hosts, given, strict=True)]
    threshold = thresholds.get(at.layer) if isinstance(thresholds, Mapping) else thresholds
    threshold, shape = host_values(threshold, "thresholds"), layer.differs.shape
    if threshold.shape not in ((), shape[2:]):
        raise ValueError(
            f"thresholds of {at.layer} must be a number or have the shape {shape[2:]} of its "
            f"neurons; got shape {threshold.shape}"
        )
    above: list[float] = []
    for x in values:
        if x is None or x.shape != shape:
            raise ValueError(f"potentials of {at.layer} must have the same shape as its spikes")
        above.append(float((x - threshold)[at.step, at.sample, *at.neuron]))
    parts = [f"{x:.2g} in the {which} run" for x, which in zip(above, WHICH, strict=False)]
    yield f"The potential minus the threshold was {' and '.join(parts)}."
    allowed = _allowed(arrays, hosts)
    if above == [0, 0]:
        yield "One run fires at the threshold, and the other only above it."
    elif max(map(abs, above)) <= allowed:
        yield f"Rounding explains this, because it changes these potentials by up to {allowed:.1g}."
    else:
        yield f"Rounding does not explain this: it changes these potentials by up to {allowed:.1g}."
