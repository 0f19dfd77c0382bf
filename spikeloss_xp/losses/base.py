"""The base class of the losses, in which a call is prepared and computed.

    spikes --readout--> u --criterion(u, target)--> terms --reduction--> loss

A call has two steps. `_prepare` finds out what kind of call it is: the library, the axes, the mask
and the labels. `_sum` computes its numbers: read, compare, add up. Each stage returns its result
and its pullback, so the gradient is the composition of the pullbacks. A reduced loss is
``sum / weight``. Both add up over chunks that stay in a cache, micro-batches, processes, devices,
and, for losses with a term at each step, segments of time.

A private member of a loss is either abstract, so that a subclass defines it, or final. What else
differs between losses is a class attribute.
"""

import dataclasses
import functools
import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, get_args

from spikeloss_xp import _checks
from spikeloss_xp._arrays import (
    Adapter,
    adapter_of,
    find_adapter,
    host,
    on_device_of,
    rank,
    shape_of,
)
from spikeloss_xp._input.labels import Labels, class_weights
from spikeloss_xp._input.prepared import (
    Layout,
    Prepared,
    both,
    fill_masked,
    prepare_input,
    prepare_times,
)
from spikeloss_xp._typing import (
    Array,
    ArrayLike,
    ArrayT,
    EntropyReadout,
    Pullback,
    Reduction,
    ValueAndPullback,
)
from spikeloss_xp.gradients import ClosedForm
from spikeloss_xp.readouts import WINDOWED, Read, Reading

REDUCTIONS = get_args(Reduction)
OPTIONS = ("where", "lengths", "weight")
PLAIN_VALUES = (int, float, str, bool, type(None))
PLAIN_TYPES = frozenset(PLAIN_VALUES)
SHARED_CHECKS: dict[str, Callable[[Any, str], Any]] = {  # of the options that several losses have
    "moving_window": _checks.optional_count,
    "num_classes": _checks.optional_count,
    "ignore_index": _checks.label,
    "time_axis": _checks.integer,
    "reduction": _checks.one_of(REDUCTIONS),
}


class Terms(NamedTuple):
    """The terms of a loss, of a batch or a chunk of it.

    Attributes
    ----------
    values : array
        The terms, multiplied by their weights, and 0 where they are masked.
    mask, weight : array or None
        The term mask, True for the terms that count, and the weight of each term. They broadcast
        against the terms; None stands for True, and for 1.
    pullback : callable
        Takes the derivative of the loss with respect to the terms to the derivative with respect
        to the spikes that they were computed from.
    """

    values: Array
    mask: Array | None
    weight: Array | None
    pullback: Pullback


class Split(NamedTuple):
    """How a call of a loss may be split into blocks that add up.

    Attributes
    ----------
    loss : Loss
        The loss, with the reduction "sum".
    layout : Layout
        The layout of the input.
    axes : dict
        For the input and each argument, which axis of the input each axis is; None for classes.
    independent : set of int
        The axes of the input along which blocks add up; along time if they overlap.
    dtype : dtype
        The dtype to compute in.
    divisor : array, int or None
        The number that the reduction divides the sum by; None for 1.
    where : array or None
        The mask, in a shape that blocks of it keep.
    """

    loss: "Loss"
    layout: Layout
    axes: dict[str, tuple[int | None, ...]]
    independent: set[int]
    dtype: Any
    divisor: Any
    where: Any


class Loss(ClosedForm):
    """A loss on spike trains: a function of spikes and a target.

    Hyper-parameters go in the constructor, arrays in the call. Losses are immutable, hashable and
    comparable.
    """

    reduction: str
    time_axis: int
    readout: str
    _readouts: ClassVar[tuple[str, ...]] = ()
    """The readouts that the loss takes."""
    _reads_times: ClassVar[bool] = False
    """Whether the input holds spike times instead of spikes in bins."""
    _smallest_rank: ClassVar[int] = 3
    """The number of axes that an input needs."""
    _has_time: bool | None = None
    """Whether terms have a time axis; None if they have the axes of the input."""
    _has_trains: ClassVar[bool] = False
    """Whether the target is a train for each neuron, so that each neuron has terms of its own."""
    _classes_compete: ClassVar[bool | None] = False
    """Whether the classes of a sample share one term; None if the criterion decides."""
    _compares_numbers: bool = False
    """Whether the criterion takes class indices as a number for each class."""

    def __call__(
        self,
        input: ArrayT,
        target: ArrayLike,
        *,
        where: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        weight: ArrayLike | None = None,
    ) -> ArrayT:
        """Return the value of the loss, an array of the library and on the device of `input`.

        Parameters
        ----------
        input : array
            Spikes, ``[batch, *space, time]``, with the time axis at `time_axis`.
        target : array or sequence
            The target, as the class describes it.
        where : array or sequence of bool, optional
            The mask, True for entries that count. Its shape is ``[batch]``, ``[time]`` if that is
            of another size, that of batch and time in the order of `input`, where batch may be 1,
            or that of `input`. A masked entry is read as silence and has gradient 0. A masked term
            is 0, and the divisor of a mean does not count it.
        lengths : array or sequence of int, optional
            The number of steps of each sample that count: ``[batch]``, from 0 to the number of
            steps. Later steps are masked.
        weight : array or sequence of float, optional
            Class weights, ``[class]``, finite and at least 0. Each term is multiplied by the weight
            of its label (in `SpikeMoid`, of its class), and a mean divides by the sum of these
            weights instead of the number of terms. `SpikeTime` takes no weights.

        Returns
        -------
        array
            A scalar array, 0 if nothing counts; with ``reduction="none"`` the terms, 0 where they
            are masked.

        Raises
        ------
        ValueError, TypeError
            If an argument has the wrong shape, dtype, library or range. The message says what
            arrived and what was expected. Ranges are checked where values can be read for free;
            elsewhere a label or length out of range makes the terms of its sample NaN.
        """
        options: dict[str, Any] = {"target": target, "where": where}
        options |= {"lengths": lengths, "weight": weight}
        value: ArrayT = adapter_of(input).evaluate(self, input, options)
        return value

    def forward(self, input: ArrayT, target: ArrayLike, **options: ArrayLike | None) -> ArrayT:
        """Return the value of the loss: the same as calling it."""
        return self(input, target, **options)

    def value(self, input: ArrayT, target: ArrayLike, **options: ArrayLike | None) -> ArrayT:
        """Return the value of the loss, with operations that the library can differentiate.

        A call returns the same value, and may register the closed form as its gradient. The
        arguments are those of a call.
        """
        value: ArrayT = self._compute(input, target, options, with_pullback=False)[0]
        return value

    def value_and_pullback(
        self, input: ArrayT, target: ArrayLike, **options: ArrayLike | None
    ) -> tuple[ArrayT, Pullback]:
        """Return the value of the loss, and the pullback from it to `input`, in closed form.

        Parameters
        ----------
        input : array
            Spikes, as for a call.
        target : array or sequence
            The target, as for a call.
        **options
            The other arguments of a call: `where`, `lengths` and `weight`.

        Returns
        -------
        tuple
            The value, and the pullback: a function that takes an array of the shape of the value,
            the derivative with respect to it, and returns the gradient with respect to `input`.
            Call it once at most, before you change an array of the call.
        """
        return self._compute(input, target, options, with_pullback=True)

    # First what kind of call it is: library, axes, mask and labels -------------------------------

    def _prepare(
        self, input: Array, target: Any, options: dict[str, Any], context: int = 0
    ) -> tuple[Prepared, Any]:
        """Return the prepared input and the labels; the first `context` steps have no terms."""
        if unknown := [name for name in options if name not in OPTIONS]:
            raise TypeError(
                f"{type(self).__name__} takes the options {', '.join(OPTIONS)}; got "
                f"{', '.join(sorted(unknown))}"
            )
        where, lengths, weight = map(options.get, OPTIONS)
        prepared = self._prepare_input(input, where, lengths, context)
        labels = self._labels(prepared, target)
        if weight is not None:
            if not isinstance(labels, Labels):
                raise TypeError(f"{type(self).__name__} takes no weight: it has no classes")
            labels = labels._replace(class_weight=class_weights(prepared, weight))
        return prepared, labels

    def _prepare_input(self, input: Array, where: Any, lengths: Any, context: int = 0) -> Prepared:
        """Return the input with its mask; the first `context` steps have no terms."""
        num_classes = None if self._has_trains else getattr(self, "num_classes", None)
        if self._reads_times:
            return prepare_times(input, where, lengths, num_classes)
        axes = self.time_axis, self._smallest_rank, num_classes
        return prepare_input(input, where, lengths, *axes, context)

    def _chunk_axes(self, layout: Layout) -> tuple[int, ...]:
        """Return the axes of values and terms along which chunks may be evaluated by themselves.

        Empty if readings are much smaller than the input: then chunks are not worth their overhead.
        """
        if self._has_trains and not self._reads_times:
            batch_only = self.reduction == "batchmean"  # which counts whole samples
            return (layout.batch_axis,) if batch_only else (layout.batch_axis, layout.class_axis)
        latency = getattr(self, "readout", None) == "latency"
        return (layout.batch_axis,) if self._has_time or latency else ()

    # Then its numbers: read, compare, add up -----------------------------------------------------

    def _compute(
        self, input: Array, target: Any, options: dict[str, Any], *, with_pullback: bool
    ) -> ValueAndPullback:
        """Return the value and, if it is wanted, the pullback from it to `input`."""
        prepared, labels = self._prepare(input, target, options)
        if self.reduction == "none":
            terms = self._terms(prepared, prepared.values, prepared.mask, labels)
            value, to_terms = self._result(prepared, terms.values)
            return value, lambda cotangent: prepared.gradient(terms.pullback(to_terms(cotangent)))

        with_weight = self.reduction != "sum"
        total, weight, pullback = self._sum(prepared, labels, with_weight, with_pullback)
        if weight is None:
            return total, pullback
        divisor = weight if isinstance(weight, int) else divisor_of(prepared.adapter, weight)
        return total / divisor, lambda cotangent: pullback(cotangent / divisor)

    def _sum(
        self, prepared: Prepared, labels: Any, with_weight: bool, with_pullback: bool
    ) -> tuple[Array, Any, Pullback]:
        """Return the sum of the terms, their weight, and the pullback from the sum to the input.

        The weight is None if it is not wanted. All are evaluated in chunks where that is faster.
        """
        adapter, batch_axis = prepared.adapter, prepared.layout.batch_axis
        pixels = 1 if prepared.pixels is None else prepared.pixels.number

        def sums(values: Array, mask: Array, labels: Any) -> Any:  # a mask may be None
            terms = self._terms(prepared, values, mask, labels)
            weight = self._weight(adapter, terms, batch_axis, pixels) if with_weight else None
            results = adapter.sum_all(terms.values), weight
            return results, terms.pullback if with_pullback else None

        arrays, axes = (prepared.values, prepared.mask, labels), self._chunk_axes(prepared.layout)
        to_values: Any
        if prepared.pixels is None:
            (total, weight), to_values = adapter.map_chunks(sums, arrays, axes, batch_axis)
        else:  # labels have other axes than the input
            (total, weight), to_values = sums(*arrays)

        # All terms have the same cotangent, a scalar, which broadcasts.
        return total, weight, lambda cotangent: prepared.gradient(to_values(cotangent))

    def _terms(self, prepared: Prepared, values: Array, mask: Array | None, labels: Any) -> Terms:
        """Return the terms of a batch or of a chunk of it, at the steps after the context."""
        adapter, layout = prepared.adapter, prepared.layout
        reading, to_values = self._read(prepared, values, mask, labels)
        if reading.time_axis != layout.time:
            reading = reading._replace(time_axis=layout.time, class_axis=layout.class_axis)
        mask, has_labels = reading.mask, isinstance(labels, Labels)
        if prepared.after_context is not None:
            mask = both(mask, prepared.after_context)
        if self._compares_numbers:
            labels = labels.as_numbers(adapter, reading)
        compete = bool(self._classes_compete)
        if mask is None and (not has_labels or labels.count_alike(compete)):  # a plain call
            terms, to_reading = self._criterion(adapter, reading, labels)
            self._check_terms(terms, reading)
            return Terms(terms, None, None, lambda cotangent: to_values(to_reading(cotangent)))

        if has_labels:
            reading, mask = labels.masks(adapter, reading, mask, compete, self.reduction)
        if mask is not None:
            self._check_mask(mask, reading)
            reading = reading.shielded(adapter, mask)
            labels = labels.filled(adapter, mask, reading.class_mask) if has_labels else labels
        terms, to_reading = self._criterion(adapter, reading, labels)
        self._check_terms(terms, reading)
        factor, weight = labels.weights(adapter, reading, compete) if has_labels else (None, None)
        if factor is not None:
            terms = terms * factor
        if mask is not None:
            terms = fill_masked(adapter, terms, mask)

        def pullback(cotangent: Array) -> Array:
            cotangent = to_reading(cotangent if factor is None else cotangent * factor)
            if mask is not None:
                cotangent = fill_masked(adapter, cotangent, mask)
            return to_values(cotangent)

        return Terms(terms, mask, weight, pullback)

    def _check_terms(self, terms: Array, reading: Reading) -> None:
        """Raise if the terms of a subclass have the wrong shape: they must not broadcast."""
        shape, axis, compete = tuple(reading.u.shape), reading.class_axis, self._classes_compete
        shared = shape if compete is False else (*shape[:axis], 1, *shape[axis + 1 :])
        given = tuple(terms.shape)
        if given != shared and (compete is not None or given != shape):
            rule = "one for each sample" if compete else "one for each reading"
            raise ValueError(
                f"the criterion of {type(self).__name__} must return terms of shape {shared}, "
                f"{rule}; got {given}"
            )

    def _check_mask(self, mask: Array, reading: Reading) -> None:
        """Raise if the mask of a subclass's reading does not fit the reading."""
        given, shape = tuple(mask.shape), tuple(reading.u.shape)
        fits = (n in (1, m) for n, m in zip(given, shape, strict=False))
        if len(given) != len(shape) or not all(fits):
            raise ValueError(
                f"the term mask of {type(self).__name__} has shape {given}, which does not fit the "
                f"terms of readings of shape {shape}"
            )

    def _weight(
        self, adapter: Adapter, terms: Terms, batch_axis: int, pixels: int = 1
    ) -> Array | int:
        """Return the number that the reduction divides the sum of these terms by.

        The number of samples with a term that counts, for "batchmean"; else the sum of the weights
        of the terms that count. It is an int if there is neither a mask nor a weight.
        """
        xp, values, mask, weight = adapter.xp, terms.values, terms.mask, terms.weight
        if None in values.shape:  # a number that is not known is counted
            mask = both(mask, xp.ones_like(values, dtype=xp.bool))
        if self.reduction == "batchmean":
            if mask is None:
                return int(values.shape[batch_axis]) // pixels
            axes = tuple(axis for axis in range(mask.ndim) if axis != batch_axis)
            counted = xp.any(mask, axis=axes)
            if pixels > 1:
                counted = xp.any(xp.reshape(counted, (-1, pixels)), axis=1)
            return xp.sum(xp.astype(counted, values.dtype))
        if self.reduction not in REDUCTIONS:  # a subclass may not check it
            SHARED_CHECKS["reduction"](self.reduction, "reduction")
        if mask is None and weight is None:
            return math.prod(values.shape)
        if weight is None:
            weight = xp.astype(mask, values.dtype)
        elif mask is not None:
            weight = fill_masked(adapter, weight, mask)
        sizes = zip(values.shape, weight.shape, strict=True)
        repeated = math.prod([n for n, m in sizes if n != m])
        total = adapter.sum_all(weight)
        return total if repeated == 1 else total * repeated

    def _result(self, prepared: Prepared, terms: Array) -> ValueAndPullback:
        """Return the terms as a call with ``reduction="none"`` does, and back."""
        adapter, layout, pixels = prepared.adapter, prepared.layout, prepared.pixels
        if self._has_time is None:
            collapse = functools.partial(layout.collapsed, adapter)
            return layout.input_axes(adapter, terms), collapse
        absent = {layout.class_axis} if self._classes_compete else set()
        if not self._has_time:
            absent.add(layout.time)
        shape = tuple(n for axis, n in enumerate(terms.shape) if axis not in absent)
        reshape, with_class = adapter.xp.reshape, not self._classes_compete
        if pixels is None:
            return reshape(terms, shape), lambda cotangent: reshape(cotangent, terms.shape)
        images = pixels.of_user(adapter, reshape(terms, shape), with_class=with_class)
        return images, lambda cotangent: reshape(
            pixels.labels(cotangent, with_class=with_class), terms.shape
        )

    # Members of subclasses -----------------------------------------------------------------------

    @abstractmethod
    def _labels(self, prepared: Prepared, target: Any) -> Any:
        """Return the checked target: `Labels`, an array, or a tuple of arrays and None."""

    @abstractmethod
    def _read(self, prepared: Prepared, values: Array, mask: Array | None, labels: Any) -> Read:
        """Return the reading, and its pullback to `values`, which may be a chunk of `prepared`."""

    @abstractmethod
    def _criterion(self, adapter: Adapter, reading: Reading, labels: Any) -> ValueAndPullback:
        """Return the terms, without class weights, and their pullback to ``reading.u``."""

    # Parts of a batch, and segments of time ------------------------------------------------------

    @on_device_of("input")
    def sum_and_weight(
        self, input: ArrayT, target: ArrayLike, *, context: int = 0, **options: ArrayLike | None
    ) -> tuple[ArrayT, ArrayT]:
        """Return the sum of the terms, and the weight that the reduction divides it by.

        Both add up over any split of the batch: over micro-batches, processes and devices. The
        loss of the batch is the sum of the sums. For a mean it is divided by the sum of the
        weights, and it is 0 if that is 0. With a `context` both add up over segments of time too.

        Parameters
        ----------
        input : array
            Spikes, as for a call.
        target : array or sequence
            The target, as for a call.
        context : int, default 0
            The number of first steps that belong to the segment before. They are read, and masked
            as usual, but have no terms and no weight, and their labels are not checked. A segment
            needs `memory` such steps, or all earlier steps if there are fewer.
        **options
            The other arguments of a call: `where`, `lengths` and `weight`.

        Returns
        -------
        tuple of array
            Scalar arrays of one dtype. The sum can be differentiated. For the reductions "sum" and
            "mean" the weight is the number of terms that count or, with class weights, the sum of
            their weights. For "batchmean" it is the number of samples with a term that counts.

        Raises
        ------
        ValueError, TypeError
            If the reduction is "none", which has no sum; if there is a context, but the loss reads
            whole trains or the reduction is "batchmean"; and as a call.

        Examples
        --------
        A mean over two micro-batches of different length is the mean over the batch:

        >>> import numpy as np
        >>> import spikeloss_xp as sx
        >>> loss = sx.SpikeRate(0.5, 0.0, reduction="mean")
        >>> spikes, label = np.eye(4)[:, None, :], [0, 0, 0, 0]
        >>> sums = [loss.sum_and_weight(spikes[part], label[part])
        ...         for part in (slice(0, 1), slice(1, 4))]
        >>> total, weight = map(sum, zip(*sums))
        >>> float(total / weight), float(loss(spikes, label))
        (0.0625, 0.0625)
        """
        return self._sum_of_part(input, target, context, options, with_pullback=False)[:2]

    @on_device_of("input")
    def sum_weight_and_pullback(
        self, input: ArrayT, target: ArrayLike, *, context: int = 0, **options: ArrayLike | None
    ) -> tuple[ArrayT, ArrayT, Pullback]:
        """Return the sum, the weight, and the pullback from the sum to `input`, in closed form.

        For libraries without automatic differentiation.

        Parameters
        ----------
        input : array
            Spikes, as for a call.
        target : array or sequence
            The target, as for a call.
        context : int, default 0
            As for `sum_and_weight`. The gradient reaches into the context.
        **options
            The other arguments of a call: `where`, `lengths` and `weight`.

        Returns
        -------
        tuple
            The results of `sum_and_weight`, and the pullback of the sum: a function that takes a
            scalar array, the derivative with respect to the sum, and returns the gradient with
            respect to `input`. Call it once at most.

        Raises
        ------
        ValueError, TypeError
            As `sum_and_weight`.

        Examples
        --------
        The gradient of a mean over two micro-batches:

        >>> import numpy as np
        >>> import spikeloss_xp as sx
        >>> loss = sx.SpikeRate(0.5, 0.0, reduction="mean")
        >>> spikes, label = np.eye(4)[:, None, :], [0, 0, 0, 0]
        >>> first = loss.sum_weight_and_pullback(spikes[:1], label[:1])
        >>> rest = loss.sum_weight_and_pullback(spikes[1:], label[1:])
        >>> weight = first[1] + rest[1]
        >>> gradient = np.concatenate([pullback(1 / weight) for _, _, pullback in (first, rest)])
        >>> bool(np.all(gradient == sx.value_and_grad(loss)(spikes, label)[1]))
        True
        """
        return self._sum_of_part(input, target, context, options, with_pullback=True)

    @property
    def memory(self) -> int | None:
        """The number of earlier steps that a term reads; None if the loss reads whole trains.

        `sum_and_weight` of a segment needs so many earlier steps as context for the terms of the
        whole train.
        """
        return None

    def _sum_of_part(
        self,
        input: Array,
        target: Any,
        context: int,
        options: dict[str, Any],
        *,
        with_pullback: bool,
    ) -> tuple[Array, Array, Pullback]:
        """Return sum and weight of a micro-batch or segment, and the pullback if it is wanted."""
        self._check_context(context)
        prepared, labels = self._prepare(input, target, options, context)
        total, weight, pullback = self._sum(prepared, labels, True, with_pullback)
        if isinstance(weight, int):
            weight = prepared.adapter.scalar(total, float(weight)) + 0.0  # the caller's own
        return total, weight, pullback

    def _check_context(self, context: int) -> None:
        if self.reduction == "none":
            raise ValueError("reduction='none' has no sum: the terms are not added up")
        if _checks.integer(context, "context") == 0:
            return
        if context < 0:
            raise ValueError(f"context must be at least 0; got {context}")
        if self.memory is None:
            raise ValueError(
                "context is for losses with a term at each step and a known memory; that of "
                f"{type(self).__name__} is None: give it a moving_window, or whole trains"
            )
        if self.reduction == "batchmean":
            raise ValueError(
                "context needs reduction='sum' or 'mean': 'batchmean' divides by the number of "
                "samples, which each segment would count again"
            )

    def split(self, input: Array, arguments: dict[str, Any]) -> Split | None:
        """Return how a call may be split into blocks, or None if it has to be evaluated as a whole.

        The call is checked as a whole. A loss that overrides `value` or `value_and_pullback` may
        be no quotient of sums, and one that holds arrays may be evaluated here only.
        """
        kind = type(self)
        own = kind.value is Loss.value and kind.value_and_pullback is Loss.value_and_pullback
        if not own or self.reduction == "none" or self.captured_arrays() != ():
            return None
        target, where = arguments["target"], arguments["where"]
        prepared, labels = self._prepare(input, target, {name: arguments[name] for name in OPTIONS})
        layout, every = prepared.layout, tuple(range(input.ndim))
        known = isinstance(labels, Labels) or self._has_trains
        if (
            not known or prepared.pixels is not None or layout.time_axis == input.ndim
        ):  # spike times, one a class
            return None
        axes: dict[str, tuple[int | None, ...]]
        axes = {"input": every, "lengths": (layout.batch_axis,)}
        if where is not None:
            where = where if find_adapter(where) else host(where, "where")
            where = layout.mask_of_blocks(adapter_of(where), where)
        axes["where"] = () if where is None else layout.mask_axes(shape_of(where))
        if isinstance(labels, Labels):
            axes["target"] = layout.target_axes(rank(target), class_axis=labels.indices is None)
        else:
            axes["target"] = (0, None, None)[: rank(target)] if self._reads_times else every

        divisor: Any = None
        if self.reduction != "sum":  # the weight depends on masks and labels, not on the spikes
            if self._has_trains:  # a term for each neuron, and for each of its steps
                terms = prepared.values[:, :, :1] if self._reads_times else prepared.values
                alike = Terms(terms, prepared.mask, None, lambda cotangent: cotangent)
                weight = self._weight(prepared.adapter, alike, layout.batch_axis)
            else:
                _, weight, _ = self._sum(prepared, labels, True, False)
            divisor = divisor_of(prepared.adapter, weight)
        summed = dataclasses.replace(self, reduction="sum")  # type: ignore[type-var]
        independent = {layout.batch_axis}
        if axes["target"] == every:  # each neuron has terms of its own
            independent.update(every)
        if self.memory is not None:
            independent.add(layout.time_axis)
        return Split(summed, layout, axes, independent, prepared.values.dtype, divisor, where)

    def captured_arrays(self) -> tuple[Any, ...] | None:
        """Return the arrays that the loss holds as hyper-parameters, or None if unknown.

        A function among the hyper-parameters may hold arrays that nobody knows.
        """
        held: list[Any] = []
        values = vars(self).values()
        for value in () if PLAIN_TYPES.issuperset(map(type, values)) else values:
            if isinstance(value, PLAIN_VALUES):
                continue
            if find_adapter(value) is not None:
                held.append(value)
            elif not (isinstance(value, tuple) and all(isinstance(v, PLAIN_VALUES) for v in value)):
                return None
        return tuple(held)

    def _check(self, **checks: Callable[[Any, str], Any]) -> None:
        """Check hyper-parameters, and store the plain value that each check returns."""
        fields = {field.name for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        shared = {name: check for name, check in SHARED_CHECKS.items() if name in fields}
        if "readout" in fields:
            shared["readout"] = functools.partial(_check_readout, self._readouts)
        _checks.check_fields(self, **{**shared, **checks})
        window = vars(self).get("moving_window")
        if window is not None and "readout" in fields and self.readout not in WINDOWED:
            raise ValueError(
                f"readout={self.readout!r} is over all of time and has no moving_window; got "
                f"moving_window={window}"
            )


def _check_readout(readouts: tuple[str, ...], value: Any, argument: str) -> str:
    try:
        return _checks.one_of(readouts)(value, argument)
    except ValueError as error:
        if value not in get_args(EntropyReadout):
            raise
        raise ValueError(f"{error}: it is a readout of CrossEntropy") from None


def divisor_of(adapter: Adapter, weight: Array | int) -> Any:
    """Return the number to divide a sum by: its weight, or infinity if nothing counts.

    The loss is 0 then. With smoothed labels the sum need not be.
    """
    if isinstance(weight, int):
        return weight
    return adapter.xp.where(weight > 0, weight, adapter.operand(weight, math.inf))
