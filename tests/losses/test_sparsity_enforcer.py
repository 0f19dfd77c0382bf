import numpy as np
import pytest

import spikeloss_xp as sx
from _support import reference
from _support.calls import each, run
from _support.cases import close

EVENTS = np.asarray([[1.0, -3.0, 0.0], [0.0, 2.0, 0.0]])


@pytest.mark.parametrize(
    ("loss", "value", "slope"),
    [
        # mean |x| = 6/6 = 1; (1 - 1/4)² = 9/16, slope 2 · 3/4 · sign / 6 = sign / 4
        (sx.SparsityEnforcer(0.25), 9 / 16, 1 / 4),
        (sx.SparsityEnforcer(max_rate=0.25, lam=2), 9 / 8, 1 / 2),
        (sx.SparsityEnforcer(0, 1), 1, 1 / 3),
        (sx.SparsityEnforcer(1.5), 0, 0),  # the mean is below max_rate
        (sx.SparsityEnforcer(0.25, lam=0), 0, 0),
        (sx.SparsityEnforcer(0.25, power=1), 3 / 4, 1 / 6),
        (sx.SparsityEnforcer(0, 2, power=1), 2, 1 / 3),  # the mean of |x|, times 2
    ],
)
def test_value_and_gradient_match_hand_calculation(backend, loss, value, slope):
    both = each([sx.value_and_grad(loss), loss.forward])
    (got, gradient), forward = run(backend, both, EVENTS)
    np.testing.assert_allclose((got, forward), value, rtol=backend.rtol)
    # In every library |x| has slope 0 at 0.
    np.testing.assert_allclose(gradient, slope * np.sign(EVENTS), rtol=backend.rtol)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3, 4), (2, 1, 3, 2)])
def test_input_of_any_shape_matches_the_formula(backend, shape):
    x = np.random.default_rng(9).normal(size=shape)
    loss = sx.SparsityEnforcer(0.125, 3.0)
    expected = reference.terms(loss, x)
    close(run(backend, loss, x), expected, backend.rtol)


def test_gradient_is_zero_at_silence_and_at_max_rate(backend):
    at_max_rate = np.asarray([1.0, 0.0, 0.0, 0.0])
    evaluate = backend.compiled(sx.value_and_grad(sx.SparsityEnforcer(0.25)))
    for x in (at_max_rate, np.zeros(4)):
        value, gradient = evaluate(backend.asarray(x))
        assert float(value) == 0
        assert not backend.numpy(gradient).any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_sums_do_not_overflow(backend, dtype):
    if not hasattr(backend.xp, dtype):
        pytest.skip(f"{backend.library} has no {dtype}")
    # A float16 sum overflows at 65504, so 70000 events must be added in float32.
    x = backend.xp.astype(backend.asarray(np.ones((2, 35000))), getattr(backend.xp, dtype))
    value, gradient = backend.compiled(sx.value_and_grad(sx.SparsityEnforcer(0.5)))(x)
    assert value.dtype == backend.xp.float32
    assert gradient.dtype == x.dtype
    close(backend.numpy(value), 0.25, 1e-5)


# The sums of parts of a batch ----------------------------------------------------------------

LAYER = np.asarray(
    [
        [[1.0, -2.0, 0.0], [0.0, 0.0, 0.0]],
        [[0.0, 1.0, 0.0], [0.0, 0.5, 0.0]],
        [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]],
    ]
)


@pytest.mark.parametrize("per", ["array", "neuron"])
@pytest.mark.parametrize("lengths", [None, np.asarray([3, 0, 2])])
@pytest.mark.parametrize("limits", [(0.25, 0.0), (0.9, 0.8), (0.25, 0.2)])
def test_term_with_others_is_that_of_the_whole(backend, per, lengths, limits):
    max_rate, min_rate = limits
    loss = sx.SparsityEnforcer(max_rate, 2.0, min_rate=min_rate, per=per)

    def evaluate(x, **masks):
        slices = slice(0, 3), slice(0, 1), slice(1, 3)
        calls = [(x[part, ...], {name: y[part] for name, y in masks.items()}) for part in slices]
        sums = [loss.events_and_entries(part, **options) for part, options in calls]
        for (_, options), rest in zip(calls[1:], (sums[2], sums[1]), strict=True):
            options["others"] = rest
        return sums, [sx.value_and_grad(loss)(part, **options) for part, options in calls]

    masks = {} if lengths is None else {"lengths": lengths}
    sums, ((value, gradient), *parts) = run(backend, evaluate, LAYER, **masks)
    for total, here, elsewhere in zip(*sums, strict=True):
        assert total.shape == ((2,) if per == "neuron" else ())
        close(here + elsewhere, total, backend.rtol)
    np.testing.assert_allclose([part[0] for part in parts], value, rtol=4 * backend.rtol)
    atol = 4 * backend.rtol * max(1e-3, float(np.max(np.abs(gradient))))
    together = np.concatenate([part[1] for part in parts])
    np.testing.assert_allclose(together, gradient, rtol=0, atol=atol)


def test_events_and_entries_match_hand_calculation():
    events, entries = sx.SparsityEnforcer().events_and_entries(LAYER)
    assert (float(events), float(entries)) == (7.5, 18)
    sums = sx.SparsityEnforcer(per="neuron").events_and_entries(LAYER, lengths=[3, 0, 2])
    assert [x.tolist() for x in sums] == [[5, 0], [5, 5]]


# Rates of samples, and scaled events ---------------------------------------------------------


@pytest.mark.parametrize("per", ["sample", "sample_neuron"])
@pytest.mark.parametrize("power", [1, 2])
def test_terms_of_samples_add_up_over_any_split(backend, per, power):
    """The upper bound of Zenke and Vogels, on the mean activity of each neuron or sample."""
    loss = sx.SparsityEnforcer(0.25, 2.0, min_rate=0.1, per=per, power=power)
    counts = np.abs(LAYER).sum(axis=2) / 3 if per == "sample_neuron" else np.abs(LAYER).mean((1, 2))
    terms = np.maximum(counts - 0.25, 0) ** power + np.maximum(0.1 - counts, 0) ** power

    def evaluate(x):
        parts = [loss.sum_and_weight(x[part, ...]) for part in (slice(0, 1), slice(1, 3))]
        return sx.value_and_grad(loss)(x), parts

    (value, _), parts = run(backend, evaluate, LAYER)
    np.testing.assert_allclose(value, 2 * terms.mean(), rtol=4 * backend.rtol)
    total, number = (sum(numbers) for numbers in zip(*parts, strict=True))
    np.testing.assert_allclose(total, 2 * terms.sum(), rtol=4 * backend.rtol)
    assert number == terms.size


def test_masked_samples_do_not_count(backend):
    loss, lengths = sx.SparsityEnforcer(0.25, per="sample"), np.asarray([3, 0, 2])
    value, (total, number) = run(
        backend,
        lambda x, n: (loss(x, lengths=n), loss.sum_and_weight(x, lengths=n)),
        LAYER,
        lengths,
    )
    expected = (3 / 6 - 0.25) ** 2 + (2 / 4 - 0.25) ** 2
    np.testing.assert_allclose((value, total, number), (expected / 2, expected, 2), rtol=1e-5)


@pytest.mark.parametrize("per", ["array", "sample"])
@pytest.mark.parametrize("power", [1, 2])
def test_scaled_events_of_all_layers_are_compared_once(backend, per, power):
    """Synaptic operations: the spikes of each layer times its number of synapses."""
    first, second = np.abs(LAYER), np.ones((3, 4, 5))
    loss = sx.SparsityEnforcer(6.0, 0.5, per=per, power=power, scale=(2, 0.5))
    operations = 2 * first.sum((1, 2)) / 3 + 0.5 * second.sum((1, 2)) / 5  # of a step
    rates = operations if per == "sample" else operations.mean()
    expected = 0.5 * np.mean(np.maximum(rates - 6.0, 0) ** power)
    value = run(backend, lambda x, y: loss([x, y]), first, second)
    np.testing.assert_allclose(value, expected, rtol=10 * backend.rtol)
    if per == "sample":
        total, number = run(backend, lambda x, y: loss.sum_and_weight((x, y)), first, second)
        np.testing.assert_allclose(total / number, expected, rtol=10 * backend.rtol)


def test_silent_neurons_rise_below_the_range_only():
    """Above it, |x| has slope 0 at 0, also beside a `min_rate`."""
    loss = sx.SparsityEnforcer(0.5, min_rate=0.25, per="sample")
    x = np.asarray([[[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]], [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    _, gradient = sx.value_and_grad(loss)(x)
    assert not gradient[0, :, 2].any()
    assert (gradient[1] < 0).all()


def test_scaled_events_of_masked_samples_do_not_count(backend):
    loss = sx.SparsityEnforcer(1.0, per="sample", scale=(2, 1))
    lengths, layer = np.asarray([3, 0, 2]), np.abs(LAYER)
    value = run(backend, lambda x, n: loss([x, x], lengths=n), layer, lengths)
    rates = 3 * np.asarray([layer[0].sum() / 3, layer[2, :, :2].sum() / 2])
    np.testing.assert_allclose(value, np.mean((rates - 1) ** 2), rtol=10 * backend.rtol)


def test_scale_reaches_silent_neurons(backend):
    if not backend.differentiates:
        pytest.skip("several arrays are differentiated automatically only")
    loss = sx.SparsityEnforcer(2.0, min_rate=1.0, scale=(3, 1))
    function = sx.value_and_grad(lambda x, y: loss({"first": x, "second": y}))
    value, gradient = run(backend, function, np.zeros((2, 2, 4)), np.zeros((2, 3, 4)))
    np.testing.assert_allclose(value, 1, rtol=1e-6)
    np.testing.assert_allclose(gradient, -2 * 3 / 8, rtol=1e-6)  # scale / (samples times steps)
