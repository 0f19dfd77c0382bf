"""The command ``evaluate``: compute the loss of each sample of a file in batches."""

import argparse
import contextlib
import json
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import spikeloss_xp
from spikeloss_xp.cli._files import held
from spikeloss_xp.cli._hyper import build_loss, short_repr
from spikeloss_xp.cli._places import select_places
from spikeloss_xp.cli._recording import UsageError
from spikeloss_xp.cli._results import Results
from spikeloss_xp.cli._source import ALL_NAMES, open_source
from spikeloss_xp.cli._spike_times import NUMBERS
from spikeloss_xp.cli._task import Task, make_task
from spikeloss_xp.cli._terminal import printable, status_line

BAR = 24  # the length of the progress bar in characters
INTERRUPTED, TERMINATED = 130, 143  # 128 plus SIGINT and SIGTERM, as shells report them


def run(options: argparse.Namespace) -> int:
    """Evaluate the remaining samples, print a summary, and return the exit status."""
    loss = build_loss(options.loss, options.option)
    (place, *_), _ = select_places([options.backend], options.device, options.dtype)
    path = Path(options.file)
    output = _output_path(path, options.loss, options.output)
    numbers = {name: value for name in NUMBERS if (value := getattr(options, name)) is not None}
    with open_source(path, numbers) as source:
        task = make_task(source, loss, place, options.dtype)
        batch = task.batch_size(options.batch)
        settings = {
            "spikeloss_xp": spikeloss_xp.__version__,
            "loss": repr(loss),
            "backend": f"{place.library} {place.version}",
            "device": place.device,
            "dtype": options.dtype,
            "input": source.identity,
            **({"bins": source.bins} if source.bins else {}),
        }
        with held(output):
            results = Results(output, task.samples, settings, restart=options.restart)
            done_before, started = results.done, time.monotonic()
            try:
                with _termination_interrupts():
                    _evaluate(task, batch, results)
            except KeyboardInterrupt as interruption:
                done = f"{results.done} of {results.samples} samples are done"
                message = f"interrupted: {done}; run the same command again to go on"
                print(f"spikeloss-xp: {message}", file=sys.stderr)
                return TERMINATED if isinstance(interruption, _Terminated) else INTERRUPTED
            seconds = time.monotonic() - started
            evaluated = results.done - done_before
            _print_summary(task, results, evaluated, seconds, as_json=options.json)
    return 0


class _Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM."""


@contextlib.contextmanager
def _termination_interrupts() -> Iterator[None]:
    """Make SIGTERM end the evaluation as an interruption from the keyboard does."""

    def terminate(number: int, frame: object) -> NoReturn:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _output_path(path: Path, loss: str, requested: str | None) -> Path:
    """Return where to write the losses. The default is beside the input, named after both."""
    if requested is None:
        path = path if path.name not in ("", "..") else path.resolve()
        stem = path.stem if path.suffix in (".npz", ".zarr") else path.name
        return path.with_name(f"{stem}.{loss}.npy")
    if not requested.endswith(".npy"):
        raise UsageError(
            f"--output {requested}: the name must end in .npy, which is the format written"
        )
    output = Path(requested)
    if output.stem in ALL_NAMES and output.parent.resolve() == path.resolve():
        raise UsageError(
            f"--output {requested} is the input `{output.stem}` of {path}: choose another name"
        )
    return output


def _evaluate(task: Task, batch: int, results: Results) -> None:
    """Evaluate the remaining samples in batches, and show the progress on a terminal."""
    done_before, started = results.done, time.monotonic()
    with results, status_line() as show:
        while results.done < results.samples:
            show(_progress(results, done_before, time.monotonic() - started))
            stop = min(results.done + batch, results.samples)
            batch_result = task.evaluate(results.done, stop)
            results.write(batch_result.losses, batch_result.right, batch_result.labels)


def _progress(results: Results, done_before: int, seconds: float) -> str:
    done, samples = results.done, results.samples
    bar = "#" * (BAR * done // samples)
    line = f"[{bar:-<{BAR}}] {done} of {samples} samples"
    if done == done_before:
        return line
    seconds_per_sample = seconds / (done - done_before)
    seconds_left = (samples - done) * seconds_per_sample
    return f"{line}, {_format_speed(1 / seconds_per_sample)} a second, {seconds_left:.0f} s left"


def _print_summary(
    task: Task, results: Results, evaluated: int, seconds: float, *, as_json: bool
) -> None:
    summary, place = results.summary(), task.place
    speed = evaluated / seconds if evaluated else None
    if as_json:
        report: dict[str, Any] = {
            "file": str(task.source.path),
            "loss": repr(task.loss),
            "backend": place.library,
            "version": place.version,
            "device": place.device,
            "dtype": task.dtype,
            "samples": results.samples,
            "mean": summary.mean if math.isfinite(summary.mean) else None,
            "accuracy": summary.accuracy,
            "labels": results.labels,
            "nan": summary.nan,
            "infinite": summary.infinite,
            "output": str(results.path),
            "evaluated": evaluated,
            "seconds": seconds,
            "samples_per_second": speed,
        }
        print(json.dumps(report, indent=2))
        return
    loss = short_repr(task.loss)
    print(f"{printable(str(task.source.path))}: {loss} by {place}, {task.dtype}\n")
    print(f"samples     {results.samples}")
    suffix = " of the others" if summary.nan or summary.infinite else ""
    mean = "none is finite" if math.isnan(summary.mean) else f"{summary.mean:.8g}{suffix}"
    print(f"mean loss   {mean}")
    print(f"not finite  {summary.nan} NaN, {summary.infinite} infinite")
    if summary.accuracy is not None:
        print(f"accuracy    {summary.accuracy:.4f} of {results.labels} labels")
    print(f"written to  {printable(str(results.path))}")
    print(f"speed       {f'{_format_speed(speed)} samples/s' if speed else 'all were done before'}")


def _format_speed(speed: float) -> str:
    return f"{speed:.3g}" if speed < 1000 else f"{speed:.0f}"
