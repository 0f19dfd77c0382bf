"""Every mistake in mistakes.py raises its error with a message that names the cause."""

import numpy as np
import pytest

from _support.mistakes import (
    ARRAY_MISTAKES,
    END,
    OPTION_MISTAKES,
    SPIKES,
    VALUE_MISTAKES,
    Arrays,
)


def assert_raises_with_message(mistake, *arrays):
    with pytest.raises(type(mistake.error)) as raised:
        mistake.call(*arrays)
    message = f"{raised.value}{END}"
    assert [word for word in mistake.words if word not in message] == [], message


@pytest.mark.parametrize("mistake", OPTION_MISTAKES, ids=str)
def test_option_mistake_raises(mistake):
    assert_raises_with_message(mistake)


@pytest.mark.parametrize("mistake", ARRAY_MISTAKES, ids=str)
def test_array_mistake_raises(backend, mistake):
    assert_raises_with_message(mistake, Arrays(backend.asarray(SPIKES), backend.asarray))


@pytest.mark.parametrize("mistake", VALUE_MISTAKES, ids=str)
def test_value_mistake_raises(backend, mistake):
    spikes = backend.asarray(SPIKES)
    assert_raises_with_message(mistake, Arrays(spikes, np.asarray))
    if backend.reads_values:
        assert_raises_with_message(mistake, Arrays(spikes, backend.asarray))
