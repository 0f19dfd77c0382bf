"""The command ``evaluate``: write the loss of each sample of a file."""

import argparse
import contextlib
import json
import math
import os
import secrets
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import IO, Any

import numpy as np

from spikeloss_xp import losses
from spikeloss_xp.backends._available import adapter
from spikeloss_xp.cli import _files, _terminal
from spikeloss_xp.cli._files import Rows, one_line
from spikeloss_xp.cli._spike_times import COLUMNS, NUMBERS, BinnedRows, binned
from spikeloss_xp.cli._terminal import UsageError, printable, usage_errors
from spikeloss_xp.cli._zarr import is_zarr, open_zarr
from spikeloss_xp.testing import Place, select_places

HELP = "evaluate a loss of each sample of a file"
DESCRIPTION = """\
Evaluate a loss of each sample of a file, which may be larger than memory,
and write the losses beside the file once all of them are done. The exit status
is 0 if they are written, 2 after an error, 130 or 143 after an interruption."""
EXAMPLES = """\
  # write the loss of each sample to test.SpikeMax.npy
  spikeloss-xp evaluate test.npz --loss SpikeMax
  # one loss a step, from the rates in a window of 20 steps
  spikeloss-xp evaluate test.npz --loss SpikeMax --option moving_window=20"""
SPIKE_TIMES = """\
In place of `input`, a file may hold `times`, `neuron` and, for several
samples, `sample`, with one entry for each spike, sorted by sample. They are
binned to [sample, neuron, step]. These numbers come before those of the file:"""
NO_TARGET, FLOATS = (losses.SparsityEnforcer,), (losses.SpikeTime, losses.SquaredError)
INDICES = (losses.CrossEntropy, losses.SpikeRate, losses.SpikeMax, losses.SpikeLatency)
LABELS = (*INDICES, losses.SpikeMoid)
LOSSES: dict[str, Any] = {loss.__name__: loss for loss in (*FLOATS, *LABELS, *NO_TARGET)}
NAMES = ("input", "target", "label", "lengths")
ALL_NAMES = (*NAMES, *COLUMNS, *NUMBERS)  # those of spike times too, in place of `input`
SHORTER = "cut the recording into shorter ones, or evaluate it in Python as an array in chunks"
ENTRIES = 1 << 22  # the entries of `input` in a batch, unless a batch size is given
BAR = 24  # the length of the progress bar in characters


def add_options(parser: _terminal.Parser) -> None:
    """Add the options of the command."""
    add = parser.add_argument
    file_help = (
        "an .npz file, a folder of .npy files, or a folder of Zarr arrays (which needs zarr). It "
        "holds spikes `input` [batch, *space, time], or spike times as described below; with them "
        "`target` (spike trains of that shape, or numbers for each class) or `label` (class "
        "indices or multi-hot labels), or both; and optionally `lengths` [batch]"
    )
    add("file", metavar="FILE", help=file_help)
    loss_help = f"the loss to evaluate: {', '.join(LOSSES)}"
    add("--loss", required=True, choices=LOSSES, metavar="LOSS", help=loss_help)
    option_help = "an option of the loss, such as moving_window=50; may be repeated"
    add("--option", action="append", default=[], metavar="KEY=VALUE", help=option_help)
    library_help = "the array library, by its import name (default: %(default)s)"
    add("--backend", default="numpy", metavar="NAME", help=library_help)
    parser.add_shared_options(("float32", "float64"))
    batch_help = "number of samples to evaluate at a time (default: about 4 million entries)"
    add("--batch", type=_positive_integer, metavar="N", help=batch_help)
    output_help = "where to write the losses (default: beside FILE, named after FILE and the loss)"
    add("--output", metavar="FILE.npy", help=output_help)
    add("--overwrite", action="store_true", help="replace the output if it exists")
    times = parser.add_argument_group("spike times", SPIKE_TIMES).add_argument
    times("--neurons", type=_positive_integer, metavar="N", help="number of neurons")
    times("--steps", type=_positive_integer, metavar="N", help="number of time steps")
    samples_help = "number of samples (default: one for each label, or 1 without `sample`)"
    times("--samples", type=_positive_integer, metavar="N", help=samples_help)
    times("--time-step", type=float, metavar="X", help="length of a step (default: 1)")
    times("--start", type=float, metavar="X", help="where the first step begins (default: 0)")


def _positive_integer(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1; got {text!r}")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Evaluate all samples, write the losses, print a summary, and return the exit status."""
    loss = _build_loss(options.loss, options.option)
    with usage_errors():
        (place, *_), _ = select_places([options.backend], options.dtype, options.device)
    path = Path(options.file)
    with contextlib.ExitStack() as stack:
        with _files.file_errors(path):
            arrays = _open(path, options, stack)
            task = Task(path, arrays, loss, place, options.dtype)
            batch = task.batch_size(options.batch)
        output = _output_path(path, options.loss, options.output)
        _check_output(output, path, task.shape[0], overwrite=options.overwrite)
        started = time.monotonic()
        values, right, labels = _evaluate(task, batch, stack)
    _write(output, values, overwrite=options.overwrite)
    seconds = time.monotonic() - started
    finite, nan = values[np.isfinite(values)], int(np.isnan(values).sum())
    report = {
        "file": str(path),
        "loss": repr(loss),
        "backend": place.library,
        "version": place.version,
        "device": place.device,
        "dtype": options.dtype,
        "samples": values.size,
        "mean": float((finite / finite.size).sum()) if finite.size else None,
        "accuracy": right / labels if labels else None,
        "labels": labels,
        "nan": nan,
        "infinite": values.size - finite.size - nan,
        "output": str(output),
        "seconds": seconds,
        "samples_per_second": values.size / seconds,
    }
    heading = f"{printable(str(path))}: {_short_repr(loss)} by {place}, {options.dtype}\n\n"
    text = json.dumps(report, indent=2) + "\n" if options.json else heading + _text(report)
    _terminal.write(text)
    return 0


def _text(report: Mapping[str, Any]) -> str:
    """Return the rows of a summary as text."""
    suffix = " of the others" if report["nan"] or report["infinite"] else ""
    finite = report["mean"] is not None
    rows = {
        "samples": report["samples"],
        "mean loss": f"{report['mean']:.8g}{suffix}" if finite else "none is finite",
        "not finite": f"{report['nan']} NaN, {report['infinite']} infinite",
    }
    if report["accuracy"] is not None:
        rows["accuracy"] = f"{report['accuracy']:.4f} of {report['labels']} labels"
    rows["written to"] = printable(report["output"])
    rows["speed"] = f"{_speed(report['samples_per_second'])} samples/s"
    return "".join(f"{name:<12}{value}\n" for name, value in rows.items())


def _build_loss(name: str, options: Sequence[str]) -> Any:
    """Return the loss called `name`, built with options of the form ``key=value``."""
    accepted = {field.name: field for field in fields(LOSSES[name]) if field.init}
    given: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or key not in accepted:
            form = f"a key=value of {name}. Its options: {', '.join(accepted)}"
            raise UsageError(f"--option {option!r} is not {form}")
        if key in given:
            raise UsageError(f"--option {key} is given twice")
        given[key] = _parse_value(value)
    given = {"time_axis": -1, **({"theta": 0} if "theta" in accepted else {}), **given}
    needed = [key for key, field in accepted.items() if field.default is MISSING]
    missing = [f"--option {key}=..." for key in needed if key not in given]
    if missing:
        raise UsageError(f"{name} needs {' and '.join(missing)}")
    if given.get("reduction") == "none":
        remedy = "choose 'sum' or 'mean' of its terms"
        raise UsageError(f"reduction='none' gives no loss of a sample: {remedy}")
    with usage_errors(f"{name}: "):
        return LOSSES[name](**given)


def _parse_value(text: str) -> int | float | str | tuple[float, ...]:
    """Return text as an int, a float or a tuple of floats if it parses as one, else as it is."""
    for parse in (int, float, lambda text: tuple(float(part) for part in text.split(","))):
        with contextlib.suppress(ValueError):
            return parse(text)
    return text


def _short_repr(loss: Any) -> str:
    """Return the repr of a loss without the options that have their default value."""
    values = ((field, getattr(loss, field.name)) for field in fields(loss) if field.repr)
    shown = (f"{field.name}={value!r}" for field, value in values if value != field.default)
    return f"{type(loss).__name__}({', '.join(shown)})"


def _open(
    path: Path, options: argparse.Namespace, stack: contextlib.ExitStack
) -> Mapping[str, Rows]:
    """Return the arrays of an .npz file, of a folder of .npy files, or of a Zarr group.

    Spike times become an array `input`.
    """
    if not path.is_dir():
        arrays = _files.open_npz(path, _select, stack)
    elif is_zarr(path):
        arrays = open_zarr(path, _select, stack)
    else:
        arrays = _files.open_folder(path, _select, stack)
    given = {name: value for name in NUMBERS if (value := getattr(options, name)) is not None}
    if "input" not in arrays:
        return binned(arrays, given)
    if given:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(f"{named}: for spike times only, but the file holds `input`")
    return arrays


def _select(present: Collection[str]) -> list[str]:
    if "input" not in present and "times" not in present:
        held = ", ".join(map(repr, present)) or "nothing"
        raise UsageError(f"it must hold an array `input` or `times`; it holds {held}")
    return [name for name in (NAMES if "input" in present else ALL_NAMES) if name in present]


def _output_path(path: Path, loss: str, requested: str | None) -> Path:
    """Return where to write the losses. The default is beside the input, named after both."""
    if requested is None:
        path = path if path.name not in ("", "..") else Path(os.path.realpath(path))
        stem = path.stem if path.suffix in (".npz", ".zarr") else path.name
        return path.parent / f"{stem}.{loss}.npy"
    if not requested.endswith(".npy"):
        rule = "the name must end in .npy, which is the format written"
        raise UsageError(f"--output {requested}: {rule}")
    return Path(requested)


def _check_output(output: Path, path: Path, samples: int, *, overwrite: bool) -> None:
    """Raise a `UsageError` unless the losses can be written at the end, and harm no input."""
    problem, folder = None, output.parent
    with usage_errors(f"{output}: cannot be written: ", OSError):
        inputs = path.rglob("*") if path.is_dir() else [path]
        if not folder.is_dir():
            problem = f"there is no folder {folder}"
        elif _exists(output) and not output.is_file():
            problem = "it is not a file: name another --output"
        elif output.is_file() and any(x.is_file() and x.samefile(output) for x in inputs):
            problem = f"it is a file of the input {path}: name another --output"
        elif output.stem in ALL_NAMES and path.is_dir() and folder.samefile(path):
            problem = f"it would be the input `{output.stem}` of {path}: name another --output"
        elif _exists(output) and not overwrite:
            problem = "it exists: pass --overwrite to replace it, or name another --output"
        else:
            with _temporary_file(output):
                needed, free = 8 * samples, shutil.disk_usage(folder).free
            _files.check_bytes(f"{path}: to hold the losses of {samples} samples", needed)
            if needed > free:
                problem = f"{samples} losses take {needed} bytes, and the disk has {free} free"
    if problem is not None:
        raise UsageError(f"{output}: {problem}")


def _exists(output: Path) -> bool:
    """Return whether a file or link has this name. Raise an `OSError` if the name is impossible."""
    with contextlib.suppress(FileNotFoundError):
        return bool(output.lstat())
    return False


def _write(output: Path, values: np.ndarray, *, overwrite: bool) -> None:
    """Write the losses in one step: readers find the old file or the complete new one."""
    cannot = usage_errors(f"{output}: cannot be written: ", OSError)
    with cannot, _temporary_file(output) as (file, partial):
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(values))
        file.write(values.tobytes())
        file.flush()
        os.fsync(file.fileno())
        file.close()  # Windows renames no file that is open
        if _exists(output) and not overwrite:
            raise UsageError(f"{output}: another program has written it in the meantime")
        partial.replace(output)


@contextlib.contextmanager
def _temporary_file(output: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """Create a file beside the output, and remove it unless it gets another name.

    It has a random name and is created exclusively, so no other file is overwritten and no link is
    followed.
    """
    partial = output.with_name(f".spikeloss-xp.{secrets.token_hex(8)}.part")
    try:
        with partial.open("xb") as file:
            yield file, partial
    finally:
        partial.unlink(missing_ok=True)


class Task:
    """A loss and the arrays it reads: `input`, and if there are any, `target` and `lengths`.

    Creating it chooses the target, and checks options and shapes.
    """

    def __init__(
        self, path: Path, arrays: Mapping[str, Rows], loss: Any, place: Place, dtype: str
    ) -> None:
        self.path, self.loss, self.place, self.dtype = path, loss, place, dtype
        self.shape = shape = arrays["input"].shape
        _files.check_input(shape, 2)
        if loss.time_axis in (0, -len(shape)):
            raise UsageError(
                f"time_axis={loss.time_axis} is the first axis of `input`, but the command needs "
                "the batch there, because it reads sample after sample: choose another axis"
            )
        if isinstance(arrays["input"], BinnedRows) and loss.time_axis not in (-1, 2):
            layout = "spike times are binned to [batch, neuron, time]"
            raise UsageError(f"{layout}, so time_axis must be -1 or 2; got {loss.time_axis}")
        names = ["label", "target"] if isinstance(loss, LABELS) else ["target"]
        names = [] if isinstance(loss, NO_TARGET) else names
        chosen = [name for name in names if name in arrays][:1]
        if names and not chosen:
            needed, held = " or ".join(names), ", ".join(arrays)
            raise UsageError(f"{type(loss).__name__} needs {needed}; the file holds {held}")
        self.arrays: dict[str, Rows] = {}
        for name in ("input", *chosen, *({"lengths"} & arrays.keys())):
            found = arrays[name].shape
            fits = found[:1] == shape[:1] and math.prod(found) <= math.prod(shape)
            if not fits or (name == "lengths" and len(found) > 1):
                subject = f"`{name}` of shape {found}"
                raise UsageError(f"{subject} does not fit an `input` of shape {shape}")
            self.arrays["target" if name in chosen else name] = arrays[name]

    def batch_size(self, requested: int | None) -> int:
        """Return the batch size. Raise a `UsageError` if such a batch exceeds the memory.

        By default, a batch has some `ENTRIES` entries and consists of complete chunks.
        """
        entries, chunk = math.prod(self.shape[1:]), self.arrays["input"].chunk[0]
        limit = ENTRIES // entries
        size = min(requested or max(limit - limit % chunk, chunk), self.shape[0])
        largest = max(size * entries, *(math.prod(rows.chunk) for rows in self.arrays.values()))
        remedy = SHORTER if size == 1 else "choose a smaller --batch"
        if largest > size * entries:
            remedy = "save it in smaller chunks"
        subject = f"`input` of shape {self.shape}, {size} samples at once"
        _files.check_memory(f"{subject}, is too large ({remedy})", largest)
        return size

    def evaluate(self, start: int, stop: int) -> tuple[np.ndarray, int, int]:
        """Return the losses of a range of samples, how many labels are predicted and how many are.

        Without class indices or multi-hot labels there are no labels.
        """
        with _files.file_errors(self.path):
            read: dict[str, Any] = {n: rows.read(start, stop) for n, rows in self.arrays.items()}
        batch = f"samples {start} to {stop - 1}"
        try:
            return self._of_batch(**read)
        except (TypeError, ValueError) as error:
            problem = f"refuses {batch}: {one_line(error)}"
        except MemoryError:
            remedy = "choose a smaller --batch" if stop - start > 1 else SHORTER
            problem = f"finds not enough memory for {batch} at once: {remedy}"
        except Exception as error:  # a library may raise exceptions of any type
            reason = f"{type(error).__name__}: {one_line(error)}"
            problem = f"failed for {batch} on {self.place}: {reason}"
        raise UsageError(f"{self.path}: {type(self.loss).__name__} {problem}")

    def _of_batch(self, input: Any, target: Any = None, **masks: Any) -> tuple[Any, int, int]:
        """Return what `evaluate` does, for the arrays of a batch.

        `SparsityEnforcer` has no terms of samples, and takes one call for each. Labels that are
        ignored or masked do not count, and probabilities are no labels.
        """
        loss, library = self.loss, adapter(self.place.library)
        multi_hot = isinstance(loss, losses.SpikeMoid)
        if multi_hot and target.dtype.kind in "iu" and target.ndim <= 2:
            target = _to_multi_hot(loss, input.shape, target, **masks)
        with library.scope(self.dtype), np.errstate(all="ignore"):  # the summary counts overflows
            spikes = self.place.put(_narrow(input, self.dtype), self.dtype)
            if isinstance(loss, NO_TARGET):
                parts = [slice(i, i + 1) for i in range(len(input))]
                each = (loss(spikes[i, ...], **{k: x[i] for k, x in masks.items()}) for i in parts)
                return np.asarray([library.to_host(x) for x in each], np.float64), 0, 0
            if isinstance(loss, FLOATS):
                target = _narrow(target, self.dtype)
            values = library.to_host(loss._of_samples(spikes, target, **masks)).astype(np.float64)
            known = np.isin(target, (0, 1)).all() if multi_hot else target.dtype.kind in "iu"
            if not known or isinstance(loss, FLOATS):
                return values, 0, 0
            counts = library.to_host(loss.confusion(spikes, target, **masks))
        return values, int(np.trace(counts, axis1=-2, axis2=-1).sum()), int(counts.sum())


def _narrow(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return values, cast to a dtype if theirs is wider: JAX would truncate 64 bits to 32."""
    return values.astype(dtype) if values.itemsize > np.dtype(dtype).itemsize else values


def _to_multi_hot(
    loss: losses.SpikeMoid, shape: tuple[int, ...], labels: np.ndarray, lengths: Any = None
) -> np.ndarray:
    """Return class indices, one for each sample or time step, as multi-hot labels."""
    if lengths is not None:  # masked labels may have any value
        counted = np.arange(labels[0].size) < lengths[:, None]
        labels = np.where(counted.reshape(labels.shape), labels, 0)
    neurons = math.prod(shape) // (shape[0] * shape[loss.time_axis])
    hot = _files.one_hot(labels, loss.num_classes or neurons)
    time_first = len(shape) > 2 and loss.time_axis in (1, 1 - len(shape))
    return hot if time_first else np.moveaxis(hot, -1, 1)


def _evaluate(task: Task, batch: int, stack: contextlib.ExitStack) -> tuple[np.ndarray, int, int]:
    """Return the losses of all samples, how many labels are predicted, and how many there are.

    Closing the stack closes the files, and raises an error if they have changed.
    """
    samples, right, labels = task.shape[0], 0, 0
    values, started = np.empty(samples), time.monotonic()
    for start in range(0, samples, batch):
        _terminal.show_status(_progress(start, samples, time.monotonic() - started))
        stop = min(start + batch, samples)
        values[start:stop], *counts = task.evaluate(start, stop)
        right, labels = right + counts[0], labels + counts[1]
    with _files.file_errors(task.path):
        stack.close()
    return values, right, labels


def _progress(done: int, samples: int, seconds: float) -> str:
    line = f"[{'#' * (BAR * done // samples):-<{BAR}}] {done} of {samples} samples"
    if not done:
        return line
    left = (samples - done) * seconds / done
    return f"{line}, {_speed(done / seconds)} a second, {left:.0f} s left"


def _speed(speed: float) -> str:
    return f"{speed:.3g}" if speed < 1000 else f"{speed:.0f}"
