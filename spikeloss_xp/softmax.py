"""The cross entropy of a softmax, for labels that are class indices or class probabilities."""

import math
from typing import Any

from spikeloss_xp._arrays import Adapter
from spikeloss_xp._typing import Array, ValueAndPullback
from spikeloss_xp.backends._axis import Axis
from spikeloss_xp.primitives import single_use

# Odds between these limits neither overflow nor underflow in float32, and neither do their
# derivatives.
ODDS = 1e-30, 1e30
FINITE = -1e38  # a logit of at least this number is not minus infinity


def cross_entropy_of_logits(
    classes: Axis, logit: Array, index: Array, class_mask: Array | None = None, /
) -> ValueAndPullback:
    """Return ``log(sum(exp(u))) - u_y``, where ``y`` is the class index of the label.

    The term is computed as ``log1p(odds)``, where ``odds`` is the sum of ``exp(u_c - u_y)`` over
    all classes except the label. The term and its derivative are precise even if the probability of
    the label is close to 1. If the odds could overflow, the term is computed from ``u - max(u)``
    instead.
    """
    adapter: Adapter = classes.adapter
    if class_mask is not None:
        logit = _without_masked(adapter, logit, class_mask)
    if not adapter.in_place(logit):
        return adapter.cross_entropy(_by_selection, classes, logit, index, None)
    # Checking whether the odds overflow would require a transfer from the device.
    if not adapter.on_host:
        return adapter.cross_entropy(_of_highest, classes, logit, index, None)
    label = classes.entries_at(logit, index)
    each = adapter.exp_of_difference(logit, classes.gather(logit, label))
    classes.scatter(each, label, 0.0)
    odds = classes.sum(each)
    if not adapter.are_within(odds, *ODDS):  # odds of 0 can mean that a logit is infinite
        return _of_highest(classes, logit, index)

    def pullback(cotangent: Array) -> Array:
        nonlocal each
        classes.scatter(each, label, -odds)
        each *= cotangent / (odds + 1)
        return each

    return adapter.xp.log1p(odds), single_use(pullback)


def _of_highest(classes: Axis, logit: Array, index: Array, q: None = None) -> ValueAndPullback:
    """Return the terms of `cross_entropy_of_logits`, computed from ``u - max(u)``.

    The differences ``u - max(u)`` are at most 0, so their exponentials cannot overflow.
    """
    xp, label = classes.adapter.xp, classes.entries_at(logit, index)
    each = logit - classes.max(logit)
    own = classes.gather(each, label)
    xp.exp(each, out=each)
    classes.scatter(each, label, 0.0)
    others = classes.sum(each)
    excess = xp.expm1(own) + others  # the sum of all exponentials, minus 1

    def pullback(cotangent: Array) -> Array:
        nonlocal each
        classes.scatter(each, label, -others)
        each *= cotangent / (excess + 1)
        return each

    return xp.log1p(excess) - own, single_use(pullback)


def cross_entropy_of_probabilities(
    classes: Axis, logit: Array, q: Array, class_mask: Array | None = None, /
) -> ValueAndPullback:
    """Return ``sum(q_c (log(sum(exp(u))) - u_c))`` for class probabilities `q`.

    The probabilities of masked classes must be 0.

    The first class with the largest `q` is treated as the label. If `q` is one-hot, the term is
    therefore precise even if the predicted probability of the label is close to 1.
    """
    adapter: Adapter = classes.adapter
    xp = adapter.xp
    if class_mask is not None:
        logit = _without_masked(adapter, logit, class_mask)
    index = classes.argmax(q)
    if not (adapter.in_place(logit) and adapter.in_place(q)):
        return adapter.cross_entropy(_by_selection, classes, logit, index, q)
    label = classes.entries_at(logit, index)
    each = logit - classes.max(logit)
    own = classes.gather(each, label)
    factor = each
    if not (adapter.on_host and adapter.are_within(each, FINITE, math.inf)):
        factor = xp.where(q == 0, adapter.operand(q, 0.0), each)  # 0 times minus infinity is NaN
    product = classes.sum(factor * q)
    xp.exp(each, out=each)
    classes.scatter(each, label, 0.0)
    others = classes.sum(each)
    q_sum, excess = classes.sum(q), xp.expm1(own) + others

    def pullback(cotangent: Array) -> Array:
        # The derivatives for all classes add up to 0. The derivative for the label is computed from
        # the derivatives for the other classes, which are more precise.
        nonlocal each
        wanted = xp.broadcast_to(q, each.shape) * cotangent
        classes.scatter(wanted, label, 0.0)
        each *= q_sum * (cotangent / (excess + 1))
        each -= wanted
        classes.scatter(each, label, -classes.sum(each))
        return each

    return q_sum * xp.log1p(excess) - product, single_use(pullback)


def _by_selection(classes: Axis, logit: Array, index: Array, q: Array | None) -> ValueAndPullback:
    """Return the terms for class indices or probabilities, using differentiable operations.

    If probabilities `q` are given, `index` must be the first class with the largest `q`.
    """
    adapter, xp = classes.adapter, classes.adapter.xp
    label = index == classes.positions(logit)
    highest = adapter.stop_gradient(classes.max(logit))  # the terms do not depend on `highest`
    own = classes.gather(logit, classes.entries_at(logit, index))
    q_sum: Any = 1.0
    if q is not None:
        q_sum = classes.sum(q)
        # If all probabilities are 0, a label logit of minus infinity would make the term NaN,
        # because 0 times infinity is NaN.
        own = xp.where((q_sum == 0) & (own == -math.inf), highest, own)
    own_below = own - highest
    weight = xp.exp(xp.where(label, -math.inf, logit - highest))
    others = classes.sum(weight)
    # If the probability of the label is close to 0, the square of the odds could overflow in the
    # second derivative. The term of such a label is therefore computed without the odds.
    hopeless = own_below < -30
    odds = others * xp.exp(-xp.where(hopeless, 0.0, own_below))
    terms = xp.where(hopeless, xp.log(others + xp.exp(own_below)) - own_below, xp.log1p(odds))
    excess = others + (xp.exp(own_below) - 1)  # the sum of all exponentials, minus 1
    if q is not None:
        # The label is excluded from the sum, because its gradient would be a small difference
        # between large numbers. Products of 0 and minus infinity are excluded, because they are
        # NaN.
        excluded = label | ((q == 0) & (logit == -math.inf))
        product = xp.where(excluded, 0.0, q * (own - xp.where(excluded, own, logit)))
        terms = q_sum * terms + classes.sum(product)

    def pullback(cotangent: Array) -> Array:
        scale = cotangent / (1 + excess)
        if q is None:
            return xp.where(label, -others * scale, weight * scale)
        # For the label, 1 - p is computed from the other classes, because this is precise even if
        # the probability p of the label is close to 1.
        of_label = ((q_sum - q) * xp.exp(own_below) - q * others) * scale
        return xp.where(label, of_label, weight * (q_sum * scale) - q * cotangent)

    return terms, pullback


def _without_masked(adapter: Adapter, logit: Array, class_mask: Array) -> Array:
    """Return the logits, with masked logits replaced by a number whose exponential is 0."""
    lowest = float(adapter.xp.finfo(logit.dtype).min) / 2
    return adapter.xp.where(class_mask, logit, adapter.operand(logit, lowest))
