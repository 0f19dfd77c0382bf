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

PACKAGES = "torch scikit-learn mnist1d mlxtend snntorch spikingjelly norse"
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


def write(page: Any, record: Record) -> None:
    """Write the record of a page with the versions of the packages, and the page's tables.

    If two pages share a record, the versions on the second page are not rewritten. To rewrite them,
    run the module of the second page.
    """
    versions = {each: importlib.metadata.version(each) for each in PACKAGES.split()}
    versions = (
        read(page.RECORD)["versions"] | versions
    )  # of JAX, in which some networks were trained
    text = json.dumps(record | {"versions": versions}) + "\n"
    (pages.ROOT / "tests" / "data" / f"{page.RECORD}.json").write_text(text, encoding="utf-8")
    write_page(page)


def write_page(page: Any) -> None:
    """Write the tables of a page, which a module describes, from its record."""
    text = page.text(page.PAGE.read_text(encoding="utf-8"), read(page.RECORD))
    page.PAGE.write_text(text, encoding="utf-8")


def with_versions(
    page: str, measured: str, record: Record, packages: Iterable[str] | None = None
) -> str:
    """Return a page with the line "Measured with:" rewritten.

    After the colon, the line has the text `measured`, and then the versions of the packages, by
    default of all packages in the record.
    """
    versions = ", ".join(
        f"{name} {version}"
        for name, version in record["versions"].items()
        if packages is None or name in packages
    )
    figures = {r"(?<=^Measured with: ).*(?=\.$)": f"{measured}; {versions}"}
    return pages.with_figures(page, figures)
