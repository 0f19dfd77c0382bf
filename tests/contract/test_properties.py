"""Properties that hold for every loss and every valid call, on random calls.

The calls have seeds, as those of `test_differential.py`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.backends import TESTED, on
from _support.calls import (
    Call,
    agree,
    take_samples,
    take_steps,
    with_layout,
    with_nan_where_masked,
)
from _support.cases import close
from _support.contract import FLOATS, INTEGERS, WINDOWED
from _support.random_calls import (
    MIN_SCALE,
    RandomCall,
    check_and_shrink,
    is_published,
    pick,
    random_call,
    tolerance,
)

QUICK = {  # the number of seeds
    **{"numpy": 60, "torch": 30, "array-api-strict": 15, "array-api-strict-device1": 2},
    **{"cupy": 20, "torch-cuda": 20},
}
SPACING = {"float16": 2.0**-11, "bfloat16": 2.0**-8}  # half a unit in the last place


def for_all(
    *,
    kinds: tuple[str, ...] = ("small",),
    masked: bool = True,
    accept: Callable[[Call], bool] = lambda call: True,
) -> Callable[[Callable[..., None]], Any]:
    """Check a property of the accepted calls on every backend, but for the published numerics.

    `check` gets a backend, a random call, a random generator, and a layout of the call.
    """

    def accepted(call: Call) -> bool:
        return not is_published(call) and accept(call)

    def decorate(check: Callable[..., None]) -> Any:
        def test(name: str, seeds: Any) -> None:
            with on(name) as backend:
                for seed in seeds(QUICK.get(name, 1), slow=8):
                    kind = kinds[seed % len(kinds)]
                    drawn = random_call(seed, kind, masked=masked, accept=accepted)

                    def run(drawn: RandomCall, seed: int = seed) -> None:
                        random = np.random.default_rng([seed, 2])
                        if accepted(drawn.call):
                            check(backend, drawn.call, random, drawn.layout)

                    file = "tests/contract/test_properties.py"
                    repeat = f"'{file}::{check.__name__}[{name}]' --seed {seed}"
                    check_and_shrink(run, drawn, repeat)

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
    cropped = take_steps(take_samples(call, samples), 0, last)
    value, gradient = masked.on(backend)
    expected, expected_gradient = cropped.on(backend)
    if np.ndim(value):  # crop the terms as a cotangent, which has the same layout
        remaining = take_samples(call.replace(cotangent=value), samples)
        remaining = take_steps(remaining, 0, last).cotangent
        assert np.count_nonzero(value) == np.count_nonzero(remaining)
        value = remaining
    close(value, expected, backend.rtol)
    close(gradient[samples, :, :last], expected_gradient, backend.rtol)
    assert not gradient[~mask].any()


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
