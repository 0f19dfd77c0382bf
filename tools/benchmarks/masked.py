"""Losses with a mask, each with the plain line that a user would write for the same mask.

The plain lines multiply by the mask, so they are not safe from NaN or infinity in masked entries. A
mask of lengths is made inside the timed code, in our losses as in the plain lines.
"""

from collections.abc import Callable
from typing import Any

import contenders
import numpy as np
import plain
from plain import LINE, LOSSES

Size = tuple[int, int, int]  # [time, batch, class]


def mask_for(name: str, mask: str, size: Size) -> dict[str, np.ndarray]:
    """Return lengths, or a mask ``[time, batch]``, or for a likelihood one of the input's shape."""
    steps, batch, _ = size
    if mask == "lengths":
        return {"lengths": 1 + np.arange(batch) % steps}
    shape = size if name in plain.LIKELIHOODS else size[:2]
    return {"where": np.random.default_rng(0).random(shape) < 0.8}


def with_mask(xp: Any, line: Callable[..., Any], steps: int) -> Callable[..., Any]:
    """Return a function of spikes, target and mask that passes the mask as floats to the line."""

    def masked(x: Any, y: Any, lengths: Any = None, where: Any = None) -> Any:
        keep = xp.arange(steps)[:, None] < lengths if where is None else where
        return line(x, y, keep * xp.ones((), dtype=x.dtype))

    return masked


def of_torch(name: str, steps: int) -> Callable[..., Any]:
    """Return the plain line for PyTorch."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    def each_step(x: Any, y: Any, m: Any) -> Any:
        terms = F.cross_entropy(x.flatten(0, 1), y.repeat(steps), reduction="none")
        return (terms.view_as(m) * m).sum() / m.sum()

    def likelihood(x: Any, y: Any, m: Any) -> Any:
        if name == "log rates":
            terms = F.poisson_nll_loss(x, y, reduction="none")
        else:
            terms = F.binary_cross_entropy_with_logits(x, y, reduction="none")
        return (terms * m).sum() / m.sum()

    def counts(x: Any, y: Any, m: Any) -> Any:
        return F.cross_entropy((x * m[..., None]).sum(0), y)

    def rates(x: Any, y: Any, m: Any) -> Any:
        return F.mse_loss((x * m[..., None]).sum(0) / m.sum(0)[:, None], y)

    lines = {"counts": counts, "each step": each_step, "SpikeRate": rates}
    return with_mask(torch, lines.get(name, likelihood), steps)


def of_jax(name: str, steps: int) -> Callable[..., Any]:
    """Return the plain line for JAX."""
    import jax.numpy as jnp
    import optax

    entropy = optax.softmax_cross_entropy_with_integer_labels

    def each_step(x: Any, y: Any, m: Any) -> Any:
        return (entropy(x, jnp.broadcast_to(y, m.shape)) * m).sum() / m.sum()

    def likelihood(x: Any, y: Any, m: Any) -> Any:
        terms = jnp.exp(x) - y * x if name == "log rates" else jnp.logaddexp(0, x) - y * x
        return (terms * m).sum() / m.sum()

    def counts(x: Any, y: Any, m: Any) -> Any:
        return entropy((x * m[..., None]).sum(0), y).mean()

    def rates(x: Any, y: Any, m: Any) -> Any:
        return (((x * m[..., None]).sum(0) / m.sum(0)[:, None] - y) ** 2).mean()

    lines = {"counts": counts, "each step": each_step, "SpikeRate": rates}
    return with_mask(jnp, lines.get(name, likelihood), steps)


def by_hand(name: str, steps: int) -> Callable[..., Any]:
    """Return a function for the value and gradient of the line with NumPy arrays."""

    def softmax(u: Any, y: Any) -> tuple[Any, Any]:
        """Return ``-log p`` of the labels, and its derivative with respect to `u`."""
        p = np.exp(u - u.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        labelled = (..., np.arange(len(y)), y)
        terms = -np.log(p[labelled])
        p[labelled] -= 1
        return terms, p

    def each_step(x: Any, y: Any, m: Any) -> tuple[Any, Any]:
        terms, g = softmax(x, y)
        number = m.sum()
        return (terms * m).sum() / number, g * (m / number)[..., None]

    def counts(x: Any, y: Any, m: Any) -> tuple[Any, Any]:
        terms, g = softmax((x * m[..., None]).sum(0), y)
        return terms.mean(), g / np.float32(len(y)) * m[..., None]

    def rates(x: Any, y: Any, m: Any) -> tuple[Any, Any]:
        number = m.sum(0)[:, None]
        difference = (x * m[..., None]).sum(0) / number - y
        g = np.float32(2 / difference.size) * difference / number
        return (difference**2).mean(), g * m[..., None]

    def log_rates(x: Any, y: Any, m: Any) -> tuple[Any, Any]:
        expected, number = np.exp(x), m.sum()
        terms = expected - y * x
        return (terms * m).sum() / number, (expected - y) * (m / number)

    lines = {"counts": counts, "each step": each_step, "SpikeRate": rates, "log rates": log_rates}
    return with_mask(np, lines[name], steps)


def runs(library: str, name: str, mask: str, size: Size) -> dict[str, contenders.Run]:
    """Return the runs of our loss and of the plain line with the same mask."""
    options = mask_for(name, mask, size)
    if name in plain.LIKELIHOODS:
        loss, given = plain.LIKELIHOODS[name], plain.likelihood_arrays(name, size)
        of_line = given
    else:
        loss = LOSSES[name]
        spikes, target, of_plain = plain.arrays(name, size, 0)
        given, of_line = (spikes, target), (spikes, of_plain)
    ours = contenders.with_gradient(library, loss, *given, **options)
    if library == "NumPy":
        line = by_hand(name, size[0])
        return {"ours": ours, LINE: lambda: line(*of_line, **options)}
    line = {"PyTorch": of_torch, "JAX": of_jax}[library](name, size[0])
    return {"ours": ours, LINE: contenders.with_gradient(library, line, *of_line, **options)}
