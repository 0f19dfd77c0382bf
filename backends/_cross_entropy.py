"""The cross entropy of logits, in array API operations.

The terms are ``log1p(rest) - (u_y - max(u))``, where the `rest` is the sum of the exponentials of
``u - max(u)``, minus 1. It is small, and exact, where the label is certain, and so are the terms.
With weights `q` of the classes the label is the class with the largest.
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
    highest = xp.max(logit, axis=axis, keepdims=True)  # against overflow; it cancels
    own = adapter.gather(logit, adapter.entries_at(logit, index, axis), axis) - highest
    weight = xp.exp(xp.where(label, -math.inf, logit - highest))
    others = adapter.sum(weight, axis, keepdims=True)
    rest = others + (xp.exp(own) - 1)
    if q is None:
        terms, whole = xp.log1p(rest) - own, 1.0
    else:
        whole = adapter.sum(q, axis, keepdims=True)
        # As a selection, which XLA adds up in a third of the time.
        product = xp.where(q == 0, 0.0, q * (highest - logit))
        terms = whole * xp.log1p(rest) + adapter.sum(product, axis, keepdims=True)

    def pullback(cotangent: Array) -> Array:
        scale = cotangent / (1 + rest)
        if q is None:
            return xp.where(label, -others * scale, weight * scale)
        # whole p - q; for the label (whole - q) p - q (1 - p), where `others` is 1 - p.
        of_label = ((whole - q) * xp.exp(own) - q * others) * scale
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
