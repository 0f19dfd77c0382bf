"""Input files of ``evaluate``: their arrays, and an identity to recognize them by later."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikeloss_xp.cli._recording import UsageError, file_errors, open_archive, open_member
from spikeloss_xp.cli._rows import NpyRows, Rows
from spikeloss_xp.cli._zarr import is_zarr, zarr_rows

NAMES = ("input", "target", "label", "lengths")


@dataclass(frozen=True)
class Source:
    """The arrays of a file or folder by name, and the identity of that file or folder."""

    path: Path
    arrays: Mapping[str, Rows]
    identity: dict[str, Any]


@contextlib.contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Open the arrays of an .npz file, of a folder of .npy files, or of a Zarr group."""
    with contextlib.ExitStack() as stack:
        with file_errors(path):
            arrays, files = _open_arrays(path, stack)
            shapes = {n: f"{rows.dtype} {list(rows.shape)}" for n, rows in arrays.items()}
            source = Source(path, arrays, {**_identity(path, files), "arrays": shapes})
        yield source


def _open_arrays(path: Path, stack: contextlib.ExitStack) -> tuple[Mapping[str, Rows], list[Path]]:
    """Return the arrays of a file or folder, and the files that contain them."""
    if not path.is_dir():
        archive, contents = stack.enter_context(open_archive(path))
        _check_names(list(contents))
        members = {name: contents[name] for name in NAMES if name in contents}
        opened: dict[str, Rows] = {}
        for name, member in members.items():
            stream = stack.enter_context(open_member(archive, member, f"`{name}`"))
            opened[name] = NpyRows(stream, name, member.file_size)
        return opened, [path]
    if is_zarr(path):
        arrays = zarr_rows(path, NAMES)
        _check_names(list(arrays))
        candidates = (file for name in arrays for file in (path / name).rglob("*"))
        return arrays, [file for file in candidates if file.is_file()]
    files = {file.stem: file for file in path.glob("*.npy") if file.is_file()}
    _check_names(list(files))
    names = [name for name in NAMES if name in files]
    opened = {}
    for name in names:
        file = stack.enter_context(files[name].open("rb"))
        opened[name] = NpyRows(file, name, files[name].stat().st_size)
    return opened, [files[name] for name in names]


def _check_names(names: list[str]) -> None:
    if "input" not in names:
        raise UsageError(
            f"it must hold an array `input`; it holds {', '.join(map(repr, names)) or 'nothing'}"
        )


def _identity(path: Path, files: list[Path]) -> dict[str, Any]:
    stats = [file.stat() for file in files]
    return {
        "name": path.resolve().name,
        "bytes": sum(stat.st_size for stat in stats),
        "modified": max(stat.st_mtime_ns for stat in stats),
    }
