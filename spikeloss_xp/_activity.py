"""Count spikes, and the synaptic operations that they cause."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from spikeloss_xp import _checks
from spikeloss_xp._arrays import (
    Adapter,
    adapter_of,
    asarray_like,
    floating,
    host_values,
    on_device_of,
)
from spikeloss_xp._input.layout import Layout
from spikeloss_xp._input.prepared import mask_of
from spikeloss_xp._tolerance import LARGEST
from spikeloss_xp._typing import Array, ArrayLike

SUMS = "int64"  # the dtype of all sums
ROUNDING = 0.01  # an entry that differs from a whole number n by at most ROUNDING * n becomes n
FRACTIONS = 2.0**30  # fractions of a spike are added as integer multiples of 1 / FRACTIONS
LAYER, CONNECTED, MODULE = "layer", "connected layer", "module"  # the kinds in `Activity.rows`


class LayerActivity(NamedTuple):
    """Numbers of spikes, entries and operations in one layer, summed over all unmasked entries.

    Attributes
    ----------
    events : float
        The sum of the absolute values of the entries. For binary spikes, the sum is the number of
        spikes.
    active : float
        The number of entries that are not 0.
    entries : int
        The number of unmasked entries.
    samples : int
        The number of samples.
    operations : float or None
        The number of synaptic operations that the spikes cause. `operations` is None if the
        connections of the layer were not given.

    Notes
    -----
    If an entry is NaN or infinite, or if a length is invalid, then `events`, `active` and
    `operations` are NaN.
    """

    events: float
    active: float
    entries: int
    samples: int
    operations: float | None = None

    @property
    def rate(self) -> float:
        """The firing rate: the mean number of events per neuron and time step."""
        return _quotient(self.events, self.entries)

    @property
    def sparsity(self) -> float:
        """The activation sparsity: the fraction of entries that are 0."""
        return 1 - _quotient(self.active, self.entries)

    @property
    def operations_per_sample(self) -> float | None:
        """The mean number of synaptic operations per sample, or None if `operations` is None."""
        return None if self.operations is None else _quotient(self.operations, self.samples)


class ModuleOperations(NamedTuple):
    """Numbers of operations in one module, summed over samples and time steps.

    Attributes
    ----------
    accumulates : float
        The number of accumulates. `accumulates` is 0 unless the input of the module holds only -1,
        0 and 1.
    multiply_accumulates : float
        The number of multiply-accumulates. `multiply_accumulates` is 0 if the input of the module
        holds only -1, 0 and 1.
    dense : float
        The number of operations that would be needed if no entry of the input were 0.
    samples : int
        The number of samples.
    """

    accumulates: float
    multiply_accumulates: float
    dense: float
    samples: int

    @property
    def operations_per_sample(self) -> float:
        """The mean number of accumulates and multiply-accumulates per sample."""
        return _quotient(self.accumulates + self.multiply_accumulates, self.samples)


@dataclass(frozen=True, eq=False)
class Activity:
    """Numbers of spikes and operations, summed over samples and time steps for each layer.

    The function `activity` and the method ``activity`` of a recording return an `Activity` object.
    Two `Activity` objects can be added as ``a + b``. A list of `Activity` objects can be added as
    ``sum(parts)``. The objects may come from different batches, processes or pieces of a recording,
    but must describe the same layers. An `Activity` object is printed as a table of firing rates
    and operations.

    The sums stay on the device of the spikes. Reading `rate`, `layers` or another computed
    attribute copies the sums to the host, which waits for the device. Functions that are compiled
    by ``jax.jit`` can take and return an `Activity`.

    Attributes
    ----------
    sums : array
        All sums in one int64 array, with a row for each layer and for each module. To combine
        several processes, add their arrays, for example with ``torch.distributed.all_reduce``.

        Read the numbers from `layers` and `modules`, not from the columns of `sums`.
    rows : tuple
        For each row of `sums`, a tuple of the row's kind and the name of the layer or module. The
        kind is ``"layer"``, ``"connected layer"`` (a layer with known connections) or
        ``"module"``.
    not_counted : tuple of str
        The names of modules and functions whose operations are not counted.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> spikes = np.zeros((20, 4, 3))  # [time, sample, neuron]
    >>> spikes[::5] = 1
    >>> options = {"time_axis": 0, "connections": {"hidden": 10}}
    >>> counts = sx.activity({"hidden": spikes}, **options)
    >>> counts += sx.activity({"hidden": spikes[:, :2]}, **options)
    >>> counts.layers["hidden"].events, counts.layers["hidden"].samples
    (72.0, 6)
    >>> print(counts)
    layer    rate  sparsity  operations/sample
    hidden    0.2       0.8                120
    network   0.2       0.8                120
    """

    sums: Array
    rows: tuple[tuple[str, str], ...]
    not_counted: tuple[str, ...] = ()

    def __add__(self, other: "Activity") -> "Activity":
        if not isinstance(other, Activity):
            return NotImplemented
        if self.rows != other.rows:
            names = [[name for _, name in each.rows] for each in (self, other)]
            raise ValueError(
                "two Activity objects can be added only if they have the same layers and modules, "
                f"and connections for the same layers; got {names[0]} and {names[1]}"
            )
        adapter = adapter_of(self.sums, "sums")
        missing = dict.fromkeys(self.not_counted + other.not_counted)
        with adapter.scope(SUMS):
            sums = self.sums + asarray_like(adapter, self.sums, other.sums, "sums")
        return replace(self, sums=sums, not_counted=tuple(missing))

    def __reduce__(self) -> Any:  # JAX would restore int64 arrays as int32
        host = host_values(self.sums, "sums")
        return _restored, (self.sums[:0, ...], host, self.rows, self.not_counted)

    def __radd__(self, other: Any) -> "Activity":
        return self if other == 0 else NotImplemented  # `sum` begins with 0

    @property
    def layers(self) -> dict[str, LayerActivity]:
        """The numbers of spikes, entries and operations, keyed by the name of the layer.

        Reading this attribute copies `sums` to the host, which waits for the device.
        """
        return self._read()[0]

    @property
    def modules(self) -> dict[str, ModuleOperations]:
        """The numbers of operations, keyed by the name of the module."""
        return self._read()[1]

    @property
    def rate(self) -> float:
        """The firing rate over all layers: the mean number of events per neuron and time step."""
        return _whole(self.layers).rate

    @property
    def sparsity(self) -> float:
        """The activation sparsity over all layers: the fraction of entries that are 0."""
        return _whole(self.layers).sparsity

    @property
    def operations_per_sample(self) -> float | None:
        """The mean number of operations per sample, summed over layers and modules.

        Layers and modules whose operations are not known are left out. If the operations of all
        layers and modules are unknown, the result is None.
        """
        return _operations(*self._read())

    def _read(self) -> tuple[dict[str, LayerActivity], dict[str, ModuleOperations]]:
        """Return the numbers in `sums` as a dict of layers and a dict of modules."""
        layers, modules = {}, {}
        numbers = host_values(self.sums, "sums").tolist()
        for (kind, name), row in zip(self.rows, numbers, strict=True):
            nan = math.nan if row[2] else 0
            first, second, active, operations = (row[i] + nan for i in (0, 1, 3, 6))
            entries, samples = row[4:6]
            if kind == MODULE:
                modules[name] = ModuleOperations(first, second, active, samples)
            else:
                events, known = first + second / FRACTIONS, kind == CONNECTED
                operations = operations if known else None
                layers[name] = LayerActivity(events, active, entries, samples, operations)
        return layers, modules

    def scalars(self) -> dict[str, float]:
        """Return the numbers to monitor, as a dict for any logger.

        Returns
        -------
        dict of str to float
            A dict with the keys ``"rate"``, ``"sparsity"`` and ``"operations_per_sample"`` for the
            whole network. For each layer, there are three such keys, for example
            ``"hidden/rate"``. For each module, there is a key such as
            ``"module/fc1/operations_per_sample"``. Characters that a logger may refuse, such as
            spaces, are replaced by underscores. Numbers that are unknown, NaN or infinite are left
            out.
        """
        layers, modules = self._read()
        found: dict[str, float | None] = {}
        for prefix, each in {"": _whole(layers), **{f"{n}/": x for n, x in layers.items()}}.items():
            found[f"{prefix}rate"] = each.rate
            found[f"{prefix}sparsity"] = each.sparsity
            found[f"{prefix}operations_per_sample"] = each.operations_per_sample
        found["operations_per_sample"] = _operations(layers, modules)
        for name, x in modules.items():
            found[f"module/{name}/operations_per_sample"] = x.operations_per_sample
        return {
            re.sub(r"[^\w./-]", "_", key): float(x)
            for key, x in found.items()
            if x is not None and math.isfinite(x)
        }

    def __str__(self) -> str:
        layers, modules = self._read()
        lines: list[str] = []
        if layers:
            whole = _whole(layers)
            last = "network", whole.rate, whole.sparsity, _operations(layers, modules)
            rows = [(n, x.rate, x.sparsity, x.operations_per_sample) for n, x in layers.items()]
            lines += _table(("layer", "rate", "sparsity", "operations/sample"), [*rows, last])
        if modules:
            head = "module, per sample", "accumulates", "multiply-accumulates", "dense"
            numbers = {
                name: [_quotient(x, m.samples) for x in m[:3]] for name, m in modules.items()
            }
            each = [(name, *row) for name, row in numbers.items()]
            lines += [""] * bool(layers) + _table(head, each)
        if self.not_counted:
            lines += ["", "not counted:", *(f"  {each}" for each in self.not_counted)]
        return "\n".join(lines)


def _restored(like: Array, sums: np.ndarray, *rest: Any) -> Activity:
    """Return a pickled `Activity`, with `sums` converted to the library of the array `like`."""
    adapter = adapter_of(like, "sums")
    adapter.register_container(Activity, ("sums",))
    with adapter.scope(SUMS):
        return Activity(adapter.from_host_like(sums, like), *rest)


def _whole(layers: dict[str, LayerActivity]) -> LayerActivity:
    """Return the numbers of events, active entries and entries, summed over all layers."""
    found = layers.values()
    events, active = sum(x.events for x in found), sum(x.active for x in found)
    return LayerActivity(events, active, sum(x.entries for x in found), samples=0)


def _operations(
    layers: dict[str, LayerActivity], modules: dict[str, ModuleOperations]
) -> float | None:
    """Return the mean number of operations per sample, summed over layers and modules."""
    each = [x.operations_per_sample for x in layers.values()]
    each += [x.operations_per_sample for x in modules.values()]
    known = [x for x in each if x is not None]
    return sum(known) if known else None


def _quotient(total: float, number: float) -> float:
    return total / number if number else math.nan


def _table(head: tuple[str, ...], rows: list[Any]) -> list[str]:
    """Return the lines of a table. The first column holds names."""
    cells = [head, *((name, *map(_in_words, numbers)) for name, *numbers in rows)]
    first, *widths = (max(map(len, column)) for column in zip(*cells, strict=True))
    return [
        "  ".join([f"{name:{first}}", *(f"{x:>{n}}" for x, n in zip(row, widths, strict=True))])
        for name, *row in cells
    ]


def _in_words(x: float | None) -> str:
    return "-" if x is None else f"{x:.3g}" if abs(x) < 1 else f"{x:,.6g}"


@on_device_of("spikes")
def activity(
    spikes: Mapping[str, Array] | Array,
    *,
    time_axis: int,
    lengths: ArrayLike | None = None,
    where: ArrayLike | None = None,
    connections: Any = None,
) -> Activity:
    """Count the spikes of layers, and the synaptic operations that the spikes cause.

    The result holds sums, which are exact up to 2^53 if each entry is below 2^24. To combine
    batches, processes or pieces of a recording, add their results, and read the firing rate from
    the sum of the results. The mean of several firing rates would be wrong for batches of different
    sizes.

    An entry that is within 1 % of a whole number is rounded to this number before it is counted,
    because the surrogate gradients of some frameworks return spikes such as 0.9999999.

    Parameters
    ----------
    spikes : dict of str to array, or array
        The spikes of each layer, keyed by the name of the layer. If you pass an array, it is a
        single layer with the name ``"spikes"``. Each array has a batch axis, a time axis, and one
        or more neuron axes. Negative and graded spikes are allowed.
    time_axis : int
        The time axis of the spikes. The batch axis is the first axis that is not the time axis.
    lengths : array or sequence of int, optional
        The number of valid time steps of each sample. Later steps are not counted.
    where : array of bool, optional
        A mask that is True for the entries to count, in any shape that a loss accepts. A sample is
        not counted if the mask is False for all its entries.
    connections : dict of str to int or array, optional
        For each layer, the fan-out: the number of connections from a neuron to the next layer. Pass
        one number for all neurons, or an array with a number for each neuron. If `spikes` is a
        single array, pass the number or the array without a dict.

    Returns
    -------
    Activity
        The sums for each layer, which are printed as a table of firing rates and operations.

    Raises
    ------
    ValueError
        If an array has fewer than three axes, if the shape of a mask or of the connections does not
        fit the spikes, or if connections are given for a layer that is not in `spikes`.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> spikes = np.zeros((4, 3, 20))  # [sample, neuron, time]
    >>> spikes[..., ::5] = 1
    >>> lengths = [20, 20, 10, 10]
    >>> counts = sx.activity(spikes, time_axis=-1, lengths=lengths, connections=7)
    >>> counts.rate, counts.operations_per_sample
    (0.2, 63.0)
    """
    time_axis = _checks.integer(time_axis, "time_axis")
    layers = spikes if isinstance(spikes, Mapping) else {"spikes": spikes}
    if layers is not spikes and connections is not None:
        connections = {"spikes": connections}
    connections = {} if connections is None else connections
    if not layers:
        raise ValueError("spikes must hold at least one layer; got an empty dict")
    if len({*map(str, layers)}) < len(layers):
        raise ValueError(f"the layers must have different names as text; got {[*layers]}")
    if not (isinstance(connections, Mapping) and connections.keys() <= layers.keys()):
        raise ValueError(
            "connections must be a dict whose keys are names of layers, such as "
            f"{next(iter(layers))!r}; got {connections!r}"
        )
    sums = [
        _sums_of(name, x, time_axis, lengths, where, connections.get(name))
        for name, x in layers.items()
    ]
    rows = tuple((CONNECTED if name in connections else LAYER, str(name)) for name in layers)
    adapter = adapter_of(sums[0])
    adapter.register_container(Activity, ("sums",))
    with adapter.scope(SUMS):
        together = [
            asarray_like(adapter, sums[0], x, name) for name, x in zip(layers, sums, strict=True)
        ]
        return Activity(adapter.xp.stack(together), rows)


def _sums_of(
    name: str, x: Array, time_axis: int, lengths: Any, where: Any, connections: Any
) -> Array:
    """Return the row for a layer in the array `Activity.sums`."""
    adapter = adapter_of(x, name)
    xp, shape = adapter.xp, tuple(x.shape)
    if len(shape) < 3:
        raise ValueError(
            f"{name} must have a batch, a neuron and a time axis; got shape {shape}: add the axes "
            "that are missing, such as x[:, None]"
        )
    layout = Layout.of(shape, time_axis, name)
    mask, invalid = mask_of(adapter, layout, x, where, lengths)
    size = xp.abs(floating(adapter, adapter.stop_gradient(x), name))
    if mask is not None:
        mask = xp.broadcast_to(mask, shape)
        size = adapter.masked(size, mask)
    known = size < LARGEST  # False for NaN; larger entries are treated like infinity
    size = adapter.masked(size, known)
    nearest = xp.round(size)
    size = xp.where(xp.abs(size - nearest) <= ROUNDING * nearest, nearest, size)
    whole = xp.floor(size)
    fraction = xp.round((size - whole) * FRACTIONS)
    with adapter.scope(SUMS):

        def total(entries: Array) -> Array:
            return xp.sum(xp.astype(entries, xp.int64))

        sums = [*map(total, (whole, fraction, ~known, size > 0))]
        if invalid is not None:
            sums[2] = sums[2] + total(invalid)
        if mask is None:
            sums += [adapter.scalar(sums[0], n) for n in (math.prod(shape), layout.batch)]
        else:
            others = tuple(axis for axis in range(len(shape)) if axis != layout.batch_axis)
            sums += [total(mask), total(xp.any(mask, axis=others))]
        fires = layout.collapsed(adapter, size > 0)
        sums.append(_operations_of(adapter, layout, fires, connections, name))
        return xp.stack(sums)


def _operations_of(
    adapter: Adapter, layout: Layout, fires: Array, connections: Any, name: str
) -> Array:
    """Return the number of operations that spikes cause, or 0 if `connections` is None.

    `fires` is True for spikes, and has the axes batch, class and time.
    """
    name = f"connections of {name}"
    number = host_values(0 if connections is None else connections, name)
    expected = {"one for all": (), "one for each neuron": layout.space()}
    _checks.check_shape(number, name, "numbers", expected)
    largest = 2**62 // math.prod(layout.shape)  # the sum of all operations must not overflow
    if not np.all((number >= 0) & (number <= largest) & (number == np.round(number))):
        raise ValueError(
            f"{name} must be whole numbers of at least 0, and at most {largest:.3g}; "
            f"got {connections!r}"
        )
    xp, axes = adapter.xp, (layout.batch_axis, layout.time)
    spikes = xp.sum(xp.astype(fires, xp.int64), axis=axes)  # the number of spikes of each neuron
    flat = np.broadcast_to(number.astype(SUMS), layout.space()).reshape(-1)
    return xp.sum(spikes * adapter.from_host_like(flat, spikes))
