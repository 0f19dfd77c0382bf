"""
Training on spike times
=======================

A network of event-based neurons learns the YinYang task with four losses on first spike times.

The spike time of each neuron has a closed form, so automatic differentiation can continue from the
spike times to the weights. Two of the four losses are part of this library, one loss is from
jaxsnn, and one loss is from ml_genn. Training needs a second term, which wakes silent neurons. In
one run, we leave out this term.
"""

# %%
# The task
# --------
#
# Each point in a disc belongs to one of three classes: yin, yang or dots [1]_. The four inputs x,
# y, 1 - x and 1 - y are encoded as spike times from 0.15 to 2. A fifth input, the bias, spikes at
# 0.9. The trial ends at 4. All times are in units of the synaptic time constant.
#
# .. dropdown:: Copy these drawing functions first
#
#    .. literalinclude:: /gallery/pictures.py
#       :language: Python
#       :start-at: import numpy

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap

import spikeloss_xp as sx

# sphinx_gallery_start_ignore
# Copies, so that this script runs alone.

SPIKES, TARGET, FILTERED = "#222832", "#16845c", "#8a5cc0"  # black, green, purple
INK = SPIKES  # of texts
PINK, GOLD, TEAL = "#c43a80", "#94700a", "#0c8096"  # for everything else
GREY, LIGHT, PALE = "#707a84", "#e6eaef", "#fbeecb"
STYLE = {
    "figure.dpi": 130,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": plt.cycler(color=[TEAL, PINK, GOLD, GREY]),
    "legend.frameon": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def figure(rows=1, columns=1, *, size=(7, 4), **options):
    """Return a figure in the shared style, and its axes.

    The `options` are passed to `plt.subplots`. The style applies to later figures
    too.
    """
    plt.rcParams.update(STYLE)
    return plt.subplots(rows, columns, figsize=size, layout="constrained", **options)


def describe(fig, text):
    """Attach an alternative text to a picture, as a hidden title for the site."""
    fig.suptitle(text, visible=False).set_in_layout(False)


# sphinx_gallery_end_ignore

# From the command line the script takes other numbers of seeds and epochs.
SEEDS, EPOCHS = [int(word) for word in sys.argv[1:3] if word.isdigit()] or (3, 10)
HIDDEN, BATCH, LEARNING_RATE = 40, 150, 0.015
TRIAL = 4.0  # all times are in units of the synaptic time constant


def classify(points):
    """Return 0 for yin, 1 for yang and 2 for dots."""
    x, y = points.T
    left, right = np.hypot(x - 0.25, y - 0.5), np.hypot(x - 0.75, y - 0.5)
    yin = (left <= 0.25) | ((y > 0.5) & (right > 0.25))
    return np.where(np.minimum(left, right) < 0.1, 2, np.where(yin, 0, 1))


def draw_samples(rng, size):
    """Return points in the disc, a third of them of each class, and their labels."""
    points = rng.random((20 * size, 2))
    points = points[np.hypot(*(points - 0.5).T) <= 0.5]
    labels = classify(points)
    chosen = np.concatenate(
        [np.flatnonzero(labels == c)[: size // 3] for c in range(3)]
    )
    return points[chosen], labels[chosen]


def encode(points):
    """Return the spike times of the five inputs, ``[sample, input]``."""
    x, y = points.T
    times = 0.15 + 1.85 * np.stack(
        [x, y, 1 - x, 1 - y, np.full(len(x), (0.9 - 0.15) / 1.85)]
    )
    return times.T.astype(np.float32)


rng = np.random.default_rng(0)
train, train_labels = draw_samples(rng, 2400)
test, test_labels = draw_samples(rng, 900)
train_times, test_times = encode(train), encode(test)

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
    # [sample, input, neuron]
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


def network(weights, times):
    """Return the spike times of the hidden and of the output neurons."""
    hidden = layer(weights[0], times)
    return hidden, layer(weights[1], hidden)


def initial_weights(rng):
    """Return the weights of the two layers, ``[input, neuron]``."""
    hidden = rng.normal(0.6, 0.8, (5, HIDDEN))
    return [
        w.astype(np.float32)
        for w in (hidden, rng.normal(3, 6, (HIDDEN, 3)) / HIDDEN)
    ]


# %%
# The losses of this library
# --------------------------
#
# The logits of ``sx.times.CrossEntropy`` are the negative first spike times, divided by a
# temperature, so the earliest class is the most probable one. The temperature is 0.1, which is
# about a twentieth of the range of the input times. For comparison, one run uses a temperature of
# 0.4. Neurons that are silent or that spike after the end of the trial are treated as if they had
# spiked at ``silent_time``, and have no gradient.
#
# ``sx.times.SpikeLatency`` compares the times with two target times, one for the label and one for
# the other classes. ``mse_loss`` from jaxsnn [3]_ does the same, up to a factor.

cross_entropy = sx.times.CrossEntropy(temperature=0.1, silent_time=TRIAL)
warmer = sx.times.CrossEntropy(temperature=0.4, silent_time=TRIAL)
latency = sx.times.SpikeLatency(true_time=1.5, false_time=2.5, silent_time=TRIAL)


def by_optax(times, labels):
    """Return the same cross entropy from optax."""
    logits = -jnp.minimum(times, TRIAL) / 0.1
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


times = jnp.asarray([[1.5, 1.8, jnp.inf], [2.1, jnp.inf, 1.9]])
labels = jnp.asarray([0, 1])
for name, loss in {"CrossEntropy": cross_entropy, "optax": by_optax}.items():
    value, gradient = jax.jit(jax.value_and_grad(loss))(times, labels)
    rounded = np.asarray(gradient, float).round(3) + 0.0  # without the sign of 0
    print(f"{name:12}  {value:.4f}  gradient {rounded[0]} {rounded[1]}")

# %%
# The label of the second sample is class 1, and the output neuron of this class is silent. The
# gradient of this neuron is 0, so nothing in the cross entropy can make it spike. Training
# therefore needs a term that wakes silent neurons. We use a term proposed by Mostafa [2]_, which
# penalises small sums of weights.
#
# If all inputs of a neuron spike, and the weights of the neuron sum to more than 1, the neuron
# spikes, too, possibly after the end of the trial. For hidden neurons, the term penalises sums
# below 1. For output neurons, it penalises sums below 3. This value for output neurons is not from
# Mostafa's paper.


def weight_sum_penalty(weights):
    """Return by how much the sums of weights are too small, over all neurons."""
    hidden, output = (jnp.sum(w, axis=0) for w in weights)
    return jnp.sum(jnp.maximum(1 - hidden, 0)) + jnp.sum(jnp.maximum(3 - output, 0))


# %%
# The losses of jaxsnn and ml_genn
# --------------------------------
#
# The loss ``ttfs_loss`` from jaxsnn 0.3.0 [3]_ clips all times at two membrane time constants. For
# a single sample with label y, the loss is then
#
# .. math:: -\log \sum_c e^{(t_y - t_c) / \tau}
#
# In the cross entropy with the temperature tau, the logarithm has a plus sign instead of the minus
# sign. Minimising ``ttfs_loss`` therefore delays the spike of the label.
#
# The code of ml_genn 2.3.1 [4]_ contains the gradients of a loss, but not the loss itself. From
# these gradients, we see that the loss is the cross entropy plus a second term, which makes the
# label fire earlier. For a trial of length T and a label that spikes, this second term is
#
# .. math:: \frac{\alpha}{1.01 \, T - t_y}
#
# If the label is silent, the second term is proportional to the potential V of the label at the end
# of the trial. Its gradient is the gradient that the term above has for a spike at that time:
#
# .. math:: -\frac{\alpha}{(0.01 \, T)^2} V_y(T)
#
# This loss wakes a silent label by itself, so we train it without the penalty on small sums of
# weights. Our run differs from ml_genn in the neurons, the automatic differentiation and the
# temperature. In ml_genn, the softmax has a temperature of 1 ms, and ``softmax_temperature``
# divides the gradient. We set alpha to T / 300. The YinYang example of ml_genn uses the same ratio,
# but trains with a different loss, ``RelativeMeanSquareError``.


def of_label(x, labels):
    """Return the entry of the label, ``[sample]``."""
    return jnp.take_along_axis(x, labels[:, None], axis=1)[:, 0]


def ttfs_loss(times, labels, tau=TRIAL / 2):
    """Return jaxsnn's loss, averaged over the batch."""
    times = jnp.minimum(jnp.abs(times), 2 * tau)
    later = of_label(times, labels)[:, None] - times
    return -jnp.log(jnp.sum(jnp.exp(later / tau), axis=1)).mean()


def ml_genn_loss(times, labels, hidden, weights, alpha=TRIAL / 300):
    """Return the loss with the gradients of ml_genn, at the temperature 0.1."""
    passed = jnp.where(
        hidden < TRIAL, 1 - jnp.exp(jnp.minimum(hidden, TRIAL) - TRIAL), 0
    )
    potential = of_label(passed @ weights[1], labels)
    spike = of_label(times, labels)
    early = 1.01 * TRIAL - jnp.minimum(spike, TRIAL)
    term = jnp.where(
        spike < TRIAL, alpha / early, -alpha / (0.01 * TRIAL) ** 2 * potential
    )
    return cross_entropy(times, labels) + term.mean()


plus = sx.times.CrossEntropy(temperature=TRIAL / 2, silent_time=TRIAL)
values = [float(jax.jit(loss)(times, labels)) for loss in (plus, ttfs_loss)]
print("cross entropy {:.4f}, ttfs_loss {:.4f}".format(*values))

# %%
# Training
# --------
#
# All runs use Adam, a learning rate that falls to 0, and batches of 150 samples. For a given seed,
# the initial weights are the same in all runs. Gradients with a norm above 1 are scaled down to
# norm 1, because a spike time changes fast if the sum of the weights in the causal set is close to
# 1.
#
# ``jax.vmap`` trains all seeds at once. The loss in the picture does not include the penalty on
# small sums of weights. The prediction for a sample is the class that spikes first, or class 0 if
# all classes are silent.

rate = optax.cosine_decay_schedule(LEARNING_RATE, EPOCHS * (len(train) // BATCH))
optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
data = jnp.asarray(train_times), jnp.asarray(train_labels)


def with_penalty(loss):
    """Return the loss for the weights, and the loss to plot."""

    def objective(weights, hidden, output, labels):
        value = loss(output, labels)
        return value + weight_sum_penalty(weights), value

    return objective


def alone(weights, hidden, output, labels):
    """Return the cross entropy without the penalty, twice."""
    value = cross_entropy(output, labels)
    return value, value


def of_ml_genn(weights, hidden, output, labels):
    """Return the loss of ml_genn, twice."""
    value = ml_genn_loss(output, labels, hidden, weights)
    return value, value


objectives = {
    "CrossEntropy": with_penalty(cross_entropy),
    "temperature 0.4": with_penalty(warmer),
    "no penalty": alone,
    "SpikeLatency": with_penalty(latency),
    "ml_genn": of_ml_genn,
    "ttfs_loss": with_penalty(ttfs_loss),
}


@jax.jit
def epoch(index, states, batches):
    """Train all seeds for an epoch: return loss, accuracy and silent outputs."""

    def objective(weights, times, labels):
        # The index selects the loss at run time: all runs share one program.
        spikes = network(weights, times)
        return jax.lax.switch(
            index, list(objectives.values()), weights, *spikes, labels
        )

    def step(state, batch):
        weights, adam = state
        gradients = jax.grad(objective, has_aux=True)
        gradient, value = gradients(weights, data[0][batch], data[1][batch])
        updates, adam = optimiser.update(gradient, adam)
        return (optax.apply_updates(weights, updates), adam), value

    def one_seed(state, batches):
        state, values = jax.lax.scan(step, state, batches)
        times = network(state[0], test_times)[1]
        accuracy = cross_entropy.accuracy(times, test_labels)
        return state, jnp.stack([values.mean(), accuracy, jnp.mean(times >= TRIAL)])

    return jax.vmap(one_seed)(states, batches)


def train_seeds(index):
    """Return the weights of each seed, and ``[epoch, seed, quantity]``."""
    rngs = [np.random.default_rng(seed) for seed in range(SEEDS)]
    weights = [np.stack(w) for w in zip(*map(initial_weights, rngs), strict=True)]
    states, history = (weights, jax.vmap(optimiser.init)(weights)), []
    for _ in range(EPOCHS):
        batches = np.stack(
            [rng.permutation(len(train)).reshape(-1, BATCH) for rng in rngs]
        )
        states, quantities = epoch(index, states, batches)
        history.append(quantities)
    return states[0], np.stack(history)


runs, weights = {}, {}
print(
    "accuracy:        mean and deviation, lowest and highest seed   silent   seconds"
)
for index, name in enumerate(objectives):
    begin = time.perf_counter()
    weights[name], runs[name] = train_seeds(index)
    final, silent = runs[name][-1, :, 1], runs[name][-1, :, 2].mean()
    print(
        f"{name:15}  {final.mean():6.1%} +- {final.std(ddof=1):5.1%}  "
        f"{final.min():13.1%} "
        f"{final.max():6.1%}  {silent:18.1%}  {time.perf_counter() - begin:6.1f}"
    )

# %%
# Each line shows the mean over the seeds, and the shaded area extends from the lowest to the
# highest seed.

titles = {
    "ttfs_loss": "jaxsnn\nttfs_loss",
    "CrossEntropy": "CrossEntropy,\ntemperature 0.1",
}
titles |= {
    name: f"CrossEntropy,\n{name}" for name in ("temperature 0.4", "no penalty")
}
fig, axes = figure(4, 3, size=(7, 6.4), sharex=True, height_ratios=(1, 1.2, 1, 1.2))
columns = np.concatenate([axes[:2].T, axes[2:].T])
for column, (name, history) in zip(columns, runs.items(), strict=True):
    for ax, values in zip(
        column, (history[..., 0], 100 * history[..., 1]), strict=True
    ):
        epochs, area = np.arange(1, EPOCHS + 1), (values.min(1), values.max(1))
        ax.fill_between(epochs, *area, color=TEAL, alpha=0.25, linewidth=0)
        ax.plot(epochs, values.mean(1), color=TEAL, linewidth=1.8)
    column[0].set_title(titles.get(name, name))
    column[1].axhline(100 / 3, color=GREY, linewidth=1, linestyle=(0, (3, 2)))
    column[1].set(ylim=(0, 100), yticks=(0, 50, 100))
for row, label in enumerate(2 * ("loss", "accuracy (%)")):
    axes[row, 0].set_ylabel(label)
for ax in axes[-1]:
    ax.set_xlabel("epoch")
axes[1, 0].text(EPOCHS, 30, "chance", ha="right", va="top", color=GREY)
describe(
    fig,
    "Loss and accuracy per epoch. CrossEntropy at temperature 0.1 and ml_genn's "
    "loss exceed 90 % with a small spread, and SpikeLatency reaches 80 %. Without "
    "the penalty, the lowest accuracy stays at chance. With ttfs_loss, the loss "
    "falls and the accuracy stays below chance",
)

# %%
# - ``CrossEntropy`` with a temperature of 0.1 is best. The softmax delays the spikes of the other
#   classes, until they come several temperatures after the spike of the label. With a temperature
#   of 0.4, training would push many of these spikes past the end of the trial, where they have no
#   gradient.
# - Without the penalty, one seed in three ends with all outputs silent, and its loss is log 3. Once
#   all outputs are silent, there is no gradient left.
# - With ``SpikeLatency``, the network learns more slowly. The targets of this loss are exact times,
#   although an early spike of the label is enough to make the prediction right.
# - With the loss from ml_genn, the network learns, and about a tenth of the outputs are silent.
#   This loss can fall below 0 if labels are silent, because it contains the potentials of these
#   labels.
# - With ``ttfs_loss``, the loss falls, but the network does not learn: the label spikes last, or
#   not at all.
#
# With 8 seeds and 60 epochs, the accuracy was 97.0 % for ``CrossEntropy``, 96.8 % for the loss from
# ml_genn, and 95.2 % for ``SpikeLatency``. To reproduce these numbers, run ``python
# plot_event_based_training.py 8 60``.
#
# Decision regions
# ----------------
#
# The pictures show which class spikes first for each point of the disc, in the network with the
# first seed.

grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 60)] * 2), axis=-1).reshape(-1, 2)
inside = np.hypot(*(grid - 0.5).T) <= 0.5
first_weights = {"untrained": initial_weights(np.random.default_rng(0))}
first_weights |= {
    name: [w[0] for w in weights[name]] for name in ("CrossEntropy", "SpikeLatency")
}
maps = {"the task": classify(grid)}
for name, values in first_weights.items():
    maps[name] = np.asarray(
        cross_entropy.predict(jax.jit(network)(values, encode(grid))[1])
    )

# %%

fig, axes = figure(1, 4, size=(8, 2.25))
for ax, (name, classes) in zip(axes, maps.items(), strict=True):
    image = np.where(inside, classes, np.nan).reshape(60, 60)
    ax.imshow(
        image,
        origin="lower",
        extent=(0, 1, 0, 1),
        cmap=ListedColormap([PALE, TEAL, INK]),
    )
    ax.images[0].set_clim(-0.5, 2.5)
    ax.set(title=name, xticks=(), yticks=())
    ax.spines[:].set_visible(False)
describe(
    fig,
    "Four discs. The first shows the task, with yin, yang and two dots. The "
    "untrained network predicts yang in most of the disc. The network trained with "
    "CrossEntropy shows yin, yang and the dots, with ragged borders. The network "
    "trained with SpikeLatency merges the dots into one band",
)

# %%
# The guide :doc:`/guides/event-based-training` explains how to choose the options.
#
# .. [1] Kriener, Göltz and Petrovici, "The Yin-Yang dataset", 2021, arXiv 2102.08211.
# .. [2] H. Mostafa, "Supervised learning based on temporal coding in spiking neural networks", IEEE
#    Transactions on Neural Networks and Learning Systems 29(7), 2018.
# .. [3] jaxsnn 0.3.0, ``jaxsnn/event/loss.py``.
# .. [4] ml_genn 2.3.1, ``ml_genn/compilers/event_prop_compiler.py``.
