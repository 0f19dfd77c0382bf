"""
Training on spike times
=======================

How do you train a network that computes spike times instead of spikes at each step?

The spike time of each neuron in this example has a closed form, so automatic differentiation can
continue from the spike times to the weights. The losses in ``sx.times`` take such spike times. The
network learns to classify points of the YinYang task [1]_ by the output neuron that spikes first.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib import pyplot as plt

import spikeloss_xp as sx

# %%
# The task
# --------
#
# Each point in a disc belongs to one of three classes: yin, yang or dots. The four inputs x, y,
# 1 - x and 1 - y are encoded as spike times from 0.15 to 2. A fifth input, the bias, spikes at 0.9.
# The trial ends at 4. All times are in units of the synaptic time constant.


def classify(points):
    """Return 0 for yin, 1 for yang and 2 for dots."""
    x, y = points.T
    left, right = np.hypot(x - 0.25, y - 0.5), np.hypot(x - 0.75, y - 0.5)
    yin = (left <= 0.25) | ((y > 0.5) & (right > 0.25))
    return np.where(np.minimum(left, right) < 0.1, 2, np.where(yin, 0, 1))


def encode(points):
    """Return the spike times of the five inputs, ``[sample, input]``."""
    times = 0.15 + 1.85 * np.concatenate([points, 1 - points], axis=1)
    return np.pad(times, ((0, 0), (0, 1)), constant_values=0.9).astype("float32")


rng = np.random.default_rng(0)
points = rng.random((60000, 2))
points = points[np.hypot(*(points - 0.5).T) <= 0.5]
labels = classify(points)
chosen = np.stack([np.flatnonzero(labels == c)[:1100] for c in range(3)], axis=1)
train, test = chosen[:800].ravel(), chosen[800:].ravel()

# %%
# The neurons
# -----------
#
# The neurons are the same as in Mostafa's paper [2]_: integrate-and-fire neurons without a leak,
# with exponential synapses. The potential is the sum of w (1 - exp(t_in - t)) over all inputs that
# have spiked. A neuron spikes once, when its potential reaches 1. With z = exp(t), this time has a
# closed form:
#
# .. math:: z = \frac{\sum_{i \in C} w_i z_i}{\sum_{i \in C} w_i - 1}
#
# C is the causal set: the inputs that spike before the neuron does. To find C, sort the inputs by
# their spike times. Then compute z for the first input, for the first two inputs, and so on. The
# spike time is the first z that lies between the last input used for this z and the next input. If
# there is no such z, the spike time is infinite, and the neuron is silent.


def layer(weights, times):
    """Return spike times, ``[sample, neuron]``, for the times of the inputs."""
    order = jnp.argsort(times, axis=1)
    times = jnp.take_along_axis(times, order, axis=1)
    fired = jnp.isfinite(times)
    weights = jnp.where(fired[:, :, None], weights[order], 0)
    z = jnp.exp(jnp.where(fired, times, 0))[:, :, None]
    above, below = jnp.cumsum(weights * z, axis=1), jnp.cumsum(weights, axis=1) - 1
    positive = below > 1e-6
    # The values 1 and 1e-6 keep NaN out of the gradient of the unused entries.
    spike = jnp.log(jnp.maximum(jnp.where(positive, above, 1), 1e-6))
    spike = spike - jnp.log(jnp.where(positive, below, 1))
    following = jnp.pad(times[:, 1:], ((0, 0), (0, 1)), constant_values=jnp.inf)
    valid = (spike >= times[:, :, None] - 1e-4) & (spike <= following[:, :, None])
    return jnp.min(jnp.where(positive & valid, spike, jnp.inf), axis=1)


# %%
# The loss
# --------
#
# The logits of ``sx.times.CrossEntropy`` are the negative first spike times, divided by a
# temperature. Silent neurons are treated as if they had spiked at ``silent_time``, and have no
# gradient. Training therefore needs a term that wakes silent neurons. We use a term proposed by
# Mostafa [2]_, which penalises small sums of weights. See :doc:`/guides/event-based-training`.

loss = sx.times.CrossEntropy(temperature=0.1, silent_time=4.0)


def objective(weights, times, labels):
    """Return the loss with the penalty."""
    value = loss(layer(weights[1], layer(weights[0], times)), labels)
    for w, least in zip(weights, (1, 3), strict=True):
        value += jnp.maximum(least - w.sum(axis=0), 0).sum()
    return value


# %%
# Training
# --------
#
# Gradients with a norm above 1 are scaled down to norm 1, because a spike time changes fast if the
# sum of the weights in the causal set is close to 1.

initial = [rng.normal(0.6, 0.8, (5, 40)), rng.normal(3, 6, (40, 3)) / 40]
weights = [w.astype("float32") for w in initial]
schedule = optax.cosine_decay_schedule(0.015, 30 * 16)
optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
state = optimizer.init(weights)
predict = jax.jit(lambda w, times: loss.predict(layer(w[1], layer(w[0], times))))


@jax.jit
def update(weights, state, times, labels):
    """Return the weights and the state of Adam after a step."""
    gradient = jax.grad(objective)(weights, times, labels)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(weights, updates), state


for epoch in range(30):
    for batch in rng.permutation(train).reshape(16, 150):
        weights, state = update(weights, state, encode(points[batch]), labels[batch])
    if epoch % 10 == 9:
        right = predict(weights, encode(points[test])) == labels[test]
        print(
            f"after {epoch + 1} epochs: {right.mean():.1%} of the answers are right"
        )

fig, axes = plt.subplots(1, 3, figsize=(8, 3), layout="constrained")
maps = {
    "the task": labels,
    "before training": predict(initial, encode(points)),
    "after training": predict(weights, encode(points)),
}
for ax, (title, classes) in zip(axes, maps.items(), strict=True):
    ax.scatter(*points.T, c=classes, s=1)
    ax.set(title=title, aspect="equal", xticks=(), yticks=())
plt.show()

# %%
# .. [1] Kriener, Göltz and Petrovici, "The Yin-Yang dataset", 2021, arXiv 2102.08211.
# .. [2] H. Mostafa, "Supervised learning based on temporal coding in spiking neural networks", IEEE
#    Transactions on Neural Networks and Learning Systems 29(7), 2018.
