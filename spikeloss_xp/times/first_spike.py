"""Base class for losses on spike times, and the losses on the first spike of each class."""

import dataclasses
import math
import warnings
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

import numpy as np

from spikeloss_xp import _checks
from spikeloss_xp._arrays import adapter_of, at_least_one, concrete_or_none, shape_of
from spikeloss_xp._input.labels import Labels
from spikeloss_xp._input.prepared import Reading, Trains, prepare_input
from spikeloss_xp._input.targets import CLASS_INDICES, PROBABILITIES, Numbers, Target
from spikeloss_xp._spike_pairs import check_not_trains
from spikeloss_xp._typing import Array, Reduction, ValueAndPullback
from spikeloss_xp.losses.cross_entropy import compare_logits
from spikeloss_xp.losses.predictions import ClassScores, Predictor
from spikeloss_xp.losses.spike_latency import compare_times, score_of_times
from spikeloss_xp.losses.with_target import TargetLoss
from spikeloss_xp.readouts import ReadResult


class TimesLoss(TargetLoss):
    """Base class for losses on spike times."""

    time_axis: ClassVar[int] = -1  # type: ignore[misc]

    def _chunk_axes(self, prepared: Trains) -> tuple[int, ...]:
        return (prepared.layout.batch_axis,)

    def __repr__(self) -> str:
        fields = (field.name for field in dataclasses.fields(self))  # type: ignore[arg-type]
        given = ", ".join(f"{name}={getattr(self, name)!r}" for name in fields)
        return f"times.{type(self).__name__}({given})"


class FirstSpike(TimesLoss, Predictor):
    """Base class for losses that use the time of the first spike of each class."""

    silent_time: float

    def _prepare_input(self, input: Array, where: Any, lengths: Any, context: int = 0) -> Trains:
        return prepare_times(input, where, lengths, self.num_classes)

    def _labels(self, prepared: Trains, target: Any) -> Labels:
        self._warn_if_silent(prepared)
        return super()._labels(prepared, target)

    def _warn_if_silent(self, prepared: Trains) -> None:
        """Warn if no class in the batch has a spike before `silent_time`.

        Times on a GPU and times in traced functions are not checked.
        """
        times = concrete_or_none(prepared.values)
        mask = True if prepared.mask is None else concrete_or_none(prepared.mask)
        if times is None or mask is None or not np.any(mask):
            return
        if not (mask & (times > -math.inf) & (times < self.silent_time)).any():
            warnings.warn(
                f"no spike in the batch is before silent_time={self.silent_time:g}, so all classes "
                "are silent, and the gradient is 0. Check that silent_time is in the same unit as "
                "the times, and that the network spikes.",
                UserWarning,
                stacklevel=2,
            )

    def _read(self, prepared: Trains, labels: Any) -> ReadResult:
        adapter, xp, silent = prepared.adapter, prepared.xp, self.silent_time
        values, mask, classes = prepared.values, prepared.mask, prepared.num_classes
        size = prepared.layout.neurons // classes
        trains = xp.reshape(values, (values.shape[0], classes, size, values.shape[2]))
        # Padding and times at `silent` or later are replaced by `silent`, and have gradient 0.
        early = (trains > -math.inf) & (trains < silent)
        first = times = xp.where(early, trains, adapter.operand(trains, silent))
        if several := trains.shape[2] * trains.shape[3] > 1:
            first = xp.min(times, axis=(2, 3), keepdims=True)

        def pullback(cotangent: Array) -> Array:
            reached = early & (times == first) if several else early
            slope = xp.where(reached, cotangent[..., None], adapter.operand(values, 0.0))
            if several:
                sharing = xp.sum(xp.astype(reached, slope.dtype), axis=(2, 3), keepdims=True)
                slope = slope / at_least_one(adapter, sharing)
            return xp.reshape(slope, values.shape)

        u = xp.squeeze(first, axis=3)
        reading = Reading(u, adapter.axes[1], adapter, adapter.xp, saturated=silent, mask=mask)
        return reading, pullback

    def _scores(self, prepared: Trains, per_step: bool) -> ClassScores:
        reading, _ = self._read(prepared, None)
        return ClassScores(prepared, self.score(reading), reading.mask, per_step)

    def score(self, reading: Reading) -> Array:
        """Return the scores of the classes. `predict` returns the class with the largest score."""
        return -reading.u


@dataclass(frozen=True, repr=False)
class CrossEntropy(FirstSpike):
    r"""Softmax cross entropy whose logits are the negative times of the first spikes.

    .. math::
        L = \frac{1}{B} \sum_b \Bigl( \log \sum_c e^{-t_{b, c} / \rho} + \frac{t_{b, y_b}}{\rho}
            \Bigr)

    where :math:`t` is the time of the first spike of a class, :math:`y` is the label and
    :math:`\rho` is the temperature. The class that spikes first is the most probable class.
    Minimising the loss moves the first spike of the labelled class to earlier times, and the first
    spikes of the other classes to later times [1]_ [2]_.

    Parameters
    ----------
    temperature : float
        The number :math:`\rho` by which the times are divided, from 1e-6 to 1e18. The temperature
        has the same unit as the times. A good initial value is 1/20 of the range of the times.
    label_smoothing : float, default 0
        The fraction of the label's probability that is spread evenly over all classes. The fraction
        must be at least 0 and below 1.
    reduction : {"mean", "sum", "batchmean", "none"}, default "mean"
        How the terms of the loss are reduced. ``"batchmean"`` returns the sum of the terms divided
        by the number of samples. With ``"none"``, the result has shape ``[batch]``.
    num_classes : int, optional
        The number of classes. Each class is a group of neighbouring neurons, and its first spike is
        the earliest spike of the group. By default, each neuron is a class.
    ignore_index : int, default -100
        Samples with this class index as their label are ignored.
    silent_time : float
        The time that the loss uses for a class without spikes, in the unit of the times. Spikes at
        `silent_time` or later are treated as silence and have gradient 0.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is out of range or has the wrong type.

    See Also
    --------
    spikeloss_xp.CrossEntropy : The same loss on binned spikes, with further notes.

    Notes
    -----
    `input` is a float or integer array of spike times, with shape ``[batch, class]`` or
    ``[batch, class, spike]``. The spikes may be in any order. NaN and infinity are padding.
    `target` holds class indices, which are integers of shape ``[batch]``, or class probabilities,
    which are floats of shape ``[batch, class]``. The mask `where` has shape ``[batch]``, and the
    class weights in `weight` have shape ``[class]``.

    If several spikes tie as the first spike of a class, they share the gradient equally. A silent
    class has no gradient. To make a silent class fire, add another term to the loss, such as a
    penalty on synaptic weights that are too small.

    References
    ----------
    .. [1] H. Mostafa, "Supervised learning based on temporal coding in spiking neural networks",
       IEEE Transactions on Neural Networks and Learning Systems 29(7), 2018.
    .. [2] J. Göltz et al., "Fast and energy-efficient neuromorphic deep learning with first-spike
       times", Nature Machine Intelligence 3, 2021.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> times = np.asarray([[3.0, 5.0]])  # one sample, two classes
    >>> loss = sx.times.CrossEntropy(temperature=1.0, silent_time=20.0)
    >>> float(loss(times, [0]).round(3))  # -log(e^-3 / (e^-3 + e^-5))
    0.127
    """

    _: KW_ONLY
    temperature: float = field(metadata=_checks.checked_by(_checks.scale))
    label_smoothing: float = _checks.option(0.0, _checks.fraction)
    reduction: Reduction = _checks.option("mean", _checks.reduction)
    num_classes: int | None = _checks.option(None, _checks.optional_count)
    ignore_index: int = _checks.option(-100, _checks.label)
    silent_time: float = field(metadata=_checks.checked_by(_checks.number))

    classes_compete: ClassVar[bool] = True
    targets: ClassVar[tuple[Target, ...]] = (CLASS_INDICES, PROBABILITIES)

    def _labels(self, prepared: Trains, target: Any) -> Labels:
        labels = super()._labels(prepared, target)
        return labels.as_numbers(prepared) if self.label_smoothing else labels

    def score(self, reading: Reading) -> Array:
        """Return the logits of the classes. The earliest class has the largest logit."""
        return reading.u / -self.temperature

    def criterion(self, reading: Reading, labels: Labels) -> ValueAndPullback:
        """Return the cross entropy of each sample, and the pullback to the first-spike times."""
        return compare_logits(reading, reading.u, labels, -self.temperature, self.label_smoothing)


@dataclass(frozen=True, repr=False)
class SpikeLatency(FirstSpike):
    r"""Squared error between the times of first spikes and target times.

    .. math::
        L = \frac{1}{B C} \sum_{b, c} \max(|t_{b, c} - \hat t_{b, c}| - \delta, 0)^2

    where :math:`t` is the time of the first spike of a class, and :math:`\hat t` is its target
    time.

    Parameters
    ----------
    true_time : float, default 0
        The target time of the labelled class. `true_time` must be at most `silent_time`.
    false_time : float, optional
        The target time of the other classes. `false_time` must be at most `silent_time`, which is
        the default.
    tolerance : float, default 0
        The tolerance :math:`\delta`, which must be at least 0. If a first spike differs from its
        target time by at most :math:`\delta`, the term is 0.
    reduction : {"mean", "sum", "batchmean", "none"}, default "mean"
        How the terms of the loss are reduced. ``"batchmean"`` returns the sum of the terms divided
        by the number of samples. With ``"none"``, the result has shape ``[batch, class]``.
    num_classes : int, optional
        The number of classes. Each class is a group of neighbouring neurons, and its first spike is
        the earliest spike of the group. By default, each neuron is a class.
    ignore_index : int, default -100
        Samples with this class index as their label are ignored.
    silent_time : float
        The time that the loss uses for a class without spikes. Spikes at `silent_time` or later are
        treated as silence and have gradient 0.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is out of range or has the wrong type.

    See Also
    --------
    spikeloss_xp.SpikeLatency : The same loss on binned spikes.

    Notes
    -----
    All times are in the same unit. `input` has the same form as for `CrossEntropy`. `target` holds
    either class indices or target times. Class indices are integers of shape ``[batch]``. Target
    times are floats of shape ``[batch, class]``. If you pass class weights together with class
    indices, all terms of a sample have the weight of the labelled class. If you pass class weights
    together with target times, each term has the weight of its own class. A silent class has no
    gradient.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> times = np.asarray([[3.0, np.inf]])  # two classes, one of them silent
    >>> loss = sx.times.SpikeLatency(true_time=2.0, silent_time=20.0, reduction="none")
    >>> loss(times, [0])
    array([[1., 0.]])
    >>> loss(times, [[2.0, 16.0]])
    array([[ 1., 16.]])
    """

    _: KW_ONLY
    true_time: float = _checks.option(0.0, _checks.number)
    false_time: float | None = _checks.option(None, _checks.optional(_checks.number))
    tolerance: float = _checks.option(0.0, _checks.not_negative)
    reduction: Reduction = _checks.option("mean", _checks.reduction)
    num_classes: int | None = _checks.option(None, _checks.optional_count)
    ignore_index: int = _checks.option(-100, _checks.label)
    silent_time: float = field(metadata=_checks.checked_by(_checks.number))

    targets: ClassVar[tuple[Target, ...]] = (CLASS_INDICES, Numbers("spike times"))

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("true_time", "false_time"):
            given = getattr(self, name)
            if given is not None and given > self.silent_time:
                raise ValueError(
                    f"{name} must be at most silent_time, {self.silent_time}, because no first "
                    f"spike is later; got {given}"
                )

    def score(self, reading: Reading) -> Array:
        """Return scores that favour early spikes, or late spikes if ``true_time > false_time``."""
        return score_of_times(reading, self.true_time, self.false_time)

    def criterion(self, reading: Reading, labels: Labels) -> ValueAndPullback:
        """Return the squared errors of the first-spike times, and their pullback."""
        return compare_times(reading, labels, self.true_time, self.false_time, self.tolerance)


def prepare_times(input: Array, where: Any, lengths: Any, num_classes: int | None) -> Trains:
    """Check spike times and their mask, and convert them to `Trains`."""
    adapter, shape = adapter_of(input), tuple(input.shape)
    if len(shape) not in (2, 3) or adapter.xp.isdtype(input.dtype, "bool"):
        raise ValueError(
            "input must hold spike times of shape [batch, class] or [batch, class, spike]; got "
            f"{input.dtype} of shape {shape}"
        )
    if lengths is not None:
        raise TypeError("losses on spike times take no lengths: use NaN or infinity as padding")
    if where is not None and shape_of(where) != shape[:1]:
        raise ValueError(
            f"where must have shape {shape[:1]} ([batch]) for spike times; got {shape_of(where)}: "
            "to leave out individual spikes, replace their times by NaN or infinity"
        )
    check_not_trains(adapter, input, "input")
    times = input if len(shape) == 3 else adapter.xp.expand_dims(input, axis=-1)
    prepared = prepare_input(times, where, None, time_axis=-1)
    prepared.layout = prepared.layout._replace(shape=shape, has_time=False)
    if num_classes is not None:
        prepared.num_classes = prepared.layout.number_of_classes(num_classes)
    if prepared.mask is not None:  # all classes and spikes of a sample have the same mask
        prepared.mask = prepared.mask[:, :1, :1]
    return prepared
