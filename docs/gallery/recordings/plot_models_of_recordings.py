"""
Models of recorded neurons
==========================

Four models predict recorded spikes. We fit the models by maximising their likelihood, and compare
them in bits per spike.

The recording is from an auditory receptor of a grasshopper. The models are fitted in JAX to one
half of the recording, and scored on the other half. One of the models is worse than a constant
rate. Finally, the best model generates spikes, and distances in JAX compare these spikes with the
recording.
"""

# %%
# The recording
# -------------
#
# The recordings are included in the package nitime (BSD licence, ``pip install nitime``). One
# receptor neuron of *Locusta migratoria* heard a tone whose amplitude followed random noise [1]_.
# The noise had frequencies up to 200 Hz in the first recording and up to 800 Hz in the second. Each
# lasts 10 seconds. In this example, the responses to the two sounds are treated as two neurons. The
# bins are 1 ms long. The models are fitted to the even seconds and tested on the odd ones.
#
# .. dropdown:: Copy these drawing functions first
#
#    .. literalinclude:: /gallery/pictures.py
#       :language: Python
#       :start-at: import numpy

from importlib import resources

import jax
import numpy as np
from jax import numpy as jnp
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

STEPS = 10_000  # bins of 1 ms in a recording
NAMES = "noise to 200 Hz", "noise to 800 Hz"


def read(number):
    """Return the spikes and the sound level of a recording, both ``[time]``."""
    folder = resources.files("nitime") / "data"
    times = np.loadtxt(folder / f"grasshopper_spike_times{number}.txt")
    amplitude = np.loadtxt(folder / f"grasshopper_stimulus{number}.txt", usecols=1)
    spikes = sx.bin_spikes([times], neurons=1, steps=STEPS, time_step=1000)[0]
    level = 20 * np.log10(amplitude).reshape(STEPS, -1).mean(axis=1)
    return spikes, level - level.mean()


recordings = zip(read(1), read(2), strict=True)
counts, level = (np.stack(pair).astype(np.float32)[None] for pair in recordings)
second = np.arange(STEPS) // 1000
train, test = second % 2 == 0, second % 2 == 1  # masks [time]
print("shape [batch, neuron, time]:", counts.shape)
print("spikes of the two neurons:", counts.sum(axis=(0, 2)).astype(int))

# %%
# Three linear models
# -------------------
#
# A generalised linear model (GLM) predicts the logarithm of the rate as a weighted sum of
# predictors. There are two groups of predictors. The first group is the sound level 2 to 15 ms
# before the step. The second group is the recent firing of the neuron, averaged with time constants
# from 1 to 100 ms. The first model uses the sound. The second model uses the recent spikes. The
# third model uses both.

CONSTANTS = np.asarray([1, 2, 4, 8, 16, 100])  # ms


def recent_rate(constant):
    """Return the mean rate before each step, ``[batch, neuron, time]``."""
    taps = sx.exponential_kernel(constant, 8 * constant)
    rate = sx.causal_filter(counts, taps / taps.sum(), time_axis=-1)
    # without the step itself
    return np.pad(rate, [(0, 0), (0, 0), (1, 0)])[..., :-1]


delayed = [
    np.pad(level / 10, [(0, 0), (0, 0), (lag, 0)])[..., :STEPS]
    for lag in range(2, 16)
]
sound = np.stack(delayed, axis=-1)
history = np.stack([recent_rate(constant) for constant in CONSTANTS], axis=-1)
one = np.ones((*counts.shape, 1))

# %%
# The loss is convex, so Newton's method finds the best weights in a few steps. The mask ``where``
# selects the seconds that are used for the fit. The neuron never fires in two successive bins, so
# the weights of the recent spikes would grow without limit. A small penalty keeps them finite.

loss = sx.PoissonNLL(time_axis=-1)


def fit(*predictors):
    """Return log rates ``[batch, neuron, time]`` and weights of a fitted GLM."""
    inputs = jnp.concatenate(predictors, axis=-1, dtype=jnp.float32)
    shape = (2, inputs.shape[-1], 1)

    def value(flat):
        weights = flat.reshape(shape)
        likelihood = loss((inputs @ weights)[..., 0], counts, where=train)
        return likelihood + 1e-4 * jnp.sum(weights[:, 1:] ** 2)

    @jax.jit
    def newton(flat):
        return flat - jnp.linalg.solve(
            jax.hessian(value)(flat), jax.grad(value)(flat)
        )

    flat = jnp.zeros(shape).at[:, 0].set(-2).reshape(-1)
    for _ in range(10):
        flat = newton(flat)
    weights = flat.reshape(shape)
    return np.asarray((inputs @ weights)[..., 0]), weights[..., 0]


models = {
    "sound": fit(one, sound)[0],
    "recent spikes": fit(one, history)[0],
}
models["both"], weights = fit(one, sound, history)

# %%
# A model that is worse than its null model
# -----------------------------------------
#
# The fourth model is a peristimulus time histogram (PSTH). It averages the seconds that are used
# for the fit: the result is the mean response at each millisecond after the start of a second,
# smoothed over about 10 ms. Such a model is good if the stimulus is repeated in each second. In
# this recording, the noise never repeats.

smooth = np.hanning(21) / np.hanning(21).sum()
seconds = counts.reshape(2, 10, 1000)
psth = [
    np.convolve(mean, smooth, mode="same") for mean in seconds[:, ::2].mean(axis=1)
]
models["PSTH"] = np.log(np.tile(psth, 10)[None] + 1e-3).astype(np.float32)

# %%

START, STOP = 3000, 3250  # ms, in a second that was not used for the fit
fig, axes = figure(2, size=(7, 5), sharex=True)
for neuron, (ax, name) in enumerate(zip(axes, NAMES, strict=True)):
    for model, color in (("sound", GOLD), ("PSTH", GREY), ("both", TEAL)):
        rates = np.exp(models[model][0, neuron, START:STOP])
        ax.plot(rates, color=color, linewidth=1.3, label=model)
    ax.vlines(
        np.nonzero(counts[0, neuron, START:STOP])[0],
        1.3,
        1.45,
        color=SPIKES,
        linewidth=1.4,
    )
    ax.set(title=f"{name}: spikes (top) and predicted rates", ylabel="spikes per ms")
    ax.set(ylim=(0, 1.5), yticks=[0, 0.5, 1])
axes[-1].set_xlabel("time (ms)")
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
describe(
    fig,
    "Predicted rates under the recorded spikes of two neurons. The model with the "
    "sound and the recent spikes has a peak at most spikes and is near 0 just "
    "after a spike. The peaks of the model with only the sound are lower, and the "
    "PSTH is unrelated to the spikes",
)

# %%
# Bits per spike
# --------------
#
# ``bits_per_spike`` compares each model with a null model, which predicts a constant rate for each
# neuron. In this example, the constant rate is the mean rate in the seconds that are used for the
# fit. The score of all neurons is the total gain divided by the total number of spikes. It is not
# the mean of the scores of the two neurons.

null = counts[..., train].mean(axis=(0, 2))
print(f"{'':14} {NAMES[0]}  {NAMES[1]}  all neurons")
each = {}
for name, fitted in models.items():
    each[name] = loss.bits_per_spike(
        fitted, counts, null=null, where=test, per="neuron"
    )
    total = loss.bits_per_spike(fitted, counts, null=null, where=test)
    print(f"{name:14} {each[name][0]:15.2f}  {each[name][1]:15.2f}  {total:11.2f}")

# %%

fig, ax = figure(size=(6, 3))
for neuron, color in enumerate((TEAL, PINK)):
    scores = [score[neuron] for score in each.values()]
    place = np.arange(len(each)) + 0.38 * (neuron - 0.5)
    bars = ax.bar(place, scores, width=0.36, color=color, label=NAMES[neuron])
    ax.bar_label(bars, fmt="%.2f", padding=2)
ax.axhline(0, color=GREY, linewidth=1)
ax.set(title="bits per spike, on seconds that were not used for the fit")
ax.set_xticks(range(len(each)), each)
ax.margins(y=0.15)
ax.legend(loc="upper left")
describe(
    fig,
    "Bars of bits per spike for each model and neuron. The model with both "
    "predictors has the highest scores, more than the sound and the recent spikes "
    "added together. The PSTH is below 0",
)

# %%
# The score of the third model, which uses both groups of predictors, is higher than the sum of the
# scores of the first two models: the sound says when the neuron is driven, and the recent spikes
# say when it is refractory. The PSTH has a negative score. It has learned the noise in the seconds
# that are used for the fit, so it predicts other seconds worse than a constant rate does. On the
# seconds that are used for the fit, its score is positive:

print(
    "PSTH, seconds of the fit: "
    f"{loss.bits_per_spike(models['PSTH'], counts, where=train):.2f}"
)

# %%
# Spikes from the model, and their distances
# ------------------------------------------
#
# A likelihood compares predicted rates with recorded spikes. To compare spikes with spikes, use a
# distance. The best model can also generate spikes: in each step, there is a spike with a
# probability that follows from the predicted rate. The spike then changes the predicted rates of
# the next steps.

decay = jnp.exp(-1 / jnp.asarray(CONSTANTS, dtype=jnp.float32))
drive = jnp.einsum("ntk,nk->tn", sound[0], weights[:, 1:15]) + weights[:, 0]


def step(recent, inputs):
    """Return the recent rates after a time step, and the spikes of this step."""
    driven, uniform = inputs
    rate = jnp.exp(driven + (recent * weights[:, 15:]).sum(axis=-1))
    spikes = (uniform < 1 - jnp.exp(-rate)).astype(jnp.float32)  # at least one spike
    return decay * recent + (1 - decay) * spikes[:, None], spikes


uniform = jax.random.uniform(jax.random.key(0), (STEPS, 2))
_, generated = jax.lax.scan(step, jnp.zeros((2, len(CONSTANTS))), (drive, uniform))
generated = np.asarray(generated).T
print("generated spikes:", generated.sum(axis=-1).astype(int))

# %%
# We compare each second of the recording with each generated second. Both distances that we use run
# in JAX. The van Rossum distance takes binned spikes. The Victor-Purpura distance takes spike
# times, padded with NaN. Both distances can be compiled, and both have gradients.


@jax.jit
def van_rossum(first, second):
    """Return the distances of all pairs of trains, from bins ``[train, time]``."""
    return sx.distances.van_rossum(first, second, time_constant=5)


@jax.jit
def victor_purpura(first, second):
    """Return the distances of all pairs of trains, from times ``[train, spike]``."""
    return sx.distances.victor_purpura(first, second, cost=0.2)


def times_of(trains):
    """Return the times of binary trains, ``[train, spike]``, padded with NaN."""
    times = np.where(trains > 0, np.arange(trains.shape[-1]), np.nan)
    return jnp.asarray(np.sort(times, axis=-1)[:, : int(trains.sum(axis=-1).max())])


# of the first neuron
recorded, drawn = (x.reshape(2, 10, 1000)[0] for x in (counts, generated))
matrices = {
    "van Rossum, 5 ms": van_rossum(jnp.asarray(recorded), jnp.asarray(drawn)),
    "Victor-Purpura, 0.2 per ms": victor_purpura(
        times_of(recorded), times_of(drawn)
    ),
}
same = np.eye(10, dtype=bool)
for name, matrix in matrices.items():
    own, other = np.asarray(matrix)[same].mean(), np.asarray(matrix)[~same].mean()
    print(f"{name:26} same second {own:.1f}, other seconds {other:.1f}")

# %%

fig, axes = figure(1, 2, size=(7, 3.1))
for ax, (name, matrix) in zip(axes, matrices.items(), strict=True):
    image = ax.imshow(matrix, cmap="YlGnBu", vmin=0)
    ax.set(
        title=name,
        xlabel="generated second",
        ylabel="recorded second",
        xticks=[],
        yticks=[],
    )
    fig.colorbar(image, ax=ax, shrink=0.9).outline.set_visible(False)
describe(
    fig,
    "Two matrices of distances between recorded and generated seconds. Both have "
    "small distances on the diagonal, because a generated second is nearest to the "
    "recorded second with the same sound",
)

# %%
# A generated second is closest to the recorded second in which the neuron heard the same sound. For
# the definition of each score, see the guide on models of recordings.
#
# .. [1] A. Rokem, S. Watzl, T. Gollisch, M. Stemmler, A. V. M. Herz and I. Samengo, "Spike-timing
#    precision underlies the coding efficiency of auditory receptor neurons", Journal of
#    Neurophysiology 95, 2541-2552, 2006. The spike times are those that nitime distributes.

# sphinx_gallery_thumbnail_number = 2
