"""The base class of the losses: from a call to the terms, and from the terms to the value.

    spikes --readout--> u --criterion(u, target)--> terms --reduction--> loss

A loss is a frozen dataclass whose methods are the readout and the criterion. Each step returns its
result and its pullback: the value is the last result, and the gradient is the composition of the
pullbacks. A reduced loss is ``sum / weight``. Both add up over chunks that stay in a cache,
micro-batches, processes, devices, and, for losses with a term at each step, segments of time.
"""

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, get_args

from spikeloss_xp import _checks
from spikeloss_xp._arrays import Adapter, adapter_of, find_adapter, on_device_of, rank
from spikeloss_xp._input.prepared import PreparedInput, both, fill_masked, prepare_input
from spikeloss_xp._typing import Array, ArrayLike, ArrayT, Pullback, Reduction, ValueAndPullback
from spikeloss_xp.gradients import ClosedForm
from spikeloss_xp.losses.split import Split
from spikeloss_xp.readouts import Reading, ReadingAndPullback

REDUCTIONS = get_args(Reduction)
NO_OPTIONS = {"where": None, "lengths": None, "weight": None}
PLAIN_VALUES = (int, float, str, bool, type(None))


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


class Loss(ClosedForm):
    """A loss on spike trains: a function of spikes and a target.

    Hyper-parameters go in the constructor, arrays in the call. Losses are immutable, hashable and
    comparable.
    """

    reduction: str
    time_axis: int
    _smallest_rank: ClassVar[int] = 3
    """The number of axes that an input needs."""
    _classes_compete: ClassVar[bool] = False
    """Whether the classes of a sample share one term, with a class axis of length 1."""

    @on_device_of("input")
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
            The mask, True for entries that count. Its shape is ``[batch]``, that of batch and time
            in the order of `input`, or that of `input`. A masked entry is read as silence and has
            gradient 0. A masked term is 0, and the divisor of a mean does not count it.
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
        adapter = adapter_of(input)
        value: ArrayT
        if self.has_closed_form:
            value = adapter.evaluate(self, input, options)
        else:
            value = self.value(input, **options)
        return value

    def forward(self, input: ArrayT, target: ArrayLike, **options: ArrayLike | None) -> ArrayT:
        """Return the value of the loss: the same as calling it."""
        return self(input, target, **options)

    def value(self, input: ArrayT, target: ArrayLike, **options: ArrayLike | None) -> ArrayT:
        """Return the value of the loss, with operations that the library can differentiate.

        A call returns the same value, and may register the closed form as its gradient. The
        arguments are those of a call.
        """
        value: ArrayT = self._evaluate(input, target, options, with_pullback=False)[0]
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
        return self._evaluate(input, target, options, with_pullback=True)

    # From a call to the terms --------------------------------------------------------------------

    def _evaluate(
        self, input: Array, target: Any, options: dict[str, Any], *, with_pullback: bool
    ) -> ValueAndPullback:
        """Return the value and, if it is wanted, the pullback from it to `input`."""
        prepared, labels = self._prepare(input, target, options)
        adapter = prepared.adapter
        if self.reduction == "none":
            terms = self._terms(prepared, prepared.values, prepared.mask, labels)
            shape = tuple(terms.values.shape)

            def of_terms(cotangent: Array) -> Array:
                cotangent = self._from_result(prepared, cotangent, shape)
                return prepared.gradient(terms.pullback(cotangent))

            return self._result(prepared, terms.values), of_terms

        total, weight, pullback = self._sum(
            prepared, labels, with_weight=self.reduction != "sum", with_pullback=with_pullback
        )
        if weight is None:
            return total, pullback
        divisor = divisor_of(adapter, weight)
        return total / divisor, lambda cotangent: pullback(cotangent / divisor)

    def _prepare(
        self, input: Array, target: Any, options: dict[str, Any], context: int = 0
    ) -> tuple[PreparedInput, Any]:
        """Return the prepared input and the labels."""
        given = {**NO_OPTIONS, **options}
        if len(given) > len(NO_OPTIONS):
            unknown = ", ".join(sorted(given.keys() - NO_OPTIONS.keys()))
            raise TypeError(
                f"{type(self).__name__} takes the options {', '.join(NO_OPTIONS)}; got {unknown}"
            )
        prepared = self._prepare_input(input, given["where"], given["lengths"], context)
        labels, weight = self._labels(prepared, target), given["weight"]
        return prepared, labels if weight is None else self._weigh(prepared, labels, weight)

    def _prepare_input(
        self, input: Array, where: Any, lengths: Any, context: int = 0
    ) -> PreparedInput:
        """Return the input with its mask; the first `context` steps have no terms."""
        return prepare_input(
            input,
            where,
            lengths,
            time_axis=self.time_axis,
            smallest_rank=self._smallest_rank,
            context=context,
        )

    def _sum(
        self, prepared: PreparedInput, labels: Any, *, with_weight: bool, with_pullback: bool
    ) -> tuple[Array, Any, Pullback]:
        """Return the sum of the terms, their weight, and the pullback from the sum to the input.

        The weight is None if it is not wanted. All are evaluated in chunks where that is faster.
        """
        adapter, batch_axis = prepared.adapter, self._batch_axis(prepared)

        def sums(values: Array, mask: Array, labels: Any) -> Any:  # a mask may be None
            terms = self._terms(prepared, values, mask, labels)
            weight = self._weight(adapter, terms, batch_axis) if with_weight else None
            results = adapter.sum_all(terms.values), weight
            if not with_pullback:
                return results, None
            # All terms have the same cotangent; it broadcasts.
            shape, pullback = (1,) * terms.values.ndim, terms.pullback
            return results, lambda cotangent: pullback(adapter.xp.reshape(cotangent, shape))

        to_values: Any
        arrays, axes = (prepared.values, prepared.mask, labels), self._chunk_axes(prepared)
        (total, weight), to_values = adapter.map_chunks(sums, arrays, axes, batch_axis)
        return total, weight, lambda cotangent: prepared.gradient(to_values(cotangent))

    def _terms(
        self, prepared: PreparedInput, values: Array, mask: Array | None, labels: Any
    ) -> Terms:
        """Return the terms of a batch or of a chunk of it, at the steps after the context."""
        adapter = prepared.adapter
        reading, to_values = self._reading(prepared, values, mask, labels)
        if prepared.after_context is not None:
            reading = reading._replace(mask=both(reading.mask, prepared.after_context))
        reading, mask = self._compete(adapter, reading, labels)
        if mask is not None:
            self._check_mask(mask, reading)
            # A reading of 1 has finite terms and derivatives in every criterion.
            # A count of infinity lacks no spike.
            counts = reading.counts
            if counts is not None:
                counts = adapter.shielded(counts, mask, math.inf)
            u = adapter.shielded(reading.u, mask, 1.0)
            reading = reading._replace(u=u, counts=counts)
            labels = self._fill_labels(adapter, labels, mask, reading.class_mask)
        terms, to_reading = self._criterion(adapter, reading, labels)
        self._check_terms(terms, reading)
        factor, weight = self._term_weights(adapter, reading, labels)
        if factor is not None:
            terms = terms * factor
            self._check_terms(terms, reading)
        if mask is not None:
            terms = fill_masked(adapter, terms, mask)

        def pullback(cotangent: Array) -> Array:
            cotangent = to_reading(cotangent if factor is None else cotangent * factor)
            if mask is not None:
                cotangent = fill_masked(adapter, cotangent, mask)
            return to_values(cotangent)

        return Terms(terms, mask, weight, pullback)

    def _reading(
        self, prepared: PreparedInput, values: Array, mask: Array | None, labels: Any
    ) -> ReadingAndPullback:
        """Return the reading, which knows its axes, and its pullback to `values`."""
        reading, to_values = self._read(prepared, values, mask, labels)
        layout = prepared.layout
        reading = reading._replace(time_axis=layout.time, class_axis=layout.class_axis)
        return reading, to_values

    def _term_shape(self, reading: Reading) -> tuple[int, ...]:
        shape, axis = tuple(reading.u.shape), reading.class_axis
        return (*shape[:axis], 1, *shape[axis + 1 :]) if self._classes_compete else shape

    def _check_terms(self, terms: Array, reading: Reading) -> None:
        """Raise if the terms of a subclass have the wrong shape: they must not broadcast."""
        if tuple(terms.shape) != (shape := self._term_shape(reading)):
            rule = "one for each sample" if self._classes_compete else "one for each reading"
            raise ValueError(
                f"the criterion of {type(self).__name__} must return terms of shape {shape}, "
                f"{rule}; got {tuple(terms.shape)}"
            )

    def _check_mask(self, mask: Array, reading: Reading) -> None:
        """Raise if the term mask of a subclass does not fit the terms."""
        given, shape = tuple(mask.shape), self._term_shape(reading)
        fits = (n in (1, m) for n, m in zip(given, shape, strict=False))
        if len(given) != len(shape) or not all(fits):
            raise ValueError(
                f"the term mask of {type(self).__name__} has shape {given}, which does not fit the "
                f"terms of readings of shape {tuple(reading.u.shape)}"
            )

    def _weight(self, adapter: Adapter, terms: Terms, batch_axis: int) -> Array | int:
        """Return the number that the reduction divides the sum of these terms by.

        The number of samples with a term that counts, for "batchmean"; else the sum of the weights
        of the terms that count. It is an int if there is neither a mask nor a weight.
        """
        xp, values, mask = adapter.xp, terms.values, terms.mask
        if None in values.shape:  # a number that is not known is counted
            mask = both(mask, xp.ones_like(values, dtype=xp.bool))
        if self.reduction == "batchmean":
            if mask is None:
                return int(values.shape[batch_axis])
            axes = tuple(axis for axis in range(mask.ndim) if axis != batch_axis)
            sample = xp.any(mask, axis=axes) if axes else mask
            return xp.sum(xp.astype(sample, values.dtype))
        _checks.one_of(REDUCTIONS[:2])(self.reduction, "reduction")  # a subclass may not check it
        weight = _each_weight(adapter, terms._replace(mask=mask))
        if weight is None:
            return math.prod(values.shape)
        sizes = zip(values.shape, weight.shape, strict=True)
        repeated = math.prod([n for n, m in sizes if n != m])
        total = adapter.sum_all(weight)
        return total if repeated == 1 else total * repeated

    # Members of subclasses -----------------------------------------------------------------------

    @abstractmethod
    def _labels(self, prepared: PreparedInput, target: Any) -> Any:
        """Return the checked target: an array, or a tuple of arrays and None."""

    def _weigh(self, prepared: PreparedInput, labels: Any, weight: Any) -> Any:
        """Return the labels with class weights."""
        raise TypeError(f"{type(self).__name__} takes no weight: it has no classes")

    @abstractmethod
    def _read(
        self, prepared: PreparedInput, values: Array, mask: Array | None, labels: Any
    ) -> ReadingAndPullback:
        """Return the reading, and its pullback to `values`, which may be a chunk of `prepared`."""

    @abstractmethod
    def _criterion(self, adapter: Adapter, reading: Reading, labels: Any) -> ValueAndPullback:
        """Return the terms, without class weights, and their pullback to ``reading.u``."""

    def _chunk_axes(self, prepared: PreparedInput) -> tuple[int, ...]:
        """Return the axes of values and terms along which chunks may be evaluated by themselves.

        Empty if readings are much smaller than the input: then chunks are not worth their overhead.
        """
        return ()

    def _target_axes(self, prepared: PreparedInput, labels: Any, ndim: int) -> Any:
        """Return which axis of the input each axis of a target is, or None if that is unknown.

        An axis of classes is None.
        """
        return None

    def _batch_axis(self, prepared: PreparedInput) -> int:
        """Return the axis of the samples in the terms."""
        axis: int = prepared.layout.batch_axis
        return axis

    def _compete(
        self, adapter: Adapter, reading: Reading, labels: Any
    ) -> tuple[Reading, Array | None]:
        """Return the reading with its class mask, and the term mask."""
        return reading, reading.mask

    def _fill_labels(
        self, adapter: Adapter, labels: Any, mask: Array, class_mask: Array | None
    ) -> Any:
        """Return the labels with finite values where they are masked."""
        return labels

    def _term_weights(
        self, adapter: Adapter, reading: Reading, labels: Any
    ) -> tuple[Array | None, Array | None]:
        """Return the factor of each term, and its weight in the divisor of a mean; None for 1."""
        return None, None

    def _result(self, prepared: PreparedInput, terms: Array) -> Array:
        """Return the terms as a call does, with ``reduction="none"``: in the axes of the input."""
        in_axes: Array = prepared.layout.input_axes(prepared.adapter, terms)
        return in_axes

    def _from_result(
        self, prepared: PreparedInput, cotangent: Array, shape: tuple[int, ...]
    ) -> Array:
        """Return a cotangent of `_result` with the axes of the terms, which have this shape."""
        collapsed: Array = prepared.layout.collapsed(prepared.adapter, cotangent)
        return collapsed

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
        total, weight, pullback = self._sum(
            prepared, labels, with_weight=True, with_pullback=with_pullback
        )
        if isinstance(weight, int):
            weight = prepared.adapter.constant(total, float(weight)) + 0.0  # the caller's own
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
        options = {name: arguments[name] for name in NO_OPTIONS}
        prepared, labels = self._prepare(input, target, options)
        layout = prepared.layout
        target_axes = self._target_axes(prepared, labels, rank(target))
        if target_axes is None or layout.time_axis == input.ndim:  # spike times, one a class
            return None
        axes: dict[str, tuple[int | None, ...]]
        axes = {"input": tuple(range(input.ndim)), "lengths": (layout.batch_axis,)}
        axes["target"] = target_axes
        axes["where"] = () if where is None else layout.mask_axes(rank(where))

        divisor: Any = None
        if self.reduction != "sum":  # the weight depends on masks and labels, not on the spikes
            _, weight, _ = self._sum(prepared, labels, with_weight=True, with_pullback=False)
            divisor = divisor_of(prepared.adapter, weight)
        summed = dataclasses.replace(self, reduction="sum")  # type: ignore[type-var]
        independent = {layout.batch_axis}
        if target_axes == axes["input"]:  # each neuron has terms of its own
            independent.update(target_axes)
        if self.memory is not None:
            independent.add(layout.time_axis)
        return Split(summed, layout, axes, independent, prepared.values.dtype, divisor)

    def captured_arrays(self) -> tuple[Any, ...] | None:
        """Return the arrays that the loss holds as hyper-parameters, or None if unknown.

        A function among the hyper-parameters may hold arrays that nobody knows.
        """
        held: list[Any] = []
        for value in vars(self).values():
            if isinstance(value, PLAIN_VALUES):
                continue
            if find_adapter(value) is not None:
                held.append(value)
            elif not (isinstance(value, tuple) and all(isinstance(v, PLAIN_VALUES) for v in value)):
                return None
        return tuple(held)

    def _check(self, **checks: Callable[[Any, str], Any]) -> None:
        """Check hyper-parameters, and store the plain value that each check returns."""
        shared = {"time_axis": _checks.integer, "reduction": _checks.one_of(REDUCTIONS)}
        _checks.check_fields(self, **{**checks, **shared})


def _each_weight(adapter: Adapter, terms: Terms) -> Array | None:
    """Return the weight of each term, 0 where it is masked; None if all are 1."""
    if terms.mask is None:
        return terms.weight
    if terms.weight is None:
        return adapter.xp.astype(terms.mask, terms.values.dtype)
    return fill_masked(adapter, terms.weight, terms.mask)


def divisor_of(adapter: Adapter, weight: Array | int) -> Array | int:
    """Return the number to divide a sum by: its weight, or infinity if nothing counts.

    The loss is 0 then. With smoothed labels the sum need not be.
    """
    if isinstance(weight, int):
        return weight
    return adapter.xp.where(weight > 0, weight, adapter.number(weight, math.inf))
