"""The losses on spike times, compared with formulas that are evaluated in 60 digits."""

import dataclasses
import decimal
import functools
import math
import pickle
from decimal import Decimal
from itertools import chain

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.calls import run
from _support.cases import close, reduced
from spikeloss_xp import _tuning
from spikeloss_xp.distances import van_rossum, victor_purpura

decimal.getcontext().prec = 60
STEP = Decimal("1e-18")  # of a difference quotient, whose error is about its square

ENTROPY = sx.times.CrossEntropy(temperature=2.5, silent_time=12.0)
LATENCY = sx.times.SpikeLatency(true_time=1.0, false_time=9.5, silent_time=12.0, tolerance=0.25)
ROSSUM = sx.times.SpikeTime(time_constant=2.5)
VICTOR = sx.times.VictorPurpura(cost=0.35)
GROUPS = {"num_classes": 3}
LOSSES = {
    "entropy": ENTROPY,
    "entropy-smooth-groups": dataclasses.replace(ENTROPY, label_smoothing=0.125, **GROUPS),
    "entropy-probabilities": ENTROPY,
    "latency": LATENCY,
    "latency-silent": dataclasses.replace(LATENCY, false_time=None, true_time=-2.0, **GROUPS),
    "latency-times-groups": dataclasses.replace(LATENCY, **GROUPS),
    "rossum": ROSSUM,
    "victor": VICTOR,
}
NO_SPIKE = (math.nan, math.inf, -math.inf)


def first_times(loss, times):
    """Return the earliest time of each class, ``[batch, class]``."""
    classes = loss.num_classes or len(times[0])
    size = len(times[0]) // classes
    starts, silent = range(0, classes * size, size), Decimal(loss.silent_time)
    return [[min([silent, *chain(*sample[i : i + size])]) for i in starts] for sample in times]


def entropy_terms(loss, times, target, weight):
    """Yield each term with its weight."""
    for first, label in zip(first_times(loss, times), target, strict=True):
        logit = [-t / Decimal(loss.temperature) for t in first]
        largest = max(logit)
        total = largest + sum((z - largest).exp() for z in logit).ln()
        q = label
        if np.ndim(label) == 0:
            if label == loss.ignore_index:
                yield Decimal(0), Decimal(0)
                continue
            q = [Decimal(int(c == label)) for c in range(len(logit))]
        mass, smoothing = sum(q), Decimal(loss.label_smoothing)
        spread = [(1 - smoothing) * each + smoothing * mass / len(q) for each in q]
        term = sum(w * p * (total - z) for w, p, z in zip(weight, spread, logit, strict=True))
        yield term, sum(w * each for w, each in zip(weight, q, strict=True))


def latency_terms(loss, times, target, weight):
    late = loss.silent_time if loss.false_time is None else loss.false_time
    for first, label in zip(first_times(loss, times), target, strict=True):
        for c, time in enumerate(first):
            if np.ndim(label):
                wanted, own = label[c], weight[c]
            else:
                wanted = Decimal(loss.true_time if c == label else late)
                own = Decimal(0) if label == loss.ignore_index else weight[label]
            far = max(abs(time - wanted) - Decimal(loss.tolerance), Decimal(0))
            yield own * far * far, own


def rossum_distance(loss, x, y):
    def product(a, b):
        return sum((-abs(t - u) / Decimal(loss.time_constant)).exp() for t in a for u in b)

    return product(x, x) - 2 * product(x, y) + product(y, y)


def victor_distance(loss, x, y):
    x, y, cost = sorted(x), sorted(y), Decimal(loss.cost)

    @functools.cache
    def edits(i, j):
        if not i or not j:
            return Decimal(i + j)
        matched = edits(i - 1, j - 1) + cost * abs(x[i - 1] - y[j - 1])
        return min(edits(i - 1, j) + 1, edits(i, j - 1) + 1, matched)

    return edits(len(x), len(y))


def paired_terms(loss, times, target, weight):
    distance = rossum_distance if isinstance(loss, sx.times.SpikeTime) else victor_distance
    for sample, wanted in zip(times, target, strict=True):
        for x, y in zip(sample, wanted, strict=True):
            yield distance(loss, x, y), Decimal(1)


FORMULAS = {
    "CrossEntropy": entropy_terms,
    "SpikeLatency": latency_terms,
    "SpikeTime": paired_terms,
    "VictorPurpura": paired_terms,
}


def exact(x):
    """Return an array as nested lists of `Decimal`; of spikes without their padding."""
    if np.ndim(x) < 3:
        return [exact(row) for row in x] if np.ndim(x) else Decimal(float(x))
    return [[[Decimal(float(t)) for t in train if math.isfinite(t)] for train in s] for s in x]


def mean(loss, times, target):
    """Return the weighted mean of the terms, for class weights of 1."""
    classes = getattr(loss, "num_classes", None) or len(times[0])
    terms = list(FORMULAS[type(loss).__name__](loss, times, target, [Decimal(1)] * classes))
    return sum(term for term, _ in terms) / (sum(own for _, own in terms) or 1)


def gradient(loss, times, target):
    """Return the gradient of the mean at each entry of an array of times."""
    spikes, slopes = exact(times), np.zeros(times.shape)
    for b, c in np.ndindex(times.shape[:2]):
        for k, place in enumerate(np.flatnonzero(np.isfinite(times[b, c]))):
            values = []
            for step in (STEP, -STEP):
                spikes[b][c][k] += step
                values.append(mean(loss, spikes, target))
                spikes[b][c][k] -= step
            slopes[b, c, place] = float((values[0] - values[1]) / (2 * STEP))
    return slopes


def padded(random, shape):
    """Return spike times on a grid, so that some are equal, with padding anywhere."""
    times = random.integers(-24, 112, size=shape) / 8
    place = np.arange(shape[2])
    times += np.where(place < 2, 0, place / 64)  # no more than two are equal
    times += np.arange(shape[1])[:, None] % 2 / 32
    for no_spike in NO_SPIKE:
        times[random.random(shape) < 0.12] = no_spike
    times[0, 0] = math.nan  # silent
    return np.where(times == 12, 11, times)  # the derivative has a jump at the silent time


def example(name, batch=4):
    """Return spike times and a target, and how the formulas take the target."""
    random = np.random.default_rng(0)
    times, loss = padded(random, (batch, 6, 4)), LOSSES[name]
    if name in ("rossum", "victor"):
        target = padded(random, (batch, 6, 3))
        return times + 1 / 128, target, exact(target)
    classes = loss.num_classes or 6
    if name == "entropy-probabilities":
        target = random.random((batch, classes)) * (random.random((batch, classes)) < 0.7)
    elif name.startswith("latency-times"):
        target = random.integers(-24, 96, size=(batch, classes)) / 8
    else:
        target = random.integers(classes, size=batch)
        target[-1] = loss.ignore_index
        return times, target, target
    return times, target, exact(target)


def masks(name, batch=4):
    """Return a mask of the samples and, if the loss takes them, class weights."""
    options = {"where": np.arange(batch) != 1}
    if name not in ("rossum", "victor"):
        classes = LOSSES[name].num_classes or 6
        options["weight"] = np.linspace(0.5, 2, classes)
    return options


@functools.cache
def evaluated(name):
    """Return the mean and its gradient, by the formulas."""
    times, _, wanted = example(name)
    return float(mean(LOSSES[name], exact(times), wanted)), gradient(LOSSES[name], times, wanted)


@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_equal_60_digits(backend, name):
    """At ties and with all kinds of padding; masks and weights are those of the random calls."""
    times, target, _ = example(name)
    value, slopes = run(backend, sx.value_and_grad(LOSSES[name]), times, target)
    expected = evaluated(name)
    np.testing.assert_allclose(value, expected[0], rtol=backend.rtol)
    close(slopes, expected[1], backend.rtol)


@pytest.mark.parametrize("name", LOSSES)
def test_two_axes_are_one_spike_of_each_class(backend, name):
    times, target, _ = example(name)
    flat = np.ascontiguousarray(times[..., 1])
    if name in ("rossum", "victor"):
        target = np.ascontiguousarray(target[..., 0])
    call = sx.value_and_grad(LOSSES[name])
    value, slopes = run(backend, call, flat, target, **masks(name))
    expected = run(backend, call, flat[..., None], target, **masks(name))
    np.testing.assert_array_equal(value, expected[0])
    np.testing.assert_array_equal(slopes, expected[1][..., 0])
    assert np.isfinite(slopes).all()


@pytest.mark.parametrize("name", LOSSES)
def test_all_libraries_agree_at_ties_and_at_padding(name):
    times, target, _ = example(name)
    times = np.round(times)  # many of the first spikes are equal, and so are edits
    target = np.round(target) if name in ("rossum", "victor") else target
    for dtype in ("float64", "float32"):
        arrays = times.astype(dtype), target
        sx.testing.assert_consistent(LOSSES[name], *arrays, **masks(name))
    sx.testing.assert_consistent(reduced(LOSSES[name], "none"), times, target)


def test_only_the_silent_time_must_be_given():
    assert sx.times.CrossEntropy(silent_time=20.0).temperature == 1
    assert sx.times.SpikeLatency(silent_time=20.0).true_time == 0


def test_equal_first_spikes_share_the_gradient(backend):
    times = np.asarray([[[3.0, 3.0, 5.0], [3.0, 4.0, 3.0]], [[7.0, 9.0, 9.0], [8.0, 8.0, 8.0]]])
    loss = sx.times.SpikeLatency(true_time=1.0, silent_time=20.0, reduction="sum", num_classes=1)
    _, slopes = run(backend, sx.value_and_grad(loss), times, [0, 0])
    expected = [[[1, 1, 0], [1, 0, 1]], [[12, 0, 0], [0, 0, 0]]]  # 2 (3 - 1) in four shares
    np.testing.assert_allclose(slopes, expected, rtol=backend.rtol)


@pytest.mark.parametrize("late", [math.nan, math.inf, -math.inf, 12.0, 15.0])
def test_a_silent_label_is_finite_and_makes_the_other_classes_later(backend, late):
    times = np.asarray([[[late, math.nan], [4.0, late]]])
    value, slopes = run(backend, sx.value_and_grad(ENTROPY), times, [0])
    np.testing.assert_allclose(value, math.log1p(math.exp(8 / 2.5)), rtol=backend.rtol)
    assert slopes[0, 1, 0] < 0
    np.testing.assert_array_equal(slopes[0, :, 1], [0, 0])
    assert slopes[0, 0, 0] == 0


def test_no_spike_at_all(backend):
    times = np.full((2, 3, 2), math.nan)
    for loss, target, expected in (
        (ENTROPY, [0, 1], math.log(3)),
        (dataclasses.replace(LATENCY, false_time=None, tolerance=0.0), [0, 1], 121 / 3),
        (ROSSUM, times, 0),
        (VICTOR, np.asarray([[[1.0], [2.0], [math.inf]]] * 2), 2 / 3),
    ):
        value, slopes = run(backend, sx.value_and_grad(loss), times, np.asarray(target))
        np.testing.assert_allclose(value, expected, rtol=backend.rtol)
        np.testing.assert_array_equal(slopes, np.zeros(times.shape))


@pytest.mark.parametrize("chunk", [1, 60, 10**6])
def test_paired_losses_are_the_diagonal_of_all_pairs(chunk, monkeypatch):
    random = np.random.default_rng(3)
    times, target = padded(random, (3, 5, 7)), padded(random, (3, 5, 9))
    rows, wanted = times.reshape(15, 7), target.reshape(15, 9)
    victor = victor_purpura(rows, wanted, cost=0.35).diagonal().reshape(3, 5)
    options = {"time_constant": 2.5, "squared": True, "times": True}
    rossum = van_rossum(rows, wanted, **options).diagonal().reshape(3, 5)
    monkeypatch.setattr(_tuning, "PAIRS_CHUNK", chunk)
    np.testing.assert_allclose(reduced(VICTOR, "none")(times, target), victor, rtol=1e-13)
    np.testing.assert_allclose(reduced(ROSSUM, "none")(times, target), rossum, rtol=1e-13)
    expected = sx.value_and_grad(VICTOR)(times[:, :1], target[:, :1])[1] / 5
    np.testing.assert_allclose(sx.value_and_grad(VICTOR)(times, target)[1][:, :1], expected)


@pytest.mark.parametrize("loss", [ROSSUM, VICTOR], ids=["rossum", "victor"])
def test_equal_trains_have_the_distance_0_and_no_gradient(backend, loss):
    times = padded(np.random.default_rng(4), (3, 2, 6))
    value, slopes = run(backend, sx.value_and_grad(loss), times, times)
    assert abs(value) <= 20 * np.finfo(value.dtype).eps
    np.testing.assert_allclose(slopes, np.zeros(times.shape), atol=np.finfo(value.dtype).eps)


def test_one_spike_against_none_is_1(backend):
    none, one = np.full((1, 1, 1), math.inf), np.full((1, 1, 1), 3.0)
    for loss in (ROSSUM, VICTOR):
        assert run(backend, loss, one, none) == run(backend, loss, none, one) == 1


# Predictions, parts of a batch, and objects ---------------------------------------------------


def test_the_earliest_class_is_predicted(backend):
    times = np.asarray([[[9.0, 4.0], [5.0, 6.0]], [[math.nan] * 2] * 2, [[3.0, 3.0], [2.0, 9.0]]])
    for loss, expected in (
        (ENTROPY, [0, 0, 1]),
        (LATENCY, [0, 0, 1]),
        (sx.times.SpikeLatency(true_time=9.0, false_time=1.0, silent_time=12.0), [1, 0, 0]),
    ):
        predicted, flat = run(
            backend, lambda x, loss=loss: (loss.predict(x), loss.predict(x[..., 0])), times
        )
        np.testing.assert_array_equal(predicted, expected)
        assert flat.shape == (3,)
    counts, right = run(
        backend, lambda x, y: (ENTROPY.confusion(x, y), ENTROPY.accuracy(x, y)), times, [0, -100, 0]
    )
    np.testing.assert_array_equal(counts, [[1, 1], [0, 0]])
    assert right == 0.5


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("axes", [3, 2])
def test_dask_evaluates_blocks_of_samples(name, axes):
    da = pytest.importorskip("dask.array")
    times, target, _ = example(name)
    if axes == 2:
        times = times[..., 0]
    options, loss = masks(name), LOSSES[name]
    expected = sx.value_and_grad(loss)(times, target, **options)
    lazy = da.from_array(times, chunks=(2, *[3] * (axes - 1)))
    value, slopes = sx.value_and_grad(loss)(lazy, target, **options)
    assert slopes.chunks == lazy.chunks
    np.testing.assert_allclose(value.compute(scheduler="synchronous"), expected[0], rtol=1e-14)
    slopes = slopes.compute(scheduler="synchronous")
    np.testing.assert_allclose(slopes, expected[1], rtol=1e-13, atol=1e-17)


def test_objects_are_values_and_say_that_they_read_times():
    for loss in LOSSES.values():
        assert repr(loss).startswith(f"times.{type(loss).__name__}(")
        assert eval(repr(loss), {"times": sx.times}) == loss
        assert pickle.loads(pickle.dumps(loss)) == loss
        assert "time_axis" not in repr(loss)
    assert sx.CrossEntropy(time_axis=-1, readout="latency", temperature=2.5) != ENTROPY


# Transforms ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
def test_transforms_of_jax(name):
    jax = pytest.importorskip("jax")
    times, target, _ = example(name)
    loss = reduced(LOSSES[name], "sum")
    with jax.enable_x64(True):
        each = jax.vmap(jax.grad(lambda x, y: loss(x[None], y[None])))(
            times, jax.numpy.asarray(target)
        )
    np.testing.assert_allclose(
        each, sx.value_and_grad(loss)(times, target)[1], rtol=1e-12, atol=1e-15
    )


@pytest.mark.parametrize("name", ["entropy", "latency", "rossum"])
def test_second_derivatives_agree(name):
    jax, torch = pytest.importorskip("jax"), pytest.importorskip("torch")
    times, target, _ = example(name)
    loss, away = LOSSES[name], np.random.default_rng(5).random(times.shape)
    leaf = torch.tensor(times, requires_grad=True)
    (first,) = torch.autograd.grad(loss(leaf, torch.tensor(target)), leaf, create_graph=True)
    (second,) = torch.autograd.grad((first * torch.tensor(away)).sum(), leaf)
    with jax.enable_x64(True):
        slope = jax.jit(jax.grad(lambda x: loss(x, target)))
        _, expected = jax.jvp(slope, (jax.numpy.asarray(times),), (jax.numpy.asarray(away),))
    assert np.abs(second.numpy()).max() > 0
    close(second.numpy(), np.asarray(expected), 1e-12)


def test_jax_compiles_the_table_of_edits_as_one_loop():
    jax = pytest.importorskip("jax")
    sizes = []
    for spikes in (4, 40):
        times = np.ones((2, 3, spikes), "float32")
        traced = jax.make_jaxpr(jax.grad(lambda x, y: VICTOR(x, y)))(times, times)
        sizes.append(len(str(traced)))
    assert sizes[1] < 1.5 * sizes[0]  # the shapes have more digits


@pytest.mark.slow
@pytest.mark.parametrize("name", ["entropy", "entropy-smooth-groups", "latency", "rossum"])
def test_compiled_by_pytorch(name):
    torch = pytest.importorskip("torch")
    times, target, _ = example(name)
    leaf = torch.tensor(times, requires_grad=True)
    torch.compile(LOSSES[name], fullgraph=True)(leaf, torch.tensor(target)).backward()
    expected = sx.value_and_grad(LOSSES[name])(times, target)[1]
    np.testing.assert_allclose(leaf.grad.numpy(), expected, rtol=1e-12, atol=1e-15)


# Mistakes --------------------------------------------------------------------------------------

TIMES = np.asarray([[[1.0, 2.0], [3.0, math.nan]]])
TWELVE = np.ones((2, 3, 4))
LATE = functools.partial(dataclasses.replace, LATENCY)


@pytest.mark.parametrize("bad", [0, -1.0, math.nan, math.inf, "1", None])
@pytest.mark.parametrize(
    ("kind", "name", "rest"),
    [
        ("CrossEntropy", "temperature", {"silent_time": 1.0}),
        ("SpikeTime", "time_constant", {}),
        ("VictorPurpura", "cost", {}),
    ],
)
def test_scales_are_above_0_and_finite(kind, name, rest, bad):
    with pytest.raises((ValueError, TypeError), match=name):
        getattr(sx.times, kind)(**{name: bad, **rest})


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30, "1", None])
def test_the_silent_time_is_finite(bad):
    for make in (
        lambda: sx.times.CrossEntropy(temperature=1.0, silent_time=bad),
        lambda: sx.times.SpikeLatency(true_time=-1e17, silent_time=bad),
    ):
        with pytest.raises((ValueError, TypeError), match="silent_time"):
            make()


@pytest.mark.parametrize(
    ("mistake", "error", "words"),
    [
        (lambda: sx.times.CrossEntropy(temperature=1.0), TypeError, "silent_time"),
        (lambda: LATE(true_time=13.0), ValueError, "true_time must be at most"),
        (lambda: LATE(false_time=13.0), ValueError, "false_time must be at"),
        (lambda: ENTROPY(TIMES > 0, [0]), ValueError, "spike times.*got bool"),
        (lambda: ENTROPY(TIMES[0, 0], [0]), ValueError, r"\[batch, class, spike\]; got .*\(2,\)"),
        (lambda: ENTROPY(TIMES[None], [0]), ValueError, "got float64 of shape"),
        (lambda: ENTROPY([[1.0]], [0]), TypeError, "input must be an array"),
        (lambda: ENTROPY(TIMES[..., :0], [0]), ValueError, "no elements"),
        (lambda: ENTROPY(TIMES, [0], lengths=[2]), TypeError, "no lengths: NaN and infinity"),
        (lambda: ENTROPY(TIMES, [0], where=TIMES > 0), ValueError, r"where must have shape \(1,\)"),
        (lambda: ENTROPY.predict(TIMES, lengths=[2]), TypeError, "no lengths"),
        (lambda: ENTROPY(TIMES, [2]), ValueError, "between 0 and 1"),
        (lambda: ENTROPY(TIMES, [0, 1]), ValueError, r"got \(2,\)$"),
        (lambda: ENTROPY(TIMES, [0], weight=[1.0]), ValueError, r"one for each class; got \(1,\)$"),
        (lambda: ENTROPY(TWELVE, np.zeros((2, 4), int)), ValueError, r"got \(2, 4\)$"),
        (lambda: ENTROPY(TWELVE, [0, 0], weight=[1.0] * 4), ValueError, r"got \(4,\)$"),
        (lambda: LATENCY(TIMES, [[1.0, math.nan]]), ValueError, "spike times, finite"),
        (lambda: ENTROPY.sum_and_weight(TIMES, [0], context=1), ValueError, "context"),
        (lambda: ROSSUM(TIMES, [0]), ValueError, r"shape \(1, 2\), \[batch, class\]"),
        (lambda: ROSSUM(TIMES, TIMES[..., :0]), ValueError, r"got \(1, 2, 0\)"),
        (lambda: VICTOR(TIMES, TIMES[:, :1]), ValueError, "and the largest number of spikes"),
        (lambda: VICTOR(TIMES, TIMES > 0), TypeError, "target must hold spike times; got bool"),
        (lambda: VICTOR(TIMES, TIMES, weight=[1.0, 1.0]), TypeError, "takes no weight"),
        (lambda: ROSSUM(TIMES.astype("f"), TIMES * 1e300), ValueError, "infinite in the dtype"),
    ],
)
def test_mistakes_raise(mistake, error, words):
    with pytest.raises(error, match=words):
        mistake()


def test_arrays_of_another_library_raise():
    torch = pytest.importorskip("torch")
    for loss, target in ((ENTROPY, [0]), (VICTOR, TIMES)):
        with pytest.raises(TypeError, match="target must come from the library"):
            loss(TIMES, torch.tensor(target))


def test_integers_are_times(backend):
    value = run(backend, ENTROPY, np.asarray([[3, 5]]), np.asarray([0]))
    np.testing.assert_allclose(value, math.log1p(math.exp(-2 / 2.5)), rtol=1e-5)
