"""How the measurements run in several processes, and where their results are kept."""

import functools
import importlib.metadata
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = "torch jax scikit-learn mnist1d snntorch spikingjelly norse spyx"
Records = list[dict[str, Any]]


def versions() -> dict[str, str]:
    """Return the versions of the packages that the networks use."""
    return {name: importlib.metadata.version(name) for name in PACKAGES.split()}


def kept(name: str) -> Records:
    """Return the results of earlier runs."""
    path = ROOT / "build" / f"{name}.jsonl"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def one_thread() -> None:
    import torch

    torch.set_num_threads(1)
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["XLA_FLAGS"] = flags


def call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return function(*arguments)


def run(
    name: str, function: Callable[..., Any], calls: list[Any], processes: int | None = None
) -> Iterator[dict[str, Any]]:
    """Yield what a function returns for each tuple of arguments, and keep it for later runs."""
    pool = multiprocessing.get_context("spawn").Pool(processes, one_thread)
    with pool:
        for record in pool.imap_unordered(functools.partial(call, function), calls):
            keep(name, record)
            yield record


def keep(name: str, record: dict[str, Any]) -> None:
    """Add a result to those of earlier runs."""
    path = ROOT / "build" / f"{name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        print(json.dumps(record), file=file, flush=True)
