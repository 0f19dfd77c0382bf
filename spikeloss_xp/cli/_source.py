"""Input files of ``evaluate``: their arrays, and an identity to recognize them by later."""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikeloss_xp.cli._recording import UsageError, file_errors, open_archive, open_member
from spikeloss_xp.cli._rows import NpyRows, Rows
from spikeloss_xp.cli._spike_times import COLUMNS, NUMBERS, binned
from spikeloss_xp.cli._zarr import is_zarr, zarr_names, zarr_rows

NAMES = ("input", "target", "label", "lengths")
ALL_NAMES = (*NAMES, *COLUMNS, *NUMBERS)  # those of spike times too, in place of `input`


@dataclass(frozen=True)
class Source:
    """The arrays of a file or folder by name, and the identity of that file or folder.

    `bins` holds the numbers by which spike times are binned; it is empty without spike times.
    """

    path: Path
    arrays: Mapping[str, Rows]
    identity: dict[str, Any]
    bins: dict[str, Any]


@contextlib.contextmanager
def open_source(path: Path, numbers: Mapping[str, Any]) -> Iterator[Source]:
    """Open the arrays of an .npz file, of a folder of .npy files, or of a Zarr group.

    Spike times become an array `input`. `numbers` holds what the command line says of their bins.
    """
    with contextlib.ExitStack() as stack:
        with file_errors(path):
            arrays, files = _open_arrays(path, stack)
            shapes = {n: f"{rows.dtype} {list(rows.shape)}" for n, rows in arrays.items()}
            bins: dict[str, Any] = {}
            if "input" not in arrays:
                arrays, bins = binned(arrays, numbers)
            elif numbers:
                options = ", ".join(f"--{name.replace('_', '-')}" for name in numbers)
                raise UsageError(f"{options}: for spike times only, but the file holds `input`")
            source = Source(path, arrays, {**_identity(path, files), "arrays": shapes}, bins)
        yield source


def _open_arrays(path: Path, stack: contextlib.ExitStack) -> tuple[Mapping[str, Rows], list[Path]]:
    """Return the arrays of a file or folder, and the files that contain them."""
    if not path.is_dir():
        archive, contents = stack.enter_context(open_archive(path))
        members = {name: contents[name] for name in _names(contents)}
        opened: dict[str, Rows] = {}
        for name, member in members.items():
            stream = stack.enter_context(open_member(archive, member, f"`{name}`"))
            opened[name] = NpyRows(stream, name, member.file_size)
        return opened, [path]
    if is_zarr(path):
        arrays = zarr_rows(path, _names(zarr_names(path, ALL_NAMES)))
        candidates = (file for name in arrays for file in (path / name).rglob("*"))
        return arrays, [file for file in candidates if file.is_file()]
    files = {file.stem: file for file in path.glob("*.npy") if file.is_file()}
    names = _names(files)
    opened = {}
    for name in names:
        file = stack.enter_context(files[name].open("rb"))
        opened[name] = NpyRows(file, name, files[name].stat().st_size)
    return opened, [files[name] for name in names]


def _names(present: Collection[str]) -> list[str]:
    """Return the names of the arrays to read, of those that are present."""
    if "input" not in present and "times" not in present:
        held = ", ".join(map(repr, present)) or "nothing"
        raise UsageError(f"it must hold an array `input` or `times`; it holds {held}")
    return [name for name in (NAMES if "input" in present else ALL_NAMES) if name in present]


def _identity(path: Path, files: list[Path]) -> dict[str, Any]:
    stats = [file.stat() for file in files]
    return {
        "name": path.resolve().name,
        "bytes": sum(stat.st_size for stat in stats),
        "modified": max(stat.st_mtime_ns for stat in stats),
    }
