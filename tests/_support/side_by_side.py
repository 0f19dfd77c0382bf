"""Helpers for the comparisons with other libraries."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _support.peers import import_peer as import_peer

torch = pytest.importorskip("torch")


def table_rows(library: str) -> list[Any]:
    """Return the rows of a migration table: code of the other library, and its equivalent here."""
    page = Path(__file__).parents[2] / "docs" / "migrating.md"
    _, section = page.read_text(encoding="utf-8").split(f"\n## {library}\n")
    _, table = section.split("\n## ")[0].split("\n| there | here |\n|---|---|\n")
    table = table.split("\n\n")[0].splitlines()
    rows = [re.match(r"\| `([^`]+)` \| `([^`]+)`", line) for line in table]
    return [pytest.param(*row.groups(), id=row[1]) for row in rows]


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


def assert_match(
    theirs: Callable[[torch.Tensor], torch.Tensor],
    ours: Callable[[torch.Tensor], torch.Tensor],
    input: torch.Tensor,
    rtol: float | None = None,
) -> None:
    """Assert that both losses have the same value and gradient, for a cotangent that is not 1."""
    if rtol is None:  # a few hundred roundings: the sums have no more terms than that
        rtol = {torch.float32: 2e-5, torch.float64: 1e-12}[input.dtype]
    results = []
    for loss in (theirs, ours):
        leaf = input.clone().requires_grad_()
        value = loss(leaf)
        terms = value.reshape(-1)
        (terms @ (1.5 - 0.7 * torch.arange(len(terms), dtype=terms.dtype))).backward()
        results.append((value.detach(), leaf.grad))
    (value, gradient), (our_value, our_gradient) = results
    assert our_value.shape == (value.shape if value.numel() > 1 else our_value.shape)
    # The other library takes the logarithm of a sum near 1, so its small losses have lost digits.
    eps = torch.finfo(input.dtype).eps
    np.testing.assert_allclose(our_value.flatten(), value.flatten(), rtol=rtol, atol=eps)
    assert gradient.abs().max() > 0
    np.testing.assert_allclose(our_gradient, gradient, atol=rtol * gradient.abs().max().item())
