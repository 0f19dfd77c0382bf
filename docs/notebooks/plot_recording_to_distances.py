"""
From a recording to distances
=============================

This notebook turns a recording of spike times into trials, computes the distances between all
trials, and finds clusters of trials with the same stimulus. To install what it needs, run
``pip install ".[all]" pynwb matplotlib scipy``.
"""

# %%
# The recording
# -------------
#
# An NWB file contains an array of spike times for each unit, and a table of trials. Both are in
# seconds.

import datetime
import tempfile
from pathlib import Path

import numpy as np
import pynwb
from matplotlib import pyplot as plt
from scipy.cluster.hierarchy import dendrogram, fcluster, linkage
from scipy.spatial.distance import squareform

import spikeloss_xp as sx

# %%
# This cell writes an example file. It contains two units, and in each trial their firing rates
# follow one of two stimuli. To use a file of your own, set ``path`` to your file and skip this
# cell. The table of trials in your file needs a column with the stimulus. In this notebook, the
# column is called ``stimulus``.

path = Path(tempfile.mkdtemp()) / "recording.nwb"
rng = np.random.default_rng(0)
file = pynwb.NWBFile("two stimuli", "recording", datetime.datetime.now(datetime.UTC))
file.add_trial_column("stimulus", "which of the two was shown")
times = np.arange(0, 1, 0.001)
spikes = [[], []]
for trial in range(20):
    stimulus = "AB"[trial % 2]
    file.add_trial(
        start_time=1.5 * trial, stop_time=1.5 * trial + 1, stimulus=stimulus
    )
    for unit, phase in enumerate((0, np.pi)):
        frequency = {"A": 3, "B": 5}[stimulus]
        # in spikes per second
        rate = 40 * (1 + np.sin(2 * np.pi * frequency * times + phase))
        spikes[unit].extend(1.5 * trial + times[rng.random(1000) < rate / 1000])
for train in spikes:
    file.add_unit(spike_times=train)
with pynwb.NWBHDF5IO(path, "w") as io:
    io.write(file)

# %%
# Trials
# ------
#
# The trials are sorted by stimulus. In each trial, times are measured from the start of the trial.

with pynwb.NWBHDF5IO(path, "r") as io:
    file = io.read()
    units = [np.asarray(unit) for unit in file.units["spike_times"]]
    limits = np.stack(
        [file.trials["start_time"][:], file.trials["stop_time"][:]], axis=1
    )
    stimulus = np.asarray(file.trials["stimulus"][:])
order = np.argsort(stimulus, kind="stable")
limits, stimulus = limits[order], stimulus[order]
trials = [[unit[(unit >= a) & (unit < b)] - a for a, b in limits] for unit in units]
first = trials[0]  # of the first unit
print(f"{min(map(len, first))} to {max(map(len, first))} spikes in each trial")

figure, axes = plt.subplots(figsize=(9, 3), layout="constrained")
axes.eventplot(first)
axes.set(title="spike times of the first unit, by stimulus", xlabel="time (s)")
axes.set_yticks(range(len(first)), stimulus)
plt.show()

# %%
# Distances of one unit
# ---------------------
#
# The van Rossum distance compares the trains at one time scale. The Victor-Purpura distance is the
# lowest cost of turning one train into the other by adding, removing and moving spikes. The spike
# times are in seconds, so the time constant is in seconds too, and the cost is per second.

distances = {
    "van Rossum, 50 ms": sx.distances.van_rossum(
        first, time_constant=0.05, times=True
    ),
    "Victor-Purpura, 20 per s": sx.distances.victor_purpura(first, cost=20),
}
figure, places = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for axes, (name, matrix) in zip(places, distances.items(), strict=True):
    figure.colorbar(axes.imshow(matrix, cmap="viridis"), ax=axes, shrink=0.8)
    axes.set(title=name, xlabel="trial", ylabel="trial")
plt.show()

# %%
# To predict the stimulus of a trial, take the stimulus of the trial that is closest to it:

same = stimulus[:, None] == stimulus
for ms in (1, 5, 20, 50, 200, 1000):
    matrix = sx.distances.van_rossum(first, time_constant=ms / 1000, times=True)
    nearest = np.argmin(matrix + np.where(np.eye(len(first)), np.inf, 0), axis=1)
    right = same[np.arange(len(first)), nearest].mean()
    print(f"time constant {ms:4} ms: {right:.0%} right")

# %%
# All units
# ---------
#
# To compare trains of several units, bin the trains into an array ``[trial, unit, time]``. In this
# notebook, bins are 1 ms long, and the time constant is given in bins. ``lengths`` holds the number
# of bins of each trial, which may differ between trials.

lengths = np.round((limits[:, 1] - limits[:, 0]) * 1000).astype(int)
bins = {"steps": int(lengths.max()), "time_step": 0.001, "outside": "drop"}
trains = np.stack(
    [
        sx.bin_spikes(list(both), neurons=len(units), **bins)
        for both in zip(*trials, strict=True)
    ]
)
matrix = sx.distances.van_rossum(trains, time_constant=50, lengths=lengths)
print(
    f"same stimulus {matrix[same].mean():.2f}, different {matrix[~same].mean():.2f}"
)

# %%
# A model
# -------
#
# To fit a model to a recording, use the loss ``SpikeTime``, which filters the trains like the van
# Rossum distance. This notebook has no model. Instead of the output of a model, we pass a second
# trial to the loss: first a trial with the same stimulus, and then a trial with the other stimulus.

loss = sx.SpikeTime(time_constant=50, reduction="batchmean", time_axis=-1)
for name, shift in (("same", 1), ("other", 10)):
    value = loss(np.roll(trains, shift, axis=0), trains, lengths=lengths)
    print(
        f"a trial with the {name} stimulus as the model: {value:.0f} for each trial"
    )

# %%
# Clusters
# --------
#
# The matrix is symmetric and its diagonal is 0, as the clustering functions of SciPy require.
# ``dendrogram`` draws the tree of the trials, and ``fcluster`` cuts it into clusters.

tree = linkage(squareform(matrix), "ward")
cluster = fcluster(tree, 2, "maxclust")
for number in (1, 2):
    found = stimulus[cluster == number]
    print(
        f"cluster {number}: {np.sum(found == 'A')} trials with A, "
        f"{np.sum(found == 'B')} with B"
    )

figure, axes = plt.subplots(figsize=(9, 3.4), layout="constrained")
dendrogram(tree, labels=stimulus, leaf_rotation=0, ax=axes)
axes.set(title="trials, labelled by stimulus", ylabel="distance of clusters")
plt.show()
