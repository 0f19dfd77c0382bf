"""The tolerance for comparing results from two dtypes or from two libraries."""

from typing import Any

import numpy as np

PRECISION = {  # the machine epsilon and the smallest positive number of each dtype
    "float64": (2.0**-52, 2.0**-1074),
    "float32": (2.0**-23, 2.0**-149),
    "float16": (2.0**-10, 2.0**-24),
    "bfloat16": (2.0**-7, 2.0**-133),
}
# The tolerance is this number times the machine epsilon of the dtype. For the results recorded from
# lava-dl, a factor of 15 would be enough.
ROUNDINGS = 100
LARGEST = 2.0**53  # an entry of at least this size is not a number of spikes


def dtype_name(x: Any) -> str:
    """Return the name of an array's dtype, without the name of the library."""
    return str(x.dtype).rpartition(".")[2]


def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the absolute differences between the entries of two arrays.

    The difference is 0 if both entries are NaN, or if both are the same infinity. In all other
    cases in which an entry is NaN or infinite, the difference is infinite.
    """
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore"):
        distance = np.nan_to_num(np.abs(one - other), nan=np.inf, posinf=np.inf)
    return np.where(same, 0.0, distance)


def largest_finite(x: np.ndarray) -> float:
    """Return the largest absolute value of the finite entries, or 0 if there are none."""
    return float(np.max(np.abs(x), initial=0.0, where=np.isfinite(x)))
