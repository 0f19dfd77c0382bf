"""A small spiking network in three frameworks: the same equations in each.

A layer of leaky integrate-and-fire neurons takes a current ``c[t]`` and fires ``s[t]``:

    u[t] = DECAY u[t-1] + c[t] - s[t-1]     the membrane; a spike is taken off it one step later
    s[t] = 1 if u[t] >= 1 else 0            ds/du is taken to be 1/4 where -2 < u < 4, else 0

The network is two such layers, ``c = x W + b`` each. Arrays are ``[time, batch, neuron]``.

PyTorch and JAX go back through time by automatic differentiation, once told of the surrogate for
ds/du. Written out, with ``d[t] = dL/du[t]`` (which is ``dL/dc[t]`` too) and d = 0 after the end:

    d[t] = ds/du[t] (dL/ds[t] - d[t+1]) + DECAY d[t+1]

because ``u[t+1]`` holds ``-s[t]`` and ``DECAY u[t]``.

Why a box for a surrogate: spikes and box are both steps, so the gradient does not change when a
membrane does by a rounding error. Under a smooth surrogate it does, and training multiplies that.
"""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import torch

import spikeloss_xp as sx

DECAY = 0.9  # per step: a membrane forgets in about ten


def times_surrogate(gradient, u):
    """Return a gradient times what stands for ds/du: a box, wide enough to reach silent neurons."""
    return gradient * (abs(u - 1) < 3) / 4


def initial_weights(rng, inputs, hidden, outputs):
    """Return ``[W, b, W, b]``, in NumPy and float64: every framework starts from a copy."""
    return [
        rng.normal(0, 1.2 / inputs**0.5, (inputs, hidden)),
        np.zeros(hidden),
        rng.normal(0, 1 / hidden**0.5, (hidden, outputs)),
        np.zeros(outputs),
    ]


class NumPy:
    """Forwards and backwards written out; only the loss differentiates itself."""

    asarray = staticmethod(np.asarray)
    scope = staticmethod(contextlib.nullcontext)

    @staticmethod
    def fire(weights, x):
        """Return the spikes of the output layer, ``[time, batch, neuron]``."""
        w1, b1, w2, b2 = weights
        hidden, _ = _numpy_layer(x @ w1 + b1)
        output, _ = _numpy_layer(hidden @ w2 + b2)
        return output

    @staticmethod
    def value_and_grad(loss):
        """Return a function of weights, input and target: the loss and its gradients."""

        def evaluate(weights, x, target):
            w1, b1, w2, b2 = weights
            hidden, u1 = _numpy_layer(x @ w1 + b1)
            output, u2 = _numpy_layer(hidden @ w2 + b2)
            value, gradient = sx.value_and_grad(loss)(output, target)
            d2 = _numpy_layer_backwards(u2, gradient)
            d1 = _numpy_layer_backwards(u1, d2 @ w2.T)
            return value, [
                np.tensordot(x, d1, axes=([0, 1], [0, 1])),
                d1.sum((0, 1)),
                np.tensordot(hidden, d2, axes=([0, 1], [0, 1])),
                d2.sum((0, 1)),
            ]

        return evaluate


def _numpy_layer(current):
    membrane, spikes = np.empty_like(current), np.empty_like(current)
    u = s = np.zeros_like(current[0])
    for t, c in enumerate(current):
        membrane[t] = u = DECAY * u + c - s
        spikes[t] = s = (u >= 1).astype(c.dtype)
    return spikes, membrane


def _numpy_layer_backwards(membrane, gradient):
    delta = np.empty_like(gradient)
    d = np.zeros_like(gradient[0])
    for t in reversed(range(len(gradient))):
        delta[t] = d = times_surrogate(gradient[t] - d, membrane[t]) + DECAY * d
    return delta


class PyTorch:
    """Autograd, with a threshold that has the surrogate for a derivative."""

    asarray = staticmethod(torch.tensor)  # a copy, as NumPy's memory is not to be shared
    scope = staticmethod(contextlib.nullcontext)

    @staticmethod
    def fire(weights, x):
        """Return the spikes of the output layer, ``[time, batch, neuron]``."""
        w1, b1, w2, b2 = weights
        return _torch_layer(_torch_layer(x @ w1 + b1) @ w2 + b2)

    @staticmethod
    def value_and_grad(loss):
        """Return a function of weights, input and target: the loss and its gradients."""

        def evaluate(weights, x, target):
            leaves = [w.detach().requires_grad_() for w in weights]
            value = loss(PyTorch.fire(leaves, x), target)
            return value.detach(), torch.autograd.grad(value, leaves)

        return evaluate


class _TorchThreshold(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return (u >= 1).to(u.dtype)

    @staticmethod
    def backward(ctx, gradient):
        (u,) = ctx.saved_tensors
        return times_surrogate(gradient, u)


def _torch_layer(current):
    spikes = []
    u = s = torch.zeros_like(current[0])
    for c in current:
        u = DECAY * u + c - s
        s = _TorchThreshold.apply(u)
        spikes.append(s)
    return torch.stack(spikes)


class JAX:
    """Compiled, with a threshold that has the surrogate for a derivative."""

    asarray = staticmethod(jnp.asarray)

    @staticmethod
    def scope(dtype):
        """Return a context in which arrays of this dtype exist."""
        return jax.enable_x64(dtype == "float64")

    @staticmethod
    def fire(weights, x):
        """Return the spikes of the output layer, ``[time, batch, neuron]``."""
        w1, b1, w2, b2 = weights
        return _jax_layer(_jax_layer(x @ w1 + b1) @ w2 + b2)

    @staticmethod
    def value_and_grad(loss):
        """Return a function of weights, input and target: the loss and its gradients."""

        def value(weights, x, target):
            return loss(JAX.fire(weights, x), target)

        return jax.jit(jax.value_and_grad(value))


@jax.custom_jvp
def _jax_threshold(u):
    return (u >= 1).astype(u.dtype)


_jax_threshold.defjvps(lambda tangent, _, u: times_surrogate(tangent, u))


def _jax_layer(current):
    def step(state, c):
        u, s = state
        u = DECAY * u + c - s
        s = _jax_threshold(u)
        return (u, s), s

    rest = jnp.zeros_like(current[0])
    _, spikes = jax.lax.scan(step, (rest, rest), current)
    return spikes


FRAMEWORKS = {"NumPy": NumPy, "PyTorch": PyTorch, "JAX": JAX}
