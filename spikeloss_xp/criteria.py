"""How far a reading is from what was wanted.

A criterion returns its terms and its pullback, which takes the derivative of the loss with
respect to the terms, or what broadcasts to it, to the derivative with respect to the reading. A
reading enters one term only, so the pullback multiplies by that term's slope. Where classes compete
for one term, the terms keep the class axis, of length 1. Class labels come as `one_hot`, with a
class axis, and `valid`, with a class axis of length 1, which is False where the label is no class:
there the term and its slopes are NaN, never a plausible number. It is None if all labels are known
to be classes.
`among` says which classes there are to choose from, where some of them are masked.
"""

import math
from typing import Any

from spikeloss_xp import _arrays
from spikeloss_xp._layout import CLASS
from spikeloss_xp._typing import Array, Namespace, Pullback

EPSILON = 1e-6  # what the published loss adds to the sum of rates


def squared(xp: Namespace, u: Array) -> tuple[Array, Pullback]:
    """Return ``u²``."""
    return u * u, lambda cotangent: 2 * cotangent * u


def excess(xp: Namespace, u: Array, limit: float) -> tuple[Array, Pullback]:
    """Return ``max(u - limit, 0)²``."""
    over = xp.maximum(u - limit, _arrays.constant(xp, u, 0.0))
    return over * over, lambda cotangent: 2 * cotangent * over


def shortfall(xp: Namespace, u: Array, limit: float) -> tuple[Array, Pullback]:
    """Return ``max(limit - u, 0)²``."""
    under = xp.maximum(limit - u, _arrays.constant(xp, u, 0.0))
    return under * under, lambda cotangent: -2 * cotangent * under


def weighted(terms: Array, pullback: Pullback, amount: Array | None) -> tuple[Array, Pullback]:
    """Return the terms of a criterion, each times an amount, or as they are for None."""
    if amount is None:
        return terms, pullback
    return terms * amount, lambda cotangent: pullback(cotangent * amount)


def cross_entropy_of_rates(
    xp: Namespace,
    rate: Array,
    one_hot: Array,
    valid: Array | None,
    half_spike: Any,
    among: Array | None = None,
) -> tuple[Array, Pullback]:
    """Return ``-log(r_y / (sum(r) + 1e-6))``, continued below `half_spike` so that it is finite.

    With ``d = max(half_spike - r_y, 0)``, what the label's rate lacks, the term is
    ``-log(r_y + d) + d / half_spike + log(sum(r) + 1e-6 + C d)``: the logarithm goes on along its
    tangent, and each of the ``C`` classes is given what is lacking. It is computed as
    ``log1p(others / own) + d / half_spike``, which keeps its digits when the loss is small.
    """
    zero = _arrays.constant(xp, rate, 0.0)
    classes, rate = _choice(xp, rate, among, zero)
    own = _pick(xp, rate, one_hot, valid)
    if among is not None:  # what half a spike is may differ between classes then
        of_label = _sum(xp, xp.astype(one_hot, rate.dtype) * half_spike)
        half_spike = _arrays.or_one(xp, of_label)  # a label may be none of them
    short = own < half_spike
    lack = xp.where(short, half_spike - own, zero)
    own = own + lack
    others = _sum(xp, xp.where(one_hot, zero, rate)) + (classes - 1) * lack + EPSILON
    # The last is 0, and NaN for an infinite rate, which the quotient would hide. Here, and not in
    # what is lacking, where its slopes, which cancel, would take a small one's digits with them.
    terms = xp.log1p(others / own) + lack / half_spike + (own - own)

    def pullback(cotangent: Array) -> Array:
        of_another = 1 / (own + others)
        of_own = xp.where(
            short,
            (1 - classes) * of_another - 1 / half_spike,
            -others / own * of_another,
        )
        return _given(xp, among, cotangent * xp.where(one_hot, of_own, of_another))

    return terms, pullback


def smooth_cross_entropy_of_rates(
    xp: Namespace, rate: Array, amount: Array, half_spike: Any, among: Array | None = None
) -> tuple[Array, Pullback]:
    """Return ``sum(amount_c term_c)``: the terms of `cross_entropy_of_rates` of each label."""
    zero = _arrays.constant(xp, rate, 0.0)
    classes, rate = _choice(xp, rate, among, zero)
    short = rate < half_spike
    lack = xp.where(short, half_spike - rate, zero)
    own = rate + lack
    others = _sum(xp, rate) - rate + (classes - 1) * lack + EPSILON
    terms = _sum(xp, amount * (xp.log1p(others / own) + lack / half_spike))

    def pullback(cotangent: Array) -> Array:
        of_another = 1 / (own + others)
        of_own = -xp.where(short, classes * of_another + 1 / half_spike, 1 / own)
        slope = _sum(xp, amount * of_another) + amount * of_own
        return _given(xp, among, cotangent * slope)

    return terms, pullback


def cross_entropy_of_rates_as_published(
    xp: Namespace, rate: Array, one_hot: Array, valid: Array | None, among: Array | None = None
) -> tuple[Array, Pullback]:
    """Return ``-log(r_y / (sum(r) + 1e-6))``, infinite where the labelled neuron is silent."""
    _, rate = _choice(xp, rate, among, _arrays.constant(xp, rate, 0.0))
    own = _pick(xp, rate, one_hot, valid)
    total = _sum(xp, rate) + _or_nan(xp, valid, _arrays.constant(xp, rate, EPSILON))
    terms = xp.log(total) - xp.log(own)

    def pullback(cotangent: Array) -> Array:
        slope = xp.where(one_hot, 1 / total - 1 / own, 1 / total)
        return _given(xp, among, cotangent * slope)

    return terms, pullback


def cross_entropy_of_logits(
    xp: Namespace, logit: Array, one_hot: Array, valid: Array | None, among: Array | None = None
) -> tuple[Array, Pullback]:
    """Return ``log(sum(exp(u))) - u_y``.

    As ``(max(u) - u_y) + log1p(others + (own - 1))``, with what the exponentials of the other
    classes and of the label are after the division by the largest: a small loss keeps its digits.
    """
    _, logit = _choice(xp, logit, among, _lowest(xp, logit))
    # A factor, because not every library's exponential of NaN is NaN.
    known = _or_nan(xp, valid, _arrays.constant(xp, logit, 1.0))
    own = _pick(xp, logit, one_hot, valid)
    highest = xp.max(logit, axis=CLASS, keepdims=True)  # against overflow; it cancels
    weight = xp.exp(logit - highest)
    others = _sum(xp, xp.where(one_hot, _arrays.constant(xp, logit, 0.0), weight))
    rest = others + (xp.exp(own - highest) - 1)
    terms = known * ((highest - own) + xp.log1p(rest))

    def pullback(cotangent: Array) -> Array:
        total = 1 + rest
        slope = xp.where(one_hot, -others / total, weight / total)
        return cotangent * known * slope

    return terms, pullback


def smooth_cross_entropy_of_logits(
    xp: Namespace, logit: Array, amount: Array, among: Array | None = None
) -> tuple[Array, Pullback]:
    """Return ``sum(amount_c (log(sum(exp(u))) - u_c))``."""
    _, seen = _choice(xp, logit, among, _lowest(xp, logit))
    highest = xp.max(seen, axis=CLASS, keepdims=True)  # against overflow; it cancels
    weight = xp.exp(seen - highest)
    total = _sum(xp, weight)
    _, known = _choice(xp, logit, among, _arrays.constant(xp, logit, 0.0))
    terms = _sum(xp, amount * ((highest - known) + xp.log(total)))

    def pullback(cotangent: Array) -> Array:
        slope = _sum(xp, amount) * (weight / total) - amount
        return cotangent * slope

    return terms, pullback


def binary_cross_entropy(xp: Namespace, logit: Array, target: Array) -> tuple[Array, Pullback]:
    """Return ``log(1 + exp(z)) - y z``.

    As ``log(exp(-y z) + exp((1 - y) z))``, the same thing, which neither overflows nor, for
    a confident and right answer, loses its digits.
    """
    terms = xp.logaddexp(-target * logit, (1 - target) * logit)

    def pullback(cotangent: Array) -> Array:
        lowest = _arrays.constant(xp, logit, 2 - math.log(xp.finfo(logit.dtype).max))
        odds = xp.exp(-xp.maximum(logit, lowest))  # of silence, without overflow
        # (1 - y) of a spike's probability, less y of that of silence, which is `odds` times it.
        return cotangent * (((1 - target) - target * odds) / (1 + odds))

    return terms, pullback


def binary_cross_entropy_as_published(
    xp: Namespace, logit: Array, target: Array
) -> tuple[Array, Pullback]:
    """Return ``-y log(p) - (1 - y) log(1 - p)``, ``p = 1 / (1 + exp(-z))``, logs held at -100.

    Where `p` rounds to 1, and where ``exp(-z)`` overflows and `p` is 0, the term is 100 and its
    slope 0. A `p` near 1 is as coarse as the dtype makes it, and so is the ``log(1 - p)`` of it;
    ``log(p)`` is not, and is computed from `z`.
    """
    zero, held = (_arrays.constant(xp, logit, value) for value in (0.0, -100.0))
    lowest = -min(100.0, math.log(xp.finfo(logit.dtype).max))
    hopeless = logit < lowest
    odds = xp.exp(-xp.maximum(logit, _arrays.constant(xp, logit, lowest + 1)))  # no overflow
    p = 1 / (1 + odds)
    sure = p == 1
    log_p = xp.where(hopeless, held, xp.where(sure, zero, -xp.logaddexp(zero, -logit)))
    # The argument is made safe first: `where` would not stop the NaN gradient of log(0).
    rest = xp.where(sure, zero + 1, 1 - p)
    log_rest = xp.where(sure, held, xp.log(rest))
    terms = -(target * log_p + (1 - target) * log_rest)

    def pullback(cotangent: Array) -> Array:
        of_log_p = xp.where(hopeless | sure, zero, xp.exp(-xp.logaddexp(zero, logit)))
        of_log_rest = xp.where(sure, zero, -odds * p * p / rest)
        return -cotangent * (target * of_log_p + (1 - target) * of_log_rest)

    return terms, pullback


def _pick(xp: Namespace, u: Array, one_hot: Array, valid: Array | None) -> Array:
    """Return the entry of `u` at the label; NaN where the label is no class."""
    return _or_nan(xp, valid, _sum(xp, xp.where(one_hot, u, _arrays.constant(xp, u, 0.0))))


def _choice(xp: Namespace, u: Array, among: Array | None, absent: Array) -> tuple[Any, Array]:
    """Return the number of classes to choose from, and `u` with a value for the absent ones."""
    if among is None:
        return u.shape[CLASS], u
    return _sum(xp, xp.astype(among, u.dtype)), xp.where(among, u, absent)


def _given(xp: Namespace, among: Array | None, slope: Array) -> Array:
    """Return slopes, 0 for the classes that are absent."""
    return slope if among is None else xp.where(among, slope, _arrays.constant(xp, slope, 0.0))


def _lowest(xp: Namespace, u: Array) -> Array:
    """Return a logit whose exponential, next to that of any other, is 0."""
    return _arrays.constant(xp, u, float(xp.finfo(u.dtype).min) / 2)


def _or_nan(xp: Namespace, valid: Array | None, u: Array) -> Array:
    """Return `u`, and NaN where the label is no class.

    The NaN reaches the gradient where the derivative of what follows depends on its value.
    """
    return u if valid is None else xp.where(valid, u, _arrays.constant(xp, u, math.nan))


def _sum(xp: Namespace, u: Array) -> Array:
    return xp.sum(u, axis=CLASS, keepdims=True)
