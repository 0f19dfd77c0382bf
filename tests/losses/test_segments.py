"""`sum_and_weight` with a context: the sums of segments of time add up to those of the trains.

`tests/contract/test_properties.py` cuts random calls into segments, on all array libraries, and
docs/recipes/truncated_torch.py differentiates such sums.
"""

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.calls import one_jax, run


def test_memory_of_a_window_is_one_step_less():
    assert sx.SpikeRate(0.5, 0.0, moving_window=4, time_axis=-1).memory == 3


@one_jax
def test_label_in_the_context_is_not_checked(backend):
    spikes, loss = (
        np.ones((1, 2, 4)),
        sx.SpikeRate(1, 0, moving_window=2, time_axis=-1),
    )
    for bad in (7, -3):
        label = np.asarray([[bad, bad, 1, 1]])

        def add_up(spikes, label=label):  # a label outside of the trace, which is checked
            return loss.sum_and_weight(spikes, label, context=2)

        np.testing.assert_allclose(run(backend, add_up, spikes), [2, 4])  # per step: 0 + 1
        if backend.reads_values:
            with pytest.raises(ValueError, match="target must be between 0 and 1"):
                loss.sum_and_weight(backend.asarray(spikes), label, context=1)


def test_context_of_all_steps_has_no_terms():
    spikes = np.ones((1, 2, 4))
    assert sx.SpikeMax(moving_window=2, time_axis=-1).sum_and_weight(spikes, [7], context=4) == (
        0,
        0,
    )


@pytest.mark.parametrize(
    ("loss", "context", "error", "message"),
    [
        (
            sx.SpikeMax(time_axis=-1),
            1,
            ValueError,
            "the memory of this SpikeMax is None: set a moving_window",
        ),
        (
            sx.SpikeMax(moving_window=2, reduction="batchmean", time_axis=-1),
            1,
            ValueError,
            "needs reduction='sum' or 'mean'",
        ),
        (
            sx.SpikeMax(moving_window=2, time_axis=-1),
            -1,
            ValueError,
            "context must be at least 0; got -1",
        ),
        (
            sx.SpikeMax(moving_window=2, time_axis=-1),
            5,
            ValueError,
            "context must be at most the number of steps, 4; got 5",
        ),
        (
            sx.SpikeMax(moving_window=2, time_axis=-1),
            1.0,
            TypeError,
            "context must be an integer; got 1.0",
        ),
        (
            sx.SpikeMax(moving_window=2, time_axis=-1),
            True,
            TypeError,
            "context must be an integer; got True",
        ),
    ],
)
def test_wrong_context_raises(loss, context, error, message):
    with pytest.raises(error, match=message):
        loss.sum_and_weight(np.ones((1, 2, 4)), [0], context=context)
