"""The losses by a library's own means, and a copy: what the losses are timed against on a GPU.

Each function prepares its arrays and returns a callable to time, as in `contenders`. The formulas
are those of docs/losses.md, for a label per sample and the sum of the terms.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import contenders
import numpy as np
from contenders import Run

EPSILON = 1e-6  # the published `SpikeMax` adds this to the sum of rates


def copied_entries(loss: Any, shape: tuple[int, ...]) -> int:
    """Return the entries of a copy that moves as many bytes as value and gradient have to.

    These read the spikes, `SpikeTime` the desired spikes too, and write the gradient. A copy reads
    and writes each of its entries.
    """
    arrays = 3 if type(loss).__name__ == "SpikeTime" else 2
    return arrays * math.prod(shape) // 2


def sum_of_terms(
    loss: Any, xp: Any, rate: Any, label: Any, steps: int, cross_entropy: Callable[..., Any]
) -> Any:
    """Return the loss of rates over so many steps, ``[batch, class]`` or ``[..., time]``.

    `label` is one-hot, as bools, or for `SpikeMoid` multi-hot, as floats.
    """
    label = label if rate.ndim == 2 else label[..., None]
    name = type(loss).__name__
    if name == "SpikeRate":
        return (xp.where(label, rate - loss.true_rate, rate - loss.false_rate) ** 2).sum()
    if name == "SpikeMoid":
        return cross_entropy((rate - loss.theta) / loss.alpha, label)
    own = xp.where(label, rate, 0.0).sum(1)
    few = loss.pseudo_count / steps
    lack = (few - own).clip(min=0)
    total = rate.sum(1) + EPSILON + rate.shape[1] * lack
    return (lack / few - xp.log(own + lack) + xp.log(total)).sum()


def _label(loss: Any, shape: tuple[int, ...]) -> np.ndarray:
    hot = np.eye(shape[1], dtype=np.float32)[np.arange(shape[0]) % shape[1]]
    return hot if type(loss).__name__ == "SpikeMoid" else hot > 0


# PyTorch -----------------------------------------------------------------------------------------


def torch_copy(loss: Any, shape: tuple[int, ...]) -> Run:
    import torch

    source = torch.zeros(copied_entries(loss, shape))
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def torch_own(loss: Any, shape: tuple[int, ...]) -> Run:
    import torch

    functions, window = torch.nn.functional, loss.moving_window

    def cross_entropy(z: Any, y: Any) -> Any:
        y = y.expand_as(z)
        return functions.binary_cross_entropy_with_logits(z, y, reduction="sum")

    def value(spikes: Any, label: Any) -> Any:
        if window is None:
            rate = spikes.mean(-1)
        else:
            rate = functions.avg_pool1d(functions.pad(spikes, (window - 1, 0)), window, stride=1)
        return sum_of_terms(loss, torch, rate, label, window or shape[-1], cross_entropy)

    spikes = torch.asarray(contenders.random_spikes(shape)).requires_grad_()
    return contenders._backward(value, spikes, torch.asarray(_label(loss, shape)))


def torch_plain(loss: Any, shape: tuple[int, ...], *, compiled: bool = False) -> Run:
    """Evaluate the line that a user would write for `CrossEntropy`."""
    import torch

    def value(spikes: Any, label: Any) -> Any:
        return torch.nn.functional.cross_entropy(spikes.sum(-1), label)

    spikes, _, label, _ = contenders._torch_arrays(shape)
    chosen = torch.compile(value, fullgraph=True, dynamic=False) if compiled else value
    return contenders._backward(chosen, spikes, label)


torch_plain_compiled = functools.partial(torch_plain, compiled=True)


# JAX ---------------------------------------------------------------------------------------------


def jax_copy(loss: Any, shape: tuple[int, ...]) -> Run:
    import jax

    source, copy = jax.numpy.zeros(copied_entries(loss, shape)), jax.jit(jax.numpy.copy)
    return lambda: jax.block_until_ready(copy(source))


def jax_own(loss: Any, shape: tuple[int, ...]) -> Run:
    import jax

    window = loss.moving_window

    def cross_entropy(z: Any, y: Any) -> Any:
        return (jax.nn.softplus(z) - y * z).sum()

    def value(spikes: Any, label: Any) -> Any:
        if window is None:
            rate = spikes.mean(-1)
        else:
            sizes, before = (1, 1, window), ((0, 0), (0, 0), (window - 1, 0))
            add = jax.lax.add
            rate = jax.lax.reduce_window(spikes, 0.0, add, sizes, (1, 1, 1), before) / window
        return sum_of_terms(loss, jax.numpy, rate, label, window or shape[-1], cross_entropy)

    return contenders._jax_run(value, shape, jax.numpy.asarray(_label(loss, shape)))


def jax_plain(loss: Any, shape: tuple[int, ...]) -> Run:
    import jax

    def value(spikes: Any, hot: Any) -> Any:
        return -(jax.nn.log_softmax(spikes.sum(-1)) * hot).sum(-1).mean()

    return contenders._jax_run(value, shape, jax.numpy.asarray(_label(loss, shape)))


# CuPy --------------------------------------------------------------------------------------------


def cupy_ours(loss: Any, shape: tuple[int, ...]) -> Run:
    import cupy as xp

    import spikeloss_xp as sx

    evaluate = sx.value_and_grad(loss)
    spikes, target = (xp.asarray(x) for x in contenders._numpy_arrays(loss, shape))
    return lambda: evaluate(spikes, target)


def cupy_copy(loss: Any, shape: tuple[int, ...]) -> Run:
    import cupy as xp

    source = xp.zeros(copied_entries(loss, shape), dtype=xp.float32)
    target = xp.empty_like(source)

    def run() -> None:
        target[...] = source

    return run


def cupy_correlate(loss: Any, shape: tuple[int, ...]) -> Run:
    """Compute `SpikeTime` with a convolution along an axis, and its adjoint."""
    import cupy as xp
    from cupyx.scipy.ndimage import correlate1d

    spikes, desired = (xp.asarray(x) for x in contenders._numpy_arrays(loss, shape))
    taps, length = xp.asarray(contenders.kernel(loss.length)), loss.length
    half = length // 2  # where SciPy centres the taps
    along = {"axis": loss.time_axis, "mode": "constant"}

    def run() -> tuple[Any, Any]:
        filtered = correlate1d(spikes - desired, taps[::-1], origin=length - 1 - half, **along)
        return (filtered**2).sum(), 2 * correlate1d(filtered, taps, origin=-half, **along)

    return run


def cupy_own(loss: Any, shape: tuple[int, ...]) -> Run:
    """Compute a loss of rates and its gradient by hand, with windows as differences of sums."""
    import cupy as xp

    window, steps = loss.moving_window, loss.moving_window or shape[-1]
    spikes, label = xp.asarray(contenders.random_spikes(shape)), xp.asarray(_label(loss, shape))

    def moving_mean(x: Any) -> Any:
        sums = xp.cumsum(x, axis=-1)
        counts = sums.copy()
        counts[..., window:] -= sums[..., :-window]
        return counts / window

    def cross_entropy(z: Any, y: Any) -> Any:
        return (xp.logaddexp(xp.zeros_like(z), z) - y * z).sum()

    def run() -> tuple[Any, Any]:
        rate = spikes.mean(-1) if window is None else moving_mean(spikes)
        value = sum_of_terms(loss, xp, rate, label, steps, cross_entropy)
        slope = _slope(loss, xp, rate, label, steps)
        if window is None:
            return value, xp.broadcast_to(slope[..., None] / steps, shape).copy()
        return value, moving_mean(slope[..., ::-1])[..., ::-1]

    return run


def cupy_plain(loss: Any, shape: tuple[int, ...]) -> Run:
    """Compute `CrossEntropy` and its gradient by hand."""
    import cupy as xp

    spikes, label = xp.asarray(contenders.random_spikes(shape)), xp.asarray(_label(loss, shape))

    def run() -> tuple[Any, Any]:
        z = spikes.sum(-1)
        z -= z.max(-1, keepdims=True)
        p = xp.exp(z)
        total = p.sum(-1, keepdims=True)
        value = (xp.log(total)[..., 0] - xp.where(label, z, 0.0).sum(-1)).mean()
        slope = (p / total - label) / shape[0]
        return value, xp.broadcast_to(slope[..., None], shape).copy()

    return run


def _slope(loss: Any, xp: Any, rate: Any, label: Any, steps: int) -> Any:
    """Return the derivative of `sum_of_terms` with respect to the rates."""
    label = label if rate.ndim == 2 else label[..., None]
    name = type(loss).__name__
    if name == "SpikeRate":
        return 2 * xp.where(label, rate - loss.true_rate, rate - loss.false_rate)
    if name == "SpikeMoid":
        z = (rate - loss.theta) / loss.alpha
        return (1 / (1 + xp.exp(-z)) - label) / loss.alpha
    own = xp.where(label, rate, 0.0).sum(1, keepdims=True)
    few, classes = loss.pseudo_count / steps, rate.shape[1]
    short = own < few
    total = rate.sum(1, keepdims=True) + EPSILON + classes * (few - own).clip(min=0)
    of_own = xp.where(short, (1 - classes) / total - 1 / few, 1 / total - 1 / own)
    return xp.where(label, of_own, 1 / total)
