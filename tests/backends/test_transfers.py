"""A loss reads no values from a device and does not synchronize with it."""

import contextlib

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import cases
from _support.backends import on
from _support.cases import CASES, SPIKES

OPTIONS = {
    "lengths": np.asarray([cases.STEPS, 2]),
    "where": np.asarray([True, True]),
    "weight": np.asarray([1.0, 0.5, 2.0]),
}


def options_for(loss):
    return {k: v for k, v in OPTIONS.items() if k != "weight" or not isinstance(loss, sx.SpikeTime)}


def evaluate(backend, name, guard=contextlib.nullcontext):
    """Evaluate a loss inside `guard`, with all arrays on the device, and compare with NumPy."""
    loss, target = CASES[name]
    target, spikes = backend.asarray(target), backend.asarray(SPIKES["graded"])
    options = {name: backend.asarray(option) for name, option in options_for(loss).items()}
    with guard():
        value, gradient = sx.value_and_grad(loss)(spikes, target, **options)
    expected = sx.value_and_grad(loss)(SPIKES["graded"], CASES[name][1], **options_for(loss))
    cases.close(backend.numpy(value), expected[0], backend.rtol)
    cases.close(backend.numpy(gradient), expected[1], backend.rtol)


@pytest.mark.parametrize("name", CASES)
def test_device_unreadable_by_numpy_is_not_read(name):
    with on("array-api-strict-device1") as backend:
        with pytest.raises(RuntimeError, match="device1"):
            np.asarray(backend.asarray(SPIKES["graded"]))
        evaluate(backend, name)


@pytest.mark.parametrize("name", CASES)
def test_meta_tensors_give_shapes(name):
    torch = pytest.importorskip("torch")
    loss, target = CASES[name]
    arrays = [torch.asarray(x, device="meta") for x in (SPIKES["graded"], target)]
    options = {name: torch.asarray(x, device="meta") for name, x in options_for(loss).items()}
    value, gradient = sx.value_and_grad(loss)(*arrays, **options)
    assert value.shape == ()
    assert gradient.shape == SPIKES["graded"].shape


@pytest.mark.parametrize("name", [name for name in CASES if "SpikeTime" not in name])
@pytest.mark.parametrize("backend", ["torch-cuda"], indirect=True)
def test_torch_cuda_is_not_synchronized(backend, name):
    """`SpikeTime` is left out, because it copies its kernel to the GPU."""
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
@pytest.mark.parametrize("backend", ["jax", "jax-cuda"], indirect=True)
def test_jax_copies_nothing_to_the_host(backend, name):
    """The guard only has an effect on a GPU, because for JAX the CPU is the host."""
    import jax

    evaluate(backend, name, lambda: jax.transfer_guard_device_to_host("disallow"))
