"""The base class for all losses, with the code that checks and evaluates a call to a loss.

    spikes --read--> u --criterion(u, target)--> terms --reduction--> loss

The method `_prepare` checks the arguments of a call, and the method `_sum` computes and adds up the
terms of the loss. The numbers that a loss computes from spikes, such as spike counts, are called
readings. Methods such as `_read` return a result and a pullback. A pullback takes the derivative of
the loss with respect to the result, and returns the derivative with respect to the input of the
method.

With ``reduction="mean"``, the loss is the sum of the terms divided by the total weight of the
terms, ``sum / weight``.

Subclasses must define all abstract methods. Subclasses may also override public methods, class
attributes and the method `_labels`. Subclasses must not override any other method of `Loss` whose
name starts with an underscore.
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
    "numerics": "spikeloss_xp.slayer.published has versions of SpikeMax, SpikeMoid and "
    "SparsityEnforcer that return the same values as lava-dl",
    "rates": "bounds on firing rates are an option of CrossEntropy, which needs binned spikes",
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

# `Loss.__dir__` hides these names, which only authors of new losses need.
FOR_SUBCLASSES = {"read", "score", "smallest_rank"}


def unknown_argument(loss: "Loss", accepted: Collection[str], given: Iterable[str]) -> TypeError:
    """Return an error that lists the unknown arguments of a call, and says what to use instead."""
    kind, unknown = type(loss).__name__, [name for name in given if name not in accepted]
    message = f"a call to {kind} takes the options {', '.join(accepted)}; got {', '.join(unknown)}"
    for name in unknown:
        if name in vars(loss):
            message += f": {name} is an option of the constructor, {kind}(..., {name}=...)"
        elif name in CALL_NAMES:
            message += f": {CALL_NAMES[name]}"
    return TypeError(message)


class Terms(NamedTuple):
    """Terms of a loss for a batch, or for a chunk of a batch.

    Each term in `values` is already multiplied by its class weight. Masked terms are 0.

    `mask` and `weight` broadcast to the shape of `values`. If `weight` is None, each term has a
    weight of 1. For terms from `Loss._compare`, the pullback returns the derivative with respect to
    the readings. For terms from `Loss._terms`, the pullback returns the derivative with respect to
    the spikes.
    """

    values: Array
    mask: Array | None
    weight: Array | None
    pullback: Pullback


class Loss(_checks.Checked, ABC):
    """Base class for all losses. A loss can be called with spike trains and a target.

    Pass hyper-parameters to the constructor of a loss, and pass spikes and targets when you call
    the loss. Losses are immutable and hashable. Two losses are equal if they have the same type and
    the same hyper-parameters. To write your own loss, derive a class from `ClassLoss` or
    `TrainLoss`.

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
    """Whether `value_and_pullback` returns the same value as a call to the loss."""
    classes_compete: ClassVar[bool] = False
    """Whether the loss has one term for all classes together, instead of a term for each class."""
    per_step: ClassVar[bool | None] = False
    """Whether the terms have a time axis. None means that the terms have the shape of the input."""
    targets: ClassVar[tuple[Target, ...]] = ()
    """The kinds of targets that the loss accepts, or an empty tuple if it takes no target."""
    ignore_index: int | None = None  # labels with this class index are ignored
    _shields_masked: ClassVar[bool] = True
    """Whether masked readings become 1, because `criterion` may be infinite or NaN for 0."""

    def __new__(cls, *args: Any, **options: Any) -> Self:  # noqa: D102
        # This method has no docstring, because editors would show its docstring instead of the
        # docstring of the class.
        own = getattr(cls, "__dataclass_fields__", {})
        for name in OTHER_NAMES.keys() & options.keys() - own.keys():
            raise TypeError(f"{cls.__name__} has no option {name}: {OTHER_NAMES[name]}")
        # `copy` calls `__new__` without arguments. `__match_args__` lists the options that may be
        # passed by position.
        if (args or options) and "__match_args__" in vars(cls):
            accepted = len(vars(cls)["__match_args__"])
            cls._check_spelling(args[accepted:], options)
        return super().__new__(cls)

    @classmethod
    def _check_spelling(cls, nameless: Sequence[Any], options: Collection[str]) -> None:
        """Raise an error if an option is passed without its name, or if `time_axis` is missing."""
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
        """Set `_has_closed_form` of a new subclass according to the methods that it overrides."""
        super().__init_subclass__(**kwargs)
        overridden = vars(cls)
        if "value_and_pullback" in overridden:
            cls._has_closed_form = True
        elif "value" in overridden or "__call__" in overridden:
            cls._has_closed_form = False
        if "criterion" in overridden:  # `criterion` may return inf or NaN if a reading is 0
            cls._shields_masked = overridden.get("_shields_masked", True)

    def __dir__(self) -> list[str]:
        """Return the names of all attributes except those that only authors of losses need."""
        internal = {name for name in vars(Loss) if not name.startswith("__")} | FOR_SUBCLASSES
        return sorted(set(super().__dir__()) - (internal - {"memory", *vars(self)}))

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            if name in ("to", "cuda", "cpu"):
                raise AttributeError(
                    f"{type(self).__name__} has no attribute {name!r}. A loss holds no arrays that "
                    "could be moved: it computes on the device of its input"
                )
            # A property may have raised an `AttributeError`. Reading the property again raises this
            # error with its original message.
            return object.__getattribute__(self, name)

    @property
    def memory(self) -> int | None:
        """The number of earlier time steps that a term depends on, or None if it is unlimited.

        To evaluate a segment of a train with `sum_and_weight`, also pass the `memory` steps before
        the segment, and set `context` to `memory`. With this context, the terms of the segment are
        the same as if the whole train had been passed.
        """
        return None

    # Methods that a subclass defines --------------------------------------------------------------

    @abstractmethod
    def criterion(self, reading: Reading, labels: Any) -> ValueAndPullback:
        """Return the terms of the loss, and the pullback of the terms to ``reading.u``.

        Parameters
        ----------
        reading : Reading
            ``reading.u`` holds the numbers that were computed from the spikes, such as spike
            counts. ``reading.classes`` represents the class axis, and has methods such as ``sum``.
        labels : Labels
            The target, whose axes have the same order as the axes of the readings.

        Returns
        -------
        tuple
            The terms and their pullback. The pullback takes the derivative of the loss with respect
            to the terms, and returns the derivative with respect to ``reading.u``. The terms have
            the shape of ``reading.u``. However, if `classes_compete` is True, the class axis of the
            terms has length 1.
        """

    @abstractmethod
    def _prepare_input(self, input: Array, where: Any, lengths: Any, context: int = 0) -> Trains:
        """Check the input and its mask, and convert them to `Trains`.

        The loss has no terms for the first `context` time steps.
        """

    @abstractmethod
    def _read(self, trains: Trains, labels: Any) -> ReadResult:
        """Return the numbers that the loss computes from `trains`, and their pullback.

        `trains` holds the whole input or a chunk of the input.
        """

    @abstractmethod
    def _chunk_axes(self, prepared: Trains) -> tuple[int, ...] | None:
        """Return the axes along which the input may be split into chunks.

        The result is an empty tuple if evaluating the input in chunks would not be faster. The
        result is None if a term depends on several samples.
        """

    # Step 1: determine the library, the axes, the mask and the labels -----------------------------

    def _prepare(
        self, input: Array, target: Any, options: dict[str, Any], context: int = 0
    ) -> tuple[Trains, Labels]:
        """Check the arguments of a call, and return the trains of the input and the labels."""
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
        """Check the target and convert it to labels."""
        kinds = self.targets
        given = Given(prepared, target, kinds, self.per_step, self.ignore_index)
        return kind_of(kinds, target).read(given)

    # Step 2: compute the readings, compare them with the labels, and sum the terms ----------------

    def _compute(
        self, input: Array, target: Any, options: dict[str, Any], *, with_pullback: bool
    ) -> ValueAndPullback:
        """Return the loss and its pullback to `input`.

        If `with_pullback` is False, the returned pullback must not be called.
        """
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
        """Warn that `vmap` computes a separate weighted mean for each sample."""
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
        """Return the sum of the terms, the total weight, and the pullback of the sum."""
        adapter = prepared.adapter

        def sums(values: Array, input_mask: Array, labels: Any) -> Any:  # `input_mask` may be None
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
            axes = ()  # without chunks, the compiler can fuse the operations better
        if axes is None:
            (total, weight), to_values = sums(*arrays)
        else:
            batch = prepared.layout.batch_axis
            (total, weight), to_values = adapter.map_chunks(sums, arrays, axes, batch)

        to_input = prepared.to_input()
        return total, weight, lambda cotangent: to_input(to_values(cotangent))

    def _terms(self, trains: Trains, labels: Any) -> Terms:
        """Compute the terms of the loss from `trains` and `labels`."""
        mask = trains.mask
        reading, to_values = self._read(trains, labels)
        terms = self._compare(trains, reading, labels)
        to_reading = terms.pullback

        def pullback(cotangent: Array) -> Array:
            derivative = to_values(to_reading(cotangent))
            # If `_read` returned the spikes themselves, `to_reading` has already set the
            # derivatives for masked spikes to 0.
            if mask is None or to_values is identity:
                return derivative
            return trains.adapter.masked(derivative, mask)

        return terms._replace(pullback=pullback)

    def _compare(self, prepared: Trains, reading: Reading, labels: Any) -> Terms:
        """Compute the terms of the loss from ``reading.u`` and `labels`."""
        adapter = prepared.adapter
        reading, mask = self._masked(reading, labels)
        if mask is not None:
            self._check_mask(mask, reading)
            factor_of_mask = prepared.factor(mask)
            # An invalid label multiplies its term by NaN. Replacing masked values by 1 keeps this
            # NaN out of the gradient.
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
            if adapter.on_host:  # on the host, masked terms have finite derivatives
                return to_reading(adapter.masked(cotangent, factor_of_mask))
            return adapter.masked(to_reading(cotangent), mask)

        return Terms(terms, mask, weight, pullback)

    def _masked(self, reading: Reading, labels: Labels) -> tuple[Reading, Array | None]:
        """Return a `Reading` in which masked classes are marked, and the mask of the terms."""
        mask, classes = reading.mask, reading.classes
        if labels.mask is not None:
            mask = both(mask, labels.mask)
        if not self.classes_compete:
            return reading, mask
        of_classes = mask is not None and classes.length(mask) > 1
        # A sample whose probabilities are all 0 must be masked, because "batchmean" would count it.
        counted = self.reduction == "batchmean" and labels.numbers is not None
        if not (of_classes or counted):
            return reading, mask
        # A sample has a term only if its label contains at least one class that is not masked.
        own = labels.of_classes(reading)
        if not of_classes:
            return reading, both(mask, classes.any(own))
        of_terms = classes.any(own & mask)
        # If a term is masked, all its classes are kept in the softmax, so that the softmax is
        # finite.
        return reading._replace(class_mask=mask | ~of_terms), of_terms

    def _check_terms(self, terms: Array, reading: Reading) -> None:
        """Raise an error if the terms have the wrong shape.

        Without this check, broadcasting could hide a wrong shape.
        """
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
        """Raise an error if a mask from a subclass does not broadcast to ``reading.u``."""
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
        """Return the number by which the sum of the terms is divided to compute the loss.

        For "batchmean", the divisor is the number of samples that have an unmasked term. For other
        reductions, the divisor is the sum of the weights of the unmasked terms.
        """
        xp = prepared.adapter.xp
        # An input without a layout holds the activity of one layer of a network, and has one term.
        if prepared.layout is None:
            return 1
        # If the length of an axis is unknown until run time, the terms are counted at run time.
        if None in terms.shape:
            mask = both(mask, xp.ones_like(terms, dtype=xp.bool))
        if self.reduction == "batchmean":
            return self._number_of_samples(prepared, terms, mask)
        if self.reduction not in REDUCTIONS:  # a subclass may have skipped the constructor's checks
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
        """Return the number of samples that have at least one unmasked term."""
        xp, batch = prepared.adapter.xp, prepared.layout.batch_axis
        if mask is None:
            return int(terms.shape[batch])
        others = tuple(axis for axis in range(mask.ndim) if axis != batch)
        counted = xp.any(mask, axis=others)
        return prepared.adapter.number(counted, terms.dtype)

    def _result(self, prepared: Trains, terms: Array) -> ValueAndPullback:
        """Return the result for ``reduction="none"``, and its pullback to the terms."""
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
        """Return the sum and the weight of the terms of a micro-batch, and the pullback of the sum.

        If `with_pullback` is False, the returned pullback must not be called.
        """
        self._check_context(context)
        if 0 in input.shape:
            empty = without_samples(input, getattr(self, "time_axis", -1), target)
            zero, values = empty.adapter.sum_all, empty.values
            zeros = empty.xp.zeros_like(values)
            return zero(values), zero(zeros), lambda cotangent: empty.to_input()(zeros)
        prepared, labels = self._prepare(input, target, options, context)
        total, weight, pullback = self._sum(prepared, labels, True, with_pullback)
        if isinstance(weight, int):
            # `scalar` may return a cached array. Adding 0 makes a copy, which the caller may
            # modify.
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
