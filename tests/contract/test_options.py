"""Options of the losses agree with hand-computed values or with equivalent calls."""

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import reference
from _support.backends import on
from _support.calls import Call, each, one_jax
from _support.cases import close

# two samples, two classes, four steps; rates 3/4 and 1/4 in the first sample, 1/2 and 1 in the next
TRAINS = np.asarray(
    [[[1.0, 0, 1, 1], [0, 0, 1, 0]], [[0, 1, 0, 1], [1, 1, 1, 1]]],
)
LABEL = np.asarray([0, 1])

# Readouts ----------------------------------------------------------------------------------------


COUNT = sx.SpikeRate(0.75, 0.25, readout="count")
MAX, LAST = (sx.SpikeRate(2, -1, readout=readout) for readout in ("max", "last"))


@one_jax
@pytest.mark.parametrize(
    ("loss", "lengths", "value", "class_gradient"),
    [
        # counts 3 and 1, 2 and 4; desired counts 0.75 · 4 for the label, 0.25 · 4 for the other
        (COUNT, [4, 4], 1 + 1, [[0, 0], [2, 2]]),
        # one step fewer in the first sample: counts 2 and 1; desired counts 0.75 · 3 and 0.25 · 3
        (COUNT, [3, 4], 1 / 16 + 1 / 16 + 1 + 1, [[-0.5, 0.5], [2, 2]]),
        # desired potentials 2 and -1, of the step with the maximum and of the last step
        (MAX, [4, 4], 1 + 4 + 4 + 1, [[-2, 4], [4, -2]]),
        (MAX, [2, 4], 1 + 1 + 4 + 1, [[-2, 2], [4, -2]]),
        (LAST, [4, 4], 1 + 1 + 4 + 1, [[-2, 2], [4, -2]]),
        (LAST, [3, 4], 1 + 4 + 4 + 1, [[-2, 4], [4, -2]]),
    ],
)
def test_readouts_match_hand_computed_values(backend, loss, lengths, value, class_gradient):
    got, gradient = Call(loss, TRAINS, LABEL, lengths=np.asarray(lengths)).on(backend)
    step = np.arange(4)
    mask = step < np.asarray(lengths)[:, None, None]
    maximum = np.max(TRAINS, axis=-1, keepdims=True, where=mask, initial=0)
    is_maximum = mask & (maximum == TRAINS)
    gradient_share = {  # of each step; steps that tie for the maximum have equal shares
        "count": np.broadcast_to(mask, TRAINS.shape),
        "max": is_maximum / is_maximum.sum(axis=-1, keepdims=True),
        "last": np.broadcast_to(step == np.asarray(lengths)[:, None, None] - 1, TRAINS.shape),
    }
    close(got, value, backend.rtol)
    close(
        gradient, np.asarray(class_gradient)[..., None] * gradient_share[loss.readout], backend.rtol
    )


# Rates of each class -----------------------------------------------------------------------------


@one_jax
def test_per_class_rates_match_hand_computed_values(backend):
    # rates 3/4 and 1/4, 1/2 and 1; desired rates 1 and 0, 1/2 and 1/2
    loss = sx.SpikeRate((1, 0.5), (0.5, 0))
    value, gradient = Call(loss, TRAINS, LABEL).on(backend)
    close(value, 1 / 16 + 1 / 16 + 0 + 1 / 4, backend.rtol)
    class_gradient = np.asarray([[-1 / 2, 1 / 2], [0, 1]]) / 4
    close(gradient, np.repeat(class_gradient[..., None], 4, axis=-1), backend.rtol)
    for rates in ([1, 0.5], np.asarray([1, 0.5])):
        assert sx.SpikeRate(rates, (0.5, 0)) == loss
    assert hash(loss) == hash(sx.SpikeRate([1, 0.5], [0.5, 0]))
    assert eval(repr(loss), vars(sx)) == loss


# Sparsity ----------------------------------------------------------------------------------------

LAYER = np.zeros((2, 3, 4))
LAYER[:, 0] = 1  # saturated; the second neuron is silent
LAYER[0, 2] = [1, 0, -1, 0]  # a rate of 1/4 over both samples: the sign does not matter


@one_jax
@pytest.mark.parametrize(
    ("loss", "value", "neuron_gradient"),
    [
        # rates 1, 0 and 1/4; their mean is 5/12
        (sx.SparsityEnforcer(0.5), 0, [0, 0, 0]),
        (sx.SparsityEnforcer(1 / 4), (1 / 6) ** 2, [1 / 72, 0, 1 / 72]),
        (sx.SparsityEnforcer(1, min_rate=0.75), (1 / 3) ** 2, [-1 / 36, -1 / 36, -1 / 36]),
        # per neuron: 1/2 above 1/2, 1/8 below 1/8; mean over 3 neurons with 8 entries each
        (sx.SparsityEnforcer(0.5, per="neuron"), 1 / 12, [1 / 24, 0, 0]),
        (
            sx.SparsityEnforcer(0.5, 2, min_rate=1 / 8, per="neuron"),
            2 * (1 / 4 + 1 / 64) / 3,
            [1 / 12, -1 / 48, 0],
        ),
        (
            sx.SparsityEnforcer(0.5, min_rate=0.5, per="neuron"),
            (1 / 4 + 1 / 4 + 1 / 16) / 3,
            [1 / 24, -1 / 24, -1 / 48],
        ),
    ],
)
def test_sparsity_matches_hand_computed_values(backend, loss, value, neuron_gradient):
    """Below `min_rate` the gradient at a silent entry is negative; above `max_rate` it is 0."""
    got, gradient = Call(loss, LAYER).on(backend)
    close(got, value, backend.rtol)
    # below the minimum rate, the derivative of |x| at 0 is taken as 1
    sign = np.sign(LAYER)
    neuron_gradient = np.asarray(neuron_gradient)[:, None]
    sign = np.where((LAYER == 0) & (neuron_gradient < 0), 1, sign)
    close(gradient, neuron_gradient * sign, backend.rtol)


@one_jax
def test_sparsity_of_several_layers_is_their_sum(backend):
    loss = sx.SparsityEnforcer(0.25, min_rate=0.125, per="neuron")
    layers = [backend.asarray(x) for x in (LAYER, 2 * LAYER, LAYER[:, :2])]
    expected = sum(reference.value(loss, x) for x in (LAYER, 2 * LAYER, LAYER[:, :2]))
    run = backend.compiled(lambda *layers: (loss(layers), loss(list(layers))))
    for total in run(*layers):
        close(backend.numpy(total), expected, backend.rtol)


def test_sparsity_of_several_layers_works_under_jax_jit():
    with on("jax-x64") as backend:
        import jax

        loss = sx.SparsityEnforcer(0.25, min_rate=0.125, per="neuron")
        layers = [backend.asarray(LAYER), backend.asarray(2 * LAYER)]
        evaluate = each([jax.value_and_grad(loss), lambda x: list(map(sx.value_and_grad(loss), x))])
        (value, gradients), separate = jax.jit(evaluate)(layers)
        close(backend.numpy(value), sum(float(v) for v, _ in separate), backend.rtol)
        for got, (_, expected) in zip(gradients, separate, strict=True):
            close(backend.numpy(got), backend.numpy(expected), backend.rtol)
