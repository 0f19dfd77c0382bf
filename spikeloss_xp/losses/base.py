"""Base class for all losses. It prepares and evaluates a call.

    spikes --read--> u --criterion(u, target)--> terms --reduction--> loss

A call takes two steps. `_prepare` determines the array library, the axes, the mask and the labels.
`_sum` then computes the numbers: it reads the spikes, compares the readings with the target, and
sums the terms. Each stage returns its result and the pullback of that result, so the gradient is
the composition of the pullbacks. A reduced loss is ``sum / weight``. The sum and the weight are
both additive over chunks that fit in the cache, micro-batches, processes and devices. For losses
with a term at each step, they are also additive over segments of time.

Each method with a leading underscore is either abstract, to be defined by a subclass, or final.
Subclasses may override public methods and class attributes.
"""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Never, Self, get_args

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
from spikeloss_xp.losses.parts import Parts, Split, divisor_of, split_call
from spikeloss_xp.readouts import Reading, ReadResult

TermsAndPullback = tuple[Array, Array | None, Array | None, Pullback]
REDUCTIONS = get_args(Reduction)
OPTIONS = ("where", "lengths", "weight")
PLAIN_VALUES = (int, float, str, bool, type(None))
PLAIN_TYPES = frozenset(PLAIN_VALUES)
SHARED_CHECKS: dict[str, Callable[[Any, str], Any]] = {  # for options shared by several losses
    "moving_window": _checks.optional_count,
    "num_classes": _checks.optional_count,
    "ignore_index": _checks.label,
    "time_axis": _checks.integer,
    "reduction": _checks.one_of(REDUCTIONS),
}
OTHER_NAMES = {
    "weight": "pass class weights to the call, loss(input, target, weight=...)",
    "mask": "pass a mask, True for entries to keep, to the call, loss(input, target, where=...)",
    "tau": "the time constant of SpikeTime is time_constant=..., in time steps",
    "window": "use moving_window=..., in time steps",
    "dim": "use time_axis=... for the axis of time",
}
CALL_NAMES = {
    "mask": "use where=..., which is True for entries to keep",
    "padding_mask": "use where=~..., because where is True for entries to keep",
    "seq_lengths": "use lengths=..., in time steps",
    "input_lengths": "use lengths=..., in time steps",
    "class_weight": "use weight=..., with a weight for each class",
    "class_weights": "use weight=..., with a weight for each class",
    "sample_weight": 'use reduction="none", and multiply the terms by the weights of the samples',
}


def unknown_argument(loss: "Loss", accepted: Iterable[str], unknown: Iterable[str]) -> TypeError:
    """Return the error for arguments that a loss does not accept, with the names to use instead."""
    kind = type(loss).__name__
    message = f"a call to {kind} takes the options {', '.join(accepted)}; got {', '.join(unknown)}"
    for name in unknown:
        if name in vars(loss):
            message += f": {name} is an option of the constructor, {kind}(..., {name}=...)"
        elif name in CALL_NAMES:
            message += f": {CALL_NAMES[name]}"
    return TypeError(message)


class Loss(Parts, ABC):
    """Base class for all losses. A loss is a function of spike trains and a target.

    Pass hyper-parameters to the constructor, and arrays to the call. Losses are immutable, hashable
    and comparable. To write your own loss, derive from `ClassLoss` or `TrainLoss`.
    """

    time_axis: int
    reduction: str
    has_closed_form: ClassVar[bool] = True
    """Whether `value_and_pullback` computes the same function as calling the loss."""
    classes_compete: ClassVar[bool] = False
    """Whether the classes of a sample share one term."""
    per_step: bool | None = False
    """Whether the terms have a time axis; None if they have the shape of the input."""
    targets: ClassVar[tuple[str, ...]] = ()
    """The kinds of class targets that the loss accepts; empty if its targets are not classes."""
    reads_times: ClassVar[bool] = False
    """Whether the input holds spike times instead of binned spikes."""
    reads_rates: ClassVar[bool] = False
    """Whether the input holds predicted rates or logits instead of spikes."""
    expects_spikes: bool = False
    """Whether the input should be spikes. If False, membrane potentials are allowed too."""
    _compares_numbers: bool = False
    """Whether class indices must be one-hot encoded for the criterion."""

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Raise an error if an option has a name from another library, and suggest our name."""
        own = getattr(cls, "__dataclass_fields__", {})
        for name in OTHER_NAMES.keys() & options.keys() - own.keys():
            raise TypeError(f"{cls.__name__} has no option {name}: {OTHER_NAMES[name]}")
        return super().__new__(cls)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Determine whether a subclass that overrides the evaluation still has a closed form."""
        super().__init_subclass__(**kwargs)
        overridden = vars(cls)
        if "value_and_pullback" in overridden:
            cls.has_closed_form = True
        elif "value" in overridden or "__call__" in overridden:
            cls.has_closed_form = False

    def __post_init__(self) -> None:
        """Check the shared options. Subclasses with their own options extend this method."""
        fields = vars(self)
        shared = {name: check for name, check in SHARED_CHECKS.items() if name in fields}
        _checks.check_fields(self, **shared)

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            if name in ("to", "cuda", "cpu"):
                raise AttributeError(
                    f"{type(self).__name__} has no attribute {name!r}. A loss holds no arrays that "
                    "could be moved: it computes on the device of its input"
                )
            # Raises the original error again, even if a property raised it.
            return object.__getattribute__(self, name)

    def __call__(
        self,
        input: ArrayT,
        target: ArrayLike,
        *,
        where: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        weight: ArrayLike | None = None,
        **unknown: Never,
    ) -> ArrayT:
        """Return the loss, as an array from the same library and on the same device as `input`.

        Parameters
        ----------
        input : array
            Spikes of shape ``[batch, *space, time]``, with the time axis at `time_axis`.
        target : array or sequence
            The target. The docstring of each class describes the form of its targets.
        where : array or sequence of bool, optional
            The mask, which is True for entries to keep. Masked entries are treated as silence and
            have gradient 0. Masked terms are 0 and are excluded from a mean. The mask may have one
            of the following shapes:

            - ``[batch]``, with one value for each sample;
            - ``[time]``, with one value for each step, if the numbers of samples and steps differ;
            - batch and time, in the order of `input`; the batch axis may have length 1;
            - the shape of `input`, in which any axis may have length 1. For example, a mask of
              shape ``[1, 1, neuron]`` leaves out whole neurons;
            - ``[batch, *pixels]``, if each pixel has a label.
        lengths : array or sequence of int, optional
            The length of each sample in time steps, of shape ``[batch]``, from 0 to the number of
            steps of `input`. Later steps are masked.
        weight : array or sequence of float, optional
            Class weights of shape ``[class]``, finite and at least 0. Each term is multiplied by
            the weight of its label, and a mean divides by the sum of these weights instead of the
            number of terms. If the target holds a number for each class, or a train for each
            neuron, each term is multiplied by the weight of its own class or neuron instead;
            `CrossEntropy` describes the weights of class probabilities.

        Returns
        -------
        array
            A scalar array, which is 0 if everything is masked. With ``reduction="none"``, an array
            of the terms, in which masked terms are 0.

        Raises
        ------
        ValueError, TypeError
            If an argument has the wrong shape or dtype, comes from another library or is out of
            range. Values are checked only if they can be read cheaply. On a GPU and in traced
            functions, an invalid label or length makes the terms of its sample NaN instead.
        """
        if unknown:
            raise unknown_argument(self, OPTIONS, unknown)
        options: dict[str, Any] = {"target": target, "where": where}
        options |= {"lengths": lengths, "weight": weight}
        value: ArrayT = adapter_of(input).evaluate(self, input, options)
        return value

    def forward(self, input: ArrayT, target: ArrayLike, **options: Any) -> ArrayT:
        """Return the loss. This is the same as calling the object."""
        return self(input, target, **options)

    def value(self, input: ArrayT, target: ArrayLike, **options: ArrayLike | None) -> ArrayT:
        """Return the loss, computed with operations that the library can differentiate.

        Calling the loss returns the same value, but may register the closed-form gradient with the
        library instead of recording each operation. The arguments are the same in both cases.
        """
        value: ArrayT = self._compute(input, target, options, with_pullback=False)[0]
        return value

    def value_and_pullback(
        self, input: ArrayT, target: ArrayLike, **options: ArrayLike | None
    ) -> tuple[ArrayT, Pullback]:
        """Return the loss and its pullback to `input`, computed in closed form.

        Parameters
        ----------
        input : array
            Spikes, as when calling the loss.
        target : array or sequence
            The target, as when calling the loss.
        **options
            The other arguments of the loss: `where`, `lengths` and `weight`.

        Returns
        -------
        tuple
            The value and the pullback. The pullback is a function that takes a cotangent, which has
            the shape of the value, and returns the gradient with respect to `input`. Call it at
            most once, and before you modify any of the arrays that you passed.
        """
        return self._compute(input, target, options, with_pullback=True)

    def captured_arrays(self) -> tuple[Any, ...] | None:
        """Return the arrays among the hyper-parameters, or None if they cannot be determined.

        They cannot be determined if a hyper-parameter is a callable or another object that may
        refer to arrays, because such an object cannot be inspected.
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

    # Methods that `diagnose` calls ----------------------------------------------------------------

    def findings(self, batch: Any) -> Iterable[tuple[str, str]]:
        """Yield the findings about the options of the loss, each as a code and a description.

        `batch` is the call that `diagnose` inspects, with its numbers as attributes.
        """
        return ()

    def value_of_equal_scores(self, classes: int) -> float | None:
        """Return the loss when all classes have the same score, or None if that loss is unknown."""
        return None

    # Methods that a subclass defines --------------------------------------------------------------

    @abstractmethod
    def criterion(self, reading: Reading, labels: Any) -> ValueAndPullback:
        """Return the terms and their pullback to ``reading.u``.

        Parameters
        ----------
        reading : Reading
            The readings. Their class axis, ``reading.classes``, has methods such as ``sum`` and
            ``max``.
        labels : Labels
            The target, with axes that match the readings.

        Returns
        -------
        tuple
            The terms and their pullback. The pullback maps the derivative of the loss with respect
            to the terms to the derivative with respect to ``reading.u``. The terms have the shape
            of the readings, except that the class axis has length 1 if `classes_compete` is True.
        """

    @abstractmethod
    def _prepare_input(self, input: Array, where: Any, lengths: Any, context: int = 0) -> Prepared:
        """Check the input and return it with its mask. The first `context` steps have no terms."""

    @abstractmethod
    def _labels(self, prepared: Prepared, target: Any) -> Labels:
        """Check the target and return it as labels."""

    @abstractmethod
    def _read(
        self, prepared: Prepared, values: Array, mask: Array | None, labels: Any
    ) -> ReadResult:
        """Return the readings of `values` (all or a chunk of the input) and their pullback."""

    @abstractmethod
    def _chunk_axes(self, prepared: Prepared) -> tuple[int, ...] | None:
        """Return the axes along which the values and terms may be split into independent chunks.

        The tuple is empty if the readings are much smaller than the input, because then chunking is
        not worth its overhead. The result is None if a term depends on several samples.
        """

    # Step 1: determine the library, the axes, the mask and the labels -----------------------------

    def _prepare(
        self, input: Array, target: Any, options: dict[str, Any], context: int = 0
    ) -> tuple[Prepared, Labels]:
        """Return the prepared input and the labels. The first `context` steps have no terms."""
        if unknown := [name for name in options if name not in OPTIONS]:
            raise unknown_argument(self, OPTIONS, unknown)
        where, lengths, weight = map(options.get, OPTIONS)
        prepared = self._prepare_input(input, where, lengths, context)
        labels = self._labels(prepared, target)
        if weight is not None:
            labels = labels._replace(class_weight=class_weights(prepared, weight))
        return prepared, labels

    # Step 2: read, compare and sum ----------------------------------------------------------------

    def _compute(
        self, input: Array, target: Any, options: dict[str, Any], *, with_pullback: bool
    ) -> ValueAndPullback:
        """Return the loss and, if `with_pullback` is True, its pullback to `input`."""
        prepared, labels = self._prepare(input, target, options)
        if self.reduction == "none":
            reading, to_values = self._read(prepared, prepared.values, prepared.mask, labels)
            terms, _, _, to_reading = self._compare(prepared, reading, labels)
            value, to_terms = self._result(prepared, terms)

            def pullback(cotangent: Array) -> Array:
                return prepared.gradient(to_values(to_reading(to_terms(cotangent))))

            return value, pullback

        with_weight = self.reduction != "sum"
        total, weight, to_input = self._sum(prepared, labels, with_weight, with_pullback)
        if weight is None:
            return total, to_input
        divisor = weight if isinstance(weight, int) else divisor_of(prepared.adapter, weight)
        return total / divisor, lambda cotangent: to_input(cotangent / divisor)

    def _sum(
        self, prepared: Prepared, labels: Labels, with_weight: bool, with_pullback: bool
    ) -> tuple[Array, Any, Pullback]:
        """Return the sum and weight of the terms, and the pullback of the sum to the input.

        The weight is None unless `with_weight` is True. The terms are evaluated in chunks if that
        is faster.
        """
        adapter = prepared.adapter

        def sums(values: Array, mask: Array, labels: Any) -> Any:  # a mask may be None
            reading, to_values = self._read(prepared, values, mask, labels)
            terms, mask, weight, to_reading = self._compare(prepared, reading, labels)
            divisor = self._weight(prepared, terms, mask, weight) if with_weight else None
            results = adapter.sum_all(terms), divisor
            return results, (lambda x: to_values(to_reading(x))) if with_pullback else None

        arrays = prepared.values, prepared.mask, labels
        to_values: Any
        axes = self._chunk_axes(prepared)
        if axes is None or prepared.pixels is not None:  # labels of pixels have different axes
            (total, weight), to_values = sums(*arrays)
        else:
            batch = prepared.layout.batch_axis
            (total, weight), to_values = adapter.map_chunks(sums, arrays, axes, batch)

        # Every term has the same scalar cotangent, which broadcasts.
        return total, weight, lambda cotangent: prepared.gradient(to_values(cotangent))

    def _compare(self, prepared: Prepared, reading: Reading, labels: Any) -> TermsAndPullback:
        """Return the terms of a batch or chunk, with the mask, weight and pullback of the terms.

        The terms are multiplied by their weights. Masked terms, which include all terms in the
        context of a segment, are 0. The mask and the weight broadcast to the terms. A mask of None
        is True everywhere, and a weight of None is 1. The pullback maps the derivative with respect
        to the terms to the derivative with respect to the readings.
        """
        adapter, mask, compete = prepared.adapter, reading.mask, self.classes_compete
        if prepared.after_context is not None:
            mask = both(mask, prepared.after_context)
        if self._compares_numbers:
            labels = labels.as_numbers(reading)
        if mask is None and labels.are_plain(compete):  # there is nothing to mask or weight
            terms, to_reading = self.criterion(reading, labels)
            self._check_terms(terms, reading)
            return terms, None, None, to_reading

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

        return terms, mask, weight, pullback

    def _check_terms(self, terms: Array, reading: Reading) -> None:
        """Raise an error if the terms have the wrong shape, which broadcasting could hide."""
        expected, given = tuple(reading.u.shape), tuple(terms.shape)
        if self.classes_compete:
            axis = reading.classes.index
            expected = (*expected[:axis], 1, *expected[axis + 1 :])
        if given != expected:
            each = "sample" if self.classes_compete else "reading"
            rule = f"one for each {each}, because classes_compete is {self.classes_compete}"
            raise ValueError(
                f"the criterion of {type(self).__name__} must return terms of shape {expected}, "
                f"{rule}; got {given}"
            )

    def _check_mask(self, mask: Array, reading: Reading) -> None:
        """Raise an error if the mask from a subclass does not broadcast to the readings."""
        given, shape = tuple(mask.shape), tuple(reading.u.shape)
        fits = (n in (1, m) for n, m in zip(given, shape, strict=False))
        if len(given) != len(shape) or not all(fits):
            raise ValueError(
                f"the mask of the readings of {type(self).__name__} must broadcast to their shape, "
                f"{shape}; got a mask of shape {given}"
            )

    def _weight(
        self, prepared: Prepared, terms: Array, mask: Array | None, weight: Array | None
    ) -> Array | int:
        """Return the number by which the reduction divides the sum of these terms.

        For "batchmean", it is the number of samples with an unmasked term. For other reductions, it
        is the sum of the weights of the unmasked terms. Without a mask or weights, it is an int.
        """
        xp = prepared.adapter.xp
        if prepared.layout is None:  # one term per layer; layers are summed, not averaged
            return 1
        if None in terms.shape:  # a length known only at run time must be counted
            mask = both(mask, xp.ones_like(terms, dtype=xp.bool))
        if self.reduction == "batchmean":
            return self._number_of_samples(prepared, terms, mask)
        if self.reduction not in REDUCTIONS:  # if a subclass skips the checks
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
        """Return the terms in the shape for ``reduction="none"``, and their pullback."""
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

    def split(self, input: Array, arguments: dict[str, Any]) -> Split | None:
        """Return how a call may be split into blocks, or None if it must be evaluated as a whole.

        The call is checked before it is split. A loss that overrides `value` or
        `value_and_pullback` is not split, because it may not be a quotient of sums. Nor is a loss
        that holds arrays, because the arrays may not be available where the blocks are evaluated.
        """
        kind = type(self)
        own = kind.value is Loss.value and kind.value_and_pullback is Loss.value_and_pullback
        if not own or self.reduction == "none" or self.captured_arrays() != ():
            return None
        return split_call(self, input, arguments)
