"""
Which responses are alike
=========================

We compute the distances between all pairs of recorded spike trains. The distances show which time
constant is best, and which responses form clusters.

The recordings are from an auditory neuron of a grasshopper, and ``sx.distances.van_rossum``
computes the distances. Cross-validation chooses the time constant: responses that are close to each
other should come from similar sounds. The same distances then sort the responses into clusters.
"""

# %%
# The recordings
# --------------
#
# The recordings are included in the package nitime (BSD licence, ``pip install nitime``). One
# receptor neuron of *Locusta migratoria* heard a tone of 2.5 kHz whose amplitude followed random
# noise [1]_. There are two recordings of 10 seconds each. The noise had frequencies up to 200 Hz in
# the first recording, which we call the slower noise. It had frequencies up to 800 Hz in the second
# recording, which we call the faster noise. nitime provides the spike times in microseconds, and
# the amplitude in steps of 50 microseconds. The code counts the spikes in bins of 1 ms, converts
# the amplitude to a level in decibels, and averages the level over each bin.
#
# .. dropdown:: Copy these drawing functions first
#
#    .. literalinclude:: /gallery/pictures.py
#       :language: Python
#       :start-at: import numpy

from importlib import resources

import numpy as np
from matplotlib import pyplot as plt
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

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


def read(number):
    """Return the spikes and the sound level of a recording, both ``[time]``."""
    folder = resources.files("nitime") / "data"
    times = np.loadtxt(folder / f"grasshopper_spike_times{number}.txt")
    amplitude = np.loadtxt(folder / f"grasshopper_stimulus{number}.txt", usecols=1)
    spikes = sx.bin_spikes([times], neurons=1, steps=STEPS, time_step=1000)[0]
    level = 20 * np.log10(amplitude).reshape(STEPS, -1).mean(axis=1)
    return spikes, level - level.mean()


NAMES = "noise up to 200 Hz", "noise up to 800 Hz"
recordings = [read(1), read(2)]
for name, (spikes, _) in zip(NAMES, recordings, strict=True):
    print(f"{name}: {spikes.sum():.0f} spikes")

# %%

fig, axes = figure(2, size=(7, 4.2), sharex=True, sharey=True)
for ax, name, (spikes, level) in zip(axes, NAMES, recordings, strict=True):
    ax.plot(level[1000:1300], color=TEAL, linewidth=1.2)
    ax.vlines(np.nonzero(spikes[1000:1300])[0], 19, 24, color=SPIKES, linewidth=1.4)
    ax.set(title=f"{name}: spikes (top) and sound level", ylabel="level (dB)")
axes[-1].set_xlabel("time (ms)")
describe(
    fig, "The sound level goes up and down, and a spike follows most of its peaks"
)

# %%
# What recordings without repetitions can tell
# --------------------------------------------
#
# Distances between spike trains are often used for repeated trials of a few stimuli. These
# recordings have **no repeated trials**, because the noise never repeats. But two pieces of noise
# can be similar for a few milliseconds, and the responses to them should then be similar too.
#
# We therefore cut each recording into windows of 50 ms. A window contains a response and the sound
# that caused this response. The spikes lag behind the sound: on average, the level is highest 6 or
# 7 ms before a spike.

WIDTH, HOP, DELAY = 50, 10, 6  # ms


def cut(spikes, level):
    """Return responses and sounds, ``[window, time]``, and each window's second."""
    starts = [
        s + i for s in range(0, STEPS, 1000) for i in range(HOP, 1001 - WIDTH, HOP)
    ]
    responses = np.stack([spikes[i : i + WIDTH] for i in starts])
    sounds = np.stack([level[i - DELAY : i - DELAY + WIDTH] for i in starts])
    return responses, sounds, np.asarray(starts) // 1000


for name, (spikes, level) in zip(NAMES, recordings, strict=True):
    times = np.nonzero(spikes[20:])[0] + 20
    mean_level = [level[times - lag].mean() for lag in range(20)]
    print(f"{name}: the level is largest {np.argmax(mean_level)} ms before a spike")

# %%
# The time constant, by cross-validation
# --------------------------------------
#
# The decoder predicts the sound in a window. Its prediction is the mean sound of the 30 windows
# whose responses are closest to the response in this window. These neighbours must come from other
# seconds of the recording, because windows in the same second overlap. The score is the fraction of
# the variance of the sound level that the predictions explain. A score of 1 is a perfect
# prediction, and a score of 0 is as good as always predicting the mean level.

TIME_CONSTANTS = 0.5, 1, 2, 3, 5, 8, 12, 20, 50, 100  # ms
NEIGHBOURS = 30


def decode(distances, sounds, seconds):
    """Return the sounds predicted from the nearest windows of other seconds."""
    distances = np.where(seconds[:, None] == seconds, np.inf, distances)
    nearest = np.argpartition(distances, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    return sounds[nearest].mean(axis=1)


def explained(sounds, predicted):
    """Return the fraction of variance that is explained."""
    return 1 - np.square(sounds - predicted).sum() / np.square(sounds).sum()


windows = [cut(*recording) for recording in recordings]
matrices = [
    {
        tau: sx.distances.van_rossum(responses, time_constant=tau)
        for tau in TIME_CONSTANTS
    }
    for responses, _, _ in windows
]

# %%

fig, ax = figure(size=(7, 3.4))
for name, color, matrix, (_, sounds, seconds) in zip(
    NAMES, (TEAL, PINK), matrices, windows, strict=True
):
    scores = [
        explained(sounds, decode(matrix[tau], sounds, seconds))
        for tau in TIME_CONSTANTS
    ]
    best = int(np.argmax(scores))
    print(f"{name}: best at {TIME_CONSTANTS[best]} ms, {scores[best]:.3f} explained")
    ax.semilogx(TIME_CONSTANTS, scores, marker="o", color=color, label=name)
ax.axhline(0, color=GREY, linewidth=1)
ax.set(
    xticks=TIME_CONSTANTS, xticklabels=TIME_CONSTANTS, xlabel="time constant (ms)"
)
ax.minorticks_off()
ax.set(title="variance of the sound level that the nearest responses explain")
ax.legend()
describe(
    fig,
    "The curve for the noise up to 200 Hz has a peak at 3 ms. The curve for the "
    "noise up to 800 Hz stays near 0",
)

# %%
# For the slower noise, the best time constant is 3 ms. It is the same with 10 and with 100
# neighbours. With a shorter time constant, responses seem different even if their spikes differ by
# only 1 or 2 ms. With 100 ms, the distance is little more than a comparison of spike counts. For
# the faster noise, hardly any variance is explained, because its level changes from one millisecond
# to the next and a window has only four or five spikes.
#
# The highest of these ten scores is a biased estimate, because we used the same windows to choose
# the time constant and to compute the score. To avoid this bias, we now predict each second of the
# slower noise with the time constant that is best for the other nine seconds.

responses, sounds, seconds = windows[0]
predicted, chosen = np.empty_like(sounds), []
for second in range(10):
    train = seconds != second
    inside = np.ix_(train, train)
    scores = [
        explained(
            sounds[train],
            decode(matrices[0][tau][inside], sounds[train], seconds[train]),
        )
        for tau in TIME_CONSTANTS
    ]
    chosen.append(TIME_CONSTANTS[np.argmax(scores)])
    predicted[~train] = decode(matrices[0][chosen[-1]], sounds, seconds)[~train]
print("chosen:", *chosen, "ms")
print(f"explained in the seconds left out: {explained(sounds, predicted):.3f}")

# %%
# On a GPU
# --------
#
# If the responses are CuPy arrays, the same function computes on the GPU. The results agree with
# the results in NumPy up to the rounding of float64. If two trains are nearly equal, their distance
# is the square root of a small difference, so only half of its digits are correct.

try:
    import cupy

    gpu = cupy.cuda.is_available()
except ImportError:
    gpu = False

if gpu:
    on_gpu = sx.distances.van_rossum(cupy.asarray(responses), time_constant=3)
    apart = np.abs(cupy.asnumpy(on_gpu) - matrices[0][3]).max()
    print(f"largest difference between CuPy and NumPy: {apart:.0e}")
    assert apart < 1e-6
else:
    print("There is no CuPy with a GPU here.")

# %%
# Clusters of responses
# ---------------------
#
# The van Rossum distance is Euclidean, so Ward's method can cluster the responses. The code below
# forms eight clusters from the responses to both noises, with a time constant of 3 ms and windows
# of 20 ms that do not overlap. The left picture shows the spikes, with one row per window, and the
# right picture shows the mean distances between clusters. Cluster 7 also contains the windows
# without a spike.

WIDTH, HOP, TIME_CONSTANT, CLUSTERS = 20, 20, 3, 8

pieces = [cut(*recording) for recording in recordings]
responses, sounds, seconds = (
    np.concatenate(both) for both in zip(*pieces, strict=True)
)
noise = np.repeat([0, 1], [len(piece[0]) for piece in pieces])  # an index into NAMES

distances = sx.distances.van_rossum(responses, time_constant=TIME_CONSTANT)
tree = linkage(squareform(distances), "ward")
cluster = fcluster(tree, CLUSTERS, "maxclust") - 1
sizes = np.bincount(cluster)
# by first spike in each cluster
order = np.lexsort((responses.argmax(axis=1), cluster))

# %%

fig, (left, right) = figure(1, 2, size=(7, 3.6), width_ratios=(1, 1.25))
row, step = np.nonzero(responses[order])
color = np.where(cluster[order][row] % 2, GREY, SPIKES)
left.scatter(step, row, s=7, marker="s", linewidths=0, c=color)
left.set(
    title="spikes",
    xlabel="time in the window (ms)",
    yticks=np.cumsum(sizes) - sizes / 2,
)
left.set(xlim=(-0.5, WIDTH - 0.5), ylim=(len(order) - 0.5, -0.5))
left.set_yticklabels([f"cluster {number + 1}" for number in range(CLUSTERS)])
member = np.eye(CLUSTERS)[cluster]
between = member.T @ distances @ member / np.outer(sizes, sizes)
right.imshow(between, cmap="YlGnBu")
for pair, mean in np.ndenumerate(between):
    color = "white" if mean > 1.4 else INK
    right.text(
        *pair, f"{mean:.1f}", ha="center", va="center", color=color, fontsize="small"
    )
right.set(title="mean distance of clusters", xlabel="cluster")
right.set(xticks=range(CLUSTERS), xticklabels=range(1, CLUSTERS + 1))
right.set(yticks=range(CLUSTERS), yticklabels=range(1, CLUSTERS + 1))
for ax in (left, right):
    ax.tick_params(length=0)
describe(
    fig,
    "Within each cluster, the spikes have similar times. The smallest mean "
    "distances are within clusters",
)

# %%
# The sounds of the clusters
# --------------------------
#
# The clustering did not use the sounds. Still, the mean sound of a cluster has peaks at the times
# at which the responses in the cluster have spikes (grey). This is clearest for the slower noise.

fig, axes = figure(2, CLUSTERS // 2, size=(7, 4.2), sharex=True, sharey=True)
for number, ax in enumerate(axes.flat):
    for value, color in enumerate((TEAL, PINK)):
        members = (cluster == number) & (noise == value)
        ax.plot(
            sounds[members].mean(axis=0),
            color=color,
            linewidth=1.5,
            label=NAMES[value],
        )
    rate = responses[cluster == number].mean(axis=0)
    ax.bar(
        range(WIDTH),
        8 * rate,
        bottom=-10,
        width=1,
        color=GREY,
        alpha=0.5,
        label="spikes",
    )
    ax.axhline(0, color=GREY, linewidth=0.6)
    ax.set(title=f"cluster {number + 1}", ylim=(-10, 6))
fig.supxlabel("time in the window (ms)", fontsize="medium")
fig.supylabel("mean level (dB)", fontsize="medium")
fig.legend(
    *axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3
)
describe(
    fig,
    "The mean sound levels have peaks above the spikes: high peaks for the slower "
    "noise, low peaks for the faster noise",
)

# %%
# How much does the cluster of a response tell us about the sound? To find out, we compute the mean
# sound of each cluster from the first five seconds, and use it to predict the sounds of the last
# five seconds.

for value, name in enumerate(NAMES):
    first, last = ((noise == value) & half for half in (seconds < 5, seconds >= 5))
    means = [
        sounds[first & (cluster == number)].mean(axis=0)
        for number in range(CLUSTERS)
    ]
    score = explained(sounds[last], np.stack(means)[cluster[last]])
    print(f"{name}: {score:.3f} of the variance explained")

# %%
# Do the responses also tell which of the two noises was played? For each window, the 31 nearest
# windows from other seconds vote for one of the noises. Both noises have the same number of
# windows, so guessing would be right in 50 % of the cases.

others = np.where(seconds[:, None] == seconds, np.inf, distances)
nearest = np.argpartition(others, 31, axis=1)[:, :31]
right = (noise[nearest].mean(axis=1) > 0.5) == noise
share = [f"{noise[cluster == number].mean():.0%}" for number in range(CLUSTERS)]
print(f"right: {right.mean():.0%} of {len(noise)} windows")
print("share of the faster noise in each cluster:", *share)

# %%
# The responses hardly tell the noises apart. Each cluster contains windows of both noises, because
# both noises evoke similar patterns of spikes in 20 ms.
#
# With repeated trials, we could ask a different question: how precise is the neuron? We would
# compare responses to the *same* piece of noise with responses to other pieces. The time constant
# that separates the two best would be a measure of precision. In this example, which has no
# repeated trials, the best time constant is the one at which similar responses come from similar
# sounds.
#
# .. [1] A. Rokem, S. Watzl, T. Gollisch, M. Stemmler, A. V. M. Herz and I. Samengo, "Spike-timing
#    precision underlies the coding efficiency of auditory receptor neurons", Journal of
#    Neurophysiology 95, 2541-2552, 2006.

# sphinx_gallery_thumbnail_number = 3
