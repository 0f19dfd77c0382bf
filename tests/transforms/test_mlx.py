"""Every loss under each MLX transform."""

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")

import spikeloss_xp as sx
from _support import cases
from _support.transforms import LOSSES, LOSSES_WITH_OPTIONS, SPIKES, arguments

RTOL = 1e-5  # a few hundred roundings of float32
every_loss = pytest.mark.parametrize("name", LOSSES)


def close(got, expected):
    cases.close(np.asarray(got), np.asarray(expected), RTOL)


def on_mlx(name):
    """Return a loss, its arrays of MLX, and value and closed-form gradient on NumPy."""
    loss, target = LOSSES[name]
    arrays = (SPIKES,) if target is None else (SPIKES, target)
    value, gradient = sx.value_and_grad(loss)(*arrays)
    return loss, [mx.array(x) for x in arrays], value, gradient


TANGENT = np.random.default_rng(1).normal(size=SPIKES.shape)


def check_second_derivatives(function, spikes):
    """Compare the products of the Hessian and of its transpose with a tangent."""
    (forward,), (reverse,) = (
        transform(mx.grad(function), [spikes], [mx.array(TANGENT)])[1]
        for transform in (mx.jvp, mx.vjp)
    )
    assert np.isfinite(np.asarray(forward)).all()
    close(reverse, forward)


@every_loss
@pytest.mark.parametrize("transform", [lambda f: f, mx.compile, mx.checkpoint])
def test_grad_and_value_and_grad_equal_closed_form(name, transform):
    loss, arrays, expected, expected_gradient = on_mlx(name)
    close(transform(loss)(*arrays), expected)
    close(mx.grad(transform(loss))(*arrays), expected_gradient)
    value, gradient = transform(mx.value_and_grad(loss))(*arrays)
    close(value, expected)
    close(gradient, expected_gradient)


@every_loss
def test_vmap_of_value_and_grad_equals_loop(name):
    loss, arrays, _, _ = on_mlx(name)
    of_sample = mx.value_and_grad(lambda *sample: loss(*(x[None] for x in sample)))
    looped = [of_sample(*sample) for sample in zip(*arrays, strict=True)]
    for got, expected in zip(mx.vmap(of_sample)(*arrays), zip(*looped, strict=True), strict=True):
        close(got, mx.stack(expected))


@every_loss
def test_jvp_equals_gradient_times_tangent(name):
    loss, (spikes, *target), _, gradient = on_mlx(name)
    _, (derivative,) = mx.jvp(lambda x: loss(x, *target), [spikes], [mx.array(TANGENT)])
    # The terms of the sum may cancel, so the tolerance scales with the sum of their magnitudes.
    product = gradient * TANGENT
    assert abs(derivative.item() - product.sum()) <= RTOL * abs(product).sum()


@every_loss
def test_second_derivatives_are_finite_and_symmetric(name):
    loss, (spikes, *target), _, _ = on_mlx(name)
    check_second_derivatives(lambda x: loss(x, *target), spikes)


@pytest.mark.parametrize("name", LOSSES_WITH_OPTIONS)
def test_options_work_under_transforms(name):
    loss, target, options = arguments(name)
    value, gradient = sx.value_and_grad(loss)(SPIKES, target, **options)
    names, given = list(options), [mx.array(x) for x in (SPIKES, target, *options.values())]

    def batch_loss(spikes, target, *values):
        return loss(spikes, target, **dict(zip(names, values, strict=True)))

    for transform in (lambda f: f, mx.compile):
        got, got_gradient = transform(mx.value_and_grad(batch_loss))(*given)
        close(got, value)
        close(got_gradient, gradient)
    check_second_derivatives(lambda x: batch_loss(x, *given[1:]), given[0])


def test_shapeless_compilation_and_export_raise(tmp_path):
    loss, arrays, _, _ = on_mlx("SpikeMax, window")
    with pytest.raises(ValueError, match="cannot infer output shapes"):
        mx.compile(loss, shapeless=True)(*arrays)
    with pytest.raises(ValueError, match="Unable to serialize primitive CustomTransforms"):
        mx.export_function(str(tmp_path / "loss.mlxfn"), loss, *arrays)
