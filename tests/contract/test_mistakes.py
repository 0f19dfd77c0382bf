"""Every mistake in mistakes.py raises its error with a message that names the cause."""

import numpy as np
import pytest

from _support.mistakes import ARRAY_MISTAKES, OPTION_MISTAKES, SPIKES, VALUE_MISTAKES


def raises(mistakes):
    return pytest.mark.parametrize("mistake", mistakes, ids=lambda mistake: mistake.code)


def assert_raises_with_message(mistake, asarray):
    with pytest.raises(mistake.error) as raised:
        mistake.make(asarray)
    message = f"{raised.value}$"
    assert [part for part in mistake.message_parts if part not in message] == [], message


@raises(OPTION_MISTAKES)
def test_option_mistake_raises(mistake):
    assert_raises_with_message(mistake, np.asarray)


@raises(ARRAY_MISTAKES)
def test_array_mistake_raises(backend, mistake):
    assert_raises_with_message(mistake, backend.asarray)


@raises(VALUE_MISTAKES)
def test_value_mistake_raises(backend, mistake):
    def keep_all_but_spikes_on_host(values):
        return backend.asarray(values) if values is SPIKES else np.asarray(values)

    assert_raises_with_message(mistake, keep_all_but_spikes_on_host)
    if backend.reads_values:
        assert_raises_with_message(mistake, backend.asarray)
