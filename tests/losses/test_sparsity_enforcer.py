"""SparsityEnforcer: values at silence, parts of a batch, rates of samples and scaled events."""

import dataclasses

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import reference
from _support.calls import Call, not_jax, one_jax, run
from _support.cases import SPIKES, as_published, close, raises
from spikeloss_xp.slayer import published

SATURATED = np.zeros((2, 3, 4))
SATURATED[:, 0] = 1  # saturated; the second neuron is silent
SATURATED[0, 2] = [1, 0, -1, 0]  # a rate of 1/4 over both samples: the sign does not matter


EVENTS = np.zeros((3, 4, 5))  # neuron 0 is silent, and neuron 2 is silent in the first sample
EVENTS[:, 1] = [1, 0, -1, 1, 0]
EVENTS[1:, 2] = [0, 2, 0, 0, 1]
EVENTS[:, 3, ::2] = 1
MASK = np.arange(60).reshape(3, 4, 5) % 7 > 0
LIMITS = (0.125, 0.0, 0.0, 0.5), (0.25, 0.5, 0.0, 1.0)  # lowest and highest rates


@one_jax
@pytest.mark.parametrize(
    ("loss", "value", "neuron_gradient"),
    [
        # rates 1, 0 and 1/4: 1/2 above 1/2, 1/8 below 1/8; mean over 3 neurons with 8 entries each
        (
            sx.SparsityEnforcer(0.5, 2, min_rate=1 / 8, per="neuron"),
            2 * (1 / 4 + 1 / 64) / 3,
            [1 / 12, -1 / 48, 0],
        ),
        # at both limits there is no distance, whose slope has a jump there without the square
        (
            sx.SparsityEnforcer(1, 1, min_rate=1 / 4, per="neuron", power=1),
            (1 / 4) / 3,
            [0, -1 / 24, 0],
        ),
    ],
)
def test_sparsity_matches_hand_computed_values(backend, loss, value, neuron_gradient):
    """The slope of ``|x|`` at a silent entry is 1; that of lava-dl is 0 above `max_rate`."""
    neuron_gradient = np.asarray(neuron_gradient)[:, None]
    for each in (loss, as_published(loss)):
        got, gradient = Call(each, SATURATED).on(backend)
        close(got, value, backend.rtol)
        silent = (SATURATED == 0) & ((each is loss) | (neuron_gradient < 0))
        close(gradient, neuron_gradient * np.where(silent, 1, np.sign(SATURATED)), backend.rtol)


def test_arrays_may_be_nested_and_keys_are_sorted():
    loss = sx.SparsityEnforcer(0.25, min_rate=0.125, per="neuron")
    x, y, z = layers = [SATURATED, 2 * SATURATED, SATURATED[:, :2]]
    expected = sum(reference.value(loss, x) for x in layers)
    for several in (layers, dict(enumerate(layers)), {"b": {"c": (x, [y])}, "a": z}):
        close(loss(several), expected, 1e-12)
    others = loss.events_and_entries(x)
    assert loss({"a": [x]}, others=others) == loss(x, others=others)


def test_mean_of_a_silent_array_has_its_slope(backend):
    """Without a limit and a square the loss is the mean, which lava-dl has not at silence."""
    for kind, slope in ((sx.SparsityEnforcer, 1 / 12), (published.SparsityEnforcer, 0)):
        loss = kind(0, power=1)
        value, gradient = run(backend, sx.value_and_grad(loss), np.zeros((3, 4)))
        assert value == 0
        close(gradient, np.full((3, 4), slope), backend.rtol)


def test_a_plain_line_has_the_gradient_of_a_mean(backend):
    """Also at ``max_rate``, where the square has no slope, and in an array of any shape."""
    evaluate = sx.value_and_grad(sx.SparsityEnforcer(0.25, 2.0))
    for x, slope in (([1.0, 0.0, 0.0, 0.0], 0.0), ([1.0, 0.0, -1.0, -0.0], 2 * 2 * 0.25 / 4)):
        value, gradient = run(backend, evaluate, x)
        assert value == 2 * (np.mean(np.abs(x)) - 0.25) ** 2
        close(gradient, slope * np.asarray([1, 1, np.sign(x[2]) or 1, 1]), backend.rtol)


@one_jax
@pytest.mark.parametrize("masks", [{}, {"lengths": np.asarray([5, 0, 2]), "where": MASK}])
@pytest.mark.parametrize("kind", [sx.SparsityEnforcer, published.SparsityEnforcer])
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("per", ["neuron", "sample_neuron"])
def test_limits_of_each_neuron_match_the_formula(backend, per, power, kind, masks):
    lowest, highest = LIMITS
    loss = kind(highest, 2.0, min_rate=np.asarray(lowest), per=per, power=power)
    assert loss == dataclasses.replace(loss) != dataclasses.replace(loss, min_rate=0.0)
    assert hash(loss) == hash(dataclasses.replace(loss))
    lowest, highest = (np.asarray(limit)[:, None] for limit in LIMITS)
    counted = np.ones(EVENTS.shape, bool)
    if masks:
        counted = MASK & (np.arange(5) < masks["lengths"][:, None, None])
    axes = (0, 2) if per == "neuron" else (2,)
    entries = counted.sum(axis=axes, keepdims=True)
    rate = (abs(EVENTS) * counted).sum(axis=axes, keepdims=True) / np.maximum(entries, 1)
    above = (rate > highest) | ((rate == 0) & (highest == 0))
    below, number = rate < lowest, 2.0 * (entries > 0) / (entries > 0).sum()
    distance = above * (rate - highest) + below * (lowest - rate)
    slope = number * power * distance ** (power - 1) * (1.0 * above - below)
    at_silence = below if kind is published.SparsityEnforcer else 1
    sign = np.where(EVENTS == 0, at_silence, np.sign(EVENTS))
    value, gradient = Call(loss, EVENTS, **masks).on(backend)
    close(value, (number * distance**power).sum(), backend.rtol)
    close(gradient, counted * sign * slope / np.maximum(entries, 1), backend.rtol)


def test_arrays_with_limits_of_each_neuron_have_equal_numbers_of_neurons():
    loss = sx.SparsityEnforcer((0.25, 0.5, 0.0, 1.0), per="neuron")
    assert loss([EVENTS, 2 * EVENTS]) == loss(EVENTS) + loss(2 * EVENTS)
    others = loss.events_and_entries(EVENTS[:1])
    close(loss(EVENTS[1:], others=others), loss(EVENTS), 1e-12)
    with raises(
        ValueError, "max_rate must be one number or 3 numbers (one for each neuron); got 4"
    ):
        loss([EVENTS, EVENTS[:, :3]])


# The sums of parts of a batch ----------------------------------------------------------------

LAYER = np.asarray(
    [
        [[1.0, -2.0, 0.0], [0.0, 0.0, 0.0]],
        [[0.0, 1.0, 0.0], [0.0, 0.5, 0.0]],
        [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]],
    ]
)


@one_jax
@pytest.mark.parametrize(
    ("per", "masks", "limits"),
    [
        ("array", {}, (0.9, 0.8)),
        ("array", {"lengths": np.asarray([3, 0, 2])}, (0.25, 0.2)),
        ("neuron", {}, (0.25, 0.2)),
        ("neuron", {"lengths": np.asarray([3, 0, 2])}, (0.25, 0.0)),
    ],
)
def test_term_with_others_is_that_of_the_whole(backend, per, masks, limits):
    max_rate, min_rate = limits
    loss = sx.SparsityEnforcer(max_rate, 2.0, min_rate=min_rate, per=per)

    def evaluate(x, **masks):
        slices = slice(0, 3), slice(0, 1), slice(1, 3)
        calls = [(x[part, ...], {name: y[part] for name, y in masks.items()}) for part in slices]
        sums = [loss.events_and_entries(part, **options) for part, options in calls]
        for (_, options), rest in zip(calls[1:], (sums[2], sums[1]), strict=True):
            options["others"] = rest
        return sums, [sx.value_and_grad(loss)(part, **options) for part, options in calls]

    sums, ((value, gradient), *parts) = run(backend, evaluate, LAYER, **masks)
    for total, here, elsewhere in zip(*sums, strict=True):
        assert total.shape == ((2,) if per == "neuron" else ())
        close(here + elsewhere, total, backend.rtol)
    np.testing.assert_allclose([part[0] for part in parts], value, rtol=4 * backend.rtol)
    atol = 4 * backend.rtol * max(1e-3, float(np.max(np.abs(gradient))))
    together = np.concatenate([part[1] for part in parts])
    np.testing.assert_allclose(together, gradient, rtol=0, atol=atol)


@not_jax  # it has no float64 by default
def test_others_in_another_precision_keep_the_precision_of_the_input(backend):
    loss, x = sx.SparsityEnforcer(0.1, per="neuron"), backend.asarray(LAYER, "float32")
    events = backend.asarray(np.full(2, 5.0), "float64")
    assert loss(x, others=(events, events)).dtype == loss(x).dtype


def test_arrays_of_two_libraries_raise():
    torch = pytest.importorskip("torch")
    layers = [SATURATED, torch.asarray(SATURATED)]
    with pytest.raises(TypeError, match="input must hold arrays of one library"):
        sx.SparsityEnforcer()(layers)


def test_wrong_arrays_raise(backend):
    x = backend.asarray(SPIKES)
    for arrays, message in (
        (x[0, :2, :0], "no elements: got shape (2, 0)"),
        ([], "must hold at least one array; got none"),
        ({"conv": [], "fc": [x]}, "input['conv'] must hold at least one array"),
    ):
        with raises(ValueError, message):
            sx.SparsityEnforcer()(arrays)
    with raises(TypeError, "input['a'] must have keys of one type; got [1, 'b']"):
        sx.SparsityEnforcer()({"a": {1: x, "b": x}})
    for call in (sx.SparsityEnforcer(), sx.SparsityEnforcer().forward):
        with raises(TypeError, "no target: pass several arrays as a list, [x, y]"):
            call(x, x)


def test_wrong_sums_of_the_rest_of_a_batch_raise(backend):
    x, loss, no_pair = (
        backend.asarray(SPIKES),
        sx.SparsityEnforcer(),
        "a pair of events and entries",
    )
    with raises(ValueError, "others needs a single array.*call the loss once for"):
        loss([x, x], others=(1.0, 2.0))
    with raises(ValueError, f"others must be {no_pair}; got 3 items"):
        loss(x, others=(1.0, 2.0, 3.0))
    for others in (3, "ab"):
        with raises(TypeError, f"others must be {no_pair}; got {others!r}"):
            loss(x, others=others)
    with raises(ValueError, "others must hold events of shape () (a scalar); got (2,)"):
        loss(x, others=([1.0, 2.0], 3.0))
    with raises(ValueError, "others must hold entries of shape (4,) ([neuron]); got"):
        sx.SparsityEnforcer(per="neuron")(x, others=(np.ones(4), [3.0]))
    with raises(ValueError, "others needs.*got per='sample'"):
        sx.SparsityEnforcer(per="sample")(x, others=(1.0, 2.0))


def test_method_that_does_not_fit_the_loss_raises(backend):
    x = backend.asarray(SPIKES)
    for name in ("sum_and_weight", "sum_weight_and_pullback"):
        with raises(ValueError, f"{name} needs per='sample'.*got per='array'"):
            getattr(sx.SparsityEnforcer(), name)(x)
