"""The cross entropy of logits, in array API operations.

With ``others``, the sum of the exponentials of ``u - max(u)`` beside that of the label, the term is
``log1p(others / exp(u_y - max(u)))``. It keeps the digits of a certain label, and so does its
derivative, in which the maximum is a constant. A hopeless label has ``log(sum) - (u_y - max(u))``.
With weights `q` of the classes the label is the class with the largest, and the term is
``sum(q)`` times that of the label, and ``sum(q_c (u_y - u_c))``.
"""

import math
from typing import TYPE_CHECKING

from spikeloss_xp._typing import Array, ValueAndPullback
from spikeloss_xp.backends import chunks

if TYPE_CHECKING:
    from spikeloss_xp.backends.base import ArrayAPIAdapter


def by_selection(
    adapter: "ArrayAPIAdapter", logit: Array, index: Array, axis: int, q: Array | None
) -> ValueAndPullback:
    """Return the terms and their pullback, for libraries that may differentiate them."""
    xp = adapter.xp
    label = index == adapter.along(axis, logit)
    highest = adapter.constant_of(xp.max(logit, axis=axis, keepdims=True))  # it cancels
    own = adapter.gather(logit, adapter.entries_at(logit, index, axis), axis)
    lack = own - highest
    weight = xp.exp(xp.where(label, -math.inf, logit - highest))
    others = adapter.sum(weight, axis, keepdims=True)
    # The quotient keeps the digits of the derivative too; that of a hopeless label overflows.
    hopeless = lack < -60
    odds = others * xp.exp(-xp.where(hopeless, 0.0, lack))
    terms = xp.where(hopeless, xp.log(others + xp.exp(lack)) - lack, xp.log1p(odds))
    rest, whole = others + (xp.exp(lack) - 1), 1.0
    if q is not None:
        whole = adapter.sum(q, axis, keepdims=True)
        # As a selection, which XLA adds up in a third of the time.
        product = xp.where(q == 0, 0.0, q * (own - logit))
        terms = whole * terms + adapter.sum(product, axis, keepdims=True)

    def pullback(cotangent: Array) -> Array:
        scale = cotangent / (1 + rest)
        if q is None:
            return xp.where(label, -others * scale, weight * scale)
        # whole p - q; for the label (whole - q) p - q (1 - p), where `others` is 1 - p.
        of_label = ((whole - q) * xp.exp(lack) - q * others) * scale
        return xp.where(label, of_label, weight * (whole * scale) - q * cotangent)

    return terms, pullback


def in_place(
    adapter: "ArrayAPIAdapter", logit: Array, index: Array, axis: int, q: Array | None
) -> ValueAndPullback:
    """Return the same, in one array of the size of the logits, which the pullback hands over."""
    xp = adapter.xp
    weight = logit - xp.max(logit, axis=axis, keepdims=True)
    label = adapter.entries_at(weight, index, axis)
    own = adapter.gather(weight, label, axis)
    product = None if q is None else xp.sum(weight * q, axis=axis, keepdims=True)
    xp.exp(weight, out=weight)
    adapter.scatter(weight, label, 0.0, axis)
    others = adapter.sum(weight, axis, keepdims=True)
    rest = xp.expm1(own)
    rest += others
    terms, whole = xp.log1p(rest), 1.0
    if q is None:
        terms -= own
    else:
        whole = adapter.sum(q, axis, keepdims=True)
        terms = whole * terms - product

    def derivative(cotangent: Array) -> Array:
        nonlocal weight
        scale = cotangent / (1 + rest)
        if q is None:
            weight *= scale
            of_label = -others * scale
        else:
            q_of_label = adapter.gather(xp.broadcast_to(q, weight.shape), label, axis)
            weight *= whole * scale
            weight -= q * cotangent
            of_label = ((whole - q_of_label) * xp.exp(own) - q_of_label * others) * scale
        adapter.scatter(weight, label, of_label, axis)
        return weight

    return terms, chunks.once(derivative)
