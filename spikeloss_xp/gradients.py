"""Value and gradient of a loss, on every backend."""

from collections.abc import Callable
from typing import Any

from spikeloss_xp import _arrays, _dispatch
from spikeloss_xp._typing import Array, Namespace
from spikeloss_xp.losses import Loss, SparsityEnforcer

Evaluate = Callable[..., tuple[Array, Array]]


def value_and_grad(loss: Callable[..., Array]) -> Evaluate:
    """Return a function that evaluates a loss and its gradient with respect to the spikes.

    Where the array library has automatic differentiation, that is used; elsewhere the closed
    forms of the losses are. They agree to the last few digits, and so each is a test of the other.
    (``backward`` of PyTorch, and a compiled ``jax.grad``, use those of large arrays too: faster.)

    Parameters
    ----------
    loss : callable
        A loss of this library. Any other function of arrays will do where the library of the
        input has automatic differentiation.

    Returns
    -------
    callable
        ``evaluate(input, *targets, cotangent=None, **options) -> (value, gradient)``, where the
        targets and options are those of the loss: ``target``, ``where``, ``lengths`` and
        ``weight``. The value is detached from any gradient graph, and `input`, one array, is not
        changed. The gradient has the shape, library, device and dtype of `input`; of bool and
        integer spikes, the dtype computed in.
        With ``reduction="none"`` a `cotangent` of the shape of the terms is needed, and the
        gradient is that of ``sum(cotangent * terms)``.

    Raises
    ------
    TypeError
        When called, if `input` comes from a library without automatic differentiation and `loss`
        is not a loss of this library; also what the loss itself raises.
    ValueError
        When called, if the value has axes and there is no `cotangent` of its shape.

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

    def evaluate(
        input: Array, *targets: Any, cotangent: Any = None, **options: Any
    ) -> tuple[Array, Array]:
        xp = _dispatch.namespace(input)
        adapter = _dispatch.adapter(xp)
        computed, _ = _arrays.floating(xp, input)
        spikes = input if xp.isdtype(input.dtype, "real floating") else computed
        if cotangent is not None:
            weight = _arrays.follow(xp, spikes, cotangent, "cotangent")
            cotangent = xp.astype(weight, computed.dtype, copy=False)

        if adapter.value_and_grad is not None:
            # Before differentiation starts, which may hide where the input is.
            near = tuple(_beside(xp, spikes, target) for target in targets)
            options = {name: _beside(xp, spikes, option) for name, option in options.items()}

            def checked(x: Array) -> Array:
                value = _without_closed_form(loss)(x, *near, **options)
                _check_cotangent(value, cotangent)
                return value

            return adapter.value_and_grad(checked, spikes, cotangent)
        if not isinstance(loss, Loss | SparsityEnforcer):
            raise TypeError(
                f"{_dispatch.library(xp)} has no automatic differentiation, so its gradients are "
                f"the closed forms of the losses of this library; got {loss!r}"
            )
        value, pullback = loss._evaluate(spikes, *targets, **options)
        _check_cotangent(value, cotangent)
        return value, pullback(_arrays.constant(xp, value, 1.0) if cotangent is None else cotangent)

    return evaluate


def _without_closed_form(loss: Callable[..., Array]) -> Callable[..., Array]:
    """Return a loss whose call leaves all of the differentiation to the library."""
    if not isinstance(loss, Loss):
        return loss
    return lambda *arrays, **options: loss._evaluate(*arrays, **options, differentiate=False)[0]


def _beside(xp: Namespace, like: Array, given: Any) -> Any:
    """Return an array of the library of `like` where that is, and anything else as it came."""
    if _dispatch.find_namespace(given) is not xp:
        return given
    return _dispatch.adapter(xp).beside(given, like)


def _check_cotangent(value: Array, cotangent: Array | None) -> None:
    shape, expected = tuple(value.shape), () if cotangent is None else tuple(cotangent.shape)
    if shape != expected:
        got = "none" if cotangent is None else f"one of shape {expected}"
        raise ValueError(f"the value has shape {shape} and needs a cotangent of it; got {got}")
