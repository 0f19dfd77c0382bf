"""Losses of a user: those of recipes/own_loss.py, and subclasses that override the evaluation."""

import dataclasses

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import reference
from _support.calls import each, run
from _support.cases import close
from _support.processes import recipes
from spikeloss_xp.losses import Loss

BATCH, CLASSES, STEPS, WINDOW = 4, 3, 6, 2
LABEL, IGNORING = np.asarray([0, 2, 1, 2]), np.asarray([0, 2, -100, 2])
WEIGHT = np.asarray([0.5, 1.0, 3.0])
SPIKES = np.random.default_rng(0).uniform(size=(BATCH, CLASSES, STEPS))
MASK = np.random.default_rng(1).random(SPIKES.shape) < 0.5

own_loss = recipes("own_loss")
FocalMax = own_loss.FocalMax


@pytest.mark.slow
@pytest.mark.compiles
def test_documented_checks_pass():
    recipes("composed_loss")
    own_loss.test_own_losses()


def test_documented_values_and_second_derivatives_pass():
    pytest.importorskip("torch")
    own_loss.test_values()
    own_loss.test_second_derivative()


@pytest.mark.parametrize("window", [None, WINDOW])
def test_documented_loss_equals_the_entropy_in_focus(window):
    """With a mask, ignored labels and class weights."""
    loss, plain = FocalMax(1.5, window), sx.CrossEntropy(time_axis=-1, moving_window=window)
    found = reference.evaluate(plain, SPIKES, IGNORING, where=MASK)
    counts = found.term_mask & (IGNORING >= 0)[:, None, None]
    of_terms = WEIGHT[np.maximum(IGNORING, 0)][:, None, None] * counts
    terms = of_terms * (1 - np.exp(-found.terms)) ** loss.gamma * found.terms
    spikes = np.where(MASK, SPIKES, np.nan)
    sums = loss.sum_and_weight(spikes, IGNORING, where=MASK, weight=WEIGHT)
    np.testing.assert_allclose(sums, (terms.sum(), of_terms.sum()), rtol=0, atol=1e-10)
    got = dataclasses.replace(loss, reduction="none")(spikes, IGNORING, where=MASK, weight=WEIGHT)
    np.testing.assert_allclose(got.reshape(terms.shape), terms, rtol=0, atol=1e-10)


# Mistakes of a subclass --------------------------------------------------------------------------


class TermPerSample(FocalMax):
    """A mistake: one term for each sample, without saying so."""

    _classes_compete = False

    def _criterion(self, adapter, reading, labels):
        u = adapter.xp.sum(reading.u, axis=reading.class_axis, keepdims=True)
        return u, lambda cotangent: cotangent


class TermPerClass(FocalMax):
    """A mistake: one term for each class, where classes compete."""

    def _criterion(self, adapter, reading, labels):
        return reading.u, lambda cotangent: cotangent


@pytest.mark.parametrize("window", [None, WINDOW])
@pytest.mark.parametrize("options", [{}, {"where": MASK}, {"weight": WEIGHT}], ids=repr)
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


def test_loss_without_classes_raises_for_weight():
    with pytest.raises(TypeError, match="PoissonTrains takes no weight: it has no classes"):
        own_loss.PoissonTrains()(SPIKES, SPIKES, weight=WEIGHT)


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
    if backend.library == "torch":
        spikes = backend.asarray(SPIKES).requires_grad_()
        loss(spikes, LABEL).backward()
        close(backend.numpy(spikes.grad), 2 * gradient, backend.rtol)


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
    assert Learnt(0.5, 0.0, scale=(2.0, scale)).captured_arrays() is None
