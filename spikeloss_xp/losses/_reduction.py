"""From terms to a value: which of them count, and what their sum is divided by."""

import math
from typing import Any, NamedTuple

from spikeloss_xp import _arrays, _checks, _dispatch
from spikeloss_xp._typing import Array, Namespace, Pullback

REDUCTIONS = ("sum", "mean", "batchmean", "none")


class Terms(NamedTuple):
    """The terms of a loss, of a batch or a part of it.

    Attributes
    ----------
    terms : array
        What is to be summed.
    counted, amount : array or None
        Which terms count, and what each was multiplied by; they broadcast against the terms, and
        None stands for all of them and for 1.
    pullback : callable
        Takes the derivative of the loss with respect to the terms to that with respect to what
        they were computed from.
    """

    terms: Array
    counted: Array | None
    amount: Array | None
    pullback: Pullback


def left_out(xp: Namespace, terms: Array, counted: Array | None) -> tuple[Array, Pullback]:
    """Return the terms, with 0 for those that do not count, and the pullback."""
    if counted is None:
        return terms, lambda cotangent: cotangent
    zero = _arrays.constant(xp, terms, 0.0)
    return xp.where(counted, terms, zero), lambda cotangent: xp.where(counted, cotangent, zero)


def total(xp: Namespace, how: str, terms: Terms, batch_axis: int) -> tuple[Array, Pullback]:
    """Return the sum or a mean of terms, and the pullback.

    Every term counts the same in a sum, and so in a mean: what goes back to the terms is one
    number, with as many axes as they have.
    """
    value, to_sum = divided(xp, [summed(xp, how, terms, batch_axis)])
    axes = (1,) * terms.terms.ndim
    return value, lambda cotangent: terms.pullback(xp.reshape(to_sum(cotangent), axes))


def summed(
    xp: Namespace, how: str, part: Terms, batch_axis: int
) -> tuple[Array, Array | int | None]:
    """Return the sum of the terms of a part, and what it adds to the number to divide by."""
    value = _dispatch.adapter(xp).total(xp, part.terms)
    if how == "sum":
        return value, None
    if how == "batchmean":
        return value, _samples(xp, part, batch_axis)
    _checks.one_of(("mean",), how, "reduction")  # which a subclass may have forgotten to check
    return value, _amounts(xp, part)


def divided(xp: Namespace, sums: list[tuple[Array, Array | int | None]]) -> tuple[Array, Pullback]:
    """Return the sum or mean over the parts, and the pullback to each of their sums."""
    values, numbers = zip(*sums, strict=True)
    value, number = _sum(xp, values), _sum(xp, numbers)
    if number is None:
        return value, lambda cotangent: cotangent
    if not isinstance(number, int):
        number = _arrays.or_one(xp, number)
    return value / number, lambda cotangent: cotangent / number


def _sum(xp: Namespace, numbers: tuple[Any, ...]) -> Any:
    """Return the sum of what parts of a batch came to: integers, arrays, or None."""
    if len(numbers) == 1 or numbers[0] is None:
        return numbers[0]
    if isinstance(numbers[0], int):
        return sum(numbers)
    return _dispatch.adapter(xp).total(xp, xp.stack(numbers))


def _samples(xp: Namespace, part: Terms, batch_axis: int) -> Array | int:
    """Return how many samples have a term that counts."""
    if part.counted is None:
        return part.terms.shape[batch_axis]
    axes = tuple(axis for axis in range(part.counted.ndim) if axis != batch_axis)
    sample = xp.any(part.counted, axis=axes) if axes else part.counted
    return xp.sum(xp.astype(sample, part.terms.dtype))


def _amounts(xp: Namespace, part: Terms) -> Array | int:
    """Return the sum of the amounts that the terms that count were multiplied by."""
    terms, counted, amount, _ = part
    if counted is None and amount is None:
        return math.prod(terms.shape)
    each = xp.astype(counted, terms.dtype) if amount is None else left_out(xp, amount, counted)[0]
    times = math.prod(terms.shape) // math.prod(each.shape)
    return _dispatch.adapter(xp).total(xp, each) * times


def reverse(*pullbacks: Pullback) -> Pullback:
    """Return the pullback of steps from those of each, in the order in which they were taken."""

    def pullback(cotangent: Array) -> Array:
        for step_back in reversed(pullbacks):
            cotangent = step_back(cotangent)
        return cotangent

    return pullback
