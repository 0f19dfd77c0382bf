"""Write the benchmark page of the documentation and its plot."""

from pathlib import Path

import contenders
import numpy as np
from rows import spike_time
from timing import measure_seconds

TEXT = """# Benchmarks

How long the losses take, next to what else could be used and to a floor. Each line was measured
side by side, in a process of its own: in every round each contender ran once, after a run that was
not timed, and the number is the median over the rounds of the ratio of their times. So above 1,
ours is faster. A floor is less than the whole work: `SpikeTime` without its filter. Value and
gradient are meant unless the line says otherwise, of float32 spikes. The last column is what we
want to reach.

Large tensors wait for memory: the allocator of the C library gives back what is freed, and each
page of it has to be asked for again. Each process starts with 32 MB allocated and freed, after
which the allocator keeps about twice as much, as in a training run after some steps. Where the line
says "memory kept" it keeps everything, so that nobody waits, and a floor is its arithmetic alone.

What bounds the rows that were missed, as measured on the same machine:

- Large tensors, memory kept: arithmetic. The matrix products that filter the blocks are in the
  table, alone; together with the floor they are most of the time. Of the rest, half is to put
  blocks side by side. For 10,000 steps the products with the sums of the blocks, which are not in
  that line, take as long again, and all of them together three times the floor.
- Small tensors: calls. Besides the operations, an evaluation checks shapes, dtypes and labels,
  while lava-dl checks nothing and is infinite if the labelled neuron is silent. A tensor of fewer
  than 8192 entries, or 262144 with one thread, is evaluated by NumPy, whose operations take a third
  of the time of PyTorch's. [256, 10, 100] has more entries, and two threads of PyTorch reduce the
  time of the sum over time, but not that of the calls.
- JAX against its floor: the same arithmetic, and memory. The floor takes 3 ms or 12, by whether the
  pages of its gradient are at hand.

{machine}.

To measure again, with lava-dl 0.6.0, SciPy and snnTorch beside this library:

```bash
python -m pip install -e ".[all,test,docs]" scipy
python -m pip install --no-deps --ignore-requires-python lava-dl==0.6.0 snntorch==1.0.0
python -m pip install torchvision h5py opencv-python-headless
python tests/benchmarks/table.py --write
```

{table}

{others}

![Time of SpikeTime against steps, length of the filter, and neurons](images/scaling.png)

`SpikeTime`, value and gradient. A line ends where one evaluation took more than two seconds.
"""

COLORS = {"spikeloss_xp": "#0b6e99", "no filter": "#888888"}


def write(docs: Path, machine: str, table: str, others: str) -> None:
    text = TEXT.format(machine=machine, table=table, others=others)
    (docs / "benchmarks.md").write_text(text, encoding="utf-8")
    draw(docs / "images" / "scaling.png")


def draw(path: Path) -> None:
    """Plot the time against the number of steps, the filter length and the number of neurons."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    sweeps = {
        "steps": ([100, 1000, 10_000, 100_000], lambda n: ((1, 64, n), 100)),
        "length of the filter": ([10, 32, 100, 316, 1000, 3162], lambda n: ((2, 64, 10_000), n)),
        "neurons": ([1, 10, 100, 1000, 10_000], lambda n: ((1, n, 1000), 100)),
    }
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharey=True, layout="constrained")
    for axis, (name, (sizes, shape_and_length)) in zip(axes, sweeps.items(), strict=True):
        for label, times in sweep(sizes, shape_and_length).items():
            style = {"lw": 2.5} if label == "spikeloss_xp" else {"lw": 1.2}
            axis.loglog(sizes[: len(times)], times, "o-", ms=3, label=label,
                        color=COLORS.get(label), **style)  # fmt: skip
        axis.set_xlabel(name)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("milliseconds")
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


def sweep(sizes: list[int], shape_and_length) -> dict[str, list[float]]:
    """Return each contender's milliseconds per size, up to its first size above two seconds."""
    setups = {
        "spikeloss_xp": contenders.torch_eager,
        "spikeloss_xp, JAX": contenders.jax_jit,
        "no filter": contenders.torch_floor,
        "lava-dl": contenders.lava,
        "conv1d": contenders.conv1d,
        "lax.conv": contenders.lax_conv,
    }
    milliseconds: dict[str, list[float]] = {label: [] for label in setups}
    skipped: set[str] = set()
    for size in sizes:
        shape, length = shape_and_length(size)
        runs = {}
        for label, setup in setups.items():
            if label not in skipped:
                try:
                    runs[label] = setup(spike_time(length), shape)
                except ModuleNotFoundError:
                    skipped.add(label)
        for label, seconds in measure_seconds(runs).items():
            milliseconds[label].append(1e3 * float(np.median(seconds)))
            if milliseconds[label][-1] > 2000:
                skipped.add(label)
    return {label: times for label, times in milliseconds.items() if times}
