"""Properties that hold for every loss and every valid call, on random calls.

The calls have seeds, as those of `test_differential.py`.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import reference
from _support.backends import TESTED, on
from _support.calls import (
    Call,
    agree,
    arguments_with_time,
    take_samples,
    with_layout,
    with_nan_where_masked,
)
from _support.cases import close
from _support.contract import FLOATS, INTEGERS, WINDOWED
from _support.random_calls import MIN_SCALE, is_published, pick, random_call, tolerance

QUICK = {  # the number of seeds
    **{"numpy": 60, "torch": 30, "array-api-strict": 15, "array-api-strict-device1": 2},
    **{"cupy": 20, "torch-cuda": 20},
}
SPACING = {"float16": 2.0**-11, "bfloat16": 2.0**-8}  # half a unit in the last place


def for_all(
    *, masked: bool = True, accept: Callable[[Call], bool] = lambda call: True
) -> Callable[[Callable[..., None]], Any]:
    """Check a property of the accepted calls on every backend, but for the published numerics.

    `check` gets a backend, a random call, a random generator, and a layout of the call.
    """

    def decorate(check: Callable[..., None]) -> Any:
        def test(name: str, seeds: Any) -> None:
            with on(name) as backend:
                for seed in seeds(QUICK.get(name, 1), slow=8):
                    drawn = random_call(
                        seed,
                        "small",
                        masked=masked,
                        accept=lambda call: not is_published(call) and accept(call),
                    )
                    random = np.random.default_rng([seed, 2])
                    try:
                        check(backend, drawn.call, random, (drawn.space, drawn.time_axis))
                    except Exception as error:
                        raise AssertionError(
                            f"{drawn}. To run it again: python -m pytest 'tests/contract/"
                            f"test_properties.py::{check.__name__}[{name}]' --seed {seed}"
                        ) from error

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return pytest.mark.parametrize("name", TESTED)(test)

    return decorate


@for_all()
def test_value_and_gradient_match_the_reference_in_every_dtype(backend, call, random, layout):
    dtype, call = pick(random, *FLOATS, "bool", *INTEGERS), with_layout(call, *layout)
    binary = bool(np.isin(call.spikes, (0, 1)).all())
    if not backend.has(dtype) or not (binary or dtype in FLOATS):
        dtype = backend.dtype
    value, gradient = call.on(backend, dtype)
    rtol = tolerance("float64" if dtype == "float64" else "float32", call) + SPACING.get(dtype, 0)
    agree(call, (value, gradient.astype(np.float64)), rtol, min_scale=MIN_SCALE)


@for_all()
def test_layout_does_not_change_the_result(backend, call, random, layout):
    value, gradient = call.on(backend)
    got, moved_gradient = with_layout(call, *layout).on(backend)
    # the cotangent has the layout of the terms, so the terms are moved in its place
    close(got, with_layout(call.replace(cotangent=value), *layout).cotangent, backend.rtol)
    moved = np.moveaxis(moved_gradient, layout[1], -1).reshape(gradient.shape)
    close(moved, gradient, backend.rtol)


@for_all()
def test_sample_order_does_not_change_the_result(backend, call, random, layout):
    order = random.permutation(len(call.spikes))
    value, gradient = call.on(backend)
    permuted_value, permuted_gradient = take_samples(call, order).on(backend)
    close(permuted_value, value[order] if np.ndim(value) else value, backend.rtol)
    close(permuted_gradient, gradient[order], backend.rtol)


@for_all(accept=lambda call: not isinstance(call.loss, sx.SparsityEnforcer))
def test_sum_over_a_batch_equals_sum_over_its_samples(backend, call, random, layout):
    call = call.with_loss_options(reduction="sum").replace(cotangent=None)
    value, gradient = call.on(backend)
    per_sample = [take_samples(call, [b]).on(backend) for b in range(len(call.spikes))]
    np.testing.assert_allclose(value, sum(v for v, _ in per_sample), rtol=backend.rtol)
    close(gradient, np.concatenate([g for _, g in per_sample]), backend.rtol)


@for_all(masked=False)
def test_mask_equals_cropping(backend, call, random, layout):
    """The mask removes some samples and the last steps."""
    batch, _, steps = call.spikes.shape
    samples = np.sort(random.permutation(batch)[: random.integers(1, batch + 1)])
    last = random.integers(1, steps + 1)
    mask = np.zeros(call.spikes.shape, dtype=bool)
    mask[samples, :, :last] = True
    if random.random() < 0.5:
        masked = with_nan_where_masked(call.replace(where=mask))
    else:
        masked = call.replace(where=mask[:, 0, 0], lengths=np.full(batch, last))
        masked = with_nan_where_masked(masked)
    cropped = take_first_steps(take_samples(call, samples), last)
    value, gradient = masked.on(backend)
    expected, expected_gradient = cropped.on(backend)
    if np.ndim(value):  # crop the terms as a cotangent, which has the same layout
        remaining = take_samples(call.replace(cotangent=value), samples)
        remaining = take_first_steps(remaining, last).cotangent
        assert np.count_nonzero(value) == np.count_nonzero(remaining)
        value = remaining
    close(value, expected, backend.rtol)
    close(gradient[samples, :, :last], expected_gradient, backend.rtol)
    assert not gradient[~mask].any()


def take_first_steps(call: Call, last: int) -> Call:
    """Return the same call with the first steps only."""
    cropped = {name: getattr(call, name)[..., :last] for name in arguments_with_time(call)}
    return call.replace(**cropped)


UNSCALED = ("latency", "softmax_sum", "sqrt_count")


def scaled(call: Call, factor: float) -> tuple[Call, int] | None:
    """Return a call with scaled spikes and parameters, and which power of the factor its value has.

    None for losses of which no parameters undo the scale.
    """
    loss, target, power = call.loss, call.target, 2
    if isinstance(loss, sx.SpikeTime):
        target = target * factor
    elif isinstance(loss, sx.SparsityEnforcer):
        power = loss.power
        loss = dataclasses.replace(
            loss, max_rate=loss.max_rate * factor, min_rate=loss.min_rate * factor
        )
    elif isinstance(loss, sx.SpikeLatency) or loss.readout in UNSCALED:
        return None
    elif isinstance(loss, sx.SpikeMoid):
        loss = dataclasses.replace(loss, alpha=loss.alpha * factor, theta=loss.theta * factor)
        power = 0
    elif isinstance(loss, sx.CrossEntropy):
        loss, power = dataclasses.replace(loss, temperature=loss.temperature * factor), 0
    elif isinstance(loss, sx.SpikeRate) and loss.readout not in WINDOWED:
        rates = (np.multiply(rate, factor).tolist() for rate in (loss.true_rate, loss.false_rate))
        loss = dataclasses.replace(
            loss, **dict(zip(("true_rate", "false_rate"), rates, strict=True))
        )
    else:
        return None
    return call.replace(loss=loss, spikes=call.spikes * factor, target=target), power


@for_all(accept=lambda call: scaled(call, 2.0) is not None)
def test_scaling_spikes_equals_scaling_parameters(backend, call, random, layout):
    """Scaling spikes and parameters by a power of 2 multiplies the value by a power of it."""
    factor = pick(random, 0.5, 2.0, 4.0)
    value, gradient = call.on(backend)
    scaled_call, power = scaled(call, factor)
    got, scaled_gradient = scaled_call.on(backend)
    close(got, value * factor**power, backend.rtol)
    close(scaled_gradient, gradient * factor ** (power - 1), backend.rtol)


def has_a_label(call: Call) -> bool:
    return not hasattr(call.loss, "ignore_index") or bool(
        (call.target != call.loss.ignore_index).any()
    )


@for_all(
    masked=False,
    accept=lambda call: not isinstance(call.loss, sx.SpikeLatency) and has_a_label(call),
)
def test_silent_input_has_a_known_value(backend, call, random, layout):
    loss, (_, neurons, steps) = call.loss, call.spikes.shape
    call = call.replace(spikes=np.zeros(call.spikes.shape), weight=None, cotangent=None)
    if not isinstance(loss, sx.SparsityEnforcer):
        call = call.replace(loss=dataclasses.replace(loss, reduction="mean"))
    if isinstance(loss, sx.SpikeRate | sx.SpikeMax | sx.CrossEntropy):
        classes = loss.num_classes or neurons
        # the number of steps in a count; rates are averages
        length = (loss.moving_window or steps) if loss.readout == "count" else 1
    if isinstance(loss, sx.SparsityEnforcer):
        expected = loss.lam * loss.min_rate**loss.power
    elif isinstance(loss, sx.SpikeTime):
        call, expected = call.replace(target=call.spikes), 0.0
    elif isinstance(loss, sx.SpikeMoid):
        z = -loss.theta / loss.alpha
        positive = np.broadcast_to(loss.pos_weight, call.target.shape[1]) * np.moveaxis(
            call.target, 1, -1
        )
        expected = positive.mean() * math.log1p(math.exp(-z))
        expected += (1 - call.target.mean()) * math.log1p(math.exp(z))
    elif isinstance(loss, sx.SpikeRate):
        true, false = (
            np.broadcast_to(r, classes) * length for r in (loss.true_rate, loss.false_rate)
        )
        labels = call.target[call.target != loss.ignore_index]
        terms = [true[label] ** 2 + (false**2).sum() - false[label] ** 2 for label in labels]
        expected = np.mean(terms) / classes
    elif isinstance(loss, sx.SquaredError):
        expected = np.mean(call.target**2)
    elif isinstance(loss, sx.CrossEntropy) or loss.mode == "softmax":
        only_zeros = call.target.dtype.kind == "f" and not call.target.any()
        expected = 0.0 if only_zeros else math.log(classes)
    else:  # one nat worse than guessing
        divisor = 1 if loss.readout == "count" else loss.moving_window or steps
        min_reading = loss.pseudo_count / divisor / (neurons // classes)
        expected = 1 + math.log(classes + reference.EPSILON / min_reading)
    value, gradient = call.on(backend)
    close(value, np.asarray(expected), backend.rtol)
    assert np.isfinite(gradient).all()
