"""Losses under each MLX transform."""

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")

import spikeloss_xp as sx
from _support import cases
from _support.transforms import LOSSES, TANGENT, WITH_OPTIONS, Case, call_with_options

every_loss = pytest.mark.parametrize("name", LOSSES)
pytestmark = pytest.mark.compiles  # on a CPU, MLX starts the compiler of the machine
RTOL = 1e-5  # a few hundred roundings of float32


def close(got, expected):
    cases.close(np.asarray(got), np.asarray(expected), RTOL)


@pytest.fixture
def case(name):
    return Case(name, mx.array, RTOL)


def check_second_derivatives(function, spikes):
    """Compare the products of the Hessian and of its transpose with a tangent."""
    tangent = mx.array(np.random.default_rng(1).normal(size=spikes.shape))
    (forward,), (reverse,) = (
        transform(mx.grad(function), [spikes], [tangent])[1] for transform in (mx.jvp, mx.vjp)
    )
    assert np.isfinite(np.asarray(forward)).all()
    close(reverse, forward)


@every_loss
@pytest.mark.parametrize("transform", [lambda f: f, mx.compile, mx.checkpoint])
def test_grad_and_value_and_grad_equal_closed_form(case, transform):
    case.check_value(transform(case.loss)(*case.arrays))
    case.check(mx.grad(transform(case.loss))(*case.arrays))
    value, gradient = transform(mx.value_and_grad(case.loss))(*case.arrays)
    case.check_value(value)
    case.check(gradient)


@every_loss
def test_derivatives_along_a_tangent_and_of_each_sample_equal_closed_form(case):
    case.check_each(*mx.vmap(mx.value_and_grad(case.of_sample))(*case.arrays))
    _, (derivative,) = mx.jvp(case, [case.spikes], [mx.array(TANGENT)])
    case.check_jvp(derivative.item())
    check_second_derivatives(case, case.spikes)


@pytest.mark.parametrize("form", WITH_OPTIONS)
def test_options_work_under_transforms(form):
    call = call_with_options(form)
    value, gradient = sx.value_and_grad(call.loss)(call.spikes, call.target, **call.options)
    names = list(call.options)
    given = [mx.array(x) for x in (call.spikes, call.target, *call.options.values())]

    def batch_loss(spikes, target, *values):
        return call.loss(spikes, target, **dict(zip(names, values, strict=True)))

    for transform in (lambda f: f, mx.compile):
        got, got_gradient = transform(mx.value_and_grad(batch_loss))(*given)
        close(got, value)
        close(got_gradient, gradient)
    check_second_derivatives(lambda x: batch_loss(x, *given[1:]), given[0])


@pytest.mark.parametrize("name", ["SpikeMax, window"])
def test_shapeless_compilation_and_export_raise(case, tmp_path):
    with pytest.raises(ValueError, match="cannot infer output shapes"):
        mx.compile(case.loss, shapeless=True)(*case.arrays)
    with pytest.raises(ValueError, match="Unable to serialize primitive CustomTransforms"):
        mx.export_function(str(tmp_path / "loss.mlxfn"), case.loss, *case.arrays)


# Arrays that raise: those of float64, and those whose values a trace hides.

ONE_SAMPLE = mx.array(np.eye(3)[None])
WIDE = ONE_SAMPLE.astype(mx.float64)


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("input", lambda: sx.SpikeMax(time_axis=-1, reduction="sum")(WIDE, [0])),
        ("input", lambda: sx.value_and_grad(sx.SpikeMax(time_axis=-1, reduction="sum"))(WIDE, [0])),
        ("target", lambda: sx.SpikeTime(time_axis=-1, reduction="sum")(ONE_SAMPLE, WIDE)),
        (
            "weight",
            lambda: sx.SpikeMax(time_axis=-1, reduction="sum")(ONE_SAMPLE, [0], weight=WIDE[0, 0]),
        ),
        (
            "cotangent",
            lambda: sx.value_and_grad(sx.SpikeTime(time_axis=-1, reduction="sum"))(
                ONE_SAMPLE, ONE_SAMPLE, cotangent=WIDE
            ),
        ),
        ("input", lambda: sx.causal_filter(WIDE, np.ones(3), time_axis=-1)),
    ],
)
def test_float64_raises(argument, call):
    with pytest.raises(TypeError, match=f"^{argument} must not be float64.*pass {argument}.astype"):
        call()


@pytest.mark.parametrize("transform", [mx.compile, mx.vmap])
def test_taps_of_a_trace_cannot_be_read(transform):
    def loss(taps):
        return sx.SpikeTime(kernel=taps, time_axis=-1, reduction="sum")(ONE_SAMPLE, ONE_SAMPLE)

    taps = mx.ones((3, 3) if transform is mx.vmap else 3)
    with pytest.raises(TypeError, match="kernel must be an array whose values can be read"):
        transform(loss)(taps)
