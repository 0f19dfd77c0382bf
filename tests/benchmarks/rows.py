"""The rows of the benchmark: work, who does it, and by how much they should differ."""

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
    """One piece of work.

    Attributes
    ----------
    loss, shape
        What is evaluated.
    ours
        How this library does it.
    others
        How others do it, by name, and how many times as long as ours that should take. A floor is
        less work than what we do: there the number is below 1.
    kept
        Whether the allocator keeps all memory that is freed.
    """

    loss: Any
    shape: tuple[int, ...]
    ours: Setup
    others: dict[str, tuple[Setup, float]] = field(default_factory=dict)
    kept: bool = False

    @property
    def work(self) -> str:
        """What the row is called."""
        loss, extra = self.loss, ""
        if isinstance(loss, sx.SpikeTime):
            extra = f", L {loss.length}" + ", time first" * (loss.time_axis == 0)
        elif loss.moving_window:
            extra = f", W {loss.moving_window}"
        how = {
            contenders.torch_eager: "PyTorch",
            contenders.torch_compiled: "PyTorch, compiled",
            contenders.jax_jit: "JAX, jit",
            contenders.numpy_value: "NumPy, value",
            contenders.numpy_gradient: "NumPy",
        }[self.ours]
        kept = ", memory kept" * self.kept
        return f"{type(loss).__name__} {list(self.shape)}{extra}: {how}{kept}"


def time(length: int) -> sx.SpikeTime:
    return sx.SpikeTime(contenders.TIME_CONSTANT, length)


def rate_losses(window: int | None) -> tuple[Any, ...]:
    return (
        sx.SpikeRate(0.2, 0.03, window),
        sx.SpikeMax(window),
        sx.SpikeMoid(window, alpha=0.2, theta=0.1),
    )


def rows() -> list[Row]:
    """Return all of them."""
    c = contenders
    small, wide, long = (1, 200, 2000), (32, 256, 1000), (2, 64, 10_000)
    conv1d = {"conv1d": (c.conv1d, 1.0)}

    def lava(times: float) -> dict[str, tuple[Setup, float]]:
        return {"lava-dl": (c.lava, times)}

    def floor(setup: Setup, multiple: float | None = None) -> dict[str, tuple[Setup, float]]:
        return {"the floor": (setup, 0 if multiple is None else 1 / multiple)}

    products = {"its matrix products": (c.torch_products, 0.0)}
    counts = {"snnTorch": (c.snntorch_count, 1 / 1.1)}
    first = dataclasses.replace(time(100), time_axis=0), (1000, 32, 256)
    of_numpy = (time(100), *rate_losses(None), *rate_losses(100))
    return [
        Row(time(100), small, c.torch_eager, lava(60) | conv1d | floor(c.torch_floor)),
        Row(time(100), (32, 10, 300), c.torch_eager, lava(4) | conv1d | floor(c.torch_floor)),
        Row(time(100), wide, c.torch_eager, lava(10) | conv1d | floor(c.torch_floor, 2.5)),
        Row(time(100), wide, c.torch_compiled, floor(c.torch_floor, 2)),
        Row(time(1000), long, c.torch_eager, lava(60) | conv1d | floor(c.torch_floor, 3)),
        *(
            Row(loss, shape, how, floor(c.torch_floor, aim) | products, kept=True)
            for loss, shape, how, aim in (
                (time(100), wide, c.torch_eager, 2.5),
                (time(100), wide, c.torch_compiled, 2),
                (time(1000), long, c.torch_eager, 3),
            )
        ),
        Row(*first, c.torch_eager, {"time moved last": (c.torch_moved, 1)}),
        Row(*first, c.jax_jit, {"time moved last": (c.jax_moved, 1)}),
        *(Row(loss, small, c.torch_eager, lava(12)) for loss in rate_losses(50)),
        *(Row(loss, wide, c.torch_eager, lava(4)) for loss in rate_losses(100)),
        *(
            Row(loss, shape, c.torch_eager, lava(1 / 1.1) | ({} if i == 2 else counts))
            for shape in (wide, (256, 10, 100))
            for i, loss in enumerate(rate_losses(None))
        ),
        Row(time(100), wide, c.jax_jit, {"lax.conv": (c.lax_conv, 20)} | floor(c.jax_floor, 3)),
        Row(
            time(100),
            wide,
            c.numpy_value,
            {"fftconvolve": (c.fftconvolve, 1.5), "lfilter": (c.lfilter, 1.5)}
            | floor(c.numpy_floor),
        ),
        *(
            Row(loss, wide, c.numpy_gradient, {"its value": (c.numpy_value, 1 / 2.5)})
            for loss in of_numpy
        ),
        *(
            Row(loss, (1, 10, 100), how, lava(0) if how is c.torch_eager else {})
            for loss in (time(100), *rate_losses(None))
            for how in (c.torch_eager, c.numpy_gradient)
        ),
    ]
