"""SparsityEnforcer: slopes at silence and at the limits, and mistakes.

processes/test_micro_batches.py tests terms with the sums of the rest of a batch.
"""

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import reference
from _support.calls import not_jax, run
from _support.cases import SPIKES, close, raises
from spikeloss_xp.slayer import published

SATURATED = np.zeros((2, 3, 4))
SATURATED[:, 0] = 1  # saturated; the second neuron is silent
SATURATED[0, 2] = [1, 0, -1, 0]  # a rate of 1/4 over both samples: the sign does not matter


def test_arrays_may_be_nested():
    loss = sx.SparsityEnforcer(0.25, min_rate=0.125, per="neuron", time_axis=-1)
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
    evaluate = sx.value_and_grad(sx.SparsityEnforcer(0.25, rate_weight=2.0, time_axis=-1))
    for x, slope in (([1.0, 0.0, 0.0, 0.0], 0.0), ([1.0, 0.0, -1.0, -0.0], 2 * 2 * 0.25 / 4)):
        value, gradient = run(backend, evaluate, x)
        assert value == 2 * (np.mean(np.abs(x)) - 0.25) ** 2
        close(gradient, slope * np.asarray([1, 1, np.sign(x[2]) or 1, 1]), backend.rtol)


def test_rate_at_a_limit_has_no_slope_with_a_power_of_1(backend):
    loss = sx.SparsityEnforcer(1, min_rate=1 / 4, per="neuron", power=1, time_axis=-1)
    _, gradient = run(backend, sx.value_and_grad(loss), SATURATED)
    close(gradient, [[0], [-1 / 24], [0]] + 0 * SATURATED, backend.rtol)


def test_arrays_with_limits_of_each_neuron_have_equal_numbers_of_neurons():
    loss = sx.SparsityEnforcer((0.5, 0.0, 0.125), per="neuron", time_axis=-1)
    assert loss([SATURATED, 2 * SATURATED]) == loss(SATURATED) + loss(2 * SATURATED)
    others = loss.events_and_entries(SATURATED[:1])
    close(loss(SATURATED[1:], others=others), loss(SATURATED), 1e-12)
    with raises(ValueError, "max_rate must be one number or 2 numbers (one for each neuron); got"):
        loss([SATURATED, SATURATED[:, :2]])


LAYER = np.asarray(
    [
        [[1.0, -2.0, 0.0], [0.0, 0.0, 0.0]],
        [[0.0, 1.0, 0.0], [0.0, 0.5, 0.0]],
        [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]],
    ]
)


@not_jax  # it has no float64 by default
def test_others_in_another_precision_keep_the_precision_of_the_input(backend):
    loss, x = (
        sx.SparsityEnforcer(0.1, per="neuron", time_axis=-1),
        backend.asarray(LAYER, "float32"),
    )
    events = backend.asarray(np.full(2, 5.0), "float64")
    assert loss(x, others=(events, events)).dtype == loss(x).dtype


def test_arrays_of_two_libraries_raise():
    torch = pytest.importorskip("torch")
    layers = [SATURATED, torch.asarray(SATURATED)]
    with pytest.raises(TypeError, match="input must hold arrays of one library"):
        sx.SparsityEnforcer(time_axis=-1)(layers)


def test_wrong_arrays_raise(backend):
    x = backend.asarray(SPIKES)
    for arrays, message in (
        (x[0, :2, :0], "no elements: got shape (2, 0)"),
        ([], "must hold at least one array; got none"),
        ({"conv": [], "fc": [x]}, "input['conv'] must hold at least one array"),
    ):
        with raises(ValueError, message):
            sx.SparsityEnforcer(time_axis=-1)(arrays)
    for call in (sx.SparsityEnforcer(time_axis=-1), sx.SparsityEnforcer(0.5)):
        with raises(TypeError, "no target: pass several arrays as a list, [x, y]"):
            call(x, x)


def test_wrong_sums_of_the_rest_of_a_batch_raise(backend):
    x, loss, no_pair = (
        backend.asarray(SPIKES),
        sx.SparsityEnforcer(time_axis=-1),
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
        sx.SparsityEnforcer(per="neuron", time_axis=-1)(x, others=(np.ones(4), [3.0]))
    with raises(ValueError, "others needs.*got per='sample'"):
        sx.SparsityEnforcer(per="sample", time_axis=-1)(x, others=(1.0, 2.0))


def test_method_that_does_not_fit_the_loss_raises(backend):
    x = backend.asarray(SPIKES)
    for name in ("sum_and_weight", "sum_weight_and_pullback"):
        with raises(ValueError, f"{name} needs per='sample'.*got per='all'"):
            getattr(sx.SparsityEnforcer(time_axis=-1), name)(x)
