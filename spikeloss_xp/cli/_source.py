"""Where the arrays of a larger file come from, and how it is known again."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikeloss_xp.cli._recording import UsageError, archive_at, member_stream, reading
from spikeloss_xp.cli._rows import NpyRows, Rows
from spikeloss_xp.cli._zarr import is_zarr, zarr_rows

NAMES = ("input", "target", "label", "lengths")


@dataclass(frozen=True)
class Source:
    """Arrays by name, and what the file or folder that they are in is known by."""

    path: Path
    arrays: Mapping[str, Rows]
    identity: dict[str, Any]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Source]:
    """Open the arrays of an .npz file, or of a folder of .npy files or of Zarr arrays."""
    with contextlib.ExitStack() as stack:
        with reading(path):
            arrays, files = _opened(path, stack)
            shapes = {n: f"{rows.dtype} {list(rows.shape)}" for n, rows in arrays.items()}
            source = Source(path, arrays, {**_identity(path, files), "arrays": shapes})
        yield source


def _opened(path: Path, stack: contextlib.ExitStack) -> tuple[Mapping[str, Rows], list[Path]]:
    """Return the arrays, and the files that they are in."""
    if not path.is_dir():
        archive, held = stack.enter_context(archive_at(path))
        _check_names(list(held))
        members = {name: held[name] for name in NAMES if name in held}
        found: dict[str, Rows] = {}
        for name, member in members.items():
            stream = stack.enter_context(member_stream(archive, member, f"`{name}`"))
            found[name] = NpyRows(stream, name, member.file_size)
        return found, [path]
    if is_zarr(path):
        arrays = zarr_rows(path, NAMES)
        _check_names(list(arrays))
        inside = (file for name in arrays for file in (path / name).rglob("*"))
        return arrays, [file for file in inside if file.is_file()]
    files = {file.stem: file for file in path.glob("*.npy") if file.is_file()}
    _check_names(list(files))
    wanted = [name for name in NAMES if name in files]
    found = {}
    for name in wanted:
        file = stack.enter_context(files[name].open("rb"))
        found[name] = NpyRows(file, name, files[name].stat().st_size)
    return found, [files[name] for name in wanted]


def _check_names(held: list[str]) -> None:
    if "input" not in held:
        raise UsageError(
            f"it must hold an array `input`; it holds {', '.join(map(repr, held)) or 'nothing'}"
        )


def _identity(path: Path, files: list[Path]) -> dict[str, Any]:
    stats = [file.stat() for file in files]
    return {
        "name": path.resolve().name,
        "bytes": sum(stat.st_size for stat in stats),
        "modified": max(stat.st_mtime_ns for stat in stats),
    }
