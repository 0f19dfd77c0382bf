"""Value and gradient: by automatic differentiation, or by the closed form of a loss."""

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

    If the array library has automatic differentiation, it computes the gradient. Otherwise the
    closed form of the loss does. The two agree to the last few digits.

    Parameters
    ----------
    loss : callable
        A loss of this library, `distances.van_rossum` or `distances.similarity`, or a
        `functools.partial` of one of them with keyword arguments only. If the library of the input
        has automatic differentiation, any function of arrays, for example a loss that overrides
        only `value` or ``__call__``.

    Returns
    -------
    callable
        ``evaluate(input, *targets, cotangent=None, **options) -> (value, gradient)``. Targets and
        options are those of the loss: ``target``, ``where``, ``lengths`` and ``weight``. `input` is
        one array, and is not changed. The value belongs to no gradient graph. The gradient has the
        shape, library, device and dtype of `input`; for bool and integer spikes it has the dtype of
        the value. With ``reduction="none"`` pass a `cotangent` of the shape of the terms: the
        gradient is that of ``sum(cotangent * terms)``.

    Raises
    ------
    TypeError
        By the returned function, if the library of `input` has no automatic differentiation and
        `loss` has no closed form. Errors of the loss are raised too.
    ValueError
        By the returned function, if the value is no scalar and there is no `cotangent` of its
        shape.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> spikes = np.asarray([[[1, 0, 1, 1], [0, 0, 1, 0]]])
    >>> value, gradient = sx.value_and_grad(sx.SpikeRate(0.5, 0.0))(spikes, [0])
    >>> gradient
    array([[[0.125, 0.125, 0.125, 0.125],
            [0.125, 0.125, 0.125, 0.125]]])
    """
    closed_form: Any = loss if getattr(loss, "has_closed_form", False) else None

    if hasattr(getattr(loss, "__wrapped__", None), "has_closed_form"):
        closed_form = None  # `functools.wraps` has copied the attributes to another function
    if isinstance(loss, partial) and not loss.args and getattr(loss.func, "has_closed_form", False):
        return partial(value_and_grad(loss.func), **loss.keywords)

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
            # Differentiation may hide the device of the input.
            moved = tuple(_to_device_of(adapter, spikes, target) for target in targets)
            options = {name: _to_device_of(adapter, spikes, x) for name, x in options.items()}

            def checked(x: Array) -> Array:
                value = function(x, *moved, **options)
                _check_cotangent(value, cotangent)
                return value

            return adapter.value_and_grad(checked, spikes, cotangent)
        if closed_form is None:
            raise TypeError(
                f"{adapter.library} has no automatic differentiation, so its gradients are the "
                f"closed forms of the losses of this library; got {loss!r}, which has none"
            )
        value, pullback = adapter.value_and_pullback(closed_form, input, *targets, **options)
        _check_cotangent(value, cotangent)
        return value, pullback(adapter.scalar(value, 1.0) if cotangent is None else cotangent)

    return on_device_of("input")(evaluate)


def _to_device_of(adapter: Adapter, like: Array, given: Any) -> Any:
    """Return an array of the library on the device of `like`, and any other object as it is.

    Values on the host, where those of `like` are not, stay: the loss checks and copies them.
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
        got = "none" if cotangent is None else f"one of shape {expected}"
        raise ValueError(f"the value has shape {shape} and needs a cotangent of it; got {got}")
