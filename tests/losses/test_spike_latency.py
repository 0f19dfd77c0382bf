"""The latency of the first spike: its value, its derivative, and the losses that read it."""

import itertools

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import reference
from _support.calls import each, run
from _support.cases import check_by_hand, close, reduced
from spikeloss_xp.readouts.first_spike import latency

# First spikes at 0, 2 and never; 1, never and 0.
SPIKES = np.asarray(
    [[[1.0, 0, 1, 1], [0, 0, 1, 0], [0, 0, 0, 0]], [[0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]]
)
LABEL = [1, 1]
ORDERLY = sx.CrossEntropy(readout="latency", temperature=2.0, reduction="sum", time_axis=-1)


@pytest.mark.parametrize(
    ("loss", "label", "terms", "slope"),
    [
        # Latencies 0, 2 and 4 are wanted at 4, 1 and 4. The slopes of the latency are -2 at the
        # first spike of the first train, because the next one is at 2; -2, -1 and -2 in the second.
        (
            sx.SpikeLatency(1, time_axis=-1, reduction="sum"),
            [1],
            [[16, 1, 0]],
            [[16, 0, 0, 0], [-4, -2, -4, 0], [0, 0, 0, 0]],
        ),
        # Wanted at 3, 3 and 0, with a tolerance of 1/2.
        (
            sx.SpikeLatency(0, 3, 0.5, time_axis=-1, reduction="sum"),
            [2],
            [[6.25, 0.25, 12.25]],
            [[10, 0, 0, 0], [2, 1, 2, 0], [-28, -21, -14, -7]],
        ),
        (
            sx.SpikeLatency(tolerance=1, time_axis=-1, reduction="sum"),
            [[1.0, 1.5, 2.0]],
            [[0, 0, 1]],
            [[0, 0, 0, 0], [0, 0, 0, 0], [-8, -6, -4, -2]],
        ),
    ],
)
def test_value_and_gradient_match_hand_calculation(backend, loss, label, terms, slope):
    check_by_hand(backend, loss, SPIKES[:1], label, terms, slope)


@pytest.mark.parametrize("masked", [None, "steps", "entries"])
@pytest.mark.parametrize("steps", [1, 2, 8, 16, 17, 37, 200, 1013])
def test_derivative_is_the_effect_of_a_toggle(backend, steps, masked):
    """For binary trains exactly, in the closed form and by automatic differentiation."""
    random = np.random.default_rng(steps)
    spikes = (random.random((2, 3, steps)) < min(3 / steps, 0.5)).astype(float)
    shape = {None: None, "steps": (2, 1, steps), "entries": spikes.shape}[masked]
    mask = None if shape is None else random.random(shape) < 0.7
    spikes = spikes if mask is None else np.where(mask, spikes, 0)
    masks = () if mask is None else (backend.asarray(mask),)
    ones = backend.asarray(np.ones((2, 3)))

    def evaluate(spikes, *mask):
        reading, pullback = latency(backend.adapter, spikes, *(mask or (None,)), None, 2)
        return reading.u[..., 0], pullback(ones[..., None])

    value, slope = map(backend.numpy, backend.compiled(evaluate)(backend.asarray(spikes), *masks))
    expected = brute_force(spikes, mask)
    np.testing.assert_array_equal(value, expected)
    counted = np.broadcast_to(True if mask is None else mask, spikes.shape)
    slope = np.where(counted, slope, 0)  # the loss does so once for all readouts
    for step in {*range(min(steps, 20)), steps // 2, steps - 1}:
        toggled = spikes.copy()
        toggled[..., step] = 1 - toggled[..., step]
        effect = (brute_force(toggled, mask) - expected) * (toggled - spikes)[..., step]
        np.testing.assert_array_equal(slope[..., step], effect)
    if backend.differentiates:

        def native(spikes, *mask):
            return backend.adapter.value_and_grad(lambda x: evaluate(x, *mask)[0], spikes, ones)[1]

        native = backend.compiled(native)(backend.asarray(spikes), *masks)
        np.testing.assert_array_equal(np.where(counted, backend.numpy(native), 0), slope)


def brute_force(spikes, mask=None):
    """Return the number of steps before the first spike, or the longest duration of the sample."""
    mask = np.broadcast_to(True if mask is None else mask, spikes.shape)
    latencies = np.zeros(spikes.shape[:2])
    for b, c in np.ndindex(latencies.shape):
        counted = spikes[b, c][mask[b, c]]
        longest = mask[b].sum(axis=-1).max()
        latencies[b, c] = next((t for t, spike in enumerate(counted) if spike), longest)
    return latencies


@pytest.mark.parametrize("loss", [ORDERLY, sx.SpikeLatency(time_axis=-1, reduction="sum")])
def test_silent_label_is_pushed_to_fire_and_early(backend, loss):
    _, (slope,) = run(backend, sx.value_and_grad(loss), np.zeros((1, 3, 30)), [1])
    assert (slope[1] < 0).all()
    assert (np.diff(slope[1]) > 0).all()
    assert (slope[[0, 2]] >= 0).all()


@pytest.mark.parametrize("fill", [0.0, 1.0])
@pytest.mark.parametrize("steps", [1, 40])
@pytest.mark.parametrize(
    "loss", [ORDERLY, sx.SpikeLatency(tolerance=0.5, time_axis=-1, reduction="sum")]
)
def test_silent_and_saturated_trains_are_finite(backend, loss, steps, fill):
    value, gradient = run(backend, sx.value_and_grad(loss), np.full((2, 3, steps), fill), [0, 2])
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert (gradient != 0).any()
    if fill:  # only the first spike has an effect, and it delays by one step
        assert not gradient[..., 1:].any()


def test_nothing_counts(backend):
    both = each(
        [
            sx.value_and_grad(loss)
            for loss in (ORDERLY, sx.SpikeLatency(time_axis=-1, reduction="sum"))
        ]
    )
    for value, gradient in run(backend, both, SPIKES, LABEL, lengths=[0, 0]):
        assert value == 0
        assert not gradient.any()


def test_graded_latency_is_the_expectation_of_independent_steps(backend):
    graded = np.random.default_rng(1).random((1, 1, 8))
    expected = 0.0
    for train in itertools.product([0.0, 1.0], repeat=8):
        chance = np.prod(np.where(train, graded[0, 0], 1 - graded[0, 0]))
        expected += chance * brute_force(np.asarray([[train]]))[0, 0]
    got = run(backend, sx.Latency(time_axis=-1).latency, graded)
    close(got, np.asarray([[expected]]), backend.rtol)


def test_several_spikes_in_a_step_are_one(backend):
    """With no slope above 1, and at 1 that of the spikes below."""
    spikes = np.asarray([[[0, 1.0, 0, 1.0]], [[0, 3.0, 0, 1.0]]])
    value, gradient = run(
        backend,
        sx.value_and_grad(sx.SpikeLatency(0.5, time_axis=-1, reduction="sum")),
        spikes,
        [0, 0],
    )
    assert value == 2 * 0.25
    np.testing.assert_array_equal(gradient[:, 0], [[-1, -2, 0, 0], [-1, 0, 0, 0]])


@pytest.mark.parametrize("loss", [ORDERLY, sx.SpikeLatency(time_axis=-1, reduction="sum")])
def test_negative_spike_raises_or_gives_nan(backend, loss):
    spikes = SPIKES.copy()
    spikes[1, 2, 3] = -0.25
    if backend.reads_values:
        with pytest.raises(ValueError, match=r"input must have no spike below 0.*Got -0.25"):
            loss(backend.asarray(spikes), backend.asarray(LABEL))
    if backend.library == "jax" or not backend.reads_values:
        got = run(backend, reduced(loss, "none"), spikes, LABEL)
        assert np.isfinite(got[0]).all()
        assert np.isnan(got[1]).any()
    got = run(backend, loss, spikes, LABEL, lengths=[4, 3])
    close(got, reference.value(loss, spikes, np.asarray(LABEL), None, [4, 3]), backend.rtol)


def test_negative_spike_is_nan_in_a_trace():
    jax = pytest.importorskip("jax")
    loss = reduced(sx.SpikeLatency(time_axis=-1, reduction="sum"), "none")
    terms, _ = jax.jit(sx.value_and_grad(loss))(
        jax.numpy.asarray(-SPIKES), jax.numpy.asarray(LABEL), cotangent=np.ones((2, 3), "float32")
    )
    np.testing.assert_array_equal(np.isnan(terms), (SPIKES > 0).any(axis=-1))


def test_nan_spike_shows_after_the_first_spike(backend):
    spikes = SPIKES.copy()
    spikes[0, 0, 3] = np.nan
    spikes[1, 1, 3] = 2.0  # still one, beside the NaN
    got = run(backend, sx.Latency(time_axis=-1).latency, spikes)
    np.testing.assert_array_equal(np.isnan(got), [[True, False, False], [False, False, False]])
    assert got[1].tolist() == [1, 3, 0]


def test_padding_never_looks_early(backend):
    # The first class counts for two steps and is silent; the second one fires at step 3.
    spikes = np.asarray([[[0.0, 0, 0, 0], [0, 0, 0, 1]]])
    where = np.asarray([[[True, True, False, False], [True] * 4]])
    # Padded with ones, which are masked, a batch has the latencies of its samples.
    padded = np.ones((2, 3, 9))
    padded[0, :, :4], padded[1, :, :3] = SPIKES[0], SPIKES[1, :, :3]
    read = sx.Latency(time_axis=-1)

    def evaluate(spikes, where, padded, lengths):
        masked = read.latency(spikes, where=where), read(spikes, where=where)
        return [*masked, read.latency(padded, lengths=lengths)]

    latency, label, of_padded = run(backend, evaluate, spikes, where, padded, [4, 3])
    np.testing.assert_array_equal(latency, [[4, 3]])
    assert label == 1
    np.testing.assert_array_equal(of_padded, [[0, 2, 4], [1, 3, 0]])


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "loss", [ORDERLY, sx.SpikeLatency(3, tolerance=1, time_axis=-1, reduction="sum")]
)
def test_large_arrays_equal_their_samples(backend, loss, dtype, axis):
    """Chunks, with time at each axis; a duration whose groups do not fill up at any level."""
    if dtype != backend.dtype:
        pytest.skip("another dtype of the library")
    random = np.random.default_rng(5)
    few = (random.random((8, 3, 1013)) < 0.01).astype(dtype)
    label, cotangent = random.integers(3, size=8), np.asarray(1.5)
    value, gradient = sx.value_and_grad(loss)(few.astype("float64"), label, cotangent=cotangent)
    loss = type(loss)(**{**vars(loss), "time_axis": axis})
    many = np.moveaxis(np.tile(few, (50, 1, 1)), -1, axis)
    got, slope = run(
        backend, sx.value_and_grad(loss), many, np.tile(label, 50), cotangent=cotangent
    )
    close(got, 50 * value, 10 * backend.rtol)
    close(np.moveaxis(slope, axis, -1), np.tile(gradient, (50, 1, 1)), backend.rtol)


def test_earliest_class_is_the_most_probable(backend):
    # -T1 / 2 are the logits 0, -1 and -2
    terms = run(backend, reduced(ORDERLY, "none"), SPIKES[[0, 0, 0]], [0, 1, 2])
    logits = np.asarray([0.0, -1, -2])
    expected = np.log(np.exp(logits).sum()) - logits
    close(terms, expected, backend.rtol)


def test_losses_without_latency_say_which_have_it():
    for make in (lambda **o: sx.SpikeRate(1, 0, **o), sx.SpikeMoid):
        with pytest.raises(ValueError, match=r"readout .*'latency'.*CrossEntropy"):
            make(readout="latency")
    with pytest.raises(ValueError, match=r"'latency'.*moving_window=3"):
        sx.CrossEntropy(readout="latency", moving_window=3, reduction="sum", time_axis=-1)


TIMES = np.asarray([[0.0, 1, 4], [2.5, 4, 0]])


def test_wanted_times_accept_floats_and_sequences(backend):
    loss, spikes = sx.SpikeLatency(time_axis=-1, reduction="sum"), backend.asarray(SPIKES)
    expected, targets = reference.value(loss, SPIKES, TIMES), []
    for dtype in ("float16", "float32", "float64"):
        if backend.has(dtype):
            targets.append(backend.asarray(TIMES, dtype))
    evaluate = backend.compiled(lambda x, *some: [loss(x, y) for y in (*some, TIMES.tolist())])
    for value in evaluate(spikes, *targets, TIMES):
        assert value.dtype == spikes.dtype
        close(backend.numpy(value), expected, backend.rtol)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (TIMES[:, :2], ValueError, r"target times of shape \(2, 3\).*got \(2, 2\)"),
        (TIMES.T, ValueError, r"\(3, 2\) \(its axes are in another order\)"),
        (TIMES - 1, ValueError, "finite and at least 0.*from -1.0 to 3.0"),
        (TIMES + np.inf, ValueError, "target must hold target times, finite"),
        (TIMES * np.nan, ValueError, "target must hold target times, finite"),
        (TIMES[:, 0], TypeError, "target must hold integers"),
        (TIMES.astype(int), TypeError, r"got .*int.* \(target times are floats\)"),
    ],
)
def test_wrong_times_raise(backend, target, error, message):
    with pytest.raises(error, match=message):
        sx.SpikeLatency(time_axis=-1, reduction="sum")(backend.asarray(SPIKES), target)


def test_time_out_of_range_is_nan_in_a_trace():
    jax = pytest.importorskip("jax")
    loss = sx.SpikeLatency(reduction="none", time_axis=-1)
    terms = jax.jit(loss)(jax.numpy.asarray(SPIKES), jax.numpy.asarray(TIMES - 1))
    np.testing.assert_array_equal(np.isnan(terms), TIMES < 1)


def test_masked_times_may_be_anything(backend):
    where = np.ones(SPIKES.shape, bool)
    where[0, 1] = False
    mask, times = where, np.where(where.any(-1), TIMES, np.nan)
    evaluate = sx.value_and_grad(sx.SpikeLatency(time_axis=-1, reduction="sum"))
    both = each([evaluate, lambda spikes, times, where: evaluate(spikes, times, where=mask)])
    for value, gradient in run(backend, both, SPIKES, times, where=where):
        close(
            value,
            reference.value(sx.SpikeLatency(time_axis=-1, reduction="sum"), SPIKES, times, where),
            backend.rtol,
        )
        assert np.isfinite(gradient).all()


def test_hyper_parameters_are_checked():
    for options in ({"true_time": -1}, {"false_time": -0.5}, {"tolerance": -1}):
        (name,) = options
        with pytest.raises(ValueError, match=f"{name} must be at least 0"):
            sx.SpikeLatency(time_axis=-1, **options)
    assert sx.SpikeLatency(3, time_axis=-1, reduction="sum") == sx.SpikeLatency(
        3.0, None, time_axis=-1, reduction="sum"
    )
    assert hash(sx.SpikeLatency(3, time_axis=-1, reduction="sum")) == hash(
        sx.SpikeLatency(3.0, time_axis=-1, reduction="sum")
    )
    assert repr(sx.SpikeLatency(3, time_axis=-1, reduction="sum")).startswith(
        "SpikeLatency(true_time=3.0, false_time=None,"
    )
