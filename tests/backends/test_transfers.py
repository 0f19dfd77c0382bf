"""A loss reads no values from a device and does not synchronize with it."""

import contextlib
import dataclasses

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.backends import STAND_INS, on
from _support.calls import WITH_TARGET, with_everything
from _support.cases import close
from _support.contract import FORMS, ONE_OF_EACH

FEW = ("SpikeTime", "SpikeMax-softmax-window", "CrossEntropy-probabilities-count")


def evaluate(backend, form, guard=contextlib.nullcontext):
    """Evaluate a loss inside `guard`, with all arrays on the device, and compare with NumPy."""
    call = with_everything(FORMS[form])
    spikes, (target, options) = backend.asarray(call.spikes), call.arguments(backend)
    run = sx.value_and_grad(call.loss)
    if backend.name == "jax":  # on a CPU the guard has no effect, and each operation is compiled
        run = backend.compiled(run)
    run(spikes, *target, **options)  # the first call may copy constants
    with guard():
        got = run(spikes, *target, **options)
    expected = sx.value_and_grad(call.loss)(call.spikes, call.target, **call.options)
    for ours, wanted in zip(got, expected, strict=True):
        close(backend.numpy(ours), wanted, backend.rtol)


@pytest.mark.parametrize(
    ("form", "kind"), [*((form, "meta") for form in ONE_OF_EACH), *((form, "fake") for form in FEW)]
)
def test_meta_and_fake_tensors_give_the_shape(form, kind):
    torch = pytest.importorskip("torch")
    call = with_everything(FORMS[form])
    mode = torch._subclasses.FakeTensorMode() if kind == "fake" else contextlib.nullcontext()

    def place(x):
        tensor = torch.asarray(x)
        return mode.from_tensor(tensor) if kind == "fake" else tensor.to("meta")

    targets = [] if call.target is None else [place(call.target)]
    options = {name: place(x) for name, x in call.options.items()}
    with mode:
        value, gradient = sx.value_and_grad(call.loss)(place(call.spikes), *targets, **options)
        assert value.shape == call.loss(place(call.spikes), *targets, **options).shape == ()
    assert gradient.shape == call.spikes.shape


@contextlib.contextmanager
def no_waits_of_torch():
    import torch

    if "torch-cuda" in STAND_INS:
        import torch_device

        torch_device.reset_counts()
        yield
        assert (torch_device.COPIES, torch_device.WAITS) == ({}, {})
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("form", WITH_TARGET)
@pytest.mark.parametrize(
    "backend", ["array-api-strict-device1", "torch-cuda", "jax", "jax-cuda"], indirect=True
)
def test_device_is_not_read_and_not_waited_for(backend, form):
    """The guard of JAX only has an effect on a GPU, because for JAX the CPU is the host."""
    if backend.library == "torch":
        return evaluate(backend, form, no_waits_of_torch)
    if backend.library == "jax":
        import jax

        return evaluate(backend, form, lambda: jax.transfer_guard_device_to_host("disallow"))
    with pytest.raises(RuntimeError, match="device1"):
        np.asarray(backend.asarray([1.0]))
    evaluate(backend, form)


@pytest.mark.compiles  # OpenCL, with the first kernels of a process
@pytest.mark.parametrize("form", ["SpikeTime", "SpikeMax", "SpikeMoid-rate"])
def test_results_are_in_the_queue_of_the_input(form):
    """A CPU is several devices of dpnp, one for each core, with queues of their own."""
    dpctl = pytest.importorskip("dpctl")
    call = with_everything(FORMS[form])
    with on("dpnp") as backend:
        device = dpctl.SyclDevice(backend.place)
        expected = sx.value_and_grad(call.loss)(call.spikes, call.target, **call.options)
        given, options = call.arguments(backend)  # in the default queue
        for place in (device, *device.create_sub_devices(partition=[1, 1])):
            queue = dpctl.SyclQueue(place)
            spikes = dataclasses.replace(backend, place=queue).asarray(call.spikes)
            got = sx.value_and_grad(call.loss)(spikes, *given, **options)
            for ours, wanted in zip(got, expected, strict=True):
                assert ours.sycl_queue == queue
                close(backend.numpy(ours), wanted, backend.rtol)
