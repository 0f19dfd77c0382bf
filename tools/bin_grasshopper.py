"""Bin nitime's grasshopper recordings into `spikeloss_xp/data/grasshopper.npz`.

Run ``python tools/bin_grasshopper.py`` with nitime 0.12 installed. README.md beside that file
describes the recordings and names their authors.
"""

import importlib.util
from pathlib import Path

import numpy as np

DATA = Path(__file__).parents[1] / "spikeloss_xp" / "data"
SECONDS, STEPS = 10, 1000  # steps of 1 ms are shorter than every interspike interval
MICROSECONDS = 1e-6


def bin_spikes(spike_times: np.ndarray) -> np.ndarray:
    """Return one recording of spike times in microseconds as 0 and 1, `[second, step]`."""
    edges = np.linspace(0, SECONDS, SECONDS * STEPS + 1)
    counts, _ = np.histogram(spike_times * MICROSECONDS, edges)
    if counts.max() > 1 or counts.sum() != len(spike_times):
        raise ValueError("a bin holds two spikes, or a spike lies outside the recording")
    return counts.astype(np.uint8).reshape(SECONDS, STEPS)


def main() -> None:
    """Write `grasshopper.npz`."""
    spec = importlib.util.find_spec("nitime")
    if spec is None or spec.origin is None:
        raise SystemExit("needs nitime: pip install nitime")
    folder = Path(spec.origin).parent / "data"
    recordings = [np.loadtxt(folder / f"grasshopper_spike_times{i}.txt") for i in (1, 2)]

    spikes = np.stack([bin_spikes(times) for times in recordings], axis=1)
    counts = spikes.sum(axis=-1, dtype=np.int64)
    np.savez_compressed(
        DATA / "grasshopper.npz",
        input=spikes,
        target=np.roll(spikes, -1, axis=0),
        label=np.argmax(counts, axis=1),
    )


if __name__ == "__main__":
    main()
