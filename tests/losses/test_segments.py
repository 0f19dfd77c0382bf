"""`sum_and_weight` with a context: the sums of segments of time add up to those of the trains."""

import dataclasses
import functools

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.backends import on
from _support.calls import (
    PER_STEP,
    example,
    moved,
    one_jax,
    run,
    with_everything,
    with_nan_where_masked,
)
from _support.contract import FORMS, LAYOUTS, STEPS


def taken(call, time_axis, steps):
    """Return the call with some of the steps; `call` has time as its last axis."""
    changes = {"spikes": call.spikes[..., steps]}
    for name in ("where", "target"):
        x = getattr(call, name)
        if np.shape(x)[-1:] == (STEPS,):
            changes[name] = x[..., steps]
    if call.lengths is not None:
        start, stop, _ = steps.indices(STEPS)
        changes["lengths"] = np.clip(call.lengths - start, 0, stop - start)
    return moved(call.replace(**changes), time_axis)


def segments(call, time_axis, ends):
    """Yield the call on each segment that ends at `ends`, with its steps and its context."""
    start = 0
    for stop in ends:
        context = min(start, call.loss.memory)
        steps = slice(start - context, stop)
        yield taken(call, time_axis, steps), steps, context
        start = stop


def sums_of_segments(backend, call, time_axis, ends):
    """Return the sum and the weight of all segments that end at `ends`."""
    totals = np.zeros(2)
    for segment, _, context in segments(call, time_axis, ends):
        add_up = functools.partial(segment.loss.sum_and_weight, context=context)
        sums = run(backend, add_up, segment.spikes, segment.target, **segment.options)
        assert [x.shape for x in sums] == [(), ()]
        totals += sums
    return totals


@one_jax
@pytest.mark.slow(but=12)
@pytest.mark.parametrize("ends", [(3, STEPS), (1, 2, 5, STEPS)])
@pytest.mark.parametrize("time_axis", LAYOUTS)
@pytest.mark.parametrize("form", PER_STEP)
def test_segments_add_up_to_the_train(backend, form, time_axis, ends):
    everything = with_everything(FORMS[form])
    for call in (example(FORMS[form]), everything, with_nan_where_masked(everything)):
        call = call.replace(loss=dataclasses.replace(call.loss, reduction="mean"))
        total, weight = sums_of_segments(backend, call, time_axis, ends)
        np.testing.assert_allclose(total / weight, call.value(), rtol=100 * backend.rtol)


@pytest.mark.parametrize(
    "form",
    ["SpikeTime", "SpikeRate-rate-window", "SpikeMax-window", "CrossEntropy-sqrt_count-window"],
)
def test_segment_without_its_context_has_other_terms(form):
    call = example(FORMS[form])
    short = dataclasses.replace(call.loss, reduction="sum")
    parts = [taken(call, -1, steps) for steps in (slice(0, 3), slice(3, STEPS))]
    apart = sum(short.sum_and_weight(p.spikes, p.target)[0] for p in parts)
    assert abs(apart - short(call.spikes, call.target)) > 1e-3


@pytest.mark.parametrize("library", ["torch", "jax-x64"])
@pytest.mark.parametrize("form", ["SpikeTime", "SpikeMax-window-per-step"])
def test_gradients_of_segments_add_up(library, form):
    """The gradient of each segment reaches into its context."""
    call = example(FORMS[form])
    with on(library) as backend:
        expected = sx.value_and_grad(call.loss)(call.spikes, call.target)[1]
        got = np.zeros_like(expected)
        for part, steps, context in segments(call, -1, (4, STEPS)):

            def total(x, part=part, context=context):
                return part.loss.sum_and_weight(x, part.target, context=context)[0]

            got[..., steps] += run(backend, sx.value_and_grad(total), part.spikes)[1]
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


LATENCY = sx.SpikeLatency(time_axis=-1, reduction="sum")
COMPOSED = sx.losses.Composed(lambda xp, s, m: (s, lambda g: g), lambda *a: None, per_step=True)


@pytest.mark.parametrize(
    ("loss", "memory"),
    [
        (sx.SpikeTime(length=7), 6),
        (sx.SpikeTime(kernel=[1, 0.5, 0.25]), 2),
        (sx.SpikeRate(0.5, 0.0, 4), 3),
        (sx.SpikeMax(1), 0),
        *((loss, None) for loss in (sx.SpikeMax(), sx.SpikeMoid(theta=0), LATENCY, COMPOSED)),
        *((sx.CrossEntropy(readout=name, time_axis=-1), None) for name in ("last", "latency")),
    ],
)
def test_memory_is_the_reach_of_a_term(loss, memory):
    assert loss.memory == memory


@one_jax
def test_label_in_the_context_is_not_checked(backend):
    spikes, loss = np.ones((1, 2, 4)), sx.SpikeRate(1, 0, 2)
    for bad in (7, -3):
        label = np.asarray([[bad, bad, 1, 1]])

        def add_up(spikes, label=label):  # a label outside of the trace, which is checked
            return loss.sum_and_weight(spikes, label, context=2)

        np.testing.assert_allclose(run(backend, add_up, spikes), [2, 4])  # per step: 0 + 1
        if backend.reads_values:
            with pytest.raises(ValueError, match="target must be between 0 and 1"):
                loss.sum_and_weight(backend.asarray(spikes), label, context=1)


def test_context_of_all_steps_has_no_terms():
    spikes = np.ones((1, 2, 4))
    assert sx.SpikeMax(2).sum_and_weight(spikes, [7], context=4) == (0, 0)


@pytest.mark.parametrize(
    ("loss", "context", "error", "message"),
    [
        (sx.SpikeMax(), 1, ValueError, "that of SpikeMax is None: give it a moving_window"),
        (LATENCY, 1, ValueError, "that of SpikeLatency is None"),
        (COMPOSED, 1, ValueError, "that of Composed is None"),
        (sx.SpikeMax(2, reduction="batchmean"), 1, ValueError, "needs reduction='sum' or 'mean'"),
        (sx.SpikeMax(2, reduction="none"), 1, ValueError, "reduction='none' has no sum"),
        (sx.SpikeMax(2), -1, ValueError, "context must be at least 0; got -1"),
        (sx.SpikeMax(2), 5, ValueError, "context must be at most the number of steps, 4; got 5"),
        (sx.SpikeMax(2), 1.0, TypeError, "context must be an integer; got 1.0"),
        (sx.SpikeMax(2), True, TypeError, "context must be an integer; got True"),
    ],
)
def test_wrong_context_raises(loss, context, error, message):
    with pytest.raises(error, match=message):
        loss.sum_and_weight(np.ones((1, 2, 4)), [0], context=context)


def test_impossible_length_is_impossible_in_each_segment():
    pytest.importorskip("dask")
    from spikeloss_xp.backends._dask import _chunks

    xp = pytest.importorskip("array_api_strict")  # whose values are not read
    spikes, lengths = xp.ones((2, 3, 8)), xp.asarray([9, 6])
    arguments = {"target": 0 * spikes, "where": None, "lengths": lengths, "weight": None}
    split = sx.SpikeTime(kernel=[1.0], time_axis=-1).split(spikes, arguments)
    split = split._replace(axes=split.axes | {"weight": (None,)})
    block, place = (spikes, 0 * spikes, None, lengths, None), np.asarray([0, 8, 0])
    chunks = list(_chunks(split, block, place=place, ahead=False, entries=3))
    found = [int(chunk.options["lengths"][0]) for chunk in chunks]
    assert found == [-1] * 8 + [1] * 6 + [0] * 2
