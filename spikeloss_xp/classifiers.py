"""Classifiers: the predicted class of spike trains, and the confidence in each class."""

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Unpack, get_args, overload

from spikeloss_xp import _checks, readouts
from spikeloss_xp._classifier import Classifier, without_masked
from spikeloss_xp._input.layout import CLASS
from spikeloss_xp._input.prepared import PreparedInput
from spikeloss_xp._typing import Array, ArrayT, ConfidenceMode, FloatArray, HostArray, MaskOptions
from spikeloss_xp.criteria import EPSILON
from spikeloss_xp.latency import latency
from spikeloss_xp.readouts import Reading

MODES = get_args(ConfidenceMode)


class _Rates(Classifier):
    time_window: int | None
    mode: str
    eps: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.check_fields(self, mode=_checks.one_of(MODES), eps=_checks.not_negative)

    @overload
    def rate(self, spikes: HostArray, **options: Unpack[MaskOptions]) -> FloatArray: ...
    @overload
    def rate(self, spikes: ArrayT, **options: Unpack[MaskOptions]) -> ArrayT: ...
    def rate(self, spikes: Array, *, where: Any = None, lengths: Any = None) -> Array:
        """Return the rates, in spikes per time step.

        Parameters
        ----------
        spikes : array
            ``[batch, *space, time]``, with the time axis at `time_axis`.
        where, lengths : array or sequence, optional
            The mask, as for the losses. The rate is over the unmasked steps, and 0 if there are
            none. In a moving window masked steps are silent.

        Returns
        -------
        array
            ``[batch, class]``; with a window also a time axis, where the spikes have it.

        Raises
        ------
        ValueError, TypeError
            If `spikes` is not an array of real numbers with at least three axes, if `num_classes`
            does not divide the number of neurons, or if a mask has the wrong shape or dtype.
        """
        prepared, reading, _ = self._read(spikes, where, lengths)
        return self._in_layout(prepared, reading.u)

    @overload
    def confidence(self, spikes: HostArray, **options: Unpack[MaskOptions]) -> FloatArray: ...
    @overload
    def confidence(self, spikes: ArrayT, **options: Unpack[MaskOptions]) -> ArrayT: ...
    def confidence(self, spikes: Array, *, where: Any = None, lengths: Any = None) -> Array:
        """Return the confidence in each class, as `mode` says, in the shape of the rates."""
        prepared, reading, logit = self._read(spikes, where, lengths)
        xp, rate = prepared.library.xp, reading.u
        if self.mode == "probability":
            confidence = rate / (xp.sum(rate, axis=CLASS, keepdims=True) + self.eps)
        else:
            logit = logit - xp.max(logit, axis=CLASS, keepdims=True)
            total = xp.sum(xp.exp(logit), axis=CLASS, keepdims=True)
            logarithmic = self.mode == "logsoftmax"
            confidence = logit - xp.log(total) if logarithmic else xp.exp(logit) / total
        return self._in_layout(prepared, confidence)

    def _read(
        self, spikes: Array, where: Any, lengths: Any
    ) -> tuple[PreparedInput, Reading, Array]:
        prepared = self._prepare(spikes, where, lengths)
        library, layout = prepared.library, prepared.layout
        values, mask = prepared.values, prepared.mask
        classes = layout.classes(self.num_classes)
        number = 1
        if classes != layout.neurons:
            group = readouts.population(library, values, mask, classes, per_step=True)
            values, mask, number = group.values, group.mask, group.number
        first = layout.time_axis == 0
        reading, _ = readouts.rate(library, values, self.time_window, mask, time_first=first)
        if number > 1:
            reading = reading._replace(u=reading.u / number)
        return prepared, reading, without_masked(library, reading.u, reading)


@dataclass(frozen=True)
class Rate(_Rates):
    """Classify by the rates over the whole duration.

    Parameters
    ----------
    mode : {"probability", "softmax", "logsoftmax"}, default "probability"
        What `confidence` returns: the normalised rates, their softmax, or its logarithm.
    eps : float, default 1e-6
        The number added to the sum of rates, so that the confidence is 0 if all neurons are silent.
    num_classes : int, optional
        The number of classes. Each class is the mean of a group of neighbouring neurons. By default
        each neuron is a class.
    ignore_index : int, default -100
        The label that `accuracy` does not count.
    time_axis : int, default -1
        The axis of the spikes that is time.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is outside its range or of the wrong type.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> sx.Rate()(np.asarray([[[1, 0, 1, 1], [0, 0, 1, 0]]]))
    array([0])
    """

    _: KW_ONLY
    mode: ConfidenceMode = "probability"
    eps: float = EPSILON
    num_classes: int | None = None
    ignore_index: int = -100
    time_axis: int = -1

    time_window = None


@dataclass(frozen=True)
class MovingWindow(_Rates):
    """Classify at each time step by the rates in a moving window.

    Parameters
    ----------
    time_window : int
        Length of the window, in time steps.
    mode : {"probability", "softmax", "logsoftmax"}, default "probability"
        What `confidence` returns: the normalised rates, their softmax, or its logarithm.
    eps : float, default 1e-6
        The number added to the sum of rates, so that the confidence is 0 if all neurons are silent.
    num_classes : int, optional
        The number of classes. Each class is the mean of a group of neighbouring neurons. By default
        each neuron is a class.
    ignore_index : int, default -100
        The label that `accuracy` does not count.
    time_axis : int, default -1
        The time axis of the spikes, and of the results.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is outside its range or of the wrong type.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> sx.MovingWindow(2)(np.asarray([[[1, 0, 0, 0], [0, 0, 1, 1]]]))
    array([[0, 0, 1, 1]])
    """

    time_window: int
    mode: ConfidenceMode = "probability"
    eps: float = EPSILON
    _: KW_ONLY
    num_classes: int | None = None
    ignore_index: int = -100
    time_axis: int = -1

    _per_step: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.check_fields(self, time_window=_checks.count)


@dataclass(frozen=True)
class Latency(Classifier):
    """Classify by latency: the class that fires first wins.

    Parameters
    ----------
    num_classes : int, optional
        The number of classes. Each class is the mean of a group of neighbouring neurons. By default
        each neuron is a class.
    time_axis : int, default -1
        The axis of the spikes that is time.
    ignore_index : int, default -100
        The label that `accuracy` does not count.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is outside its range or of the wrong type.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> spikes = np.asarray([[[0, 0, 1, 1], [0, 1, 0, 0]]])
    >>> sx.Latency()(spikes)
    array([1])
    >>> sx.Latency().latency(spikes)
    array([[2., 1.]])
    """

    num_classes: int | None = None
    time_axis: int = -1
    _: KW_ONLY
    ignore_index: int = -100

    @overload
    def latency(self, spikes: HostArray, **options: Unpack[MaskOptions]) -> FloatArray: ...
    @overload
    def latency(self, spikes: ArrayT, **options: Unpack[MaskOptions]) -> ArrayT: ...
    def latency(self, spikes: Array, *, where: Any = None, lengths: Any = None) -> Array:
        """Return the latency of the first spike of each class, in time steps.

        Parameters
        ----------
        spikes : array
            ``[batch, *space, time]``, with the time axis at `time_axis`; between 0 and 1. A larger
            spike is read as 1, and graded spikes give an expected latency, as in `SpikeLatency`.
        where, lengths : array or sequence, optional
            The mask, as for the losses. Masked steps are not counted.

        Returns
        -------
        array
            ``[batch, class]``. The latency of a silent class is the longest duration of its sample.

        Raises
        ------
        ValueError, TypeError
            If `spikes` is not an array of real numbers with at least three axes or has a negative
            entry, if `num_classes` does not divide the number of neurons, or if a mask has the
            wrong shape or dtype.
        """
        return self._read(spikes, where, lengths)[1].u

    def _read(
        self, spikes: Array, where: Any, lengths: Any
    ) -> tuple[PreparedInput, Reading, Array]:
        prepared = self._prepare(spikes, where, lengths)
        library, layout = prepared.library, prepared.layout
        classes = layout.classes(self.num_classes)
        reading, _ = latency(library, prepared.values, prepared.mask, classes, layout.time_axis)
        return prepared, reading, without_masked(library, -reading.u, reading)
