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
# pixel has fired floor(t v) times. Spikes have shape ``[time, sample, neuron]``.

pixels, labels = load_digits(return_X_y=True)
images = np.diff(np.floor(np.arange(21)[:, None, None] * pixels / 16), axis=0)

rng = np.random.default_rng(0)
weights = [rng.normal(0, 0.15, (64, 100)), rng.normal(0, 0.1, (100, 10))]
batches = [rng.choice(len(labels), 64, replace=False) for _ in range(112)]

# %%
# The network in both frameworks
# ------------------------------
#
# The network has two layers of leaky integrate-and-fire neurons. The derivative of a spike is
# replaced by the derivative of a ``surrogate``. The frameworks share the formulas of a time step.


def update(state, current, surrogate, detach):
    """Return the membrane potentials and the spikes after a time step."""
    membrane, spike = state
    membrane = 0.9 * membrane + current - spike
    smooth = surrogate(membrane - 1)
    return membrane, (membrane >= 1) + (smooth - detach(smooth))


def torch_layer(currents, surrogate):
    """Return the spikes of a layer in PyTorch."""
    state, spikes = (0, 0), []
    for current in currents:
        state = update(state, current, surrogate, torch.Tensor.detach)
        spikes.append(state[1])
    return torch.stack(spikes)


def jax_layer(currents, surrogate):
    """Return the spikes of a layer in JAX."""

    def step(state, current):
        state = update(state, current, surrogate, jax.lax.stop_gradient)
        return state, state[1]

    rest = jnp.zeros_like(currents[0])
    return jax.lax.scan(step, (rest, rest), currents)[1]


# %%
# Training
# --------

loss = sx.SpikeRate(0.5, 0.02, reduction="mean", time_axis=0)


def train_torch(dtype, surrogate):
    """Train in PyTorch, and return the loss at each step."""
    parameters = [torch.tensor(w.astype(dtype), requires_grad=True) for w in weights]
    optimizer, values = torch.optim.Adam(parameters, lr=0.01), []
    for batch in batches:
        spikes = torch.tensor(images[:, batch].astype(dtype))
        hidden = torch_layer(spikes @ parameters[0], surrogate)
        value = loss(torch_layer(hidden @ parameters[1], surrogate), labels[batch])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    return np.asarray(values)


def train_jax(dtype, surrogate):
    """Train in JAX, and return the loss at each step."""
    optimizer = optax.adam(0.01)

    def objective(parameters, spikes, labels):
        hidden = jax_layer(spikes @ parameters[0], surrogate)
        return loss(jax_layer(hidden @ parameters[1], surrogate), labels)

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
# Where the two runs differ
# -------------------------
#
# We train three times in each framework: in float64 and in float32 with a surrogate whose
# derivative is a box, and in float64 with a fast sigmoid.

dtypes = "float64", "float32", "float64"
box = "box", lambda above: above.clip(-3, 3) / 4
sigmoid = "sigmoid", lambda above: above / (1 + 10 * abs(above))

fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for dtype, (name, surrogate) in zip(dtypes, (box, box, sigmoid), strict=True):
    ours, theirs = train_torch(dtype, surrogate), train_jax(dtype, surrogate)
    left.semilogy(ours, linewidth=4, alpha=0.4, label=f"{dtype}, {name}")
    left.semilogy(theirs, color="black", linewidth=0.7)
    difference = abs(ours - theirs) / theirs
    right.semilogy(np.maximum.accumulate(difference))
    apart = np.flatnonzero(difference > 1000 * np.finfo(dtype).eps)
    start = f"from step {apart[0]}" if len(apart) else "never"
    print(f"{dtype}, {name}: up to {difference.max():.0e}, above rounding {start}")
left.legend()
left.set(title="loss (JAX in black)", xlabel="training step")
right.set(title="largest relative difference so far", xlabel="training step")
plt.show()

# %%
# In float64 with the box, the two runs are equal up to rounding errors. In float32, rounding errors
# are 5e8 times larger. At some step, a potential is so close to the threshold that rounding decides
# whether the neuron fires. A box is a step function of the potential, so rounding hardly ever
# changes it. With the sigmoid, every rounding error changes the gradient, and training amplifies
# the change. To compare two programs, use float64 and a box.
