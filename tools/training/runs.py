"""How the measurements run in several processes, and where their results are kept."""

import importlib.metadata
import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

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


def key_of(kind: type[NamedTuple], record: dict[str, Any]) -> Any:
    """Return the key of this kind, given the record that has its fields."""
    return kind(*(record[field] for field in kind._fields))


def run(
    name: str, function: Callable[[Any], Any], keys: list[Any], processes: int | None = None
) -> Records:
    """Return the records of all keys: those of earlier runs, and what a function returns."""
    from tqdm import tqdm

    done = {key_of(type(keys[0]), record): record for record in kept(name)}
    left = [key for key in keys if key not in done]
    with multiprocessing.get_context("spawn").Pool(processes, one_thread) as pool:
        for record in tqdm(pool.imap_unordered(function, left), total=len(left)):
            keep(name, record)
            done[key_of(type(keys[0]), record)] = record
    return [done[key] for key in keys]


def keep(name: str, record: dict[str, Any]) -> None:
    """Add a result to those of earlier runs."""
    path = ROOT / "build" / f"{name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        print(json.dumps(record), file=file, flush=True)
