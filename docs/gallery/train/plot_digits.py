"""
One training run in two frameworks
==================================

A small spiking network learns handwritten digits, once in PyTorch and once in JAX.

The training is repeated with two losses, ``CrossEntropy`` and ``SpikeRate``. Both frameworks use
the same loss object and the same initial weights, and see the images in the same order. The loss
curves of the two frameworks are equal.
"""

# %%
# Digits as spikes
# ----------------
#
# scikit-learn provides 1797 images of 8 by 8 pixels. A fifth of the images is kept for the test.
# Each pixel is an input neuron, and pixels with more ink fire more often. Let v be the amount of
# ink in a pixel, from 0 to 1. By step t, the pixel has fired floor(t v) times. The spikes are not
# random.
#
# .. dropdown:: Copy these drawing functions first
#
#    .. literalinclude:: /gallery/pictures.py
#       :language: Python
#       :start-at: import numpy

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from matplotlib import pyplot as plt
from matplotlib.ticker import (
    FormatStrFormatter,
    LogLocator,
    MaxNLocator,
    NullLocator,
)
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

# the matrices are small: more threads would wait for one another
torch.set_num_threads(1)

pixels, labels = load_digits(return_X_y=True)
train, test, train_labels, test_labels = train_test_split(
    pixels / 16, labels, test_size=0.2, random_state=0, stratify=labels
)


def encode(ink, steps=20):
    """Return evenly spaced spikes, ``[time, sample, pixel]``."""
    fired = np.floor(np.arange(steps + 1)[:, None, None] * ink)
    return np.diff(fired, axis=0)


train_spikes, test_spikes = encode(train), encode(test)
shown = np.argmax(test_labels == 3)  # the first of them

# %%

fig, (left, right) = figure(1, 2, size=(7, 2.9), width_ratios=(1, 1.6))
left.imshow(test[shown].reshape(8, 8), cmap="gray_r")
left.set(title=f"a {test_labels[shown]}", xticks=(), yticks=())
left.spines[:].set_visible(True)
right.set(
    title="the same as spikes", xlabel="time (steps)", ylabel="pixel, row by row"
)
raster(right, test_spikes[:, shown].T, size=0.5)
describe(
    fig,
    "A handwritten 3 in 8 by 8 pixels, and its raster, in which pixels with ink "
    "fire at most steps",
)

# %%
# The network in both frameworks
# ------------------------------
#
# The network has two layers of leaky integrate-and-fire neurons, with 64 inputs, 100 hidden neurons
# and 10 outputs, one for each digit. Arrays have shape ``[time, batch, neuron]``. At each step, a
# membrane potential keeps 0.9 of its value and adds the input current; in the step after a spike,
# it is lowered by 1. The derivative of the threshold is replaced by a box that is wide enough to
# reach silent neurons.


def box(membrane):
    """Return the surrogate derivative: 1/4 less than 3 away from the threshold."""
    return (abs(membrane - 1) < 3) / 4


class TorchFire(torch.autograd.Function):
    """A spike where the membrane has reached 1."""

    @staticmethod
    def forward(ctx, membrane, slope):
        """Return the spikes."""
        ctx.save_for_backward(membrane)
        ctx.slope = slope
        return (membrane >= 1).to(membrane.dtype)

    @staticmethod
    def backward(ctx, gradient):
        """Return the gradient of the membrane, and none for the slope."""
        return gradient * ctx.slope(*ctx.saved_tensors), None


def torch_layer(current, slope):
    """Return the spikes of neurons with these currents."""
    membrane = spike = torch.zeros_like(current[0])
    spikes = []
    for now in current:
        membrane = 0.9 * membrane + now - spike
        spike = TorchFire.apply(membrane, slope)
        spikes.append(spike)
    return torch.stack(spikes)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def jax_fire(membrane, slope):
    """Return a spike where the membrane has reached 1."""
    return (membrane >= 1).astype(membrane.dtype)


@jax_fire.defjvp
def _(slope, primals, tangents):
    return jax_fire(*primals, slope), slope(*primals) * tangents[0]


def jax_layer(current, slope):
    """Return the spikes of neurons with these currents."""

    def step(state, now):
        membrane, spike = state
        membrane = 0.9 * membrane + now - spike
        spike = jax_fire(membrane, slope)
        return (membrane, spike), spike

    rest = jnp.zeros_like(current[0])
    return jax.lax.scan(step, (rest, rest), current)[1]


def network(layer, weights, spikes, slope):
    """Return the output spikes, ``[time, batch, neuron]``, in either framework."""
    to_hidden, hidden_bias, to_output, output_bias = weights
    hidden = layer(spikes @ to_hidden + hidden_bias, slope)
    return layer(hidden @ to_output + output_bias, slope)


# %%
# Training in both frameworks
# ---------------------------
#
# Both frameworks start from the same weights and use the same batches, which are made with NumPy.
# Each framework uses its own implementation of Adam.

EPOCHS, BATCH, RATE = 4, 64, 0.01
counts = sx.CrossEntropy(time_axis=0)  # predicts the class with the most spikes


class Run(NamedTuple):
    """The result of a training, in NumPy arrays."""

    losses: np.ndarray
    """The loss of each step."""
    output: np.ndarray
    """Output spikes for the test after training, ``[time, sample, neuron]``."""


def initial_weights(dtype):
    """Return weights and biases of the two layers."""
    rng = np.random.default_rng(1)
    weights = [
        rng.normal(0, 0.15, (64, 100)), np.zeros(100),
        rng.normal(0, 0.1, (100, 10)), np.zeros(10),
    ]  # fmt: skip
    return [w.astype(dtype) for w in weights]


def batches(dtype):
    """Yield spikes and labels."""
    rng = np.random.default_rng(0)
    for _ in range(EPOCHS):
        order = rng.permutation(len(train))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            yield train_spikes[:, chosen].astype(dtype), train_labels[chosen]


def train_torch(loss, dtype="float64", slope=box):
    """Train in PyTorch."""
    weights = [torch.tensor(w, requires_grad=True) for w in initial_weights(dtype)]
    optimiser = torch.optim.Adam(weights, lr=RATE)

    losses = []
    for spikes, labels in batches(dtype):
        value = loss(
            network(torch_layer, weights, torch.tensor(spikes), slope), labels
        )
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        losses.append(value.item())

    with torch.no_grad():
        images = torch.tensor(test_spikes.astype(dtype))
        output = network(torch_layer, weights, images, slope)
    return Run(np.asarray(losses), output.numpy())


jax_network = jax.jit(functools.partial(network, jax_layer), static_argnums=2)


def train_jax(loss, dtype="float64", slope=box):
    """Train in JAX."""
    optimiser = optax.adam(RATE)

    def value(weights, spikes, labels):
        return loss(jax_network(weights, spikes, slope), labels)

    @jax.jit
    def step(weights, state, spikes, labels):
        now, gradient = jax.value_and_grad(value)(weights, spikes, labels)
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(weights, updates), state, now

    with jax.enable_x64(dtype == "float64"):
        weights = [jnp.asarray(w) for w in initial_weights(dtype)]
        state, losses = optimiser.init(weights), []
        for spikes, labels in batches(dtype):
            weights, state, now = step(weights, state, spikes, labels)
            losses.append(float(now))
        output = jax_network(weights, test_spikes.astype(dtype), slope)
        return Run(np.asarray(losses), np.asarray(output))


# %%
# Two losses
# ----------
#
# Both losses are means over the batch. With ``CrossEntropy``, the labelled neuron should fire more
# often than the other neurons. With ``SpikeRate``, the labelled neuron should fire in half of the
# steps, and the other neurons in 2 % of the steps.

losses = {
    "CrossEntropy": sx.CrossEntropy(time_axis=0),
    "SpikeRate": sx.SpikeRate(0.5, 0.02, reduction="mean", time_axis=0),
}
in_torch = {name: train_torch(loss) for name, loss in losses.items()}
in_jax = {name: train_jax(loss) for name, loss in losses.items()}

# %%


def difference(one, other):
    """Return the relative difference of two runs' losses, at each step."""
    return abs(one.losses - other.losses) / other.losses


def smoothed(x):
    """Return the mean of every eleven steps, of which there are 88."""
    return np.mean(np.reshape(x, (-1, 11)), axis=1)


steps = smoothed(range(EPOCHS * (len(train) // BATCH)))
fig, axes = figure(1, 2, size=(7, 2.6))
for ax, name in zip(axes, losses, strict=True):
    ours, theirs = smoothed(in_torch[name].losses), smoothed(in_jax[name].losses)
    ax.plot(steps, ours, color=GOLD, linewidth=5, alpha=0.5, label="PyTorch")
    ax.plot(steps, theirs, color=TEAL, linewidth=1.5, dashes=(3, 2), label="JAX")
    ax.set(title=name, yscale="log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    ax.yaxis.set_minor_locator(NullLocator())
axes[0].set_ylabel("loss")
axes[0].legend()
for ax in axes:
    ax.set_xlabel("training step")
describe(
    fig,
    "Two falling loss curves. In both, the dashed line of JAX lies on the line of "
    "PyTorch",
)

# %%
# How far apart the frameworks are
# --------------------------------
#
# The losses depend only on spike counts, and both frameworks produce the same spikes. The losses
# still differ slightly, because the frameworks add numbers in different orders. The difference is a
# few rounding errors of float64, each about 2e-16.


def accuracy(run):
    """Return the share of the test that is right."""
    return counts.accuracy(run.output, test_labels)


print("              accuracy in         largest relative   output spikes of the")
print("              PyTorch    JAX      difference         test, and that differ")
for name in losses:
    ours, theirs = in_torch[name], in_jax[name]
    largest = difference(ours, theirs).max()
    apart = np.sum(ours.output != theirs.output)
    print(
        f"{name:12}  {accuracy(ours):7.1%}    {accuracy(theirs):5.1%}    "
        f"{largest:.1e}    "
        f"{ours.output.sum():15.0f}, {apart}"
    )
    assert largest < 1e-9
    assert apart == 0
print("One digit is 0.3%.")

# %%
# What the output neurons do
# --------------------------
#
# The picture shows the output spikes for the digit above. The row of the correct class is shaded.
# ``CrossEntropy`` compares spike counts, so other neurons may fire as long as the labelled neuron
# fires more often. With ``SpikeRate``, the target of the labelled neuron is 10 spikes.

panels = {name: in_torch[name].output for name in losses}
fig, axes = figure(1, 2, size=(7, 2.6), sharey=True)
axes[0].set_ylabel("output neuron")
for ax, (name, spikes) in zip(axes, panels.items(), strict=True):
    raster(ax, spikes[:, shown].T)
    shade(ax, test_labels[shown])
    ax.set(title=name, xlabel="time (steps)", yticks=range(0, 10, 3))
describe(
    fig,
    "The labelled neuron fires the most. With CrossEntropy, two other neurons fire "
    "too. With SpikeRate, four other neurons fire, but less often",
)

# %%
# When two runs diverge
# ---------------------
#
# Now we repeat the training with ``SpikeRate`` twice, each time with one change. In the first
# repetition, both frameworks compute in float32, where rounding errors are 5e8 times larger than in
# float64. At some step, a membrane potential is so close to the threshold that rounding decides
# whether the neuron fires. From that spike on, the two frameworks give different results.
#
# In the second repetition, both frameworks compute in float64 again, but with a different surrogate
# derivative. So far, this derivative was a box. A box is a step function of the potential, like the
# spike itself, so a rounding error changes neither the spike nor the derivative, unless the
# potential is at an edge of a step. If we replace the box by a smooth curve, every rounding error
# changes the gradient, and training may amplify this change. With the curve below, the two
# frameworks give different results in float64 as well.


def smooth(membrane):
    """Return a smooth curve in place of the box."""
    return 1 / (1 + 10 * abs(membrane - 1)) ** 2


def both(dtype, slope):
    """Train with SpikeRate in both frameworks."""
    loss = losses["SpikeRate"]
    return train_torch(loss, dtype, slope), train_jax(loss, dtype, slope)


runs = {
    "float32, box": (*both("float32", box), GOLD),
    "float64, smooth": (*both("float64", smooth), PINK),
    "float64, box": (in_torch["SpikeRate"], in_jax["SpikeRate"], TEAL),
}

# %%

fig, ax = figure(size=(7, 2.9))
for name, (ours, theirs, colour) in runs.items():
    largest = np.maximum.accumulate(difference(ours, theirs))
    ax.step(
        range(len(largest)),
        largest,
        color=colour,
        linewidth=2,
        where="post",
        label=name,
    )
ax.axhline(1e-9, color=GREY, linestyle=(0, (3, 2)), label="limit of the runs above")
ax.set(
    yscale="log",
    ylim=(1e-17, 10),
    yticks=10.0 ** np.arange(-16, 1, 4),
    xlabel="training step",
)
ax.set_title("largest relative difference of PyTorch and JAX so far")
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
describe(
    fig,
    "In float64 with the box, the difference stays at the size of rounding. In "
    "float32, and in float64 with the smooth curve, it jumps to more than 1e-5 at "
    "some step",
)

for name, (ours, theirs, _) in runs.items():
    apart = difference(ours, theirs)
    parted = apart > 1000 * np.finfo(name[:7]).eps
    when = f"at step {np.argmax(parted)}" if parted.any() else "never"
    accuracies = f"{accuracy(ours):.1%} and {accuracy(theirs):.1%}"
    print(
        f"{name:15}  part {when:11}  by {apart.max():.0e} at most; "
        f"accuracy {accuracies}"
    )

# %%
# Rounding errors of float64 stay below 1e-14. A single different spike causes a difference of more
# than 1e-5. The code above checks that the losses differ by less than 1e-9, which lies between
# these two numbers.

# sphinx_gallery_thumbnail_number = 2
