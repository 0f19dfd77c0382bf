"""The contenders: functions of spikes and a target, timed with their gradient.

Each contender is a function that takes the name of a library, a loss and a shape. It prepares the
arrays and returns a callable to time. Spikes are float32, and a neuron spikes in one out of ten
steps. Arrays are created on the default device of the library, so ``with torch.device("cuda"):``
prepares a run on a GPU.
"""

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

import spikeloss_xp as sx

Run = Callable[[], Any]
TIME_CONSTANT = 5


@functools.lru_cache(maxsize=4)
def random_spikes(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random(shape, np.float32) < 0.1).astype(np.float32)


def arrays(loss: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return spikes, and the trains, labels or multi-hot labels that the loss takes as target."""
    batch, classes = shape[1:] if loss.time_axis == 0 else shape[:2]
    label = np.arange(batch) % classes
    if isinstance(loss, sx.SpikeTime):
        return random_spikes(shape), random_spikes(shape, 1)
    multi_hot = isinstance(loss, sx.SpikeMoid)
    return random_spikes(shape), np.eye(classes, dtype="f")[label] if multi_hot else label


def called(library: str, function: Callable[..., Any], *given: np.ndarray) -> Run:
    """Return a callable that calls a function with NumPy or CuPy arrays."""
    xp = importlib.import_module(library.lower())
    placed = [xp.asarray(x) for x in given]
    return lambda: function(*placed)


def with_gradient(
    library: str, function: Callable[..., Any], *given: np.ndarray, **options: np.ndarray
) -> Run:
    """Return a callable that computes value and gradient of a function with arrays of a library.

    The name of the library is the name that the benchmark page uses, such as "PyTorch, compiled".
    """
    if library == "NumPy, value":
        return called("NumPy", function, *given)
    if library in ("NumPy", "CuPy"):
        return called(library, functools.partial(sx.value_and_grad(function), **options), *given)
    if library.startswith("JAX"):
        import jax

        evaluate = jax.jit(jax.value_and_grad(function))
        placed, options = jax.tree.map(jax.numpy.asarray, (given, options))
        return lambda: jax.block_until_ready(evaluate(*placed, **options))

    import torch

    spikes, *target = (torch.asarray(x) for x in given)
    options = {name: torch.asarray(x) for name, x in options.items()}
    spikes.requires_grad_()
    if library == "PyTorch, compiled":
        function(spikes, *target, **options)  # caches the lookup of the array class
        function = torch.compile(function, fullgraph=True, dynamic=False)

    def run() -> tuple[Any, Any]:
        spikes.grad = None
        value = function(spikes, *target, **options)
        value.backward()
        return value, spikes.grad

    return run


def ours(library: str, loss: Any, shape: tuple[int, ...]) -> Run:
    return with_gradient(library, loss, *arrays(loss, shape))


def kernel(length: int) -> np.ndarray:
    return sx.exponential_kernel(TIME_CONSTANT, length).astype(np.float32)


def filtered(
    library: str, causal_filter: Callable[[Any], Any], loss: Any, shape: tuple[int, ...]
) -> Run:
    """Compute `SpikeTime` with a filter from a different library."""

    def value(spikes: Any, desired: Any) -> Any:
        return (causal_filter(spikes - desired) ** 2).sum()

    return with_gradient(library, value, *arrays(loss, shape))


def floor(library: str, loss: Any, shape: tuple[int, ...]) -> Run:
    """Evaluate `SpikeTime` without its filter, which gives a lower bound on its run time."""
    return filtered(library.removesuffix(", compiled"), lambda x: x, loss, shape)


def lava(library: str, loss: Any, shape: tuple[int, ...]) -> Run:
    from lava.lib.dl import slayer

    theirs = getattr(slayer.loss, type(loss).__name__)
    options = [name for name in inspect.signature(theirs).parameters if hasattr(loss, name)]
    spikes, target = arrays(loss, shape)
    if getattr(loss, "moving_window", None):  # lava-dl then expects a label for each step
        target = np.repeat(target[..., None], shape[-1], axis=-1)
    given = {name: getattr(loss, name) for name in options}
    return with_gradient(library, theirs(**given), spikes, target)


def snntorch(library: str, loss: Any, shape: tuple[int, ...]) -> Run:
    """Evaluate snnTorch's closest loss, on the time-first spikes that it expects."""
    from snntorch import functional

    theirs = functional.ce_count_loss()
    if isinstance(loss, sx.SpikeRate):
        theirs = functional.mse_count_loss(loss.true_rate, loss.false_rate)
    spikes, label = arrays(loss, shape)
    return with_gradient(library, theirs, np.moveaxis(spikes, loss.time_axis, 0).copy(), label)


def conv1d(library: str, loss: Any, shape: tuple[int, ...]) -> Run:
    import torch
    import torch.nn.functional as F  # noqa: N812

    taps = torch.asarray(kernel(loss.length)[::-1].copy())[None, None]

    def convolved(x: Any) -> Any:
        return F.conv1d(F.pad(x.reshape(-1, 1, shape[-1]), (loss.length - 1, 0)), taps)

    return filtered(library, convolved, loss, shape)


def lax_conv(library: str, loss: Any, shape: tuple[int, ...]) -> Run:
    import jax

    taps, before = kernel(loss.length)[::-1][None, None].copy(), [(loss.length - 1, 0)]

    def convolved(x: Any) -> Any:
        return jax.lax.conv_general_dilated(x.reshape(-1, 1, shape[-1]), taps, (1,), before)

    return filtered(library, convolved, loss, shape)


def fftconvolve(library: str, loss: Any, shape: tuple[int, ...]) -> Run:
    import scipy.signal

    taps = kernel(loss.length)[None, None]

    def convolved(x: Any) -> Any:
        return scipy.signal.fftconvolve(x, taps, axes=-1)[..., : shape[-1]]

    return filtered(library, convolved, loss, shape)
