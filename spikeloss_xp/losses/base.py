"""Base class for all losses. It prepares and evaluates a call.

    spikes --read--> u --criterion(u, target)--> terms --reduction--> loss

A call takes two steps. `_prepare` determines the array library, the axes, the mask and the labels.
`_sum` then reads the spikes, compares the readings with the target, and sums the terms. Each stage
in the diagram returns its result and the pullback of that result, so the gradient is the
composition of the pullbacks.

A mean is the sum of the terms divided by their weight, ``sum / weight``. If a batch is split into
micro-batches, processes, devices, or chunks that fit in the cache, the sums of the parts can be
added, and so can their weights. If a loss has a term at each step, this is also true for segments
of time.

Each method with a leading underscore is either final or abstract. Subclasses must define the
abstract methods. Subclasses may also override public methods and class attributes.
"""

import functools
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, get_args

from spikeloss_xp import _checks
from spikeloss_xp._arrays import both, divisor_of
from spikeloss_xp._input.labels import Labels, class_weights
from spikeloss_xp._input.prepared import Reading, Trains, without_samples
from spikeloss_xp._input.targets import Given, Target, kind_of
from spikeloss_xp._typing import Array, Pullback, Reduction, ValueAndPullback
from spikeloss_xp.readouts import ReadResult, identity

REDUCTIONS = get_args(Reduction)
OPTIONS = ("where", "lengths", "weight")
OTHER_NAMES = {
    "weight": "pass class weights to the call, loss(input, target, weight=...)",
    "mask": "pass a mask, True for entries to keep, to the call, loss(input, target, where=...)",
    "lam": "use rate_weight=..., the weight of a penalty on firing rates",
    "tau": "for SpikeTime, use time_constant=..., in time steps",
    "window": "use moving_window=..., in time steps",
    "dim": "use time_axis=... to choose the time axis",
    "log_rates": 'use link="log" for logarithms of rates, and link="identity" for rates',
    "numerics": "SpikeMax, SpikeMoid and SparsityEnforcer with the numbers of lava-dl are in "
    "spikeloss_xp.slayer.published",
    "rates": "bounds on firing rates are an option of CrossEntropy, which reads binned spikes",
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

# Names that derived classes define. Like most names in `Loss`, these names are not for users.
FOR_SUBCLASSES = {"read", "score", "smallest_rank"}


def unknown_argument(loss: "Loss", accepted: Collection[str], given: Iterable[str]) -> TypeError:
    """Return an error that lists the arguments a loss does not accept, and what to use instead."""
    kind, unknown = type(loss).__name__, [name for name in given if name not in accepted]
    message = f"a call to {kind} takes the options {', '.join(accepted)}; got {', '.join(unknown)}"
    for name in unknown:
        if name in vars(loss):
            message += f": {name} is an option of the constructor, {kind}(..., {name}=...)"
        elif name in CALL_NAMES:
            message += f": {CALL_NAMES[name]}"
    return TypeError(message)


class Terms(NamedTuple):
    """The terms of a batch or chunk, multiplied by their weights. Masked terms are 0.

    The mask and the weight broadcast to the shape of the terms. A mask of None means that nothing
    is masked, and a weight of None means a weight of 1. The pullback takes the derivative with
    respect to the terms. It returns the derivative with respect to the readings or, after
    `Loss._terms`, with respect to the spikes.
    """

    values: Array
    mask: Array | None
    weight: Array | None
    pullback: Pullback


class Loss(_checks.Checked, ABC):
    """Base class for all losses. A loss is a function of spike trains and a target.

    Pass hyper-parameters to the constructor, and arrays to the call. Losses are immutable, hashable
    and comparable. To write your own loss, derive from `ClassLoss` or `TrainLoss`.

    Examples
    --------
    >>> import spikeloss_xp as sx
    >>> loss = sx.SpikeMax(time_axis=0, moving_window=20)
    >>> isinstance(loss, sx.losses.Loss)
    True
    >>> loss == sx.SpikeMax(time_axis=0, moving_window=20)
    True
    """

    time_axis: int
    reduction: str
    _has_closed_form: ClassVar[bool] = True
    """Whether `value_and_pullback` computes the value that a call to the loss returns."""
    classes_compete: ClassVar[bool] = False
    """Whether the classes of a sample share one term."""
    per_step: ClassVar[bool | None] = False
    """Whether the terms have a time axis; None if they have the shape of the input."""
    targets: ClassVar[tuple[Target, ...]] = ()
    """The kinds of targets that the loss accepts, or an empty tuple if it takes no target."""
    ignore_index: int | None = None  # the class index of labels to ignore
    _shields_masked: ClassVar[bool] = True
    """Whether to replace masked readings by 1, in case the criterion is infinite or NaN at 0."""

    def __new__(cls, *args: Any, **options: Any) -> Self:  # noqa: D102
        # A docstring here would replace the docstring of the class in the hover text of editors.
        own = getattr(cls, "__dataclass_fields__", {})
        for name in OTHER_NAMES.keys() & options.keys() - own.keys():
            raise TypeError(f"{cls.__name__} has no option {name}: {OTHER_NAMES[name]}")
        # A copy is made without arguments. A dataclass lists its positional options.
        if (args or options) and "__match_args__" in vars(cls):
            accepted = len(vars(cls)["__match_args__"])
            cls._check_spelling(args[accepted:], options)
        return super().__new__(cls)

    @classmethod
    def _check_spelling(cls, nameless: Sequence[Any], options: Collection[str]) -> None:
        """Raise an error if an option is passed without its name, or if the time axis is missing.

        `nameless` holds the values that should have been passed by name.
        """
        name = cls.__name__
        if nameless:
            _checks.check_no_spikes(cls, "the first option", nameless[0])
            by_name = ", ".join(each.name for each in fields(cls) if each.kw_only)  # type: ignore[arg-type]
            raise TypeError(
                f"pass these options of {name} by name, as in {name}(..., time_axis=0): {by_name}; "
                f"got {', '.join(map(_checks.shown, nameless))} without a name"
            )
        time_axis = cls.__dataclass_fields__.get("time_axis")  # type: ignore[attr-defined]
        if time_axis and time_axis.default is MISSING and "time_axis" not in options:
            raise TypeError(
                f"{name} needs the time axis of the spikes: write {name}(..., time_axis=0) for "
                "[time, batch, class], or time_axis=-1 for [batch, class, time]"
            )

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Determine whether a subclass that overrides the evaluation still has a closed form."""
        super().__init_subclass__(**kwargs)
        overridden = vars(cls)
        if "value_and_pullback" in overridden:
            cls._has_closed_form = True
        elif "value" in overridden or "__call__" in overridden:
            cls._has_closed_form = False
        if "criterion" in overridden:  # a new criterion may be infinite or NaN at 0
            cls._shields_masked = overridden.get("_shields_masked", True)

    def __dir__(self) -> list[str]:
        """Return the names that users need. Names for subclasses are left out."""
        internal = {name for name in vars(Loss) if not name.startswith("__")} | FOR_SUBCLASSES
        return sorted(set(super().__dir__()) - (internal - {"memory", *vars(self)}))

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            if name in ("to", "cuda", "cpu"):
                raise AttributeError(
                    f"{type(self).__name__} has no attribute {name!r}. A loss holds no arrays that "
                    "could be moved: it computes on the device of its input"
                )
            # A property may have raised the `AttributeError` that led here. Reading the attribute
            # again raises that error again.
            return object.__getattribute__(self, name)

    @property
    def memory(self) -> int | None:
        """The number of earlier steps that a term depends on, or None if there is no limit.

        If you pass a segment of a train to `sum_and_weight`, pass `memory` earlier steps as its
        context. The terms are then the same as for the whole train.
        """
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
    def _prepare_input(self, input: Array, where: Any, lengths: Any, context: int = 0) -> Trains:
        """Check the input and return it with its mask. The first `context` steps have no terms."""

    @abstractmethod
    def _read(self, trains: Trains, labels: Any) -> ReadResult:
        """Return the readings of the whole input, or of a chunk of it, and their pullback."""

    @abstractmethod
    def _chunk_axes(self, prepared: Trains) -> tuple[int, ...] | None:
        """Return the axes along which the values and terms may be split into independent chunks.

        If the readings are much smaller than the input, chunks are not worth their overhead, and
        the tuple is empty. If a term depends on several samples, the result is None.
        """

    # Step 1: determine the library, the axes, the mask and the labels -----------------------------

    def _prepare(
        self, input: Array, target: Any, options: dict[str, Any], context: int = 0
    ) -> tuple[Trains, Labels]:
        """Return the prepared input and the labels. The first `context` steps have no terms."""
        for name in options:
            if name not in OPTIONS:
                raise unknown_argument(self, OPTIONS, options)
        where, lengths, weight = map(options.get, OPTIONS)
        prepared = self._prepare_input(input, where, lengths, context)
        labels = self._labels(prepared, target)
        if prepared.after_context is not None:
            labels = labels._replace(mask=both(labels.mask, prepared.after_context))
        if prepared.invalid is not None:
            own, other = labels.invalid, prepared.invalid
            labels = labels._replace(invalid=other if own is None else own | other)
        if weight is not None:
            each = "neuron" if self.per_step is None else "class"
            labels = labels._replace(class_weight=class_weights(prepared, weight, each))
        return prepared, labels

    def _labels(self, prepared: Trains, target: Any) -> Labels:
        """Check the target and return it as labels."""
        kinds = self.targets
        given = Given(prepared, target, kinds, self.per_step, self.ignore_index)
        return kind_of(kinds, target).read(given)

    # Step 2: read, compare and sum ----------------------------------------------------------------

    def _compute(
        self, input: Array, target: Any, options: dict[str, Any], *, with_pullback: bool
    ) -> ValueAndPullback:
        """Return the loss and, if `with_pullback` is True, its pullback to `input`."""
        prepared, labels = self._prepare(input, target, options)
        if self.reduction == "none":
            terms, to_input = self._terms(prepared, labels), prepared.to_input()
            value, to_terms = self._result(prepared, terms.values)
            return value, lambda cotangent: to_input(terms.pullback(to_terms(cotangent)))

        with_weight = self.reduction != "sum"
        total, weight, to_input = self._sum(prepared, labels, with_weight, with_pullback)
        if weight is None:
            return total, to_input
        shares = self.classes_compete and labels.numbers is not None
        counts = labels.class_weight is None and not shares
        if prepared.layout is not None and prepared.layout.batch == 1:
            self._check_vmap(prepared, labels)
        divisor = divisor_of(prepared.adapter, weight, counts=counts)
        return total / divisor, lambda cotangent: to_input(cotangent / divisor)

    def _check_vmap(self, prepared: Trains, labels: Labels) -> None:
        """Warn of a mean over one sample in `vmap` if other samples may have other weights."""
        masks_steps = self.per_step is not False and prepared.mask is not None
        varies = labels.class_weight is not None or masks_steps
        if varies and self.reduction == "mean" and prepared.adapter.is_vectorized(prepared.values):
            warnings.warn(
                f"in vmap, this {type(self).__name__} divides the terms of each sample by the "
                "weight of that sample alone, so class weights cancel and short samples count as "
                "much as long ones: map loss.sum_and_weight instead, and divide the sum of all "
                "sums by the sum of all weights",
                stacklevel=2,
            )

    def _sum(
        self, prepared: Trains, labels: Labels, with_weight: bool, with_pullback: bool
    ) -> tuple[Array, Any, Pullback]:
        """Return the sum and weight of the terms, and the pullback of the sum to the input.

        The weight is None unless `with_weight` is True. The terms are evaluated in chunks if that
        is faster.
        """
        adapter = prepared.adapter

        def sums(values: Array, input_mask: Array, labels: Any) -> Any:  # a mask may be None
            terms = self._terms(prepared.part(values, input_mask), labels)
            weight = self._weight(prepared, *terms[:3]) if with_weight else None
            return (
                adapter.sum_all(terms.values),
                weight,
            ), terms.pullback if with_pullback else None

        arrays = prepared.values, prepared.mask, labels
        to_values: Any
        axes = self._chunk_axes(prepared)
        if adapter.compiles_loops and self.memory == 0:
            axes = ()  # a compiler can fuse such terms better without chunks
        if axes is None:
            (total, weight), to_values = sums(*arrays)
        else:
            batch = prepared.layout.batch_axis
            (total, weight), to_values = adapter.map_chunks(sums, arrays, axes, batch)

        # The derivative with respect to the sum is a scalar. It is also the derivative with respect
        # to each term, and it broadcasts to the shape of the terms.
        to_input = prepared.to_input()
        return total, weight, lambda cotangent: to_input(to_values(cotangent))

    def _terms(self, trains: Trains, labels: Any) -> Terms:
        """Read the trains and compare the readings with the labels.

        The pullback of the terms also passes through the reading.
        """
        mask = trains.mask
        reading, to_values = self._read(trains, labels)
        terms = self._compare(trains, reading, labels)
        to_reading = terms.pullback

        def pullback(cotangent: Array) -> Array:
            derivative = to_values(to_reading(cotangent))
            # If the readings are the values themselves, the pullback of `_compare` has already set
            # the derivatives of masked entries to 0.
            if mask is None or to_values is identity:
                return derivative
            return trains.adapter.masked(derivative, mask)

        return terms._replace(pullback=pullback)

    def _compare(self, prepared: Trains, reading: Reading, labels: Any) -> Terms:
        """Return the terms of a batch or chunk."""
        adapter = prepared.adapter
        reading, mask = self._masked(reading, labels)
        if mask is not None:
            self._check_mask(mask, reading)
            factor_of_mask = prepared.factor(mask)
            # A term with an invalid label is multiplied by a factor of NaN, even if it is masked.
            # The gradient of a masked term is 0, but automatic differentiation multiplies this 0 by
            # the factor, and the product is NaN. Replacing masked readings by 1 keeps this NaN out
            # of the gradient.
            if self._shields_masked or not adapter.on_host:
                reading = reading._replace(u=adapter.shielded(reading.u, mask))
            labels = labels.filled(reading, mask)
        terms, to_reading = self.criterion(reading, labels)
        self._check_terms(terms, reading)
        factor, weight = labels.weights(reading, self.classes_compete)
        if factor is not None:
            terms = terms * factor
        if mask is not None:
            terms = adapter.masked(terms, factor_of_mask)
        if factor is None and mask is None:
            return Terms(terms, None, weight, to_reading)

        def pullback(cotangent: Array) -> Array:
            if factor is not None:
                cotangent = cotangent * factor
            if mask is None:
                return to_reading(cotangent)
            if adapter.on_host:  # the derivative of each masked term is finite
                return to_reading(adapter.masked(cotangent, factor_of_mask))
            return adapter.masked(to_reading(cotangent), mask)

        return Terms(terms, mask, weight, pullback)

    def _masked(self, reading: Reading, labels: Labels) -> tuple[Reading, Array | None]:
        """Return the reading with its `class_mask` set, and the mask of the terms."""
        mask, classes = reading.mask, reading.classes
        if labels.mask is not None:
            mask = both(mask, labels.mask)
        if not self.classes_compete:
            return reading, mask
        of_classes = mask is not None and classes.length(mask) > 1
        # If all probabilities of a label are 0, its weight is 0, but "batchmean" would count it.
        counted = self.reduction == "batchmean" and labels.numbers is not None
        if not (of_classes or counted):
            return reading, mask
        # A sample has a term if the label contains a class with an unmasked neuron.
        own = labels.of_classes(reading)
        if not of_classes:
            return reading, both(mask, classes.any(own))
        of_terms = classes.any(own & mask)
        # The softmax of a masked term must be finite as well, so all of its classes take part.
        return reading._replace(class_mask=mask | ~of_terms), of_terms

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
                f"the mask of the readings of {type(self).__name__} must broadcast to the shape of "
                f"the readings, {shape}; got a mask of shape {given}"
            )

    def _weight(
        self, prepared: Trains, terms: Array, mask: Array | None, weight: Array | None
    ) -> Array | int:
        """Return the number by which the reduction divides the sum of the terms.

        For "batchmean", the divisor is the number of samples with an unmasked term. For other
        reductions, the divisor is the sum of the weights of the unmasked terms. If there is neither
        a mask nor a weight, the result is an int.
        """
        xp = prepared.adapter.xp
        if prepared.layout is None:  # one term per layer; layers are summed, not averaged
            return 1
        if None in terms.shape:  # if a length is unknown until run time, count the terms
            mask = both(mask, xp.ones_like(terms, dtype=xp.bool))
        if self.reduction == "batchmean":
            return self._number_of_samples(prepared, terms, mask)
        if self.reduction not in REDUCTIONS:  # a subclass may have skipped the checks
            _checks.reduction(self.reduction, "reduction")
        if mask is None and weight is None:
            return math.prod(terms.shape)
        if weight is None:
            weight = prepared.factor(mask)
        elif mask is not None:
            weight = prepared.adapter.masked(weight, mask)
        sizes = zip(terms.shape, weight.shape, strict=True)
        repeated = math.prod([n for n, m in sizes if n != m])
        total = prepared.adapter.number(weight, terms.dtype)
        return total if repeated == 1 else total * repeated

    def _number_of_samples(self, prepared: Trains, terms: Array, mask: Array | None) -> Array | int:
        """Return the number of samples with an unmasked term."""
        xp, batch = prepared.adapter.xp, prepared.layout.batch_axis
        if mask is None:
            return int(terms.shape[batch])
        others = tuple(axis for axis in range(mask.ndim) if axis != batch)
        counted = xp.any(mask, axis=others)
        return prepared.adapter.number(counted, terms.dtype)

    def _result(self, prepared: Trains, terms: Array) -> ValueAndPullback:
        """Return the terms with the shape that the user receives, and their pullback."""
        adapter, layout = prepared.adapter, prepared.layout
        if self.per_step is None:
            collapse = functools.partial(layout.collapsed, adapter)
            return layout.restored(adapter, terms), collapse
        kept = {"with_class": not self.classes_compete, "with_time": bool(self.per_step)}
        result = layout.squeezed(adapter, terms, **kept)
        return result, lambda cotangent: adapter.xp.reshape(cotangent, terms.shape)

    def _sum_of_part(
        self,
        input: Array,
        target: Any,
        context: int,
        options: dict[str, Any],
        *,
        with_pullback: bool,
    ) -> tuple[Array, Array, Pullback]:
        """Return the sum and weight of the terms of part of a batch, and the pullback if needed."""
        self._check_context(context)
        if 0 in input.shape:
            empty = without_samples(input, getattr(self, "time_axis", -1), target)
            zero, values = empty.adapter.sum_all, empty.values
            zeros = empty.xp.zeros_like(values)
            return zero(values), zero(zeros), lambda cotangent: empty.to_input()(zeros)
        prepared, labels = self._prepare(input, target, options, context)
        total, weight, pullback = self._sum(prepared, labels, True, with_pullback)
        if isinstance(weight, int):
            # `scalar` may return a cached array, so return a copy that the caller may modify.
            weight = prepared.adapter.scalar(total, float(weight)) + 0.0
        return total, weight, pullback

    def _check_context(self, context: int) -> None:
        """Raise an error if the reduction is "none", or if `context` is invalid for this loss."""
        if self.reduction == "none":
            raise ValueError(
                "reduction='none' has no sum and no weight: use 'sum', 'mean' or 'batchmean'"
            )
        if _checks.integer(context, "context") == 0:
            return
        if context < 0:
            raise ValueError(f"context must be at least 0; got {context}")
        if self.memory is None:
            raise ValueError(
                "context needs a loss with a term at each step and a known memory; the memory of "
                f"this {type(self).__name__} is None: set a moving_window, or pass whole trains "
                "without a context"
            )
        if self.reduction == "batchmean":
            raise ValueError(
                "context needs reduction='sum' or 'mean'; got 'batchmean', which divides by the "
                "number of samples: each segment would count the same samples again"
            )
