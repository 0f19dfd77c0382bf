"""
One training run in two frameworks
==================================

Does the same network train in the same way in PyTorch and in JAX?

A small spiking network learns handwritten digits in both frameworks. Both programs use the same
loss object, start from the same weights and see the images in the same order.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

import spikeloss_xp as sx

torch.set_num_threads(1)  # faster for small matrices

# %%
# Images and weights
# ------------------
#
# Each pixel is an input neuron. Let v be the amount of ink in a pixel, from 0 to 1. By step t, the
# pixel has fired floor(t v) times. Spikes have shape ``[time, sample, neuron]``. The weights and
# the order of the images come from NumPy, so they are the same in both frameworks.

pixels, labels = load_digits(return_X_y=True)
images = np.diff(np.floor(np.arange(21)[:, None, None] * pixels / 16), axis=0)

rng = np.random.default_rng(0)
weights = [rng.normal(0, 0.15, (64, 100)), rng.normal(0, 0.1, (100, 10))]
epochs = [rng.permutation(len(labels))[:1792].reshape(-1, 64) for _ in range(1)]
batches = np.concatenate(epochs)

# %%
# The network in both frameworks
# ------------------------------
#
# The network has two layers of leaky integrate-and-fire neurons. The derivative of a spike is
# replaced by the derivative of a ``surrogate``. This code runs in both frameworks: ``xp`` is
# ``torch`` or ``jax.numpy``.


def layer(xp, currents, surrogate):
    """Return the spikes of leaky integrate-and-fire neurons."""
    detach = torch.Tensor.detach if xp is torch else jax.lax.stop_gradient
    membrane, spike, spikes = 0, 0, []
    for current in currents:
        membrane = 0.9 * membrane + current - spike
        smooth = surrogate(membrane - 1)
        spike = (membrane >= 1) + (smooth - detach(smooth))
        spikes.append(spike)
    return xp.stack(spikes)


def network(xp, weights, spikes, surrogate):
    """Return the spikes of the output neurons."""
    hidden = layer(xp, spikes @ weights[0], surrogate)
    return layer(xp, hidden @ weights[1], surrogate)


# %%
# Training
# --------
#
# Both functions return the loss at each training step. Each framework uses its own Adam.

loss = sx.SpikeRate(0.5, 0.02, reduction="mean", time_axis=0)


def train_torch(dtype, surrogate):
    """Train in PyTorch."""
    parameters = [torch.tensor(w.astype(dtype), requires_grad=True) for w in weights]
    optimizer = torch.optim.Adam(parameters, lr=0.01)
    values = []
    for batch in batches:
        spikes = torch.tensor(images[:, batch].astype(dtype))
        value = loss(network(torch, parameters, spikes, surrogate), labels[batch])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    return np.asarray(values)


def train_jax(dtype, surrogate):
    """Train in JAX."""
    optimizer = optax.adam(0.01)

    def objective(parameters, spikes, labels):
        return loss(network(jnp, parameters, spikes, surrogate), labels)

    @jax.jit
    def step(parameters, state, spikes, labels):
        value, gradient = jax.value_and_grad(objective)(parameters, spikes, labels)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(parameters, updates), state, value

    with jax.enable_x64(dtype == "float64"):
        parameters, values = [jnp.asarray(w, dtype) for w in weights], []
        state = optimizer.init(parameters)
        for batch in batches:
            spikes = images[:, batch].astype(dtype)
            parameters, state, value = step(parameters, state, spikes, labels[batch])
            values.append(value)
        return np.asarray(values)


# %%
# Where the two frameworks part
# -----------------------------
#
# We train three times in each framework: in float64 and in float32 with a surrogate whose
# derivative is a box, and in float64 with a fast sigmoid.


def box(above):
    """Return a surrogate with derivative 1/4 less than 3 away from the threshold."""
    return above.clip(-3, 3) / 4


def sigmoid(above):
    """Return a fast sigmoid."""
    return above / (1 + 10 * abs(above))


fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for dtype, surrogate in (("float64", box), ("float32", box), ("float64", sigmoid)):
    name = f"{dtype}, {surrogate.__name__}"
    ours, theirs = train_torch(dtype, surrogate), train_jax(dtype, surrogate)
    left.plot(ours, linewidth=4, alpha=0.4, label=name)
    left.plot(theirs, color="black", linewidth=0.7)
    difference = abs(ours - theirs) / theirs
    right.semilogy(np.maximum.accumulate(difference))
    parted = np.flatnonzero(difference > 1000 * np.finfo(dtype).eps)
    print(
        f"{name}: largest difference {difference.max():.0e},",
        f"above 1000 rounding errors from step {parted[0]}" if len(parted) else "",
    )
left.legend()
left.set(title="loss (JAX: black)", xlabel="training step")
right.set(title="largest relative difference so far", xlabel="training step")
plt.show()
