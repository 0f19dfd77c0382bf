"""SparsityEnforcer: a penalty for layers whose mean event rate is outside a given range."""

import functools
import operator
import warnings
from dataclasses import KW_ONLY, dataclass
from typing import Any, Never, get_args

from spikeloss_xp import _checks, criteria
from spikeloss_xp._arrays import adapter_of, floating, on_device_of
from spikeloss_xp._input.labels import Filled, Labels
from spikeloss_xp._input.prepared import (
    Reading,
    Trains,
    check_number,
    prepare_input,
    without_samples,
)
from spikeloss_xp._typing import (
    Array,
    ArrayLike,
    ArrayT,
    Events,
    Per,
    PerClass,
    Power,
    Pullback,
    Total,
    ValueAndPullback,
)
from spikeloss_xp.losses.base import Loss, unknown_argument
from spikeloss_xp.losses.event_rates import (
    arrays_of_one_library,
    mean_magnitude,
    sum_magnitude,
    sums_elsewhere,
)
from spikeloss_xp.readouts import ReadResult


@dataclass(frozen=True)
class SparsityEnforcer(Loss):
    r"""Squared distance between the mean event rate of each layer and an allowed range.

    .. math::
        L = \lambda \sum_x \Bigl(
            \max(m_x - r_\text{max}, 0)^2 + \max(r_\text{min} - m_x, 0)^2 \Bigr),
        \qquad m_x = \operatorname{mean} |x|

    The sum runs over arrays :math:`x`, usually one array for each layer of a network. :math:`m_x`
    is the mean event rate of an array, in events per neuron and time step. If you call the loss
    with a single array, it returns the penalty for this array. If you call the loss with a sequence
    or mapping of arrays, it returns the sum of the penalties for all arrays. Sequences and mappings
    may be nested.

    Parameters
    ----------
    max_rate : float or sequence of float, default 0.01
        The mean event rate :math:`r_\text{max}` above which an array is penalised, in events per
        neuron and time step (at least 0). With ``per="neuron"`` or ``"sample_neuron"``, you may
        pass a sequence or array with one rate for each neuron. If there is one rate for each
        neuron, all arrays must have the same number of neurons.
    time_axis : int, optional
        The time axis of each array. With ``per="all"`` and without a mask, the arrays may have any
        shape, and `time_axis` may be omitted. In all other cases, `time_axis` is required.
    rate_weight : float, default 1.0
        The factor :math:`\lambda` by which the penalty is multiplied (at least 0).
    min_rate : float or sequence of float, default 0
        The mean event rate :math:`r_\text{min}` below which an array is penalised, in events per
        neuron and time step (from 0 to `max_rate`). Like `max_rate`, `min_rate` may be a sequence
        with one rate for each neuron.
    power : {2, 1}, default 2
        The power to which the distance between a rate and the allowed range is raised. With
        ``max_rate=0`` and ``power=1``, the loss is the mean of :math:`|x|` times `rate_weight`.
    per : {"all", "neuron", "sample", "sample_neuron"}, default "all"
        Determines which mean rates are computed from an array. Each mean rate has its own penalty:

        - ``"all"``: the mean over the whole array;
        - ``"neuron"``: the mean of each neuron over batch and time. With this option, silent
          neurons cannot compensate for neurons that fire too often;
        - ``"sample"``: the mean of each sample over neurons and time;
        - ``"sample_neuron"``: the mean over time for each neuron of each sample, as for the upper
          bound in [2]_.
    reduction : {"mean", "sum"}, default "mean"
        How the penalties for the mean rates of one array are combined: ``"mean"`` takes the mean
        over neurons or samples, and ``"sum"`` takes the sum. The results for several arrays are
        always summed.

    Raises
    ------
    ValueError, TypeError
        If an option is out of range or has the wrong type.

    Warns
    -----
    UserWarning
        If `max_rate` is above 1. Binary spikes never have a rate above 1, so they would not be
        penalised.

    Notes
    -----
    The gradient reaches the membrane potentials through the surrogate gradient of the neurons. If a
    rate is too high, training lowers the potentials that cause spikes. Training also lowers
    potentials just below the threshold, because this loss defines the derivative of :math:`|x|` at
    :math:`x = 0` as 1. In lava-dl [1]_, the derivative at :math:`x = 0` is 0 if the rate is above
    `max_rate`. For graded or signed events, use `spikeloss_xp.slayer.published.SparsityEnforcer`,
    which defines the derivative in the same way as lava-dl.

    With ``per="all"`` or ``"neuron"``, the penalty depends on a mean over the whole batch. The
    penalties for micro-batches therefore cannot be added up. Instead, call `events_and_entries` for
    each micro-batch, and add up the results of these calls. With ``per="sample"`` or
    ``"sample_neuron"``, each sample has its own penalty, so you can add up the results of
    `sum_and_weight` for the micro-batches.

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
    >>> float(sx.SparsityEnforcer(0.25, time_axis=-1)(layers))
    0.25
    """

    max_rate: PerClass = _checks.option(0.01, _checks.one_or_more(_checks.not_negative))
    _: KW_ONLY
    time_axis: int | None = _checks.option(None, _checks.optional(_checks.integer))  # type: ignore[assignment]
    rate_weight: float = _checks.option(1.0, _checks.not_negative)
    min_rate: PerClass = _checks.option(0.0, _checks.one_or_more(_checks.not_negative))
    power: Power = _checks.option(2, _checks.one_or_two)
    per: Per = _checks.option("all", _checks.one_of(get_args(Per)))
    reduction: Total = _checks.option("mean", _checks.one_of(get_args(Total)))

    def __post_init__(self) -> None:
        super().__post_init__()
        if tuple in map(type, (self.min_rate, self.max_rate)) and not self.per.endswith("neuron"):
            raise ValueError(
                "max_rate and min_rate can hold a number for each neuron only with per='neuron' or "
                f"'sample_neuron'; got per={self.per!r}"
            )
        pairs = list(_checks.each_class(self.min_rate, self.max_rate))
        for neuron, (low, high) in enumerate(pairs):
            if low > high * (1 + 2**-23):  # `low` or `high` may have been rounded to float32
                of = f" for neuron {neuron}" if len(pairs) > 1 else ""
                raise ValueError(f"min_rate must be at most max_rate, {high:g}{of}; got {low:g}")
        if self.per != "all":
            self._known_time_axis(f"per={self.per!r}")
        highest = max(high for _, high in pairs)
        if highest > 1:
            self._warn_of_unit(highest)

    def _known_time_axis(self, reason: str) -> int:
        """Return the time axis.

        If the time axis is unknown, raise an error whose message contains `reason`.
        """
        if self.time_axis is None:
            raise TypeError(
                f"SparsityEnforcer needs the time axis of the arrays for {reason}: write "
                "time_axis=0 for [time, batch, neuron], or time_axis=-1 for [batch, neuron, time]"
            )
        return self.time_axis

    def _warn_of_unit(self, highest: float) -> None:
        """Warn that binary spikes never reach the rate `highest`, which is above 1."""
        warnings.warn(
            f"max_rate={highest:g} is above 1, but rates are in events per neuron and time step. "
            "Multiply a rate in Hz by the time step in seconds. For graded events, use "
            "spikeloss_xp.slayer.published.SparsityEnforcer.",
            stacklevel=4,
        )

    @on_device_of("input")
    def __call__(
        self,
        input: Events[ArrayT],
        *target: Never,
        where: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        others: tuple[ArrayLike, ArrayLike] | None = None,
        **unknown: Never,
    ) -> ArrayT:
        """Return the penalty for one array, or the sum of the penalties for several arrays.

        Parameters
        ----------
        input : array, or sequence or mapping of arrays
            The events of each layer, which are spikes, graded values or signed values. Sequences
            and mappings may be nested. With ``per="all"`` and without a mask, an array may have any
            shape. In all other cases, the shape is ``[batch, *space, time]``, with the time axis at
            `time_axis`.
        where : array or sequence of bool, optional
            The mask, which is True for entries to keep. The same mask is applied to every array in
            `input`.
        lengths : array or sequence of int, optional
            The length of each sample in time steps, of shape ``[batch]``. All steps after this
            length are masked.
        others : tuple of array, optional
            The number of events and the number of entries in the rest of the batch. To get these
            two numbers, call `events_and_entries` for each other micro-batch, process or device,
            and add up the results. With `others`, the call returns the loss for the whole batch,
            which is differentiable with respect to `input`. If you pass `others`, `input` must be a
            single array.

        Returns
        -------
        array
            A scalar array from the same library and on the same device as `input`. The result is 0
            if everything is masked.

        Raises
        ------
        ValueError, TypeError
            If `input` contains no array, if an array has no elements, or if an array lacks a
            required axis. These errors are also raised if a mask or `others` is invalid.
        """
        if target:
            raise TypeError("SparsityEnforcer has no target: pass several arrays as a list, [x, y]")
        if unknown:
            raise unknown_argument(self, ("where", "lengths", "others"), unknown)
        adapter, arrays = arrays_of_one_library(input)
        masks: dict[str, Any] = {"where": where, "lengths": lengths}
        value: ArrayT
        if others is None:
            terms = [adapter.evaluate(self, x, masks) for x in arrays]
            value = functools.reduce(operator.add, terms)
            return value
        if len(arrays) > 1:
            raise ValueError(
                "others needs a single array: call the loss once for each array, and add up the "
                "values"
            )
        value = self.value(arrays[0], **masks, others=others)
        return value

    def value(
        self, input: ArrayT, *, where: Any = None, lengths: Any = None, others: Any = None
    ) -> ArrayT:
        """Return the penalty for one array, using operations that the library can differentiate."""
        masks = {"where": where, "lengths": lengths}
        value: ArrayT = self._compute(input, others, masks, with_pullback=False)[0]
        return value

    def value_and_pullback(
        self, input: ArrayT, *, where: Any = None, lengths: Any = None, others: Any = None
    ) -> tuple[ArrayT, Pullback]:
        """Return the penalty for one array and its pullback to `input`, computed in closed form."""
        masks = {"where": where, "lengths": lengths}
        return self._compute(input, others, masks, with_pullback=True)

    @on_device_of("input")
    def sum_and_weight(
        self, input: ArrayT, *, where: Any = None, lengths: Any = None
    ) -> tuple[ArrayT, ArrayT]:
        """Return the sum of the penalties of all samples, and the divisor for the mean penalty.

        This method requires ``per="sample"`` or ``"sample_neuron"``. If the batch is split into
        parts, call this method for each part. Add up the sums of all parts, and add up the weights
        (the divisors) of all parts. With ``reduction="mean"``, the loss of the whole batch is the
        total sum divided by the total weight, or 0 if the total weight is 0. With
        ``reduction="sum"``, the loss of the whole batch is the total sum.

        Parameters
        ----------
        input : array
            Events, in the same form as for a call to the loss.
        where, lengths : array or sequence, optional
            The mask, in the same form as for a call to the loss.

        Returns
        -------
        tuple of array
            Two scalar arrays with the same dtype. The sum can be differentiated.

        Raises
        ------
        ValueError
            If `per` is ``"all"`` or ``"neuron"``. For these options, use `events_and_entries`.
        """
        self._check_samples("sum_and_weight")
        masks = {"where": where, "lengths": lengths}
        return self._sum_of_part(input, None, 0, masks, with_pullback=False)[:2]

    @on_device_of("input")
    def sum_weight_and_pullback(
        self, input: ArrayT, *, where: Any = None, lengths: Any = None
    ) -> tuple[ArrayT, ArrayT, Pullback]:
        """Return the results of `sum_and_weight` for one array, and the pullback of the sum."""
        self._check_samples("sum_weight_and_pullback")
        masks = {"where": where, "lengths": lengths}
        return self._sum_of_part(input, None, 0, masks, with_pullback=True)

    @on_device_of("input")
    def events_and_entries(
        self, input: ArrayT, *, where: ArrayLike | None = None, lengths: ArrayLike | None = None
    ) -> tuple[ArrayT, ArrayT]:
        """Return the sum of ``|x|``, and the number of unmasked entries in the sum.

        The quotient of the two results is the mean event rate. If the batch is split into parts,
        you can add up the results for several parts. To compute the loss of the whole batch from
        one part, call the loss with this part, and pass the totals for all other parts as `others`.

        Parameters
        ----------
        input : array
            Events, in the same form as for a call to the loss.
        where, lengths : array or sequence, optional
            The mask, in the same form as for a call to the loss.

        Returns
        -------
        tuple of array
            Two scalar arrays with the same dtype. With ``per="neuron"``, each array has shape
            ``[neuron]``. With ``per="sample"`` or ``"sample_neuron"``, the results cannot be passed
            as `others`, so use `sum_and_weight` instead. Do not differentiate the results of
            `events_and_entries`, because the derivative of ``|x|`` at ``x = 0`` may depend on the
            rate of the whole batch. Instead, call the loss with `others`, and differentiate its
            result.

        Examples
        --------
        In this example, the gradient for the first sample is computed with `others`. The result is
        equal to the gradient for this sample in the whole batch:

        >>> import numpy as np
        >>> import spikeloss_xp as sx
        >>> sparsity = sx.SparsityEnforcer(0.25, time_axis=-1)
        >>> first, second = np.asarray([[1, 1, 1, 0]]), np.asarray([[0, 1, 0, 0]])
        >>> others = sparsity.events_and_entries(second)
        >>> value, gradient = sx.value_and_grad(sparsity)(first, others=others)
        >>> whole, whole_gradient = sx.value_and_grad(sparsity)(np.concat([first, second]))
        >>> float(value), float(whole), bool((gradient == whole_gradient[:1]).all())
        (0.0625, 0.0625, True)
        """
        prepared = self._prepare_input(input, where, lengths)
        axes = self._averaged_axes(prepared)
        arrays = prepared.adapter, prepared.values, prepared.mask
        events, entries, _ = sum_magnitude(*arrays, axes=axes)
        # Adding zeros gives `entries` the same shape as `events`.
        return events, prepared.adapter.xp.zeros_like(events) + entries

    def _check_samples(self, method: str) -> None:
        if not self.per.startswith("sample"):
            raise ValueError(
                f"{method} needs per='sample' or 'sample_neuron'; got per={self.per!r}: use "
                "events_and_entries"
            )

    # Methods that all losses define ---------------------------------------------------------------

    def _prepare_input(self, input: Array, where: Any, lengths: Any, context: int = 0) -> Trains:
        adapter = adapter_of(input).specialized_for(input)
        if 0 in input.shape and self.time_axis is not None:
            return without_samples(input, self.time_axis, None)
        if where is None and None in input.shape:  # the number of entries is unknown until run time
            where = adapter.xp.ones_like(input, dtype=adapter.xp.bool)
        if where is None and lengths is None and self.per == "all":
            values = floating(adapter, input)  # the input may have any shape
            return Trains(adapter, values, None, None, input.dtype)
        time_axis = self._known_time_axis("where and lengths")
        prepared = prepare_input(input, where, lengths, time_axis, smallest_rank=2)
        for name in ("max_rate", "min_rate"):
            check_number(prepared, getattr(self, name), name, "neuron")
        prepared.mark_invalid()
        # `mark_invalid` has set the values of samples with an invalid length to NaN.
        prepared.invalid = None
        prepared.values = prepared.filled().values
        return prepared

    def _labels(self, prepared: Trains, target: Any) -> Labels:
        if target is None and 0 in prepared.values.shape:
            raise ValueError(f"input has no elements: got shape {tuple(prepared.values.shape)}")
        if target is None:
            return Labels()
        return Filled(numbers=sums_elsewhere(prepared, target, self.per))

    def _chunk_axes(self, prepared: Trains) -> None:
        return None

    def _averaged_axes(self, prepared: Trains) -> tuple[int, ...]:
        """Return the axes over which the option `per` averages event rates."""
        layout, axes = prepared.layout, set(range(prepared.values.ndim))
        if self.per != "all":
            kept = {"sample": layout.batch_axis, "neuron": layout.class_axis}
            axes -= {kept[name] for name in self.per.split("_")}
        return tuple(sorted(axes))

    def _read(self, trains: Trains, labels: Labels) -> ReadResult:
        adapter, axes = trains.adapter, self._averaged_axes(trains)
        return mean_magnitude(adapter, trains.values, trains.mask, axes=axes, others=labels.numbers)

    def criterion(self, reading: Reading, labels: Labels) -> ValueAndPullback:
        """Return the penalties for rates outside the allowed range, multiplied by `rate_weight`."""
        limits = reading.per_class(self.min_rate), reading.per_class(self.max_rate)
        terms, to_rate = criteria.outside_range(reading.adapter, reading.u, *limits, self.power)
        if self.rate_weight == 1:
            return terms, to_rate
        return self.rate_weight * terms, lambda cotangent: to_rate(self.rate_weight * cotangent)
