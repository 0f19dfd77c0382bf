"""How the tests of single losses vary a loss, and how they compare arrays."""

import dataclasses
from typing import Any

import numpy as np


def reduced(loss: Any, reduction: str) -> Any:
    """Return the loss with another reduction."""
    return dataclasses.replace(loss, reduction=reduction)


def close(got: np.ndarray, expected: Any, rtol: float) -> None:
    """Assert that arrays agree to within `rtol` times the largest expected entry."""
    np.testing.assert_allclose(got, expected, rtol=0, atol=rtol * float(np.max(np.abs(expected))))
