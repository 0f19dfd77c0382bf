"""Sums of cumulative products along time, from which first-spike latencies are computed."""

from collections.abc import Callable
from typing import TypeAlias

from spikeloss_xp import _tuning
from spikeloss_xp._typing import Adapter, Array
from spikeloss_xp.primitives.block_filter import zero_steps

SurvivalSum: TypeAlias = tuple[Array, Array, Callable[[Array, Array], Array]]


def survival_sum(adapter: Adapter, factors: Array, weight: Array | None, axis: int) -> SurvivalSum:
    """Return the sum of the cumulative products, the product of all factors, and the pullback.

    The results keep `axis`, with length 1. Each cumulative product is multiplied by its entry in
    `weight` before the products are summed. If `weight` is None, callers must not use the product
    of all factors, because padding may have changed this product to 0.

    The steps are merged in groups, so that the number of array operations grows with the logarithm
    of the number of time steps. No division is needed, so factors of 0 cause no error, even in
    higher derivatives.
    """
    product, total, to_steps = _merge_steps(adapter, factors, weight, axis)
    pullbacks = []
    while product.shape[axis] > 1:
        product, total, to_groups = _merge_groups(adapter, product, total, axis)
        pullbacks.append(to_groups)

    def pullback(of_total: Array, of_product: Array) -> Array:
        while pullbacks:
            of_product, of_total = pullbacks.pop()(of_product, of_total)
        return to_steps(of_product, of_total)

    return total, product, pullback


def survival_sum_by_doubling(
    adapter: Adapter, factors: Array, weight: Array | None, axis: int
) -> SurvivalSum:
    """Return the results of `survival_sum`, computed with fewer operations on larger arrays.

    The pullback changes arrays in place. For each step, the pullback computes the weighted sum of
    the cumulative products that begin after this step.
    """
    xp, steps = adapter.xp, factors.shape[axis]
    survival = xp.cumulative_prod(factors, axis=axis)
    product = _part(survival, axis, steps - 1, steps)
    weighted = survival if weight is None else survival * weight

    def pullback(of_total: Array, of_product: Array) -> Array:
        if weight is None:
            after = xp.broadcast_to(of_total, factors.shape) + 0.0
        else:
            after = xp.broadcast_to(of_total, product.shape) * weight
            last = _part(after, axis, steps - 1, steps)
            last += of_product
        joint, span = _part(factors, axis, 1, steps), 1
        while span < steps:
            first = _part(after, axis, 0, steps - span)
            first += joint * _part(after, axis, span, steps)
            span *= 2
            if span < steps:
                others = _part(joint, axis, span // 2, steps - span // 2)
                joint = _part(joint, axis, 0, steps - span) * others
        later = _part(after, axis, 1, steps)
        later *= _part(survival, axis, 0, steps - 1)
        return after

    return adapter.sum(axis, weighted), product, pullback


def _part(x: Array, axis: int, start: int, stop: int) -> Array:
    """Return a view of the steps from `start` to ``stop - 1``."""
    return x[(*(slice(None) for _ in range(axis)), slice(start, stop), ...)]


def _merge_steps(
    adapter: Adapter, factors: Array, weight: Array | None, axis: int
) -> tuple[Array, Array, Callable[[Array, Array], Array]]:
    """Return the product and the sum of cumulative products of each group, and the pullback."""
    steps = factors.shape[axis]
    # Without weights, the last group is padded with factors of 0, so the padding adds 0 to the sum.
    each = _groups(adapter, factors, axis, 0.0 if weight is None else 1.0)
    weights = None if weight is None else _groups(adapter, weight, axis, 0.0)
    products = [each[0]]
    total = each[0] if weights is None else each[0] * weights[0]
    for i in range(1, len(each)):
        products.append(products[-1] * each[i])
        total = total + (products[i] if weights is None else products[i] * weights[i])

    def pullback(of_product: Array, of_total: Array) -> Array:
        slopes = []
        for i in range(len(each) - 1, 0, -1):
            of_product = of_product + (of_total if weights is None else of_total * weights[i])
            slopes.append(of_product * products[i - 1])
            of_product = of_product * each[i]
        slopes.append(of_product + (of_total if weights is None else of_total * weights[0]))
        return _steps(adapter, slopes[::-1], axis, steps)

    return products[-1], total, pullback


def _merge_groups(
    adapter: Adapter, product: Array, total: Array, axis: int
) -> tuple[Array, Array, Callable[[Array, Array], tuple[Array, Array]]]:
    """Merge neighbouring groups.

    Return the product and the sum of each merged group, and the pullback. If two groups have the
    products P1 and P2 and the sums V1 and V2, the merged group has P = P1 P2 and V = V1 + P1 V2.
    """
    number = product.shape[axis]
    each, sums = _groups(adapter, product, axis, 1.0), _groups(adapter, total, axis, 0.0)
    products, total = [each[0]], sums[0]
    for i in range(1, len(each)):
        total = total + products[-1] * sums[i]
        products.append(products[-1] * each[i])

    def pullback(of_product: Array, of_total: Array) -> tuple[Array, Array]:
        of_products, of_sums = [], []
        for i in range(len(each) - 1, 0, -1):
            of_products.append(of_product * products[i - 1])
            of_sums.append(of_total * products[i - 1])
            of_product = of_product * each[i] + of_total * sums[i]
        of_products.append(of_product)
        of_sums.append(of_total)
        return (
            _steps(adapter, of_products[::-1], axis, number),
            _steps(adapter, of_sums[::-1], axis, number),
        )

    return products[-1], total, pullback


def _groups(adapter: Adapter, x: Array, axis: int, fill: float) -> list[Array]:
    """Split an axis into groups of equal length, and return a list of arrays.

    The array at index i of the list holds the entry i of every group. The last group is padded with
    `fill`.
    """
    xp, steps = adapter.xp, x.shape[axis]
    size = _group_size(steps)
    lacking = -steps % size
    if lacking:
        x = xp.concat([x, zero_steps(xp, x, lacking, axis - x.ndim) + fill], axis=axis)
    shape = (*x.shape[:axis], x.shape[axis] // size, size, *x.shape[axis + 1 :])
    return list(adapter.unstack(xp.reshape(x, shape), axis + 1))


def _group_size(steps: int) -> int:
    if steps <= _tuning.LARGEST_GROUP:
        return steps
    for size in _tuning.GROUPS:
        if steps % size == 0:
            return size
    return _tuning.GROUP


def _steps(adapter: Adapter, each: list[Array], axis: int, steps: int) -> Array:
    """Return the entries of all groups in temporal order, without padding.

    This function is the inverse of `_groups`.
    """
    xp, first = adapter.xp, each[0]
    joined = xp.stack(each, axis=axis + 1)
    number = first.shape[axis] * len(each)
    joined = xp.reshape(joined, (*first.shape[:axis], number, *first.shape[axis + 1 :]))
    if number == steps:
        return joined
    return _part(joined, axis, 0, steps)
