"""SparsityEnforcer: penalise a layer whose mean event rate is outside a range."""

import functools
import math
import operator
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, get_args

from spikeloss_xp import _checks, criteria, readouts
from spikeloss_xp._arrays import adapter_of, asarray_like, check_shape, floating, or_one
from spikeloss_xp._input.layout import CLASS
from spikeloss_xp._input.prepared import PreparedInput, fill_masked, prepare_input
from spikeloss_xp._typing import Array, ArrayLike, ArrayT, Events, Per, Pullback, ValueAndPullback
from spikeloss_xp.gradients import ClosedForm


@dataclass(frozen=True)
class SparsityEnforcer(ClosedForm):
    r"""Squared distance of mean event rates from a range of rates.

    .. math::
        L = \lambda \sum_x \Bigl(
            \max(m_x - r_\text{max}, 0)^2 + \max(r_\text{min} - m_x, 0)^2 \Bigr),
        \qquad m_x = \operatorname{mean} |x|

    The sum is over arrays :math:`x`, usually one for each layer. A call with an array returns its
    term. A call with a sequence or mapping of arrays returns the sum of their terms.

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
    per : {"array", "neuron"}, default "array"
        Compare the mean event rate of the whole array, or that of each neuron over batch and time.
        With ``"neuron"`` the term of an array is the mean over its neurons, so a silent neuron does
        not cancel one that fires too much.
    time_axis : int, default -1
        The axis of an array that is time. With ``per="array"`` and no mask it has no effect.

    Raises
    ------
    ValueError, TypeError
        If an option is outside its range or of the wrong type.

    Notes
    -----
    At :math:`x = 0` the derivative of :math:`|x|` is 0 in the excess over `max_rate`, and 1 in the
    shortfall from `min_rate`. So the gradient of a silent neuron is negative.

    The term squares a mean over the batch, so the terms of micro-batches do not add up.
    `events_and_entries` returns two sums that do.

    References
    ----------
    .. [1] The sparsity regularisation of lava-dl's SLAYER 2.0.

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
    per: Per = "array"
    time_axis: int = -1

    def __post_init__(self) -> None:
        checks: dict[str, Any] = dict.fromkeys(
            ("max_rate", "lam", "min_rate"), _checks.not_negative
        )
        checks |= {"time_axis": _checks.integer, "per": _checks.one_of(get_args(Per))}
        _checks.check_fields(self, **checks)
        if self.min_rate > self.max_rate:
            raise ValueError(
                f"min_rate must not be above max_rate; got {self.min_rate} and {self.max_rate}"
            )

    def __call__(
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
            Events: spikes, or graded and signed values. With ``per="array"`` and no mask, of any
            shape; else ``[batch, *space, time]``, with the time axis at `time_axis`.
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
        events: Any = input
        if not isinstance(input, Mapping | list | tuple):
            term: ArrayT = self.value(events, where=where, lengths=lengths, others=others)
            return term
        arrays = tuple(events.values() if isinstance(events, Mapping) else events)
        if not arrays:
            raise ValueError("input must be an array, or at least one of them; got none")
        if others is not None:
            raise ValueError("others belong to one array: call the loss once for each, and add up")
        terms: list[Any] = [self.value(x, where=where, lengths=lengths) for x in arrays]
        total: ArrayT = functools.reduce(operator.add, terms)
        return total

    def forward(self, input: Events[ArrayT], **options: Any) -> ArrayT:
        """Return the value of the loss: the same as calling it."""
        return self(input, **options)

    def value(self, input: ArrayT, **options: Any) -> ArrayT:
        """Return the term of one array, with operations that the library can differentiate."""
        return self.value_and_pullback(input, **options)[0]

    def value_and_pullback(
        self, input: ArrayT, *, where: Any = None, lengths: Any = None, others: Any = None
    ) -> tuple[ArrayT, Pullback]:
        """Return the term of one array, and the pullback from it to `input`, in closed form."""
        prepared = self._prepare(input, where, lengths)
        term, to_values = self._term(prepared, others)
        return term, lambda cotangent: prepared.gradient(to_values(cotangent))

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
        prepared = self._prepare(input, where, lengths)
        arrays = prepared.adapter, prepared.values, prepared.mask
        per_neuron = self.per == "neuron"
        events, entries, _ = readouts.sum_magnitude(*arrays, per_neuron=per_neuron, rising=False)
        # A mask may be one for all neurons, or there is none.
        return events, prepared.adapter.xp.zeros_like(events) + entries

    def _prepare(self, input: Array, where: Any, lengths: Any) -> PreparedInput:
        adapter = adapter_of(input)
        adapter.check_dense(input, "input")
        if 0 in input.shape:
            raise ValueError(f"input has no elements: got shape {tuple(input.shape)}")
        if where is None and lengths is None and self.per == "array":  # of any shape
            values = floating(adapter, input)
            return PreparedInput(adapter, values, None, None, False, input.dtype)
        return prepare_input(input, where, lengths, time_axis=self.time_axis, smallest_rank=2)

    def _term(self, prepared: PreparedInput, others: Any) -> ValueAndPullback:
        """Return the term of prepared events, and its pullback."""
        adapter, per_neuron = prepared.adapter, self.per == "neuron"
        if others is not None:
            others = _sums_elsewhere(prepared, others, per_neuron)
        arrays = adapter, prepared.values, prepared.mask
        squares, pullbacks, read = [], [], None
        for distance, limit, rising in (
            (criteria.excess, self.max_rate, False),
            (criteria.shortfall, self.min_rate, True),
        ):
            if rising and not limit:
                continue  # no rate is below 0
            rate, to_x = readouts.mean_magnitude(
                *arrays, per_neuron=per_neuron, rising=rising, others=others
            )
            square, to_rate = distance(adapter, rate.u, limit)
            squares.append(square)
            pullbacks.append((to_rate, to_x))
            read = rate.mask
        terms = functools.reduce(operator.add, squares)
        number: Any = math.prod(terms.shape)
        if read is not None:  # one for each neuron, or one for all
            terms = fill_masked(adapter, terms, read)
            counted = adapter.xp.broadcast_to(read, terms.shape)
            number = or_one(adapter, adapter.sum_all(adapter.xp.astype(counted, terms.dtype)))
        factor = self.lam / number

        def pullback(cotangent: Array) -> Array:
            cotangent = adapter.xp.reshape(cotangent * factor, (1,) * terms.ndim)
            if read is not None:
                cotangent = fill_masked(adapter, cotangent, read)
            return functools.reduce(
                operator.add, [to_x(to_rate(cotangent)) for to_rate, to_x in pullbacks]
            )

        return adapter.sum_all(terms) * factor, pullback


def _sums_elsewhere(prepared: PreparedInput, others: Any, per_neuron: bool) -> list[Array]:
    """Return the events and entries of the rest of a batch, in the dtype to compute in."""
    if len(others) != 2:
        raise ValueError(f"others must be a pair, events and entries; got {len(others)}")
    values, sums = prepared.values, []
    shape: tuple[int, ...] = (values.shape[CLASS],) if per_neuron else ()
    expected = {"[neuron]" if per_neuron else "a scalar": shape}
    for name, given in zip(("events", "entries"), others, strict=True):
        total = asarray_like(prepared.adapter, values, given, "others")
        check_shape(total, "others", name, expected)
        sums.append(prepared.adapter.xp.astype(total, values.dtype, copy=False))
    return sums
