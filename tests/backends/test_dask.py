"""Dask: losses and filters are lazy, and the gradient has the chunks of the spikes."""

import dataclasses
import tracemalloc

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.calls import PER_STEP, WITH_TARGET, example, moved, with_everything
from _support.cases import close
from _support.contract import CLASSES, FORMS, LABELS, LAYOUTS, ONE_OF_EACH, REDUCTIONS, STEPS
from spikeloss_xp import _tuning
from spikeloss_xp.backends._available import adapter
from spikeloss_xp.losses import Loss

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")

CHUNKS = {  # of batch, neurons and time
    "whole": (-1, -1, -1),
    "batch": (1, -1, -1),
    "class": (-1, 3, -1),
    "time": (2, 3, 4),
    "empty": ((2, 0, 3), -1, (2, 0, 4)),
}
RTOL = 1e-12
SPIKES = (np.random.default_rng(0).random((2, 3, 5)) < 0.4).astype(float)
LABEL = np.asarray([2, 0])


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


def quick(cases, chosen):
    """Mark the cases as slow, but for some that are chosen by their first parameters."""
    number = len(chosen[0])
    return [c if c[:number] in chosen else pytest.param(*c, marks=pytest.mark.slow) for c in cases]


EACH_CHUNKS = (
    ("CrossEntropy-groups-cold-latency", "whole", example),
    ("SpikeMoid-groups-rate-window", "batch", with_everything),
    ("SpikeLatency-times-groups", "batch", with_everything),
    ("SpikeTime", "class", with_everything),
    ("CrossEntropy-groups-cold-count-window-per-step", "time", with_everything),
    ("CrossEntropy-probabilities-groups-cold-rate", "time", with_everything),  # of whole trains
    ("SpikeLatency-groups", "time", with_everything),
    ("SparsityEnforcer-min", "time", with_everything),
    ("SpikeRate-groups-rate-window-per-step", "empty", with_everything),
)
EVALUATIONS = [  # each form with each chunks, with masks or without and the reductions in turn
    (form, chunks, make, REDUCTIONS[(i + j) % len(REDUCTIONS)])
    for i, form in enumerate(FORMS)
    for j, chunks in enumerate(CHUNKS)
    for k, make in enumerate((example, with_everything))
    if (i // len(REDUCTIONS) + j + k) % 2 or (form, chunks, make) in EACH_CHUNKS
]


@pytest.mark.parametrize(("form", "chunks", "make", "reduction"), quick(EVALUATIONS, EACH_CHUNKS))
def test_value_and_gradient_equal_numpy(form, chunks, make, reduction, no_compute):
    call = make(FORMS[form])
    if call.target is not None:
        call = call.with_loss_options(reduction=reduction)
    targets = () if call.target is None else (call.target,)
    evaluate = sx.value_and_grad(call.loss)
    on_numpy = evaluate(call.spikes, *targets, cotangent=call.cotangent, **call.options)
    lazy = da.from_array(call.spikes, chunks=CHUNKS[chunks])
    lazily = {  # with an empty chunk, as a selection leaves one
        name: da.from_array(x, chunks=((0, len(x)), *x.shape[1:]))
        for name, x in call.options.items()
    }
    as_lists, as_arrays = [x.tolist() for x in targets], [da.asarray(x) for x in targets]
    for given, options in ((as_lists, call.options), (as_arrays, lazily)):
        value, gradient = evaluate(lazy, *given, cotangent=call.cotangent, **options)
        for got, expected in zip(computed(value, gradient), on_numpy, strict=True):
            close(got, expected, RTOL)
        assert value.dtype == gradient.dtype == call.spikes.dtype
        assert gradient.chunks == lazy.chunks


def test_terms_of_layers_and_classifiers_equal_numpy(no_compute):
    spikes, lazy = SPIKES, da.from_array(SPIKES, chunks=(1, 3, 2))
    sparsity = sx.SparsityEnforcer(0.25)
    close(computed(sparsity([lazy, 2 * lazy]))[0], sparsity([spikes, 2 * spikes]), RTOL)
    for classifier in (
        sx.Rate(time_axis=-1),
        sx.MovingWindow(2, time_axis=-1),
        sx.Rate(mode="softmax", time_axis=-1),
    ):
        close(computed(classifier.confidence(lazy))[0], classifier.confidence(spikes), RTOL)
        np.testing.assert_array_equal(computed(classifier(lazy))[0], classifier(spikes))
    for classifier in (
        sx.Rate(time_axis=-1),
        sx.Latency(time_axis=-1),
        sx.MovingWindow(2, time_axis=-1),
    ):
        close(computed(classifier.accuracy(lazy, LABEL))[0], classifier.accuracy(spikes, LABEL), 0)
    close(
        computed(sx.Latency(time_axis=-1).latency(lazy))[0],
        sx.Latency(time_axis=-1).latency(spikes),
        RTOL,
    )


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


EACH_SETTING = (
    *(("SpikeRate-groups-rate-window-per-step", 0), ("SpikeTime-order2", 0)),
    *(("SpikeMoid-groups-rate-window-per-step", -1), ("CrossEntropy-groups-cold-rate-window", 1)),
)


@pytest.mark.parametrize(
    ("form", "time_axis", "reduction", "time_chunks", "entries"), quick(CALLS, EACH_SETTING)
)
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


@pytest.mark.slow(but=3)
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
    sizes, of_segment = [], Loss.sum_and_weight

    def noted(self, input, *arguments, **options):
        sizes.append(input.shape)
        return of_segment(self, input, *arguments, **options)

    monkeypatch.setattr(Loss, "sum_and_weight", noted)
    monkeypatch.setattr(_tuning, "CHUNK", 1000)
    spikes = da.ones((1, 10, 2000), dtype=bool, chunks=(1, 10, 1000))
    value, gradient = sx.value_and_grad(sx.SpikeTime(2, 6))(spikes, np.zeros((1, 10, 2000)))
    assert gradient.dtype == np.float64  # which Dask is told before anything is computed
    computed(value)
    assert max(sizes) == (1, 10, 105)
    assert len(sizes) == 20


@pytest.mark.slow(but=3)
@pytest.mark.parametrize("form", [form for form in ONE_OF_EACH if form in WITH_TARGET])
def test_task_count_grows_with_chunks_and_not_with_time(form):
    loss, axes = FORMS[form].loss(), FORMS[form].target_axes
    dtype = int if FORMS[form].contract.target is LABELS else float

    def task_count(chunks, steps):
        sizes = {"batch": 2 * chunks, "class": CLASSES, "time": steps}
        spikes = da.zeros((2 * chunks, FORMS[form].neurons, steps), chunks=(2, -1, -1))
        target = np.zeros([sizes[axis] for axis in axes], dtype)
        target = spikes if isinstance(loss, sx.SpikeTime) else target
        _, gradient = sx.value_and_grad(loss)(spikes, target)
        return len(gradient.dask)

    assert task_count(8, 1000) <= 8 * 10
    # Above 2, because the number of tasks in a tree reduction is not proportional to the chunks.
    assert task_count(16, 1000) <= 2.1 * task_count(8, 1000)
    assert task_count(8, 1000) == task_count(8, 10)


def test_label_out_of_range_raises_at_the_call_or_when_it_is_computed():
    lazy = da.from_array(SPIKES, chunks=(1, 3, 5))
    with pytest.raises(ValueError, match="target must be between 0 and 2"):
        sx.SpikeMax()(lazy, [0, 3])
    for value in sx.value_and_grad(sx.SpikeMax())(lazy, da.asarray([0, 3])):
        with pytest.raises(ValueError, match="target must be between 0 and 2"):
            computed(value)
    terms = sx.SpikeMax(reduction="none")(lazy, da.asarray([0, 3]))
    np.testing.assert_array_equal(np.isnan(computed(terms)[0]), [False, True])


@pytest.mark.parametrize("chunks", [(2, 3, 5), (2, 3, 2)])
def test_length_out_of_range_raises_when_it_is_computed(chunks):
    lazy = da.from_array(SPIKES, chunks=chunks)
    value = sx.SpikeMax(2)(lazy, LABEL, lengths=da.asarray([5, 6]))
    with pytest.raises(ValueError, match="lengths must be between 0 and 5"):
        computed(value)


def test_chunks_of_unknown_size_raise():
    spikes = da.from_array(SPIKES, chunks=(1, 3, 5))
    unknown = spikes[spikes.sum(axis=(1, 2)) > 0]
    for arguments in ((unknown, LABEL), (spikes, da.asarray(LABEL)[da.asarray(LABEL) >= 0])):
        with pytest.raises(ValueError, match=r"unknown size: call its compute_chunk_sizes\(\)"):
            sx.SpikeMax()(*arguments)
    close(
        computed(sx.SpikeMax()(unknown.compute_chunk_sizes(), LABEL)),
        sx.SpikeMax()(SPIKES, LABEL),
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
    for loss, target in ((sx.SpikeTime(), SPIKES[::-1]), (sx.SpikeMax(2), LABEL)):
        sx.testing.assert_consistent(loss, SPIKES, target, backends=["dask"])
