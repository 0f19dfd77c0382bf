"""Losses are the same for every time axis and every shape of the spatial axes."""

import dataclasses

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import cases
from _support.cases import CASES, SPIKES, close, reduced
from spikeloss_xp import _tuning
from spikeloss_xp._input.layout import Layout

FORMS = [
    *("SpikeTime-order2", "SpikeRate", "SpikeRate-window-per-step"),
    *("SpikeMax-window", "SpikeMax-softmax-window-per-step"),
    *("SpikeMoid-soft", "SpikeMoid-window-per-step"),
]


def move_time(x, time_axis, rank):
    """Move the last axis to `time_axis` if the array has `rank` axes, i.e. a time axis."""
    return np.moveaxis(x, -1, time_axis) if x.ndim == rank else x


@pytest.mark.parametrize(
    "wide", [1, _tuning.MANY_TRAINS]
)  # with 1, a leading time axis is not moved
@pytest.mark.parametrize("name", FORMS)
def test_time_axis_can_be_any_axis(backend, name, wide, monkeypatch):
    monkeypatch.setattr(_tuning, "MANY_TRAINS", wide)
    (loss, target), spikes = CASES[name], SPIKES["binary"]
    # per-step targets have one axis more than [batch] or [batch, class]
    rank_of_target = 2 if isinstance(loss, sx.SpikeRate | sx.SpikeMax) else 3
    evaluate, evaluate_terms = sx.value_and_grad(loss), sx.value_and_grad(reduced(loss, "none"))
    expected_value, expected_gradient = evaluate(spikes, target)
    expected_terms = reduced(loss, "none")(spikes, target)
    cotangent = np.random.default_rng(10).normal(size=expected_terms.shape)
    _, expected_weighted = evaluate_terms(spikes, target, cotangent=cotangent)
    terms_without_time = expected_terms.ndim == (1 if isinstance(loss, sx.SpikeMax) else 2)
    terms_rank = 0 if terms_without_time else expected_terms.ndim  # 0: no time axis to move

    for axis in (0, 1, -1):
        moved_loss = dataclasses.replace(loss, time_axis=axis)

        def run(spikes, target, cotangent, moved_loss=moved_loss):
            value, gradient = sx.value_and_grad(moved_loss)(spikes, target)
            weighted = sx.value_and_grad(reduced(moved_loss, "none"))
            return value, gradient, *weighted(spikes, target, cotangent=cotangent)

        results = backend.compiled(run)(
            backend.asarray(move_time(spikes, axis, 3)),
            backend.asarray(move_time(target, target_time_axis(axis, target), rank_of_target)),
            backend.asarray(move_time(cotangent, target_time_axis(axis, cotangent), terms_rank)),
        )
        value, gradient, got_terms, weighted = map(backend.numpy, results)
        close(value, expected_value, backend.rtol)
        close(gradient, move_time(expected_gradient, axis, 3), backend.rtol)
        terms_time_axis = target_time_axis(axis, expected_terms)
        close(got_terms, move_time(expected_terms, terms_time_axis, terms_rank), backend.rtol)
        close(weighted, move_time(expected_weighted, axis, 3), backend.rtol)


def target_time_axis(axis, target):
    """Return the time axis of a per-step target or term array for an input with time at `axis`."""
    return min(axis % 3, target.ndim - 1)


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1])
@pytest.mark.parametrize("name", ["SpikeRate", "SpikeMax-window-per-step", "SpikeMoid-soft"])
def test_spatial_axes_flatten_into_classes(backend, name, axis):
    loss, target = CASES[name]
    random = np.random.default_rng(11)
    flat = random.uniform(0.1, 1, size=(2, 6, 5))
    if name == "SpikeMoid-soft":
        target = random.uniform(0, 1, size=(2, 6))
    expected, expected_gradient = sx.value_and_grad(loss)(flat, target)
    spikes = np.moveaxis(flat.reshape(2, 3, 2, 5), -1, axis)
    if target.shape == (2, 5) and axis == 0:  # a leading time axis leads in the target too
        target = target.T
    moved_loss = dataclasses.replace(loss, time_axis=axis)
    evaluate = backend.compiled(sx.value_and_grad(moved_loss))
    value, gradient = evaluate(backend.asarray(spikes), backend.asarray(target))
    close(backend.numpy(value), expected, backend.rtol)
    expected_gradient = np.moveaxis(expected_gradient.reshape(2, 3, 2, 5), -1, axis)
    close(backend.numpy(gradient), expected_gradient, backend.rtol)


@pytest.mark.parametrize(
    ("shape", "axis", "batch", "classes", "steps", "per_step", "per_class"),
    [
        ((2, 3, 5), -1, 2, 3, 5, (2, 5), (2, 3, 5)),
        ((2, 3, 5), 0, 3, 5, 2, (2, 3), (2, 3, 5)),
        ((2, 3, 5), 1, 2, 5, 3, (2, 3), (2, 3, 5)),
        ((2, 3, 4, 5), -1, 2, 12, 5, (2, 5), (2, 12, 5)),
        ((2, 3, 4, 5), 0, 3, 20, 2, (2, 3), (2, 3, 20)),
        ((2, 3, 4, 5), 1, 2, 20, 3, (2, 3), (2, 3, 20)),
        ((2, 3, 4, 5), 2, 2, 15, 4, (2, 4), (2, 15, 4)),
        ((2, 3, 4, 5), -3, 2, 20, 3, (2, 3), (2, 3, 20)),
        ((2, 5), -1, 2, 1, 5, (2, 5), (2, 1, 5)),
        ((2, 5), 0, 5, 1, 2, (2, 5), (2, 5, 1)),
    ],
)
def test_layout_splits_a_shape_into_batch_neurons_and_steps(
    shape, axis, batch, classes, steps, per_step, per_class
):
    layout = Layout.of(np.zeros(shape), axis, smallest_rank=2)
    assert (layout.batch, layout.neurons, layout.steps) == (batch, classes, steps)
    assert layout.with_time(batch) == per_step
    assert layout.with_time(batch, classes) == per_class


def test_case_axes_have_different_lengths():
    assert len(set(cases.SHAPE)) == 3  # otherwise a transposed array could pass
