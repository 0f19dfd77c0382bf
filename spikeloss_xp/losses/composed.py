"""Composed: a loss made of two functions of the user's."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from spikeloss_xp import _checks
from spikeloss_xp._arrays import Adapter
from spikeloss_xp._input.labels import INDICES, Labels
from spikeloss_xp._input.prepared import Prepared, class_axis
from spikeloss_xp._typing import Array, Reduction, ValueAndPullback
from spikeloss_xp.losses.base import Loss
from spikeloss_xp.predictions import ClassScores, Predictor
from spikeloss_xp.readouts import Read, Reading, read_groups


@dataclass(frozen=True)
class Composed(Loss, Predictor):
    r"""A loss on class labels, made from a readout and a criterion.

    .. math::
        s \xrightarrow{\ \text{read}\ } u \xrightarrow{\ \text{compare}\ } \text{terms}

    Labels, layouts, masks, weights and reductions work as in the other losses. `predict` returns
    the class with the largest reading of `read`.

    Parameters
    ----------
    read : callable
        A function ``read(xp, spikes, mask)``. The spikes have axes ``[batch, class, time]`` and are
        0 where they are masked. The mask, ``[batch, 1, time]``, is True for the steps that count,
        or None if all do. It returns the readings, ``[batch, class]``, and their pullback.
    compare : callable
        A function ``compare(xp, u, label)`` of the readings and of one-hot bools that broadcast to
        them. It returns the terms, one for each class or with a class axis of length 1, and their
        pullback.
    reduction : {"sum", "mean", "batchmean", "none"}, default "sum"
        Return the sum of the terms, their mean, their sum divided by the number of samples, or the
        terms: with their class axis, and with the time axis where `input` has it.
    per_step : bool, default False
        Whether `read` returns a reading at each step. Then `u`, labels and terms have a time axis,
        which is the last.
    num_classes : int, optional
        The number of classes. Each class is the mean of a group of neighbouring neurons. By default
        each neuron is a class.
    ignore_index : int, default -100
        The class index of samples or steps that have no terms.
    time_axis : int, default -1
        The axis of `input` that is time.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is outside its range or of the wrong type.

    Notes
    -----
    A pullback takes the derivative of the loss with respect to a result, or an array that
    broadcasts to it, and returns the derivative with respect to the argument. On NumPy and CuPy the
    gradient is the composition of the pullbacks; PyTorch and JAX differentiate the functions.
    `spikeloss_xp.testing.assert_consistent` compares the two. Use only functions of the array API
    standard, from ``xp``. With `per_step` a large batch is evaluated in chunks of samples, so no
    sample may depend on another.

    Two losses are equal if their functions are the same objects.

    Examples
    --------
    The absolute difference of the number of spikes from a target number:

    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> def count(xp, spikes, mask):
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

    read: Callable[..., ValueAndPullback]
    compare: Callable[..., ValueAndPullback]
    reduction: Reduction = "sum"
    _: KW_ONLY
    per_step: bool = False
    num_classes: int | None = None
    ignore_index: int = -100
    time_axis: int = -1

    _targets: ClassVar[tuple[str, ...]] = (INDICES,)
    _classes_compete: ClassVar[None] = None

    def __post_init__(self) -> None:
        self._check(read=_checks.function, compare=_checks.function, per_step=_checks.flag)

    @property
    def _has_time(self) -> bool:  # type: ignore[override]
        return self.per_step

    def _labels(self, prepared: Prepared, target: Any) -> Labels:
        return self._checked_labels(prepared, target, self._targets, self.per_step)

    def _read(self, prepared: Prepared, values: Array, mask: Array | None, labels: Any) -> Read:
        axis = prepared.layout.time
        return read_groups(
            prepared.adapter, values, mask, axis, self.num_classes, self._read_trains
        )

    def _read_trains(self, adapter: Adapter, spikes: Array, mask: Array | None, axis: int) -> Read:
        if mask is not None and mask.shape[class_axis(axis)] > 1:
            raise ValueError(
                "where must be the same for all neurons in a Composed loss: compare is not told "
                "which of the classes count"
            )
        trains = adapter.moveaxis(spikes, axis, -1)
        moved = None if mask is None else adapter.moveaxis(mask, axis, -1)
        u, pullback = self.read(adapter.xp, trains, moved)
        shape = tuple(trains.shape) if self.per_step else tuple(trains.shape[:2])
        if tuple(u.shape) != shape:
            raise ValueError(f"read must return an array of shape {shape}; got {tuple(u.shape)}")
        if mask is not None and not self.per_step:
            mask = adapter.xp.any(mask, axis=axis, keepdims=True)

        def to_spikes(cotangent: Array) -> Array:
            return adapter.moveaxis(pullback(self._of_user(adapter, cotangent, axis)), -1, axis)

        return Reading(self._of_loss(adapter, u, axis), mask=mask), to_spikes

    def _scores(self, prepared: Prepared, per_step: bool) -> ClassScores:
        if per_step != self.per_step:
            raise ValueError(
                f"per_step must be that of the loss, per_step={self.per_step}: read decides "
                "whether there is a reading at each step"
            )
        reading, _ = self._read(prepared, prepared.values, prepared.mask, None)
        return ClassScores(prepared, reading.u, reading.mask, per_step)

    def _criterion(self, adapter: Adapter, reading: Reading, labels: Labels) -> ValueAndPullback:
        axis = reading.time_axis
        u = self._of_user(adapter, reading.u, axis)
        one_hot = self._of_user(adapter, labels.one_hot(adapter, reading), axis)
        terms, pullback = self.compare(adapter.xp, u, one_hot)

        def to_reading(cotangent: Array) -> Array:
            return self._of_loss(adapter, pullback(self._of_user(adapter, cotangent, axis)), axis)

        each, one = tuple(u.shape), (u.shape[0], 1, *u.shape[2:])
        if tuple(terms.shape) not in (each, one):
            raise ValueError(
                f"compare must return terms of shape {each} or {one}; got {tuple(terms.shape)}"
            )
        return self._of_loss(adapter, terms, axis), to_reading

    def _of_user(self, adapter: Adapter, x: Array, axis: int) -> Array:
        """Return an array with the axes that the functions take: time last, or none."""
        if x.ndim == 0:  # the cotangent of a sum
            x = adapter.xp.reshape(x, (1, 1, 1))
        x = adapter.moveaxis(x, axis, -1)
        return x if self.per_step else x[..., 0]

    def _of_loss(self, adapter: Adapter, x: Array, axis: int) -> Array:
        """Return an array of the functions with the axes of the loss."""
        return adapter.moveaxis(x if self.per_step else x[..., None], -1, axis)
