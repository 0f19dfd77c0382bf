"""What is timed: each function sets up, imports what it needs, and returns what runs once.

Spikes are float32 with one step in ten firing. Where gradients are meant, a run computes value and
gradient and forgets them.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

import spikeloss_xp as sx

Run = Callable[[], Any]
TIME_CONSTANT = 5


def trains(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random(shape, np.float32) < 0.1).astype(np.float32)


def kernel(length: int) -> np.ndarray:
    return sx.exponential_kernel(TIME_CONSTANT, length).astype(np.float32)


@functools.cache
def _torch_arrays(shape: tuple[int, ...]) -> tuple[Any, Any, Any, Any]:
    import torch

    label = torch.arange(shape[0]) % shape[1]
    hot = torch.nn.functional.one_hot(label, shape[1]).float()
    spikes = torch.from_numpy(trains(shape)).requires_grad_()
    return spikes, torch.from_numpy(trains(shape, 1)), label, hot


def _backward(value_of: Callable[..., Any], spikes: Any, *rest: Any) -> Run:
    def run() -> None:
        spikes.grad = None
        value_of(spikes, *rest).backward()

    return run


def _target(loss: Any, shape: tuple[int, ...]) -> Any:
    _, desired, label, hot = _torch_arrays(shape)
    return {"SpikeTime": desired, "SpikeMoid": hot}.get(type(loss).__name__, label)


def torch_eager(loss: Any, shape: tuple[int, ...]) -> Run:
    return _backward(loss, _torch_arrays(shape)[0], _target(loss, shape))


def torch_moved(loss: Any, shape: tuple[int, ...]) -> Run:
    """The loss of trains whose time, which comes first, is moved to the end for it."""
    time_last = dataclasses.replace(loss, time_axis=-1)

    def value(spikes: Any, desired: Any) -> Any:
        return time_last(*(x.movedim(loss.time_axis, -1).contiguous() for x in (spikes, desired)))

    return _backward(value, *_torch_arrays(shape)[:2])


def torch_compiled(loss: Any, shape: tuple[int, ...]) -> Run:
    import torch

    loss(*_torch_arrays(shape)[:1], _target(loss, shape))  # array classes are known from here on
    compiled = torch.compile(loss, fullgraph=True, dynamic=False)
    return _backward(compiled, _torch_arrays(shape)[0], _target(loss, shape))


def torch_floor(loss: Any, shape: tuple[int, ...]) -> Run:
    """`SpikeTime` without its filter."""
    return _backward(lambda s, d: ((s - d) ** 2).sum(), *_torch_arrays(shape)[:2])


def torch_compiled_floor(loss: Any, shape: tuple[int, ...]) -> Run:
    import torch

    compiled = torch.compile(lambda s, d: ((s - d) ** 2).sum(), dynamic=False)
    return _backward(compiled, *_torch_arrays(shape)[:2])


def torch_products(loss: Any, shape: tuple[int, ...]) -> Run:
    """Only the matrix products that filter the blocks of `SpikeTime`, there and back.

    In parts as large as those that the loss is evaluated in, with the operands in place.
    """
    import torch

    from spikeloss_xp._kernels import blocks
    from spikeloss_xp.backends import _torch_filters

    made = blocks(loss._kernel(), shape[-1], "float32", reverse=False)
    matrix = torch.from_numpy(made.weights)
    parts = -(-math.prod(shape) // _torch_filters.CACHED)
    joined = torch.rand(math.prod(shape) // matrix.shape[1] // parts, matrix.shape[0])
    filtered = joined @ matrix

    def run() -> None:
        for _ in range(2 * parts):
            torch.mm(joined, matrix, out=filtered)

    return run


def lava(loss: Any, shape: tuple[int, ...]) -> Run:
    from lava.lib.dl import slayer

    options = {
        "SpikeTime": ("time_constant", "length", "filter_order"),
        "SpikeRate": ("true_rate", "false_rate", "moving_window"),
        "SpikeMax": ("moving_window", "mode"),
        "SpikeMoid": ("moving_window", "alpha", "theta"),
    }[type(loss).__name__]
    theirs = getattr(slayer.loss, type(loss).__name__)
    return _backward(
        theirs(**{name: getattr(loss, name) for name in options}),
        _torch_arrays(shape)[0],
        # Windowed rates want a label for each step there.
        _per_step(loss, shape),
    )


def _per_step(loss: Any, shape: tuple[int, ...]) -> Any:
    target = _target(loss, shape)
    if getattr(loss, "moving_window", None) is None:
        return target
    return target[..., None].repeat(*(1 for _ in target.shape), shape[-1])


def conv1d(loss: Any, shape: tuple[int, ...]) -> Run:
    """`SpikeTime` by a convolution of each train, as one would write it."""
    import torch

    taps = torch.from_numpy(kernel(loss.length)[::-1].copy())[None, None]

    def value(spikes: Any, desired: Any) -> Any:
        difference = (spikes - desired).reshape(-1, 1, shape[-1])
        padded = torch.nn.functional.pad(difference, (loss.length - 1, 0))
        return (torch.nn.functional.conv1d(padded, taps) ** 2).sum()

    return _backward(value, *_torch_arrays(shape)[:2])


def snntorch_count(loss: Any, shape: tuple[int, ...]) -> Run:
    """The count loss that is nearest to a global one, on time first, as it wants them."""
    import snntorch.functional

    theirs = {
        "SpikeRate": lambda: snntorch.functional.mse_count_loss(loss.true_rate, loss.false_rate),
        "SpikeMax": lambda: snntorch.functional.ce_count_loss(),
    }[type(loss).__name__]()
    spikes, _, label, _ = _torch_arrays(shape)
    time_first = spikes.detach().permute(2, 0, 1).contiguous().requires_grad_()
    return _backward(theirs, time_first, label)


@functools.cache
def _jax_arrays(shape: tuple[int, ...]) -> tuple[Any, Any]:
    import jax.numpy as jnp

    return jnp.asarray(trains(shape)), jnp.asarray(trains(shape, 1))


def _jax_run(value_of: Callable[..., Any], shape: tuple[int, ...]) -> Run:
    import jax

    compiled = jax.jit(jax.value_and_grad(value_of))
    arrays = _jax_arrays(shape)
    return lambda: jax.block_until_ready(compiled(*arrays))


def jax_jit(loss: Any, shape: tuple[int, ...]) -> Run:
    return _jax_run(loss, shape)


def jax_floor(loss: Any, shape: tuple[int, ...]) -> Run:
    return _jax_run(lambda s, d: ((s - d) ** 2).sum(), shape)


def jax_moved(loss: Any, shape: tuple[int, ...]) -> Run:
    """The loss of trains whose time, which comes first, is moved to the end for it."""
    import jax.numpy as jnp

    time_last = dataclasses.replace(loss, time_axis=-1)

    def value(*trains: Any) -> Any:
        return time_last(*(jnp.moveaxis(x, loss.time_axis, -1) for x in trains))

    return _jax_run(value, shape)


def lax_conv(loss: Any, shape: tuple[int, ...]) -> Run:
    """`SpikeTime` by a convolution of each train, as one would write it."""
    import jax

    taps = kernel(loss.length)[::-1][None, None].copy()

    def value(spikes: Any, desired: Any) -> Any:
        difference = (spikes - desired).reshape(-1, 1, shape[-1])
        filtered = jax.lax.conv_general_dilated(difference, taps, (1,), [(loss.length - 1, 0)])
        return (filtered**2).sum()

    return _jax_run(value, shape)


def _numpy_arrays(loss: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    label = np.arange(shape[0]) % shape[1]
    targets = {"SpikeTime": lambda: trains(shape, 1), "SpikeMoid": lambda: np.eye(shape[1])[label]}
    return trains(shape), targets.get(type(loss).__name__, lambda: label)()


def numpy_value(loss: Any, shape: tuple[int, ...]) -> Run:
    arrays = _numpy_arrays(loss, shape)
    return lambda: loss(*arrays)


def numpy_gradient(loss: Any, shape: tuple[int, ...]) -> Run:
    evaluate, arrays = sx.value_and_grad(loss), _numpy_arrays(loss, shape)
    return lambda: evaluate(*arrays)


def numpy_floor(loss: Any, shape: tuple[int, ...]) -> Run:
    spikes, desired = _numpy_arrays(loss, shape)
    return lambda: np.sum((spikes - desired) ** 2)


def fftconvolve(loss: Any, shape: tuple[int, ...]) -> Run:
    import scipy.signal

    spikes, desired = _numpy_arrays(loss, shape)
    taps = kernel(loss.length)[None, None]

    def run() -> Any:
        filtered = scipy.signal.fftconvolve(spikes - desired, taps, axes=-1)[..., : shape[-1]]
        return np.sum(filtered**2)

    return run


def lfilter(loss: Any, shape: tuple[int, ...]) -> Run:
    """`SpikeTime` by the recursion whose impulse response is the kernel, never cut off."""
    import scipy.signal

    spikes, desired = _numpy_arrays(loss, shape)
    one, decay = np.float32([1]), np.float32([1, -math.exp(-1 / TIME_CONSTANT)])
    return lambda: np.sum(scipy.signal.lfilter(one, decay, spikes - desired) ** 2)
