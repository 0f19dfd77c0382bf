"""Compare the losses with the line that a user would write by hand, at typical training sizes.

``python tools/benchmarks/daily.py [PATTERN ...]`` prints the run time of each loss relative to the
plain line, for value and gradient in float32. Each number is a median over several processes. The
rows have names such as ``JAX: counts: [20, 100, 10] first``; only rows whose names contain every
PATTERN are measured. With ``--write``, the program also writes tests/data/daily.json and
docs/benchmarks.md. It requires optax.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import contenders
import numpy as np
import page
import plain
from contenders import Run
from plain import LAYOUTS, LINE, LOSSES
from timing import in_new_process, times

SIZES = ((20, 100, 10), (100, 256, 20), (250, 64, 35), (100, 256, 200))  # [time, batch, class]
LIBRARIES = ("PyTorch", "PyTorch, compiled", "JAX", "NumPy")
PRICED = ("PyTorch", "JAX", "NumPy")
PRICES = ("counts", "each step", "window 20")  # measured with and without each option
OPTIONS = ("lengths", "where", "weight", "num_classes", "rates")
CHANGED = {"num_classes": {"num_classes": 5}, "rates": {"rates": plain.RATES}}  # in the loss
SHARES = ("counts", "window 20")
BESIDE = ((20, 100, 100), (100, 256, 200))  # the sizes of the hidden layers for penalties
IMAGES = (10, 4, 21, 48, 48)  # [time, batch, class, pixel, pixel]
PROCESSES, SECONDS = 3, 0.3  # the seconds are for each row in each process
MEASURE = "import sys, daily; daily.measure(sys.argv[1:])"


def checked(library: str, loss: str, size: tuple[int, int, int], layout: str) -> dict[str, Run]:
    """Return the runs of our loss and of the plain line, and raise if their results differ."""
    setups = plain.setups(library, loss, size, layout)
    runs = {name: setup() for name, setup in setups.items()}
    errors = plain.errors(*(run() for run in runs.values()))
    if not all(errors <= (1e-4, 1e-3)) and loss != "sqrt_count":  # the plain line takes no root
        raise ValueError(f"{library}, {loss}: value and gradient differ by {errors} from the line")
    return runs


def prices(library: str, name: str, option: str) -> dict[str, Run]:
    """Return runs of our loss with and without an option, for the size ``[100, 256, 20]``."""
    loss, (steps, batch, classes) = LOSSES[name], SIZES[1]
    spikes, label = contenders.arrays(loss, SIZES[1])
    changed = dataclasses.replace(loss, **CHANGED.get(option, {}))
    options = {
        "lengths": 1 + np.arange(batch) % steps,
        "where": np.random.default_rng(0).random((steps, batch)) < 0.8,
        "weight": np.linspace(0.5, 1.5, classes, dtype=np.float32),
    }
    given = {name: x for name, x in options.items() if name == option}
    return {
        "ours": contenders.with_gradient(library, changed, spikes, label % 5, **given),
        LINE: contenders.with_gradient(library, loss, spikes, label % 5),
    }


def penalties(library: str, name: str, size: tuple[int, int, int]) -> dict[str, Run]:
    """Return the runs of our penalty on hidden spikes and of the plain line."""
    spikes, (ours, line) = contenders.random_spikes(size), plain.PENALTIES[name]
    runs = {"ours": ours, LINE: line}
    return {key: contenders.with_gradient(library, run, spikes) for key, run in runs.items()}


def pixels(library: str) -> dict[str, Run]:
    """Return the runs of our loss and of the plain line on counts, with a label for each pixel."""
    spikes = contenders.random_spikes(IMAGES)
    label = np.random.default_rng(1).integers(IMAGES[2], size=(IMAGES[1], *IMAGES[3:]))

    def line(x: Any, y: Any) -> Any:
        if library == "PyTorch":
            import torch

            return torch.nn.functional.cross_entropy(x.sum(0), y)
        import optax

        counts = x.sum(0).transpose(0, 2, 3, 1)
        return optax.softmax_cross_entropy_with_integer_labels(counts, y).mean()

    runs = {"ours": LOSSES["counts"], LINE: line}
    return {key: contenders.with_gradient(library, run, spikes, label) for key, run in runs.items()}


def training_step(name: str, size: tuple[int, int, int]) -> dict[str, Run]:
    """Return the runs of a training step with two layers, and of the loss alone on its output."""
    import torch

    steps, batch, classes = size
    loss = LOSSES[name]
    spikes, target = contenders.arrays(loss, size)
    layers = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.Linear(128, classes))
    optimiser, x = torch.optim.Adam(layers.parameters()), torch.rand(steps, batch, 64)

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
        loss(neurons(layers[1](neurons(layers[0](x)))), torch.asarray(target)).backward()
        optimiser.step()

    return {"ours": contenders.with_gradient("PyTorch", loss, spikes, target), LINE: whole}


def rows() -> Iterator[tuple[str, Callable[[], dict[str, Run]]]]:
    """Yield the name of each row, and a function that prepares its runs."""
    for library, loss, size, layout in itertools.product(LIBRARIES, LOSSES, SIZES, LAYOUTS):
        setup = functools.partial(checked, library, loss, size, layout)
        yield f"{library}: {loss}: {list(size)} {layout}", setup
    for names in itertools.product(PRICED, PRICES, OPTIONS):
        yield f"price: {': '.join(names)}", functools.partial(prices, *names)
    for library, name, size in itertools.product(PRICED[:2], plain.PENALTIES, BESIDE):
        setup = functools.partial(penalties, library, name, size)
        yield f"penalty: {library}: {name}: {list(size)}", setup
    for library in PRICED[:2]:
        yield f"pixels: {library}", functools.partial(pixels, library)
    for loss, size in itertools.product(SHARES, SIZES[:2]):
        yield f"share: {loss}: {list(size)}", functools.partial(training_step, loss, size)


def measure(patterns: list[str]) -> None:
    """Print a line of JSON for each row: its name, our time in milliseconds, and the ratio."""
    for name, setup in rows():
        if all(part in name for part in patterns):
            found = times(setup(), min_seconds=SECONDS)
            print(json.dumps([name, found["milliseconds"], 1 / found["ratios"][LINE]]))
            if "compiled" in name:
                import torch

                torch.compiler.reset()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("patterns", nargs="*")
    parser.add_argument("--write", action="store_true", help="also write the record and the page")
    options = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(PROCESSES):
        for name, *numbers in in_new_process("-c", MEASURE, *options.patterns):
            found.setdefault(name, []).append(numbers)
    ratios = {}
    for name, numbers in found.items():
        milliseconds, ratios[name] = map(statistics.median, zip(*numbers, strict=True))
        print(f"{name:60} {milliseconds:9.3f} ms  ratio {ratios[name]:.2f}", flush=True)
    if options.write:
        page.DAILY.write_text(json.dumps(page.records()[1] | ratios) + "\n", encoding="utf-8")
        page.write()


if __name__ == "__main__":
    main()
