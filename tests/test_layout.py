"""Wherever time is, it is the same loss."""

import dataclasses

import cases
import numpy as np
import pytest
from cases import CASES, SPIKES, close, reduced

import spikeloss_xp as sx
from spikeloss_xp import filters
from spikeloss_xp._layout import Layout

FORMS = [
    *("SpikeTime-order2", "SpikeRate", "SpikeRate-window-per-step"),
    *("SpikeMax-window", "SpikeMax-softmax-window-per-step"),
    *("SpikeMoid-soft", "SpikeMoid-window-per-step"),
]


def moved(x, time_axis, rank):
    """Move the last axis of an array with time to where a `[batch, class, time]` input has it."""
    return np.moveaxis(x, -1, time_axis) if x.ndim == rank else x


@pytest.mark.parametrize("wide", [1, filters.WIDE])  # with 1, time first is left there
@pytest.mark.parametrize("name", FORMS)
def test_time_may_be_any_axis(backend, name, wide, monkeypatch):
    monkeypatch.setattr(filters, "WIDE", wide)
    (loss, target), spikes = CASES[name], SPIKES["binary"]
    # with time a target has an axis more than [batch] or [batch, class]
    rank_of_target = 2 if isinstance(loss, sx.SpikeRate | sx.SpikeMax) else 3
    terms, slope = sx.value_and_grad(reduced(loss, "none")), sx.value_and_grad(loss)
    wanted_value, wanted_gradient = slope(spikes, target)
    wanted_terms = reduced(loss, "none")(spikes, target)
    cotangent = np.random.default_rng(10).normal(size=wanted_terms.shape)
    _, wanted_weighted = terms(spikes, target, cotangent=cotangent)
    global_terms = wanted_terms.ndim == (1 if isinstance(loss, sx.SpikeMax) else 2)
    terms_rank = 0 if global_terms else wanted_terms.ndim  # 0: no axis of time to move

    for axis in (0, 1, -1):
        there = dataclasses.replace(loss, time_axis=axis)

        def run(spikes, target, cotangent, there=there):
            value, gradient = sx.value_and_grad(there)(spikes, target)
            weighted = sx.value_and_grad(reduced(there, "none"))
            return value, gradient, *weighted(spikes, target, cotangent=cotangent)

        results = backend.compiled(run)(
            backend.asarray(moved(spikes, axis, 3)),
            backend.asarray(moved(target, time_of_target(axis, target), rank_of_target)),
            backend.asarray(moved(cotangent, time_of_target(axis, cotangent), terms_rank)),
        )
        value, gradient, got_terms, weighted = map(backend.numpy, results)
        close(value, wanted_value, backend.rtol)
        close(gradient, moved(wanted_gradient, axis, 3), backend.rtol)
        place = time_of_target(axis, wanted_terms)
        close(got_terms, moved(wanted_terms, place, terms_rank), backend.rtol)
        close(weighted, moved(wanted_weighted, axis, 3), backend.rtol)


def time_of_target(axis, target):
    """Where `[batch, time]` or `[batch, class, time]` has the time that an input has at `axis`."""
    return min(axis % 3, target.ndim - 1)


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1])
@pytest.mark.parametrize("name", ["SpikeRate", "SpikeMax-window-per-step", "SpikeMoid-soft"])
def test_space_collapses_into_classes(backend, name, axis):
    loss, target = CASES[name]
    random = np.random.default_rng(11)
    flat = random.uniform(0.1, 1, size=(2, 6, 5))
    if name == "SpikeMoid-soft":
        target = random.uniform(0, 1, size=(2, 6))
    wanted, wanted_gradient = sx.value_and_grad(loss)(flat, target)
    spikes = np.moveaxis(flat.reshape(2, 3, 2, 5), -1, axis)
    if target.shape == (2, 5) and axis == 0:  # time before the batch, there too
        target = target.T
    there = dataclasses.replace(loss, time_axis=axis)
    evaluate = backend.compiled(sx.value_and_grad(there))
    value, gradient = evaluate(backend.asarray(spikes), backend.asarray(target))
    close(backend.numpy(value), wanted, backend.rtol)
    wanted_gradient = np.moveaxis(wanted_gradient.reshape(2, 3, 2, 5), -1, axis)
    close(backend.numpy(gradient), wanted_gradient, backend.rtol)


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
def test_the_parts_of_a_shape(shape, axis, batch, classes, steps, per_step, per_class):
    layout = Layout.of(np.zeros(shape), axis, smallest_rank=2)
    assert (layout.batch, layout.neurons, layout.steps) == (batch, classes, steps)
    assert layout.with_time(batch) == per_step
    assert layout.with_time(batch, classes) == per_class


def test_the_cases_are_worth_moving():
    assert len(set(cases.SHAPE)) == 3  # or a transposed array would go unnoticed
