"""What the comparisons with other libraries share."""

import importlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

REQUIRED = set(os.environ.get("SPIKELOSS_XP_REQUIRED_PEERS", "").split())
"""Libraries that a run must not skip: where they should be installed, a missing one is noticed."""


def peer(module: str) -> ModuleType:
    """Import a module of another library, or skip the tests where that is not installed."""
    library = module.partition(".")[0]
    if library in REQUIRED:
        return importlib.import_module(module)
    return pytest.importorskip(module, reason=f"{library} is not installed")


def documented(library: str) -> list[Any]:
    """Return the rows of a library's table in the documentation: its line, and the line here."""
    page = Path(__file__).parents[2] / "docs" / "migrating.md"
    _, section = page.read_text(encoding="utf-8").split(f"\n## {library}\n")
    _, table = section.split("\n## ")[0].split("\n| there | here |\n|---|---|\n")
    table = table.split("\n\n")[0].splitlines()
    rows = [re.match(r"\| `([^`]+)` \| `([^`]+)`", line) for line in table]
    return [pytest.param(*row.groups(), id=row[1]) for row in rows]


def evaluated(line: str, names: dict[str, Any]) -> Any:
    """Evaluate a line of such a table, with the spikes and labels where it calls nothing."""
    result = eval(line, names)
    return result(names["x"], names["y"]) if callable(result) else result


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trains(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (torch.rand(shape, generator=generator(0)) < 0.3).to(dtype)


def potentials(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Make numbers of either sign, no two of them equal."""
    return torch.randn(shape, generator=generator(1), dtype=dtype)


def labels(classes: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randint(classes, shape, generator=generator(2))


def both(
    theirs: Callable[[torch.Tensor], torch.Tensor],
    ours: Callable[[torch.Tensor], torch.Tensor],
    input: torch.Tensor,
    rtol: float | None = None,
) -> None:
    """Evaluate value and gradient with both, for a cotangent that is not 1, and compare."""
    if rtol is None:  # a few hundred roundings, as many as the sums here have terms, or more
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
    # Their logarithm is of a sum with a 1 in it: a small loss has lost digits that ours has.
    eps = torch.finfo(input.dtype).eps
    np.testing.assert_allclose(our_value.flatten(), value.flatten(), rtol=rtol, atol=eps)
    assert gradient.abs().max() > 0
    np.testing.assert_allclose(our_gradient, gradient, atol=rtol * gradient.abs().max().item())
