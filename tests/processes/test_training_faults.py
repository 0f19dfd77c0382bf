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

from _support.processes import CASES, SPARSITY, SPLIT_MATTERS
from _support.programs import run_python
from _support.split import bits

BATCHES = [*(CASES[name] for name in SPLIT_MATTERS), *SPARSITY.values()]
COPIES = (copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)))

pytestmark = pytest.mark.compiles  # threads of PyTorch wait for each other, and a program starts


@pytest.mark.parametrize("asarray", [np.array, torch.tensor])
def test_copies_in_16_threads_keep_every_bit(asarray):
    expected = [bits(batch, asarray) for batch in BATCHES]

    def work(thread):
        for i in range(thread, thread + 2 * len(BATCHES)):  # each begins with another batch
            at = i % len(BATCHES)
            loss = COPIES[thread % 2](BATCHES[at].loss)
            assert loss == BATCHES[at].loss
            assert bits(replace(BATCHES[at], loss=loss), asarray) == expected[at], loss

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(work, range(16)))


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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes do not fork on Windows")
def test_forked_workers_of_a_loader_keep_every_bit(tmp_path, monkeypatch):
    (tmp_path / "batches").write_bytes(pickle.dumps(BATCHES))
    monkeypatch.chdir(tmp_path)
    run_python(FORK, "-W", "ignore", path=Path(__file__).parents[1])
