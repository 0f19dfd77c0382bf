"""Losses of a user: those of docs/adding-a-loss.md, and subclasses that override the evaluation."""

import dataclasses
import functools

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import reference
from _support.backends import on
from _support.calls import each, run
from _support.cases import close
from _support.contract import REDUCTIONS
from _support.processes import recipes
from spikeloss_xp.losses import Loss

BATCH, CLASSES, STEPS, WINDOW = 4, 3, 6, 2
LABEL = np.asarray([0, 2, 1, 2])
WEIGHT = np.asarray([0.5, 1.0, 3.0])
SPIKES = np.random.default_rng(0).uniform(size=(BATCH, CLASSES, STEPS))
random = np.random.default_rng(1)
MASKS = {
    "none": {},
    "all": {"where": np.ones((BATCH, CLASSES, STEPS), bool)},
    "batch": {"where": np.asarray([True, False, True, True])},
    "steps": {"where": random.random((BATCH, STEPS)) < 0.6},
    "entries": {"where": random.random((BATCH, CLASSES, STEPS)) < 0.5},
    "neurons": {"where": np.repeat(random.random((BATCH, CLASSES, 1)) < 0.6, STEPS, axis=2)},
    "lengths": {"lengths": np.asarray([6, 0, 3, 1])},
    "both": {"where": random.random((BATCH, STEPS)) < 0.6, "lengths": np.asarray([6, 0, 3, 1])},
    "nothing": {"where": np.zeros(BATCH, bool)},
}


own_loss = recipes("own_loss")
FocalMax, FocalMoid = own_loss.FocalMax, own_loss.FocalMoid
LOSSES = {
    "sample": FocalMax(gamma=1.5),
    "sample-window": FocalMax(gamma=1.5, moving_window=WINDOW),
    "class": FocalMoid(gamma=1.5),
    "class-window": FocalMoid(gamma=1.5, moving_window=WINDOW),
}


def expected_terms(loss, label, weight, **masks):
    """Return the terms of the reference for the entropy of the same labels, in focus.

    Axes are ``[batch, class or 1, step or 1]``.
    """
    options = {"time_axis": -1, "moving_window": loss.moving_window, "readout": "count"}
    if isinstance(loss, FocalMoid):
        plain, target = (
            sx.SpikeMoid(theta=loss.theta, **options),
            label[:, None] == np.arange(CLASSES),
        )
    else:
        plain, target = sx.CrossEntropy(**options), label
    found = reference.evaluate(plain, SPIKES, target, **masks)
    counts = found.term_mask & (label != loss.ignore_index)[:, None, None]
    of_label = np.ones(BATCH) if weight is None else weight[label * (label >= 0)]
    of_terms = of_label[:, None, None] * counts
    focus = (1 - np.exp(-found.terms)) ** loss.gamma
    return reference.Terms(of_terms * focus * found.terms, counts, of_terms)


@pytest.mark.compiles
def test_documented_checks_pass():
    recipes("composed_loss")
    own_loss.check()
    pytest.importorskip("torch")
    own_loss.check_second_derivative()


@pytest.mark.slow(but=12)
@pytest.mark.parametrize(
    ("label", "weight"),
    [(LABEL, None), (np.asarray([0, 2, -100, 2]), WEIGHT)],
    ids=["", "ignored-and-weight"],
)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", LOSSES)
def test_documented_loss_equals_its_formula(backend, name, mask, label, weight):
    loss, options = LOSSES[name], dict(MASKS[mask])
    found = expected_terms(loss, label, weight, **options)
    terms, total = found.terms, found.terms.sum()
    in_layout = terms if isinstance(loss, FocalMoid) else terms[:, 0]
    expected = {"none": in_layout if loss.moving_window else in_layout[..., 0]}
    expected |= {name: total / reference.divisor(name, found) for name in REDUCTIONS[:-1]}
    numbers = found.term_weight.sum(), found.term_weight.sum(), found.term_mask.any((1, 2)).sum()
    if weight is not None:
        options["weight"] = weight
    none, *others = [dataclasses.replace(loss, reduction=reduction) for reduction in expected]
    both = each([each([none, *others]), each([loss.sum_and_weight for loss in others])])
    values, sums = run(backend, both, SPIKES, label, **options)
    for got, value in zip(values, expected.values(), strict=True):
        assert got.shape == np.shape(value)
        np.testing.assert_allclose(got, value, rtol=0, atol=100 * backend.rtol)
    for (added, number), expected_number in zip(sums, numbers, strict=True):
        np.testing.assert_allclose(added, total, rtol=0, atol=100 * backend.rtol)
        np.testing.assert_allclose(number, expected_number, rtol=backend.rtol)
        assert added.dtype == number.dtype


@pytest.mark.slow(but=6)
@pytest.mark.parametrize("reduction", ["sum", "mean", "batchmean", "none"])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", LOSSES)
def test_documented_loss_has_one_gradient_on_all_backends(name, mask, reduction):
    loss = dataclasses.replace(LOSSES[name], reduction=reduction)
    label = np.asarray([0, -100, 1, 2])
    sx.testing.assert_consistent(loss, SPIKES, label, weight=WEIGHT, **MASKS[mask])


@pytest.mark.parametrize("name", LOSSES)
def test_masked_entries_have_zero_gradient_whatever_they_hold(backend, name):
    mask = MASKS["entries"]["where"]
    spikes = np.where(mask, SPIKES, np.nan)
    value, gradient = run(backend, sx.value_and_grad(LOSSES[name]), spikes, LABEL, where=mask)
    assert np.isfinite(value)
    assert (gradient[~mask] == 0).all()
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("cut", [1, 2, 3])
@pytest.mark.parametrize("reduction", ["sum", "mean", "batchmean"])
@pytest.mark.parametrize("name", LOSSES)
def test_sum_and_weight_add_up_over_any_split(backend, name, reduction, cut):
    loss = dataclasses.replace(LOSSES[name], reduction=reduction)
    mask, label = MASKS["steps"]["where"], np.asarray([0, -100, 1, 2])

    def evaluate(*arrays):
        parts = [x[:cut, ...] for x in arrays], [x[cut:, ...] for x in arrays]
        add_up = functools.partial(loss.sum_and_weight, weight=WEIGHT)
        whole = loss(*arrays[:2], where=arrays[2], weight=WEIGHT)
        return whole, [add_up(spikes, label, where=where) for spikes, label, where in parts]

    whole, sums = run(backend, evaluate, SPIKES, label, mask)
    total, weight = np.sum(sums, axis=0)
    value = total if reduction == "sum" else total / weight
    np.testing.assert_allclose(value, whole, rtol=10 * backend.rtol)


@pytest.mark.parametrize("library", ["torch", "jax-x64"])
@pytest.mark.parametrize("reduction", ["mean", "batchmean"])
def test_sum_and_weight_are_differentiated_by_the_library(library, reduction):
    with on(library) as backend:
        loss = sx.SpikeMax(3, reduction=reduction)
        mask = MASKS["steps"]["where"]

        def quotient(x):
            total, weight = loss.sum_and_weight(x, LABEL, where=mask, weight=WEIGHT)
            return total / weight

        value, gradient = run(backend, sx.value_and_grad(quotient), SPIKES)
        expected = sx.value_and_grad(loss)(SPIKES, LABEL, where=mask, weight=WEIGHT)
        np.testing.assert_allclose(value, expected[0], rtol=1e-12)
        np.testing.assert_allclose(gradient, expected[1], rtol=0, atol=1e-12)


# Mistakes of a subclass --------------------------------------------------------------------------


class TermPerSample(FocalMoid):
    """A mistake: one term for each sample, without saying so."""

    def _criterion(self, adapter, reading, labels):
        u = adapter.xp.sum(reading.u, axis=reading.class_axis, keepdims=True)
        return u, lambda cotangent: cotangent


class TermPerClass(FocalMax):
    """A mistake: one term for each class, where classes compete."""

    def _criterion(self, adapter, reading, labels):
        return reading.u, lambda cotangent: cotangent


@pytest.mark.parametrize("window", [None, WINDOW])
@pytest.mark.parametrize("options", [{}, MASKS["all"], {"weight": WEIGHT}], ids=repr)
@pytest.mark.parametrize(
    ("kind", "rule"), [(TermPerSample, "one for each reading"), (TermPerClass, "for each sample")]
)
def test_terms_of_the_wrong_shape_raise(kind, rule, options, window):
    with pytest.raises(ValueError, match=rf"criterion of {kind.__name__} must return .*{rule}"):
        kind(moving_window=window)(SPIKES, LABEL, **options)


def test_subclass_without_all_members_cannot_be_made():
    class Incomplete(Loss):
        reduction, time_axis = "sum", -1

    with pytest.raises(TypeError, match=r"abstract .*_criterion.*_labels.*_read"):
        Incomplete()


def test_loss_without_class_weights_raises_for_weight():
    class Mean(Loss):
        reduction, time_axis = "sum", -1

        def _labels(self, prepared, target):
            return prepared.adapter.xp.zeros_like(prepared.values)

        def _read(self, prepared, values, mask, labels):
            return sx.readouts.count(prepared.adapter, values, mask, prepared.layout.time)

        def _criterion(self, adapter, reading, labels):
            return reading.u, lambda cotangent: adapter.xp.ones_like(reading.u) * cotangent

    value, gradient = sx.value_and_grad(Mean())(SPIKES, None)
    np.testing.assert_allclose(value, SPIKES.sum())
    np.testing.assert_array_equal(gradient, np.ones_like(SPIKES))
    with pytest.raises(TypeError, match="Mean takes no weight: it has no classes"):
        Mean()(SPIKES, None, weight=[1, 2, 3])


class Doubled(sx.SpikeRate):
    """A subclass that overrides the call."""

    def __call__(self, *arrays, **options):
        return 2 * super().__call__(*arrays, **options)


class DoubledValue(sx.SpikeRate):
    """A subclass that overrides the value, and not its closed form."""

    def value(self, *arrays, **options):
        return 2 * super().value(*arrays, **options)


class DoubledBoth(DoubledValue):
    """A subclass that overrides the value and its closed form."""

    def value_and_pullback(self, *arrays, **options):
        value, pullback = super().value_and_pullback(*arrays, **options)
        return 2 * value, lambda cotangent: pullback(2 * cotangent)


def test_overridden_prediction_is_that_of_a_call():
    class Shifted(sx.Rate):
        def predict(self, spikes, **masks):
            return super().predict(spikes, **masks) + 100

    shifted = Shifted(time_axis=-1)
    for call in (shifted, shifted.forward):
        np.testing.assert_array_equal(call(SPIKES), sx.Rate(time_axis=-1)(SPIKES) + 100)


@pytest.mark.parametrize("kind", [Doubled, DoubledValue, DoubledBoth])
def test_overridden_evaluation_is_the_one_that_is_differentiated(backend, kind):
    value, gradient = sx.value_and_grad(sx.SpikeRate(0.5, 0.0))(SPIKES, LABEL)
    loss = kind(0.5, 0.0)
    if not backend.differentiates and kind is not DoubledBoth:
        np.testing.assert_allclose(run(backend, loss, SPIKES, LABEL), 2 * value, rtol=backend.rtol)
        with pytest.raises(TypeError, match=f"no automatic differentiation.*{kind.__name__}"):
            sx.value_and_grad(loss)(backend.asarray(SPIKES), LABEL)
        return
    both = each([loss, sx.value_and_grad(loss)])
    called, (differentiated, slope) = run(backend, both, SPIKES, LABEL)
    np.testing.assert_allclose((called, differentiated), 2 * value, rtol=backend.rtol)
    close(slope, 2 * gradient, backend.rtol)


def test_overridden_evaluation_is_used_by_backward():
    torch = pytest.importorskip("torch")
    _, gradient = sx.value_and_grad(sx.SpikeRate(0.5, 0.0))(SPIKES, LABEL)
    for kind in (Doubled, DoubledValue, DoubledBoth):
        spikes = torch.tensor(SPIKES, requires_grad=True)
        kind(0.5, 0.0)(spikes, LABEL).backward()
        np.testing.assert_allclose(spikes.grad, 2 * gradient, rtol=1e-12)


def test_wrong_override_on_one_library_is_inconsistent():
    pytest.importorskip("torch")

    class WrongOnTorch(DoubledBoth):
        def value(self, input, *arrays, **options):
            factor = 1.0 if type(input).__module__ == "numpy" else 1.001
            return factor * super().value(input, *arrays, **options)

        def value_and_pullback(self, *arrays, **options):
            return super().value_and_pullback(*arrays, **options)

    with pytest.raises(AssertionError, match="the value"):
        sx.testing.assert_consistent(WrongOnTorch(0.5, 0.0), SPIKES, LABEL, backends=["torch"])


def test_arrays_that_a_loss_holds_get_a_gradient():
    torch = pytest.importorskip("torch")

    @dataclasses.dataclass(frozen=True, eq=False)
    class Learnt(sx.SpikeRate):
        scale: object = dataclasses.field(default=None, kw_only=True)

        def _criterion(self, adapter, reading, labels):
            terms, pullback = super()._criterion(adapter, reading, labels)
            return terms * self.scale, lambda cotangent: pullback(cotangent * self.scale)

    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    spikes = torch.tensor(SPIKES, requires_grad=True)
    value = Learnt(0.5, 0.0, scale=scale)(spikes, LABEL)
    value.backward()
    torch.testing.assert_close(scale.grad, value.detach() / 2)
    assert Learnt(0.5, 0.0, scale=scale).captured_arrays() == (scale,)
    assert Learnt(0.5, 0.0, scale=2.0).captured_arrays() == ()
    assert Learnt(0.5, 0.0, scale=lambda x: x).captured_arrays() is None
