"""The rows of the benchmark: losses, shapes, other implementations and target ratios."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import contenders as c

import spikeloss_xp as sx

Others = dict[str, tuple[Callable[..., c.Run], float]]

# The environment variables of each kind of process. By default, PyTorch uses one thread per core.
# glibc returns freed memory to the system only above these thresholds, in bytes.
MEMORY_KEPT = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
PROCESSES = {
    "": {},
    "memory kept": dict.fromkeys(MEMORY_KEPT, str(1 << 34)),
    "one thread": {"OMP_NUM_THREADS": "1"},
}


@dataclass(frozen=True)
class Row:
    """A loss of this library, a shape of the spikes, and the implementations to compare.

    `others` maps the name of each other implementation to its contender and to the target for the
    ratio between its run time and ours; 0 means that there is no target. For a floor, which does
    only part of the work, the target is below 1.
    """

    loss: Any
    shape: tuple[int, ...]
    library: str
    others: Others = field(default_factory=dict)
    process: str = ""
    """The key in `PROCESSES` of the process in which the row runs."""

    @property
    def work(self) -> str:
        """The name of the row in the table."""
        loss, extra = self.loss, ""
        if isinstance(loss, sx.SpikeTime):
            extra = f", L {loss.length}"
        elif loss.readout == "latency":
            extra = ", latency"
        elif loss.moving_window:
            extra = f", W {loss.moving_window}"
        extra += ", time first" * (loss.time_axis == 0)
        process = f", {self.process}" * bool(self.process)
        return f"{type(loss).__name__} {list(self.shape)}{extra}: {self.library}{process}"

    def contenders(self) -> dict[str, Callable[[], c.Run]]:
        """Return functions that prepare a run of each contender, beginning with ours."""
        setups = {"ours": c.ours} | {name: setup for name, (setup, _) in self.others.items()}
        row = self.library, self.loss, self.shape
        return {name: functools.partial(setup, *row) for name, setup in setups.items()}


def spike_time(length: int) -> sx.SpikeTime:
    return sx.SpikeTime(c.TIME_CONSTANT, length)


def rate_losses(window: int | None) -> tuple[Any, ...]:
    return (
        sx.SpikeRate(0.2, 0.03, window),
        sx.SpikeMax(window),
        sx.SpikeMoid(window, alpha=0.2, theta=0.1),
    )


def lava(ratio: float) -> Others:
    return {"lava-dl": (c.lava, ratio)}


def floor(multiple: float | None = None) -> Others:
    return {"the floor": (c.floor, 1 / multiple if multiple else 0)}


SMALL, WIDE, LONG = (1, 200, 2000), (32, 256, 1000), (2, 64, 10_000)
TIME_FIRST = dataclasses.replace(spike_time(100), time_axis=0), (1000, 32, 256)
MOVED = {"time moved last": (c.time_moved_last, 1)}
CONV1D, LAX_CONV = {"conv1d": (c.conv1d, 1.0)}, {"lax.conv": (c.lax_conv, 20)}
SCIPY = {"fftconvolve": (c.fftconvolve, 1.5), "lfilter": (c.lfilter, 1.5)}
COUNTS = {"snnTorch": (c.snntorch, 1 / 1.1)}
LATENCY = sx.CrossEntropy(readout="latency", time_axis=0)
ONCE = {"its value and gradient": (c.as_in("PyTorch"), 1 / 5)}
VALUE = {"its value": (c.as_in("NumPy, value"), 1 / 2.5)}
ROWS = [
    Row(spike_time(100), SMALL, "PyTorch", lava(60) | CONV1D | floor()),
    Row(spike_time(100), (32, 10, 300), "PyTorch", lava(4) | CONV1D | floor()),
    Row(spike_time(100), WIDE, "PyTorch", lava(10) | CONV1D | floor(2.5)),
    Row(spike_time(100), WIDE, "PyTorch, compiled", floor(2)),
    Row(spike_time(1000), LONG, "PyTorch", lava(60) | CONV1D | floor(3)),
    Row(spike_time(100), WIDE, "PyTorch", floor(2.5), process="memory kept"),
    Row(spike_time(100), WIDE, "PyTorch, compiled", floor(2), process="memory kept"),
    Row(spike_time(1000), LONG, "PyTorch", floor(3), process="memory kept"),
    Row(*TIME_FIRST, "PyTorch", MOVED),
    Row(*TIME_FIRST, "JAX, jit", MOVED),
    *(Row(loss, SMALL, "PyTorch", lava(12)) for loss in rate_losses(50)),
    *(Row(loss, WIDE, "PyTorch", lava(4)) for loss in rate_losses(100)),
    *(
        Row(loss, shape, "PyTorch", lava(target) | counts)
        for shape, target in ((WIDE, 1 / 1.1), ((256, 10, 100), 1))
        for loss, counts in zip(rate_losses(None), (COUNTS, COUNTS, {}), strict=True)
    ),
    *(
        Row(loss, shape, "PyTorch", lava(target), process="one thread")
        for shape, target in (((256, 10, 100), 1), ((1, 10, 100), 1 / 2))
        for loss in rate_losses(None)
    ),
    *(
        Row(LATENCY, shape, library, others, process="one thread")
        for shape, target in (((100, 128, 10), 8), ((1000, 32, 256), 1))
        for library, others in (
            ("PyTorch", {"snnTorch": (c.snntorch, target)}),
            ("PyTorch, double backward", ONCE),
        )
    ),
    Row(spike_time(100), WIDE, "JAX, jit", LAX_CONV | floor(3)),
    Row(spike_time(100), WIDE, "NumPy, value", SCIPY | floor()),
    *(
        Row(loss, WIDE, "NumPy", VALUE)
        for loss in (spike_time(100), *rate_losses(None), *rate_losses(100))
    ),
    *(
        Row(loss, (1, 10, 100), library, lava(target) if library == "PyTorch" else {})
        for loss, target in ((spike_time(100), 0), *((x, 1 / 2) for x in rate_losses(None)))
        for library in ("PyTorch", "NumPy")
    ),
]
