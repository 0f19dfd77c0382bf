"""Options of the losses agree with hand-computed values or with equivalent calls."""

import dataclasses
import math

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import reference
from _support.backends import on
from _support.calls import Call, not_jax, one_jax
from _support.cases import close

# two samples, two classes, four steps; rates 3/4 and 1/4 in the first sample, 1/2 and 1 in the next
TRAINS = np.asarray(
    [[[1.0, 0, 1, 1], [0, 0, 1, 0]], [[0, 1, 0, 1], [1, 1, 1, 1]]],
)
LABEL = np.asarray([0, 1])
SPIKES = np.random.default_rng(0).uniform(0.125, 1, size=(3, 6, 5))  # six neurons, three classes
LABEL_OF_GROUP = np.asarray([2, 0, 1])
SOFT_OF_GROUP = np.asarray([[0.0, 1.0, 0.25], [0.5, 1.0, 0.0], [1.0, 0.0, 0.75]])


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


@one_jax
def test_window_of_one_gives_one_term_per_step(backend):
    potentials = np.random.default_rng(1).normal(size=(2, 3, 4))
    label = np.asarray([2, 0])
    loss = sx.SpikeRate(0.75, 0.125, 1, "none")
    terms = backend.numpy(backend.compiled(loss)(backend.asarray(potentials), label))
    expected = np.where(np.arange(3)[:, None] == label[:, None, None], 0.75, 0.125)
    close(terms, (potentials - expected) ** 2, backend.rtol)


# Population codes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "target", "of_means"),
    [
        (sx.SpikeRate(0.75, 0.125), LABEL_OF_GROUP, {}),
        (sx.SpikeRate((0.75, 0.5, 1), 0.125, 2, readout="count"), LABEL_OF_GROUP, {}),
        (sx.SpikeMax(pseudo_count=4), LABEL_OF_GROUP, {"pseudo_count": 2}),
        (sx.SpikeMax(2, "softmax", label_smoothing=0.125), LABEL_OF_GROUP, {}),
        (sx.SpikeMoid(alpha=0.25, readout="max"), SOFT_OF_GROUP, {}),
    ],
    ids=["SpikeRate", "SpikeRate-count-window", "SpikeMax", "SpikeMax-softmax", "SpikeMoid-max"],
)
@pytest.mark.parametrize("space", [(6,), (3, 2), (2, 3)])
@not_jax
def test_class_reading_is_the_mean_of_its_neurons(backend, loss, target, of_means, space):
    """A spike adds only 1/2 to the mean of two neurons, so `of_means` halves `pseudo_count`."""
    grouped = Call(dataclasses.replace(loss, num_classes=3), SPIKES, target).with_loss_options()
    means = Call(
        dataclasses.replace(loss, **of_means), SPIKES.reshape(3, 3, 2, 5).mean(axis=2), target
    )
    grouped_in_space = grouped.replace(spikes=SPIKES.reshape(3, *space, 5))
    value, gradient = grouped_in_space.on(backend)
    expected, expected_gradient = means.replace(cotangent=grouped.cotangent).on(backend)
    close(value, expected, backend.rtol)
    close(gradient, np.repeat(expected_gradient / 2, 2, axis=1).reshape(3, *space, 5), backend.rtol)


def test_one_neuron_per_class_equals_no_grouping():
    for loss, target in ((sx.SpikeMax(), [5, 0, 3]), (sx.SpikeRate(1, 0, 2), [5, 0, 3])):
        grouped = dataclasses.replace(loss, num_classes=6)
        assert grouped(SPIKES, target) == loss(SPIKES, target)


# Rates, smoothing, temperature -------------------------------------------------------------------


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


@not_jax
@pytest.mark.parametrize("options", [{}, {"moving_window": 2}, {"readout": "count"}], ids=str)
@pytest.mark.parametrize("mode", ["probability", "softmax"])
def test_label_smoothing_adds_the_mean_over_all_labels(backend, mode, options):
    unsmoothed = sx.SpikeMax(mode=mode, reduction="none", **options)
    smoothed = dataclasses.replace(unsmoothed, label_smoothing=0.25)
    labels = [np.full(2, c) for c in range(2)]

    def run(spikes):
        return smoothed(spikes, LABEL), *(unsmoothed(spikes, label) for label in (LABEL, *labels))

    got, own_label, *every_label = map(
        backend.numpy, backend.compiled(run)(backend.asarray(TRAINS))
    )
    close(got, 0.75 * own_label + 0.25 * sum(every_label) / 2, backend.rtol)


@not_jax
def test_temperature_divides_the_logits(backend):
    for options in ({}, {"readout": "max"}, {"moving_window": 2, "readout": "count"}):
        low_temperature = sx.SpikeMax(mode="softmax", temperature=0.125, **options)
        value, gradient = Call(low_temperature, TRAINS, LABEL).on(backend)
        unit_temperature = dataclasses.replace(low_temperature, temperature=1)
        expected, expected_gradient = Call(unit_temperature, 8 * TRAINS, LABEL).on(backend)
        close(value, expected, backend.rtol)
        close(gradient, 8 * expected_gradient, backend.rtol)


@one_jax
def test_low_temperature_gives_a_confident_softmax_of_rates(backend):
    """Rates of 1 and 0 with ten classes cost 1.46 nats at temperature 1, and about 1e-6 at 1/16."""
    spikes, label = np.zeros((1, 10, 4)), np.asarray([3])
    spikes[0, 3] = 1
    for temperature, nats in ((1, math.log1p(9 / math.e)), (0.0625, math.log1p(9 * math.exp(-16)))):
        loss = sx.SpikeMax(mode="softmax", temperature=temperature)
        value = backend.compiled(loss)(backend.asarray(spikes), label)
        # relative to the value, so that a small loss must be accurate too
        np.testing.assert_allclose(backend.numpy(value), nats, rtol=3 * backend.rtol)


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


@not_jax
def test_sparsity_is_the_same_for_every_time_axis(backend):
    random = np.random.default_rng(2)
    layer = random.normal(size=(3, 4, 2, 5)) * random.uniform(0, 1.5, size=(4, 2, 1))
    where = random.random((3, 5)) < 0.75
    loss = sx.SparsityEnforcer(0.625, min_rate=0.25, per="neuron")
    call = Call(loss, layer, where=where, lengths=np.asarray([5, 0, 3]))
    expected, expected_gradient = call.on(backend)
    close(expected, reference.value(loss, layer, where=where, lengths=[5, 0, 3]), backend.rtol)
    for axis in (0, 1, 2, 3, -1):
        moved_call = call.replace(
            loss=dataclasses.replace(loss, time_axis=axis),
            spikes=np.moveaxis(layer, -1, axis),
            where=where.T if axis == 0 else where,
        )
        value, gradient = moved_call.on(backend)
        close(value, expected, backend.rtol)
        close(np.moveaxis(gradient, axis, -1), expected_gradient, backend.rtol)


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
        value, gradients = jax.jit(jax.value_and_grad(loss))(layers)
        separate = [sx.value_and_grad(loss)(layer) for layer in layers]
        close(backend.numpy(value), sum(float(v) for v, _ in separate), backend.rtol)
        for got, (_, expected) in zip(gradients, separate, strict=True):
            close(backend.numpy(got), backend.numpy(expected), backend.rtol)
