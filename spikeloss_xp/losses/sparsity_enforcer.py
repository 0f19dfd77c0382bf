"""SparsityEnforcer: a layer should not fire more than it needs to, or fall silent."""

import functools
import operator
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import Any

from spikeloss_xp import _arrays, _checks, _dispatch, _masks, criteria, readouts
from spikeloss_xp._layout import Layout
from spikeloss_xp._typing import Array, Namespace, Pullback
from spikeloss_xp.losses import _reduction
from spikeloss_xp.losses._reduction import Terms

PER = ("array", "neuron")


@dataclass(frozen=True)
class SparsityEnforcer:
    r"""Squared distance of mean event rates from a range of rates.

    .. math::
        L = \lambda \sum_x \Bigl(
            \max(m_x - r_\text{max}, 0)^2 + \max(r_\text{min} - m_x, 0)^2 \Bigr),
        \qquad m_x = \operatorname{mean} |x|

    for arrays :math:`x`, usually one a layer. Called with an array it returns that array's term,
    and with a sequence or mapping of them the sum of theirs, and remembers nothing: the form for a
    function that is to be compiled. As layers of a network come by, `append` collects their terms,
    and `loss` is the sum.

    Parameters
    ----------
    max_rate : float, default 0.01
        The mean event rate :math:`r_\text{max}` above which an array is penalised, in events per
        time step; at least 0.
    lam : float, default 1.0
        The factor :math:`\lambda` of the loss; at least 0.
    min_rate : float, default 0
        The mean event rate :math:`r_\text{min}` below which it is penalised, in events per time
        step; from 0 to `max_rate`.
    per : {"array", "neuron"}, default "array"
        Whose rate is meant: that of the whole array, or that of each neuron, over batch and time.
        The term is then the mean over neurons, so that one that fires too much and one that never
        fires do not make up for each other.
    time_axis : int, default -1
        The axis of an array that is time. Of no effect with ``per="array"`` and no mask.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is outside its range or of the wrong kind.

    Notes
    -----
    The derivative of :math:`|x|` at silence is taken as 0 in the excess over `max_rate`, and as 1
    in what is lacking to `min_rate`: a neuron that never fires is pushed to.

    References
    ----------
    .. [1] The sparsity regularisation of lava-dl's SLAYER 2.0.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> sparsity = sx.SparsityEnforcer(max_rate=0.25)
    >>> sparsity.append(np.asarray([[1, 0, 1, 1]]))
    >>> sparsity.append(np.asarray([[0, 0, 1, 0]]))
    >>> float(sparsity.loss)
    0.25
    """

    max_rate: float = 0.01
    lam: float = 1.0
    _: KW_ONLY
    min_rate: float = 0.0
    per: str = "array"
    time_axis: int = -1
    _terms: list[Array] = field(default_factory=list, init=False, repr=False, compare=False)
    _cleared: list[Callable[[], Array]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        for name in ("max_rate", "lam", "min_rate"):
            value = _checks.not_negative(getattr(self, name), name)
            object.__setattr__(self, name, value)
        object.__setattr__(self, "time_axis", _checks.integer(self.time_axis, "time_axis"))
        _checks.one_of(PER, self.per, "per")
        if self.min_rate > self.max_rate:
            raise ValueError(
                f"min_rate must not be above max_rate; got {self.min_rate} and {self.max_rate}"
            )

    def __call__(self, input: Any, *, where: Any = None, lengths: Any = None) -> Array:
        """Return the term of one array, without collecting it, or the sum over several.

        Parameters
        ----------
        input : array, or sequence or mapping of arrays
            Events: spikes, or graded and signed values. Of any shape for the rate of the whole
            array; for that of each neuron, and with a mask, ``[batch, *space, time]`` with time
            where `time_axis` says.
        where : array or sequence of bool, optional
            What counts, as for the other losses, in each of the arrays.
        lengths : array or sequence of int, optional
            How many steps of each sample count: ``[batch]``.

        Returns
        -------
        array
            A scalar array on the library and device of `input`; 0 if nothing counts.

        Raises
        ------
        ValueError, TypeError
            If there is no array, or one without elements or, where the batch and time axes matter,
            with too few axes; if the shape, dtype, library or range of a mask is wrong.
        """
        several = input.values() if isinstance(input, Mapping) else input
        arrays = tuple(several) if isinstance(input, Mapping | list | tuple) else (input,)
        if not arrays:
            raise ValueError("input must be an array, or at least one of them; got none")
        terms = [self._evaluate(x, where=where, lengths=lengths)[0] for x in arrays]
        return functools.reduce(operator.add, terms)

    forward = __call__

    def _evaluate(
        self, input: Array, *, where: Any = None, lengths: Any = None
    ) -> tuple[Array, Pullback]:
        xp = _dispatch.namespace(input)
        if 0 in input.shape:
            raise ValueError(f"input has no elements: got shape {tuple(input.shape)}")
        events, to_input = _arrays.floating(xp, input)
        kept, pullbacks = None, [to_input]
        if where is not None or lengths is not None or self.per == "neuron":
            layout = Layout.of(input, self.time_axis, smallest_rank=2)
            events, kept, to_all = _masks.masked(xp, layout, events, where, lengths)
            events, kept, to_events = _masks.by_class(xp, layout, events, kept)
            pullbacks += [to_all, to_events]

        term, to_events = self._of_rates(xp, events, kept)
        return term, _reduction.reverse(*pullbacks, to_events)

    def _of_rates(self, xp: Namespace, events: Array, kept: Array | None) -> tuple[Array, Pullback]:
        """Return the term of events, and the pullback."""
        terms, pullbacks, read = [], [], None
        for distance, limit, rising in (
            (criteria.excess, self.max_rate, False),
            (criteria.shortfall, self.min_rate, True),
        ):
            if rising and not limit:
                continue  # nothing is below 0
            rate, to_events = readouts.mean_magnitude(
                xp, events, kept, per_neuron=self.per == "neuron", rising=rising
            )
            squares, to_rate = distance(xp, rate.u, limit)
            terms.append(squares)
            pullbacks.append(_reduction.reverse(to_events, to_rate))
            read = rate.kept
        total = functools.reduce(operator.add, terms)
        total, to_terms = _reduction.left_out(xp, total, read)

        def to_all(cotangent: Array) -> Array:
            each = to_terms(cotangent)
            return functools.reduce(operator.add, [step(each) for step in pullbacks])

        mean, back = _reduction.total(xp, "mean", Terms(total, read, None, to_all), 0)

        return self.lam * mean, lambda cotangent: back(self.lam * cotangent)

    def append(self, x: Array, *, where: Any = None, lengths: Any = None) -> None:
        """Collect the term of one array, or the sum over several."""
        self._terms.append(self(x, where=where, lengths=lengths))

    def clear(self) -> None:
        """Forget the terms collected, and with them their gradients' graphs."""
        if self._terms:
            self._cleared[:] = [_zero_like(self._terms[-1])]
        self._terms.clear()

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the hyper-parameters, and not the terms."""
        options = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        return functools.partial(type(self), **options), ()

    @property
    def loss(self) -> Any:
        """The sum of the terms collected: a scalar array.

        With none it is a zero: of the library, device and dtype of the terms that were cleared,
        and a Python float before the first `append`, when no library is known.
        """
        if self._terms:
            return functools.reduce(operator.add, self._terms, 0.0)
        return self._cleared[0]() if self._cleared else 0.0


def _zero_like(term: Array) -> Callable[[], Array]:
    """Return what makes zeros, new each time, and keeps nothing of the term."""
    xp = _dispatch.namespace(term)
    device = _dispatch.adapter(xp).device(term)
    return functools.partial(xp.zeros, (), dtype=term.dtype, device=device)
