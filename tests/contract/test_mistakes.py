"""Every mistake in mistakes.py raises its error with a message that names the cause."""

import dataclasses

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import contract
from _support.backends import on
from _support.calls import FEW_FORMS, Call, example, pairs
from _support.cases import close
from _support.mistakes import (
    ARRAY_MISTAKES,
    MORE_ARRAY_MISTAKES,
    MORE_OPTION_MISTAKES,
    OPTION_MISTAKES,
    SPIKES,
    VALUE_MISTAKES,
)


def raises(mistakes):
    return pytest.mark.parametrize("mistake", mistakes, ids=lambda mistake: mistake.code)


def assert_raises_with_message(mistake, asarray):
    with pytest.raises(mistake.error) as raised:
        mistake.make(asarray)
    message = f"{raised.value}$"
    assert [part for part in mistake.message_parts if part not in message] == [], message


@raises((*OPTION_MISTAKES, *MORE_OPTION_MISTAKES))
def test_option_mistake_raises(mistake):
    assert_raises_with_message(mistake, np.asarray)


@raises((*ARRAY_MISTAKES, *MORE_ARRAY_MISTAKES))
def test_array_mistake_raises(backend, mistake):
    assert_raises_with_message(mistake, backend.asarray)


@raises(VALUE_MISTAKES)
def test_value_mistake_raises(backend, mistake):
    def keep_all_but_spikes_on_host(values):
        return backend.asarray(values) if values is SPIKES else np.asarray(values)

    assert_raises_with_message(mistake, keep_all_but_spikes_on_host)
    if backend.reads_values:
        assert_raises_with_message(mistake, backend.asarray)


LABEL = np.asarray([1, 0, 3])
FORMS = {
    "SpikeMax": (sx.SpikeMax(), LABEL),
    "CrossEntropy-last": (sx.CrossEntropy(readout="last", reduction="sum", time_axis=-1), LABEL),
    "SpikeRate-window": (sx.SpikeRate(0.5, 0.125, 3), LABEL),
    "SpikeMoid-count": (sx.SpikeMoid(readout="count", theta=0), SPIKES[..., 0]),
    "SpikeTime": (sx.SpikeTime(), SPIKES[..., ::-1]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["array-api-strict", "jax-x64"])
def test_length_out_of_range_is_nan_where_values_are_not_read(name, form):
    """The terms of that sample are NaN and its gradient has NaN; other samples do not change."""
    loss, target = FORMS[form]
    call = Call(loss, SPIKES, target, lengths=np.asarray([4, 2, 5]))
    call = call.with_loss_options(reduction="none")
    with on(name) as backend:
        expected = call.on(backend)
        for bad in (-1, 6):
            bad_call = call.replace(lengths=np.asarray([4, bad, 5]))
            with np.errstate(invalid="ignore"):  # array-api-strict wraps NumPy, which warns of NaN
                terms, gradient = bad_call.on(backend)
            assert np.isnan(terms[1]).all()
            assert np.isnan(gradient[1]).any()
            for got, expected_array in zip((terms, gradient), expected, strict=True):
                close(got[[0, 2]], expected_array[[0, 2]], backend.rtol)


@pytest.mark.parametrize("name", ["array-api-strict", "jax-x64"])
def test_bad_values_are_nan_where_values_are_not_read(name):
    soft_target = SPIKES[..., 0].copy()
    soft_target[1, 2] = np.nan
    calls = [
        Call(sx.SpikeMoid(theta=0), SPIKES, soft_target),
        Call(sx.SpikeMax(), SPIKES, np.asarray([1, 4, -100])),
        Call(
            sx.CrossEntropy(label_smoothing=0.125, reduction="sum", time_axis=-1, readout="rate"),
            SPIKES,
            np.asarray([1, -1, -100]),
        ),
        Call(sx.SpikeRate(0.5, 0), SPIKES, np.asarray([1, 4, 3]), weight=SPIKES[0, :, 0]),
        Call(sx.SpikeMax(num_classes=2), SPIKES, np.asarray([1, 2, 0])),
    ]
    # NumPy warns of logaddexp at NaN
    with on(name) as backend, np.errstate(invalid="ignore"):
        for call in calls:
            loss = dataclasses.replace(call.loss, reduction="mean")
            value, gradient = call.replace(loss=loss).on(backend)
            assert np.isnan(value)
            assert np.isnan(gradient[1]).any()


@pytest.mark.parametrize(("name", "form"), pairs(jax=FEW_FORMS))
def test_nonfinite_unmasked_entry_makes_the_value_nonfinite(name, form):
    call = example(contract.FORMS[form]).replace(lengths=np.asarray([6, 5, 6, 6, 6]))
    # NumPy warns of inf - inf
    with on(name) as backend, np.errstate(invalid="ignore"):
        evaluate, (target, options) = backend.compiled(call.loss), call.arguments(backend)
        for neuron in range(call.spikes.shape[1]):
            for bad in (np.nan, np.inf):
                spikes = call.spikes.copy()
                spikes[1, neuron, 4] = bad  # the last unmasked step
                value = backend.numpy(evaluate(backend.asarray(spikes), *target, **options))
                assert not np.isfinite(value), (neuron, bad)
