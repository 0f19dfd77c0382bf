"""Tests of the interface that all losses share."""

import dataclasses
import re

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import cases, reference
from _support.backends import on
from _support.cases import CASES, SPIKES, close, reduced

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("name", CASES)
def test_terms_equal_the_reference_formula(backend, name):
    loss, target = CASES[name]
    run = backend.compiled(reduced(loss, "none"))
    for spikes in cases.trains(name).values():
        terms = run(backend.asarray(spikes), backend.asarray(target))
        close(backend.numpy(terms), reference.terms(loss, spikes, target), backend.rtol)


@pytest.mark.parametrize("name", [*cases.ONE_OF_EACH, "SpikeMax-window"])
def test_reductions_equal_sum_and_mean_of_the_terms(backend, name):
    loss, target = CASES[name]
    expected = reference.terms(loss, SPIKES["binary"], target)

    def run(spikes, target):
        return [reduced(loss, reduction)(spikes, target) for reduction in ("none", "sum", "mean")]

    results = backend.compiled(run)(backend.asarray(SPIKES["binary"]), backend.asarray(target))
    terms, total, mean = map(backend.numpy, results)
    close(terms, expected, backend.rtol)
    assert total.shape == mean.shape == ()
    close(total, expected.sum(), backend.rtol)
    close(mean, expected.sum() / expected.size, backend.rtol)


@pytest.mark.parametrize("name", cases.ONE_OF_EACH)
def test_forward_equals_call(backend, name):
    loss, target = CASES[name]
    arrays = backend.asarray(SPIKES["graded"]), backend.asarray(target)
    run = backend.compiled(lambda *arrays: (loss(*arrays), loss.forward(*arrays)))
    called, forward = run(*arrays)
    assert backend.numpy(called) == backend.numpy(forward)
    assert called.device == arrays[0].device
    assert called.dtype == arrays[0].dtype


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["SpikeTime-order1", "SpikeRate-window", "SpikeMax"])
def test_half_precision_is_computed_in_float32(backend, name, dtype):
    if not hasattr(backend.xp, dtype):
        pytest.skip(f"{backend.library} has no {dtype}")
    loss, target = CASES[name]
    spikes = backend.asarray(SPIKES["binary"], dtype)  # 0 and 1 are exact in every dtype
    evaluate = backend.compiled(sx.value_and_grad(loss))
    value, gradient = evaluate(spikes, backend.asarray(target))
    assert value.dtype == backend.xp.float32
    assert gradient.dtype == spikes.dtype
    close(backend.numpy(value), reference.terms(loss, SPIKES["binary"], target).sum(), 1e-5)
    _, expected = sx.value_and_grad(loss)(SPIKES["binary"], target)
    # The gradient is rounded once: half a unit in the last place of float16 or bfloat16.
    rtol = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]
    close(backend.numpy(gradient).astype(float), expected, rtol)


def test_half_precision_spike_counts_do_not_saturate(backend):
    if not hasattr(backend.xp, "float16"):
        pytest.skip(f"{backend.library} has no float16")
    # A count in float16 would stall at 2048.
    spikes = backend.asarray(np.ones((1, 1, 4096)), "float16")
    assert float(sx.SpikeRate(1, 0)(spikes, [0])) == 0
    assert float(sx.SpikeTime(5, 1)(spikes, np.zeros((1, 1, 4096)))) == 4096


@pytest.mark.parametrize("name", ["SpikeTime-order2", "SpikeRate", "SpikeMax-window", "SpikeMoid"])
def test_float32_input_gives_float32_results(backend, name):
    loss, target = CASES[name]
    spikes = backend.asarray(SPIKES["graded"], "float32")
    target = target if target.dtype.kind in "bi" else np.asarray(target, np.float64)
    value, gradient = backend.compiled(sx.value_and_grad(loss))(spikes, target)
    assert value.dtype == gradient.dtype == backend.xp.float32
    close(backend.numpy(value), reference.terms(loss, SPIKES["graded"], target).sum(), 1e-5)


@pytest.mark.parametrize("name", [*cases.ONE_OF_EACH, "SpikeRate-window"])
def test_complex_input_raises(backend, name):
    loss, target = CASES[name]
    spikes = backend.asarray(SPIKES["graded"])
    spikes = backend.xp.astype(spikes, backend.xp.complex64)
    with pytest.raises(TypeError, match=r"input must be bool, integer or real .*complex64"):
        loss(spikes, target)


@pytest.mark.parametrize("name", cases.ONE_OF_EACH)
def test_list_input_raises(name):
    loss, target = CASES[name]
    with pytest.raises(TypeError, match=r"input must be an array .*got builtins.list"):
        loss(SPIKES["binary"].tolist(), target)


@pytest.mark.parametrize(
    ("loss", "shape", "axes"),
    [
        (sx.SpikeTime(), (5,), r"2 axes, \[batch, \*space, time\]"),
        (sx.SpikeRate(1, 0), (2, 5), r"3 axes, \[batch, class or \*space, time\]"),
        (sx.SpikeMax(), (5,), r"3 axes, \[batch, class or \*space, time\]"),
        (sx.SpikeMoid(), (2, 5), r"3 axes, \[batch, class or \*space, time\]"),
    ],
)
def test_input_with_too_few_axes_raises(backend, loss, shape, axes):
    with pytest.raises(
        ValueError, match=f"input must have at least {axes}.*{re.escape(str(shape))}"
    ):
        loss(backend.asarray(np.zeros(shape)), np.zeros(shape))


def test_empty_input_and_time_axis_out_of_range_raise(backend):
    for shape in ((2, 3, 0), (0, 3, 5), (2, 0, 5)):
        with pytest.raises(ValueError, match=f"no elements.*{re.escape(str(shape))}"):
            sx.SpikeRate(1, 0)(backend.asarray(np.zeros(shape)), [0] * shape[0])
    for axis in (3, -4):
        with pytest.raises(ValueError, match=rf"time_axis={axis} .*\(2, 3, 5\)"):
            sx.SpikeRate(1, 0, time_axis=axis)(backend.asarray(SPIKES["graded"]), [0, 0])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: sx.SpikeTime(reduction="max"),
            ValueError,
            "reduction.*sum, mean, batchmean, none.*'max'",
        ),
        (
            lambda: sx.SpikeRate(1, 0, reduction=None),
            ValueError,
            "reduction.*sum, mean, batchmean, none",
        ),
        (lambda: sx.SpikeMax(mode="any"), ValueError, "mode.*probability, softmax.*'any'"),
        (lambda: sx.SpikeMax(numerics="new"), ValueError, "numerics.*stable, lava.*'new'"),
        (lambda: sx.SpikeMax(reduction="max"), ValueError, "reduction.*sum, mean, batchmean, none"),
        (lambda: sx.SpikeMoid(numerics="new"), ValueError, "numerics.*stable, lava"),
        (
            lambda: sx.SpikeMoid(reduction="max"),
            ValueError,
            "reduction.*sum, mean, batchmean, none",
        ),
        (lambda: sx.SpikeTime(filter_order=0), ValueError, "filter_order.*at least 1.*0"),
        (lambda: sx.SpikeTime(filter_order=1.5), TypeError, "filter_order.*integer.*1.5"),
        (lambda: sx.SpikeTime(length=0), ValueError, "length.*at least 1.*0"),
        *(
            (lambda bad=bad: sx.SpikeTime(bad), ValueError, f"time_constant.*{bad}")
            for bad in (0, -1, NAN, INF)
        ),
        (lambda: sx.SpikeTime("5ms"), TypeError, "time_constant must be a number; got '5ms'"),
        (lambda: sx.SpikeTime(None), TypeError, "time_constant must be a number; got None"),
        (lambda: sx.SpikeTime(time_axis="last"), TypeError, "time_axis.*integer.*'last'"),
        *(
            (lambda loss=loss, bad=bad: loss(bad), ValueError, f"moving_window.*at least 1.*{bad}")
            for loss in (sx.SpikeMax, sx.SpikeMoid, lambda window: sx.SpikeRate(1, 0, window))
            for bad in (0, -3)
        ),
        (lambda: sx.SpikeMax(True), TypeError, "moving_window.*integer.*True"),
        (lambda: sx.SpikeMax(2.0), TypeError, "moving_window.*integer.*2.0"),
        (lambda: sx.SpikeMax(pseudo_count=0), ValueError, "pseudo_count.*above 0.*0"),
        (lambda: sx.SpikeMax(pseudo_count=-1), ValueError, "pseudo_count.*above 0.*-1"),
        (lambda: sx.SpikeMoid(alpha=0), ValueError, "alpha.*above 0.*0"),
        (lambda: sx.SpikeMoid(alpha=-1), ValueError, "alpha.*above 0.*-1"),
        (lambda: sx.SpikeMoid(theta=NAN), ValueError, "theta.*finite.*nan"),
        *(
            (lambda bad=bad: sx.SpikeRate(bad, 0), ValueError, f"true_rate.*between 0 and 1.*{bad}")
            for bad in (-0.5, 1.5)
        ),
        *(
            (lambda bad=bad: sx.SpikeRate(1, bad), ValueError, f"false_rate.*{bad}")
            for bad in (-0.5, 1.5, NAN)
        ),
        (lambda: sx.SparsityEnforcer(max_rate=-1), ValueError, "max_rate.*at least 0.*-1"),
        (lambda: sx.SparsityEnforcer(lam=-1), ValueError, "lam.*at least 0.*-1"),
        (lambda: sx.SparsityEnforcer(lam=NAN), ValueError, "lam.*finite.*nan"),
    ],
)
def test_hyperparameters_are_checked_on_construction(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_hyperparameters_at_their_bounds_are_accepted():
    sx.SpikeTime(1e-3, 1, 1)
    sx.SpikeRate(0, 1, 1)
    sx.SpikeMoid(theta=-2)
    sx.SparsityEnforcer(0, 0)


ALL = [*(loss for loss, _ in CASES.values()), sx.SparsityEnforcer(0.25, 2)]


@pytest.mark.parametrize("loss", ALL, ids=repr)
def test_losses_compare_hash_and_print_by_value(loss):
    same = dataclasses.replace(loss)
    assert same is not loss
    assert same == loss
    assert hash(same) == hash(loss)
    assert {loss: 1}[same] == 1
    assert eval(repr(loss), vars(sx)) == loss
    with pytest.raises(dataclasses.FrozenInstanceError):
        loss.reduction = "mean"
    assert all(f"{f.name}=" in repr(loss) for f in dataclasses.fields(loss) if f.init)


def test_losses_with_different_hyperparameters_differ():
    window, longer = sx.SpikeMax(3), sx.SpikeMax(4)
    assert window != longer
    assert window != sx.SpikeMoid(3)
    assert len({window, longer, reduced(window, "mean"), sx.SpikeMax(3, "softmax")}) == 4
    assert sx.SparsityEnforcer(lam=1) != sx.SparsityEnforcer(lam=2)


def test_hyperparameters_become_python_numbers():
    loss = sx.SpikeRate(np.float32(0.5), np.asarray(0.25), np.int64(3), time_axis=np.int8(0))
    assert loss == sx.SpikeRate(0.5, 0.25, 3, time_axis=0)
    kinds = [type(x) for x in (loss.true_rate, loss.false_rate, loss.moving_window, loss.time_axis)]
    assert kinds == [float, float, int, int]


def test_defaults_equal_the_published_ones():
    assert sx.SpikeTime() == sx.SpikeTime(5, 100, 1, "sum", time_axis=-1)
    assert sx.SpikeRate(1, 0) == sx.SpikeRate(1, 0, None, "sum", time_axis=-1)
    assert sx.SpikeMax() == sx.SpikeMax(
        None, "probability", "sum", pseudo_count=0.5, numerics="stable", time_axis=-1
    )
    assert sx.SpikeMoid() == sx.SpikeMoid(None, "sum", 1, 0, numerics="stable", time_axis=-1)
    assert sx.SparsityEnforcer() == sx.SparsityEnforcer(0.01, 1.0)


@pytest.mark.parametrize("name", cases.ONE_OF_EACH)
def test_jax_jit_takes_losses_as_functions_and_static_arguments(name):
    with on("jax-x64") as backend:
        import jax

        loss, target = CASES[name]
        arrays = backend.asarray(SPIKES["graded"]), backend.asarray(target)
        expected = backend.numpy(loss(*arrays))
        close(backend.numpy(jax.jit(loss)(*arrays)), expected, backend.rtol)
        static = jax.jit(lambda loss, *arrays: loss(*arrays), static_argnums=0)
        for same in (loss, dataclasses.replace(loss)):
            close(backend.numpy(static(same, *arrays)), expected, backend.rtol)
        assert static._cache_size() == 1
