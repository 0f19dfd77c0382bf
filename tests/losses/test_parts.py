"""In parts, a loss is what it is as a whole."""

import dataclasses

import numpy as np
import pytest
from calls import example, moved, with_everything
from contract import BATCH, FORMS, LAYOUTS, REDUCTIONS

import spikeloss_xp as sx
from spikeloss_xp.backends import _numpy
from spikeloss_xp.losses import _parts

EVERY_STEP = [name for name in FORMS if "window" in name or "SpikeTime" in name]


@pytest.fixture
def seen(monkeypatch):
    """Let NumPy have half of a sample at a time; yield the numbers of parts of each evaluation."""
    numbers, total = [], _parts.total

    def counted(xp, how, x, axis, parts, *rest, **options):
        numbers.append(len(parts))
        return total(xp, how, x, axis, parts, *rest, **options)

    monkeypatch.setattr(_numpy, "at_a_time", lambda x: x.size // (2 * BATCH))
    monkeypatch.setattr(_parts, "total", counted)
    return numbers


@pytest.mark.parametrize("time_axis", LAYOUTS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("options", [example, with_everything])
@pytest.mark.parametrize("form", EVERY_STEP)
def test_parts_are_the_whole(seen, monkeypatch, form, options, reduction, time_axis):
    call = moved(options(FORMS[form]), time_axis)
    loss = dataclasses.replace(call.loss, reduction=reduction)
    given = {} if reduction != "none" else {"cotangent": np.asarray(loss(call.spikes, call.target))}
    value = loss(call.spikes, call.target, **call.options)
    got = sx.value_and_grad(loss)(call.spikes, call.target, **call.options, **given)
    parts = seen.copy()
    monkeypatch.undo()
    wanted = sx.value_and_grad(loss)(call.spikes, call.target, **call.options, **given)
    # Sums are added up in another order.
    np.testing.assert_allclose(value, wanted[0], rtol=1e-13)
    np.testing.assert_allclose(got[0], wanted[0], rtol=1e-13)
    np.testing.assert_allclose(got[1], wanted[1], rtol=1e-13, atol=0)
    if reduction == "none":
        assert parts == []
    else:
        assert parts == [BATCH, BATCH]


@pytest.mark.parametrize(
    ("reduction", "parts"), [("sum", 10), ("mean", 10), ("batchmean", 2)]
)  # samples are counted whole
def test_neurons_are_as_good_as_samples(seen, monkeypatch, reduction, parts):
    spikes, desired = np.random.default_rng(0).uniform(size=(2, 2, 50, 3))
    where = spikes < 0.9
    evaluate = sx.value_and_grad(sx.SpikeTime(reduction=reduction))
    value, gradient = evaluate(spikes, desired, where=where)
    assert seen == [parts]
    monkeypatch.undo()
    whole, its_gradient = evaluate(spikes, desired, where=where)
    np.testing.assert_allclose(value, whole, rtol=1e-13)
    np.testing.assert_allclose(gradient, its_gradient, rtol=1e-13)


def test_what_is_large_is_evaluated_in_parts():
    spikes = np.zeros((8, 128, 1000), np.float32)
    assert len(_parts.along(np, spikes, (0,))[1]) == 4
    small = spikes[:, :32]
    assert _parts.along(np, small, (0,)) == (0, _parts.WHOLE)


def test_nothing_that_the_caller_holds_is_changed(seen):
    spikes, desired = np.random.default_rng(0).uniform(size=(2, 5, 4, 6))
    before = spikes.copy(), desired.copy()
    sx.value_and_grad(sx.SpikeTime())(spikes, desired)
    np.testing.assert_array_equal((spikes, desired), before)
    assert seen == [BATCH]


@pytest.mark.parametrize(
    ("reduction", "options"),
    [("sum", example), ("mean", with_everything), ("batchmean", with_everything)],
)
@pytest.mark.parametrize("form", EVERY_STEP)
def test_mapped_parts_are_the_whole(monkeypatch, form, options, reduction):
    jax = pytest.importorskip("jax")
    jnp = jax.numpy
    from spikeloss_xp.backends import _jax

    call = options(FORMS[form])
    loss = dataclasses.replace(call.loss, reduction=reduction)
    twice = [np.concatenate([x, x]) for x in (call.spikes, call.target)]  # two parts of the batch
    each = {"where", "lengths"}
    given = {n: np.concatenate([x, x]) if n in each else x for n, x in call.options.items()}
    wanted = sx.value_and_grad(loss)(*twice, **given)
    with jax.enable_x64(True):
        monkeypatch.setattr(_jax, "CACHED", call.spikes.size)
        monkeypatch.setattr(_jax, "LARGE", 0)
        placed = jax.tree.map(jnp.asarray, (*twice, given))

        def native(spikes, target, options):
            return sx.value_and_grad(loss)(spikes, target, **options)

        def closed(spikes, target, options):
            return jax.value_and_grad(loss)(spikes, target, **options)

        found = []
        for evaluate, maps in ((native, 2), (closed, 1)):  # value and gradient, or both at once
            assert str(jax.make_jaxpr(evaluate)(*placed)).count("scan[") == maps
            found.append(jax.jit(evaluate)(*placed))
    atol = 1e-12 * np.abs(wanted[1]).max()
    for value, gradient in found:
        np.testing.assert_allclose(value, wanted[0], rtol=1e-12)
        np.testing.assert_allclose(gradient, wanted[1], rtol=0, atol=atol)


def test_parts_are_mapped_where_that_pays(monkeypatch):
    jax = pytest.importorskip("jax")
    from spikeloss_xp.backends import _jax

    def is_mapped(batch, time_axis=-1):
        loss = sx.SpikeTime(time_axis=time_axis)
        shape = (batch, 5, 7) if time_axis else (7, batch, 5)
        jax.clear_caches()  # equal functions are traced once
        program = jax.make_jaxpr(loss)(*[jax.numpy.zeros(shape)] * 2)
        return "scan" in str(program)

    monkeypatch.setattr(_jax, "CACHED", 4 * 35)
    assert not is_mapped(8)  # small arrays stay in a cache as they are
    monkeypatch.setattr(_jax, "LARGE", 0)
    assert [batch for batch in range(1, 20) if is_mapped(batch)] == [8, 9, 10, 12, 14, 15, 16, 18]
    assert not is_mapped(8, time_axis=0)  # parts would be scattered in memory
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    assert not is_mapped(8)  # the batch may be spread over the devices
    monkeypatch.undo()
    assert not is_mapped(8)

    monkeypatch.setattr(_jax, "CACHED", 4 * 35)
    monkeypatch.setattr(_jax, "LARGE", 0)
    monkeypatch.setattr(jax.lax, "map", None)
    jax.grad(sx.SpikeTime())(*[jax.numpy.zeros((8, 5, 7))] * 2)  # not compiled as a whole


def test_what_else_has_a_gradient_is_differentiated_by_jax(monkeypatch):
    jax = pytest.importorskip("jax")
    from spikeloss_xp.backends import _jax

    monkeypatch.setattr(_jax, "CACHED", 80)
    monkeypatch.setattr(_jax, "LARGE", 0)
    loss, weight = sx.SpikeMoid(7), np.asarray([0.5, 1, 2, 0.25])
    spikes, hot = np.random.default_rng(0).uniform(size=(2, 8, 4, 5))
    hot = hot[..., 0]

    with jax.enable_x64(True):
        arrays = tuple(map(jax.numpy.asarray, (spikes, hot, weight)))

        def whole(*arrays):
            return loss._evaluate(*arrays[:2], weight=arrays[2], differentiate=False)[0]

        def parts(*arrays):
            return loss(*arrays[:2], weight=arrays[2])

        for numbers in ((0,), (1,), (2,), (0, 1, 2)):
            got = jax.jit(jax.grad(parts, argnums=numbers))(*arrays)
            wanted = jax.grad(whole, argnums=numbers)(*arrays)
            for some, others in zip(got, wanted, strict=True):
                np.testing.assert_allclose(some, others, rtol=1e-12)
