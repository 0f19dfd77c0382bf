"""The value and gradient of a loss, computed by automatic differentiation or in closed form."""

from collections.abc import Callable
from functools import partial
from typing import Any

from spikeloss_xp._arrays import (
    Adapter,
    adapter_of,
    asarray_like,
    find_adapter,
    floating,
    on_device_of,
)
from spikeloss_xp._typing import Array, ValueAndGrad


def value_and_grad(loss: Callable[..., Array]) -> ValueAndGrad:
    """Return a function that evaluates a loss and its gradient with respect to the spikes.

    If the array library has automatic differentiation, the gradient is computed by automatic
    differentiation. Otherwise, the gradient is computed in closed form. Both methods give the same
    gradient up to rounding.

    Parameters
    ----------
    loss : callable
        A loss of this library, or one of the functions `distances.van_rossum` and
        `distances.similarity`. You can also pass a `functools.partial` that sets only keyword
        arguments. If the array library has automatic differentiation, you can pass any function of
        arrays.

    Returns
    -------
    callable
        A function ``evaluate(input, *targets, cotangent=None, **options) -> (value, gradient)``.
        The function takes the same targets and options as the loss, such as ``target``, ``where``,
        ``lengths`` and ``weight``. `input` must be a single array, which is not modified. The value
        is detached from automatic differentiation. The gradient has the shape, library, device and
        dtype of `input`. If `input` is bool or integer, however, the gradient has the dtype of the
        value. If the value is not a scalar, as with ``reduction="none"``, a `cotangent` of the same
        shape is required. The gradient is then the gradient of ``sum(cotangent * value)``.

    Raises
    ------
    TypeError
        The returned function raises this error if the library of `input` has no automatic
        differentiation and the gradient of `loss` is not known in closed form.
    ValueError
        The returned function raises this error if the value is not a scalar and `cotangent` does
        not have the shape of the value. The returned function also raises the errors of the loss.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> spikes = np.asarray([[[1, 0, 1, 1], [0, 0, 1, 0]]])
    >>> loss = sx.SpikeRate(0.5, 0.0, time_axis=-1, reduction="sum")
    >>> value, gradient = sx.value_and_grad(loss)(spikes, [0])
    >>> gradient
    array([[[0.125, 0.125, 0.125, 0.125],
            [0.125, 0.125, 0.125, 0.125]]])
    """
    if isinstance(loss, partial) and not loss.args and _has_closed_form(loss.func):
        return partial(value_and_grad(loss.func), **loss.keywords)
    closed_form: Any = loss if _has_closed_form(loss) else None

    def evaluate(
        input: Array, *targets: Any, cotangent: Any = None, **options: Any
    ) -> tuple[Array, Array]:
        adapter = adapter_of(input)
        computed = floating(adapter, input)
        spikes = input if adapter.xp.isdtype(input.dtype, "real floating") else computed
        if cotangent is not None:
            given = asarray_like(adapter, spikes, cotangent, "cotangent")
            cotangent = adapter.xp.astype(given, computed.dtype, copy=False)

        if adapter.differentiates:
            function = loss if closed_form is None else closed_form.value
            # The arrays are moved to the device of the input before differentiation, because the
            # device of the input may be unknown during differentiation.
            moved = tuple(_to_device_of(adapter, spikes, target) for target in targets)
            options = {name: _to_device_of(adapter, spikes, x) for name, x in options.items()}

            def checked(x: Array) -> Array:
                value = function(x, *moved, **options)
                _check_cotangent(value, cotangent)
                return value

            return adapter.value_and_grad(checked, spikes, cotangent)
        if closed_form is None:
            raise TypeError(
                f"{adapter.library} has no automatic differentiation, so the gradient must be "
                f"known in closed form; got {loss!r}, which has no closed form"
            )
        value, pullback = adapter.value_and_pullback(closed_form, input, *targets, **options)
        _check_cotangent(value, cotangent)
        return value, pullback(adapter.scalar(value, 1.0) if cotangent is None else cotangent)

    return on_device_of("input")(evaluate)


def _has_closed_form(loss: Any) -> bool:
    """Return whether the gradient of `loss` is known in closed form.

    The result is False if `functools.wraps` has only copied the attributes of another function.
    """
    copied = hasattr(getattr(loss, "__wrapped__", None), "_has_closed_form")
    return getattr(loss, "_has_closed_form", False) and not copied


def _to_device_of(adapter: Adapter, like: Array, given: Any) -> Any:
    """Return `given` on the device of `like` if `given` is an array from the adapter's library.

    If only `like` is on a device other than the host, the result is a NumPy array, so that the loss
    can check the values before they are copied.
    """
    if find_adapter(given) is not adapter:
        return given
    known = adapter.concrete_or_none(given)
    if known is not None and adapter.concrete_or_none(like) is None:
        return known
    return adapter.to_device_of(given, like)


def _check_cotangent(value: Array, cotangent: Array | None) -> None:
    shape, expected = tuple(value.shape), () if cotangent is None else tuple(cotangent.shape)
    if shape != expected:
        got = "none" if cotangent is None else f"shape {expected}"
        raise ValueError(f"cotangent must have the shape of the value, {shape}; got {got}")
