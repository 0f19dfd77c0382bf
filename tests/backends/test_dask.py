"""Dask: nothing is computed before it is asked for, and the batch stays in its chunks."""

import cases
import numpy as np
import pytest
import reference
from cases import CASES, DESIRED, LABEL, SPIKES, close

import spikeloss_xp as sx
from spikeloss_xp.backends._available import adapter

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")

CHUNKS = {"whole": (2, 3, 5), "batch": (1, 3, 5), "class": (2, 2, 5), "time": (1, 2, 2)}
RTOL = 1e-12


@pytest.fixture
def not_computing():
    """Make everything an error that would compute."""

    def refuse(*_, **__):
        raise AssertionError("computed before it was asked for")

    with dask.config.set(scheduler=refuse):
        yield


def computed(*lazy):
    # In this thread: those of a pool do not see that NumPy was told not to warn.
    with np.errstate(all="ignore"):
        return dask.compute(*lazy, scheduler="synchronous")


def evaluations(name):
    """The loss with a reduction, its targets as this library takes them, and the cotangent."""
    loss, target = CASES[name]
    terms = reference.terms(loss, SPIKES["graded"], target)
    yield loss, target, None
    yield cases.reduced(loss, "mean"), da.asarray(target), None
    yield (
        cases.reduced(loss, "none"),
        target.tolist(),
        np.cos(np.arange(terms.size)).reshape(terms.shape),
    )


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_those_of_numpy(name, chunks, not_computing):
    for spikes in cases.trains(name).values():
        lazy = da.from_array(spikes, chunks=CHUNKS[chunks])
        for loss, target, cotangent in evaluations(name):
            evaluate = sx.value_and_grad(loss)
            wanted = evaluate(spikes, np.asarray(CASES[name][1]), cotangent=cotangent)
            value, gradient = evaluate(lazy, target, cotangent=cotangent)
            for got, expected in zip(computed(value, gradient), wanted, strict=True):
                close(got, expected, RTOL)
            assert value.dtype == gradient.dtype == spikes.dtype
            assert gradient.chunks[0] == lazy.chunks[0]
            if chunks in ("whole", "batch"):
                assert gradient.chunks == lazy.chunks


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
def test_masks_and_weights_are_those_of_numpy(loss, target, chunks, not_computing):
    spikes = SPIKES["graded"]
    options = {"lengths": np.asarray([4, 5]), "where": spikes > 0.4}
    if not isinstance(loss, sx.SpikeTime | sx.SparsityEnforcer):
        options["weight"] = np.asarray([1.0, 0.5, 2.0])[: getattr(loss, "num_classes", None)]
    targets = () if target is None else (target,)
    wanted = sx.value_and_grad(loss)(spikes, *targets, **options)
    lazy = da.from_array(spikes, chunks=CHUNKS[chunks])
    for given in (options, {name: da.asarray(option) for name, option in options.items()}):
        got = sx.value_and_grad(loss)(lazy, *targets, **given)
        for one, expected in zip(computed(*got), wanted, strict=True):
            close(one, expected, RTOL)


def test_collected_terms_and_classifiers_are_those_of_numpy(not_computing):
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
def test_filters_keep_the_chunks(axis, not_computing):
    x = np.random.default_rng(3).normal(size=(7, 130, 3))
    lazy = da.from_array(x, chunks=(3, 50, 2))
    for filtered, wanted in (
        (sx.causal_filter(lazy, [1, 0.5, 0.25], axis), sx.causal_filter(x, [1, 0.5, 0.25], axis)),
        (sx.moving_average(lazy, 40, axis), sx.moving_average(x, 40, axis)),
    ):
        assert filtered.chunks == lazy.chunks
        close(computed(filtered)[0], wanted, RTOL)


@pytest.mark.parametrize("name", CASES)
def test_tasks_grow_with_the_chunks_and_not_with_time(name):
    loss, _ = CASES[name]

    def tasks(blocks, steps):
        spikes = da.zeros((2 * blocks, 3, steps), chunks=(2, 3, -1))
        if isinstance(loss, sx.SpikeTime):
            target = spikes
        else:
            target = np.zeros((2 * blocks, 3) if isinstance(loss, sx.SpikeMoid) else 2 * blocks)
            target = target.astype(bool if isinstance(loss, sx.SpikeMoid) else int)
        _, gradient = sx.value_and_grad(loss)(spikes, target)
        return len(gradient.dask)

    assert tasks(8, 1000) <= 8 * 50
    assert tasks(16, 1000) <= 2.1 * tasks(8, 1000)  # a sum of many blocks is a tree
    assert tasks(8, 1000) == tasks(8, 10)


def test_a_label_of_the_host_is_checked_and_a_lazy_one_gives_nan():
    lazy = da.from_array(SPIKES["graded"], chunks=(1, 3, 5))
    with pytest.raises(ValueError, match="target must be between 0 and 2"):
        sx.SpikeMax()(lazy, [0, 3])
    terms = sx.SpikeMax(reduction="none")(lazy, da.asarray([0, 3]))
    np.testing.assert_array_equal(np.isnan(computed(terms)[0]), [False, True])


def test_what_comes_from_the_host_is_copied():
    values = np.zeros(3)
    found = adapter("dask")
    lazy = found.from_host(found.namespace("dask"), values, "cpu")
    values[:] = 1
    assert found.peek(lazy) is None
    host = found.to_host(lazy)
    np.testing.assert_array_equal(host, np.zeros(3))
    host[:] = 2
    np.testing.assert_array_equal(found.to_host(lazy), np.zeros(3))


def test_it_is_consistent_and_listed():
    assert sx.backends.available()["dask"].devices == ("cpu",)
    for loss, target in ((sx.SpikeTime(), DESIRED), (sx.SpikeMax(2), LABEL)):
        sx.testing.assert_consistent(loss, SPIKES["binary"], target, backends=["dask"])
