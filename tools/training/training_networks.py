"""The spiking networks in measure.py; the networks for all seeds are trained at once."""

import functools
import itertools
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

CLASSES = 10
DECAY = 0.9  # of a membrane, per step
SLOPES = {"fast sigmoid": 25, "sigmoid": 4, "triangular": 1}  # of the surrogates
KERNEL, STRIDE = 5, 2  # of a convolution
HIDDEN = {"one hidden": (100,), "two hidden": (100, 100), "recurrent": (100,)}
# Inputs and outputs of each layer, with 8 and 16 channels at 18 and 7 places for 40 inputs.
CONVOLUTION = ((KERNEL, 8), (8 * KERNEL, 16), (16 * 7, CLASSES))


def surrogate_gradient(cotangent: Any, above: Any, surrogate: str, slope: float) -> Any:
    """Return the gradient with respect to a membrane that is this far above its threshold.

    The arguments may be tensors or JAX arrays.
    """
    distance = slope * abs(above)
    if surrogate == "sigmoid":
        probability = torch.sigmoid(slope * above)
        return cotangent * slope * probability * (1 - probability)
    if surrogate == "fast sigmoid":
        return cotangent / (1 + distance) ** 2
    if surrogate == "arctan":
        return cotangent / (1 + (math.pi / 2 * distance) ** 2)
    return cotangent * ((1 - distance).clip(0) if surrogate == "triangular" else distance < 0.5)


class Spike(torch.autograd.Function):
    """Return 1 if a membrane is above its threshold and 0 otherwise, with a surrogate gradient."""

    @staticmethod
    def forward(ctx, above, surrogate, slope):
        ctx.save_for_backward(above)
        ctx.surrogate = surrogate, slope
        return (above > 0).to(above.dtype)

    @staticmethod
    def backward(ctx, cotangent):
        return surrogate_gradient(cotangent, *ctx.saved_tensors, *ctx.surrogate), None, None


@functools.cache
def leaky() -> Any:
    """Return a cached snnTorch cell, because snnTorch never frees a cell or its last state."""
    import snntorch

    return snntorch.Leaky(beta=DECAY)


def unrolled(
    step: Callable[..., Any], current: torch.Tensor, state: Any, recurrent: Any = None
) -> torch.Tensor:
    """Return the spikes of a cell that takes a current and its state, and returns a new state.

    The function `recurrent` turns the spikes of a step into a current at the next step.
    """
    spikes: list[torch.Tensor] = []
    for now in current:
        if recurrent is not None and spikes:
            now = now + recurrent(spikes[-1])
        spike, state = step(now, state)
        spikes.append(spike)
    return torch.stack(spikes)


def neurons(current: torch.Tensor, cell: str, recurrent: Any = None) -> torch.Tensor:
    """Return the spikes of leaky neurons with these currents, ``[time, seed, batch, neuron]``.

    In a plain cell, the membrane potential is multiplied by 0.9 at each step, and the current is
    added. If the potential exceeds 1, the neuron fires, and 1 is subtracted from the potential.
    """
    if cell == "SpikingJelly":
        from spikingjelly.activation_based import neuron, surrogate

        return neuron.LIFNode(surrogate_function=surrogate.ATan(), step_mode="m")(current)
    if cell == "Norse":
        from norse.torch import LIFCell

        return unrolled(LIFCell(), current, None)
    if cell == "snnTorch":
        return unrolled(leaky(), current, torch.zeros_like(current[0]))
    membrane, spikes = torch.zeros_like(current[0]), []
    for now in current:
        if recurrent is not None and spikes:
            now = now + spikes[-1] @ recurrent
        membrane = DECAY * membrane + now
        spikes.append(Spike.apply(membrane - 1, cell, SLOPES[cell]))
        membrane = membrane - spikes[-1].detach()
    return torch.stack(spikes)


def initial(seeds: int, layers: str, inputs: int, bias: float) -> list[np.ndarray]:
    """Return weights and biases drawn as in `torch.nn.Linear`, with a first axis for the seeds.

    `bias` is added to the bias of the output layer. Recurrent weights come last.
    """
    sizes = itertools.pairwise((inputs, *HIDDEN.get(layers, ()), CLASSES))
    shapes = CONVOLUTION if layers == "convolution" else tuple(sizes)
    weights = []
    for seed in range(seeds):
        random, each = np.random.default_rng(seed), []
        for fan_in, size in (*shapes, (100, 100)) if layers == "recurrent" else shapes:
            drawn = random.uniform(-(fan_in**-0.5), fan_in**-0.5, (fan_in + 1, size))
            each += [drawn[1:], drawn[:1]]
        each[2 * len(shapes) - 1] += bias
        weights.append(each)
    return [np.stack(same).astype(np.float32) for same in zip(*weights, strict=True)]


class TorchNetworks:
    """Networks in PyTorch, with plain cells or the cells of a framework."""

    def __init__(self, cell: str, layers: str, weights: list[np.ndarray], rate: float) -> None:
        self.cell, self.layers, self.seeds = cell, layers, len(weights[0])
        self.weights = [torch.tensor(each, requires_grad=True) for each in weights]
        self.optimiser = torch.optim.Adam(self.weights, lr=rate)
        self.loss_seconds: list[float] = []

    def output(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output spikes, ``[time, seed, batch, class]``; the input has the same axes."""
        pairs = list(zip(self.weights[::2], self.weights[1::2], strict=True))
        recurrent = pairs.pop()[0] if self.layers == "recurrent" else None
        if self.layers == "convolution":
            x = x[..., None, :]  # one channel
        for layer, (weight, bias) in enumerate(pairs):
            hidden = layer + 1 < len(pairs)
            if self.layers == "convolution" and hidden:
                x = convolved(x, weight, bias, self.cell)
                continue
            current = (x if x.ndim == 4 else x.flatten(3)) @ weight + bias
            x = neurons(current, self.cell, recurrent if hidden else None)
        return x

    def step(self, loss: Callable[..., Any], x: torch.Tensor, label: torch.Tensor) -> None:
        """Perform a training step, with one batch for each seed."""
        spikes = self.output(x)
        leaf = spikes.detach().requires_grad_()
        started = time.perf_counter()
        # The mean over the samples of all seeds, multiplied by the number of seeds, gives each
        # network the gradient of its own mean.
        (self.seeds * loss(leaf.flatten(1, 2), label.flatten())).backward()
        self.loss_seconds.append(time.perf_counter() - started)
        self.optimiser.zero_grad()
        spikes.backward(leaf.grad)
        self.optimiser.step()

    def counts(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output spike counts for samples with the axes ``[time, sample, input]``."""
        with torch.no_grad():
            return self.output(x[:, None].expand(-1, self.seeds, -1, -1)).sum(0)


def convolved(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, cell: str) -> torch.Tensor:
    """Return the spikes of a convolutional layer for ``[time, seed, batch, channel, place]``."""
    patches = x.unfold(-1, KERNEL, STRIDE).transpose(3, 4).flatten(4)  # [..., place, entry]
    time, seeds, batch, places, _ = patches.shape
    spikes = neurons(patches.flatten(2, 3) @ weight + bias, cell)
    return spikes.reshape(time, seeds, batch, places, -1).transpose(3, 4)


class JAXNetworks:
    """Networks in JAX, with the cells of Spyx."""

    def __init__(self, cell: str, layers: str, weights: list[np.ndarray], rate: float) -> None:
        import jax
        import optax
        import spyx.nn
        from flax import nnx

        self.weights, self.seeds = [jax.numpy.asarray(each) for each in weights], len(weights[0])
        optimiser = optax.adam(rate)
        self.state, self.loss_seconds = optimiser.init(self.weights), []
        leaky = spyx.nn.LIF((), DECAY, rngs=nnx.Rngs(0))

        def output(weights: Any, x: Any) -> Any:
            for weight, bias in zip(weights[::2], weights[1::2], strict=True):
                current = x @ weight + bias
                start = jax.numpy.zeros_like(current[0])
                # A Spyx cell returns spikes and membrane, but a scan expects the reverse order.
                _, x = jax.lax.scan(lambda v, now: leaky(now, v)[::-1], start, current)
            return x

        def step(loss: Any, weights: Any, state: Any, x: Any, label: Any) -> Any:
            def value(weights: Any) -> Any:
                spikes = output(weights, x)
                merged = spikes.reshape(len(x), -1, CLASSES)
                return self.seeds * loss(merged, label.reshape(-1))

            updates, state = optimiser.update(jax.grad(value)(weights), state)
            return optax.apply_updates(weights, updates), state

        self._step, self._output = jax.jit(step, static_argnums=0), jax.jit(output)

    def step(self, loss: Callable[..., Any], x: torch.Tensor, label: torch.Tensor) -> None:
        arrays = x.numpy(), label.numpy()
        self.weights, self.state = self._step(loss, self.weights, self.state, *arrays)

    def counts(self, x: torch.Tensor) -> torch.Tensor:
        spikes = self._output(self.weights, x[:, None].expand(-1, self.seeds, -1, -1).numpy())
        return torch.tensor(np.asarray(spikes)).sum(0)


def usual_loss(name: str) -> Callable[..., Any]:
    """Return a loss from the tutorials of a framework."""
    if name == "mse_count_loss":
        from snntorch import functional

        return functional.mse_count_loss(correct_rate=0.8, incorrect_rate=0.2)
    if name == "integral_crossentropy":
        import spyx.fn

        return spyx.fn.integral_crossentropy(smoothing=0.3, time_axis=0)
    assert name == "mse of rates"
    one_hot, mse = torch.nn.functional.one_hot, torch.nn.functional.mse_loss
    return lambda spikes, label: mse(spikes.mean(0), one_hot(label, CLASSES).to(spikes.dtype))
