"""The losses on spike times, where the random calls do not reach: ties, late spikes, transforms.

`contract/test_differential.py` and `contract/test_properties.py` compare random calls of these
losses, with padding, masks and weights, with plain loops.
"""

import dataclasses
import functools
import math
import warnings

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.calls import Call, agree, not_jax, run
from _support.cases import close, reduced
from spikeloss_xp import _tuning

ENTROPY = sx.times.CrossEntropy(temperature=2.5, silent_time=12.0)
LATENCY = sx.times.SpikeLatency(true_time=1.0, false_time=9.5, silent_time=12.0, tolerance=0.25)
ROSSUM = sx.times.SpikeTime(time_constant=2.5)
VICTOR = sx.times.VictorPurpura(cost=0.35)
LOSSES = {
    "entropy": dataclasses.replace(ENTROPY, label_smoothing=0.125, num_classes=3),
    "latency": dataclasses.replace(LATENCY, num_classes=3),
    "rossum": ROSSUM,
    "victor": VICTOR,
}
PAIRED = ("rossum", "victor")
NO_SPIKE = (math.nan, math.inf, -math.inf)


def padded(random, shape):
    """Return spike times on a grid, of which some are equal and some after 12, with padding."""
    times = random.integers(-12, 56, size=shape) / 4
    for no_spike in NO_SPIKE:
        times[random.random(shape) < 0.12] = no_spike
    times[0, 0] = math.nan  # silent
    return np.where(times == 12, 11, times)  # the derivative has a jump at the silent time


def example(name):
    """Return spike times and a target."""
    random = np.random.default_rng(0)
    times = padded(random, (4, 6, 4))
    if name in PAIRED:
        return times, padded(random, (4, 6, 3))
    return times, np.asarray([0, 2, 1, -100])


def masks(name):
    """Return a mask of the samples and, if the loss takes them, class weights."""
    weight = {} if name in PAIRED else {"weight": np.asarray([0.5, 1.25, 2])}
    return {"where": np.arange(4) != 1, **weight}


@pytest.mark.parametrize("name", LOSSES)
def test_libraries_agree_with_numpy_at_ties_and_at_padding(backend, name):
    """Closed forms and automatic differentiation share the gradient of a tie in the same way."""
    times, target = example(name)
    for dtype in filter(backend.has, ("float64", "float32")):
        arrays = times.astype(dtype), target
        sx.testing.assert_consistent(
            LOSSES[name], *arrays, **masks(name), backends=[backend.library]
        )


@pytest.mark.parametrize("chunk", [1, 60, _tuning.PAIRS_CHUNK])
@pytest.mark.parametrize("name", PAIRED)
def test_gradient_at_ties_is_the_mean_of_both_sides(name, chunk, monkeypatch):
    """Of equal spikes of one train, and of spikes that coincide with one of the target."""
    monkeypatch.setattr(_tuning, "PAIRS_CHUNK", chunk)
    times, target = example(name)
    call = Call(reduced(LOSSES[name], "sum"), times, target)
    agree(call, sx.value_and_grad(call.loss)(times, target), 1e-12)


@not_jax
@pytest.mark.parametrize("name", ["entropy", "victor"])
def test_two_axes_are_one_spike_of_each_class(backend, name):
    times, target = example(name)
    flat, options = np.ascontiguousarray(times[..., 1]), masks(name)
    if name in PAIRED:
        target = np.ascontiguousarray(target[..., 0])
    call = sx.value_and_grad(LOSSES[name])
    value, slopes = run(backend, call, flat, target, **options)
    expected = run(backend, call, flat[..., None], target, **options)
    np.testing.assert_array_equal(value, expected[0])
    np.testing.assert_array_equal(slopes, expected[1][..., 0])
    assert np.isfinite(slopes).all()


def test_equal_times_share_an_edit_but_are_moved_in_order(backend):
    loss = sx.times.VictorPurpura(cost=0.5, reduction="sum")
    for target, expected in (([12.0], [0.25, 0.25]), ([12.0, 15.0], [0.5, -0.5])):
        arrays = np.asarray([[[13.0, 13.0]]]), np.asarray([[target]])
        _, gradient = run(backend, sx.value_and_grad(loss), *arrays)
        np.testing.assert_allclose(gradient, [[expected]], rtol=1e-6)


@pytest.mark.parametrize("swapped", [False, True])
def test_edits_evaluated_in_each_step_equal_those_evaluated_at_once(monkeypatch, swapped):
    arrays = example("victor")[:: -1 if swapped else 1]
    expected = sx.value_and_grad(VICTOR)(*arrays)
    monkeypatch.setattr(_tuning, "EDITS_AT_ONCE", 0)
    for got, at_once in zip(sx.value_and_grad(VICTOR)(*arrays), expected, strict=True):
        np.testing.assert_array_equal(got, at_once)


def test_equal_first_spikes_share_the_gradient():
    times = np.asarray([[[3.0, 3.0, 5.0], [3.0, 4.0, 3.0]], [[7.0, 9.0, 9.0], [8.0, 8.0, 8.0]]])
    loss = sx.times.SpikeLatency(true_time=1.0, silent_time=20.0, reduction="sum", num_classes=1)
    _, slopes = sx.value_and_grad(loss)(times, [0, 0])
    expected = [[[1, 1, 0], [1, 0, 1]], [[12, 0, 0], [0, 0, 0]]]  # 2 (3 - 1) in four shares
    np.testing.assert_allclose(slopes, expected, rtol=1e-12)


def test_late_spike_is_silence():
    """Of the label, which then has no gradient; the other class is made later."""
    late = np.asarray([math.nan, math.inf, -math.inf, 12.0, 15.0])
    times = np.full((5, 2, 2), math.nan)
    times[:, 0, 0] = times[:, 1, 1] = late
    times[:, 1, 0] = 4
    value, slopes = sx.value_and_grad(ENTROPY)(times, [0] * 5)
    np.testing.assert_allclose(value, math.log1p(math.exp(8 / 2.5)), rtol=1e-12)
    assert (slopes[:, 1, 0] < 0).all()
    assert not slopes[:, 0].any()
    assert not slopes[:, 1, 1].any()


def test_integers_are_times(backend):
    value = run(backend, ENTROPY, np.asarray([[3, 5]]), np.asarray([0]))
    np.testing.assert_allclose(value, math.log1p(math.exp(-2 / 2.5)), rtol=1e-5)


# Transforms ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["entropy", "victor"])
def test_vmap_of_grad_in_jax_equals_closed_form(name):
    jax = pytest.importorskip("jax")
    times, target = example(name)
    loss = reduced(LOSSES[name], "sum")
    with jax.enable_x64(True):
        one = jax.grad(lambda x, y: loss(x[None], y[None]))
        each = jax.jit(jax.vmap(one))(times, jax.numpy.asarray(target))
    expected = sx.value_and_grad(loss)(times, target)[1]
    np.testing.assert_allclose(each, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ["entropy", "rossum"])
def test_second_derivatives_agree(name):
    jax, torch = pytest.importorskip("jax"), pytest.importorskip("torch")
    times, target = example(name)
    loss, away = LOSSES[name], np.random.default_rng(5).random(times.shape)
    leaf = torch.tensor(times, requires_grad=True)
    (first,) = torch.autograd.grad(loss(leaf, torch.tensor(target)), leaf, create_graph=True)
    (second,) = torch.autograd.grad((first * torch.tensor(away)).sum(), leaf)
    with jax.enable_x64(True):
        slope = jax.grad(lambda x: loss(x, target))
        along = jax.jit(lambda x, away: jax.jvp(slope, (x,), (away,))[1])
        expected = along(times, away)
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
@pytest.mark.parametrize("name", ["entropy", "rossum"])
def test_compiled_by_pytorch(name):
    torch = pytest.importorskip("torch")
    times, target = example(name)
    leaf = torch.tensor(times, requires_grad=True)
    torch.compile(LOSSES[name], fullgraph=True)(leaf, torch.tensor(target)).backward()
    expected = sx.value_and_grad(LOSSES[name])(times, target)[1]
    np.testing.assert_allclose(leaf.grad.numpy(), expected, rtol=1e-12, atol=1e-15)


# Mistakes --------------------------------------------------------------------------------------

ONES = np.ones((2, 3, 4))
TIMES = np.asarray([[[1.0, 2.0], [3.0, math.nan]]])
LATE = functools.partial(dataclasses.replace, LATENCY)


@pytest.mark.parametrize(
    ("mistake", "error", "words"),
    [
        (lambda: sx.times.CrossEntropy(temperature=0, silent_time=1.0), ValueError, "temperature"),
        (lambda: sx.times.SpikeTime(time_constant=0), ValueError, "time_constant"),
        (lambda: sx.times.VictorPurpura(cost=-1.0), ValueError, "cost"),
        (lambda: sx.times.CrossEntropy(temperature=1.0), TypeError, "silent_time"),
        (lambda: sx.times.CrossEntropy(silent_time=1.0), TypeError, "missing 1 .*temperature"),
        (lambda: LATE(silent_time=math.inf), ValueError, "silent_time.*finite"),
        (lambda: LATE(tolerance=-1.0), ValueError, "tolerance"),
        (lambda: LATE(true_time=13.0), ValueError, "true_time must be at most"),
        (lambda: ENTROPY(TIMES > 0, [0]), ValueError, "spike times.*got bool"),
        (lambda: ENTROPY(TIMES[0, 0], [0]), ValueError, r"\[batch, class, spike\]; got .*\(2,\)"),
        (lambda: ENTROPY(TIMES[..., :0], [0]), ValueError, "no elements"),
        (lambda: ENTROPY(TIMES, [0], lengths=[2]), TypeError, "no lengths: use NaN or infinity"),
        (lambda: ENTROPY(TIMES, [0], where=TIMES > 0), ValueError, r"where must have shape \(1,\)"),
        (lambda: ENTROPY.predict(TIMES, lengths=[2]), TypeError, "no lengths"),
        (lambda: ENTROPY(2 * ONES, np.zeros((2, 4), int)), ValueError, r"got \(2, 4\)$"),
        (lambda: ENTROPY(ONES, [0, 1]), ValueError, "only 0 and 1 in an array.*without sx.times"),
        (lambda: ENTROPY(0 * ONES, [0, 1]), ValueError, "input must hold spike times; got only 0"),
        (lambda: VICTOR(2 * ONES, ONES), ValueError, "target must hold spike times; got only 0"),
        (lambda: LATENCY(TIMES, [[1.0, math.nan]]), ValueError, "spike times, finite"),
        (lambda: ROSSUM(TIMES, [0]), ValueError, r"shape \(1, 2\), .* padded with NaN"),
        (lambda: ROSSUM(TIMES, TIMES[..., :0]), ValueError, r"got \(1, 2, 0\)"),
        (lambda: VICTOR(TIMES, TIMES > 0), TypeError, "target must hold spike times; got bool"),
        (lambda: ROSSUM(TIMES, 1j * TIMES), TypeError, "target must be .*; got complex"),
        (lambda: VICTOR(TIMES, TIMES, weight=[1.0]), ValueError, r"weight must have shape \(2,\)"),
        (lambda: ROSSUM(TIMES.astype("f"), TIMES * 1e300), ValueError, "overflows in float32"),
    ],
)
def test_mistakes_raise(mistake, error, words):
    with pytest.raises(error, match=words):
        mistake()


@pytest.mark.parametrize(
    "times",
    [
        [[[0.0, 1.0, 1.0], [0.0, math.nan, math.inf]]],  # two equal ones of a train
        [[[1.0, 1.0, 1.0], [0.0, 0.5, 0.0]]],
        [[1.0, 1.0]],
        [[[math.nan] * 4, [math.inf] * 4]],
        [[[2.0, 0.0], [1.0, 1.0]]],
    ],
)
def test_times_that_may_be_spikes_are_read(backend, times):
    loss = sx.times.SpikeTime(time_constant=2.5)
    assert np.isfinite(float(loss(backend.asarray(times), np.asarray(times))))


@pytest.mark.parametrize("loss", [ENTROPY, LATENCY])
def test_batch_without_a_spike_warns_where_times_can_be_read(backend, loss):
    late = [[12.0, math.nan, math.inf], [13.0, -math.inf, 13.0]]
    early = [late[0], [13.0, 11.0, 13.0]]
    read = backend.adapter.concrete_or_none(backend.asarray(late)) is not None

    def warned(times, **masks):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loss(backend.asarray(times), [0, 1], **masks)
        return [str(each.message) for each in caught]

    assert not warned(early)
    assert not warned(early, where=[False, True])
    assert not warned(late, where=[False, False])
    for messages in (warned(late), warned(early, where=[True, False])):
        assert len(messages) == read
        assert not read or "no spike in the batch is before silent_time=12" in messages[0]


def test_batches_without_a_spike_warn_once():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            LATENCY(np.full((2, 3), 12.5), [0, 1])
    assert len(caught) == 1
