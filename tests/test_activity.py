"""Rates and operations as sums: exact, the same in every library, and additive."""

import copy
import functools
import math
import operator
import pickle

import numpy as np
import pytest

import spikeloss_xp as sx

random = np.random.default_rng(0)
SHAPE = SAMPLES, *SPACE, STEPS = 9, 6, 4, 20
VALUES = random.choice([1, -1, 2, 0.5, 0.9999999], SHAPE)
RATES = np.linspace(0.05, 0.5, SAMPLES)[:, None, None, None]
SPIKES = ((random.random(SHAPE) < RATES) * VALUES).astype("float32")
LENGTHS = np.asarray([20, 3, 0, 7, 12, 20, 1, 19, 5])
CONNECTIONS = random.integers(0, 2**40, SPACE)
LAYERS = {"hidden": SPIKES, "output": SPIKES[:, :2]}
OPTIONS = {"time_axis": -1, "connections": {"hidden": CONNECTIONS}}


def by_hand(spikes, lengths, connections):
    """Return events, active entries, entries, samples and operations, with Python's integers."""
    events, active, entries, operations = 0.0, 0, 0, 0
    for sample, length in zip(spikes.astype(float), lengths, strict=True):
        for place in np.ndindex(*sample.shape[:-1]):
            train = np.abs(sample[place][:length])
            train = np.where(np.abs(train - 1) < 0.01, 1, train)
            fires = int((train != 0).sum())
            events, active, entries = events + train.sum(), active + fires, entries + len(train)
            operations += fires * int(connections[place])
    return events, active, entries, int((np.asarray(lengths) > 0).sum()), operations


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_sums_are_those_of_plain_loops_in_every_library(backend, lengths):
    layers = {name: backend.asarray(x, "float32") for name, x in LAYERS.items()}
    found = sx.activity(layers, lengths=lengths, **OPTIONS).layers
    steps = [STEPS] * SAMPLES if lengths is None else lengths
    assert found["hidden"] == by_hand(SPIKES, steps, CONNECTIONS)
    assert found["hidden"].operations > 2**31
    assert found["output"] == (*by_hand(SPIKES[:, :2], steps, CONNECTIONS)[:4], None)


def test_sums_are_the_same_in_dask_and_nothing_is_computed_before(no_compute):
    dask, da = pytest.importorskip("dask"), pytest.importorskip("dask.array")
    layers = {name: da.from_array(x, chunks=4) for name, x in LAYERS.items()}
    counts = sx.activity(layers, lengths=LENGTHS, **OPTIONS)
    whole = counts + counts
    with dask.config.set(scheduler="synchronous"):
        expected = sx.activity(LAYERS, lengths=LENGTHS, **OPTIONS)
        assert whole.layers == (expected + expected).layers


@pytest.mark.parametrize("time_axis", [0, 1, 2])
def test_layout_has_no_effect(backend, time_axis):
    moved = backend.asarray(np.moveaxis(SPIKES, -1, time_axis), "float32")
    options = {"lengths": LENGTHS, "connections": CONNECTIONS}
    found = sx.activity(moved, time_axis=time_axis, **options)
    assert found.layers == sx.activity(SPIKES, time_axis=-1, **options).layers


def test_sums_are_exact_beyond_the_integers_of_float32_and_int32(backend):
    steps = 20_011
    spikes = backend.asarray(np.full((1, 3, steps), 1001.0), "float32")
    counts = sx.activity(spikes, time_axis=-1, connections=[1, 10**6, 7])
    for _ in range(8):
        counts = counts + counts
    (layer,) = counts.layers.values()
    assert 3 * 1001 * steps != int(np.float32(3 * 1001 * steps))
    assert layer[:4] == (256 * 3 * 1001 * steps, *[256 * 3 * steps] * 2, 256)
    assert layer.operations == 256 * steps * 1_000_008 < 2**53


def test_batches_and_pieces_add_up_and_a_mean_of_rates_does_not(backend):
    def counts(part):
        return sx.activity(
            {name: backend.asarray(x[part], "float32") for name, x in LAYERS.items()},
            lengths=LENGTHS[part],
            **OPTIONS,
        )

    whole, parts = counts(slice(None)), [counts(slice(*x)) for x in ((0, 5), (5, 8), (8, 9))]
    for added in (sum(parts), functools.reduce(operator.add, parts)):
        assert added.layers == whole.layers
        assert added.scalars() == whole.scalars()
    assert abs(np.mean([each.rate for each in parts]) - whole.rate) > 0.01


def test_padding_has_no_effect():
    one_by_one = [
        sx.activity({name: x[[i], ..., :n] for name, x in LAYERS.items()}, **OPTIONS)
        for i, n in enumerate(LENGTHS)
        if n
    ]
    padded = {name: x.copy() for name, x in LAYERS.items()}
    for i, n in enumerate(LENGTHS):
        for x in padded.values():
            x[i, ..., n:] = np.nan
    found = sx.activity(padded, lengths=LENGTHS, **OPTIONS)
    assert found.layers == sum(one_by_one).layers
    where = np.arange(STEPS) < LENGTHS[:, None]
    assert sx.activity(padded, where=where, **OPTIONS).layers == found.layers


def test_compiled_function_returns_and_adds_sums():
    jax = pytest.importorskip("jax")
    layers = {name: jax.numpy.asarray(x) for name, x in LAYERS.items()}
    counts = jax.jit(lambda layers: sx.activity(layers, **OPTIONS))(layers)
    expected = sx.activity(LAYERS, **OPTIONS)
    assert counts.layers == expected.layers

    def add(total, _):
        return total + counts, None

    total, _ = jax.lax.scan(add, counts, None, length=3)
    assert total.layers == sum([expected] * 4).layers
    with pytest.raises(TypeError, match="traced"):
        jax.jit(lambda layers: sx.activity(layers, **OPTIONS).rate)(layers)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_entry_that_is_no_number_of_spikes_gives_nan(backend, bad):
    spikes = SPIKES.copy()
    spikes[0, 0, 0, 0] = bad
    counts = sx.activity(backend.asarray(spikes, "float32"), time_axis=-1, connections=3)
    (layer,) = counts.layers.values()
    assert np.isnan([layer.rate, layer.sparsity, layer.operations_per_sample]).all()
    assert not counts.scalars()


def test_invalid_length_raises_or_gives_nan(backend):
    lengths = backend.asarray(np.where(LENGTHS == 7, 21, LENGTHS))
    spikes = backend.asarray(SPIKES, "float32")
    if backend.reads_values:
        with pytest.raises(ValueError, match="lengths must be between 0 and 20"):
            sx.activity(spikes, time_axis=-1, lengths=lengths)
    else:
        assert np.isnan(sx.activity(spikes, time_axis=-1, lengths=lengths).rate)


def test_numbers_of_the_whole_network():
    counts = sx.activity(LAYERS, time_axis=-1, connections={"hidden": 10, "output": 2})
    hidden, output = counts.layers.values()
    entries = hidden.entries + output.entries
    assert counts.rate == (hidden.events + output.events) / entries
    assert counts.sparsity == 1 - (hidden.active + output.active) / entries
    operations = (10 * hidden.active + 2 * output.active) / SAMPLES
    assert counts.operations_per_sample == pytest.approx(operations, rel=1e-15)
    assert sx.activity(LAYERS, time_axis=-1).operations_per_sample is None
    table = str(counts).splitlines()
    assert [line.split()[0] for line in table] == ["layer", "hidden", "output", "network"]
    assert len({len(line) for line in table}) == 1
    nothing = sx.activity(LAYERS, time_axis=-1, where=np.zeros(SAMPLES, bool))
    assert math.isnan(nothing.rate)
    assert sx.activity({"a b": SPIKES}, time_axis=-1).scalars()["a_b/rate"] == hidden.rate


@pytest.mark.parametrize(
    ("spikes", "options", "message"),
    [
        ({}, {}, "at least one layer"),
        (SPIKES[0, 0], {}, "spikes must have a batch, a neuron and a time axis"),
        ({"a": SPIKES}, {"connections": {"b": 1}}, "names of layers, such as 'a'"),
        ({"a": SPIKES}, {"connections": 3}, "names of layers, such as 'a'"),
        (SPIKES, {"connections": 0.5}, "whole numbers of at least 0"),
        (SPIKES, {"connections": -1}, "whole numbers of at least 0"),
        (SPIKES, {"connections": np.inf}, "whole numbers of at least 0, and at most"),
        (SPIKES, {"connections": 2.0**62}, "whole numbers of at least 0, and at most"),
        ({0: SPIKES, "0": SPIKES}, {}, "different names as text"),
        (SPIKES, {"connections": [1, 2]}, r"shape \(\) .* or \(6, 4\)"),
        (SPIKES, {"lengths": [1]}, r"lengths must hold integers of shape \(9,\)"),
    ],
)
def test_wrong_arguments_raise(spikes, options, message):
    with pytest.raises(ValueError, match=message):
        sx.activity(spikes, time_axis=-1, **options)


def test_pickled_activity_is_the_same(backend):
    """Fractions of a spike need 64 bits, which JAX does not restore by itself."""
    counts = sx.activity(backend.asarray(np.full((5, 4, 3), 2.5), "float32"), time_axis=0)
    for same in (pickle.loads(pickle.dumps(counts)), copy.deepcopy(counts)):
        assert same.layers == counts.layers
        assert (same + counts).rate == counts.rate == 2.5


def test_sums_of_different_layers_cannot_be_added():
    counts = sx.activity(LAYERS, time_axis=-1)
    for other in (sx.activity(SPIKES, time_axis=-1), sx.activity(LAYERS, **OPTIONS)):
        with pytest.raises(ValueError, match="same layers"):
            counts + other
    with pytest.raises(TypeError):
        counts + 1
