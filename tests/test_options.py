"""What the options mean, by hand or by another way of saying the same."""

import dataclasses
import math

import numpy as np
import pytest
import reference
from calls import Call, not_jax, one_jax
from cases import close
from conftest import on

import spikeloss_xp as sx

# Two samples, two classes, four steps: rates 3/4 and 1/4; 1/2 and 1
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
    ("loss", "lengths", "value", "slope"),
    [
        # counts 3 and 1, 2 and 4; wanted 0.75 · 4 of the label and 0.25 · 4 of the other
        (COUNT, [4, 4], 1 + 1, [[0, 0], [2, 2]]),
        # a step less in the first sample: counts 2 and 1; wanted 0.75 · 3 and 0.25 · 3
        (COUNT, [3, 4], 1 / 16 + 1 / 16 + 1 + 1, [[-0.5, 0.5], [2, 2]]),
        # potentials of 2 and -1 wanted: of the largest step, and of the last
        (MAX, [4, 4], 1 + 4 + 4 + 1, [[-2, 4], [4, -2]]),
        (MAX, [2, 4], 1 + 1 + 4 + 1, [[-2, 2], [4, -2]]),
        (LAST, [4, 4], 1 + 1 + 4 + 1, [[-2, 2], [4, -2]]),
        (LAST, [3, 4], 1 + 4 + 4 + 1, [[-2, 4], [4, -2]]),
    ],
)
def test_readouts_by_hand(backend, loss, lengths, value, slope):
    got, gradient = Call(loss, TRAINS, LABEL, lengths=np.asarray(lengths)).on(backend)
    step = np.arange(4)
    kept = step < np.asarray(lengths)[:, None, None]
    most = np.max(TRAINS, axis=-1, keepdims=True, where=kept, initial=0)
    largest = kept & (most == TRAINS)
    share = {  # of each step in the slope; equals have the same
        "count": np.broadcast_to(kept, TRAINS.shape),
        "max": largest / largest.sum(axis=-1, keepdims=True),
        "last": np.broadcast_to(step == np.asarray(lengths)[:, None, None] - 1, TRAINS.shape),
    }
    close(got, value, backend.rtol)
    close(gradient, np.asarray(slope)[..., None] * share[loss.readout], backend.rtol)


@one_jax
def test_a_window_of_one_is_a_term_for_each_step(backend):
    potentials = np.random.default_rng(1).normal(size=(2, 3, 4))
    label = np.asarray([2, 0])
    loss = sx.SpikeRate(0.75, 0.125, 1, "none")
    terms = backend.numpy(backend.compiled(loss)(backend.asarray(potentials), label))
    wanted = np.where(np.arange(3)[:, None] == label[:, None, None], 0.75, 0.125)
    close(terms, (potentials - wanted) ** 2, backend.rtol)


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
def test_a_class_is_the_mean_of_its_neurons(backend, loss, target, of_means, space):
    """Spikes of a group are worth the fewer, the more of them there are."""
    grouped = Call(dataclasses.replace(loss, num_classes=3), SPIKES, target).having()
    means = Call(
        dataclasses.replace(loss, **of_means), SPIKES.reshape(3, 3, 2, 5).mean(axis=2), target
    )
    in_space = grouped.but(spikes=SPIKES.reshape(3, *space, 5))
    value, gradient = in_space.on(backend)
    wanted, slopes = means.but(cotangent=grouped.cotangent).on(backend)
    close(value, wanted, backend.rtol)
    close(gradient, np.repeat(slopes / 2, 2, axis=1).reshape(3, *space, 5), backend.rtol)


def test_one_neuron_for_each_class_is_no_group():
    for loss, target in ((sx.SpikeMax(), [5, 0, 3]), (sx.SpikeRate(1, 0, 2), [5, 0, 3])):
        grouped = dataclasses.replace(loss, num_classes=6)
        assert grouped(SPIKES, target) == loss(SPIKES, target)


# Rates, smoothing, temperature -------------------------------------------------------------------


@one_jax
def test_rates_for_each_class_by_hand(backend):
    # rates 3/4 and 1/4, 1/2 and 1; wanted 1 and 0, and 1/2 and 1/2
    loss = sx.SpikeRate((1, 0.5), (0.5, 0))
    value, gradient = Call(loss, TRAINS, LABEL).on(backend)
    close(value, 1 / 16 + 1 / 16 + 0 + 1 / 4, backend.rtol)
    slope = np.asarray([[-1 / 2, 1 / 2], [0, 1]]) / 4
    close(gradient, np.repeat(slope[..., None], 4, axis=-1), backend.rtol)
    for made in ([1, 0.5], np.asarray([1, 0.5])):
        assert sx.SpikeRate(made, (0.5, 0)) == loss
    assert hash(loss) == hash(sx.SpikeRate([1, 0.5], [0.5, 0]))
    assert eval(repr(loss), vars(sx)) == loss


@not_jax
@pytest.mark.parametrize("options", [{}, {"moving_window": 2}, {"readout": "count"}], ids=str)
@pytest.mark.parametrize("mode", ["probability", "softmax"])
def test_smoothing_is_a_share_of_every_label(backend, mode, options):
    plain = sx.SpikeMax(mode=mode, reduction="none", **options)
    smooth = dataclasses.replace(plain, label_smoothing=0.25)
    labels = [np.full(2, c) for c in range(2)]

    def run(spikes):
        return smooth(spikes, LABEL), *(plain(spikes, label) for label in (LABEL, *labels))

    got, own, *every = map(backend.numpy, backend.compiled(run)(backend.asarray(TRAINS)))
    close(got, 0.75 * own + 0.25 * sum(every) / 2, backend.rtol)


@not_jax
def test_temperature_divides_the_logits(backend):
    for options in ({}, {"readout": "max"}, {"moving_window": 2, "readout": "count"}):
        cold = sx.SpikeMax(mode="softmax", temperature=0.125, **options)
        value, gradient = Call(cold, TRAINS, LABEL).on(backend)
        hot = dataclasses.replace(cold, temperature=1)
        wanted, slope = Call(hot, 8 * TRAINS, LABEL).on(backend)
        close(value, wanted, backend.rtol)
        close(gradient, 8 * slope, backend.rtol)


@one_jax
def test_a_cold_softmax_of_rates_is_sure(backend):
    """Rates of 1 and 0 with ten classes: 1.46 nats, and next to none at a tenth of that."""
    spikes, label = np.zeros((1, 10, 4)), np.asarray([3])
    spikes[0, 3] = 1
    for temperature, nats in ((1, math.log1p(9 / math.e)), (0.0625, math.log1p(9 * math.exp(-16)))):
        loss = sx.SpikeMax(mode="softmax", temperature=temperature)
        value = backend.compiled(loss)(backend.asarray(spikes), label)
        # a small loss keeps its digits: to a thousand roundings of itself
        np.testing.assert_allclose(backend.numpy(value), nats, rtol=3 * backend.rtol)


# Sparsity ----------------------------------------------------------------------------------------

LAYER = np.zeros((2, 3, 4))
LAYER[:, 0] = 1  # saturated; the second neuron is silent
LAYER[0, 2] = [1, 0, -1, 0]  # 1/4 of the steps, whatever the sign


@one_jax
@pytest.mark.parametrize(
    ("loss", "value", "slope"),
    [
        # rates 1, 0 and 1/4: 5/12 in all
        (sx.SparsityEnforcer(0.5), 0, [0, 0, 0]),
        (sx.SparsityEnforcer(1 / 4), (1 / 6) ** 2, [1 / 72, 0, 1 / 72]),
        (sx.SparsityEnforcer(1, min_rate=0.75), (1 / 3) ** 2, [-1 / 36, -1 / 36, -1 / 36]),
        # each on its own: over 1/2 by 1/2; under 1/8 by 1/8; the mean of three, 8 entries each
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
def test_sparsity_by_hand(backend, loss, value, slope):
    """A silent neuron is pushed to fire where too little is counted, and nothing holds it back."""
    got, gradient = Call(loss, LAYER).on(backend)
    close(got, value, backend.rtol)
    # where too little is counted silence is worth as much as a spike would be
    sign = np.sign(LAYER)
    slope = np.asarray(slope)[:, None]
    sign = np.where((LAYER == 0) & (slope < 0), 1, sign)
    close(gradient, slope * sign, backend.rtol)


@not_jax
def test_sparsity_takes_every_layout(backend):
    random = np.random.default_rng(2)
    layer = random.normal(size=(3, 4, 2, 5)) * random.uniform(0, 1.5, size=(4, 2, 1))
    where = random.random((3, 5)) < 0.75
    loss = sx.SparsityEnforcer(0.625, min_rate=0.25, per="neuron")
    call = Call(loss, layer, where=where, lengths=np.asarray([5, 0, 3]))
    wanted, slopes = call.on(backend)
    close(wanted, reference.value(loss, layer, where=where, lengths=[5, 0, 3]), backend.rtol)
    for axis in (0, 1, 2, 3, -1):
        there = call.but(
            loss=dataclasses.replace(loss, time_axis=axis),
            spikes=np.moveaxis(layer, -1, axis),
            where=where.T if axis == 0 else where,
        )
        value, gradient = there.on(backend)
        close(value, wanted, backend.rtol)
        close(np.moveaxis(gradient, axis, -1), slopes, backend.rtol)


@one_jax
def test_sparsity_of_layers_is_their_sum(backend):
    loss = sx.SparsityEnforcer(0.25, min_rate=0.125, per="neuron")
    layers = [backend.asarray(x) for x in (LAYER, 2 * LAYER, LAYER[:, :2])]
    wanted = sum(reference.value(loss, x) for x in (LAYER, 2 * LAYER, LAYER[:, :2]))
    run = backend.compiled(lambda *layers: (loss(layers), loss(list(layers))))
    for total in run(*layers):
        close(backend.numpy(total), wanted, backend.rtol)
    for layer in layers:
        loss.append(layer)
    close(backend.numpy(loss.loss), wanted, backend.rtol)
    assert loss.__class__(0.25, min_rate=0.125, per="neuron").loss == 0  # a call keeps nothing


def test_sparsity_in_a_training_step_of_jax():
    with on("jax-x64") as backend:
        import jax

        loss = sx.SparsityEnforcer(0.25, min_rate=0.125, per="neuron")
        layers = [backend.asarray(LAYER), backend.asarray(2 * LAYER)]
        value, gradients = jax.jit(jax.value_and_grad(loss))(layers)
        each = [sx.value_and_grad(loss)(layer) for layer in layers]
        close(backend.numpy(value), sum(float(v) for v, _ in each), backend.rtol)
        for got, (_, wanted) in zip(gradients, each, strict=True):
            close(backend.numpy(got), backend.numpy(wanted), backend.rtol)
