"""The command ``evaluate``: the loss of each sample of a file, some samples at a time."""

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import spikeloss_xp
from spikeloss_xp.cli._hyper import made, short
from spikeloss_xp.cli._places import chosen
from spikeloss_xp.cli._recording import UsageError
from spikeloss_xp.cli._results import Results
from spikeloss_xp.cli._source import opened
from spikeloss_xp.cli._task import Task, task
from spikeloss_xp.cli._terminal import printable, status_line

BAR = 24  # characters
INTERRUPTED = 130  # 128 and the number of the signal, as a shell says it


def run(options: argparse.Namespace) -> int:
    """Evaluate what is not done yet, print what came out, and return the exit status."""
    loss = made(options.loss, options.option)
    (place, *_), _ = chosen([options.backend], options.device, options.dtype)
    path = Path(options.file)
    output = _output(path, options.loss, options.output)
    with opened(path) as source:
        wanted = task(source, loss, place, options.dtype)
        batch = wanted.batch(options.batch)
        about = {
            "spikeloss_xp": spikeloss_xp.__version__,
            "loss": repr(loss),
            "backend": f"{place.library} {place.version}",
            "device": place.device,
            "dtype": options.dtype,
            "input": source.identity,
        }
        results = Results(output, wanted.samples, about, restart=options.restart)
        before, started = results.done, time.monotonic()
        try:
            _evaluate(wanted, batch, results)
        except KeyboardInterrupt:
            said = f"interrupted: {results.done} of {results.samples} samples are done"
            print(f"spikeloss-xp: {said}; the same command goes on from there", file=sys.stderr)
            return INTERRUPTED
        seconds = time.monotonic() - started
    _print(wanted, results, results.done - before, seconds, as_json=options.json)
    return 0


def _output(path: Path, loss: str, given: str | None) -> Path:
    """Return where the losses are to be written: beside the file, if nothing is said of it."""
    if given is None:
        path = path if path.name not in ("", "..") else path.resolve()
        stem = path.stem if path.suffix in (".npz", ".zarr") else path.name
        return path.with_name(f"{stem}.{loss}.npy")
    if not given.endswith(".npy"):
        raise UsageError(f"--output {given}: an .npy file is written, and its name must say so")
    return Path(given)


def _evaluate(wanted: Task, batch: int, results: Results) -> None:
    """Evaluate the samples that are left, telling a terminal how far it has got."""
    before, started = results.done, time.monotonic()
    with results, status_line() as show:
        while results.done < results.samples:
            show(_progress(results, before, time.monotonic() - started))
            stop = min(results.done + batch, results.samples)
            results.write(wanted.losses(results.done, stop))


def _progress(results: Results, before: int, seconds: float) -> str:
    done, samples = results.done, results.samples
    bar = "#" * (BAR * done // samples)
    line = f"[{bar:-<{BAR}}] {done} of {samples} samples"
    if done == before:
        return line
    each = seconds / (done - before)
    return f"{line}, {_number(1 / each)} a second, {(samples - done) * each:.0f} s left"


def _print(
    wanted: Task, results: Results, evaluated: int, seconds: float, *, as_json: bool
) -> None:
    summary, place = results.summary(), wanted.place
    speed = evaluated / seconds if evaluated else None
    if as_json:
        found: dict[str, Any] = {
            "file": str(wanted.source.path),
            "loss": repr(wanted.loss),
            "backend": place.library,
            "version": place.version,
            "device": place.device,
            "dtype": wanted.dtype,
            "samples": results.samples,
            "mean": summary.mean if math.isfinite(summary.mean) else None,
            "nan": summary.nan,
            "infinite": summary.infinite,
            "output": str(results.path),
            "evaluated": evaluated,
            "seconds": seconds,
            "samples_per_second": speed,
        }
        print(json.dumps(found, indent=2))
        return
    loss = short(wanted.loss)
    print(f"{printable(str(wanted.source.path))}: {loss} by {place}, {wanted.dtype}\n")
    print(f"samples     {results.samples}")
    left_out = " of the others" if summary.nan or summary.infinite else ""
    print(f"mean loss   {summary.mean:.8g}{left_out}")
    print(f"not finite  {summary.nan} NaN, {summary.infinite} infinite")
    print(f"written to  {printable(str(results.path))}")
    print(f"speed       {f'{_number(speed)} samples/s' if speed else 'all were done before'}")


def _number(speed: float) -> str:
    return f"{speed:.3g}" if speed < 1000 else f"{speed:.0f}"
