"""Copies, pickles, forks and threads, as training has them, change no bit of a loss or gradient."""

import copy
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from _support.processes import CASES, EACH_LOSS, SPARSITY
from _support.programs import run_python
from _support.split import bits

BATCHES = [*(CASES[name] for name in EACH_LOSS), *SPARSITY.values()]
COPIES = (copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)))


@pytest.mark.parametrize("asarray", [np.array, torch.tensor])
def test_copies_and_pickles_keep_every_bit(asarray):
    for batch in BATCHES:
        expected = bits(batch, asarray)
        for made in [make(batch.loss) for make in COPIES]:
            assert made == batch.loss
            assert bits(replace(batch, loss=made), asarray) == expected, made


@pytest.mark.compiles  # operations of PyTorch have threads of their own, which wait for each other
@pytest.mark.parametrize("asarray", [np.array, torch.tensor])
def test_720_calls_by_16_threads_keep_every_bit(asarray):
    def work(first):  # each thread begins with another batch
        return [bits(BATCHES[(first + i) % len(BATCHES)], asarray) for i in range(45)]

    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(work, range(16)))
    expected = work(0)
    for first, results in enumerate(found):
        assert results == [expected[(first + i) % len(BATCHES)] for i in range(45)]


FORK = """
import pickle, numpy, torch
from _support.split import bits
batches = pickle.load(open("batches", "rb"))
libraries = numpy.array, torch.tensor
work = lambda: [bits(batch, asarray) for batch in batches for asarray in libraries]
before = work()  # it also fills the caches, which the workers then share
options = {"batch_size": None, "num_workers": 2, "multiprocessing_context": "fork"}
loader = torch.utils.data.DataLoader(range(2), collate_fn=lambda i: work() == before, **options)
assert list(loader) == [True, True]
"""


@pytest.mark.compiles
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes do not fork on Windows")
def test_forked_workers_of_a_loader_keep_every_bit(tmp_path, monkeypatch):
    (tmp_path / "batches").write_bytes(pickle.dumps(BATCHES))
    monkeypatch.chdir(tmp_path)
    run_python(FORK, "-W", "ignore", path=Path(__file__).parents[1])
