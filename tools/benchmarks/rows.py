"""The rows of the benchmark: a loss on a shape, its implementations and their target ratios."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import contenders
from contenders import Run

import spikeloss_xp as sx

Setup = Callable[[Any, tuple[int, ...]], Run]


@dataclass(frozen=True)
class Row:
    """A loss on spikes of one shape, and the implementations to compare.

    Attributes
    ----------
    loss, shape
        The loss, and the shape of its spikes.
    ours
        The setup of this library's implementation.
    others
        Other implementations by name: the setup, and the target ratio of its time to ours, or 0
        for no target. The ratio is below 1 for a floor, which does only part of the work.
    memory_kept
        Whether the allocator keeps all freed memory.
    one_thread
        Whether PyTorch has one thread; otherwise it has as many as there are cores.
    """

    loss: Any
    shape: tuple[int, ...]
    ours: Setup
    others: dict[str, tuple[Setup, float]] = field(default_factory=dict)
    memory_kept: bool = False
    one_thread: bool = False

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
        implementation = {
            contenders.torch_eager: "PyTorch",
            contenders.torch_double_backward: "PyTorch, double backward",
            contenders.torch_compiled: "PyTorch, compiled",
            contenders.jax_jit: "JAX, jit",
            contenders.numpy_value: "NumPy, value",
            contenders.numpy_gradient: "NumPy",
        }[self.ours]
        implementation += ", memory kept" * self.memory_kept + ", one thread" * self.one_thread
        return f"{type(loss).__name__} {list(self.shape)}{extra}: {implementation}"


def spike_time(length: int) -> sx.SpikeTime:
    return sx.SpikeTime(contenders.TIME_CONSTANT, length)


def rate_losses(window: int | None) -> tuple[Any, ...]:
    return (
        sx.SpikeRate(0.2, 0.03, window),
        sx.SpikeMax(window),
        sx.SpikeMoid(window, alpha=0.2, theta=0.1),
    )


def rows() -> list[Row]:
    """Return all rows of the benchmark."""
    c = contenders
    small, wide, long = (1, 200, 2000), (32, 256, 1000), (2, 64, 10_000)
    conv1d = {"conv1d": (c.conv1d, 1.0)}

    def lava(ratio: float) -> dict[str, tuple[Setup, float]]:
        return {"lava-dl": (c.lava, ratio)}

    def floor(setup: Setup, multiple: float | None = None) -> dict[str, tuple[Setup, float]]:
        return {"the floor": (setup, 0 if multiple is None else 1 / multiple)}

    products = {"its matrix products": (c.torch_products, 0.0)}
    counts = {"snnTorch": (c.snntorch_count, 1 / 1.1)}
    time_first = dataclasses.replace(spike_time(100), time_axis=0), (1000, 32, 256)
    latency = sx.CrossEntropy(readout="latency", time_axis=0)
    once = {"its value and gradient": (c.torch_eager, 1 / 5)}
    numpy_losses = (spike_time(100), *rate_losses(None), *rate_losses(100))
    return [
        Row(spike_time(100), small, c.torch_eager, lava(60) | conv1d | floor(c.torch_floor)),
        Row(spike_time(100), (32, 10, 300), c.torch_eager, lava(4) | conv1d | floor(c.torch_floor)),
        Row(spike_time(100), wide, c.torch_eager, lava(10) | conv1d | floor(c.torch_floor, 2.5)),
        Row(spike_time(100), wide, c.torch_compiled, floor(c.torch_floor, 2)),
        Row(spike_time(1000), long, c.torch_eager, lava(60) | conv1d | floor(c.torch_floor, 3)),
        *(
            Row(loss, shape, setup, floor(c.torch_floor, multiple) | products, memory_kept=True)
            for loss, shape, setup, multiple in (
                (spike_time(100), wide, c.torch_eager, 2.5),
                (spike_time(100), wide, c.torch_compiled, 2),
                (spike_time(1000), long, c.torch_eager, 3),
            )
        ),
        Row(*time_first, c.torch_eager, {"time moved last": (c.torch_moveaxis, 1)}),
        Row(*time_first, c.jax_jit, {"time moved last": (c.jax_moveaxis, 1)}),
        *(Row(loss, small, c.torch_eager, lava(12)) for loss in rate_losses(50)),
        *(Row(loss, wide, c.torch_eager, lava(4)) for loss in rate_losses(100)),
        *(
            Row(loss, shape, c.torch_eager, lava(target) | ({} if i == 2 else counts))
            for shape, target in ((wide, 1 / 1.1), ((256, 10, 100), 1))
            for i, loss in enumerate(rate_losses(None))
        ),
        *(
            Row(loss, shape, c.torch_eager, lava(target), one_thread=True)
            for shape, target in (((256, 10, 100), 1), ((1, 10, 100), 1 / 2))
            for loss in rate_losses(None)
        ),
        *(
            Row(latency, shape, setup, others, one_thread=True)
            for shape, target in (((100, 128, 10), 8), ((1000, 32, 256), 1))
            for setup, others in (
                (c.torch_eager, {"snnTorch": (c.snntorch_temporal, target)}),
                (c.torch_double_backward, once),
            )
        ),
        Row(
            spike_time(100), wide, c.jax_jit, {"lax.conv": (c.lax_conv, 20)} | floor(c.jax_floor, 3)
        ),
        Row(
            spike_time(100),
            wide,
            c.numpy_value,
            {"fftconvolve": (c.fftconvolve, 1.5), "lfilter": (c.lfilter, 1.5)}
            | floor(c.numpy_floor),
        ),
        *(
            Row(loss, wide, c.numpy_gradient, {"its value": (c.numpy_value, 1 / 2.5)})
            for loss in numpy_losses
        ),
        *(
            Row(loss, (1, 10, 100), setup, lava(target) if setup is c.torch_eager else {})
            for loss, target in ((spike_time(100), 0), *((x, 1 / 2) for x in rate_losses(None)))
            for setup in (c.torch_eager, c.numpy_gradient)
        ),
    ]
