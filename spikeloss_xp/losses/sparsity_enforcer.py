"""SparsityEnforcer: penalise a layer whose mean event rate is outside a range."""

import functools
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, get_args

from spikeloss_xp import _checks, criteria
from spikeloss_xp._arrays import (
    Adapter,
    adapter_of,
    asarray_like,
    floating,
    on_device_of,
    or_one,
)
from spikeloss_xp._input.labels import Labels
from spikeloss_xp._input.prepared import Prepared, prepare_input
from spikeloss_xp._typing import (
    Array,
    ArrayLike,
    ArrayT,
    Events,
    Numerics,
    Per,
    Power,
    Pullback,
    Total,
    ValueAndPullback,
)
from spikeloss_xp.losses.base import Loss
from spikeloss_xp.losses.classes import NUMERICS
from spikeloss_xp.losses.parts import divisor_of
from spikeloss_xp.readouts import Reading, ReadResult


@dataclass(frozen=True)
class SparsityEnforcer(Loss):
    r"""Squared distance of mean event rates from a range of rates.

    .. math::
        L = \lambda \sum_x \Bigl(
            \max(m_x - r_\text{max}, 0)^2 + \max(r_\text{min} - m_x, 0)^2 \Bigr),
        \qquad m_x = \operatorname{mean} |x|

    The sum is over arrays :math:`x`, usually one for each layer. A call with an array returns its
    term. A call with several, in nested sequences and mappings, returns the sum of their terms.
    Rates are in events per neuron and time step.

    Parameters
    ----------
    max_rate : float, default 0.01
        The mean event rate :math:`r_\text{max}` above which an array is penalised, in events per
        time step; at least 0.
    lam : float, default 1.0
        The factor :math:`\lambda` of the loss; at least 0.
    min_rate : float, default 0
        The mean event rate :math:`r_\text{min}` below which an array is penalised, in events per
        time step; from 0 to `max_rate`.
    power : {2, 1}, default 2
        The power of the distance from the range: its square, or itself. With ``max_rate=0`` and a
        power of 1 the loss is the mean of :math:`|x|`.
    per : {"array", "neuron", "sample", "sample_neuron"}, default "array"
        What has a mean event rate of its own: the whole array; each neuron, over batch and time, so
        that a silent neuron does not cancel one that fires too much; each sample; or each neuron in
        each sample, as in the upper bound of [2]_.
    reduction : {"mean", "sum"}, default "mean"
        Whether the term of an array is the mean or the sum over its neurons or samples. The terms
        of several arrays are always added.
    scale : sequence of float, optional
        A factor for each array, at least 0, such as the number of synapses of a neuron. The scaled
        events of all arrays are added up and compared once, with limits in scaled events per sample
        and time step: synaptic operations. If neurons are masked, those of the others are scaled up
        to all. For ``per="array"`` and ``"sample"``. Arrays of a mapping are in the order of its
        sorted keys, as in JAX.
    layer_axis : int, optional
        The axis of `input` that is no axis of a layer: each slice along it is an array of its own.
        By default there is none.
    numerics : {"stable", "lava"}, default "stable"
        The derivative of :math:`|x|` at silence, :math:`x = 0`. With ``"stable"`` it is 1, that of
        a count of spikes. With ``"lava"``, as in lava-dl [1]_, it is 0 in the excess over
        `max_rate`, so that silent steps have no gradient; and 1 in the shortfall from `min_rate`
        and with a `scale`.
    time_axis : int, default -1
        The axis of an array that is time. With ``per="array"`` and no mask it has no effect.

    Raises
    ------
    ValueError, TypeError
        If an option is outside its range or of the wrong type.

    Notes
    -----
    The gradient at a step reaches the membrane potential by the surrogate gradient of the neuron.
    At a silent step it lowers potentials that are near the threshold. Graded or signed events are
    not counts: for them use ``numerics="lava"``.

    With ``per="array"`` and ``"neuron"`` the term squares a mean over the batch, so the terms of
    micro-batches do not add up. `events_and_entries` returns two sums that do. With the other two
    the terms of samples add up: see `sum_and_weight`.

    References
    ----------
    .. [1] The sparsity regularisation of lava-dl's SLAYER 2.0.
    .. [2] F. Zenke and T. P. Vogels, "The remarkable robustness of surrogate gradient learning for
       instilling complex function in spiking neural networks", Neural Computation 33(4), 2021.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> layers = [np.asarray([[1, 0, 1, 1]]), np.asarray([[0, 0, 1, 0]])]
    >>> float(sx.SparsityEnforcer(max_rate=0.25)(layers))
    0.25
    """

    max_rate: float = 0.01
    lam: float = 1.0
    _: KW_ONLY
    min_rate: float = 0.0
    power: Power = 2
    per: Per = "array"
    reduction: Total = "mean"
    scale: Sequence[float] | None = None
    layer_axis: int | None = None
    numerics: Numerics = "stable"
    time_axis: int = -1

    def __post_init__(self) -> None:
        numbers = dict.fromkeys(("max_rate", "lam", "min_rate"), _checks.not_negative)
        _checks.check_fields(
            self,
            **numbers,
            per=_checks.one_of(get_args(Per)),
            power=_checks.one_or_two,
            reduction=_checks.one_of(get_args(Total)),
            scale=_checks.optional(_checks.one_or_more(_checks.not_negative)),
            layer_axis=_checks.optional(_checks.integer),
            numerics=_checks.one_of(NUMERICS),
            time_axis=_checks.integer,
        )
        if self.scale is not None and self.per.endswith("neuron"):
            raise ValueError(
                "scale adds up the events of all neurons, so it needs per='array' or 'sample'; got "
                f"per={self.per!r}"
            )
        if self.min_rate > self.max_rate:
            raise ValueError(
                f"min_rate must not be above max_rate; got {self.min_rate} and {self.max_rate}"
            )

    @on_device_of("input")
    def __call__(  # type: ignore[override]
        self,
        input: Events[ArrayT],
        *,
        where: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        others: tuple[ArrayLike, ArrayLike] | None = None,
    ) -> ArrayT:
        """Return the term of one array, or the sum of the terms of several.

        Parameters
        ----------
        input : array, or sequence or mapping of arrays
            Events: spikes, or graded and signed values. Sequences and mappings may be nested. With
            ``per="array"`` and no mask an array has any shape; else ``[batch, *space, time]``, with
            the time axis at `time_axis`.
        where : array or sequence of bool, optional
            The mask, True for entries that count, as for the other losses, for every array.
        lengths : array or sequence of int, optional
            The number of steps of each sample that count: ``[batch]``.
        others : tuple of array, optional
            The `events_and_entries` of the rest of the batch: those of the other micro-batches,
            processes or devices, added up. The call then returns the value of the whole batch, and
            its gradient is that with respect to `input`. For one array only.

        Returns
        -------
        array
            A scalar array on the library and device of `input`; 0 if nothing counts.

        Raises
        ------
        ValueError, TypeError
            If there is no array; if an array has no elements, or too few axes where batch and time
            matter; or if a mask or `others` has the wrong shape, dtype, library or range.
        """
        arrays = _leaves(input)
        if others is not None:
            if len(arrays) > 1 or self.scale is not None:
                raise ValueError(
                    "others belong to one array: call the loss once for each, and add up"
                )
            value: ArrayT = self.value(arrays[0], where=where, lengths=lengths, others=others)
        elif self.scale is None:
            masks = {"where": where, "lengths": lengths}
            terms = [adapter_of(x).evaluate(self, x, masks) for x in arrays]
            value = functools.reduce(operator.add, terms)
        else:
            value = self._value_of_scaled(input, where=where, lengths=lengths)
        return value

    def forward(self, input: Events[ArrayT], **options: Any) -> ArrayT:  # type: ignore[override]
        """Return the value of the loss: the same as calling it."""
        return self(input, **options)

    def value(self, input: ArrayT, **options: Any) -> ArrayT:  # type: ignore[override]
        """Return the term of one array, with operations that the library can differentiate."""
        if self.scale is not None and self.layer_axis is not None:  # the array holds several
            return self._value_of_scaled(input, **options)
        return self._of_layers(input, with_pullback=False, **options)[0]

    def value_and_pullback(  # type: ignore[override]
        self, input: ArrayT, **options: Any
    ) -> tuple[ArrayT, Pullback]:
        """Return the term of one array, and the pullback from it to `input`, in closed form."""
        return self._of_layers(input, with_pullback=True, **options)

    def _of_layers(
        self,
        input: ArrayT,
        *,
        with_pullback: bool,
        where: Any = None,
        lengths: Any = None,
        others: Any = None,
    ) -> tuple[ArrayT, Pullback]:
        """Return the term of one array, or the sum of the terms of the layers in it."""
        self._check_no_scale()
        if others is not None and self.layer_axis is not None:
            raise ValueError("others belong to one layer: call the loss for each, and add up")
        masks = {"where": where, "lengths": lengths}
        slices = self._slices(input, plain=where is None and lengths is None)
        if slices is None:
            return self._compute(input, others, masks, with_pullback=with_pullback)
        pairs = [self._compute(x, None, masks, with_pullback=with_pullback) for x in slices]
        values, pullbacks = zip(*pairs, strict=True)
        xp, axis = adapter_of(input).xp, self.layer_axis

        def pullback(cotangent: Array) -> Array:
            return xp.stack([to_slice(cotangent) for to_slice in pullbacks], axis=axis)

        return functools.reduce(operator.add, values), pullback

    def _slices(self, x: Array, *, plain: bool) -> Sequence[Array] | None:
        """Return the layers of an array, or None if `_read` takes it as it is."""
        axis = self.layer_axis
        if axis is None or (plain and self.per == "array" and self.scale is None):
            return None
        return adapter_of(x).unstack(x, self._checked_layer_axis(x))

    def _checked_layer_axis(self, x: Array) -> int:
        axis, rank = self.layer_axis or 0, len(x.shape)
        if not -rank <= axis < rank:
            raise ValueError(f"layer_axis={axis} is not an axis of input of shape {tuple(x.shape)}")
        return axis % rank

    @on_device_of("input")
    def sum_and_weight(  # type: ignore[override]
        self, input: Events[ArrayT], *, where: Any = None, lengths: Any = None
    ) -> tuple[ArrayT, ArrayT]:
        """Return the sum of the terms of samples, and the number that a call divides it by.

        Both add up over any split of the batch, with ``per="sample"`` and ``"sample_neuron"``; the
        loss of the batch is the quotient of the sums, or 0 if that of the weights is 0; with
        ``reduction="sum"`` it is the sum of the sums.

        Parameters
        ----------
        input : array, or sequence or mapping of arrays
            Events, as for a call: several arrays with a `scale`, else one.
        where, lengths : array or sequence, optional
            As for a call.

        Returns
        -------
        tuple of array
            Scalar arrays of one dtype. The sum can be differentiated.

        Raises
        ------
        ValueError
            If `per` is another: a mean over the batch is compared then, see `events_and_entries`.
        """
        self._check_samples("sum_and_weight")
        masks = {"where": where, "lengths": lengths}
        if self.scale is None:
            return self._sum_of_part(input, None, 0, masks, with_pullback=False)[:2]
        total, number = self._sum_of_scaled(input, **masks)
        return total, 0 * total + number

    @on_device_of("input")
    def sum_weight_and_pullback(  # type: ignore[override]
        self, input: ArrayT, *, where: Any = None, lengths: Any = None
    ) -> tuple[ArrayT, ArrayT, Pullback]:
        """Return the results of `sum_and_weight` for one array, and the pullback of the sum."""
        self._check_samples("sum_weight_and_pullback")
        self._check_no_scale()
        masks = {"where": where, "lengths": lengths}
        return self._sum_of_part(input, None, 0, masks, with_pullback=True)

    @on_device_of("input")
    def events_and_entries(
        self, input: ArrayT, *, where: ArrayLike | None = None, lengths: ArrayLike | None = None
    ) -> tuple[ArrayT, ArrayT]:
        """Return the sum of ``|x|``, and the number of entries that it is a sum over.

        Both add up over any split of the batch, and their quotient is the mean event rate. Pass
        the sums of the rest of the batch to a call as `others`.

        Parameters
        ----------
        input : array
            Events, as for a call.
        where, lengths : array or sequence, optional
            As for a call.

        Returns
        -------
        tuple of array
            Two scalar arrays of one dtype or, with ``per="neuron"``, two arrays ``[neuron]``. Take
            the gradient of a call, not of these: at 0 it depends on the rate of the whole batch.

        Examples
        --------
        The gradient of two micro-batches is that of the batch:

        >>> import numpy as np
        >>> import spikeloss_xp as sx
        >>> sparsity = sx.SparsityEnforcer(max_rate=0.25)
        >>> first, second = np.asarray([[1, 1, 1, 0]]), np.asarray([[0, 1, 0, 0]])
        >>> others = sparsity.events_and_entries(second)
        >>> value, gradient = sx.value_and_grad(sparsity)(first, others=others)
        >>> whole, whole_gradient = sx.value_and_grad(sparsity)(np.concat([first, second]))
        >>> float(value), float(whole), bool((gradient == whole_gradient[:1]).all())
        (0.0625, 0.0625, True)
        """
        self._check_one_layer("events_and_entries")
        if self.scale is not None:
            raise ValueError("events_and_entries takes one array, without a scale")
        prepared = self._prepare_input(input, where, lengths)
        axes = self._averaged_axes(prepared)
        arrays = prepared.adapter, prepared.values, prepared.mask
        events, entries, _ = sum_magnitude(*arrays, axes=axes)
        # There may be one mask for all neurons, or none.
        return events, prepared.adapter.xp.zeros_like(events) + entries

    def _check_no_scale(self) -> None:
        if self.scale is not None:
            raise ValueError("scale belongs to several arrays: call the loss with a list of them")

    def _check_samples(self, method: str) -> None:
        if not self.per.startswith("sample"):
            raise ValueError(f"per={self.per!r} has no sum over samples: see events_and_entries")
        self._check_one_layer(method)

    def _check_one_layer(self, method: str) -> None:
        if self.layer_axis is not None:
            raise ValueError(f"{method} takes one layer: call it for each, without a layer_axis")

    # The pipeline of every loss ------------------------------------------------------------------

    def _prepare_input(self, input: Array, where: Any, lengths: Any, context: int = 0) -> Prepared:
        adapter = adapter_of(input).of_call(input)
        adapter.check_dense(input, "input")
        if 0 in input.shape:
            raise ValueError(f"input has no elements: got shape {tuple(input.shape)}")
        if where is None and None in input.shape:  # a number that is not known is counted
            where = adapter.xp.ones_like(input, dtype=adapter.xp.bool)
        if where is None and lengths is None and self.per == "array" and self.scale is None:
            values = floating(adapter, input)  # of any shape
            return Prepared(adapter, values, None, None, input.dtype)
        return prepare_input(input, where, lengths, time_axis=self.time_axis, smallest_rank=2)

    def _labels(self, prepared: Prepared, target: Any) -> Labels:
        if target is None:
            return Labels()
        return Others(None, _sums_elsewhere(prepared, target, self.per))

    def _chunk_axes(self, prepared: Prepared) -> None:
        return None

    def _averaged_axes(self, prepared: Prepared) -> tuple[int, ...]:
        """Return the axes that `per` averages over."""
        layout, axes = prepared.layout, set(range(prepared.values.ndim))
        if self.per != "array":
            kept = {"sample": layout.batch_axis, "neuron": layout.class_axis}
            axes -= {kept[name] for name in self.per.split("_")}
        elif layout is None and self.layer_axis is not None:  # one rate for each layer
            axes.remove(self._checked_layer_axis(prepared.values))
        return tuple(sorted(axes))

    def _read(
        self, prepared: Prepared, values: Array, mask: Array | None, labels: Labels
    ) -> ReadResult:
        axes = self._averaged_axes(prepared)
        options = {"axes": axes, "others": labels.numbers}
        read = functools.partial(mean_magnitude, prepared.adapter, values, mask, **options)
        published = self.numerics == "lava"
        reading, to_values = read(at_silence=not published)
        if published and self.min_rate:  # below it, another event shortens the distance
            reading, to_values = read(at_silence=reading.u < self.min_rate)
        return reading, to_values

    def findings(self, input: Any) -> Iterator[tuple[str, str]]:
        """Yield a finding if no binary spikes can reach the limit."""
        graded = any((x > 1).any() for x in input)
        if self.max_rate >= 1 and not (graded or self.scale or self.min_rate):
            yield "impossible-rate", f"max_rate={self.max_rate:g}"

    def criterion(self, reading: Reading, labels: Labels) -> ValueAndPullback:
        """Return the distances of the rates from their range, times `lam`."""
        limits = self.min_rate, self.max_rate
        terms, to_rate = criteria.outside_range(reading.adapter, reading.u, *limits, self.power)
        if self.lam == 1:
            return terms, to_rate
        return self.lam * terms, lambda cotangent: to_rate(self.lam * cotangent)

    def _value_of_scaled(self, input: Any, where: Any = None, lengths: Any = None) -> Any:
        """Return the value of the loss for the scaled events of all arrays."""
        total, number = self._sum_of_scaled(input, where, lengths)
        if self.reduction == "sum":
            return total
        return total / divisor_of(adapter_of(total), number)

    def _sum_of_scaled(self, input: Any, where: Any, lengths: Any) -> tuple[Array, Any]:
        """Return the sum of the terms of the scaled events of all arrays, and their number."""
        arrays = [layer for x in _leaves(input) for layer in self._slices(x, plain=False) or [x]]
        factors = self.scale if isinstance(self.scale, tuple) else ()
        if len(arrays) != len(factors):
            raise ValueError(
                f"scale must have a number for each array, {len(arrays)}; got {self.scale}"
            )
        rates: list[Any] = []
        for x, factor in zip(arrays, factors, strict=True):
            prepared = self._prepare_input(x, where, lengths)
            adapter, axes = prepared.adapter, self._averaged_axes(prepared)
            events, entries, _ = sum_magnitude(adapter, prepared.values, prepared.mask, axes=axes)
            steps = entries / prepared.layout.neurons  # of all samples
            counted = None if isinstance(entries, int) else entries > 0
            rates.append(factor * events / (steps if counted is None else or_one(adapter, steps)))
        reading = reading_of(adapter, functools.reduce(operator.add, rates), counted)
        terms, mask, weight, _ = self._compare(prepared, reading, Labels())
        return adapter.sum_all(terms), self._weight(prepared, terms, mask, weight)


class Others(Labels):
    """The events and entries of the rest of the batch, as `numbers`, which the rates include."""

    __slots__ = ()

    def filled(self, reading: Any, mask: Array) -> Labels:
        """Return the same numbers: they are not masked."""
        return self


def _leaves(input: Any) -> list[Any]:
    """Return the arrays in nested sequences and mappings; those of a mapping by sorted keys."""
    if not isinstance(input, Mapping | list | tuple):
        return [input]
    # JAX sorts keys too, before a function that it compiles sees them.
    entries = map(input.get, sorted(input)) if isinstance(input, Mapping) else input
    leaves = [leaf for each in entries for leaf in _leaves(each)]
    if not leaves:
        raise ValueError("input must be an array, or at least one of them; got none")
    return leaves


def _sums_elsewhere(prepared: Prepared, others: Any, per: str) -> list[Array]:
    """Return the events and entries of the rest of a batch, in the dtype to compute in."""
    if per.startswith("sample"):
        raise ValueError(f"others are for a mean over the batch, and per={per!r} has none")
    if len(others) != 2:
        raise ValueError(f"others must be a pair, events and entries; got {len(others)}")
    values, sums = prepared.values, []
    shape: tuple[int, ...] = (prepared.layout.neurons,) if per == "neuron" else ()
    expected = {"[neuron]" if per == "neuron" else "a scalar": shape}
    for name, given in zip(("events", "entries"), others, strict=True):
        total = asarray_like(prepared.adapter, values, given, "others")
        _checks.check_shape(total, "others", name, expected)
        sums.append(prepared.adapter.xp.astype(total, values.dtype, copy=False))
    return sums


def sum_magnitude(
    adapter: Adapter,
    x: Array,
    mask: Array | None = None,
    *,
    axes: tuple[int, ...],
    at_silence: Any = True,
) -> tuple[Array, Any, Pullback]:
    """Return the sum of ``|x|``, the number of unmasked entries, and the pullback of the sum.

    The number is an int without a mask. The derivative of ``|x|`` at 0 is 1 where `at_silence` is
    True, and 0 elsewhere.
    """
    xp = adapter.xp

    def spread(y: Array) -> Array:
        for axis in axes:
            y = xp.expand_dims(y, axis=axis)
        return y

    def times_sign(y: Array) -> Array:
        if plain:
            for axis in axes:
                y = adapter.spread(y, x.shape[axis], axis)
            return y
        other = y
        if at_silence is not True:
            slope = 0.0 if at_silence is False else spread(xp.astype(at_silence, x.dtype))
            other = xp.where(x > 0, y, y * slope)
        return xp.where(x < 0, -y, other)

    plain = at_silence is True and adapter.are_within(x, 0, math.inf)  # no value is below 0
    absent = [i for i in axes if mask is None or mask.shape[i] != x.shape[i]]
    entries: Any = math.prod([x.shape[axis] for axis in absent])
    if mask is not None:
        entries = _total(adapter, xp.astype(mask, x.dtype), axes) * entries
    size = x
    if not plain:  # libraries differ in the derivative of `abs` at 0, if they differentiate it
        size = abs(x) if adapter.in_place(x) else times_sign(x)
    return _total(adapter, size, axes), entries, lambda cotangent: times_sign(spread(cotangent))


def _total(adapter: Adapter, x: Array, axes: tuple[int, ...]) -> Array:
    """Return the sum over some axes, or over all."""
    if len(axes) == x.ndim:
        return adapter.sum_all(x)
    for axis in reversed(axes):
        x = adapter.xp.sum(x, axis=axis)
    return x


def mean_magnitude(
    adapter: Adapter,
    x: Array,
    mask: Array | None = None,
    *,
    axes: tuple[int, ...],
    at_silence: Any = True,
    others: Sequence[Array] | None = None,
) -> ReadResult:
    """Read the mean of ``|x|``, the quotient of what `sum_magnitude` returns.

    With `others`, the sum and the number of entries elsewhere, the mean includes those too.
    """
    events, entries, to_x = sum_magnitude(adapter, x, mask, axes=axes, at_silence=at_silence)
    if others is not None:
        events, entries = events + others[0], others[1] + entries
    known = mask is None and others is None  # else there may be no entries
    number = entries if known else or_one(adapter, entries)
    reading = reading_of(adapter, events / number, None if known else entries > 0)
    return reading, lambda cotangent: to_x(cotangent / number)  # equal shares in the mean


def reading_of(adapter: Adapter, rate: Array, mask: Array | None) -> Reading:
    """Return rates as a reading; there may be one mask for all of them."""
    if mask is not None:
        mask = adapter.xp.broadcast_to(mask, rate.shape)
    return Reading(rate, adapter.axes[0], mask=mask)
