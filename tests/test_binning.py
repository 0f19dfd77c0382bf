"""Binning of spike times: edges of bins in spite of rounding, every library, and bad input."""

import re

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.backends import TESTED, on
from _support.random_calls import pick

BINS = {"neurons": 3, "steps": 8, "time_step": 0.5, "start": -1.0}
TIMES = np.asarray([2.99, -1.0, 0.25, 0.499, 0.5, 0.26])
NEURON = np.asarray([2, 0, 0, 0, 0, 2])
COUNTS = np.zeros((3, 8))
COUNTS[[2, 0, 0, 0, 2], [7, 0, 2, 3, 2]] = [1, 1, 2, 1, 1]
OF_EACH = [TIMES[neuron == NEURON] for neuron in range(3)]  # neuron 1 has none
AT_4 = np.arange(6) == 4
NO_NEURON = {"neuron": None}
EDGES = 100_000


def test_counts_and_bools(backend):
    times = backend.asarray(TIMES)
    default = backend.xp.__array_namespace_info__().default_dtypes()["real floating"]
    for neuron in (NEURON.tolist(), NEURON.astype(">u2"), backend.asarray(NEURON)):
        counts = sx.bin_spikes(times, neuron, **BINS)
        assert counts.dtype == default
        np.testing.assert_array_equal(backend.numpy(counts), COUNTS)
    spikes = sx.bin_spikes(times, NEURON, **BINS, binary=True)
    assert spikes.dtype == backend.xp.bool
    np.testing.assert_array_equal(backend.numpy(spikes), COUNTS > 0)
    assert backend.adapter.device(spikes) == backend.adapter.device(times)
    np.testing.assert_array_equal(backend.numpy(times), TIMES.astype(backend.dtype))


def in_some_form(random, backend, times, neuron, neurons):
    """Return times with their neurons, those of each neuron, or the rows of an array."""
    if random.random() < 0.4:
        return backend.asarray(times), pick(random, backend.asarray, np.asarray)(neuron)
    lists = [times[neuron == i] for i in range(neurons)]
    if random.random() < 0.5:
        rows = np.full((neurons, max(map(len, lists)) + 1), pick(random, np.nan, np.inf))
        for row, own in zip(rows, lists, strict=True):
            row[: len(own)] = own
        return (backend.asarray(rows),)
    first, *rest = lists
    convert = pick(random, backend.asarray, np.asarray, list)
    own = list if convert is list and backend.name == "numpy" else backend.asarray
    return ([own(first), *map(convert, rest)],)


def check_random_spikes(backend, seed):
    """Count spikes in the middle of bins, before, in and after the duration, with padding."""
    random = np.random.default_rng([seed, 7])
    neurons, steps, number = random.integers([1, 1, 0], [5, 9, 30])
    time_step, start = pick(random, 0.5, 0.1, 1 / 3, 30), pick(random, 0.0, -1.0, 123.4)
    neuron, step = random.integers([[-1], [-2]], [[neurons], [steps + 2]], size=(2, number))
    times = start + (step + random.uniform(0.2, 0.8, size=number)) * time_step
    padding = random.random(number) < 0.1
    times[padding] = pick(random, np.nan, np.inf, -np.inf)
    counts = np.zeros((neurons, steps))
    for i, t, no_spike in zip(neuron, step, padding, strict=True):
        if i >= 0 and 0 <= t < steps and not no_spike:
            counts[i, t] += 1
    bins = {"neurons": int(neurons), "steps": int(steps), "time_step": time_step, "start": start}
    given = in_some_form(random, backend, times, neuron, neurons)
    got = backend.numpy(sx.bin_spikes(*given, **bins, outside="drop"))
    np.testing.assert_array_equal(got, counts, f"{bins}, {number} spikes, seed {seed}")


@pytest.mark.parametrize("name", TESTED)
def test_random_spikes_are_counted_as_by_a_loop(name, seeds):
    with on(name) as backend:
        for seed in seeds({"numpy": 60, "torch": 20}.get(name, 2), slow=2):
            check_random_spikes(backend, seed)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("step", "start"), [(0.1, -0.3), (0.001, 123.4), (0.025, -0.3), (1 / 3, 0.2)]
)
def test_time_on_an_edge_goes_to_the_bin_that_begins_there(step, start, dtype):
    k = np.arange(EDGES)
    step_there, start_there = np.asarray([step, start], dtype)
    exact = np.asarray([float(i) * step + start for i in range(EDGES)])
    for times in (
        start_there + k.astype(dtype) * step_there,
        exact.astype(dtype),
        np.round((start + k * step).astype(dtype), 3) if step != 1 / 3 else exact,
        np.linspace(start, start + EDGES * step, EDGES, endpoint=False, dtype=dtype),
    ):
        bins = {"steps": EDGES, "time_step": step, "start": start}
        assert (sx.bin_spikes(times, [0] * EDGES, neurons=1, **bins) == 1).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_time_between_edges_stays_in_its_bin(dtype):
    k = np.arange(1, EDGES).astype(dtype)
    # 16 times the distance of neighbouring numbers; at most 8 are taken for rounding.
    before = k - 16 * np.spacing(k)
    after = k + np.spacing(k)
    for times, empty in ((before, -1), (after, 0)):
        expected = np.ones((1, EDGES))
        expected[0, empty] = 0
        bins = sx.bin_spikes(times, [0] * k.size, neurons=1, steps=EDGES)
        np.testing.assert_array_equal(bins, expected)


@pytest.mark.parametrize("dtype", [">f8", "f2", "g", "i4", "u1"])
def test_times_in_other_dtypes(dtype):
    times = np.asarray([0, 29, 30, 59, 60, 149]).astype(dtype)
    spikes = sx.bin_spikes(times, [0] * 6, neurons=1, steps=5, time_step=30)
    assert spikes.tolist() == [[2, 2, 1, 0, 1]]


def test_bfloat16_times_have_the_rounding_of_bfloat16(backend):
    if not hasattr(backend.xp, "bfloat16"):
        pytest.skip(f"{backend.name} has no bfloat16, so it has no such times")
    times = backend.asarray(np.arange(1.0, 8.0), "bfloat16") * 0.1
    spikes = sx.bin_spikes(times, [0] * 7, neurons=1, steps=8, time_step=0.1)
    assert backend.numpy(spikes).tolist() == [[0] + [1] * 7]


@pytest.mark.parametrize(("first", "last", "start"), [(998, 1000, 0.0), (1000, 1001, 1000.0)])
def test_coarse_time_a_tenth_of_a_bin_from_the_edges_stays_in_its_bin(first, last, start):
    """Neighbours in float32 are 0.06 bins apart there."""
    times = np.random.default_rng(4).uniform(first, last, 20_000).astype(np.float32)
    place = (times.astype(np.float64) - start) / 0.001
    times, place = times[inside := np.abs(place % 1 - 0.5) < 0.4], place[inside]
    steps = 1_000_000 if start == 0 else 1000
    kept = place < steps
    spikes = sx.bin_spikes(
        times[kept], [0] * kept.sum(), neurons=1, steps=steps, time_step=0.001, start=start
    )
    expected = np.bincount(place[kept].astype(int), minlength=steps)
    np.testing.assert_array_equal(spikes[0], expected)


class Milliseconds:
    """Times with a unit, as those of Pint and others."""

    dimensionality = "time"
    __array_ufunc__ = None  # an array is multiplied by the method below

    def __init__(self, magnitude):
        self.magnitude = np.asarray(magnitude)

    @property
    def units(self):
        return Milliseconds(1)

    def __rmul__(self, number):
        return Milliseconds(number * self.magnitude)

    def __truediv__(self, other):
        return self.magnitude / other.magnitude


def test_times_with_a_unit_are_multiples_of_the_bins():
    bins = {"neurons": 1, "steps": 5, "time_step": Milliseconds(0.5)}
    for start, expected in ((0, [0, 1, 0, 0, 1]), (Milliseconds(0.5), [1, 0, 0, 1, 0])):
        spikes = sx.bin_spikes(Milliseconds([2.25, 0.75]), [0, 0], **bins, start=start)
        assert spikes.tolist() == [expected]
    with pytest.raises(TypeError, match="time_step has a unit but start does not"):
        sx.bin_spikes(Milliseconds([2.25]), [0], **bins, start=0.5)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"times": TIMES + AT_4 * 2.5}, ValueError, "times[4] is 3.0 (values outside: 1 of 6): to"),
        ({"times": TIMES - AT_4 * 2}, ValueError, 'use outside="drop"'),
        ({"neuron": NEURON + AT_4 * 3}, ValueError, "neuron[4] is 3 (values outside: 1 of 6)"),
        ({"neuron": NEURON - AT_4 * 2}, ValueError, "between 0 and 2; neuron[4] is -2"),
        ({"neuron": NEURON[:5]}, ValueError, "same length; got shapes (6,) and (5,)"),
        ({"neuron": NEURON * 1.0}, TypeError, "neuron must hold integer indices; got float64"),
        ({"neuron": None}, TypeError, "neuron is missing"),
        ({"times": TIMES[None], **NO_NEURON}, ValueError, "each of the 3 neurons; got 1"),
        ({"times": [TIMES[None]] * 3, **NO_NEURON}, ValueError, "times[0] must have one axis"),
        ({"outside": "clip"}, ValueError, "outside must be one of raise, drop; got"),
        ({"times": TIMES > 0}, TypeError, "times must be real floating-point or integer; got bool"),
        ({"times": TIMES.tolist()}, TypeError, "times must be one array of shape [spike] if"),
        ({"times": [*OF_EACH[:2], [9.0]], **NO_NEURON}, ValueError, "times[2][0] is 9.0"),
        (
            {"times": [[TIMES, TIMES[1:]]] * 3, **NO_NEURON},
            ValueError,
            "times[0] holds several trains",
        ),
        ({"times": ["0"] * 3, **NO_NEURON}, TypeError, "times[0] must hold numbers; got str"),
        ({"time_step": 0}, ValueError, "time_step must be above 0; got 0"),
        ({"binary": 1}, TypeError, "binary must be True or False; got 1"),
    ],
)
def test_bad_input_raises(changes, error, message):
    with pytest.raises(error, match=re.escape(message)):
        sx.bin_spikes(**{"times": TIMES, "neuron": NEURON, **BINS, **changes})


def test_dtype_too_coarse_for_the_bins_raises():
    times = np.asarray([0.5, 5000.5], np.float32)  # there neighbours are 0.0005 apart
    options = {"neurons": 1, "steps": 6_000_000, "time_step": 0.001, "binary": True}
    with pytest.raises(ValueError, match=r"too coarse for bins of 0.001: .* times\[1\], 5000.5,"):
        sx.bin_spikes(times, [0, 0], **options)
    spikes = sx.bin_spikes(times.astype(np.float64), [0, 0], **options)
    assert np.flatnonzero(spikes).tolist() == [500, 5_000_500]
    # Outside of the bins by less than rounding: they may belong there.
    for start in (5000.5001, 5000.5 - 6000.0001):
        with pytest.raises(ValueError, match="too coarse"):
            sx.bin_spikes(times[1:], [0], **options, start=start, outside="drop")


def test_array_of_another_library_raises():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="or an array from numpy, the library of the input"):
        sx.bin_spikes(TIMES, torch.asarray(NEURON), **BINS)


def test_traced_times_raise():
    jax, torch = pytest.importorskip("jax"), pytest.importorskip("torch")

    def total(times):
        return sx.bin_spikes(times, NEURON, **BINS).sum()

    for transformed, times in (
        (jax.jit(total), jax.numpy.asarray(TIMES)),
        (jax.vmap(total), jax.numpy.asarray(TIMES[None])),
        (torch.func.vmap(total), torch.asarray(TIMES[None])),
        (torch.func.grad(total), torch.asarray(TIMES)),
    ):
        with pytest.raises(TypeError, match="times must be an array whose values can be read"):
            transformed(times)


def test_constant_times_may_be_binned_in_a_compiled_function():
    jax = pytest.importorskip("jax")
    times = jax.numpy.asarray(TIMES)
    counts = jax.jit(lambda factor: factor * sx.bin_spikes(times, NEURON, **BINS))(2.0)
    np.testing.assert_array_equal(counts, 2 * COUNTS)


def test_advice_on_events_with_fields_is_right():
    for fields in ("txp", "xyt"):
        events = np.zeros(4, dtype=[(name, int) for name in fields])
        with pytest.raises(TypeError, match="structured array with the fields") as caught:
            sx.bin_spikes(events, neurons=2, steps=3)
        call = re.search(r"bin_spikes\(.*\)", str(caught.value))[0]
        line = f"sx.{call.replace('...', 'neurons=2, steps=3')}"
        assert "events['t'], events['x']" in line
        assert eval(line).sum() == 4
