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


def test_empty_input_raises(backend):
    with pytest.raises(ValueError, match=r"no elements: got shape \(2, 0\)"):
        sx.SparsityEnforcer()(backend.asarray(np.zeros((2, 0))))


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


@pytest.mark.parametrize(
    ("options", "others", "message"),
    [
        ({}, (1.0, 2.0, 3.0), "others must be a pair, events and entries; got 3"),
        ({}, ([1.0, 2.0], 3.0), r"others must hold events of shape \(\) \(a scalar\); got \(2,\)"),
        ({"per": "neuron"}, ([1.0, 2.0], [3.0]), r"entries of shape \(2,\) \(\[neuron\]\); got"),
    ],
)
def test_others_of_wrong_shape_raise(options, others, message):
    with pytest.raises(ValueError, match=message):
        sx.SparsityEnforcer(**options)(LAYER, others=others)


def test_others_with_several_arrays_raise():
    with pytest.raises(ValueError, match="others belong to one array: call the loss once for"):
        sx.SparsityEnforcer()([LAYER, LAYER], others=(1.0, 2.0))
