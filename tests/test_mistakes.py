"""Every mistake in the record is answered as it says."""

import dataclasses

import contract
import numpy as np
import pytest
from calls import SOME, Call, example, pairs
from cases import close
from conftest import on
from mistakes import OF_ARRAYS, OF_OPTIONS, OF_VALUES, SPIKES

import spikeloss_xp as sx


def told(mistake):
    return mistake.what


def answered(mistake, asarray):
    with pytest.raises(mistake.error) as shown:
        mistake.make(asarray)
    message = str(shown.value)
    assert [part for part in mistake.shows if part not in message] == [], message


@pytest.mark.parametrize("mistake", OF_OPTIONS, ids=told)
def test_of_options(mistake):
    answered(mistake, np.asarray)


@pytest.mark.parametrize("mistake", OF_ARRAYS, ids=told)
def test_of_arrays(backend, mistake):
    answered(mistake, backend.asarray)


@pytest.mark.parametrize("mistake", OF_VALUES, ids=told)
def test_of_values(backend, mistake):
    def on_the_host(values):
        return backend.asarray(values) if values is SPIKES else np.asarray(values)

    answered(mistake, on_the_host)
    if backend.reads_values:
        answered(mistake, backend.asarray)


LABEL = np.asarray([1, 0, 3])
FORMS = {
    "SpikeMax": (sx.SpikeMax(), LABEL),
    "SpikeMax-last": (sx.SpikeMax(mode="softmax", readout="last"), LABEL),
    "SpikeRate-window": (sx.SpikeRate(0.5, 0.125, 3), LABEL),
    "SpikeMoid-count": (sx.SpikeMoid(readout="count"), SPIKES[..., 0]),
    "SpikeTime": (sx.SpikeTime(), SPIKES[..., ::-1]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["array-api-strict", "jax-x64"])
def test_a_length_that_cannot_be_where_values_are_not_read(name, form):
    """The terms of its sample are NaN and its gradient is not finite; the others are untouched."""
    loss, target = FORMS[form]
    call = Call(loss, SPIKES, target, lengths=np.asarray([4, 2, 5])).having(reduction="none")
    with on(name) as backend:
        wanted = call.on(backend)
        for bad in (-1, 6):
            wrong = call.but(lengths=np.asarray([4, bad, 5]))
            with np.errstate(invalid="ignore"):  # NumPy tells of a NaN, within array-api-strict too
                terms, gradient = wrong.on(backend)
            assert np.isnan(terms[1]).all()
            assert np.isnan(gradient[1]).any()
            for got, right in zip((terms, gradient), wanted, strict=True):
                close(got[[0, 2]], right[[0, 2]], backend.rtol)


@pytest.mark.parametrize("name", ["array-api-strict", "jax-x64"])
def test_bad_values_where_they_are_not_read(name):
    soft = SPIKES[..., 0].copy()
    soft[1, 2] = np.nan
    calls = [
        Call(sx.SpikeMoid(), SPIKES, soft),
        Call(sx.SpikeMax(), SPIKES, np.asarray([1, 4, -100])),
        Call(sx.SpikeMax(label_smoothing=0.125), SPIKES, np.asarray([1, -1, -100])),
        Call(sx.SpikeRate(0.5, 0), SPIKES, np.asarray([1, 4, 3]), weight=SPIKES[0, :, 0]),
        Call(sx.SpikeMax(num_classes=2), SPIKES, np.asarray([1, 2, 0])),
    ]
    # NumPy says so of logaddexp at NaN
    with on(name) as backend, np.errstate(invalid="ignore"):
        for call in calls:
            loss = dataclasses.replace(call.loss, reduction="mean")
            value, gradient = call.but(loss=loss).on(backend)
            assert np.isnan(value)
            assert np.isnan(gradient[1]).any()


@pytest.mark.parametrize(("name", "form"), pairs(jax=SOME))
def test_what_is_not_finite_in_an_entry_that_counts_shows(name, form):
    call = example(contract.FORMS[form]).but(lengths=np.asarray([6, 5, 6, 6, 6]))
    # NumPy says so of inf - inf
    with on(name) as backend, np.errstate(invalid="ignore"):
        for neuron in range(call.spikes.shape[1]):
            for bad in (np.nan, np.inf):
                spikes = call.spikes.copy()
                spikes[1, neuron, 4] = bad  # the last step that counts
                assert not np.isfinite(call.but(spikes=spikes).on(backend)[0]), (neuron, bad)
