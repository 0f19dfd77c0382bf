"""
From a recording to distances
=============================

A recording of spike times becomes trials, and the distances between them tell trials with one
stimulus from trials with another. It needs ``pip install ".[all]" pynwb matplotlib``.
"""

# %%
# The recording
# -------------
#
# An NWB file has an array of spike times for each unit, and a table of trials, in seconds. Here the
# file is written first, with a neuron whose firing rate follows one of two stimuli. With a file of
# your own, begin at the next cell.

import datetime
import tempfile
from pathlib import Path

import numpy as np
import pynwb
from matplotlib import pyplot as plt

import spikeloss_xp as sx

rng = np.random.default_rng(0)
path = Path(tempfile.mkdtemp()) / "recording.nwb"
file = pynwb.NWBFile("two stimuli", "recording", datetime.datetime.now(datetime.UTC))
file.add_trial_column("stimulus", "which of the two was shown")
times = []
for trial in range(20):
    begin, stimulus = 1.5 * trial, trial % 2
    every_ms = np.arange(0, 1, 0.001)
    rate = 40 * (1 + np.sin(2 * np.pi * (3 + 2 * stimulus) * every_ms))  # in spikes per second
    times.extend(begin + every_ms[rng.random(1000) < rate / 1000])
    file.add_trial(start_time=begin, stop_time=begin + 1, stimulus=str(stimulus))
file.add_unit(spike_times=times)
with pynwb.NWBHDF5IO(path, "w") as io:
    io.write(file)

# %%
# Trials
# ------

with pynwb.NWBHDF5IO(path, "r") as io:
    file = io.read()
    spikes = file.units["spike_times"][0]  # of the first unit
    limits = list(zip(file.trials["start_time"][:], file.trials["stop_time"][:], strict=True))
    stimulus = np.asarray(file.trials["stimulus"][:])
order = np.argsort(stimulus, kind="stable")
trials = [spikes[(spikes >= a) & (spikes < b)] - a for a, b in (limits[i] for i in order)]
print(f"{len(trials)} trials with {min(map(len, trials))} to {max(map(len, trials))} spikes")

figure, axes = plt.subplots(figsize=(9, 3), layout="constrained")
axes.eventplot(trials, colors=[f"C{s}" for s in stimulus[order]], linelengths=0.8)
axes.set(title="spike times of each trial, coloured by stimulus", xlabel="s", ylabel="trial")
plt.show()

# %%
# Distances
# ---------
#
# The distance of van Rossum compares the trains at one time scale, and that of Victor and Purpura
# counts spikes that are added, removed and moved. The first ten trials have one stimulus.

distances = {
    "van Rossum, 50 ms": sx.distances.van_rossum(trials, time_constant=0.05, times=True),
    "Victor-Purpura, 20 per s": sx.distances.victor_purpura(trials, cost=20),
}
figure, places = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for axes, (name, matrix) in zip(places, distances.items(), strict=True):
    figure.colorbar(axes.imshow(matrix, cmap="viridis"), ax=axes, shrink=0.8)
    axes.set(title=name, xlabel="trial", ylabel="trial")
plt.show()

# %%
# Which stimulus was it?
# ----------------------
#
# Each trial is given the stimulus of its nearest other trial, for several time constants.

same = stimulus[order][:, None] == stimulus[order]
for ms in (1, 5, 20, 50, 200, 1000):
    matrix = sx.distances.van_rossum(trials, time_constant=ms / 1000, times=True)
    nearest = np.argmin(matrix + np.where(np.eye(len(trials)), np.inf, 0), axis=1)
    right = same[np.arange(len(trials)), nearest].mean()
    print(f"time constant {ms:4} ms: {right:.0%} right")
