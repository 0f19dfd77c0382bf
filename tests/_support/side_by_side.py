"""Helpers for the comparisons with other libraries."""

import importlib.util
import re
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from _support.pages import DOCS
from _support.peers import import_peer as import_peer

torch = pytest.importorskip("torch")


def table_rows(library: str) -> list[tuple[str, str]]:
    """Return the rows of a migration table: code of the other library, and its equivalent here."""
    page = DOCS / "migrating.md"
    _, section = page.read_text(encoding="utf-8").split(f"\n## {library}\n")
    _, table = section.split("\n## ")[0].split("\n| there | here |\n|---|---|\n")
    return re.findall(r"^\| `([^`]+)` \| `([^`]+)`", table.split("\n\n")[0], re.M)


def losses_of_spyx() -> ModuleType:
    """Import the module of the losses of Spyx without the package, which needs much more."""
    if (spec := importlib.util.find_spec("spyx")) is None:
        return import_peer("spyx")
    sys.modules.setdefault("spyx", importlib.util.module_from_spec(spec))  # its code does not run
    return importlib.import_module("spyx.fn")


def evaluate_line(line: str, names: dict[str, Any]) -> Any:
    """Evaluate the code of a table row; if that gives a loss, call it on the spikes and labels."""
    result = eval(line, names)
    return result(names["x"], names["y"]) if callable(result) else result


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trains(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (torch.rand(shape, generator=generator(0)) < 0.3).to(dtype)


def potentials(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return normal random numbers, no two of them equal."""
    return torch.randn(shape, generator=generator(1), dtype=dtype)


def labels(classes: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randint(classes, shape, generator=generator(2))


def value_and_gradient(loss: Callable[[Any], Any], input: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return value and gradient, for a cotangent that is not 1, in PyTorch or in JAX."""
    xp = torch if isinstance(input, torch.Tensor) else importlib.import_module("jax.numpy")

    def weighted(x: Any) -> Any:
        value = loss(x)
        terms = value.reshape(-1)
        return terms @ (1.5 - 0.7 * xp.arange(len(terms), dtype=terms.dtype)), value

    if xp is not torch:
        jax = importlib.import_module("jax")
        gradient, value = jax.jit(jax.grad(weighted, has_aux=True))(input)
        return np.asarray(value), np.asarray(gradient)
    leaf = input.clone().requires_grad_()
    total, value = weighted(leaf)
    total.backward()
    return value.detach().numpy(), leaf.grad.numpy()


def assert_match(theirs: Callable[[Any], Any], ours: Callable[[Any], Any], input: Any) -> None:
    """Assert that both losses have the same value and gradient, on a tensor or an array of JAX."""
    close_to(value_and_gradient(ours, input), value_and_gradient(theirs, input))


def close_to(ours: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray]) -> None:
    """Assert that our value and gradient equal those of another library, which are not all 0."""
    (our_value, our_gradient), (value, gradient) = ours, theirs
    # A few hundred roundings: the sums have no more terms than that.
    rtol = {"float32": 2e-5, "float64": 1e-12}[gradient.dtype.name]
    assert our_value.shape == (value.shape if value.size > 1 else our_value.shape)
    # The other library takes the logarithm of a sum near 1, so its small losses have lost digits.
    eps = np.finfo(gradient.dtype).eps
    np.testing.assert_allclose(our_value.flatten(), value.flatten(), rtol=rtol, atol=eps)
    largest = np.abs(gradient).max()
    assert largest > 0
    np.testing.assert_allclose(our_gradient, gradient, atol=rtol * largest)
