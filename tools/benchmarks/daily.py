"""Time the losses beside the line that a user would write, at the sizes at which people train.

``python tools/benchmarks/daily.py [PATTERN ...]`` prints how many times as long as the plain line a
loss takes, value and gradient, in float32, the median of several processes. Rows are named such as
``jax: counts: [20, 100, 10] first``; each PATTERN must be part of the name. With ``--write``, also
write docs/benchmarks.md. It needs optax.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from contenders import random_spikes
from timing import measure_seconds, time_ratio

import spikeloss_xp as sx

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from _support import pages

SIZES = ((20, 100, 10), (100, 256, 20), (250, 64, 35), (100, 256, 200))  # [time, batch, class]
LAYOUTS = {"first": 0, "last": -1}
WINDOW, TAU, TAPS = 20, 5.0, 100
RATES = 0.5, 0.02
LOSSES: dict[str, Callable[[int], Any]] = {
    "counts": lambda axis: sx.CrossEntropy(time_axis=axis),
    "sqrt_count": lambda axis: sx.CrossEntropy(time_axis=axis, readout="sqrt_count"),
    "each step": lambda axis: sx.CrossEntropy(time_axis=axis, moving_window=1),
    "window 20": lambda axis: sx.CrossEntropy(time_axis=axis, moving_window=WINDOW),
    "SpikeRate": lambda axis: sx.SpikeRate(*RATES, reduction="mean", time_axis=axis),
    "SpikeRate, window 20": lambda axis: sx.SpikeRate(
        *RATES, WINDOW, reduction="mean", time_axis=axis
    ),
    "SpikeTime": lambda axis: sx.SpikeTime(TAU, TAPS, reduction="mean", time_axis=axis),
    "counts, probabilities": lambda axis: sx.CrossEntropy(time_axis=axis),
    "each step, probabilities": lambda axis: sx.CrossEntropy(time_axis=axis, moving_window=1),
}
LIBRARIES = ("torch", "torch compiled", "jax", "numpy")
TITLES = {"torch": "PyTorch", "torch compiled": "PyTorch, compiled", "jax": "JAX", "numpy": "NumPy"}


def arrays(loss: str, shape: tuple[int, int, int], axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return spikes in a layout, and a target."""
    spikes, (_, batch, classes) = random_spikes(shape), shape
    label = np.arange(batch) % classes
    if loss == "SpikeTime":
        target = random_spikes(shape, 1)
    elif "probabilities" in loss:
        target = np.full((batch, classes), 0.1 / classes, np.float32)
        target[np.arange(batch), label] += 0.9
    else:
        target = label
    if axis == -1:
        spikes = np.ascontiguousarray(np.moveaxis(spikes, 0, -1))
        if loss == "SpikeTime":
            target = np.ascontiguousarray(np.moveaxis(target, 0, -1))
    return spikes, target


def target_rates(label: np.ndarray, classes: int) -> np.ndarray:
    true, false = RATES
    return np.where(label[:, None] == np.arange(classes), true, false).astype(np.float32)


@functools.cache
def filter_matrix(steps: int) -> np.ndarray:
    """Return the matrix that filters all of time."""
    lag = np.arange(steps)[:, None] - np.arange(steps)
    taps = np.exp(-np.arange(TAPS) / TAU)
    return np.where((lag >= 0) & (lag < TAPS), taps[np.clip(lag, 0, TAPS - 1)], 0).astype("f")


# The plain lines -----------------------------------------------------------------------------


def plain_torch(loss: str, axis: int, steps: int, target: np.ndarray, classes: int) -> Any:
    import torch
    import torch.nn.functional as F  # noqa: N812

    y = torch.asarray(target)

    def windows(x: Any) -> Any:
        total = torch.cumsum(x, axis)
        ahead = (0, 0, 0, 0, WINDOW, 0) if axis == 0 else (WINDOW, 0)
        return total - F.pad(total, ahead).narrow(axis, 0, steps)

    def at_each_step(u: Any) -> Any:
        if axis == 0:
            return F.cross_entropy(u.flatten(0, 1), y.repeat(steps, *[1] * (y.ndim - 1)))
        return F.cross_entropy(u, y[..., None].expand(*y.shape, steps))

    if "rate" in loss.lower():
        rates = torch.asarray(target_rates(target, classes))
        if "window" in loss:
            wide = rates if axis == 0 else rates[..., None]
            return lambda x: F.mse_loss(windows(x) / WINDOW, wide.expand_as(x))
        return lambda x: F.mse_loss(x.mean(axis), rates)
    if loss == "SpikeTime":
        matrix = torch.asarray(filter_matrix(steps))
        if axis == 0:
            return lambda x: torch.tensordot(matrix, x - y, 1).square().mean()
        return lambda x: ((x - y) @ matrix.T).square().mean()
    if "each step" in loss:
        return at_each_step
    if "window" in loss:
        return lambda x: at_each_step(windows(x))
    return lambda x: F.cross_entropy(x.sum(axis), y)


def plain_jax(loss: str, axis: int, steps: int, classes: int) -> Any:
    """Return a function of the spikes and the target; of rates, the target is the rates."""
    import jax.numpy as jnp
    import optax

    def windows(x: Any) -> Any:
        total = jnp.cumsum(x, axis)
        ahead = [(0, 0)] * 3
        ahead[axis] = (WINDOW, 0)
        padded = jnp.pad(total, ahead)
        return total - (padded[:steps] if axis == 0 else padded[..., :steps])

    def entropy(u: Any, y: Any) -> Any:
        if "probabilities" in loss:
            return optax.softmax_cross_entropy(u, jnp.broadcast_to(y, u.shape)).mean()
        labels = jnp.broadcast_to(y, u.shape[:-1])
        return optax.softmax_cross_entropy_with_integer_labels(u, labels).mean()

    def at_each_step(u: Any, y: Any) -> Any:
        return entropy(u if axis == 0 else jnp.moveaxis(u, -1, 0), y)

    if "rate" in loss.lower() and "window" in loss:
        wide = (lambda y: y) if axis == 0 else (lambda y: y[..., None])
        return lambda x, y: jnp.mean((windows(x) / WINDOW - wide(y)) ** 2)
    if "rate" in loss.lower():
        return lambda x, y: jnp.mean((x.mean(axis) - y) ** 2)
    if loss == "SpikeTime":
        matrix = jnp.asarray(filter_matrix(steps))
        if axis == 0:
            return lambda x, y: jnp.mean(jnp.tensordot(matrix, x - y, 1) ** 2)
        return lambda x, y: jnp.mean(((x - y) @ matrix.T) ** 2)
    if "each step" in loss:
        return at_each_step
    if "window" in loss:
        return lambda x, y: at_each_step(windows(x), y)
    return lambda x, y: entropy(x.sum(axis), y)


def plain_numpy(loss: str, axis: int, steps: int, target: np.ndarray, classes: int) -> Any:
    """Return value and gradient, written by hand."""
    last = axis == -1
    over = (axis,)

    def spread(g: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return np.broadcast_to(np.expand_dims(g, axis), shape).copy()

    def entropy(u: np.ndarray) -> tuple[Any, np.ndarray]:
        axis_of_class = 1 if last or u.ndim == 2 else 2
        e = np.exp(u - u.max(axis_of_class, keepdims=True))
        e /= e.sum(axis_of_class, keepdims=True)
        number = e.size // classes
        if "probabilities" in loss:
            q = target if u.ndim == 2 else target[..., None] if last else target
            value = -(q * np.log(e)).sum() / number
            e -= q
        else:
            shape = (-1, 1) if u.ndim == 2 else (-1, 1, 1) if last else (1, -1, 1)
            label = target.reshape(shape)
            if u.ndim == 3:
                label = np.broadcast_to(label, (len(u), 1, steps) if last else (*u.shape[:2], 1))
            p = np.take_along_axis(e, label, axis_of_class)
            value = -np.log(p).sum() / number
            np.put_along_axis(e, label, p - 1, axis_of_class)
        e /= number
        return value, e

    def windows(x: np.ndarray) -> np.ndarray:
        total = np.cumsum(x, axis)
        late = (..., slice(WINDOW, None)) if last else slice(WINDOW, None)
        early = (..., slice(None, -WINDOW)) if last else slice(None, -WINDOW)
        if steps > WINDOW:
            total[late] -= total[early].copy()
        return total

    def back(g: np.ndarray) -> np.ndarray:
        return np.flip(windows(np.flip(g, axis)), axis)

    def squares(difference: np.ndarray) -> tuple[Any, np.ndarray]:
        return np.mean(difference**2), 2 / difference.size * difference

    def run(x: np.ndarray) -> tuple[Any, np.ndarray]:
        if "rate" in loss.lower():
            rates = target_rates(target, classes)
            if "window" in loss:
                value, g = squares(windows(x) / WINDOW - (rates[..., None] if last else rates))
                return value, back(g / WINDOW)
            value, g = squares(x.mean(over) - rates)
            return value, spread(g / steps, x.shape)
        if loss == "SpikeTime":
            matrix = filter_matrix(steps)
            if last:
                value, g = squares((x - target) @ matrix.T)
                return value, g @ matrix
            rows = (x - target).reshape(steps, -1)
            value, g = squares(matrix @ rows)
            return value, (matrix.T @ g).reshape(x.shape)
        if "each step" in loss:
            return entropy(x)
        if "window" in loss:
            value, g = entropy(windows(x))
            return value, back(g)
        u = x.sum(axis)
        value, g = entropy(u)
        return value, spread(g, x.shape)

    return run


# Measuring -----------------------------------------------------------------------------------


def setups(library: str, loss: str, shape: tuple[int, int, int], axis: int) -> dict[str, Any]:
    """Return our run and that of the plain line, each with its value and gradient."""
    spikes, target = arrays(loss, shape, axis)
    steps, _, classes = shape
    given = loss, axis, steps, target, classes
    ours = LOSSES[loss](axis)
    if library == "numpy":
        evaluate, plain = sx.value_and_grad(ours), plain_numpy(*given)
        return {"ours": lambda: evaluate(spikes, target), "plain": lambda: plain(spikes)}
    if library == "jax":
        import jax
        import jax.numpy as jnp

        x, y = jnp.asarray(spikes), jnp.asarray(target)
        evaluate = jax.jit(jax.value_and_grad(ours))
        plain = jax.jit(jax.value_and_grad(plain_jax(loss, axis, steps, classes)))
        rates = jnp.asarray(target_rates(target, classes)) if "rate" in loss.lower() else y
        return {
            "ours": lambda: jax.block_until_ready(evaluate(x, y)),
            "plain": lambda: jax.block_until_ready(plain(x, rates)),
        }
    import torch

    x, y = torch.asarray(spikes).requires_grad_(), torch.asarray(target)
    plain = plain_torch(*given)
    if library == "torch compiled":
        ours, plain = torch.compile(ours, dynamic=False), torch.compile(plain, dynamic=False)

    def backward(value: Any) -> Any:
        x.grad = None
        value.backward()
        return value, x.grad

    return {"ours": lambda: backward(ours(x, y)), "plain": lambda: backward(plain(x))}


def numbers(result: Any) -> tuple[float, np.ndarray]:
    value, gradient = result
    return float(value.detach() if hasattr(value, "detach") else value), np.asarray(gradient)


def check(name: str, runs: dict[str, Any]) -> None:
    """Raise if the two contenders do not compute the same."""
    (value, gradient), (other, expected) = (numbers(run()) for run in runs.values())
    if "sqrt" in name:
        return  # the plain line has no root
    size = np.abs(expected).max()
    if abs(value - other) > 1e-4 * abs(other) or np.abs(gradient - expected).max() > 1e-3 * size:
        raise ValueError(f"{name}: {value} differs from {other}, or the gradients do")


PRICES = ("counts", "each step", "window 20")  # with and without each of the options
OPTIONS = ("lengths", "where", "weight", "num_classes")


def prices(library: str, loss: str, option: str) -> dict[str, Any]:
    """Return our run with an option, and without it, for ``[100, 256, 20]``."""
    shape = steps, batch, classes = SIZES[1]
    spikes, label = arrays(loss, shape, 0)
    ours, label = LOSSES[loss](0), label % 5
    options: dict[str, Any] = {
        "lengths": {"lengths": 1 + np.arange(batch) % steps},
        "where": {"where": np.random.default_rng(0).random((steps, batch)) < 0.8},
        "weight": {"weight": np.linspace(0.5, 1.5, classes, dtype=np.float32)},
        "num_classes": {},
    }[option]
    grouped = dataclasses.replace(ours, num_classes=5) if option == "num_classes" else ours
    return {
        "ours": run_of(library, grouped, spikes, label, options),
        "plain": run_of(library, ours, spikes, label, {}),
    }


def run_of(library: str, loss: Any, spikes: Any, label: Any, options: dict[str, Any]) -> Any:
    if library == "numpy":
        evaluate = sx.value_and_grad(loss)
        return lambda: evaluate(spikes, label, **options)
    if library == "jax":
        import jax
        import jax.numpy as jnp

        evaluate = jax.jit(jax.value_and_grad(loss))
        given = jax.tree.map(jnp.asarray, (spikes, label, options))
        return lambda: jax.block_until_ready(evaluate(*given[:2], **given[2]))
    import torch

    x = torch.asarray(spikes).requires_grad_()
    options = {name: torch.asarray(value) for name, value in options.items()}

    def run() -> Any:
        x.grad = None
        loss(x, torch.asarray(label), **options).backward()

    return run


def training_step(loss: str, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Return a run of a training step of two layers, and of the loss of its output alone."""
    import torch

    steps, batch, classes = shape
    spikes, target = arrays(loss, shape, 0)
    output, label = torch.asarray(spikes).requires_grad_(), torch.asarray(target)
    layers = torch.nn.Sequential(
        torch.nn.Linear(64, 128), torch.nn.Linear(128, classes)
    ).requires_grad_()
    optimiser, x = torch.optim.Adam(layers.parameters()), torch.rand(steps, batch, 64)
    ours = LOSSES[loss](0)

    def neurons(current: Any) -> Any:
        potential, fired = torch.zeros_like(current[0]), []
        for step in current.unbind():
            potential = 0.9 * potential + step
            spike = torch.sigmoid(5 * (potential - 1))
            potential = potential - spike
            fired.append(spike)
        return torch.stack(fired)

    def whole() -> None:
        optimiser.zero_grad()
        ours(neurons(layers[1](neurons(layers[0](x)))), label).backward()
        optimiser.step()

    def alone() -> None:
        output.grad = None
        ours(output, label).backward()

    return {"ours": alone, "plain": whole}


FIRST_CALL = """
import sys, time, torch, torch.nn.functional as F, spikeloss_xp as sx
x, y = torch.rand(20, 100, 10).requires_grad_(), torch.arange(100) % 10
loss = sx.CrossEntropy(time_axis=0) if sys.argv[1] == "ours" else None
start = time.perf_counter()
(loss(x, y) if loss else F.cross_entropy(x.sum(0), y)).backward()
print(time.perf_counter() - start)
"""


COMPILE = """
import time, jax, jax.numpy as jnp, spikeloss_xp as sx
x, y = jnp.zeros((100, 256, 20)), jnp.zeros(256, int)
jax.jit(jnp.sin).lower(x).compile()  # what JAX does once
start = time.perf_counter()
jax.jit(jax.value_and_grad(sx.SpikeLatency(time_axis=0))).lower(x, y).compile()
print(time.perf_counter() - start)
"""


def in_new_process(program: str, *arguments: str) -> float:
    """Return the median of the seconds that a program prints in a new process."""
    command = [sys.executable, "-c", program, *arguments]
    return statistics.median(
        float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
        for _ in range(5)
    )


def rows() -> dict[str, Callable[[], dict[str, Any]]]:
    """Return the setup of each row by its name."""
    found: dict[str, Callable[[], dict[str, Any]]] = {}
    for library, loss, shape, layout in itertools.product(LIBRARIES, LOSSES, SIZES, LAYOUTS):
        name = row_name(library, loss, shape, layout)
        found[name] = functools.partial(setups, library, loss, shape, LAYOUTS[layout])
    for library, loss, option in itertools.product(("torch", "jax", "numpy"), PRICES, OPTIONS):
        found[f"price: {library}: {loss}: {option}"] = functools.partial(
            prices, library, loss, option
        )
    for loss, shape in itertools.product(("counts", "window 20"), SIZES[:2]):
        found[f"share: {loss}: {list(shape)}"] = functools.partial(training_step, loss, shape)
    return found


def row_name(library: str, loss: str, shape: tuple[int, int, int], layout: str) -> str:
    return f"{library}: {loss}: {list(shape)} {layout}"


def measure(patterns: list[str], seconds: float) -> None:
    """Print a line of JSON for each row: its name, our milliseconds, and the ratio."""
    for name, setup in rows().items():
        if not all(part in name for part in patterns):
            continue
        runs = setup()
        if name.split(":")[0] in LIBRARIES:
            check(name, runs)
        times = measure_seconds(runs, min_seconds=seconds)
        ours = statistics.median(times["ours"]) * 1e3
        print(json.dumps([name, ours, time_ratio(times, "ours", "plain")]), flush=True)
        if name.startswith("torch compiled"):
            import torch

            torch.compiler.reset()


def write(found: dict[str, tuple[float, float]]) -> None:
    """Write the tables of the page."""

    def ratio(name: str) -> str:
        return f"{found[name][1]:.2f}" if name in found else "?"

    sizes = [str(list(shape)) for shape in SIZES]
    tables = [
        pages.table(
            (TITLES[library], *sizes),
            (
                (
                    f"`{loss}`" if loss.startswith("Spike") else loss,
                    *(
                        " / ".join(ratio(row_name(library, loss, size, x)) for x in LAYOUTS)
                        for size in SIZES
                    ),
                )
                for loss in LOSSES
            ),
        )
        for library in LIBRARIES
    ]
    tables.append(
        pages.table(
            ("with", *(f"{TITLES[x]}: {', '.join(PRICES)}" for x in ("torch", "jax", "numpy"))),
            (
                (
                    f"`{option}`",
                    *(
                        ", ".join(ratio(f"price: {x}: {loss}: {option}") for loss in PRICES)
                        for x in ("torch", "jax", "numpy")
                    ),
                )
                for option in OPTIONS
            ),
        )
    )
    tables.append(
        pages.table(
            ("share of a training step", *sizes[:2]),
            (
                (loss, *(f"{100 * found[f'share: {loss}: {size}'][1]:.1f} %" for size in sizes[:2]))
                for loss in ("counts", "window 20")
            ),
        )
    )
    page = pages.DOCS / "benchmarks.md"
    text = page.read_text(encoding="utf-8")
    text = pages.with_tables(text, {"## Beside the line that you would write": tables})
    page.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("patterns", nargs="*")
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each row and process")
    parser.add_argument("--here", action="store_true", help="measure in this process")
    parser.add_argument("--write", action="store_true", help="write the tables of the page")
    options = parser.parse_args()
    if options.here:
        measure(options.patterns, options.seconds)
        return
    results: dict[str, list[tuple[float, float]]] = {}
    command = [sys.executable, __file__, "--here", f"--seconds={options.seconds}"]
    for _ in range(options.processes):
        lines = subprocess.run(
            [*command, *options.patterns], stdout=subprocess.PIPE, text=True, check=True
        ).stdout.splitlines()
        for line in lines:
            name, milliseconds, ratio = json.loads(line)
            results.setdefault(name, []).append((milliseconds, ratio))
    found = {}
    for name, measured in results.items():
        found[name] = tuple(statistics.median(column) for column in zip(*measured, strict=True))
        print(f"{name:60} {found[name][0]:9.3f} ms  ratio {found[name][1]:.2f}", flush=True)
    if not options.patterns:
        seconds = {which: in_new_process(FIRST_CALL, which) for which in ("ours", "plain")}
        print("first call in a new process, in s:", seconds)
        print("JAX compiles SpikeLatency of 100 steps, in s:", in_new_process(COMPILE))
    if options.write:
        write(found)


if __name__ == "__main__":
    main()
