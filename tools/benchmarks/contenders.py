"""The implementations to time. Each function prepares its arrays and returns a callable to time.

It imports the library that it needs. Spikes are float32, and a neuron spikes in one step of ten.
Arrays are on the default device of the library, so `with torch.device("cuda"):` prepares a run on a
GPU. Unless it is for the value only, the callable computes value and gradient and returns them.
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


def random_spikes(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random(shape, np.float32) < 0.1).astype(np.float32)


def kernel(length: int) -> np.ndarray:
    return sx.exponential_kernel(TIME_CONSTANT, length).astype(np.float32)


@functools.cache
def _torch_arrays(shape: tuple[int, ...]) -> tuple[Any, Any, Any, Any]:
    import torch

    label = torch.arange(shape[0]) % shape[1]
    multi_hot = torch.nn.functional.one_hot(label, shape[1]).float()
    spikes = torch.asarray(random_spikes(shape)).requires_grad_()
    return spikes, torch.asarray(random_spikes(shape, 1)), label, multi_hot


def _backward(loss: Callable[..., Any], spikes: Any, target: Any) -> Run:
    def run() -> tuple[Any, Any]:
        spikes.grad = None
        value = loss(spikes, target)
        value.backward()
        return value, spikes.grad

    return run


def _target(loss: Any, shape: tuple[int, ...]) -> Any:
    _, desired, label, multi_hot = _torch_arrays(shape)
    if loss.time_axis == 0:  # the shape is [time, batch, class]
        label = label.new_tensor(range(shape[1])) % shape[2]
    return {"SpikeTime": desired, "SpikeMoid": multi_hot}.get(type(loss).__name__, label)


def torch_eager(loss: Any, shape: tuple[int, ...]) -> Run:
    return _backward(loss, _torch_arrays(shape)[0], _target(loss, shape))


def torch_double_backward(loss: Any, shape: tuple[int, ...]) -> Run:
    """Differentiate the gradient once more, after value and gradient."""
    import torch

    spikes, direction, _, _ = _torch_arrays(shape)
    target = _target(loss, shape)

    def run() -> tuple[Any, Any]:
        spikes.grad = None
        value = loss(spikes, target)
        (gradient,) = torch.autograd.grad(value, spikes, create_graph=True)
        gradient.backward(direction)
        return value, spikes.grad

    return run


def torch_moveaxis(loss: Any, shape: tuple[int, ...]) -> Run:
    """Move the time axis of time-first spikes to the end, then evaluate the loss."""
    time_last = dataclasses.replace(loss, time_axis=-1)

    def value(spikes: Any, desired: Any) -> Any:
        return time_last(*(x.movedim(loss.time_axis, -1).contiguous() for x in (spikes, desired)))

    return _backward(value, *_torch_arrays(shape)[:2])


def torch_compiled(loss: Any, shape: tuple[int, ...]) -> Run:
    import torch

    loss(*_torch_arrays(shape)[:1], _target(loss, shape))  # caches the lookup of the array class
    compiled = torch.compile(loss, fullgraph=True, dynamic=False)
    return _backward(compiled, _torch_arrays(shape)[0], _target(loss, shape))


def torch_floor(loss: Any, shape: tuple[int, ...]) -> Run:
    """Evaluate `SpikeTime` without its filter: the floor of its time."""
    return _backward(lambda s, d: ((s - d) ** 2).sum(), *_torch_arrays(shape)[:2])


def torch_products(loss: Any, shape: tuple[int, ...]) -> Run:
    """Run only the matrix products of the block filter of `SpikeTime`, forward and backward.

    They have the chunk size of the loss, and their operands are allocated before the run.
    """
    import torch

    from spikeloss_xp import _tuning
    from spikeloss_xp._kernels import block_matrices

    filter_blocks = block_matrices(loss._kernel(), shape[-1], "float32", reverse=False)
    matrix = torch.from_numpy(filter_blocks.weights)
    chunks = -(-math.prod(shape) // _tuning.AUTOGRAD_CHUNK)
    operand = torch.rand(math.prod(shape) // matrix.shape[1] // chunks, matrix.shape[0])
    product = operand @ matrix

    def run() -> None:
        for _ in range(2 * chunks):
            torch.mm(operand, matrix, out=product)

    return run


def lava(loss: Any, shape: tuple[int, ...]) -> Run:
    from lava.lib.dl import slayer

    options = {
        "SpikeTime": ("time_constant", "length", "filter_order"),
        "SpikeRate": ("true_rate", "false_rate", "moving_window"),
        "SpikeMax": ("moving_window", "mode"),
        "SpikeMoid": ("moving_window", "alpha", "theta"),
    }[type(loss).__name__]
    lava_class = getattr(slayer.loss, type(loss).__name__)
    return _backward(
        lava_class(**{name: getattr(loss, name) for name in options}),
        _torch_arrays(shape)[0],
        # With a moving window, lava-dl expects a label for each step.
        _target_per_step(loss, shape),
    )


def _target_per_step(loss: Any, shape: tuple[int, ...]) -> Any:
    target = _target(loss, shape)
    if getattr(loss, "moving_window", None) is None:
        return target
    return target[..., None].repeat(*(1 for _ in target.shape), shape[-1])


def conv1d(loss: Any, shape: tuple[int, ...]) -> Run:
    """Compute `SpikeTime` with a library convolution of each spike train."""
    import torch

    taps = torch.asarray(kernel(loss.length)[::-1].copy())[None, None]

    def value(spikes: Any, desired: Any) -> Any:
        difference = (spikes - desired).reshape(-1, 1, shape[-1])
        padded = torch.nn.functional.pad(difference, (loss.length - 1, 0))
        return (torch.nn.functional.conv1d(padded, taps) ** 2).sum()

    return _backward(value, *_torch_arrays(shape)[:2])


def snntorch_count(loss: Any, shape: tuple[int, ...]) -> Run:
    """Evaluate snnTorch's closest count loss, on the time-first spikes that it expects."""
    import snntorch.functional

    snntorch_loss = {
        "SpikeRate": lambda: snntorch.functional.mse_count_loss(loss.true_rate, loss.false_rate),
        "SpikeMax": lambda: snntorch.functional.ce_count_loss(),
    }[type(loss).__name__]()
    spikes, _, label, _ = _torch_arrays(shape)
    time_first = spikes.detach().permute(2, 0, 1).contiguous().requires_grad_()
    return _backward(snntorch_loss, time_first, label)


def snntorch_temporal(loss: Any, shape: tuple[int, ...]) -> Run:
    """Evaluate snnTorch's cross-entropy of latencies; the spikes have time first."""
    import snntorch.functional

    theirs = snntorch.functional.ce_temporal_loss(reduction=loss.reduction)
    spikes = _torch_arrays(shape)[0]
    return _backward(theirs, spikes, _target(loss, shape))


@functools.cache
def _jax_arrays(shape: tuple[int, ...]) -> tuple[Any, Any]:
    import jax.numpy as jnp

    return jnp.asarray(random_spikes(shape)), jnp.asarray(random_spikes(shape, 1))


def _jax_run(loss: Callable[..., Any], shape: tuple[int, ...], target: Any = None) -> Run:
    import jax

    compiled = jax.jit(jax.value_and_grad(loss))
    spikes, desired = _jax_arrays(shape)
    target = desired if target is None else target
    return lambda: jax.block_until_ready(compiled(spikes, target))


def _jax_target(loss: Any, shape: tuple[int, ...]) -> Any:
    """Return the labels of a loss; None for `SpikeTime`, which has desired spikes."""
    import jax

    name, label = type(loss).__name__, np.arange(shape[0]) % shape[1]
    if name == "SpikeTime":
        return None
    multi_hot = np.eye(shape[1], dtype=np.float32)[label]
    return jax.numpy.asarray(multi_hot if name == "SpikeMoid" else label)


def jax_jit(loss: Any, shape: tuple[int, ...]) -> Run:
    return _jax_run(loss, shape, _jax_target(loss, shape))


def jax_floor(loss: Any, shape: tuple[int, ...]) -> Run:
    return _jax_run(lambda s, d: ((s - d) ** 2).sum(), shape)


def jax_moveaxis(loss: Any, shape: tuple[int, ...]) -> Run:
    """Move the time axis of time-first spikes to the end, then evaluate the loss."""
    import jax.numpy as jnp

    time_last = dataclasses.replace(loss, time_axis=-1)

    def value(*arrays: Any) -> Any:
        return time_last(*(jnp.moveaxis(x, loss.time_axis, -1) for x in arrays))

    return _jax_run(value, shape)


def lax_conv(loss: Any, shape: tuple[int, ...]) -> Run:
    """Compute `SpikeTime` with a library convolution of each spike train."""
    import jax

    taps = kernel(loss.length)[::-1][None, None].copy()

    def value(spikes: Any, desired: Any) -> Any:
        difference = (spikes - desired).reshape(-1, 1, shape[-1])
        filtered = jax.lax.conv_general_dilated(difference, taps, (1,), [(loss.length - 1, 0)])
        return (filtered**2).sum()

    return _jax_run(value, shape)


def _numpy_arrays(loss: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    label = np.arange(shape[0]) % shape[1]
    targets = {
        "SpikeTime": lambda: random_spikes(shape, 1),
        "SpikeMoid": lambda: np.eye(shape[1])[label],
    }
    return random_spikes(shape), targets.get(type(loss).__name__, lambda: label)()


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
    """Compute `SpikeTime` with an IIR filter: its impulse response is the kernel, not truncated."""
    import scipy.signal

    spikes, desired = _numpy_arrays(loss, shape)
    b, a = np.float32([1]), np.float32([1, -math.exp(-1 / TIME_CONSTANT)])
    return lambda: np.sum(scipy.signal.lfilter(b, a, spikes - desired) ** 2)
