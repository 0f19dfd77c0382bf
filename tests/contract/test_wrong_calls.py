"""Wrong inputs, masks, weights and options of a call raise an error that says what was expected."""

from functools import partial

import numpy as np
from numpy import inf, nan

import spikeloss_xp as sx
from _support.cases import LABEL, MULTI_HOT, SPIKES, raises

rate, moid = (
    partial(sx.SpikeRate, 1, 0, time_axis=-1),
    partial(sx.SpikeMoid, time_axis=-1, alpha=1, theta=0),
)
entropy, LOSS = partial(sx.CrossEntropy, time_axis=-1), sx.SpikeMax(time_axis=-1)


def test_wrong_input_raises(backend):
    x, flat = backend.asarray(SPIKES), backend.asarray(np.zeros((2, 5)))
    with raises(TypeError, "builtins.tuple: if a network.*output[0]"):
        entropy()((x, x), LABEL)
    with raises(ValueError, "input must have at least 2 axes, [batch, *space, time].*(5,)"):
        sx.SpikeTime(time_axis=-1)(backend.asarray(np.zeros(5)), np.zeros(5))
    missing = "got shape (2, 5) (if these are counts.*as one time step, input[{1}], and divide.*;"
    missing += ".*batch axis is missing, pass input[{0}], and add the axis to the target too"
    for loss in (rate(), LOSS, moid()):
        expected = "input must have at least 3 axes, [batch, class or *space, time]"
        with raises(ValueError, f"{expected}.*{missing.format('None', '..., None')}"):
            loss(flat, np.zeros((2, 5)))
    for kind, axis, indices in (
        (sx.PoissonNLL, 0, (":, None", "None")),
        (sx.BernoulliNLL, -3, (":, None", "None")),
        (sx.PoissonNLL, 1, ("None", ":, None")),
    ):
        with raises(ValueError, missing.format(*indices)):  # [time, neuron], as a GLM has it
            kind(time_axis=axis)(flat, np.ones((2, 5)))
    for shape in ((2, 3, 0), (0, 3, 5), (2, 0, 5)):
        with raises(ValueError, f"input has no elements: got shape {shape}"):
            rate()(backend.asarray(np.zeros(shape)), [0])
    for axis in (3, -4):
        with raises(ValueError, f"time_axis={axis} is not an axis of input.*(3, 4, 5)"):
            rate(time_axis=axis)(x, LABEL)


def test_advice_on_counts_without_time_is_right(backend):
    counts, label = backend.asarray(SPIKES.sum(axis=-1)), backend.asarray(LABEL)
    for loss, index in ((entropy(), (..., None)), (sx.SquaredError(time_axis=0), (None, ...))):
        target = label if loss == entropy() else counts
        with raises(ValueError, f"one time step, input[{'None' if index[0] is None else '...'}"):
            loss(counts, target)
        assert loss(counts[index], target).shape == ()


def test_option_that_does_not_fit_the_input_raises(backend):
    x = backend.asarray(SPIKES)
    with raises(ValueError, "num_classes=3 must divide.*4"):
        sx.SpikeMax(num_classes=3, time_axis=-1)(x, [0, 1, 2])
    with raises(ValueError, "true_rate must be.*4 numbers.*got 3"):
        sx.SpikeRate((0.5, 0.5, 0.5), 0, time_axis=-1)(x, LABEL)
    with raises(
        ValueError, "min_rate must be one number or 4 numbers (one for each neuron); got 2"
    ):
        sx.SparsityEnforcer(0.5, min_rate=(0.25, 0.5), per="neuron", time_axis=-1)(x)
    with raises(ValueError, "pos_weight must be.*4 numbers.*got 2"):
        moid(pos_weight=(2, 3))(x, MULTI_HOT)


def test_unknown_option_of_a_call_raises(backend):
    x = backend.asarray(SPIKES)
    known = "takes the options where, lengths, weight; got"
    for loss in (entropy(), sx.value_and_grad(entropy())):
        with raises(TypeError, f"{known} mask: use where=..., which"):
            loss(x, LABEL, mask=[True, True, False])
    with raises(
        TypeError, "reduction is an option of the constructor, CrossEntropy(..., reduction=...)"
    ):
        entropy()(x, LABEL, reduction="sum")
    with raises(TypeError, "SparsityEnforcer takes the options where, lengths, others.*where=~..."):
        sx.SparsityEnforcer(time_axis=-1)(x, padding_mask=[True, True, False])
    loss = sx.SpikeMax(moving_window=1, time_axis=-1)
    for method in (loss, loss.value, loss.value_and_pullback, loss.sum_and_weight):
        with raises(TypeError, f"{known} lenghts"):
            method(x, LABEL, lenghts=2)
    for method in (loss, loss.value, loss.value_and_pullback):
        with raises(TypeError, f"{known} context"):
            method(x, LABEL, context=2)


def test_wrong_mask_raises(backend):
    x = backend.asarray(SPIKES)
    for shape in ((5, 3), (4,), (), (1,), (3, 4), (3, 2, 5), (5, 4, 3)):
        with raises(ValueError, f"where must.*(3,).*(3, 5).*(3, 4, 5).*got {shape}"):
            LOSS(x, LABEL, where=np.ones(shape, bool))
    for axis, index in ((-1, "None, :, None"), (1, "None, None, :")):
        order = np.moveaxis(SPIKES, -1, axis)
        with raises(
            ValueError, f"got (4,) (to leave out whole neurons, add the other axes: [{index}])"
        ):
            rate(time_axis=axis)(backend.asarray(order), LABEL, where=np.ones(4, bool))
    with raises(TypeError, "where must be bool.*int"):
        LOSS(x, LABEL, where=[1, 1, 0])
    for shape in ((2,), ()):
        with raises(ValueError, f"lengths must.*(3,).*got {shape}"):
            LOSS(x, LABEL, lengths=np.full(shape, 5))
    with raises(TypeError, "lengths must hold integers.*float"):
        LOSS(x, LABEL, lengths=[5.0, 4.0, 3.0])


def test_wrong_weight_raises(backend):
    x = backend.asarray(SPIKES)
    with raises(TypeError, "weight must hold numbers.*bool"):
        rate()(x, LABEL, weight=[True, False, True, True])
    with raises(ValueError, "weight must have shape (4,), one for each neuron; got (3,)"):
        sx.SpikeTime(time_axis=-1)(x, np.ones((3, 4, 5), bool), weight=np.ones(3))
    with raises(ValueError, "weight contains a number of magnitude 1e+300"):
        LOSS(backend.asarray(SPIKES, "float32"), LABEL, weight=np.full(4, 1e300))
    with raises(ValueError, "weight must.*got (3,) (to weight samples.*'none'"):
        LOSS(x, LABEL, weight=np.ones(3))
    for shape in ((2,), ()):
        with raises(ValueError, f"weight must have shape (4,).*got {shape}$"):
            LOSS(x, LABEL, weight=np.ones(shape))
    with raises(ValueError, "as long as the time axis of input, axis 2: see time_axis"):
        LOSS(x, LABEL, weight=np.ones(5))


def test_wrong_cotangent_raises(backend):
    x, terms = backend.asarray(SPIKES), sx.value_and_grad(rate(reduction="none"))
    with raises(ValueError, "cotangent.*(3, 4); got none"):
        terms(x, LABEL)
    with raises(ValueError, "cotangent.*(3, 4); got shape (4, 3)"):
        terms(x, LABEL, cotangent=backend.asarray(np.ones((4, 3))))
    with raises(ValueError, "cotangent.*(); got shape (3, 4)"):
        sx.value_and_grad(rate())(x, LABEL, cotangent=backend.asarray(np.ones((3, 4))))


def test_terms_have_no_sum(backend):
    with raises(ValueError, "reduction='none' has no sum"):
        sx.SpikeMax(reduction="none", time_axis=-1).sum_and_weight(backend.asarray(SPIKES), LABEL)


# Values that are read ----------------------------------------------------------------------------


def test_wrong_value_of_a_mask_or_weight_raises(backend, readable):
    x = backend.asarray(SPIKES)
    for length in (-1, 6):
        with raises(ValueError, f"lengths must be between 0 and 5; got.*{length}"):
            LOSS(x, LABEL, lengths=readable([1, length, 5]))
    for value in (-0.5, inf, nan):
        with raises(ValueError, f"weight must be finite and at least 0; got.*{value}"):
            LOSS(x, LABEL, weight=readable([1, value, 1, 1.0]))


def test_negative_spikes_raise(readable):
    """Where readouts have no value for them."""
    roots = entropy(readout="sqrt_count")
    late = np.where(np.arange(20).reshape(4, 5) > 14, nan, -0.2) * np.ones((3, 1, 1))
    with raises(ValueError, "input must not have negative.*got -1.*'softmax_sum'"):
        roots(readable(late), readable(LABEL))
    for window in (None, 2):
        with raises(ValueError, "input must not have negative.*mode='probability'.*CrossEntropy"):
            sx.SpikeMax(moving_window=window, time_axis=-1)(
                readable(np.full((3, 4, 5), -0.3)), readable(LABEL)
            )
    with raises(ValueError, "input must not have negative.*got -0.25$"):
        single = -readable(np.where(np.arange(60).reshape(3, 4, 5) == 7, 0.25, 0))
        sx.SpikeLatency(time_axis=-1)(single, readable(LABEL))
