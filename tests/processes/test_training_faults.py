"""Copies, pickles, forks and threads, as training has them, change no bit of a loss or gradient."""

import copy
import itertools
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import spikeloss_xp as sx
from _support.calls import with_everything
from _support.contract import FORMS, ONE_OF_EACH
from _support.programs import run_python

CALLS = [with_everything(FORMS[name]) for name in ONE_OF_EACH]


def bits(call, library):
    """Return the value and the gradient of a call as bytes. Those of PyTorch are of autograd."""
    target = () if call.target is None else (call.target,)
    if library == "numpy":
        results = sx.value_and_grad(call.loss)(call.spikes, *target, **call.options)
    else:
        spikes = torch.tensor(call.spikes, requires_grad=True)
        value = call.loss(spikes, *target, **call.options)
        results = value.detach(), *torch.autograd.grad(value, spikes)
    return [np.asarray(x).tobytes() for x in results]


def bits_of_all(first=0, number=45):
    """Return those of some calls of both libraries in turn, from the first on."""
    calls = itertools.cycle(itertools.product(CALLS, ("numpy", "torch")))
    return [bits(*one) for one in itertools.islice(calls, first, first + number)]


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_copies_and_pickles_keep_every_bit(library):
    for name, form in FORMS.items():
        call = with_everything(form)
        for made in (copy.deepcopy(call.loss), pickle.loads(pickle.dumps(call.loss))):
            assert made == call.loss
            assert bits(call.replace(loss=made), library) == bits(call, library), name


def test_720_calls_by_16_threads_keep_every_bit():
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(bits_of_all, range(16)))
    assert found == [bits_of_all(first) for first in range(16)]


FORK = """
import multiprocessing
from test_training_faults import bits_of_all
before = bits_of_all()  # so that what is kept for later calls is there before the fork
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(bits_of_all, [0, 0]) == [before, before]
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes do not fork on Windows")
def test_forked_processes_keep_every_bit():
    here = Path(__file__).parent
    run_python(FORK, "-W", "ignore", path=f"{here}{os.pathsep}{here.parent}")
