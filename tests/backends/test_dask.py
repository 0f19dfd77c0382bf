"""Dask: losses and filters are lazy, and the gradient keeps the chunks of the batch."""

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import cases, reference
from _support.cases import CASES, DESIRED, LABEL, SPIKES, close
from spikeloss_xp.backends._available import adapter

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")

CHUNKS = {"whole": (2, 3, 5), "batch": (1, 3, 5), "class": (2, 2, 5), "time": (1, 2, 2)}
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
            assert gradient.chunks[0] == lazy.chunks[0]
            if chunks in ("whole", "batch"):
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
        (sx.SpikeMoid(3), cases.MULTI_HOT),
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
    dask_options = {name: da.asarray(option) for name, option in options.items()}
    for given_options in (options, dask_options):
        on_dask = sx.value_and_grad(loss)(lazy, *targets, **given_options)
        for got, expected in zip(computed(*on_dask), on_numpy, strict=True):
            close(got, expected, RTOL)


def test_collected_terms_and_classifiers_equal_numpy(no_compute):
    spikes = SPIKES["binary"]
    lazy = da.from_array(spikes, chunks=(1, 3, 2))
    sparsity = sx.SparsityEnforcer(0.25)
    sparsity.append(lazy)
    sparsity.append(2 * lazy)
    close(
        computed(sparsity.loss)[0], sum(map(sx.SparsityEnforcer(0.25), (spikes, 2 * spikes))), RTOL
    )
    sparsity.clear()
    assert computed(sparsity.loss) == (0,)
    for classifier in (sx.Rate(), sx.MovingWindow(2), sx.Rate(mode="softmax")):
        close(computed(classifier.confidence(lazy))[0], classifier.confidence(spikes), RTOL)
        np.testing.assert_array_equal(computed(classifier(lazy))[0], classifier(spikes))


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

    assert task_count(8, 1000) <= 8 * 50
    # Above 2, because the number of tasks in a tree reduction is not proportional to the chunks.
    assert task_count(16, 1000) <= 2.1 * task_count(8, 1000)
    assert task_count(8, 1000) == task_count(8, 10)


def test_label_out_of_range_raises_on_host_and_gives_nan_if_lazy():
    lazy = da.from_array(SPIKES["graded"], chunks=(1, 3, 5))
    with pytest.raises(ValueError, match="target must be between 0 and 2"):
        sx.SpikeMax()(lazy, [0, 3])
    terms = sx.SpikeMax(reduction="none")(lazy, da.asarray([0, 3]))
    np.testing.assert_array_equal(np.isnan(computed(terms)[0]), [False, True])


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
