"""
Which responses are alike
=========================

At which time constant do similar responses come from similar sounds?

We cut a recording into windows of 50 ms, and compute the van Rossum distances between all windows.
If the time constant suits the neuron, a window can be decoded: the windows with the closest
responses tell which sound the neuron heard.
"""

# %%
# The recording
# -------------
#
# The recording is included in the package nitime (BSD licence, ``pip install nitime``). One
# auditory receptor of a grasshopper, *Locusta migratoria*, heard a tone whose amplitude followed
# random noise with frequencies up to 200 Hz [1]_. We count the spikes in bins of 1 ms, and average
# the sound level over the same bins.

from importlib import resources

import numpy as np
from matplotlib import pyplot as plt

import spikeloss_xp as sx

folder = resources.files("nitime") / "data"
times = np.loadtxt(folder / "grasshopper_spike_times1.txt")  # microseconds
spikes = sx.bin_spikes([times], neurons=1, steps=10_000, time_step=1000)[0]
amplitude = np.loadtxt(folder / "grasshopper_stimulus1.txt", usecols=1)
level = 20 * np.log10(amplitude).reshape(10_000, -1).mean(axis=1)
level -= level.mean()

fig, ax = plt.subplots(figsize=(7, 2.6), layout="constrained")
ax.plot(level[1000:1300])
ax.eventplot(
    np.nonzero(spikes[1000:1300])[0], color="black", lineoffsets=22, linelengths=5
)
ax.set(xlabel="time (ms)", ylabel="sound level (dB)", title="spikes and sound")
plt.show()

# %%
# Windows
# -------
#
# The noise never repeats, so there are **no repeated trials**. But two pieces of noise can be
# similar for a few milliseconds, and the responses to them should then be similar too. The sound of
# a window begins 6 ms earlier than its spikes, because the neuron responds with a delay.

starts = np.asarray([1000 * s + i for s in range(10) for i in range(10, 951, 10)])
seconds = starts // 1000
steps = starts[:, None] + np.arange(50)
responses, sounds = spikes[steps], level[steps - 6]  # [window, time]
print(
    len(responses), "windows,", f"{responses.sum(axis=1).mean():.1f} spikes in each"
)

# %%
# The time constant, by cross-validation
# --------------------------------------
#
# The predicted sound of a window is the mean sound of the 30 windows with the closest responses.
# These windows must come from other seconds, because windows in the same second overlap. The score
# is the fraction of the variance of the sound level that the predictions explain.


def explained(time_constant):
    """Return the fraction of variance that the nearest windows explain."""
    distances = sx.distances.van_rossum(responses, time_constant=time_constant)
    distances[seconds[:, None] == seconds] = np.inf
    nearest = np.argsort(distances, axis=1)[:, :30]
    errors = sounds - sounds[nearest].mean(axis=1)
    return 1 - np.square(errors).sum() / np.square(sounds).sum()


time_constants = [0.5, 1, 2, 3, 5, 8, 12, 20, 50, 100]  # ms
scores = [explained(tau) for tau in time_constants]
for tau, score in zip(time_constants, scores, strict=True):
    print(f"{tau:5} ms: {score:.3f}")

fig, ax = plt.subplots(figsize=(6, 3), layout="constrained")
ax.semilogx(time_constants, scores, "o-")
ax.set_xticks(time_constants, time_constants)
ax.minorticks_off()
ax.set(xlabel="time constant (ms)", title="explained variance of the sound level")
plt.show()

# %%
# The best time constant is 3 ms. With a shorter time constant, responses seem different even if
# their spikes differ by only 1 or 2 ms. With 100 ms, the distance is little more than a comparison
# of spike counts. The best of ten scores is slightly too optimistic as an estimate of the accuracy
# of the decoder: to report a score, choose the time constant without the second that you score.
#
# .. [1] A. Rokem, S. Watzl, T. Gollisch, M. Stemmler, A. V. M. Herz and I. Samengo, "Spike-timing
#    precision underlies the coding efficiency of auditory receptor neurons", Journal of
#    Neurophysiology 95, 2541-2552, 2006.

# sphinx_gallery_thumbnail_number = 2
