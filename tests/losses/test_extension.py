"""Losses of a user: those of recipes/own_loss.py, and subclasses that override the evaluation."""

import dataclasses
import inspect

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import reference
from _support.calls import each, run
from _support.cases import close
from _support.processes import recipes
from _support.split import SquaredCount
from spikeloss_xp.backends.base import captured_arrays
from spikeloss_xp.losses import ClassLoss, Loss, TrainLoss
from spikeloss_xp.slayer import published

BATCH, CLASSES, STEPS, WINDOW = 4, 3, 6, 2
LABEL, IGNORING = np.asarray([0, 2, 1, 2]), np.asarray([0, 2, -100, 2])
WEIGHT = np.asarray([0.5, 1.0, 3.0])
SPIKES = np.random.default_rng(0).uniform(size=(BATCH, CLASSES, STEPS))
MASK = np.random.default_rng(1).random(SPIKES.shape) < 0.5

own_loss = recipes("own_loss")
FocalLoss = own_loss.FocalLoss


@pytest.mark.slow
@pytest.mark.compiles
def test_documented_checks_pass():
    pytest.importorskip("torch")
    own_loss.test_own_losses()


def test_documented_values_and_second_derivatives_pass():
    pytest.importorskip("torch")
    own_loss.test_values()
    own_loss.test_second_derivative()


@pytest.mark.parametrize("window", [None, WINDOW])
def test_documented_loss_equals_the_entropy_in_focus(window):
    """With a mask, ignored labels and class weights."""
    loss = FocalLoss(1.5, time_axis=-1, moving_window=window)
    plain = sx.CrossEntropy(time_axis=-1, moving_window=window)
    found = reference.evaluate(plain, SPIKES, IGNORING, where=MASK)
    counts = found.term_mask & (IGNORING >= 0)[:, None, None]
    of_terms = WEIGHT[np.maximum(IGNORING, 0)][:, None, None] * counts
    terms = of_terms * (1 - np.exp(-found.terms)) ** loss.gamma * found.terms
    spikes = np.where(MASK, SPIKES, np.nan)
    sums = loss.sum_and_weight(spikes, IGNORING, where=MASK, weight=WEIGHT)
    np.testing.assert_allclose(sums, (terms.sum(), of_terms.sum()), rtol=0, atol=1e-10)
    got = dataclasses.replace(loss, reduction="none")(spikes, IGNORING, where=MASK, weight=WEIGHT)
    np.testing.assert_allclose(got.reshape(terms.shape), terms, rtol=0, atol=1e-10)


# Options and signatures --------------------------------------------------------------------------


def test_options_are_inherited_and_the_time_axis_is_required():
    options = ["time_axis", "readout", "moving_window", "reduction", "num_classes", "ignore_index"]
    assert options == [field.name for field in dataclasses.fields(FocalLoss)][: len(options)]
    assert FocalLoss(time_axis=0).readout == "count"
    with pytest.raises(TypeError, match="time_axis"):
        FocalLoss()
    with pytest.raises(ValueError, match=r"readout.*'first'"):
        FocalLoss(time_axis=0, readout="first")
    with pytest.raises(ValueError, match="readout='max' is computed over all time steps"):
        FocalLoss(time_axis=0, readout="max", moving_window=3)


def test_options_are_given_by_name():
    nameless = {
        "SpikeRate": ["true_rate", "false_rate"],
        "SparsityEnforcer": ["max_rate"],
        "SpikeLatency": ["true_time", "false_time"],
    }
    for room in (sx, published):
        for name in set(room.__all__) & set(sx.losses.__all__):
            parameters = inspect.signature(getattr(room, name)).parameters.values()
            positional = [x.name for x in parameters if x.kind is x.POSITIONAL_OR_KEYWORD]
            assert positional == nameless.get(name, []), name


PAIRS = np.moveaxis(np.repeat(SPIKES, 2, axis=1), -1, 0)  # [time, batch, neuron]


@pytest.mark.parametrize(
    "where", [None, MASK[:, 0, 0], MASK[:, 0].T, np.random.default_rng(2).random(PAIRS.shape) < 0.5]
)
def test_own_readout_equals_the_same_readout_of_the_library(backend, where):
    """In groups of two neurons, each of which is the mean of its unmasked neurons."""
    own = SquaredCount(time_axis=0, num_classes=CLASSES)
    library = sx.SquaredError(time_axis=0, num_classes=CLASSES, readout="count")
    target = 3.0 * (LABEL[:, None] == np.arange(CLASSES))
    arrays = {} if where is None else {"where": where}
    expected = sx.value_and_grad(library)(PAIRS, target, **arrays)
    value, gradient = run(backend, sx.value_and_grad(own), PAIRS, LABEL, **arrays)
    close(value, expected[0], backend.rtol)
    close(gradient, expected[1], backend.rtol)


# Mistakes of a subclass --------------------------------------------------------------------------


class TermPerSample(FocalLoss):
    """A mistake: one term for each sample, without saying so."""

    classes_compete = False

    def criterion(self, reading, labels):
        return reading.classes.sum(reading.u), lambda cotangent: cotangent


class TermPerClass(FocalLoss):
    """A mistake: one term for each class, where classes compete."""

    def criterion(self, reading, labels):
        return reading.u, lambda cotangent: cotangent


@pytest.mark.parametrize("window", [None, WINDOW])
@pytest.mark.parametrize("options", [{}, {"where": MASK}, {"weight": WEIGHT}], ids=repr)
@pytest.mark.parametrize(
    ("kind", "rule"), [(TermPerSample, "one for each reading"), (TermPerClass, "for each sample")]
)
def test_terms_of_the_wrong_shape_raise(kind, rule, options, window):
    with pytest.raises(ValueError, match=rf"criterion of {kind.__name__} must return .*{rule}"):
        kind(time_axis=-1, moving_window=window)(SPIKES, LABEL, **options)


def test_reading_of_the_wrong_shape_raises():
    class Flat(SquaredCount):
        def read(self, trains):
            return trains.reading(trains.values[:, :, 0]), None

    with pytest.raises(ValueError, match=r"read of Flat must return .*\(4, 3, 1\).*got \(4, 3\)"):
        Flat(time_axis=-1)(SPIKES, LABEL)


@pytest.mark.parametrize("base", [ClassLoss, TrainLoss, Loss])
def test_subclass_without_a_criterion_cannot_be_made(base):
    class Incomplete(base):
        pass

    with pytest.raises(TypeError, match=r"abstract .*criterion"):
        Incomplete(time_axis=-1) if base is not Loss else Incomplete()


def test_error_in_a_property_of_a_subclass_is_shown():
    class Broken(sx.SpikeRate):
        @property
        def memory(self):
            return self.not_there

    with pytest.raises(AttributeError, match="'Broken' object has no attribute 'not_there'"):
        Broken(0.5, 0.0, time_axis=-1).sum_and_weight(SPIKES, LABEL, context=1)


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


@pytest.mark.parametrize("kind", [Doubled, DoubledValue, DoubledBoth])
def test_overridden_evaluation_is_the_one_that_is_differentiated(backend, kind):
    value, gradient = sx.value_and_grad(sx.SpikeRate(0.5, 0.0, time_axis=-1))(SPIKES, LABEL)
    loss = kind(0.5, 0.0, time_axis=-1)
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

        def criterion(self, reading, labels):
            terms, pullback = super().criterion(reading, labels)
            return terms * self.scale, lambda cotangent: pullback(cotangent * self.scale)

    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    spikes = torch.tensor(SPIKES, requires_grad=True)
    value = Learnt(0.5, 0.0, time_axis=-1, scale=scale)(spikes, LABEL)
    value.backward()
    torch.testing.assert_close(scale.grad, value.detach() / 2)
    assert captured_arrays(Learnt(0.5, 0.0, time_axis=-1, scale=scale)) == (scale,)
    assert captured_arrays(Learnt(0.5, 0.0, time_axis=-1, scale=2.0)) == ()
    assert captured_arrays(Learnt(0.5, 0.0, time_axis=-1, scale=lambda x: x)) is None
    assert captured_arrays(Learnt(0.5, 0.0, time_axis=-1, scale=(2.0, scale))) is None
