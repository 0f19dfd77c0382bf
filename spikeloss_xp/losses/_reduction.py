"""From terms to a value: which of them count, and what their sum is divided by."""

import math

from spikeloss_xp import _arrays, _dispatch
from spikeloss_xp._typing import Array, Namespace, Pullback

REDUCTIONS = ("sum", "mean", "batchmean", "none")


def left_out(xp: Namespace, terms: Array, counted: Array | None) -> tuple[Array, Pullback]:
    """Return the terms, with 0 for those that do not count, and the pullback."""
    if counted is None:
        return terms, lambda cotangent: cotangent
    zero = _arrays.constant(xp, terms, 0.0)
    return xp.where(counted, terms, zero), lambda cotangent: xp.where(counted, cotangent, zero)


def total(
    xp: Namespace,
    how: str,
    terms: Array,
    counted: Array | None,
    amount: Array | None,
    batch_axis: int,
) -> tuple[Array, Pullback]:
    """Return the sum or a mean of the terms, and the pullback.

    `counted` and `amount` say which terms count, and what each was multiplied by; they broadcast
    against the terms, and None stands for all of them and for 1.
    """
    value = _dispatch.adapter(xp).total(xp, terms)
    if how == "sum":
        return value, lambda cotangent: xp.broadcast_to(cotangent, terms.shape)
    if how == "batchmean":
        number = _samples(xp, terms, counted, batch_axis)
    else:
        number = _amounts(xp, terms, counted, amount)
    # Every term counts the same in a sum, and so in a mean.
    return value / number, lambda cotangent: xp.broadcast_to(cotangent / number, terms.shape)


def _samples(xp: Namespace, terms: Array, counted: Array | None, batch_axis: int) -> Array | int:
    """Return how many samples have a term that counts, and 1 if none has."""
    if counted is None:
        return terms.shape[batch_axis]
    axes = tuple(axis for axis in range(counted.ndim) if axis != batch_axis)
    sample = xp.any(counted, axis=axes) if axes else counted
    return _arrays.or_one(xp, xp.sum(xp.astype(sample, terms.dtype)))


def _amounts(
    xp: Namespace, terms: Array, counted: Array | None, amount: Array | None
) -> Array | int:
    """Return the sum of the amounts that the terms that count were multiplied by."""
    if counted is None and amount is None:
        return math.prod(terms.shape)
    each = xp.astype(counted, terms.dtype) if amount is None else left_out(xp, amount, counted)[0]
    times = math.prod(terms.shape) // math.prod(each.shape)
    return _arrays.or_one(xp, _dispatch.adapter(xp).total(xp, each) * times)


def reverse(*pullbacks: Pullback) -> Pullback:
    """Return the pullback of steps from those of each, in the order in which they were taken."""

    def pullback(cotangent: Array) -> Array:
        for step_back in reversed(pullbacks):
            cotangent = step_back(cotangent)
        return cotangent

    return pullback
