"""Compare the losses with the line that a user would write by hand, at typical training sizes.

``python tools/benchmarks/daily.py [PATTERN ...]`` prints the run time of each loss in milliseconds
and relative to the plain line, for value and gradient in float32. Each number is a median over
several processes. There are also rows for options, penalties, likelihoods, `diagnose` and the share
of a training step. The rows have names such as ``JAX: counts: [20, 100, 10] first``; only rows
whose names contain every PATTERN are measured.

With ``--write``, the program also writes tests/data/daily.json, and docs/benchmarks.md with its
picture. With ``--quick``, it measures each row only once, which shows that all rows run. It
requires optax.

``python tools/benchmarks/daily.py PATTERN --tune NAME VALUE [VALUE ...]`` prints the run time of
each row with other values of a number in `spikeloss_xp/_tuning.py`, relative to its present value.
The values take turns.
"""

import argparse
import dataclasses
import functools
import importlib
import itertools
import json
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import contenders
import masked
import numpy as np
import page
import plain
from contenders import Run
from plain import LAYOUTS, LINE, LOSSES
from timing import in_new_process, machine, times

import spikeloss_xp as sx
from spikeloss_xp import _tuning
from spikeloss_xp.primitives import kernels

Size = tuple[int, int, int]  # [time, batch, class]
SMALL, MEDIUM, LARGE = SIZES = (20, 100, 10), (100, 256, 20), (100, 256, 200)
WIDE = (20, 100, 100)  # a hidden layer or a recording, for penalties and likelihoods
WITH_SPEECH = SMALL, MEDIUM, (250, 64, 35), LARGE
MASKED = (("lengths", "counts"), ("where", "counts"), ("lengths", "each step"))
MASKED += (("lengths", "SpikeRate"),)  # each mask with a loss
RECORDINGS = SMALL, WIDE, (100, 64, 100), (64, 200, 100)
LIBRARIES = ("PyTorch", "PyTorch, compiled", "JAX", "NumPy")
PRICED = ("PyTorch", "JAX", "NumPy")
PRICES = ("counts", "each step")  # measured with and without each option
OPTIONS = ("lengths", "where", "weight", "num_classes", "rates")
WITH_LENGTHS = {  # measured with and without lengths, for each size
    "window 20": LOSSES["window 20"],
    "SpikeTime": LOSSES["SpikeTime"],
    "SpikeMax": sx.SpikeMax(time_axis=0, reduction="sum"),
    "rates": sx.CrossEntropy(time_axis=0, rates=plain.RATES),
}
CHANGED = {"num_classes": {"num_classes": 5}, "rates": {"rates": plain.RATES}}  # in the loss
SHARES = ("counts", "window 20")
HIDDEN = (64, 100, 100, 100)  # the neurons of the layers before the output, for `diagnose`
PROCESSES, SECONDS = 3, 0.3  # the seconds are for each row in each process
# The GNU C library itself chooses these thresholds in a process that has freed a large array. With
# its smaller thresholds, a new process returns memory after each call, and the result depends on
# which rows were measured before.
ALLOCATION = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}
MEASURE = "import sys, daily; daily.measure(*sys.argv[1:])"


def checked(setup: Callable[..., dict[str, Run]], *work: Any) -> dict[str, Run]:
    """Return the runs of our loss and of the plain line, and raise if their results differ."""
    runs = setup(*work)
    errors = plain.errors(*(run() for run in runs.values()))
    if not all(errors <= (1e-4, 1e-3)) and "sqrt_count" not in work:  # the line takes no root
        raise ValueError(f"{work}: value and gradient differ by {errors} from the plain line")
    return runs


def losses(library: str, name: str, size: Size, layout: str) -> dict[str, Run]:
    """Return the runs of our loss for classification and of the plain line."""
    setups = plain.setups(library, name, size, layout)
    return {key: setup() for key, setup in setups.items()}


def prices(library: str, name: str, option: str, size: Size = MEDIUM) -> dict[str, Run]:
    """Return runs of our loss with and without an option."""
    loss, (steps, batch, classes) = (LOSSES | WITH_LENGTHS)[name], size
    spikes, label = contenders.arrays(loss, size)
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


def likelihoods(library: str, name: str, size: Size) -> dict[str, Run]:
    """Return the runs of our likelihood and of the plain line."""
    runs = {"ours": plain.LIKELIHOODS[name], LINE: plain.likelihood_line(library, name)}
    given = plain.likelihood_arrays(name, size)
    return {key: contenders.with_gradient(library, run, *given) for key, run in runs.items()}


def penalties(library: str, name: str, size: Size) -> dict[str, Run]:
    """Return the runs of our penalty on hidden spikes and of the plain line."""
    spikes, (ours, line) = contenders.random_spikes(size), plain.PENALTIES[name]
    runs = {"ours": ours, LINE: line}
    return {key: contenders.with_gradient(library, run, spikes) for key, run in runs.items()}


def diagnosis(library: str, size: Size) -> dict[str, Run]:
    """Return the runs of `diagnose` with hidden layers, and of the loss alone with its gradient."""
    xp = importlib.import_module({"PyTorch": "torch"}.get(library, library.lower()))
    loss, (steps, batch, classes) = LOSSES["counts"], size
    spikes, label = contenders.arrays(loss, size)
    random, layers = np.random.default_rng(0), itertools.pairwise((*HIDDEN, classes))
    shapes = [shape for fan_in, fan_out in layers for shape in ((fan_out, fan_in), (fan_out,))]
    given = {
        "hidden": [random.random((steps, batch, neurons)) < 0.05 for neurons in HIDDEN[1:]],
        "gradients": [random.normal(0, 1e-3, shape) for shape in shapes],
    }
    given = {name: [xp.asarray(x.astype("f")) for x in values] for name, values in given.items()}
    x, y = xp.asarray(spikes), xp.asarray(label)
    value_and_grad = sx.value_and_grad(loss)
    return {"ours": lambda: sx.diagnose(loss, x, y, **given), LINE: lambda: value_and_grad(x, y)}


def training_step(name: str, size: Size) -> dict[str, Run]:
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
        setup = functools.partial(checked, losses, library, loss, size, layout)
        yield f"{library}: {loss}: {list(size)} {layout}", setup
    for names in itertools.product(PRICED, PRICES, OPTIONS):
        yield f"price: {': '.join(names)}", functools.partial(prices, *names)
    for library, loss, size in itertools.product(PRICED, WITH_LENGTHS, WITH_SPEECH):
        setup = functools.partial(prices, library, loss, "lengths", size)
        yield f"lengths: {library}: {loss}: {list(size)}", setup
    for kind, prepare, named in (
        ("likelihood", likelihoods, plain.LIKELIHOODS),
        ("penalty", penalties, plain.PENALTIES),
    ):
        for library, name, size in itertools.product(PRICED[:2], named, (SMALL, WIDE, LARGE)):
            setup = functools.partial(checked, prepare, library, name, size)
            yield f"{kind}: {library}: {name}: {list(size)}", setup
    for library, named, size in itertools.product(PRICED, MASKED, WITH_SPEECH):
        setup = functools.partial(checked, masked.runs, library, named[1], named[0], size)
        yield f"masked: {library}: {named[1]}: {named[0]}: {list(size)}", setup
    for library, name, size in itertools.product(PRICED[:2], ("log rates", "logits"), RECORDINGS):
        setup = functools.partial(checked, masked.runs, library, name, "where", size)
        yield f"masked: {library}: {name}: where: {list(size)}", setup
    for loss, size in itertools.product(SHARES, SIZES[:2]):
        yield f"share: {loss}: {list(size)}", functools.partial(training_step, loss, size)
    for library, size in itertools.product(("NumPy", "PyTorch"), (SMALL, LARGE)):
        yield f"diagnose: {library}: {list(size)}", functools.partial(diagnosis, library, size)


def measure(seconds: str, *patterns: str) -> None:
    """Print a line of JSON for each row: its name, our time in milliseconds, and the ratio.

    Each row is measured for at least this many seconds, or only once if the number is 0.
    """
    options = {"min_seconds": float(seconds)} | ({} if float(seconds) else {"min_rounds": 1})
    for name, setup in rows():
        if all(part in name for part in patterns):
            found = times(setup(), **options)
            print(json.dumps([name, found["milliseconds"], 1 / found["ratios"][LINE]]))
            if "compiled" in name:
                import torch

                torch.compiler.reset()


def tuned(setup: Callable[[], dict[str, Run]], name: str, value: Any) -> Run:
    """Return the run of our loss that sets a tuned number to this value."""

    def run_with_value() -> Any:
        if getattr(_tuning, name) != value:
            setattr(_tuning, name, value)
            kernels.block_matrices.cache_clear()  # the matrices depend on the tuned numbers
        return run()

    setattr(_tuning, name, value)
    run = setup()["ours"]
    run_with_value()  # compiles, with this value
    return run_with_value


def tune(patterns: list[str], name: str, *values: str) -> None:
    present = getattr(_tuning, name)
    print(f"{name} = {present}: run time relative to this value")
    for row, setup in rows():
        if all(part in row for part in patterns):
            runs = {value: tuned(setup, name, int(value)) for value in values}
            ratios = times({"ours": tuned(setup, name, present), **runs})["ratios"]
            print(f"{row:60}", *(f"{value}: {x:.2f}" for value, x in ratios.items()), flush=True)


def write(found: dict[str, dict[str, float]], conditions: str) -> None:
    """Write the record and the pages. Rows that were not measured keep their earlier numbers."""
    before = page.read(page.DAILY)["rows"]
    merged = {name: found.get(name, before.get(name)) for name, _ in rows()}
    record = {"machine": conditions, "rows": {name: x for name, x in merged.items() if x}}
    page.DAILY.write_text(json.dumps(record) + "\n", encoding="utf-8")
    page.write()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("patterns", nargs="*")
    parser.add_argument("--write", action="store_true", help="also write the record and the pages")
    parser.add_argument("--quick", action="store_true", help="measure each row only once")
    parser.add_argument("--tune", nargs="+", metavar=("NAME", "VALUE"), help="try other values")
    options = parser.parse_args()
    if options.tune:
        return tune(options.patterns, *options.tune)
    processes, seconds = (1, 0) if options.quick else (PROCESSES, SECONDS)
    measured: dict[str, list[tuple[float, float]]] = {}
    for _ in range(processes):
        work = "-c", MEASURE, str(seconds), *options.patterns
        for name, *numbers in in_new_process(*work, **ALLOCATION):
            measured.setdefault(name, []).append(numbers)
    found = {}
    for name, numbers in measured.items():
        medians = (statistics.median(each) for each in zip(*numbers, strict=True))
        milliseconds, ratio = (float(f"{number:.4g}") for number in medians)
        found[name] = {"milliseconds": milliseconds, "ratio": ratio}
        print(f"{name:60} {milliseconds:9.3f} ms  ratio {ratio:.2f}")
    if options.write:
        write(found, machine() + ", where each row ran only once" * options.quick)


if __name__ == "__main__":
    main()
