"""Arrays of dpnp on several devices: a CPU has one for each core, and queues of its own."""

import dataclasses

import pytest

import spikeloss_xp as sx
from _support.backends import on
from _support.calls import with_everything
from _support.cases import close
from _support.contract import FORMS

dpctl = pytest.importorskip("dpctl")


@pytest.mark.parametrize("form", ["SpikeTime", "SpikeMax", "SpikeMoid-rate"])
def test_results_are_in_the_queue_of_the_input(form):
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
