"""How far results in two dtypes or libraries may differ."""

from typing import Any

import numpy as np

PRECISION = {  # the machine epsilon and the smallest positive number of each dtype
    "float64": (2.0**-52, 2.0**-1074),
    "float32": (2.0**-23, 2.0**-149),
    "float16": (2.0**-10, 2.0**-24),
    "bfloat16": (2.0**-7, 2.0**-133),
}
# The tolerance, in rounding errors of the dtype. For the cases recorded from lava-dl, a tolerance
# of 15 rounding errors would be enough.
ROUNDINGS = 100


def dtype_name(x: Any) -> str:
    """Return the name of an array's dtype, without the name of the library."""
    return str(x.dtype).rpartition(".")[2]


def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the absolute differences between the entries of two arrays.

    The difference is 0 if both entries are NaN or the same infinity. It is infinite if only one
    entry is NaN or infinite, and if the entries are infinities with opposite signs.
    """
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore"):
        distance = np.nan_to_num(np.abs(one - other), nan=np.inf, posinf=np.inf)
    return np.where(same, 0.0, distance)


def largest_finite(x: np.ndarray) -> float:
    """Return the largest absolute value of the finite entries, or 0 if there are none."""
    return float(np.max(np.abs(x), initial=0.0, where=np.isfinite(x)))
