"""A loss that is evaluated in chunks has the value and the gradient of the whole."""

import dataclasses
import sys

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.calls import PER_STEP, example, moved, with_everything
from _support.contract import BATCH, FORMS, LAYOUTS
from spikeloss_xp import _tuning
from spikeloss_xp.backends._numpy import NumPyAdapter
from spikeloss_xp.primitives import chunks


@pytest.fixture
def chunk_counts(monkeypatch):
    """Let NumPy take half of a sample at a time; yield the number of chunks of each evaluation."""
    numbers, split = [], chunks.split

    def into_half_samples(shape, axes, entries):
        if sys._getframe(1).f_code is chunks.filter_in_chunks.__code__:
            return split(shape, axes, entries)
        chosen = split(shape, axes, int(np.prod(shape)) // (2 * BATCH))
        numbers.append(1 if chosen is None else -(-shape[chosen[0]] // chosen[1]))
        return chosen

    def always(adapter, function, arrays, axes, batch):  # of small arrays too
        return chunks.map_chunks(adapter, function, arrays, axes, _tuning.CHUNK)

    monkeypatch.setattr(chunks, "split", into_half_samples)
    monkeypatch.setattr(NumPyAdapter, "map_chunks", always)
    return numbers


CHUNKED = [*PER_STEP, *(form for form in FORMS if "atency" in form)]


@pytest.mark.parametrize(
    ("form", "reduction", "time_axis"),
    [(form, ("mean", "batchmean")[i % 2], tuple(LAYOUTS)[i % 3]) for i, form in enumerate(CHUNKED)],
)
def test_chunks_equal_the_whole(chunk_counts, monkeypatch, form, reduction, time_axis):
    call = moved(with_everything(FORMS[form]), time_axis)
    loss = dataclasses.replace(call.loss, reduction=reduction)
    value = loss(call.spikes, call.target, **call.options)
    got = sx.value_and_grad(loss)(call.spikes, call.target, **call.options)
    assert chunk_counts == [BATCH, BATCH]
    monkeypatch.undo()
    expected = sx.value_and_grad(loss)(call.spikes, call.target, **call.options)
    # The chunks are added up in another order.
    np.testing.assert_allclose(value, expected[0], rtol=1e-13)
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-13)
    np.testing.assert_allclose(got[1], expected[1], rtol=1e-12, atol=0)  # small ones cancel


def test_terms_are_not_evaluated_in_chunks(chunk_counts):
    call = example(FORMS["SpikeTime"])
    dataclasses.replace(call.loss, reduction="none")(call.spikes, call.target)
    assert chunk_counts == []


@pytest.mark.parametrize(
    ("reduction", "number"), [("sum", 10), ("mean", 10), ("batchmean", 2)]
)  # "batchmean" counts whole samples
def test_chunks_of_neurons_equal_the_whole(chunk_counts, monkeypatch, reduction, number):
    spikes, desired = np.random.default_rng(0).uniform(size=(2, 2, 50, 3))
    where = spikes < 0.9
    evaluate = sx.value_and_grad(sx.SpikeTime(reduction=reduction))
    value, gradient = evaluate(spikes, desired, where=where)
    assert chunk_counts == [number]
    monkeypatch.undo()
    whole, its_gradient = evaluate(spikes, desired, where=where)
    np.testing.assert_allclose(value, whole, rtol=1e-13)
    np.testing.assert_allclose(gradient, its_gradient, rtol=1e-13)


def test_pullback_of_chunks_may_be_called_once(chunk_counts):
    spikes = np.random.default_rng(0).uniform(size=(5, 4, 6))
    value, pullback = sx.SpikeTime(reduction="mean").value_and_pullback(spikes, 0 * spikes)
    gradient = pullback(np.ones_like(value))
    first = gradient.copy()
    with pytest.raises(RuntimeError, match="may be called once"):
        pullback(np.ones_like(value))
    np.testing.assert_array_equal(gradient, first)


def test_jax_differentiates_chunks_in_every_argument(monkeypatch):
    jax = pytest.importorskip("jax")
    monkeypatch.setattr(_tuning, "COMPILED_CHUNK", 80)
    monkeypatch.setattr(_tuning, "COMPILED_LARGE", 0)
    loss = sx.SpikeMoid(7, theta=0)
    spikes, hot = np.random.default_rng(0).uniform(size=(2, 8, 4, 5))
    arrays = spikes, hot[..., 0], np.asarray([0.5, 1, 2, 0.25])

    def native(x, y, weight):
        return loss.value(x, y, weight=weight)

    def in_chunks(x, y, weight):
        return loss(x, y, weight=weight)

    @jax.jit
    def gradients(*arrays):
        alone = [jax.grad(in_chunks, argnums=number)(*arrays) for number in range(3)]
        together, expected = (jax.grad(f, argnums=(0, 1, 2))(*arrays) for f in (in_chunks, native))
        return alone, together, expected

    with jax.enable_x64(True):
        assert "scan[" in str(jax.make_jaxpr(in_chunks)(*arrays))
        *found, expected = gradients(*arrays)
    for got in found:
        for gradient, wanted in zip(got, expected, strict=True):
            np.testing.assert_allclose(gradient, wanted, rtol=1e-12)
