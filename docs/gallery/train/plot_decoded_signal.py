"""
A signal decoded from spikes
============================

A small spiking network learns to decode the position of a moving point at every step.

Each of the 100 input neurons has a place in the plane, and fires while the point is close to this
place. Decoding is a regression task, because the targets are numbers: the two coordinates of the
point. ``SquaredError`` compares these numbers with the membrane potentials of the output layer.
"""

# %%
# The task
# --------
#
# The paths for training are random and smooth. The farther the point is from the place of an input
# neuron, the less likely the neuron is to fire. Spikes have shape ``[time, sample, neuron]``, and
# targets have shape ``[time, sample, coordinate]``. The test path is a figure of eight.
#
# .. dropdown:: Copy these drawing functions first
#
#    .. literalinclude:: /gallery/pictures.py
#       :language: Python
#       :start-at: import numpy

import numpy as np
import torch
from matplotlib import pyplot as plt

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

# the matrices are small: more threads would wait for one another
torch.set_num_threads(1)

STEPS, SAMPLES, NEURONS = 200, 12, 100
rng = np.random.default_rng(0)
places = rng.uniform(-1.2, 1.2, (NEURONS, 2))


def random_paths():
    """Return smooth random paths, ``[time, sample, coordinate]``."""
    time = np.arange(STEPS)[:, None, None, None] / STEPS
    cycles = rng.uniform(0.3, 2, (SAMPLES, 2, 3))
    phases = rng.uniform(0, 2 * np.pi, (SAMPLES, 2, 3))
    return 1.3 * np.sin(2 * np.pi * cycles * time + phases).mean(axis=-1)


def observed(paths):
    """Return the input spikes while the point moves along the paths."""
    distance = np.square(paths[:, :, None] - places).sum(axis=-1)
    fires = rng.random(distance.shape) < 0.4 * np.exp(-distance / (2 * 0.35**2))
    return torch.tensor(fires, dtype=torch.float32)


angle = 2 * np.pi * np.arange(STEPS) / STEPS
eight = np.stack([0.85 * np.sin(angle), 0.7 * np.sin(2 * angle)], axis=-1)[:, None]
test_spikes, test_path = observed(eight), torch.tensor(eight, dtype=torch.float32)

# %%

fig, (left, right) = figure(1, 2, size=(7, 3), width_ratios=(1, 1.6))
left.scatter(*places.T, s=12, color=GREY, linewidths=0)
left.plot(*eight[:, 0].T, color=TARGET, linewidth=2)
left.set(title="places and test path", aspect="equal", xlabel="x", ylabel="y")
order = np.argsort(places[:, 0])
right.scatter(
    *np.nonzero(test_spikes[:, 0, order].numpy()), s=3, color=SPIKES, linewidths=0
)
right.set(
    title="input spikes", xlabel="time (steps)", ylabel="neuron, in the order of x"
)
right.set(xlim=(0, STEPS), ylim=(-1, NEURONS))
describe(
    fig,
    "Left: a figure of eight among scattered places. Right: the input spikes. "
    "First the neurons with a large x fire, then those with a small x",
)

# %%
# The network
# -----------
#
# The hidden layer has 100 leaky integrate-and-fire neurons. The output layer has two leaky
# integrators that do not fire. Their membrane potentials are the decoded coordinates.


class Fire(torch.autograd.Function):
    """A spike where the membrane has reached 1, with a surrogate derivative."""

    @staticmethod
    def forward(ctx, membrane):
        """Return the spikes."""
        ctx.save_for_backward(membrane)
        return (membrane >= 1).to(membrane.dtype)

    @staticmethod
    def backward(ctx, gradient):
        """Return the gradient with respect to the membrane."""
        (membrane,) = ctx.saved_tensors
        return gradient / (1 + 5 * abs(membrane - 1)) ** 2


class Decoder(torch.nn.Module):
    """Map spikes to potentials, ``[time, sample, coordinate]``."""

    def __init__(self):
        super().__init__()
        self.hidden = torch.nn.Linear(NEURONS, 100)
        self.output = torch.nn.Linear(100, 2)

    def forward(self, spikes):
        """Return the membrane potentials of the output layer."""
        membrane = fired = potential = torch.zeros(())
        potentials = []
        for current in self.hidden(3 * spikes):
            membrane = 0.8 * membrane + current - fired
            fired = Fire.apply(membrane)
            potential = 0.8 * potential + 0.2 * self.output(fired)
            potentials.append(potential)
        return torch.stack(potentials)


# %%
# Training
# --------
#
# With a moving window of one step, the loss has a term at each step. In the first steps, too few
# spikes have arrived to decode a position, so a mask leaves out the terms of these steps. Each
# training step uses new random paths.

TRAINING = 90
SHOWN = 0, 10, TRAINING
loss = sx.SquaredError(time_axis=0, moving_window=1)
mask = torch.ones((STEPS, SAMPLES), dtype=torch.bool)
mask[:20] = False

torch.manual_seed(0)
network = Decoder()
optimiser = torch.optim.Adam(network.parameters(), lr=0.015)

decoded, values = {}, []
for step in range(TRAINING + 1):
    if step in SHOWN:
        with torch.no_grad():
            decoded[step] = network(test_spikes)
    paths = random_paths()
    value = loss(network(observed(paths)), torch.tensor(paths), where=mask)
    values.append(value.item())
    optimiser.zero_grad()
    value.backward()
    optimiser.step()

errors = {
    step: loss(x, test_path, where=mask[:, :1]).item() for step, x in decoded.items()
}
for step, error in errors.items():
    print(
        f"after {step:3} training steps: "
        f"mean squared error {error:.3f} on the test path"
    )
variance = loss(torch.zeros_like(test_path), test_path, where=mask[:, :1]).item()
print(f"for the answer 0: {variance:.3f}")

# %%
# The decoded path
# ----------------

fig, axes = figure(2, 1, size=(7, 3.6), sharex=True, sharey=True)
for coordinate, (ax, name) in enumerate(zip(axes, "xy", strict=True)):
    ax.plot(eight[:, 0, coordinate], color=TARGET, linewidth=2, label="target")
    for step, colour in ((0, GREY), (TRAINING, FILTERED)):
        label = f"after {step} training steps" if step else "before training"
        ax.plot(
            decoded[step][:, 0, coordinate], color=colour, linewidth=1.4, label=label
        )
    ax.axvspan(0, 20, color=LIGHT, linewidth=0, zorder=0)
    ax.set(ylabel=name, xlim=(0, STEPS - 1), ylim=(-1.1, 1.1), yticks=(-1, 0, 1))
axes[0].annotate("masked", (10, -1), ha="center")
axes[0].legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
axes[1].set_xlabel("time (steps)")
describe(
    fig,
    "The two coordinates over time. Before training, the decoded lines stay near "
    "0. After training, they follow the target with a delay of a few steps",
)

# %%
# The next picture shows the paths in the plane, without the masked steps. The title of each panel
# gives the number of training steps and the mean squared error.

fig, axes = figure(1, len(SHOWN), size=(7, 2.6), sharex=True, sharey=True)
for ax, (step, x) in zip(axes, decoded.items(), strict=True):
    ax.plot(*eight[:, 0].T, color=TARGET, linewidth=2)
    ax.plot(*x[20:, 0].T, color=FILTERED, linewidth=1.4)
    ax.set(
        title=f"{step} steps: error {errors[step]:.3f}", aspect="equal", xlabel="x"
    )
axes[0].set_ylabel("y")
describe(
    fig,
    "At first, the decoded path is a dot in the centre. At the end, it is a figure "
    "of eight like the target",
)

# %%
# Most of the remaining error is delay
# ------------------------------------
#
# Both layers are leaky integrators, so the decoded point lags behind the true point. The decoded
# point is closest to the place where the true point was a few steps before.

for delay in range(0, 9, 2):
    late = loss(decoded[TRAINING][20:], test_path[20 - delay : STEPS - delay]).item()
    print(f"compared with the path {delay} steps before: {late:.4f}")

# %%
# For comparison, we also decode the position with a linear decoder. It filters the input spikes
# with an exponential kernel and multiplies them by weights, which are the least-squares solution
# for 300 random paths.


def filtered(spikes):
    """Return filtered input spikes and a 1, ``[time, sample, neuron + 1]``."""
    traces = sx.causal_filter(spikes.numpy(), 0.8 ** np.arange(50), time_axis=0)
    return np.concatenate([traces, np.ones_like(traces[..., :1])], axis=-1)[20:]


products, targets = 0, 0
for _ in range(300 // SAMPLES):
    paths = random_paths()
    x = filtered(observed(paths)).reshape(-1, NEURONS + 1)
    products = products + x.T @ x
    targets = targets + x.T @ paths[20:].reshape(-1, 2)
linear = filtered(test_spikes) @ np.linalg.solve(products, targets)
error = np.mean((linear - eight[20:]) ** 2)
print(f"linear decoder: mean squared error {error:.3f} on the test path")

# %%
# The error of the linear decoder is larger than the error of the network.
#
# For other kinds of targets, see the guide "Regression". It covers one number per sample and
# neuron, and signals that the filtered output spikes should follow.

# sphinx_gallery_start_ignore
# The numbers of the text.
assert errors[0] > 0.3
assert errors[TRAINING] < 0.9 * error
delayed = loss(decoded[TRAINING][20:], test_path[16 : STEPS - 4])
assert delayed < 0.6 * errors[TRAINING]
# sphinx_gallery_end_ignore

# sphinx_gallery_thumbnail_number = 3
