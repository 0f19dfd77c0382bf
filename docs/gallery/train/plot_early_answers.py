"""
A network that answers early
============================

A small spiking network learns handwritten digits, and answers as soon as one of its output neurons
fires.

This example compares three losses in JAX: a rate loss, the temporal loss of snnTorch, and
``CrossEntropy`` with ``readout="latency"``. The question is how often the answer is right, and how
early it comes.
"""

# %%
# Digits as spike times
# ---------------------
#
# The images are the digits of scikit-learn, which have 8 by 8 pixels. A fifth of the images is kept
# for the test. Each pixel is an input neuron that fires at most once. A pixel full of ink fires in
# the first of 20 steps. A pixel with hardly any ink fires in the last step. An empty pixel does not
# fire.
#
# .. dropdown:: Copy these drawing functions first
#
#    .. literalinclude:: /gallery/pictures.py
#       :language: Python
#       :start-at: import numpy

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

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


def raster(ax, spikes, *, color=SPIKES, target=None, size=0.36):
    """Draw spikes as ticks, and `target` spikes as open circles around them.

    `color` is a single colour for all neurons, or a list with one colour per neuron.
    """
    spikes = np.asarray(spikes)
    neurons, steps = spikes.shape
    if target is not None:
        neuron, step = np.nonzero(target)
        ax.scatter(
            step, neuron, s=46, facecolors="none", edgecolors=TARGET, linewidths=1.4
        )
    neuron, step = np.nonzero(spikes)
    if not isinstance(color, str):
        color = [color[row] for row in neuron]
    ax.vlines(step, neuron - size, neuron + size, color=color, linewidth=1.3)
    _rows(ax, neurons, steps)


def shade(ax, row, start=None, stop=None):
    """Shade a row, or only its steps from `start` to before `stop`."""
    first, last = ax.get_xlim()
    first = first if start is None else start - 0.5
    last = last if stop is None else stop - 0.5
    ax.fill_between(
        [first, last], row - 0.5, row + 0.5, color=PALE, linewidth=0, zorder=0
    )


def _rows(ax, neurons, steps):
    """Give each neuron a row, the first at the top, and each step a place in x."""
    ax.set(xlim=(-0.5, steps - 0.5), ylim=(neurons - 0.5, -0.5))
    # and not already named
    if isinstance(ax.yaxis.get_major_locator(), MaxNLocator):
        ax.yaxis.get_major_locator().set_params(integer=True)


# sphinx_gallery_end_ignore

STEPS = 20
pixels, labels = load_digits(return_X_y=True)
train, test, train_labels, test_labels = train_test_split(
    pixels / 16, labels, test_size=0.2, random_state=0, stratify=labels
)


def encode(ink):
    """Return spikes ``[time, sample, pixel]``, earlier where there is more ink."""
    step = np.rint((1 - ink) * (STEPS - 1))
    return ((np.arange(STEPS)[:, None, None] == step) & (ink > 0)).astype(np.float32)


train_spikes, test_spikes = jnp.asarray(encode(train)), encode(test)
shown = np.argmax(test_labels == 3)  # the first of them

# %%

fig, (left, right) = figure(1, 2, size=(7, 2.9), width_ratios=(1, 1.6))
left.imshow(test[shown].reshape(8, 8), cmap="gray_r")
left.set(title=f"a {test_labels[shown]}", xticks=(), yticks=())
left.spines[:].set_visible(True)
right.set(
    title="the same as spikes", xlabel="time (steps)", ylabel="pixel, row by row"
)
raster(right, test_spikes[:, shown].T, size=0.9)
right.set(xticks=range(0, STEPS, 5))
describe(
    fig,
    "Left: an image of a 3. Right: its spikes, one for each pixel with ink. "
    "Pixels with more ink fire earlier",
)

# %%
# The network
# -----------
#
# The network has 64 hidden and 10 output neurons, which are leaky integrate-and-fire neurons. At
# each step, a membrane potential keeps 0.9 of its value and adds the input current; in the step
# after a spike, it is lowered by 1. The derivative of a spike is replaced by a rectangle around the
# threshold. ``vmap`` trains four networks with different initial weights at the same time.

SEEDS, HIDDEN = 4, 64


@jax.custom_jvp
def fire(membrane, width):
    """Return a spike where the membrane has reached 1."""
    return (membrane >= 1).astype(membrane.dtype)


@fire.defjvp
def _(primals, tangents):
    membrane, width = primals
    surrogate = (abs(membrane - 1) < width) / (2 * width)
    return fire(membrane, width), surrogate * tangents[0]


def layer(current, width):
    """Return the spikes for these currents, ``[time, sample, neuron]``."""

    def step(state, now):
        membrane, spike = state
        membrane = 0.9 * membrane + now - spike
        spike = fire(membrane, width)
        return (membrane, spike), spike

    rest = jnp.zeros_like(current[0])
    return jax.lax.scan(step, (rest, rest), current)[1]


def network(weights, spikes, width):
    """Return the output spikes, ``[time, sample, neuron]``."""
    to_hidden, hidden_bias, to_output, output_bias = weights
    hidden = layer(spikes @ to_hidden + hidden_bias, width)
    return layer(hidden @ to_output + output_bias, width)


# %%
# Three losses
# ------------
#
# Two of the three losses are ``CrossEntropy`` with different readouts. For the rate loss, the
# logits are the rates of the output neurons. For the latency loss, the logits are the negative
# latencies of the first output spikes. In both losses, the logits are divided by a temperature.
#
# The third loss is ``ce_temporal_loss`` from snnTorch 1.0.0, which is also a cross-entropy of
# latencies. The code below repeats its formulas in a few lines of JAX, so that this script does not
# need snnTorch. The two latency losses have different gradients. In snnTorch, the derivative of a
# latency is -1 at the step of the first spike, and 0 at all other steps. A silent neuron is treated
# as if it fired in the last step, so it has a gradient at that step only.


def first_spike(spikes, at_silence=False):
    """Return first spike times, ``[batch, class]``, with snnTorch's gradient.

    With `at_silence` the gradient of a silent neuron is -1 at every step.
    """
    silent = ~(spikes > 0).any(0)
    step = jnp.where(silent, len(spikes) - 1, spikes.argmax(0))
    read = jnp.take_along_axis(spikes, step[None], 0)[0]
    if at_silence:
        read = jnp.where(silent, spikes.sum(0), read)
    return step - (read - jax.lax.stop_gradient(read))


def snntorch_loss(at_silence=False):
    """Return the cross-entropy of snnTorch."""

    def loss(spikes, label):
        logits = -first_spike(spikes, at_silence)
        return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()

    return loss


losses = {
    "rate": sx.CrossEntropy(time_axis=0, readout="rate", temperature=0.1),
    "snnTorch": snntorch_loss(),
    "latency": sx.CrossEntropy(
        time_axis=0, readout="latency", temperature=STEPS / 10
    ),
    "slope at silence": snntorch_loss(at_silence=True),
}

# %%
# Training
# --------
#
# For every loss, training starts from the same weights, and uses the same batches and Adam. The
# fourth loss in the list is a variant of snnTorch's loss. We use it at the end of this example.

EPOCHS, BATCH = 8, 64
optimiser, labels = optax.adam(0.005), jnp.asarray(train_labels)


def initial_weights():
    """Return uniform weights and biases of two layers, with an axis for networks."""
    rng = np.random.default_rng(0)
    shapes = (64, HIDDEN), (1, HIDDEN), (HIDDEN, 10), (1, 10)
    return [rng.uniform(-0.25, 0.25, (SEEDS, *s)).astype(np.float32) for s in shapes]


@jax.jit
def epoch(number, width, states, batches):
    """Train all networks with a loss, by its number, for an epoch."""

    def value(weights, batch):
        output = network(weights, train_spikes[:, batch], width)
        return jax.lax.switch(number, list(losses.values()), output, labels[batch])

    def step(state, batch):
        weights, adam = state
        updates, adam = optimiser.update(jax.grad(value)(weights, batch), adam)
        return (optax.apply_updates(weights, updates), adam), None

    return jax.vmap(lambda state: jax.lax.scan(step, state, batches)[0])(states)


@jax.jit
def test_output(weights, width):
    """Return the output spikes, ``[network, time, sample, neuron]``."""
    return jax.vmap(lambda w: network(w, test_spikes, width))(weights)


def trained(name, width=1.0):
    """Return output spikes for the test, ``[network, time, sample, neuron]``."""
    rng = np.random.default_rng(0)
    states = initial_weights(), jax.vmap(optimiser.init)(initial_weights())
    for _ in range(EPOCHS):
        batches = rng.permutation(len(train_labels))[
            : len(train_labels) // BATCH * BATCH
        ]
        states = epoch(
            list(losses).index(name), width, states, batches.reshape(-1, BATCH)
        )
    return np.asarray(test_output(states[0], width))


runs = {name: trained(name) for name in ("rate", "snnTorch", "latency")}

# %%
# How often the answers are right, and how early they come
# --------------------------------------------------------
#
# With the two latency losses, the answer is the class of the first output spike, and it comes at
# the step of that spike. If several classes fire in that step, the answer is the class with the
# lowest index. With the rate loss, the answer is the class with the most spikes after a certain
# number of steps, which you have to choose. If an image causes no output spike, there is no answer,
# which counts as wrong.

first = sx.CrossEntropy(time_axis=0, readout="latency")
most = sx.CrossEntropy(time_axis=0)


def first_spikes(run):
    """Return when each answer comes, ``[network, sample]``, and if it is right."""
    fired = run.any(axis=3)  # [network, time, sample]
    step = np.where(fired.any(axis=1), fired.argmax(axis=1), STEPS)
    right = np.stack([first.predict(spikes) == test_labels for spikes in run])
    return step, right & (step < STEPS)


def counted(run, steps):
    """Return how often the highest count so far is right, ``[network]``."""
    right = np.stack([most.predict(spikes[:steps]) == test_labels for spikes in run])
    return np.mean(right & run[:, :steps].any(axis=(1, 3)), axis=1)


def summary(run):
    """Return right and missing answers and their mean step, ``[network]``."""
    step, right = first_spikes(run)
    answered = step < STEPS
    mean_step = np.sum(step * answered, axis=1) / np.maximum(answered.sum(axis=1), 1)
    return right.mean(axis=1), 1 - answered.mean(axis=1), mean_step


def table(runs):
    """Print means over networks, and the range of the right answers."""
    print("first output spike       right               no answer   mean step")
    for name, run in runs.items():
        right, missing, step = summary(run)
        span = f"({right.min():.0%} to {right.max():.0%})"
        print(
            f"{name:22} {right.mean():7.0%} {span:13} "
            f"{missing.mean():10.0%} {step.mean():11.1f}"
        )


table(runs)
by_count = np.stack([counted(runs["rate"], steps) for steps in range(1, STEPS + 1)])
for step in (3, 8, 19):
    print(f"rate, highest count by step {step}: {by_count[step].mean():.0%} right")
output_spikes = {name: run.sum() for name, run in runs.items()}
print(
    "output spikes:",
    *(f"{name} {number:.0f}" for name, number in output_spikes.items()),
)

# %%

COLOURS = {"rate": GREY, "snnTorch": GOLD, "latency": PINK}
fig, (left, right) = figure(1, 2, size=(7, 3.4), sharey=True)
left.plot(by_count.mean(axis=1), color=GREY, linewidth=2.2)
for name, run in runs.items():
    accuracy, _, mean_step = summary(run)
    left.scatter(mean_step, accuracy, color=COLOURS[name], zorder=3)
    step, correct = first_spikes(run)
    curves = np.mean(
        correct[..., None] & (step[..., None] <= np.arange(STEPS)), axis=1
    )
    right.plot(curves.T, color=COLOURS[name], linewidth=0.7, alpha=0.5)
    right.plot(curves.mean(axis=0), color=COLOURS[name], linewidth=2.2)
left.set(title="right answers and their latency", ylabel="share of the test images")
left.set(xlim=(-1, STEPS), ylim=(0, 1), xlabel="mean step of the answer")
right.set(title="right first spikes so far", xlim=(-1, STEPS), xlabel="time (steps)")
for ax, x, y, text, colour in (
    (left, 13, 0.92, "rate, by count", GREY),
    (left, 1, 0.36, "rate, by first spike", GREY),
    (left, 1.2, 0.91, "latency", PINK),
    (left, 9, 0.2, "snnTorch", GOLD),
    (right, 13, 0.5, "rate", GREY),
    (right, 13, 0.88, "latency", PINK),
    (right, 9.5, 0.2, "snnTorch", GOLD),
):
    ax.text(x, y, text, color=colour, va="center")
for ax in (left, right):
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
describe(
    fig,
    "With the latency loss, the first spikes are right for over three in four "
    "images, at a mean step of 3. With snnTorch's loss, they are right for a third "
    "of the images, at a mean step of 15. With the rate loss, they are right for "
    "less than half, at step 0, but its spike counts are right for four in five "
    "images after 9 steps",
)

# %%
# In the left picture, each dot is one network. The grey line belongs to the rate loss: it shows how
# many answers are right if the spikes are counted up to a given step. With the latency loss, the
# first spike gives the right answer for 78 % of the images, at a mean step of 3.
#
# With the rate loss, the spike counts give the right answer for 63 % of the images at step 3, for
# 81 % at step 8 and for 84 % at the end. However, the first spikes of these networks are wrong for
# more than half of the images. These networks also fire six times as many output spikes as the
# networks with the latency loss. With snnTorch's loss, nearly half of the images get no answer, and
# the other images get a late answer.
#
# The next picture shows the output spikes of the last of the four networks for the digit above. The
# row of the correct class is shaded.

fig, axes = figure(1, 3, size=(7, 2.4), sharey=True)
axes[0].set_ylabel("output neuron")
for ax, (name, run) in zip(axes, runs.items(), strict=True):
    raster(ax, run[-1, :, shown].T)
    shade(ax, test_labels[shown])
    ax.set(title=name, xlabel="time (steps)", yticks=range(0, 10, 3))
describe(
    fig,
    "Output spikes for a 3. With the rate loss, there are many. With snnTorch's "
    "loss, the right neuron fires once, at step 16. With the latency loss, the "
    "right neuron fires at step 1, and a few spikes follow later",
)

# %%
# Why snnTorch's loss trains worse here
# -------------------------------------
#
# The gradient of a silent neuron should say at which steps a spike would help. With snnTorch's
# loss, this gradient is nonzero only at the last step. If the membrane potential is far from the
# threshold at that step, the neuron learns nothing. With ``CrossEntropy``, the gradient at a step
# is the change of the loss caused by one added spike. A silent neuron therefore has a gradient at
# every step, and the gradient is largest at the earliest steps.
#
# To test whether this difference explains the results, we change only this property of snnTorch's
# loss: the derivative of the latency of a silent neuron is now -1 at every step.

changed = {
    name: runs[name] if name in runs else trained(name) for name in list(losses)[1:]
}
table(changed)

# %%
# The gradient of silent neurons is indeed the main cause: this change alone raises the fraction of
# right answers from 32 % to 71 %. Three differences from ``CrossEntropy`` remain. The temperature
# is different. The gradient at the early steps of a silent neuron has a different size. The
# derivative of the latency at the first spike is different as well: in ``CrossEntropy``, its size
# is the time between the first and the second spike.
#
# How much this difference matters depends on the surrogate gradient. If the rectangle is three
# times as wide, the gradient at the last step reaches more of the silent neurons:

wide = {name: trained(name, width=3.0) for name in changed}
table(wide)

# %%
# With the wide rectangle, only few images have no answer. A gradient at every step of silent
# neurons no longer helps: with snnTorch's loss, 58 % of the answers are right, and with the changed
# loss, 51 %. With the latency loss, 73 % of the answers are right, so the remaining difference must
# have other causes as well. These are small networks on a single data set, so compare the losses on
# your own task.

# sphinx_gallery_start_ignore
# The numbers of the text, with room for other versions of the libraries.


def about(share, text):
    """Return whether a share is the one in the text, within 6 % of the images."""
    return abs(np.mean(share) - text) < 0.06


shares = {name: summary(run)[0] for name, run in (runs | changed).items()}
assert about(shares["latency"], 0.78)
assert about(shares["snnTorch"], 0.32)
assert about(shares["slope at silence"], 0.71)
assert np.mean(shares["rate"]) < 0.5
for step, text in ((3, 0.63), (8, 0.81), (19, 0.84)):
    assert about(by_count[step], text)
assert 5 < output_spikes["rate"] / output_spikes["latency"] < 7.5
assert 0.35 < np.mean(summary(runs["snnTorch"])[1]) < 0.55
assert 2.5 < np.mean(summary(runs["latency"])[2]) < 3.5
assert np.mean(summary(runs["snnTorch"])[2]) > 12
for name, text in (
    ("snnTorch", 0.58),
    ("slope at silence", 0.51),
    ("latency", 0.73),
):
    assert about(summary(wide[name])[0], text)
    assert np.mean(summary(wide[name])[1]) < 0.08
# sphinx_gallery_end_ignore

# sphinx_gallery_thumbnail_number = 2
