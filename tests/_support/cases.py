"""A small batch, and how tests vary a loss, compare arrays and expect errors."""

import dataclasses
import inspect
import re
from typing import Any

import numpy as np
import pytest

from spikeloss_xp.slayer import published

SPIKES = np.random.default_rng(0).uniform(0.125, 1, size=(3, 4, 5))  # [batch, class, time]
LABEL = [1, 0, 3]
MULTI_HOT = np.asarray([[True, False, True, False], [False] * 4, [True] * 4])


def reduced(loss: Any, reduction: str) -> Any:
    """Return the loss with another reduction."""
    return dataclasses.replace(loss, reduction=reduction)


def as_published(loss: Any) -> Any:
    """Return the loss with the same options and the numbers of lava-dl."""
    options = {each.name: getattr(loss, each.name) for each in dataclasses.fields(loss)}
    return getattr(published, type(loss).__name__)(**options)


def close(got: np.ndarray, expected: Any, rtol: float) -> None:
    """Assert that arrays agree to within `rtol` times the largest expected entry."""
    np.testing.assert_allclose(got, expected, rtol=0, atol=rtol * float(np.max(np.abs(expected))))


def raises(error: type[Exception], message: str) -> Any:
    """Expect an error whose message contains this text, in which ".*" stands for any text.

    A text that ends with "$" must be at the end of the message.
    """
    pattern = re.escape(message).replace(r"\.\*", ".*").replace(r"\$", "$")
    return pytest.raises(error, match=f"(?s){pattern}")


def line_of_module() -> int:
    """Return the line that is running at the top level of the module that called this function.

    A case in a list at the top level stores it, and its test has it in its name.
    """
    frame = inspect.currentframe()
    while frame.f_code.co_name != "<module>":
        frame = frame.f_back
    return frame.f_lineno
