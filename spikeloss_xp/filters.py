"""The exponential kernel, the causal filter and the moving average."""

from typing import Any

import numpy as np

from spikeloss_xp import _checks
from spikeloss_xp._arrays import Adapter, adapter_of, asarray_like, floating, on_device_of
from spikeloss_xp._typing import Array, ArrayLike, ArrayT
from spikeloss_xp.primitives.kernels import Exponential


def exponential_kernel(
    time_constant: float, length: int, filter_order: int = 1
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the causal exponential kernel that `SpikeTime` uses as its filter.

    The kernel is ``h[k] = C(k + n - 1, n - 1) * exp(-k / time_constant)``, where ``n`` is
    `filter_order`. The kernel is the convolution of ``n`` identical exponentials, truncated to
    `length` taps. The kernel is not normalised: its first tap is 1.

    Parameters
    ----------
    time_constant : float
        The time constant of the exponential, in time steps (above 0).
    length : int
        The number of taps (at least 1).
    filter_order : int, default 1
        The number of exponentials that are convolved (at least 1). The kernel of order 1 is the
        exponential itself.

    Returns
    -------
    numpy.ndarray
        The taps, of shape ``[length]``, in float64.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or has the wrong type.

    Examples
    --------
    >>> import spikeloss_xp as sx
    >>> sx.exponential_kernel(time_constant=5, length=3).round(3)
    array([1.   , 0.819, 0.67 ])
    """
    time_constant = _checks.positive(time_constant, "time_constant")
    length = _checks.count(length, "length")
    filter_order = _checks.count(filter_order, "filter_order")

    kernel = Exponential(time_constant, length, filter_order)
    check_size(kernel)
    return kernel.taps()


def check_size(kernel: Exponential) -> None:
    """Raise an error if the squares of the taps overflow in float32."""
    largest = kernel.largest_tap()
    if largest > _checks.LARGEST:
        raise ValueError(
            f"filter_order={kernel.order} with time_constant={kernel.time_constant:g} gives a "
            f"kernel with values of up to {largest:.2g}, whose squares are too large for float32: "
            "reduce the order or the time constant"
        )


@on_device_of("input")
def causal_filter(input: ArrayT, kernel: ArrayLike, *, time_axis: int) -> ArrayT:
    """Filter an array causally along its time axis.

    The result is ``y[t] = sum(kernel[k] * input[t - k] for k in range(len(kernel)))``, where
    `input` is treated as 0 before the first step.

    Parameters
    ----------
    input : array
        An array of any shape. The result is an array from the same library and on the same device.
    kernel : array or sequence of float
        The taps, of shape ``[length]``. The first tap is the weight of the current step.
    time_axis : int
        The axis of `input` along which the filter is applied.

    Returns
    -------
    array
        The filtered array, which has the same shape as `input`. If `input` is bool or integer, the
        result has the library's default floating-point dtype. If `input` is float16 or bfloat16,
        the result is float32. In all other cases, the result has the dtype of `input`.

    Raises
    ------
    ValueError, TypeError
        If `kernel` is empty or not one-dimensional, if `time_axis` is not an axis of `input`, or if
        `input` is not a real array.

    Notes
    -----
    The filter is differentiable in libraries that have automatic differentiation. If `input`
    contains NaN or infinity, the result may be NaN even at steps that the kernel does not reach,
    because the filter is computed with matrix products.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> sx.causal_filter(np.asarray([0.0, 1.0, 0.0, 0.0]), [1.0, 0.5], time_axis=0)
    array([0. , 1. , 0.5, 0. ])
    """
    adapter, x = _checked(input, time_axis)
    taps = floating(adapter, asarray_like(adapter, x, kernel, "kernel"), "kernel")
    if taps.ndim != 1 or taps.shape[0] == 0:
        raise ValueError(
            f"kernel must have shape [length] and at least one tap; got shape {tuple(taps.shape)}"
        )

    taps = adapter.xp.astype(taps, x.dtype, copy=False)
    filtered: ArrayT = adapter.causal_filter(x, taps, time_axis)
    return filtered


@on_device_of("input")
def moving_average(input: ArrayT, window: int, *, time_axis: int) -> ArrayT:
    """Return, for each time step, the average over the ``window`` steps that end at this step.

    The result is ``y[t] = sum(input[t - k] for k in range(window)) / window``, where `input` is
    treated as 0 before the first step. The average is therefore lower during the first
    ``window - 1`` steps.

    Parameters
    ----------
    input : array
        An array of any shape. The result is an array from the same library and on the same device.
    window : int
        The number of steps to average over (at least 1).
    time_axis : int
        The axis of `input` along which the average is computed.

    Returns
    -------
    array
        The moving average, which has the same shape as `input`. The result has the same dtype as
        the result of `causal_filter` for this `input`.

    Raises
    ------
    ValueError, TypeError
        If `window` is not a positive integer, if `time_axis` is not an axis of `input`, or if
        `input` is not a real array.

    Notes
    -----
    If `input` contains NaN or infinity, the result may be NaN at all steps along the axis, because
    the average is computed with matrix products.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> sx.moving_average(np.asarray([1.0, 0.0, 1.0, 1.0]), window=2, time_axis=0)
    array([0.5, 0.5, 0.5, 1. ])
    """
    adapter, x = _checked(input, time_axis)
    window = _checks.count(window, "window")

    average: ArrayT = adapter.moving_sum(x, window, time_axis) / window
    return average


def _checked(input: Array, time_axis: int) -> tuple[Adapter, Array]:
    """Return the adapter for `input`, and `input` converted to the dtype used for computation."""
    adapter = adapter_of(input)
    x, time_axis = floating(adapter, input), _checks.integer(time_axis, "time_axis")
    if not -x.ndim <= time_axis < x.ndim or x.shape[time_axis] == 0:
        raise ValueError(
            "time_axis must be an axis of input with at least one step; "
            f"time_axis={time_axis} has no steps in input of shape {tuple(x.shape)}"
        )
    return adapter, x
