"""
A network that answers early
============================

How do you train a network to answer with its first spike?

Pass ``readout="latency"`` to ``CrossEntropy``. A small spiking network then learns to classify
handwritten digits by the output neuron that fires first. The example also trains the same network
with the default readout, which counts spikes.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import spikeloss_xp as sx

# %%
# Digits as spike times
# ---------------------
#
# Each pixel is an input neuron that fires at most once. A pixel full of ink fires in the first of
# 20 steps. A pixel with hardly any ink fires in the last step. An empty pixel does not fire. Arrays
# have shape ``[time, sample, neuron]``.

STEPS = 20
pixels, labels = load_digits(return_X_y=True)
step = np.rint((1 - pixels / 16) * (STEPS - 1))
spikes = (np.arange(STEPS)[:, None, None] == step) & (pixels > 0)
train, test = train_test_split(
    np.arange(len(labels)), test_size=0.2, random_state=0, stratify=labels
)
train_spikes, train_labels = spikes[:, train].astype("float32"), labels[train]
test_spikes, test_labels = spikes[:, test].astype("float32"), labels[test]

# %%
# The network
# -----------
#
# The network has 64 hidden and 10 output neurons, which are leaky integrate-and-fire neurons. At
# each step, a membrane potential keeps 0.9 of its value and adds the input current; in the step
# after a spike, it is lowered by 1. The derivative of a spike is 1/2 where the potential is less
# than 1 away from the threshold, and 0 elsewhere.


def layer(currents):
    """Return the spikes for these currents, ``[time, sample, neuron]``."""

    def step(state, current):
        membrane, spike = state
        membrane = 0.9 * membrane + current - spike
        surrogate = membrane.clip(0, 2) / 2
        spike = (membrane >= 1) + (surrogate - jax.lax.stop_gradient(surrogate))
        return (membrane, spike), spike

    rest = jnp.zeros_like(currents[0])
    return jax.lax.scan(step, (rest, rest), currents)[1]


def network(weights, spikes):
    """Return the output spikes."""
    to_hidden, hidden_bias, to_output, output_bias = weights
    hidden = layer(spikes @ to_hidden + hidden_bias)
    return layer(hidden @ to_output + output_bias)


# %%
# Training
# --------
#
# With ``readout="latency"``, the logits are the negative latencies of the first output spikes,
# divided by a temperature. The loss has a gradient at every step of a silent neuron, so it can make
# such a neuron fire.

optimizer = optax.adam(0.005)


def train_with(loss):
    """Return the output spikes for the test images after training."""
    rng = np.random.default_rng(0)
    shapes = (64, 64), (64,), (64, 10), (10,)
    weights = [rng.uniform(-0.25, 0.25, s).astype("float32") for s in shapes]
    state = optimizer.init(weights)

    @jax.jit
    def update(weights, state, spikes, labels):
        gradient = jax.grad(lambda w: loss(network(w, spikes), labels))(weights)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(weights, updates), state

    for _ in range(8):
        for batch in rng.permutation(len(train))[:1408].reshape(-1, 64):
            weights, state = update(
                weights, state, train_spikes[:, batch], train_labels[batch]
            )
    return np.asarray(jax.jit(network)(weights, test_spikes))


first = sx.CrossEntropy(time_axis=0, readout="latency", temperature=2)
count = sx.CrossEntropy(time_axis=0)
outputs = {"spike counts": train_with(count), "first spikes": train_with(first)}
accuracy = count.accuracy(outputs["spike counts"], test_labels)
print(
    f"trained on spike counts, and answering by the counts of 20 steps: {accuracy:.0%}"
)

# %%
# How often the answers are right, and how early they come
# --------------------------------------------------------
#
# For both networks, the answer is now the class of the first output spike, and it comes at the step
# of that spike. ``predict`` returns this class. If an image causes no output spike, there is no
# answer, which counts as wrong. The rasters show the output spikes for one image, and the correct
# neuron is red.

fig, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
shown = np.argmax(test_labels == 3)  # the first of them
for ax, (name, output) in zip(axes[1:], outputs.items(), strict=True):
    fired = output.any(axis=2)  # [time, sample]
    answered = fired.any(axis=0)
    step = np.where(answered, fired.argmax(axis=0), STEPS)
    right = answered & (first.predict(output) == test_labels)
    print(
        f"trained on {name}, and answering by the first spike: {right.mean():.0%},",
        f"at step {step[answered].mean():.1f} on average,",
        f"{output.sum() / len(test):.0f} output spikes per image",
    )
    so_far = [np.mean(right & (step <= t)) for t in range(STEPS)]
    axes[0].plot(so_far, label=name)
    times = [np.flatnonzero(neuron) for neuron in output[:, shown].T]
    ax.eventplot(times, colors=["C3" if c == 3 else "black" for c in range(10)])
    ax.set(title=f"output for a 3, {name}", xlim=(-1, STEPS), xlabel="time (steps)")
axes[0].set(title="right first spikes so far", xlabel="time (steps)", ylim=(0, 1))
axes[0].legend()
axes[1].set_ylabel("output neuron")
plt.show()
