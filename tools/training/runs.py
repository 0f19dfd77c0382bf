"""What the measurements share: their processes, and the page and record of each."""

import importlib.metadata
import json
import multiprocessing
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from _support import pages

PACKAGES = "torch scikit-learn mnist1d snntorch spikingjelly norse"
Record = dict[str, Any]
Records = list[Record]


def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def run(function: Callable[[Any], Any], keys: Iterable[Any]) -> list[Any]:
    """Return what a function returns for each key, computed in several processes."""
    from tqdm import tqdm

    keys = list(keys)
    with multiprocessing.get_context("spawn").Pool(initializer=one_thread) as pool:
        return list(tqdm(pool.imap(function, keys), total=len(keys)))


def read(name: str) -> Record:
    """Return a record in tests/data."""
    return json.loads((pages.ROOT / "tests" / "data" / f"{name}.json").read_text(encoding="utf-8"))


def write(name: str, record: Record) -> None:
    """Write a record in tests/data, with the versions of the packages that the networks use."""
    versions = {each: importlib.metadata.version(each) for each in PACKAGES.split()}
    versions = read(name)["versions"] | versions  # of JAX, in which some networks were trained
    text = json.dumps(record | {"versions": versions}) + "\n"
    (pages.ROOT / "tests" / "data" / f"{name}.json").write_text(text, encoding="utf-8")


def with_versions(page: str, measured: str, record: Record) -> str:
    """Return a page with what was measured, and the versions, in the line that begins so."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    figures = {r"(?<=^Measured with: ).*(?=\.$)": f"{measured}; {versions}"}
    return pages.with_figures(page, figures)


def write_page(page: Path, text: Callable[[str, Record], str], name: str) -> None:
    """Write the tables of a page from its record."""
    page.write_text(text(page.read_text(encoding="utf-8"), read(name)), encoding="utf-8")
