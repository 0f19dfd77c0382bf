"""Criteria: functions that compute the terms of a loss, for example from spike counts.

A criterion returns ``(terms, pullback)``. The pullback takes the derivative of the loss with
respect to the terms, and returns the derivative with respect to the input of the criterion. The
argument of the pullback may have any shape that broadcasts to the shape of the terms. If there is
only one term for all classes of a sample, the class axis of the terms has length 1.

Several criteria have the arguments `one_hot` and `class_mask`. `one_hot` is an array of bools with
a class axis, which is True for the labelled class. `class_mask` is an array that is True for
unmasked classes, or None if no class is masked. Masked classes have no gradient. Criteria that
compare rates set the rates of masked classes to 0.
"""

import math
from typing import Any

from spikeloss_xp._arrays import Adapter, or_one
from spikeloss_xp._typing import Array, ValueAndPullback
from spikeloss_xp.backends._axis import Axis
from spikeloss_xp.primitives import single_use

EPSILON = 1e-6  # the SpikeMax of lava-dl adds this number to the sum of the rates
FINITE = -1e38  # a log rate of at least this number is not minus infinity
TINY = 1e-38  # rates below this number are treated as 0


def squared(u: Array) -> ValueAndPullback:
    """Return ``u²``."""
    return u * u, lambda cotangent: 2 * cotangent * u


def absolute(adapter: Adapter, u: Array) -> ValueAndPullback:
    """Return ``|u|``. The derivative at 0, which libraries define differently, is set to 0."""
    slope = adapter.sign(u)
    return u * slope, lambda cotangent: cotangent * slope


def huber(adapter: Adapter, u: Array, delta: float) -> ValueAndPullback:
    """Return ``u² / 2``, replaced by its tangent at ``±delta`` where ``|u| > delta``."""
    xp = adapter.xp
    high, low = (adapter.operand(u, limit) for limit in (delta, -delta))
    slope = xp.where(u > delta, high, xp.where(u < -delta, low, u))  # NaN stays NaN
    return slope * (u - slope / 2), lambda cotangent: cotangent * slope


def outside_range(
    adapter: Adapter, u: Array, lowest: Any, highest: Any, power: int
) -> ValueAndPullback:
    """Return ``max(u - highest, 0)**power + max(lowest - u, 0)**power`` for a power of 1 or 2.

    Each limit is a number, or an array that broadcasts to `u`. `u` must not be negative. With a
    power of 1, the derivative at ``u == highest`` is defined as 0 if `highest` is above 0, and as 1
    if `highest` is 0.
    """
    xp = adapter.xp
    above = u > highest
    if not isinstance(highest, float) or highest == 0:
        above = above | ((highest == 0) & (u == 0))
    far = xp.where(above, u - highest, 0 * u)  # 0 * u propagates NaN
    if not isinstance(lowest, float) or lowest > 0:
        far = xp.where(u < lowest, u - lowest, far)
    if power == 2:
        return far * far, lambda cotangent: 2 * cotangent * far
    sign = xp.astype(above, u.dtype) - xp.astype(u < lowest, u.dtype)
    return far * sign, lambda cotangent: cotangent * sign


def outside(adapter: Adapter, u: Array, tolerance: float) -> ValueAndPullback:
    """Return ``max(|u| - tolerance, 0)²``."""
    if tolerance == 0:
        return squared(u)
    xp = adapter.xp
    # 0 * u propagates NaN.
    over = xp.where(u <= -tolerance, u + tolerance, 0 * u)
    over = xp.where(u >= tolerance, u - tolerance, over)
    return over * over, lambda cotangent: 2 * cotangent * over


def cross_entropy_of_rates(
    classes: Axis,
    rate: Array,
    one_hot: Array,
    half_spike: Any,
    short: Array,
    class_mask: Array | None = None,
) -> ValueAndPullback:
    """Return ``-log(r_y / (sum(r) + 1e-6))``, with a finite replacement if ``r_y`` is small.

    ``r_y`` is the rate of the labelled class. `short` is True for rates below `half_spike`. The
    caller computes `short` from counts, which are exact. With ``d = max(half_spike - r_y, 0)`` and
    ``C`` classes, the term is

        -log(r_y + d) + d / half_spike + log(sum(r) + 1e-6 + C d)

    If ``r_y`` is below `half_spike`, the first two summands are the tangent of ``-log(r_y)`` at
    `half_spike`. The two logarithms are computed together with ``log1p``, so that a small term is
    precise.
    """
    adapter, xp = classes.adapter, classes.adapter.xp
    number, rate = taking_part(classes, rate, class_mask)
    zero = adapter.operand(rate, 0.0)
    own = classes.sum(xp.where(one_hot, rate, zero))
    others = classes.sum(xp.where(one_hot, zero, rate)) + EPSILON
    if class_mask is not None:  # `half_spike` may differ between classes
        of_label = classes.sum(xp.astype(one_hot, rate.dtype) * half_spike)
        half_spike = or_one(adapter, of_label)
    short = classes.any(one_hot & short)
    # ``own - own`` makes the term NaN if the rate of the label is infinite. The gradient of
    # ``own - own`` is stopped, because the derivatives of the two operands would not cancel
    # exactly.
    missing = xp.where(short, half_spike - own, adapter.stop_gradient(own - own))
    own = own + missing
    others = others + (number - 1) * missing
    odds = others / own
    terms = xp.log1p(odds) + missing / half_spike

    def pullback(cotangent: Array) -> Array:
        of_another = cotangent / (own + others)
        lowered = xp.where(
            short, (number - 1) * of_another + cotangent / half_spike, odds * of_another
        )
        return of_class_mask(adapter, xp.where(one_hot, -lowered, of_another), class_mask)

    return terms, pullback


def root(adapter: Adapter, n: Array, *, checked: bool) -> ValueAndPullback:
    """Return ``sqrt(n + 3/8)``, whose standard deviation for Poisson counts is about 1/2 [1]_.

    The result is NaN for counts below -1/4. Counts between -1/4 and 0 are allowed, because they
    occur when gradients are checked with finite differences. If `checked` is True, the caller has
    checked that no count is below -1/4.

    References
    ----------
    .. [1] F. J. Anscombe, "The transformation of Poisson, binomial and negative-binomial data",
       Biometrika 35(3/4), 1948.
    """
    xp = adapter.xp
    if checked:
        u = xp.sqrt(n + 0.375)
    else:
        # NaN is added to the roots of invalid counts. If `where` replaced the roots by NaN, the
        # gradient with respect to these counts would be 0.
        nan, zero = adapter.operand(n, math.nan), adapter.scalar(n, 0.0)
        u = xp.sqrt(abs(n + 0.375)) + xp.where(n < -0.25, nan, zero)
    return u, lambda cotangent: cotangent / (2 * u)


def outside_rates(
    classes: Axis,
    n: Array,
    u: Array,
    label: Array,
    bounds: tuple[Any, ...],
    class_mask: Array | None = None,
) -> ValueAndPullback:
    """Return the penalties for counts `n` that violate their bounds, and the pullback to `n`.

    `bounds` holds the lowest permitted count of the label and the highest permitted count of every
    other class. `u` holds the square roots ``sqrt(n + 3/8)``. A penalty is the squared difference
    between the square root of a count and the square root of its bound. A term is the sum of the
    penalties of all classes.

    `label` holds either class indices, or floats that give the probability `q` of each class. With
    probabilities, a class has two penalties: one for a low count, which is multiplied by `q`, and
    one for a high count, which is multiplied by ``1 - q``.
    """
    adapter, xp, (lowest, highest) = classes.adapter, classes.adapter.xp, bounds

    def beyond(n: Array, u: Array, bound: Any, *, above: bool) -> Array:
        """Return `u` minus the root of the bound, or 0 for a count that satisfies the bound."""
        at_bound = math.sqrt(bound + 0.375) if isinstance(bound, float) else xp.sqrt(bound + 0.375)
        # The quotient is equal to the difference between the two roots, and is precise near 0.
        distance = (n - bound) / (u + at_bound)
        inside = distance <= 0 if above else distance >= 0
        if class_mask is not None:
            inside = inside | ~class_mask
        return xp.where(inside, adapter.operand(n, 0.0), distance)  # NaN stays NaN

    excess = beyond(n, u, highest, above=True)
    if xp.isdtype(label.dtype, "real floating"):
        missing, other = beyond(n, u, lowest, above=False), 1 - label
        squares, far = label * missing**2 + other * excess**2, label * missing + other * excess
    elif class_mask is None and isinstance(lowest, float) and adapter.in_place(n):
        entries, far = classes.entries_at(n, label), excess
        own_n, own_u = (classes.gather(x, entries) for x in (n, u))
        classes.scatter(far, entries, beyond(own_n, own_u, lowest, above=False))
        squares = far * far
    else:
        of_label = label == classes.positions(n)
        far = xp.where(of_label, beyond(n, u, lowest, above=False), excess)
        squares = far * far
    return classes.sum(squares), lambda cotangent: cotangent * far / u


def binary_cross_entropy(
    adapter: Adapter, logit: Array, target: Array, pos_weight: Array | None = None
) -> ValueAndPullback:
    """Return ``-w y log(p) - (1 - y) log(1 - p)`` with ``p = 1 / (1 + exp(-z))``.

    `y` is the target, `z` is the logit, and `w` is `pos_weight`. Without a weight, the term is
    computed as ``log(exp(-y z) + exp((1 - y) z))``. This equivalent expression does not overflow,
    and it is precise even if ``p`` is close to a target of 0 or 1.
    """
    xp, other, positive = adapter.xp, 1 - target, target
    if pos_weight is None:
        terms = adapter.logaddexp(-target * logit, other * logit)
    else:
        zero, positive = adapter.scalar(logit, 0.0), pos_weight * target
        terms = positive * adapter.logaddexp(zero, -logit)
        terms = terms + other * adapter.logaddexp(zero, logit)

    def pullback(cotangent: Array) -> Array:
        # `odds` is ``exp(-abs(logit))``, which cannot overflow.
        likely = logit > 0
        odds = xp.exp(xp.where(likely, -logit, logit))
        derivative = xp.where(likely, other - positive * odds, other * odds - positive) / (1 + odds)
        # If an infinite logit makes the term NaN, the derivative becomes NaN too.
        nan = adapter.operand(logit, math.nan)
        return cotangent * xp.where(terms == terms, derivative, nan)

    return terms, pullback


def poisson_of_log_rates(adapter: Adapter, u: Array, n: Array) -> ValueAndPullback:
    """Return ``exp(u) - n u``, which is 0 if the count `n` is 0 and `u` is minus infinity."""
    xp, rate = adapter.xp, adapter.xp.exp(u)
    if not (adapter.on_host and adapter.are_within(u, FINITE, math.inf)):
        none = (n == 0) & xp.isinf(u)  # 0 times infinity is NaN
        # On the host, `u` is replaced by 0 before the multiplication, because NumPy would warn
        # about 0 times infinity.
        terms = xp.where(none, rate, rate - n * (xp.where(none, 0.0, u) if adapter.on_host else u))
        return terms, lambda cotangent: cotangent * (rate - n)

    def pullback(cotangent: Array) -> Array:
        nonlocal rate
        rate -= n
        rate *= cotangent
        return rate

    # The terms are written to the array `product`, because allocating a new array may take longer
    # than filling it.
    product = n * u
    return xp.subtract(rate, product, out=product), single_use(pullback)


def poisson_of_rates(
    adapter: Adapter, rate: Array, n: Array, *, positive: bool
) -> ValueAndPullback:
    """Return ``r - n log(r)``, which is 0 if the count `n` and the rate are both 0.

    If `positive` is True, all rates are above 0.
    """
    xp = adapter.xp
    inside = rate
    if not positive:
        # If the count and the rate are both 0, the rate is changed to 1, whose logarithm is 0. In
        # XLA, a sum is faster than `where`.
        inside = rate + xp.astype((n == 0) & (rate == 0), rate.dtype)
    return rate - n * xp.log(inside), lambda cotangent: cotangent * (1 - n / inside)


def negative_binomial_of_log_rates(
    adapter: Adapter, u: Array, n: Array, dispersion: Array, *, constant: bool
) -> ValueAndPullback:
    """Return the terms of `_negative_binomial` for the logarithms `u` of the means."""
    mean = adapter.xp.exp(adapter.xp.minimum(u, _largest(adapter, dispersion)))
    terms = _negative_binomial(adapter, u, mean, n, dispersion, constant)
    return terms, lambda cotangent: cotangent * ((mean - n) / (1 + dispersion * mean))


def negative_binomial_of_rates(
    adapter: Adapter, rate: Array, n: Array, dispersion: Array, *, positive: bool, constant: bool
) -> ValueAndPullback:
    """Return the terms of `_negative_binomial` for rates, which are the means.

    If `positive` is True, all rates are above 0.
    """
    xp = adapter.xp
    # If the count and the rate are both 0, the rate is changed to 1, whose logarithm is 0.
    inside = rate if positive else rate + xp.astype((n == 0) & (rate == 0), rate.dtype)
    mean = xp.minimum(rate, xp.exp(_largest(adapter, dispersion)))
    terms = _negative_binomial(adapter, xp.log(inside), mean, n, dispersion, constant)
    return terms, lambda cotangent: cotangent * ((1 - n / inside) / (1 + dispersion * rate))


def _largest(adapter: Adapter, a: Array) -> Array:
    """Return a log rate above which ``log(1 + a m)`` and ``log(a m)`` are equal up to rounding.

    ``m`` is the rate. Second derivatives contain the square of ``1 + a m``, which does not overflow
    at the returned log rate.
    """
    xp = adapter.xp
    return 0.45 * math.log(xp.finfo(a.dtype).max) - xp.log(a)


def _negative_binomial(
    adapter: Adapter, u: Array, mean: Array, n: Array, a: Array, constant: bool
) -> Array:
    """Return ``n log(1/m + a) + log(1 + a m) / a`` for a mean `m` and a dispersion `a`.

    The result is equal to ``(n + 1/a) log(1 + a m) - n log(m)``. `u` is the logarithm of the mean.
    `mean` is ``min(m, exp(_largest))``, so that its square does not overflow.

    If `constant` is True, the result is the full negative log-likelihood, which also contains
    ``log(n!)``. For large counts, adding ``log(n!)`` directly would lose digits. The result is
    therefore computed as a sum of two terms: the value at the mean `n`, and the difference between
    the values at the means `m` and `n`.
    """
    xp, zero, largest = adapter.xp, adapter.scalar(u, 0.0), _largest(adapter, a)
    log_mean = xp.where((n == 0) & xp.isinf(u), zero, u)  # 0 times infinity is NaN
    beyond = xp.where(u > largest, u - largest, zero)
    scaled, log_scaled = a * mean, xp.log1p(a * mean)
    large = (mean if constant else scaled) > 1  # for small means, 1/m could overflow
    odds = a + 1 / xp.where(large, mean, 1.0)
    if not constant:
        log_odds = xp.where(large, xp.log(odds), log_scaled - log_mean)
        return n * log_odds + (log_scaled + beyond) / a
    spread = 1 + a * n
    odds = xp.where(large, odds, 1 + scaled) * xp.where(n > 0, n / spread, 1.0)
    log_odds = xp.log(odds) - xp.where(large, zero, log_mean)
    shift = a * ((mean - n) / spread)
    far = shift < -0.5  # for such a shift, 1 + shift would lose digits
    near = xp.log1p(xp.where(far, zero, shift))
    rest = (xp.where(far, xp.log((1 + scaled) / spread), near) + beyond) / a
    return n * log_odds + rest + _negative_binomial_at_its_mean(adapter, n, a)


def _negative_binomial_at_its_mean(adapter: Adapter, n: Array, a: Array) -> Array:
    """Return the negative log-likelihood of whole counts `n` if the mean is equal to `n`.

    If the three gamma functions of the likelihood are written with Stirling's formula, most of the
    summands cancel.
    """
    xp = adapter.xp
    k, shape = xp.where(n > 0, n, 1.0), 1 / a
    value = 0.5 * (xp.log(k) + xp.log1p(a * k) + math.log(2 * math.pi))
    value = value + stirling(adapter, k) + (stirling(adapter, shape) - stirling(adapter, k + shape))
    return xp.where(n > 0, value, 0 * n)


def log_factorial(adapter: Adapter, n: Array) -> Array:
    """Return ``log(n!)`` for whole numbers, with an error of 6e-14 in float64."""
    xp = adapter.xp
    k = xp.where(n > 1, n, 1.0)
    log_k = xp.log(k)
    value = k * (log_k - 1) + 0.5 * (log_k + math.log(2 * math.pi)) + stirling(adapter, k)
    return xp.where(n < 2, n * 0, value)  # log(0!) and log(1!) are exact


def stirling(adapter: Adapter, z: Array) -> Array:
    """Return the error of Stirling's formula, ``log(z!) - z log(z) + z - log(2 pi z) / 2``.

    The series is evaluated at ``z + 9``, where it is accurate. To get from ``(z + 8)!`` to ``z!``,
    the factors from ``z + 1`` to ``z + 8`` are divided out. Each factor is divided by ``z + 9``
    first, so that the product of the factors cannot overflow.
    """
    xp = adapter.xp
    w = 1 / (z + 9)
    series, product = 0 * w - 9, 1 + 0 * w
    for power, coefficient in enumerate((1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188)):
        series = series + coefficient * w ** (2 * power + 1)
    for j in range(1, 9):
        product = product * (1 - j * w)
    return (z + 0.5) * xp.log1p(9 / z) - xp.log(product) + series


def bernoulli_of_logits(adapter: Adapter, logit: Array, spike: Array) -> ValueAndPullback:
    """Return ``log(1 + exp(z)) - s z``, where `s` is 0 or 1.

    The term is computed as ``log(1 + exp(x))`` with ``x = (1 - 2 s) z``. This expression is precise
    even if the predicted probability is close to `s`, and it is exact for infinite logits.
    """
    return adapter.bernoulli(_by_logaddexp, logit, spike)


def _by_logaddexp(adapter: Adapter, logit: Array, spike: Array) -> ValueAndPullback:
    """Return the terms of `bernoulli_of_logits`, computed with functions that are smooth at 0."""
    sign = 1 - 2 * spike
    terms = adapter.logaddexp(adapter.scalar(logit, 0.0), sign * logit)
    return terms, lambda cotangent: cotangent * -sign * adapter.xp.expm1(-terms)


def bernoulli_of_log_hazards(adapter: Adapter, u: Array, spike: Array) -> ValueAndPullback:
    """Return ``r = exp(u)`` if there is no spike, and ``-log(1 - exp(-r))`` if there is a spike.

    For small rates, ``log(1 - exp(-r))`` is computed as ``u + log((1 - exp(-r)) / r)``, which is
    accurate even if the rate underflows. The second summand is computed from a power series, whose
    derivatives of any order are precise. Rates are limited before they are used, so that all
    derivatives are finite.
    """
    xp, own = adapter.xp, spike != 0
    tiny, low, high, most = (adapter.scalar(u, value) for value in (1e-18, -0.1, 0.2, 7.0))
    # `u` is limited to 7, because exp(-exp(7)) underflows to 0. Adding 0 * spike propagates NaN.
    u = xp.where(own, xp.minimum(u, most), u) + 0 * spike
    rate = xp.exp(u)
    r = xp.maximum(rate, tiny)
    minus_r = -r
    # For log rates below -2 (rates below 0.135), the power series is used. The limits `high` and
    # `low` differ from the rate 0.135, because the derivative of ``minimum(a, b)`` is halved where
    # ``a`` equals ``b``.
    small = xp.minimum(rate, high)
    square = small * small
    series = 1 / 24 + square * (-1 / 2880 + square * (1 / 181440 - square / 9676800))
    of_small = u + (square * series - small / 2)
    of_large = xp.log1p(-xp.exp(xp.minimum(minus_r, low)))
    terms = xp.where(own, -xp.where(u < -2, of_small, of_large), rate)

    def pullback(cotangent: Array) -> Array:
        of_spike = r * xp.exp(minus_r) / xp.expm1(minus_r)
        return cotangent * xp.where(own, of_spike, rate)

    return terms, pullback


def taking_part(classes: Axis, rate: Array, class_mask: Array | None) -> tuple[Any, Array]:
    """Return the number of unmasked classes, and the rates with masked rates set to 0."""
    if class_mask is None:
        return classes.length(rate), rate
    adapter = classes.adapter
    number = adapter.number(class_mask, rate.dtype, classes.index)
    return number, adapter.xp.where(class_mask, rate, adapter.operand(rate, 0.0))


def of_class_mask(adapter: Adapter, derivative: Array, class_mask: Array | None) -> Array:
    """Return the derivative with its entries for masked classes set to 0."""
    if class_mask is None:
        return derivative
    return adapter.xp.where(class_mask, derivative, adapter.operand(derivative, 0.0))
