"""
Models of recorded neurons
==========================

Which model predicts recorded spikes best?

Three models of an auditory neuron are fitted in JAX to one half of a recording. On the other half,
we compare them in bits per spike. A fourth model turns out to be worse than a constant rate.
"""

# %%
# The recording
# -------------
#
# The recording is included in the package nitime (BSD licence, ``pip install nitime``). One
# auditory receptor of a grasshopper, *Locusta migratoria*, heard a tone whose amplitude followed
# random noise with frequencies up to 200 Hz [1]_. The recording lasts 10 seconds, and the bins are
# 1 ms long. The models are fitted to the even seconds and tested on the odd ones.

from importlib import resources

import jax
import numpy as np
from jax import numpy as jnp
from matplotlib import pyplot as plt

import spikeloss_xp as sx

folder = resources.files("nitime") / "data"
times = np.loadtxt(folder / "grasshopper_spike_times1.txt")  # microseconds
counts = sx.bin_spikes([times], neurons=1, steps=10_000, time_step=1000)[None]
amplitude = np.loadtxt(folder / "grasshopper_stimulus1.txt", usecols=1)
level = 20 * np.log10(amplitude).reshape(10_000, -1).mean(axis=1)  # dB

second = np.arange(10_000) // 1000
train, test = second % 2 == 0, second % 2 == 1  # masks [time]
print(
    "shape [batch, neuron, time]:", counts.shape, "with", int(counts.sum()), "spikes"
)

# %%
# The predictors
# --------------
#
# A generalised linear model (GLM) predicts the logarithm of the rate as a weighted sum of
# predictors. There are two groups of predictors: the sound level 2 to 15 ms before the step, and
# the recent firing of the neuron, averaged with time constants from 1 to 100 ms.


def before(x, lag):
    """Return what `x` was `lag` steps earlier, ``[time]``."""
    return np.pad(x, (lag, 0))[: len(x)]


def recent_rate(time_constant):
    """Return the mean rate before each step, ``[time]``."""
    taps = sx.exponential_kernel(time_constant, 8 * time_constant)
    return before(sx.causal_filter(counts[0, 0], taps / taps.sum(), time_axis=-1), 1)


level = (level - level.mean()) / 10
sound = np.stack([before(level, lag) for lag in range(2, 16)], axis=-1)
history = np.stack([recent_rate(tau) for tau in (1, 2, 4, 8, 16, 100)], axis=-1)

# %%
# The fit
# -------
#
# The loss is convex, so Newton's method finds the best weights in a few steps. The mask ``where``
# selects the seconds that are used for the fit. The neuron never fires in two successive bins, so
# the weights of the recent spikes would grow without limit. A small penalty keeps them finite.

loss = sx.PoissonNLL(time_axis=-1)


def fit(*predictors):
    """Return the log rates ``[batch, neuron, time]`` of a fitted GLM."""
    inputs = jnp.concatenate([jnp.ones((10_000, 1)), *predictors], axis=-1)

    def value(weights):
        log_rates = (inputs @ weights)[None, None]
        penalty = 1e-4 * jnp.sum(weights[1:] ** 2)
        return loss(log_rates, counts, where=train) + penalty

    weights = jnp.zeros(inputs.shape[1]).at[0].set(-2)
    for _ in range(10):
        step = jnp.linalg.solve(
            jax.hessian(value)(weights), jax.grad(value)(weights)
        )
        weights = weights - step
    return np.asarray(inputs @ weights)[None, None]


models = {
    "sound": fit(sound),
    "recent spikes": fit(history),
    "both": fit(sound, history),
}

# %%
# The fourth model is a peristimulus time histogram (PSTH): the smoothed mean response at each
# millisecond after the start of a second. Such a model is good if the stimulus is repeated in each
# second. In this recording, the noise never repeats.

mean = counts.reshape(10, 1000)[::2].mean(axis=0)
psth = np.convolve(mean, np.hanning(21) / np.hanning(21).sum(), mode="same")
models["PSTH"] = np.log(np.tile(psth, 10) + 1e-3)[None, None]

# %%
# Bits per spike
# --------------
#
# ``bits_per_spike`` compares each model with a constant rate, here the mean rate in the seconds
# that are used for the fit.

null = counts[..., train].mean(axis=-1)[0]
for name, log_rates in models.items():
    score = loss.bits_per_spike(log_rates, counts, null=null, where=test)
    print(f"{name:14} {score:5.2f} bits per spike")

fig, ax = plt.subplots(figsize=(7, 3), layout="constrained")
for name in ("sound", "both", "PSTH"):
    ax.plot(np.exp(models[name][0, 0, 3000:3250]), label=name)
ax.eventplot(
    np.nonzero(counts[0, 0, 3000:3250])[0],
    color="black",
    lineoffsets=1.3,
    linelengths=0.2,
)
ax.set(
    xlabel="time (ms)", ylabel="spikes per ms", title="spikes and predicted rates"
)
fig.legend(loc="outside lower center", ncols=3)
plt.show()

# %%
# The model with both groups of predictors is better than the other two together: the sound says
# when the neuron is driven, and the recent spikes say when it is refractory. The score of the PSTH
# is negative, because it has learned the noise in the seconds of the fit, and so predicts the other
# seconds worse than a constant rate does. On the seconds of the fit, its score is positive:

score = loss.bits_per_spike(models["PSTH"], counts, null=null, where=train)
print(f"PSTH, seconds of the fit: {score:.2f} bits per spike")

# %%
# .. [1] A. Rokem, S. Watzl, T. Gollisch, M. Stemmler, A. V. M. Herz and I. Samengo, "Spike-timing
#    precision underlies the coding efficiency of auditory receptor neurons", Journal of
#    Neurophysiology 95, 2541-2552, 2006. The spike times are those that nitime distributes.
