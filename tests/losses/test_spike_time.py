"""SpikeTime: kernels of the caller's, and lengths."""

import dataclasses
import math

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.cases import raises
from spikeloss_xp.backends.base import captured_arrays


def test_kernel_may_be_taps_of_any_kind_or_a_function(backend):
    taps = (0.0, 0.5, 0.25)
    loss = sx.SpikeTime(kernel=taps, time_axis=-1)
    assert loss.kernel == taps
    assert loss.number_of_taps == 3
    assert loss.memory == 2
    assert captured_arrays(loss) == ()
    lags = []

    def half_power(lag):
        lags.append(lag)
        return 0.5**lag if lag else 0.0

    for same in (np.float32(taps), backend.asarray(np.asarray(taps)), half_power):
        made = sx.SpikeTime(kernel=same, length=3, time_axis=-1)
        assert made == loss
        assert hash(made) == hash(loss)
        assert all(type(tap) is float for tap in made.kernel)
    assert lags == [0.0, 1.0, 2.0]
    assert all(type(lag) is float for lag in lags)
    assert sx.SpikeTime(kernel=(0.0, 0.5), time_axis=-1) != loss


def test_kernel_that_requires_a_gradient_raises():
    torch = pytest.importorskip("torch")
    with raises(TypeError, "kernel must be constant.*detach"):
        sx.SpikeTime(kernel=torch.ones(3, requires_grad=True), time_axis=-1)


NO_KERNEL = "kernel must be a function of the lag, or taps of shape [length]; got shape"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": [1, 0.5], "time_constant": 3}, "kernel replaces.*with time_constant=3"),
        ({"kernel": [1, 0.5], "filter_order": 3}, "kernel replaces.*with filter_order=3"),
        ({"kernel": [1, 0.5], "length": 3}, "length must be.*of the kernel, 2; got 3"),
        ({"kernel": 1.0}, f"{NO_KERNEL} ()"),
        ({"kernel": []}, f"{NO_KERNEL} (0,)"),
        ({"kernel": [[1.0, 1.0]]}, f"{NO_KERNEL} (1, 2)"),
        ({"kernel": [1, math.nan]}, "kernel[1] must be finite; got nan"),
        ({"kernel": lambda lag: math.nan, "length": 3}, "kernel(0) must be finite; got nan"),
        ({"kernel": lambda x: x}, "length must be given if kernel is a function.*got None"),
    ],
)
def test_wrong_kernel_raises(options, message):
    with raises(ValueError, message):
        sx.SpikeTime(time_axis=-1, **options)


def test_length_is_twenty_time_constants():
    assert sx.SpikeTime(time_axis=-1).number_of_taps == 100
    assert sx.SpikeTime(time_constant=2.53, time_axis=-1).number_of_taps == 51
    assert dataclasses.replace(sx.SpikeTime(time_axis=-1), time_constant=10).number_of_taps == 200
    assert sx.SpikeTime(time_constant=1e12, time_axis=-1).number_of_taps == 2**31 - 1
    assert sx.SpikeTime(time_constant=10, length=30, time_axis=-1).memory == 29
    assert (
        dataclasses.replace(sx.SpikeTime(kernel=[1, 0.5], time_axis=-1), kernel=[1]).number_of_taps
        == 1
    )
