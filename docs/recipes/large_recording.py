"""Evaluate a large recording in batches, as shown in docs/dask.md.

The argument of the program is a folder with spikes [sample, class, time] and labels
[sample]. They are stored as input.npy and label.npy, or as Zarr arrays with the
names input and label.
"""

import dataclasses
import sys
from pathlib import Path

import dask
import numpy as np
from dask.diagnostics import ProgressBar

import spikeloss_xp as sx

BATCH = 4096  # samples
loss = sx.CrossEntropy(time_axis=-1)
loss_of_each = dataclasses.replace(loss, reduction="none")
# or cupy.asarray, or lambda x: torch.asarray(x, device="cuda")
to_device = np.asarray


def open_array(path):
    """Open an .npy file or a Zarr array without reading it."""
    if path.with_suffix(".npy").exists():
        return np.load(path.with_suffix(".npy"), mmap_mode="r")
    import zarr

    return zarr.open_array(path, mode="r")


@dask.delayed
def evaluate(folder, samples):
    """Return sum, weight, confusion matrix and losses as NumPy arrays."""
    spikes, labels = (
        open_array(folder / name)[samples] for name in ("input", "label")
    )
    batch = to_device(spikes.astype("float32")), labels
    sums = *loss.sum_and_weight(*batch), loss.confusion(*batch)
    return [np.asarray(x.tolist()) for x in (*sums, loss_of_each(*batch))]


def main(folder):
    """Print the mean loss and the accuracy, and write the loss of each sample."""
    starts = range(0, open_array(folder / "label").shape[0], BATCH)
    with ProgressBar():
        results = dask.compute(
            *(evaluate(folder, slice(i, i + BATCH)) for i in starts)
        )
    totals, weights, confusions, losses = zip(*results, strict=True)
    confusion = sum(confusions)
    print(f"mean loss {sum(totals) / sum(weights):.7f}")
    print(f"accuracy  {confusion.trace() / confusion.sum():.4f}")
    np.save(f"{folder}.losses.npy", np.concatenate(losses))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
