"""SparsityEnforcer: a layer should not fire more than it needs to."""

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from spikeloss_xp import _arrays, _checks, _dispatch, criteria, readouts
from spikeloss_xp._typing import Array, Pullback


@dataclass(frozen=True)
class SparsityEnforcer:
    r"""Squared excess of the mean event rate of arrays over a limit.

    .. math:: L = \lambda \sum_x \max(\operatorname{mean} |x| - r_\text{max}, 0)^2

    Called with an array it returns that array's term, and remembers nothing. As layers of a
    network come by, `append` collects their terms, and `loss` is the sum.

    Parameters
    ----------
    max_rate : float, default 0.01
        The mean event rate :math:`r_\text{max}` above which an array is penalised, in events per
        time step; at least 0.
    lam : float, default 1.0
        The factor :math:`\lambda` of the loss; at least 0.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is outside its range or of the wrong kind.

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
    _terms: list[Array] = field(default_factory=list, init=False, repr=False, compare=False)
    _cleared: list[Callable[[], Array]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        for name in ("max_rate", "lam"):
            value = _checks.not_negative(getattr(self, name), name)
            object.__setattr__(self, name, value)

    def __call__(self, input: Array) -> Array:
        """Return the term of one array, of any shape, without collecting it.

        Parameters
        ----------
        input : array
            Events: spikes, or graded and signed values.

        Returns
        -------
        array
            A scalar array on the library and device of `input`.
        """
        value, _ = self._evaluate(input)
        return value

    forward = __call__

    def _evaluate(self, input: Array) -> tuple[Array, Pullback]:
        xp = _dispatch.namespace(input)
        if 0 in input.shape:
            raise ValueError(f"input has no elements: got shape {tuple(input.shape)}")
        events, to_input = _arrays.floating(xp, input)

        rate, to_events = readouts.mean_magnitude(xp, events)
        term, to_rate = criteria.excess(xp, rate, self.max_rate)
        return self.lam * term, lambda cotangent: to_input(to_events(to_rate(self.lam * cotangent)))

    def append(self, x: Array) -> None:
        """Collect the term of one array."""
        self._terms.append(self(x))

    def clear(self) -> None:
        """Forget the terms collected, and with them their gradients' graphs."""
        if self._terms:
            self._cleared[:] = [_zero_like(self._terms[-1])]
        self._terms.clear()

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the hyper-parameters, and not the terms."""
        return type(self), (self.max_rate, self.lam)

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
