"""The base class of the losses, in which a call is prepared and computed.

    spikes --read--> u --criterion(u, target)--> terms --reduction--> loss

A call has two steps. `_prepare` finds out what kind of call it is: the library, the axes, the mask
and the labels. `_sum` computes its numbers: read, compare, add up. Each stage returns its result
and its pullback, so the gradient is the composition of the pullbacks. A reduced loss is
``sum / weight``. Both add up over chunks that fit in the cache, micro-batches, processes, devices
and, for losses with a term at each step, segments of time.

Each member with a leading underscore is either abstract, so that a subclass defines it, or final.
Subclasses override public methods and class attributes.
"""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, get_args

from spikeloss_xp import _checks
from spikeloss_xp._arrays import adapter_of, find_adapter
from spikeloss_xp._input.labels import Labels, class_weights
from spikeloss_xp._input.prepared import Prepared, both, fill_masked
from spikeloss_xp._typing import (
    Array,
    ArrayLike,
    ArrayT,
    Pullback,
    Reduction,
    ValueAndPullback,
)
from spikeloss_xp.losses import blocks
from spikeloss_xp.losses.parts import Parts, divisor_of
from spikeloss_xp.readouts import Reading, ReadResult

REDUCTIONS = get_args(Reduction)
OPTIONS = ("where", "lengths", "weight")
PLAIN_VALUES = (int, float, str, bool, type(None))
PLAIN_TYPES = frozenset(PLAIN_VALUES)
SHARED_CHECKS: dict[str, Callable[[Any, str], Any]] = {  # of the options that losses share
    "moving_window": _checks.optional_count,
    "num_classes": _checks.optional_count,
    "ignore_index": _checks.label,
    "time_axis": _checks.integer,
    "reduction": _checks.one_of(REDUCTIONS),
}
OTHER_NAMES = {
    "weight": "class weights go in the call, loss(input, target, weight=...)",
    "mask": "a mask goes in the call, loss(input, target, where=...), True for what counts",
    "tau": "the time constant of SpikeTime is time_constant=..., in steps",
    "window": "the window is moving_window=..., in steps",
    "dim": "the axis of time is time_axis=...",
}


class Terms(NamedTuple):
    """The terms of a loss, for a batch or a chunk of it.

    Attributes
    ----------
    values : array
        The terms, multiplied by their weights, and 0 where they are masked.
    mask, weight : array or None
        The term mask, True for unmasked terms, and the weight of each term. They broadcast against
        the terms; None stands for a mask that is True everywhere, and for a weight of 1.
    pullback : callable
        Takes the derivative of the loss with respect to the terms to the derivative with respect
        to the spikes that they were computed from.
    """

    values: Array
    mask: Array | None
    weight: Array | None
    pullback: Pullback


class Loss(Parts, ABC):
    """A loss on spike trains: a function of spikes and a target.

    Hyper-parameters go in the constructor, arrays in the call. Losses are immutable, hashable and
    comparable. To write one of your own, derive from `ClassLoss` or `TrainLoss`.
    """

    time_axis: int
    reduction: str
    has_closed_form: ClassVar[bool] = True
    """Whether `value_and_pullback` belongs to the function that a call evaluates."""
    classes_compete: ClassVar[bool] = False
    """Whether the classes of a sample share one term."""
    per_step: bool | None = False
    """Whether terms have a time axis; None if they have all axes of the input."""
    targets: ClassVar[tuple[str, ...]] = ()
    """The kinds of class targets, if the loss has such targets."""
    reads_times: ClassVar[bool] = False
    """Whether the input holds spike times instead of spikes in bins."""
    expects_spikes: bool = False
    """Whether the input should hold numbers of spikes, and not also membrane potentials."""
    _compares_numbers: bool = False
    """Whether the criterion needs class indices as a number for each class."""

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Raise if an option has the name that other libraries use for one of ours."""
        own = getattr(cls, "__dataclass_fields__", {})
        for name in OTHER_NAMES.keys() & options.keys() - own.keys():
            raise TypeError(f"{cls.__name__} has no option {name}: {OTHER_NAMES[name]}")
        return super().__new__(cls)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Find out whether a subclass that overrides the evaluation still has a closed form."""
        super().__init_subclass__(**kwargs)
        overridden = vars(cls)
        if "value_and_pullback" in overridden:
            cls.has_closed_form = True
        elif "value" in overridden or "__call__" in overridden:
            cls.has_closed_form = False

    def __post_init__(self) -> None:
        """Check the options that losses share. A subclass with options of its own extends this."""
        fields = vars(self)
        shared = {name: check for name, check in SHARED_CHECKS.items() if name in fields}
        _checks.check_fields(self, **shared)

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            if name in ("to", "cuda", "cpu"):
                raise AttributeError(
                    f"{type(self).__name__} has no attribute {name!r}. A loss holds no arrays, and "
                    "follows the device of its input"
                )
            return object.__getattribute__(self, name)  # raises again, also the error of a property

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
            The mask, True for entries that count. It has the shape ``[batch]``, ``[time]`` if that
            has a different length, batch and time in the order of `input`, where batch may be 1, or
            the shape of `input`. A masked entry is read as silence and has gradient 0. A masked
            term is 0, and a mean does not count it.
        lengths : array or sequence of int, optional
            The number of unmasked steps of each sample, ``[batch]``, from 0 to the number of steps.
            Later steps are masked.
        weight : array or sequence of float, optional
            Class weights, ``[class]``, finite and at least 0. Each term is multiplied by the weight
            of its label, and a mean divides by the sum of these weights instead of the number of
            terms. In losses with a number for each class, and in losses of trains, it is the weight
            of the class or neuron of the term.

        Returns
        -------
        array
            A scalar array, which is 0 if everything is masked; with ``reduction="none"`` the terms,
            0 where they are masked.

        Raises
        ------
        ValueError, TypeError
            If an argument has the wrong shape, dtype, library or range. The message says what
            arrived and what was expected. Ranges are checked where values can be read for free;
            elsewhere an invalid label or length makes the terms of its sample NaN.
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
            Call it at most once, before you change an array of the call.
        """
        return self._compute(input, target, options, with_pullback=True)

    def captured_arrays(self) -> tuple[Any, ...] | None:
        """Return the arrays that the loss holds as hyper-parameters, or None if unknown.

        A callable hyper-parameter may close over arrays that we cannot see.
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

    # What a diagnosis asks ------------------------------------------------------------------------

    def findings(self, input: Any) -> Iterable[tuple[str, str]]:
        """Yield the code of each finding about the options of the loss, with what was seen.

        The input holds NumPy arrays.
        """
        return ()

    def fires(self, input: Array) -> Array:
        """Return which entries of an input are spikes."""
        return input != 0

    def value_of_equal_scores(self, classes: int) -> float | None:
        """Return the value of the loss if all classes have the same score, if it is known."""
        return None

    # Members that a subclass defines --------------------------------------------------------------

    @abstractmethod
    def criterion(self, reading: Reading, labels: Any) -> ValueAndPullback:
        """Return the terms, and the pullback from them to ``reading.u``.

        Parameters
        ----------
        reading : Reading
            The readings, and the operations along their classes.
        labels : Labels
            The target in the axes of the readings.

        Returns
        -------
        tuple
            The terms, and their pullback: a function from the derivative with respect to the terms
            to the derivative with respect to ``reading.u``. Terms have the shape of the readings
            or, with `classes_compete`, a class axis of length 1.
        """

    @abstractmethod
    def _prepare_input(self, input: Array, where: Any, lengths: Any, context: int = 0) -> Prepared:
        """Return the input with its mask; the first `context` steps have no terms."""

    @abstractmethod
    def _labels(self, prepared: Prepared, target: Any) -> Labels:
        """Return the checked target."""

    @abstractmethod
    def _read(
        self, prepared: Prepared, values: Array, mask: Array | None, labels: Any
    ) -> ReadResult:
        """Return the reading, and its pullback to `values`, which may be a chunk of `prepared`."""

    @abstractmethod
    def _chunk_axes(self, prepared: Prepared) -> tuple[int, ...] | None:
        """Return the axes of values and terms along which chunks may be evaluated one by one.

        It is empty if readings are much smaller than the input, so that chunks are not worth their
        overhead, and None if a term depends on several samples.
        """

    # First what kind of call it is: library, axes, mask and labels --------------------------------

    def _prepare(
        self, input: Array, target: Any, options: dict[str, Any], context: int = 0
    ) -> tuple[Prepared, Labels]:
        """Return the prepared input and the labels; the first `context` steps have no terms."""
        if unknown := options.keys() - OPTIONS:
            raise TypeError(
                f"{type(self).__name__} takes the options {', '.join(OPTIONS)}; got "
                f"{', '.join(sorted(unknown))}"
            )
        where, lengths, weight = map(options.get, OPTIONS)
        prepared = self._prepare_input(input, where, lengths, context)
        labels = self._labels(prepared, target)
        if weight is not None:
            labels = labels._replace(class_weight=class_weights(prepared, weight))
        return prepared, labels

    # Then its numbers: read, compare, add up ------------------------------------------------------

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
        self, prepared: Prepared, labels: Labels, with_weight: bool, with_pullback: bool
    ) -> tuple[Array, Any, Pullback]:
        """Return the sum of the terms, their weight, and the pullback from the sum to the input.

        The weight is None if it is not wanted. They are evaluated in chunks where that is faster.
        """
        adapter = prepared.adapter

        def sums(values: Array, mask: Array, labels: Any) -> Any:  # a mask may be None
            terms, mask, weight, pullback = self._terms(prepared, values, mask, labels)
            divisor = self._weight(prepared, terms, mask, weight) if with_weight else None
            return (adapter.sum_all(terms), divisor), pullback if with_pullback else None

        arrays = prepared.values, prepared.mask, labels
        to_values: Any
        axes = self._chunk_axes(prepared)
        if axes is None or prepared.pixels is not None:  # whose labels have other axes
            (total, weight), to_values = sums(*arrays)
        else:
            batch = prepared.layout.batch_axis
            (total, weight), to_values = adapter.map_chunks(sums, arrays, axes, batch)

        # All terms have the same cotangent, a scalar, which broadcasts.
        return total, weight, lambda cotangent: prepared.gradient(to_values(cotangent))

    def _terms(self, prepared: Prepared, values: Array, mask: Array | None, labels: Any) -> Terms:
        """Return the terms of a batch or of a chunk of it, at the steps after the context."""
        reading, to_values = self._read(prepared, values, mask, labels)
        terms, mask, weight, to_reading = self._compare(prepared, reading, labels)
        return Terms(terms, mask, weight, lambda cotangent: to_values(to_reading(cotangent)))

    def _compare(self, prepared: Prepared, reading: Reading, labels: Any) -> Terms:
        """Return the terms of readings, with a pullback to the readings."""
        adapter, mask, compete = prepared.adapter, reading.mask, self.classes_compete
        if prepared.after_context is not None:
            mask = both(mask, prepared.after_context)
        if self._compares_numbers:
            labels = labels.as_numbers(reading)
        if mask is None and labels.are_plain(compete):  # a plain call
            terms, to_reading = self.criterion(reading, labels)
            self._check_terms(terms, reading)
            return Terms(terms, None, None, to_reading)

        reading, mask = labels.masks(reading, mask, compete, self.reduction)
        if mask is not None:
            self._check_mask(mask, reading)
            reading = reading.shielded(mask)
            labels = labels.filled(reading, mask)
        terms, to_reading = self.criterion(reading, labels)
        self._check_terms(terms, reading)
        factor, weight = labels.weights(reading, compete)
        if factor is not None:
            terms = terms * factor
        if mask is not None:
            terms = fill_masked(adapter, terms, mask)

        def pullback(cotangent: Array) -> Array:
            cotangent = to_reading(cotangent if factor is None else cotangent * factor)
            return cotangent if mask is None else fill_masked(adapter, cotangent, mask)

        return Terms(terms, mask, weight, pullback)

    def _check_terms(self, terms: Array, reading: Reading) -> None:
        """Raise if the terms of a subclass have the wrong shape: they must not broadcast."""
        expected, given = tuple(reading.u.shape), tuple(terms.shape)
        if self.classes_compete:
            axis = reading.classes.index
            expected = (*expected[:axis], 1, *expected[axis + 1 :])
        if given != expected:
            rule = "one for each sample" if self.classes_compete else "one for each reading"
            raise ValueError(
                f"the criterion of {type(self).__name__} must return terms of shape {expected}, "
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
        self, prepared: Prepared, terms: Array, mask: Array | None, weight: Array | None
    ) -> Array | int:
        """Return the number that the reduction divides the sum of these terms by.

        For "batchmean" this is the number of samples with an unmasked term, and else the sum of the
        weights of the unmasked terms. It is an int if there is neither a mask nor a weight.
        """
        xp = prepared.adapter.xp
        if prepared.layout is None:  # each term is the only one of a layer
            return 1
        if None in terms.shape:  # a number that is not known is counted
            mask = both(mask, xp.ones_like(terms, dtype=xp.bool))
        if self.reduction == "batchmean":
            return self._number_of_samples(prepared, terms, mask)
        if self.reduction not in REDUCTIONS:  # a subclass may not check it
            SHARED_CHECKS["reduction"](self.reduction, "reduction")
        if mask is None and weight is None:
            return math.prod(terms.shape)
        if weight is None:
            weight = xp.astype(mask, terms.dtype)
        elif mask is not None:
            weight = fill_masked(prepared.adapter, weight, mask)
        sizes = zip(terms.shape, weight.shape, strict=True)
        repeated = math.prod([n for n, m in sizes if n != m])
        total = prepared.adapter.sum_all(weight)
        return total if repeated == 1 else total * repeated

    def _number_of_samples(
        self, prepared: Prepared, terms: Array, mask: Array | None
    ) -> Array | int:
        """Return the number of samples with an unmasked term."""
        xp, batch = prepared.adapter.xp, prepared.layout.batch_axis
        pixels = 1 if prepared.pixels is None else prepared.pixels.number
        if mask is None:
            return int(terms.shape[batch]) // pixels
        others = tuple(axis for axis in range(mask.ndim) if axis != batch)
        counted = xp.any(mask, axis=others)
        if pixels > 1:
            counted = xp.any(xp.reshape(counted, (-1, pixels)), axis=1)
        return xp.sum(xp.astype(counted, terms.dtype))

    def _result(self, prepared: Prepared, terms: Array) -> ValueAndPullback:
        """Return the terms as a call with ``reduction="none"`` does, and the way back."""
        adapter, layout, pixels = prepared.adapter, prepared.layout, prepared.pixels
        if self.per_step is None:
            collapse = functools.partial(layout.collapsed, adapter)
            return layout.restored(adapter, terms), collapse
        with_class, reshape = not self.classes_compete, adapter.xp.reshape
        kept = {"with_class": with_class, "with_time": bool(self.per_step)}
        result = layout.squeezed(adapter, terms, **kept)
        if pixels is None:
            return result, lambda cotangent: reshape(cotangent, terms.shape)
        return pixels.images(adapter, result, with_class=with_class), lambda cotangent: reshape(
            pixels.labels(cotangent, with_class=with_class), terms.shape
        )

    def split(self, input: Array, arguments: dict[str, Any]) -> "blocks.Split | None":
        """Return how a call may be split into blocks, or None if it must be evaluated as a whole.

        The call is checked as a whole. A loss that overrides `value` or `value_and_pullback` may
        not be a quotient of sums, and a loss that holds arrays may be evaluated only here.
        """
        kind = type(self)
        own = kind.value is Loss.value and kind.value_and_pullback is Loss.value_and_pullback
        if not own or self.reduction == "none" or self.captured_arrays() != ():
            return None
        return blocks.split(self, input, arguments)
