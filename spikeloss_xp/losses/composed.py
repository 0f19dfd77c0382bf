"""Composed: a loss made of two functions of your own."""

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

from spikeloss_xp import _arrays, _checks, criteria
from spikeloss_xp._layout import CLASS, Layout
from spikeloss_xp._targets import Labels
from spikeloss_xp._typing import Array, Namespace, Pullback
from spikeloss_xp.losses._loss import Loss
from spikeloss_xp.losses._rate_loss import RateLoss
from spikeloss_xp.readouts import Reading


@dataclass(frozen=True)
class Composed(RateLoss):
    r"""A loss of class labels, made of a readout and a criterion.

    .. math::
        s \xrightarrow{\ \text{read}\ } u \xrightarrow{\ \text{compare}\ } \text{terms}

    What is around them is as in the other losses: labels, layouts, masks, weights and reductions.

    Parameters
    ----------
    read : callable
        Called as ``read(xp, spikes, kept)`` with spikes ``[batch, class, time]``, silent where they
        are masked, and a mask ``[batch, 1, time]`` of the steps that count, or None if all do.
        Returns what it reads, ``[batch, class]``, and its pullback.
    compare : callable
        Called as ``compare(xp, u, label)`` with what was read and one-hot bools that broadcast to
        it. Returns the terms, of each class or with a class axis of length 1, and its pullback.
    reduction : {"sum", "mean", "batchmean", "none"}, default "sum"
        Add the terms; average them; divide their sum by the number of samples; or return them, with
        the class axis that they have and time where `input` has it.
    per_step : bool, default False
        Whether there is a reading at each step: then `u`, labels and terms have a time axis, last.
    num_classes : int, optional
        The number of classes, each the mean of a group of neighbouring neurons. Without it each
        neuron is a class.
    ignore_index : int, default -100
        The class index of a sample, or step, that is left out.
    time_axis : int, default -1
        The axis of `input` that is time.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is outside its range or of the wrong kind.

    Notes
    -----
    A pullback takes the derivative of the loss with respect to a result, or what broadcasts to it,
    to the derivative with respect to what that was computed from. NumPy and CuPy have their
    gradient from the pullbacks; PyTorch and JAX differentiate the functions.
    `spikeloss_xp.testing.assert_consistent` compares the two. Use only functions of the array API
    standard, by way of ``xp``. With `per_step`, they are given some samples of a large batch at a
    time, so none may depend on another.

    Two losses are equal if their functions are the same objects.

    Examples
    --------
    The absolute difference of the number of spikes from that wanted:

    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> def count(xp, spikes, kept):
    ...     return xp.sum(spikes, axis=-1), lambda g: xp.broadcast_to(g[..., None], spikes.shape)
    >>> def absolute(xp, count, label):
    ...     missing = xp.where(label, 3.0, 0.0) - count
    ...     return abs(missing), lambda g: -g * xp.sign(missing)
    >>> spikes = np.asarray([[[1, 0, 0, 1], [0, 0, 1, 0]]])
    >>> loss = sx.losses.Composed(count, absolute)
    >>> value, gradient = sx.value_and_grad(loss)(spikes, [0])
    >>> float(value), gradient[0, :, 0]
    (2.0, array([-1.,  1.]))
    """

    read: Callable[..., tuple[Array, Pullback]]
    compare: Callable[..., tuple[Array, Pullback]]
    reduction: str = "sum"
    _: KW_ONLY
    per_step: bool = False
    num_classes: int | None = None
    ignore_index: int = -100
    time_axis: int = -1

    def __post_init__(self) -> None:
        Loss._check(
            self,
            read=_checks.function,
            compare=_checks.function,
            per_step=_checks.flag,
            num_classes=_checks.optional_count,
            ignore_index=_checks.integer,
        )

    _closed = False  # the functions may hold tensors that require grad

    @property
    def _has_time(self) -> bool:
        return self.per_step

    def _target(
        self, xp: Namespace, layout: Layout, spikes: Array, kept: Array | None, target: Any
    ) -> Labels:
        return self._class_labels(xp, layout, spikes, kept, target)

    def _read(self, xp: Namespace, signal: Array, kept: Array | None) -> tuple[Reading, Pullback]:
        if kept is not None and kept.shape[CLASS] > 1:
            raise ValueError(
                "where must be the same for all neurons in a Composed loss: compare is not told "
                "which of the classes count"
            )
        u, pullback = self.read(xp, signal, kept)
        wanted = tuple(signal.shape) if self.per_step else tuple(signal.shape[:-1])
        if tuple(u.shape) != wanted:
            raise ValueError(f"read must return an array of shape {wanted}; got {tuple(u.shape)}")
        if kept is not None and not self.per_step:
            kept = xp.any(kept, axis=-1)
        return Reading(u, kept=kept), pullback

    def _criterion(self, xp: Namespace, reading: Reading, wanted: Labels) -> tuple[Array, Pullback]:
        terms, pullback = self.compare(xp, reading.u, wanted.hot)
        each = tuple(reading.u.shape)
        together = (each[0], 1, *each[2:])
        if tuple(terms.shape) not in (each, together):
            raise ValueError(
                f"compare must return terms of shape {each} or {together}; got {tuple(terms.shape)}"
            )
        if wanted.valid is None:
            return criteria.weighted(terms, pullback, wanted.amount)
        one, nan = (_arrays.constant(xp, terms, value) for value in (1.0, math.nan))
        known = xp.where(wanted.valid, one, nan)  # a label may be no class where that is no error
        terms, pullback = criteria.weighted(terms, pullback, known)
        return criteria.weighted(terms, pullback, wanted.amount)
