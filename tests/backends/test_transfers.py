"""A loss reads no value of an array that is elsewhere, and waits for no device."""

import contextlib

import cases
import numpy as np
import pytest
from cases import CASES, SPIKES
from conftest import on

import spikeloss_xp as sx

OPTIONS = {
    "lengths": np.asarray([cases.STEPS, 2]),
    "where": np.asarray([True, True]),
    "weight": np.asarray([1.0, 0.5, 2.0]),
}


def options_of(loss):
    return {k: v for k, v in OPTIONS.items() if k != "weight" or not isinstance(loss, sx.SpikeTime)}


def evaluate(backend, name, guard=contextlib.nullcontext):
    """Evaluate with everything on the device, and without a look at it."""
    loss, target = CASES[name]
    target, spikes = backend.asarray(target), backend.asarray(SPIKES["graded"])
    options = {name: backend.asarray(option) for name, option in options_of(loss).items()}
    with guard():
        value, gradient = sx.value_and_grad(loss)(spikes, target, **options)
    wanted = sx.value_and_grad(loss)(SPIKES["graded"], CASES[name][1], **options_of(loss))
    cases.close(backend.numpy(value), wanted[0], backend.rtol)
    cases.close(backend.numpy(gradient), wanted[1], backend.rtol)


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_read_of_a_device_that_numpy_cannot_read(name):
    with on("array-api-strict-device1") as backend:
        with pytest.raises(RuntimeError, match="device1"):
            np.asarray(backend.asarray(SPIKES["graded"]))
        evaluate(backend, name)


@pytest.mark.parametrize("name", CASES)
def test_no_value_is_needed(name):
    torch = pytest.importorskip("torch")
    loss, target = CASES[name]
    arrays = [torch.asarray(x, device="meta") for x in (SPIKES["graded"], target)]
    options = {name: torch.asarray(x, device="meta") for name, x in options_of(loss).items()}
    value, gradient = sx.value_and_grad(loss)(*arrays, **options)
    assert value.shape == ()
    assert gradient.shape == SPIKES["graded"].shape


@pytest.mark.parametrize("name", [name for name in CASES if "SpikeTime" not in name])
def test_pytorch_does_not_wait_for_a_gpu(name):
    """Apart from SpikeTime, which sends its kernel there."""
    with on("torch-cuda") as backend:
        import torch

        @contextlib.contextmanager
        def guard():
            torch.cuda.set_sync_debug_mode("error")
            try:
                yield
            finally:
                torch.cuda.set_sync_debug_mode("default")

        evaluate(backend, name, guard)


@pytest.mark.parametrize("name", cases.ONE_OF_EACH)
def test_jax_sends_nothing_to_the_host(name):
    """JAX takes a CPU for the host: the guard has something to say with a GPU only."""
    with on("jax") as backend:
        import jax

        evaluate(backend, name, lambda: jax.transfer_guard_device_to_host("disallow"))
