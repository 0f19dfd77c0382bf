"""Reductions: from terms to their sum, and to the weight that a mean divides it by."""

import math
from typing import get_args

from spikeloss_xp._checks import one_of
from spikeloss_xp._dispatch import Library
from spikeloss_xp._input.arrays import or_one
from spikeloss_xp._input.masks import fill_masked
from spikeloss_xp._typing import Array, Reduction
from spikeloss_xp.losses.terms import Terms

REDUCTIONS = get_args(Reduction)


def total_weight(library: Library, reduction: str, terms: Terms, batch_axis: int) -> Array | int:
    """Return the number that a reduction divides the sum of terms by.

    The number of samples with a term that counts, for "batchmean"; else the sum of the weights of
    the terms that count. It is an int if there is neither a mask nor a weight.
    """
    if reduction == "batchmean":
        return _number_of_samples(library, terms, batch_axis)
    one_of(REDUCTIONS[:2])(reduction, "reduction")  # a subclass may have forgotten to check it
    return _sum_of_weights(library, terms)


def _number_of_samples(library: Library, terms: Terms, batch_axis: int) -> Array | int:
    xp, mask = library.xp, terms.mask
    if mask is None:
        return int(terms.terms.shape[batch_axis])
    axes = tuple(axis for axis in range(mask.ndim) if axis != batch_axis)
    sample = xp.any(mask, axis=axes) if axes else mask
    return xp.sum(xp.astype(sample, terms.terms.dtype))


def _sum_of_weights(library: Library, terms: Terms) -> Array | int:
    values, mask, weight, _ = terms
    if mask is None and weight is None:
        return math.prod(values.shape)
    if weight is None:
        weight = library.xp.astype(mask, values.dtype)
    elif mask is not None:
        weight = fill_masked(library, weight, mask)
    # A process of several may have no sample.
    repeated = math.prod(values.shape) // max(math.prod(weight.shape), 1)
    return library.sum_all(weight) * repeated


def divisor(library: Library, weight: Array | int) -> Array | int:
    """Return the number to divide a sum by: the weight, or 1 if nothing counts."""
    return weight if isinstance(weight, int) else or_one(library, weight)


def as_array(library: Library, total: Array, weight: Array | int) -> Array:
    """Return the weight as a scalar array like the sum."""
    return library.constant(total, float(weight)) if isinstance(weight, int) else weight
