"""How the tests of single losses vary a loss, and how they compare arrays."""

import dataclasses
from typing import Any

import numpy as np

import spikeloss_xp as sx


def reduced(loss: Any, reduction: str) -> Any:
    """Return the loss with another reduction."""
    return dataclasses.replace(loss, reduction=reduction)


def close(got: np.ndarray, expected: Any, rtol: float) -> None:
    """Assert that arrays agree to within `rtol` times the largest expected entry."""
    np.testing.assert_allclose(got, expected, rtol=0, atol=rtol * float(np.max(np.abs(expected))))


def check_by_hand(
    backend: Any, loss: Any, spikes: np.ndarray, target: Any, terms: Any, gradient: Any = None
) -> None:
    """Compare the terms of a loss with numbers computed by hand, and the gradient of their sum.

    Tolerances are relative to the largest entry, because some terms are small.
    """
    terms, arrays = (
        np.asarray(terms),
        (backend.asarray(spikes), backend.asarray(np.asarray(target))),
    )
    value, got = backend.compiled(sx.value_and_grad(loss))(*arrays)
    close(backend.numpy(value), terms.sum(), backend.rtol)
    if gradient is not None:
        close(backend.numpy(got), np.broadcast_to(gradient, spikes.shape), backend.rtol)
    close(backend.numpy(backend.compiled(reduced(loss, "none"))(*arrays)), terms, backend.rtol)
