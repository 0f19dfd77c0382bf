"""
Distances between recorded spike trains
=======================================

How does the time constant change the distance between two spike trains?

We compare 20 seconds of a recording with each other, for three time constants. With a short time
constant, the van Rossum distance asks which spikes coincide. With a long time constant, it compares
the numbers of spikes.
"""

# %%
# The recording
# -------------
#
# The spikes are included in the library. They come from one auditory receptor of a grasshopper,
# *Locusta migratoria*, which heard a tone whose amplitude was modulated by noise [1]_. The noise
# had frequencies up to 200 Hz in the first 10 seconds, and up to 800 Hz in the next 10 seconds. The
# noise continues from second to second, so **no second is a repetition of another**.

from importlib import resources

import numpy as np
from matplotlib import pyplot as plt

import spikeloss_xp as sx

data = resources.files("spikeloss_xp") / "data"
with (data / "grasshopper.npz").open("rb") as file:
    recorded = np.load(file)["input"]  # [second, sound, time], in bins of 1 ms
trains = np.concatenate([recorded[:, 0], recorded[:, 1]])  # [train, time]
counts = trains.sum(axis=-1)

fig, ax = plt.subplots(figsize=(7, 3.5), layout="constrained")
ax.eventplot(
    [np.nonzero(train)[0] for train in trains], color="black", linelengths=0.7
)
ax.axhline(9.5, color="C1")
ax.invert_yaxis()
ax.set(xlabel="time (ms)", ylabel="second of the recording", yticks=[0, 10])
plt.show()

# %%
# All pairs at once
# -----------------
#
# The distance filters both trains with an exponential, and compares the two results. We use the
# squared distance because it has a simple unit: a single spike without a counterpart adds 1.

time_constants = 1, 10, 100  # ms
matrices = [
    sx.distances.van_rossum(trains, time_constant=tau, squared=True)
    for tau in time_constants
]

fig, axes = plt.subplots(1, 3, figsize=(7, 2.6), layout="constrained")
for ax, tau, matrix in zip(axes, time_constants, matrices, strict=True):
    image = ax.imshow(matrix, vmin=0)
    ax.set(
        title=f"{tau} ms",
        xlabel="second",
        xticks=[0, 10],
        yticks=[0, 10],
    )
    fig.colorbar(image, ax=ax, shrink=0.7)
axes[0].set_ylabel("second")
plt.show()

# %%
# The first second of each sound stands out, because the neuron fired most in these seconds. The
# reason is that distances depend strongly on the spike counts of both trains. With a short time
# constant, most spikes lack a counterpart, so the distance follows the sum of the counts. With a
# long time constant, it follows the squared difference of the counts:

pairs = ~np.eye(len(trains), dtype=bool)  # without each train and itself
total = (counts[:, None] + counts)[pairs]
difference = (counts[:, None] - counts)[pairs] ** 2
for tau, matrix in zip(time_constants, matrices, strict=True):
    with_total = np.corrcoef(matrix[pairs], total)[0, 1]
    with_difference = np.corrcoef(matrix[pairs], difference)[0, 1]
    print(
        f"{tau:3} ms: correlation {with_total:.2f} with the sum of the counts,",
        f"{with_difference:.2f} with their squared difference",
    )

# %%
# The time constant is a tolerance
# --------------------------------
#
# A repetition of a sound would evoke almost the same spikes, at slightly different times. We
# imitate a repetition: in a copy of each second, we move each spike by a random time with a
# standard deviation of 4 ms.

rng = np.random.default_rng(0)
train, step = np.nonzero(trains)
step = np.rint(step + rng.normal(0, 4, step.shape)).astype(int)
copies = np.zeros(trains.shape)
np.add.at(copies, (train, step.clip(0, 999)), 1)

for tau in time_constants:
    matrix = sx.distances.van_rossum(trains, copies, time_constant=tau, squared=True)
    own, others = np.diag(matrix).mean(), matrix[pairs].mean()
    print(f"{tau:3} ms: own copy {own:.1f}, copies of other seconds {others:.1f}")

# %%
# With a time constant of 1 ms, a movement of 4 ms makes a copy almost as distant as a different
# second. With 10 ms, the own copy is half as distant. With 100 ms, the distance to the own copy is
# small, and the movement no longer matters. Choose a time constant similar to the precision with
# which you expect spikes to repeat.
#
# .. [1] A. Rokem, S. Watzl, T. Gollisch, M. Stemmler, A. V. M. Herz and I. Samengo, "Spike-timing
#    precision underlies the coding efficiency of auditory receptor neurons", Journal of
#    Neurophysiology 95, 2541-2552, 2006. The spike times are those that nitime distributes.

# sphinx_gallery_thumbnail_number = 2
