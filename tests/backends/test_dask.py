"""Dask: losses and filters are lazy, and the gradient has the chunks of the spikes."""

import dataclasses
import tracemalloc

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import cases, reference
from _support.calls import example, moved, with_everything
from _support.cases import CASES, DESIRED, LABEL, SPIKES, close
from _support.contract import FORMS, LAYOUTS, ONE_OF_EACH, STEPS
from spikeloss_xp import _tuning
from spikeloss_xp.backends._available import adapter
from spikeloss_xp.losses import Loss

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")

CHUNKS = {
    "whole": (2, 3, 5),
    "batch": (1, 3, 5),
    "class": (2, 2, 5),
    "time": (1, 2, 2),
    "empty": ((1, 0, 1), (0, 3), (2, 0, 3)),
}
RTOL = 1e-12


@pytest.fixture
def no_compute():
    """Raise an error if anything is computed with the default scheduler."""

    def refuse(*_, **__):
        raise AssertionError("computed before it was asked for")

    with dask.config.set(scheduler=refuse):
        yield


def computed(*lazy):
    # In this thread, because `np.errstate` does not apply to the threads of a pool.
    with np.errstate(all="ignore"):
        return dask.compute(*lazy, scheduler="synchronous")


def evaluations(name):
    """Yield a loss per reduction, with its target as an array or a list, and a cotangent."""
    loss, target = CASES[name]
    terms = reference.terms(loss, SPIKES["graded"], target)
    yield loss, target, None
    yield cases.reduced(loss, "mean"), da.asarray(target), None
    yield (
        cases.reduced(loss, "none"),
        target.tolist(),
        np.cos(np.arange(terms.size)).reshape(terms.shape),
    )


@pytest.mark.slow(but=13)
@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_equal_numpy(name, chunks, no_compute):
    for spikes in cases.trains(name).values():
        lazy = da.from_array(spikes, chunks=CHUNKS[chunks])
        for loss, target, cotangent in evaluations(name):
            evaluate = sx.value_and_grad(loss)
            on_numpy = evaluate(spikes, np.asarray(CASES[name][1]), cotangent=cotangent)
            value, gradient = evaluate(lazy, target, cotangent=cotangent)
            for got, expected in zip(computed(value, gradient), on_numpy, strict=True):
                close(got, expected, RTOL)
            assert value.dtype == gradient.dtype == spikes.dtype
            assert gradient.chunks == lazy.chunks


@pytest.mark.slow(but=12)
@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize(
    ("loss", "target"),
    [
        (sx.SpikeTime(2, 4, reduction="mean"), DESIRED),
        (sx.SpikeMax(3, label_smoothing=0.25, reduction="mean"), LABEL),
        (sx.SpikeMax(mode="softmax", readout="max", reduction="batchmean"), LABEL),
        (sx.SpikeRate(0.5, 0.25, readout="last", num_classes=1), np.asarray([-100, 0])),
        (sx.SpikeTime(kernel=(0.5, 1.0, -0.25), reduction="mean"), DESIRED),
        (sx.SpikeMax(mode="softmax", readout="softmax_sum"), LABEL),
        (sx.SpikeMoid(3, pos_weight=(0.5, 2.0, 1.0)), cases.MULTI_HOT),
        (sx.SpikeMoid(3), cases.MULTI_HOT),
        (sx.SpikeMax(mode="softmax", readout="latency", reduction="mean"), LABEL),
        (sx.SpikeLatency(tolerance=0.5, reduction="batchmean"), np.asarray([-100, 0])),
        (sx.SpikeLatency(), 5 * cases.SOFT),
        (sx.SparsityEnforcer(0.1, min_rate=0.05, per="neuron"), None),
    ],
    ids=lambda x: type(x).__name__,
)
def test_masks_and_weights_equal_numpy(loss, target, chunks, no_compute):
    spikes = SPIKES["graded"]
    options = {"lengths": np.asarray([4, 5]), "where": spikes > 0.4}
    if not isinstance(loss, sx.SpikeTime | sx.SparsityEnforcer):
        options["weight"] = np.asarray([1.0, 0.5, 2.0])[: getattr(loss, "num_classes", None)]
    targets = () if target is None else (target,)
    on_numpy = sx.value_and_grad(loss)(spikes, *targets, **options)
    lazy = da.from_array(spikes, chunks=CHUNKS[chunks])
    dask_options = {  # with an empty chunk, as a selection leaves one
        name: da.from_array(option, chunks=((0, len(option)), *option.shape[1:]))
        for name, option in options.items()
    }
    for given_options in (options, dask_options):
        on_dask = sx.value_and_grad(loss)(lazy, *targets, **given_options)
        for got, expected in zip(computed(*on_dask), on_numpy, strict=True):
            close(got, expected, RTOL)


def test_terms_of_layers_and_classifiers_equal_numpy(no_compute):
    spikes = SPIKES["binary"]
    lazy = da.from_array(spikes, chunks=(1, 3, 2))
    sparsity = sx.SparsityEnforcer(0.25)
    close(computed(sparsity([lazy, 2 * lazy]))[0], sparsity([spikes, 2 * spikes]), RTOL)
    for classifier in (sx.Rate(), sx.MovingWindow(2), sx.Rate(mode="softmax")):
        close(computed(classifier.confidence(lazy))[0], classifier.confidence(spikes), RTOL)
        np.testing.assert_array_equal(computed(classifier(lazy))[0], classifier(spikes))
    for classifier in (sx.Rate(), sx.Latency(), sx.MovingWindow(2)):
        close(computed(classifier.accuracy(lazy, LABEL))[0], classifier.accuracy(spikes, LABEL), 0)
    close(computed(sx.Latency().latency(lazy))[0], sx.Latency().latency(spikes), RTOL)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_filters_keep_chunks(axis, no_compute):
    x = np.random.default_rng(3).normal(size=(7, 130, 3))
    lazy = da.from_array(x, chunks=(3, 50, 2))
    for filtered, expected in (
        (sx.causal_filter(lazy, [1, 0.5, 0.25], axis), sx.causal_filter(x, [1, 0.5, 0.25], axis)),
        (sx.moving_average(lazy, 40, axis), sx.moving_average(x, 40, axis)),
    ):
        assert filtered.chunks == lazy.chunks
        close(computed(filtered)[0], expected, RTOL)


# Blocks ------------------------------------------------------------------------------------------

PER_STEP = [name for name in FORMS if "window" in name or "SpikeTime" in name]
SETTINGS = (  # a reduction, chunks of time, and entries of a piece; the memory is 2 or 3 steps
    ("sum", (1, 2, 3), 1),
    ("mean", (3, 3), 10),
    ("batchmean", (1,) * STEPS, 1 << 18),
)
CALLS = [  # each form in each layout, with the settings in turn
    (form, time_axis, *SETTINGS[(i + j) % len(SETTINGS)])
    for i, form in enumerate(PER_STEP)
    for j, time_axis in enumerate(LAYOUTS)
]


def in_chunks(call, time_chunks):
    """Return the arguments of a call as dask arrays, with time in chunks."""
    lazy = {}
    for name in ("spikes", "target", "where", "lengths", "weight"):
        x = getattr(call, name)
        if x is not None:
            x = np.asarray(x)
            chunks = [time_chunks if n == STEPS else -1 for n in x.shape]
            lazy[name] = da.from_array(x, chunks=chunks)
    return lazy


@pytest.mark.slow(but=12)
@pytest.mark.parametrize(("form", "time_axis", "reduction", "time_chunks", "entries"), CALLS)
def test_chunks_of_time_equal_numpy(
    form, time_axis, reduction, time_chunks, entries, monkeypatch, no_compute
):
    """With masks, lengths and weights; with pieces of one step, of a few, and of whole blocks."""
    monkeypatch.setattr(_tuning, "CHUNK", entries)
    for of_form in (example, with_everything):
        if of_form is with_everything and "groups" in form and "SpikeMax" in form:
            continue  # what is read depends on the segment: see tests/losses/test_segments.py
        call = moved(of_form(FORMS[form]), time_axis)
        loss = dataclasses.replace(call.loss, reduction=reduction)
        expected = sx.value_and_grad(loss)(call.spikes, call.target, **call.options)
        lazy = in_chunks(call, time_chunks)
        spikes, target = lazy.pop("spikes"), lazy.pop("target")
        for given_target, options in ((target, lazy), (call.target, call.options)):
            value, gradient = sx.value_and_grad(loss)(spikes, given_target, **options)
            got = computed(value, gradient, loss(spikes, given_target, **options))
            np.testing.assert_allclose(got[0], expected[0], rtol=RTOL)
            close(got[1], expected[1], RTOL)
            np.testing.assert_allclose(got[2], expected[0], rtol=RTOL)
            assert gradient.chunks == spikes.chunks


@pytest.mark.parametrize("form", ONE_OF_EACH)
def test_pieces_of_samples_equal_numpy(form, monkeypatch, no_compute):
    monkeypatch.setattr(_tuning, "CHUNK", 2 * STEPS * FORMS[form].neurons)
    call = with_everything(FORMS[form])
    targets = () if call.target is None else (call.target,)
    expected = sx.value_and_grad(call.loss)(call.spikes, *targets, **call.options)
    lazy = da.from_array(call.spikes, chunks=(3, -1, -1))
    got = computed(*sx.value_and_grad(call.loss)(lazy, *targets, **call.options))
    for of_dask, of_numpy in zip(got, expected, strict=True):
        close(of_dask, of_numpy, RTOL)


@pytest.mark.parametrize(
    ("loss", "target"),
    [(sx.SpikeTime(5, 20), None), (sx.SpikeMax(20, reduction="mean"), 3), (sx.SpikeMax(), 3)],
)
def test_block_of_bool_is_not_widened_as_a_whole(loss, target):
    """A block of 12 MB takes 96 MB in float64; a piece of 2**18 entries takes 2 MB."""
    spikes = da.zeros((60, 20, 10_000), dtype=bool, chunks=(60, 20, 10_000))
    target = spikes if target is None else np.full(60, target)
    value = loss(spikes, target)
    tracemalloc.start()
    value.compute(scheduler="synchronous")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 48e6


def test_long_sample_is_cut_into_segments(monkeypatch):
    sizes, of_segment = [], Loss.sum_and_weight

    def noted(self, input, *arguments, **options):
        sizes.append(input.shape)
        return of_segment(self, input, *arguments, **options)

    monkeypatch.setattr(Loss, "sum_and_weight", noted)
    monkeypatch.setattr(_tuning, "CHUNK", 1000)
    spikes = da.ones((1, 10, 2000), dtype=bool, chunks=(1, 10, 1000))
    computed(sx.SpikeTime(2, 6)(spikes, np.zeros((1, 10, 2000))))
    assert max(sizes) == (1, 10, 105)
    assert len(sizes) == 20


@pytest.mark.slow(but=8)
@pytest.mark.parametrize("name", CASES)
def test_task_count_grows_with_chunks_and_not_with_time(name):
    loss, _ = CASES[name]

    def task_count(chunks, steps):
        spikes = da.zeros((2 * chunks, 3, steps), chunks=(2, 3, -1))
        if isinstance(loss, sx.SpikeTime):
            target = spikes
        else:
            target = np.zeros((2 * chunks, 3) if isinstance(loss, sx.SpikeMoid) else 2 * chunks)
            target = target.astype(bool if isinstance(loss, sx.SpikeMoid) else int)
        _, gradient = sx.value_and_grad(loss)(spikes, target)
        return len(gradient.dask)

    assert task_count(8, 1000) <= 8 * 10
    # Above 2, because the number of tasks in a tree reduction is not proportional to the chunks.
    assert task_count(16, 1000) <= 2.1 * task_count(8, 1000)
    assert task_count(8, 1000) == task_count(8, 10)


def test_label_out_of_range_raises_at_the_call_or_when_it_is_computed():
    lazy = da.from_array(SPIKES["graded"], chunks=(1, 3, 5))
    with pytest.raises(ValueError, match="target must be between 0 and 2"):
        sx.SpikeMax()(lazy, [0, 3])
    for value in sx.value_and_grad(sx.SpikeMax())(lazy, da.asarray([0, 3])):
        with pytest.raises(ValueError, match="target must be between 0 and 2"):
            computed(value)
    terms = sx.SpikeMax(reduction="none")(lazy, da.asarray([0, 3]))
    np.testing.assert_array_equal(np.isnan(computed(terms)[0]), [False, True])


@pytest.mark.parametrize("chunks", [(2, 3, 5), (2, 3, 2)])
def test_length_out_of_range_raises_when_it_is_computed(chunks):
    lazy = da.from_array(SPIKES["graded"], chunks=chunks)
    value = sx.SpikeMax(2)(lazy, LABEL, lengths=da.asarray([5, 6]))
    with pytest.raises(ValueError, match="lengths must be between 0 and 5"):
        computed(value)


def test_chunks_of_unknown_size_raise():
    spikes = da.from_array(SPIKES["graded"], chunks=(1, 3, 5))
    unknown = spikes[spikes.sum(axis=(1, 2)) > 0]
    for arguments in ((unknown, LABEL), (spikes, da.asarray(LABEL)[da.asarray(LABEL) >= 0])):
        with pytest.raises(ValueError, match=r"unknown size: call its compute_chunk_sizes\(\)"):
            sx.SpikeMax()(*arguments)
    close(
        computed(sx.SpikeMax()(unknown.compute_chunk_sizes(), LABEL)),
        sx.SpikeMax()(SPIKES["graded"], LABEL),
        RTOL,
    )


def test_from_host_and_to_host_copy():
    values = np.zeros(3)
    dask_adapter = adapter("dask")
    lazy = dask_adapter.from_host(values, "cpu")
    values[:] = 1
    assert dask_adapter.concrete_or_none(lazy) is None
    host = dask_adapter.to_host(lazy)
    np.testing.assert_array_equal(host, np.zeros(3))
    host[:] = 2
    np.testing.assert_array_equal(dask_adapter.to_host(lazy), np.zeros(3))


def test_dask_is_available_and_consistent():
    assert sx.backends.available()["dask"].devices == ("cpu",)
    for loss, target in ((sx.SpikeTime(), DESIRED), (sx.SpikeMax(2), LABEL)):
        sx.testing.assert_consistent(loss, SPIKES["binary"], target, backends=["dask"])
