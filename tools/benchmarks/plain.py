"""Losses, penalties and likelihoods, each with the plain line that a user would write instead."""

import dataclasses
import functools
import importlib
from collections.abc import Callable
from typing import Any

import contenders
import numpy as np

import spikeloss_xp as sx
from spikeloss_xp._arrays import adapter_of

LAYOUTS = {"first": 0, "last": -1}
"""The time axis of each layout: spikes are [time, batch, class] or [batch, class, time]."""
WINDOW, TAU, TAPS = 20, 5.0, 100
RATES = 0.5, 0.02
LINE = "the plain line"


MEAN = {"reduction": "mean", "time_axis": 0}
LOSSES = {
    "counts": sx.CrossEntropy(time_axis=0),
    "sqrt_count": sx.CrossEntropy(time_axis=0, readout="sqrt_count"),
    "each step": sx.CrossEntropy(time_axis=0, moving_window=1),
    "window 20": sx.CrossEntropy(time_axis=0, moving_window=WINDOW),
    "SpikeRate": sx.SpikeRate(*RATES, **MEAN),
    "SpikeTime": sx.SpikeTime(time_constant=TAU, length=TAPS, **MEAN),
    "counts, probabilities": sx.CrossEntropy(time_axis=0),
    "each step, probabilities": sx.CrossEntropy(time_axis=0, moving_window=1),
}


PENALTIES: dict[str, tuple[Any, Callable[..., Any]]] = {  # our penalty and the plain line
    "a cap": (
        sx.SparsityEnforcer(0.05, rate_weight=100, time_axis=0),
        lambda x: 100 * (x.mean() - 0.05).clip(0) ** 2,
    ),
    "a cap per neuron": (
        sx.SparsityEnforcer(0.05, rate_weight=100, per="neuron", time_axis=0),
        lambda x: 100 * ((x.mean((0, 1)) - 0.05).clip(0) ** 2).mean(),
    ),
    "L1": (sx.SparsityEnforcer(0, power=1, time_axis=0), lambda x: x.mean()),
}


LIKELIHOODS = {
    "log rates": sx.PoissonNLL(time_axis=0),
    "rates": sx.PoissonNLL(time_axis=0, link="identity"),
    "logits": sx.BernoulliNLL(time_axis=0),
}


def of_potentials(size: tuple[int, int, int]) -> dict[str, contenders.Run]:
    """Return the runs of our loss on the sums of softmax outputs and of PyTorch's line."""
    import torch.nn.functional as F  # noqa: N812

    loss = sx.CrossEntropy(time_axis=0, readout="softmax_sum")
    potentials = np.random.default_rng(0).normal(size=size).astype("f")
    label = np.arange(size[1]) % size[2]
    runs = {"ours": loss, LINE: lambda x, y: F.cross_entropy(F.softmax(x, -1).sum(0), y)}
    return {
        key: contenders.with_gradient("PyTorch", run, potentials, label)
        for key, run in runs.items()
    }


def likelihood_line(library: str, name: str) -> Callable[..., Any]:
    """Return the line that PyTorch or JAX users would write instead of a likelihood."""
    if library == "JAX":
        import jax.numpy as jnp

        return {
            "log rates": lambda x, n: (jnp.exp(x) - n * x).mean(),
            "rates": lambda x, n: (x - n * jnp.log(x)).mean(),
            "logits": lambda x, s: (jnp.logaddexp(0, x) - s * x).mean(),
        }[name]
    import torch.nn.functional as F  # noqa: N812

    return {
        "log rates": F.poisson_nll_loss,
        "rates": lambda x, n: F.poisson_nll_loss(x, n, log_input=False),
        "logits": F.binary_cross_entropy_with_logits,
    }[name]


def likelihood_arrays(name: str, size: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return a model's output, and the recorded counts or binary spikes."""
    random = np.random.default_rng(0)
    x, counts = random.normal(-1, 1, size), random.poisson(0.3, size)
    given = np.exp(x) if name == "rates" else x
    target = counts > 0 if name == "logits" else counts
    return given.astype("f"), target.astype("f")


def arrays(name: str, size: tuple[int, int, int], axis: int) -> list[np.ndarray]:
    """Return spikes with this time axis, the target of our loss and the target of the line."""
    classes, loss = size[2], LOSSES[name]
    spikes, target = contenders.arrays(loss, size)
    if name.endswith("probabilities"):
        target = (0.1 / classes + 0.9 * np.eye(classes)[target]).astype("f")
    if axis == -1:
        spikes = np.moveaxis(spikes, 0, -1).copy()
        target = np.moveaxis(target, 0, -1).copy() if target.ndim == 3 else target
    if isinstance(loss, sx.SpikeRate):
        rates = np.where(target[:, None] == np.arange(classes), *RATES).astype("f")
        return [spikes, target, rates]
    return [spikes, target, target]


@functools.cache
def filter_matrix(steps: int) -> np.ndarray:
    """Return the matrix that filters the whole time axis."""
    lag = np.arange(steps)[:, None] - np.arange(steps)
    taps = np.exp(-np.arange(TAPS) / TAU)
    return np.where((lag >= 0) & (lag < TAPS), taps[np.clip(lag, 0, TAPS - 1)], 0).astype("f")


def torch_operations(axis: int, steps: int) -> tuple[Any, ...]:
    """Return the library, the moving sum, the cross entropy and the mean squared error."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    def windows(x: Any) -> Any:
        total = torch.cumsum(x, axis)
        ahead = (0, 0, 0, 0, WINDOW, 0) if axis == 0 else (WINDOW, 0)
        return total - F.pad(total, ahead).narrow(axis, 0, steps)

    def cross_entropy(u: Any, y: Any) -> Any:
        if u.ndim == 2:
            return F.cross_entropy(u, y)
        if axis == 0:
            return F.cross_entropy(u.flatten(0, 1), y.repeat(steps, *[1] * (y.ndim - 1)))
        return F.cross_entropy(u, y[..., None].expand(*y.shape, steps))

    return torch, windows, cross_entropy, F.mse_loss


def jax_operations(axis: int, steps: int) -> tuple[Any, ...]:
    import jax
    import jax.numpy as jnp
    import optax

    def windows(x: Any) -> Any:
        total, ahead = jnp.cumsum(x, axis), [(0, 0)] * 3
        ahead[axis] = (WINDOW, 0)
        return total - jax.lax.slice_in_dim(jnp.pad(total, ahead), 0, steps, axis=axis)

    def cross_entropy(u: Any, y: Any) -> Any:
        u = jnp.moveaxis(u, -1, 0) if u.ndim == 3 and axis == -1 else u
        if y.ndim == 2:
            return optax.softmax_cross_entropy(u, jnp.broadcast_to(y, u.shape)).mean()
        labels = jnp.broadcast_to(y, u.shape[:-1])
        return optax.softmax_cross_entropy_with_integer_labels(u, labels).mean()

    return jnp, windows, cross_entropy, lambda u, y: ((u - y) ** 2).mean()


def line(loss: Any, axis: int, steps: int, operations: tuple[Any, ...]) -> Callable[..., Any]:
    """Return the plain line for a library that differentiates it automatically."""
    xp, windows, cross_entropy, squares = operations
    if isinstance(loss, sx.SpikeTime):
        matrix = xp.asarray(filter_matrix(steps))
        if axis == 0:
            return lambda x, y: (xp.tensordot(matrix, x - y, 1) ** 2).mean()
        return lambda x, y: (((x - y) @ matrix.T) ** 2).mean()
    if isinstance(loss, sx.SpikeRate):
        return lambda x, y: squares(x.mean(axis), y)
    read = {None: lambda x: x.sum(axis), 1: lambda x: x, WINDOW: windows}[loss.moving_window]
    return lambda x, y: cross_entropy(read(x), y)


def line_by_hand(loss: Any, axis: int, shape: tuple[int, ...], xp: Any) -> Callable[..., Any]:
    """Return a function for the value and gradient of the line, with NumPy or CuPy arrays."""
    steps, matrix = shape[axis], xp.asarray(filter_matrix(shape[axis]))

    def windows(x: Any) -> Any:
        total, other_axes = xp.cumsum(x, axis=axis), (slice(None),) * (axis % 3)
        late, early = (*other_axes, slice(WINDOW, None)), (*other_axes, slice(None, -WINDOW))
        if steps > WINDOW:
            total[late] -= total[early].copy()
        return total

    def windows_back(g: Any) -> Any:
        return xp.flip(windows(xp.flip(g, axis)), axis)

    def spread(g: Any) -> Any:
        return xp.broadcast_to(xp.expand_dims(g, axis), shape).copy()

    def squares(difference: Any) -> tuple[Any, Any]:
        return (difference**2).mean(), 2 / difference.size * difference

    def cross_entropy(u: Any, y: Any) -> tuple[Any, Any]:
        time_last = u.ndim == 3 and axis == -1
        class_axis = 1 if time_last else -1
        e = xp.exp(u - u.max(class_axis, keepdims=True))
        e /= e.sum(class_axis, keepdims=True)
        number = e.size // e.shape[class_axis]
        if y.ndim == 2:
            y = y[..., None] if time_last else y
            value = -(y * xp.log(e)).sum() / number
            e -= y
        else:
            labelled = xp.arange(len(y)), y
            labelled = labelled if time_last else (..., *labelled)
            p = e[labelled]
            value = -xp.log(p).sum() / number
            e[labelled] = p - 1
        e /= number
        return value, e

    def filtered(x: Any, y: Any) -> tuple[Any, Any]:
        if axis == 0:
            value, g = squares(xp.tensordot(matrix, x - y, 1))
            return value, xp.tensordot(matrix.T, g, 1)
        value, g = squares((x - y) @ matrix.T)
        return value, g @ matrix

    def rates(x: Any, y: Any) -> tuple[Any, Any]:
        value, g = squares(x.mean(axis) - y)
        return value, spread(g / steps)

    read, back = {
        None: (lambda x: x.sum(axis), spread),
        1: (lambda x: x, lambda g: g),
        WINDOW: (windows, windows_back),
    }[getattr(loss, "moving_window", None)]

    def entropy(x: Any, y: Any) -> tuple[Any, Any]:
        value, g = cross_entropy(read(x), y)
        return value, back(g)

    return {sx.SpikeTime: filtered, sx.SpikeRate: rates}.get(type(loss), entropy)


def errors(got: tuple[Any, Any], expected: tuple[Any, Any]) -> np.ndarray:
    """Return the largest errors of value and gradient, relative to the largest expected entry."""
    pairs = [[adapter_of(x).to_host(x) for x in pair] for pair in zip(got, expected, strict=True)]
    return np.asarray([np.max(np.abs(x - y)) / np.max(np.abs(y)) for x, y in pairs])


def setups(
    library: str, name: str, size: tuple[int, int, int], layout: str
) -> dict[str, Callable[[], contenders.Run]]:
    """Return functions that prepare the runs of our loss and of the plain line."""
    axis = LAYOUTS[layout]
    loss = dataclasses.replace(LOSSES[name], time_axis=axis)
    spikes, target, plain_target = arrays(name, size, axis)

    def plain() -> contenders.Run:
        if library in ("NumPy", "CuPy"):
            xp = importlib.import_module(library.lower())
            by_hand = line_by_hand(loss, axis, spikes.shape, xp)
            return contenders.called(library, by_hand, spikes, plain_target)
        operations = jax_operations if library == "JAX" else torch_operations
        plain_line = line(loss, axis, size[0], operations(axis, size[0]))
        return contenders.with_gradient(library, plain_line, spikes, plain_target)

    return {"ours": lambda: contenders.with_gradient(library, loss, spikes, target), LINE: plain}
