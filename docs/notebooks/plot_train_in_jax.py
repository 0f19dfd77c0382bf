"""
Train in JAX
============

A network of leaky integrate-and-fire neurons learns the handwritten digits of scikit-learn. To
install what this notebook needs, run ``pip install ".[jax]" optax scikit-learn matplotlib``.
"""

# %%
# The data
# --------
#
# The value of a pixel is the probability of a spike in each of 20 time steps.

import jax
import numpy as np
import optax
from jax import numpy as jnp
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

import spikeloss_xp as sx

pixels, labels = load_digits(return_X_y=True)
rng = np.random.default_rng(0)
# [time, sample, pixel]
inputs = (rng.random((20, *pixels.shape)) < pixels / 16).astype(np.float32)
print(f"inputs {inputs.shape}, {inputs.sum(0).mean():.1f} spikes of each pixel")

# %%
# The network
# -----------
#
# The membrane potential decays, and each spike lowers it by 1. In the backward pass, the derivative
# of a spike is replaced by the derivative of a sigmoid. This is the surrogate gradient.


def fire(membrane, current):
    """Return the next membrane potentials and the spikes."""
    membrane = 0.9 * membrane + current
    smooth = jax.nn.sigmoid(4 * (membrane - 1))
    spike = (membrane > 1) + (smooth - jax.lax.stop_gradient(smooth))
    return membrane - spike, spike


def run(weights, spikes):
    """Return the output spikes, ``[time, sample, class]``."""
    for weight in weights:
        currents = spikes @ weight
        _, spikes = jax.lax.scan(fire, jnp.zeros_like(currents[0]), currents)
    return spikes


weights = [rng.normal(size=(64, 100)) / 8, rng.normal(size=(100, 10)) / 10]
weights = [jnp.asarray(weight, jnp.float32) for weight in weights]

# %%
# The loss
# --------
#
# The loss is a function of arrays, so you can transform it with ``jax.jit`` and
# ``jax.value_and_grad``. This loss computes the spike count of each output neuron. You can also try
# ``readout="sqrt_count"`` or ``moving_window=10``.

loss = sx.CrossEntropy(time_axis=0)
optimizer = optax.adam(0.005)


@jax.jit
def step(weights, state, spikes, labels):
    """Return the weights and state after a batch, and the loss before it."""
    value, gradient = jax.value_and_grad(lambda w: loss(run(w, spikes), labels))(
        weights
    )
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(weights, updates), state, value


state, values, accuracies = optimizer.init(weights), [], []
for _ in range(10):
    for batch in rng.permutation(1437)[:1400].reshape(14, 100):
        weights, state, value = step(weights, state, inputs[:, batch], labels[batch])
        values.append(float(value))
    output = run(weights, inputs[:, 1437:])
    accuracies.append(float(loss.accuracy(output, labels[1437:])))
print(f"accuracy for the 360 digits of the test: {accuracies[-1]:.0%}")

# %%
# What the network learned
# ------------------------

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
left.plot(values)
left.set(title="loss of each batch", xlabel="step", yscale="log")
right.plot(range(1, 11), accuracies, marker="o")
right.set(title="accuracy of the test", xlabel="epoch", ylim=(0, 1))
plt.show()

# %%
# The same loss in another library
# --------------------------------
#
# ``assert_consistent`` computes the value and the gradient for these spikes with each array library
# that is installed, and compares the results with NumPy.

print(sx.testing.assert_consistent(loss, np.asarray(output), labels[1437:]))
