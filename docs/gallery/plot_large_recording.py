"""
A large recording
=================

We compare a five-minute recording of 64 neurons with a model, in pieces that fit in memory.

The same line of code computes the distances in NumPy, in Dask and, if there is a GPU, in CuPy. With
Dask, only a few seconds of the recording are in memory at a time. The distances reveal a neuron
that falls silent, and a neuron that fires late. Spike counts would not show the late neuron.
"""

# %%
# A recording and a model of it
# -----------------------------
#
# The arrays have shape ``[window, neuron, time]``, with a window for each second and a step for
# each millisecond. The recording is artificial. We take the spikes of the model, shift each spike
# by up to 2 ms, and delete one spike in twenty. In addition, two neurons fail for some time: one is
# silent, and one is late. Both arrays are written to files, with one byte per entry.
#
# .. dropdown:: Copy these drawing functions first
#
#    .. literalinclude:: /gallery/pictures.py
#       :language: Python
#       :start-at: import numpy

import tempfile
import tracemalloc
from pathlib import Path

import dask.array as da
import numpy as np
from dask.diagnostics import ProgressBar
from matplotlib import pyplot as plt
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator

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


def names(ax, labels):
    """Label each row with the name of its neuron."""
    ax.set_yticks(range(len(labels)), labels)
    ax.tick_params(axis="y", length=0)


def _rows(ax, neurons, steps):
    """Give each neuron a row, the first at the top, and each step a place in x."""
    ax.set(xlim=(-0.5, steps - 0.5), ylim=(neurons - 0.5, -0.5))
    # and not already named
    if isinstance(ax.yaxis.get_major_locator(), MaxNLocator):
        ax.yaxis.get_major_locator().set_params(integer=True)


# sphinx_gallery_end_ignore

WINDOWS, NEURONS, STEPS = 300, 64, 1000
SILENT, LATE = 20, 45  # neurons
SILENT_FROM, SILENT_TO, LATE_FROM, LATE_TO = 80, 120, 180, 240  # windows
DELAY = 8  # steps


def make(window, rates, rng):
    """Return one second of the model, and one of the recording."""
    slow = 1 + 0.5 * np.sin(2 * np.pi * window / 150)
    model = (
        rng.random((NEURONS, STEPS), dtype=np.float32)
        < slow * rates[:, None] / STEPS
    )

    neuron, step = np.nonzero(model)
    step = step + rng.integers(-2, 3, step.size)
    step += DELAY * ((neuron == LATE) & (LATE_FROM <= window < LATE_TO))
    kept = (rng.random(step.size) < 0.95) & (step >= 0) & (step < STEPS)
    kept &= ~((neuron == SILENT) & (SILENT_FROM <= window < SILENT_TO))
    recording = np.zeros_like(model)
    recording[neuron[kept], step[kept]] = True
    return model, recording


def write(model_file, recording_file):
    """Write both files, a second at a time."""
    rng = np.random.default_rng(0)
    rates = rng.uniform(20, 50, NEURONS)  # spikes per second
    model, recording = (
        np.lib.format.open_memmap(file, "w+", np.uint8, (WINDOWS, NEURONS, STEPS))
        for file in (model_file, recording_file)
    )
    for window in range(WINDOWS):
        model[window], recording[window] = make(window, rates, rng)


folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
model_file, recording_file = (
    Path(folder.name) / f"{x}.npy" for x in ("model", "recording")
)
write(model_file, recording_file)
print(f"two files of {recording_file.stat().st_size / 1e6:.0f} MB")

# %%
# A memory-mapped file is read only where it is needed. The picture shows three neurons in two
# stretches of 400 ms. In the first stretch, one of the neurons is silent. In the second stretch, a
# different neuron is late. The circles are the spikes that the model predicts.

model, recording = (
    np.load(file, mmap_mode="r") for file in (model_file, recording_file)
)
three = [SILENT, 30, LATE]

# %%

fig, axes = figure(2, size=(7, 2.9), sharex=True)
axes[1].set_xlabel("time (ms)")
for ax, window in zip(axes, (100, 210), strict=True):
    raster(ax, recording[window, three, :400], target=model[window, three, :400])
    ax.set_title(f"from {window} s on")
    names(ax, [f"neuron {neuron}" for neuron in three])
describe(
    fig,
    "From 100 s on, neuron 20 has circles but no spikes. From 210 s on, the spikes "
    "of neuron 45 come after their circles. Otherwise, spikes and circles nearly "
    "coincide",
)

# %%
# One line for every library
# --------------------------
#
# If we sum the terms of ``SpikeTime`` over the time in each window, we get a distance for each
# window and neuron. To get an idea of the size of these distances, we compute the distance for a
# single spike that is missing, and for a single spike that is 8 ms late:

loss = sx.SpikeTime(time_constant=10, reduction="none", time_axis=-1)


def distances(recorded, modelled):
    """Return distances ``[window, neuron]``, in any library."""
    return loss(recorded.astype("float32"), modelled).sum(axis=-1)


lone = np.zeros((1, 1, STEPS), np.uint8)
lone[..., 100] = 1
print(f"missing: {distances(0 * lone, lone).item():.1f}")
print(f"late:    {distances(np.roll(lone, DELAY), lone).item():.1f}")

# %%
# In NumPy, all at once
# ---------------------
#
# The spikes are converted to float32, which takes 77 MB. The differences and the filtered traces
# take the same amount each. We measure the peak with ``tracemalloc``. It includes everything that
# Python and NumPy have allocated. It does not include the pages of a memory-mapped file, which the
# operating system can release at any time.


def measured(evaluate):
    """Return the result of a function, and the most memory allocated, in MB."""
    tracemalloc.start()
    value = evaluate()
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return value, peak


at_once, peak = measured(lambda: distances(recording, model))
print(f"NumPy, all at once: {peak:.0f} MB at most")

# %%
# In Dask, chunk by chunk
# -----------------------
#
# A Dask array knows how to read each of its chunks. In this example, a chunk consists of several
# windows with all of their steps. If we apply the same line to Dask arrays, nothing is computed
# yet: the line builds a graph of tasks. ``compute`` then runs two tasks at a time. The progress bar
# comes from Dask. (``da.from_array`` also accepts a memory-mapped file, but newer versions of Dask
# copy the whole file into memory.)


def chunks_of(file, windows):
    """Return a file as a dask array, which reads a chunk when it is asked for."""

    def read(block_info):
        (start, stop), *_ = block_info[None]["array-location"]
        return np.load(file, mmap_mode="r")[start:stop]

    sizes = ((windows,) * (WINDOWS // windows), (NEURONS,), (STEPS,))
    return da.map_blocks(
        read, chunks=sizes, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8)
    )


def in_chunks(windows):
    """Return the distances, evaluated so many windows at a time."""
    lazy = distances(
        chunks_of(recording_file, windows), chunks_of(model_file, windows)
    )
    with ProgressBar():
        return lazy.compute(num_workers=2)


for windows in (50, 10):
    chunked, peak = measured(lambda windows=windows: in_chunks(windows))
    print(f"dask, {windows} windows in a chunk: {peak:.0f} MB at most")

# %%
# NumPy and Dask add numbers in a different order, so they agree only up to the rounding of float32:


def compare(found):
    """Print the difference from NumPy, and stop if it exceeds rounding."""
    apart = np.max(np.abs(found - at_once)) / np.max(at_once)
    print(f"largest difference, as a fraction of the largest distance: {apart:.0e}")
    assert apart < 1e-6


compare(chunked)

# %%
# In CuPy, on a GPU
# -----------------
#
# If there is a GPU that CuPy can use, the same line runs there:

cupy_here = sx.backends.available()["cupy"]
if cupy_here.usable:
    import cupy

    on_gpu = distances(cupy.asarray(recording), cupy.asarray(model))
    print(f"CuPy {cupy_here.version} on {cupy_here.devices[0]}")
    compare(cupy.asnumpy(on_gpu))
else:
    print(f"No CuPy that can be used here. {cupy_here.problem}")

# %%
# What the distances show
# -----------------------
#
# The lower picture shows the distances, divided by the number of spikes that the model predicts.
# The result is a cost per spike. For comparison, the upper picture shows what spike counts reveal.

predicted = model.sum(axis=-1, dtype=int)
change = 100 * (recording.sum(axis=-1, dtype=int) / predicted - 1)
price = chunked / predicted

# %%

fewer_more = LinearSegmentedColormap.from_list("fewer_more", [TEAL, "white", PINK])
shades = [(0, "white"), (0.25, "#faeaf2"), (0.65, PINK), (1, "#4a0f2d")]
far = LinearSegmentedColormap.from_list("far", shades)
fig, axes = figure(2, size=(7, 5), sharex=True)
image = axes[0].imshow(change.T, cmap=fewer_more, vmin=-100, vmax=100, aspect="auto")
fig.colorbar(image, ax=axes[0], label="%", pad=0.015)
image = axes[1].imshow(price.T, cmap=far, vmin=0, vmax=8, aspect="auto")
fig.colorbar(image, ax=axes[1], label="price per spike", pad=0.015)
axes[1].set_xlabel("time (s)")
titles = "number of spikes, compared with the model", "distance from the model"
for ax, title in zip(axes, titles, strict=True):
    ax.set(title=title, ylabel="neuron")
describe(
    fig,
    "The number of spikes shows one line of low numbers, which is neuron 20 from "
    "80 to 120 s. The distance shows the same line, and a second one, which is "
    "neuron 45 from 180 to 240 s",
)

# %%
# The silent neuron is visible in both pictures. The late neuron fires its usual number of spikes,
# and only the distance shows that these spikes come at the wrong time. During their failures, the
# distances of both neurons are more than twelve median absolute deviations above the median:

usual = np.median(price)
wrong = price > usual + 12 * np.median(np.abs(price - usual))
for neuron in np.nonzero(wrong.sum(axis=0) > 10)[0]:
    seconds = np.nonzero(wrong[:, neuron])[0]
    print(
        f"neuron {neuron}: {seconds.size} seconds, "
        f"from {seconds[0]} to {seconds[-1] + 1} s"
    )

folder.cleanup()

# sphinx_gallery_thumbnail_number = 2
