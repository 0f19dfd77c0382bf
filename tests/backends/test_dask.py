"""Dask: losses and filters are lazy, and the gradient has the chunks of the spikes."""

import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.calls import example, moved, take_samples, with_everything
from _support.cases import close
from _support.contract import FORMS, LAYOUTS, ONE_OF_EACH, REDUCTIONS, STEPS
from spikeloss_xp import _tuning
from spikeloss_xp.backends._available import adapter
from spikeloss_xp.losses import TrainLoss
from spikeloss_xp.losses.with_target import TargetLoss

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")

CHUNKS = {  # of batch, neurons and time; the memory of the losses is 2 or 3 steps
    "whole": (-1, -1, -1),
    "batch": (1, -1, -1),
    "class": (-1, 3, -1),
    "empty": ((2, 0, 3), -1, (2, 0, 4)),
    "time": (2, 3, 4),
    "long and short": (-1, -1, (1, 2, 3)),
    "steps": (3, -1, (1,) * STEPS),
}
PIECES = (1, 10, 60, 1 << 18)
"""The entries of a piece: one step, a few, two samples, and a whole block."""
RTOL = 1e-12
SPIKES = (np.random.default_rng(0).random((2, 3, 5)) < 0.4).astype(float)
LABEL = np.asarray([2, 0])
LATENCY = sx.CrossEntropy(readout="latency", time_axis=-1)


def computed(*lazy):
    # In this thread, because `np.errstate` does not apply to the threads of a pool.
    with np.errstate(all="ignore"):
        return dask.compute(*lazy, scheduler="synchronous")


def compare(lazy, expected, rtol=RTOL):
    for of_dask, of_numpy in zip(computed(*lazy), expected, strict=True):
        close(of_dask, of_numpy, rtol)


def in_chunks(x, time):
    """Return an array with its time axis in chunks, and empty chunks, as a selection leaves one."""
    x = np.asarray(x)
    return da.from_array(x, chunks=[time if n == STEPS else (0, n) for n in x.shape])


EVALUATIONS = [  # each of these forms with some of the chunks, and all else in turn
    (form, chunks, REDUCTIONS[(i + j) % 4], [*LAYOUTS][(i + j // 2) % 3], PIECES[(i // 3 + j) % 4])
    for i, form in enumerate(ONE_OF_EACH)
    for j, chunks in enumerate(CHUNKS)
    if (i + j) % 3 == 0
]


@pytest.mark.slow(but=12)  # each of the chunks
@pytest.mark.parametrize(("form", "chunks", "reduction", "time_axis", "entries"), EVALUATIONS)
def test_value_and_gradient_equal_numpy(
    form, chunks, reduction, time_axis, entries, monkeypatch, no_compute
):
    batch, neurons, time = CHUNKS[chunks]
    for make, as_given in ((example, lambda x, _: x.tolist()), (with_everything, in_chunks)):
        # What is read of masked groups depends on the segment: see tests/losses/test_segments.py.
        whole = make is with_everything and "groups" in form and "SpikeMax" in form
        monkeypatch.setattr(_tuning, "CHUNK", PIECES[-1] if whole else entries)
        call = make(FORMS[form])
        if call.target is not None:
            call = call.with_loss_options(reduction=reduction)
        call = moved(call, time_axis)
        targets = () if call.target is None else (call.target,)
        evaluate = sx.value_and_grad(call.loss)
        expected = evaluate(call.spikes, *targets, cotangent=call.cotangent, **call.options)
        sizes = [batch, neurons]
        sizes.insert(time_axis % 3, time)
        spikes = da.from_array(call.spikes, chunks=tuple(sizes))
        given = [as_given(x, time) for x in targets]
        options = {name: in_chunks(x, time) for name, x in call.options.items()}
        value, gradient = evaluate(spikes, *given, cotangent=call.cotangent, **options)
        called = call.loss(spikes, *given, **options)
        compare((value, gradient, called), (*expected, expected[0]))
        assert value.dtype == gradient.dtype == call.spikes.dtype
        assert gradient.chunks == spikes.chunks


def test_layers_times_masks_of_steps_and_predictions_equal_numpy(no_compute):
    predicting = (
        sx.SpikeMax(time_axis=-1),
        sx.SpikeMax(moving_window=2, time_axis=-1),
        LATENCY,
    )
    first = sx.value_and_grad(sx.times.CrossEntropy(temperature=1.0, silent_time=9.0))
    paired = [sx.times.SpikeTime(time_constant=3.0), sx.times.VictorPurpura(cost=0.35)]

    def outputs(spikes):
        yield sx.SparsityEnforcer(0.25, time_axis=-1)([spikes, 2 * spikes])
        yield from first(3 + spikes[:, :, 0], LABEL, where=[True, False])
        for loss in map(sx.value_and_grad, paired):
            yield from loss(3 + spikes[:, :, :2], 4 - SPIKES, weight=[0.5, 1.0, 3.0])
        pixels, weight = (spikes[:, :, None], SPIKES[:, :, None]), [0.5, 1.0, 3.0]
        yield from sx.value_and_grad(sx.BernoulliNLL(time_axis=-1))(*pixels, weight=weight)
        yield sx.SpikeMax(moving_window=2, reduction="mean", time_axis=-1)(
            spikes, LABEL, where=SPIKES[:, 0] == 0
        )
        yield from (loss.predict(spikes, per_step=loss.per_step) for loss in predicting)
        yield from (loss.accuracy(spikes, LABEL) for loss in predicting)

    compare(outputs(da.from_array(SPIKES, chunks=(1, 2, 2))), outputs(SPIKES))


@dataclass(frozen=True)
class Cumulative(TrainLoss):
    """A loss whose own readout reads all earlier steps."""

    def read(self, trains):
        u = np.cumsum(trains.values, axis=trains.time.index)
        return trains.reading(u), lambda cotangent: cotangent

    def criterion(self, reading, labels):
        return (reading.u - labels.numbers) ** 2, None


def test_own_readout_without_a_known_memory_reads_whole_trains():
    loss, spikes = Cumulative(time_axis=-1), np.ones((2, 3, 8))
    in_time = da.from_array(spikes, chunks=(1, 3, 4))
    assert loss.memory is None
    compare([loss(in_time, 0 * spikes)], [loss(spikes, 0 * spikes)])


@pytest.mark.parametrize("window", [None, 2])
def test_mask_has_one_meaning_in_each_block(window, no_compute):
    """A mask of steps in a block of as many samples, and masks of samples and of both."""
    # batch, time, class, space
    spikes = (np.random.default_rng(0).random((8, 4, 3, 2)) < 0.5).astype(float)
    loss, label = sx.CrossEntropy(time_axis=1, moving_window=window), np.arange(8) % 6
    both = np.random.default_rng(1).random((8, 4)) < 0.5
    burn_in = np.asarray([True, False, False, True])
    steps = burn_in, burn_in[None], burn_in.tolist()
    for where in (*steps, both, both[:, 0], da.from_array(both)):
        (known,) = computed(where)
        expected = loss(spikes, label, where=known)
        for chunks in ((4, 4, 3, 2), (8, 2, 3, 2)):
            compare([loss(da.from_array(spikes, chunks=chunks), label, where=where)], [expected])
    two_steps, where = spikes[:, :2], np.random.default_rng(2).random((8, 2)) < 0.5
    loss = sx.CrossEntropy(time_axis=1)
    got = loss(da.from_array(two_steps[..., 0], chunks=(4, 2, 3)), label % 3, where=where)
    compare([got], [loss(two_steps[..., 0], label % 3, where=where)])


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_filters_keep_chunks(axis, no_compute):
    x = np.random.default_rng(3).normal(size=(7, 130, 3))
    lazy = da.from_array(x, chunks=(3, 50, 2))
    for run in (
        lambda x: sx.causal_filter(x, [1, 0.5, 0.25], time_axis=axis),
        lambda x: sx.moving_average(x, 40, time_axis=axis),
    ):
        assert run(lazy).chunks == lazy.chunks
        compare([run(lazy)], [run(x)])


@pytest.mark.parametrize(
    ("loss", "target"),
    [
        (sx.SpikeTime(time_constant=5, length=20, time_axis=-1), None),
        (sx.SpikeMax(time_axis=-1), 3),
    ],
)
def test_block_of_bool_is_not_widened_as_a_whole(loss, target):
    """A block of 6 MB takes 48 MB in float64; a piece of 2**18 entries takes 2 MB."""
    spikes = da.zeros((30, 20, 10_000), dtype=bool, chunks=-1)
    target = spikes if target is None else np.full(30, target)
    value = loss(spikes, target)
    tracemalloc.start()
    value.compute(scheduler="synchronous")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 24e6


def test_long_sample_is_cut_into_segments(monkeypatch):
    sizes, of_segment = [], TargetLoss.sum_and_weight

    def noted(self, input, *arguments, **options):
        sizes.append(input.shape)
        return of_segment(self, input, *arguments, **options)

    monkeypatch.setattr(TargetLoss, "sum_and_weight", noted)
    monkeypatch.setattr(_tuning, "CHUNK", 1000)
    spikes = da.ones((1, 10, 2000), dtype=bool, chunks=(1, 10, 1000))
    value, gradient = sx.value_and_grad(sx.SpikeTime(time_constant=2, length=6, time_axis=-1))(
        spikes, np.zeros((1, 10, 2000))
    )
    assert gradient.dtype == np.float64  # which Dask is told before anything is computed
    computed(value)
    assert max(sizes) == (1, 10, 105)
    assert len(sizes) == 20


@pytest.mark.parametrize(
    "form", ["SpikeTime", "SpikeMax-softmax-window", "CrossEntropy-probabilities-count"]
)
def test_task_count_grows_with_chunks_and_not_with_time(form):
    def task_count(chunks, steps):
        call = take_samples(example(FORMS[form]), [0, 1] * chunks)
        spikes = da.zeros((*call.spikes.shape[:2], steps), chunks=(2, -1, -1))
        target = spikes if form == "SpikeTime" else call.target
        _, gradient = sx.value_and_grad(call.loss)(spikes, target)
        return len(gradient.dask)

    assert task_count(8, 1000) <= 8 * 10
    # Above 2, because the number of tasks in a tree reduction is not proportional to the chunks.
    assert task_count(16, 1000) <= 2.1 * task_count(8, 1000)
    assert task_count(8, 1000) == task_count(8, 10)


def test_label_or_length_out_of_range_raises_at_the_call_or_when_it_is_computed():
    lazy = da.from_array(SPIKES, chunks=(1, 3, 5))
    with pytest.raises(ValueError, match="target must be between 0 and 2"):
        sx.SpikeMax(time_axis=-1)(lazy, [0, 3])
    for value in sx.value_and_grad(sx.SpikeMax(time_axis=-1))(lazy, da.asarray([0, 3])):
        with pytest.raises(ValueError, match="target must be between 0 and 2"):
            computed(value)
    terms = sx.SpikeMax(reduction="none", time_axis=-1)(lazy, da.asarray([0, 3]))
    np.testing.assert_array_equal(np.isnan(computed(terms)[0]), [False, True])
    for chunks in (5, 2):
        lazy = da.from_array(SPIKES, chunks=(2, 3, chunks))
        value = sx.SpikeMax(moving_window=2, time_axis=-1)(lazy, LABEL, lengths=da.asarray([5, 6]))
        with pytest.raises(ValueError, match="lengths must be between 0 and 5"):
            computed(value)


def test_chunks_of_unknown_size_raise():
    spikes = da.from_array(SPIKES, chunks=(1, 3, 5))
    unknown = spikes[spikes.sum(axis=(1, 2)) > 0]
    for arguments in ((unknown, LABEL), (spikes, da.asarray(LABEL)[da.asarray(LABEL) >= 0])):
        with pytest.raises(ValueError, match=r"unknown size: call compute_chunk_sizes\(\) on it"):
            sx.SpikeMax(time_axis=-1)(*arguments)
    known = unknown.compute_chunk_sizes()
    compare(
        [sx.SpikeMax(time_axis=-1)(known, LABEL)],
        [sx.SpikeMax(time_axis=-1)(SPIKES, LABEL)],
    )


def test_dask_is_available_and_consistent():
    functions, values = adapter("dask"), np.zeros(3)
    assert sx.backends.available()["dask"].devices == ("cpu",)
    lazy = functions.from_host(values, "cpu")
    assert functions.concrete_or_none(lazy) is None
    values[:] = 1
    np.testing.assert_array_equal(functions.to_host(lazy), np.zeros(3))
    sx.testing.assert_consistent(
        sx.SpikeMax(moving_window=2, time_axis=-1),
        SPIKES,
        LABEL,
        backends=["dask"],
    )
