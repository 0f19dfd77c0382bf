"""Bin the grasshopper recordings that nitime ships into `grasshopper.npz`, beside this script.

Run as ``python bin_grasshopper.py`` where nitime 0.12 is installed. README.md in this folder says
what was recorded and by whom.
"""

import importlib.util
from pathlib import Path

import numpy as np

SECONDS, STEPS = 10, 1000  # each recording lasts 10 s; a step is 1 ms, shorter than any interval
MICROSECONDS = 1e-6


def binned(spike_times: np.ndarray) -> np.ndarray:
    """Return the spikes of one recording, `[second, step]`, each 0 or 1."""
    edges = np.linspace(0, SECONDS, SECONDS * STEPS + 1)
    counts, _ = np.histogram(spike_times * MICROSECONDS, edges)
    if counts.max() > 1 or counts.sum() != len(spike_times):
        raise ValueError("a bin holds two spikes, or a spike lies outside the recording")
    return counts.astype(np.uint8).reshape(SECONDS, STEPS)


def main() -> None:
    """Write the file."""
    found = importlib.util.find_spec("nitime")
    if found is None or found.origin is None:
        raise SystemExit("needs nitime: pip install nitime")
    folder = Path(found.origin).parent / "data"
    recordings = [np.loadtxt(folder / f"grasshopper_spike_times{i}.txt") for i in (1, 2)]

    spikes = np.stack([binned(times) for times in recordings], axis=1)
    counts = spikes.sum(axis=-1, dtype=np.int64)
    np.savez_compressed(
        Path(__file__).with_name("grasshopper.npz"),
        input=spikes,
        target=np.roll(spikes, -1, axis=0),
        label=np.argmax(counts, axis=1),
    )


if __name__ == "__main__":
    main()
