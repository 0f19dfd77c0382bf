"""Copies of losses in 16 threads, as training has them, change no bit of a value or gradient."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from _support.processes import CASES, MEANS, SPARSITY
from _support.split import bits

BATCHES = [*(CASES[name] for name in MEANS), *SPARSITY.values()]
COPIES = (copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)))

pytestmark = pytest.mark.compiles  # threads of PyTorch wait for each other


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
