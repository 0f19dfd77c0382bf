import numpy as np
import pytest

import spikeloss_xp as sx
from _support.calls import each, run
from _support.cases import check_by_hand, close

SPIKES = np.asarray([[[1.0, 0, 1, 1], [0, 0, 1, 0]]])


@pytest.mark.parametrize(
    ("loss", "label", "terms", "slope"),
    [
        # rates 3/4 and 1/4, targets 1/2 and 0: terms (1/4)², gradients 2 · 1/4 / 4 steps
        (sx.SpikeRate(0.5, 0), [0], [[1 / 16, 1 / 16]], [[1 / 8] * 4, [1 / 8] * 4]),
        # targets 1/8 and 1/2: terms (5/8)² and (-1/4)²
        (sx.SpikeRate(0.5, 0.125), [1], [[25 / 64, 1 / 16]], [[5 / 16] * 4, [-1 / 8] * 4]),
        # In windows of 2 the rates are [½, ½, ½, 1] and [0, 0, ½, ½], the targets 1 and 0. The
        # errors are u = [-½, -½, -½, 0] and [0, 0, ½, ½], the gradients 2 (u[t] + u[t + 1]) / 2.
        (
            sx.SpikeRate(1, 0, 2),
            [0],
            [[[1 / 4, 1 / 4, 1 / 4, 0], [0, 0, 1 / 4, 1 / 4]]],
            [[-1, -1, -1 / 2, 0], [0, 1 / 2, 1, 1 / 2]],
        ),
        # The same, with the second class labelled at the last step: u = […, 1], […, -½].
        (
            sx.SpikeRate(1, 0, 2),
            [[0, 0, 0, 1]],
            [[[1 / 4, 1 / 4, 1 / 4, 1], [0, 0, 1 / 4, 1 / 4]]],
            [[-1, -1, 1 / 2, 1], [0, 1 / 2, 0, -1 / 2]],
        ),
    ],
)
def test_value_and_gradient_match_hand_calculation(backend, loss, label, terms, slope):
    check_by_hand(backend, loss, SPIKES, label, terms, slope)


def test_window_as_long_as_the_train_ends_at_its_rate(backend):
    losses = [sx.SpikeRate(0.5, 0, window, "none") for window in (4, None, 8)]
    windowed, unwindowed, longer = run(backend, each(losses), SPIKES, [0])
    close(windowed[..., -1], unwindowed, backend.rtol)
    # A longer window still divides by its own length: the rates are 3/8 and 1/8.
    close(longer[..., -1], np.asarray([[1 / 64, 1 / 64]]), backend.rtol)
