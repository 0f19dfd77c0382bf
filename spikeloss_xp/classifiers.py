"""Classifiers: the predicted class of spike trains, and the confidence in each class."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any

from spikeloss_xp import _checks, readouts
from spikeloss_xp._input.layout import CLASS
from spikeloss_xp._input.prepared import PreparedInput, prepare_input
from spikeloss_xp._typing import Array
from spikeloss_xp.criteria import EPSILON

MODES = ("probability", "softmax", "logsoftmax")


class _Classifier:
    time_window: int | None
    mode: str
    eps: float
    num_classes: int | None
    time_axis: int

    def __post_init__(self) -> None:
        _checks.check_fields(
            self,
            mode=_checks.one_of(MODES),
            eps=_checks.not_negative,
            num_classes=_checks.optional_count,
            time_axis=_checks.integer,
        )

    def __call__(self, spikes: Array, *, where: Any = None, lengths: Any = None) -> Array:
        """Return the prediction."""
        return self.predict(spikes, where=where, lengths=lengths)

    def forward(self, spikes: Array, *, where: Any = None, lengths: Any = None) -> Array:
        """Return the prediction: the same as calling it."""
        return self.predict(spikes, where=where, lengths=lengths)

    def rate(self, spikes: Array, *, where: Any = None, lengths: Any = None) -> Array:
        """Return the rates, in spikes per time step.

        Parameters
        ----------
        spikes : array
            ``[batch, *space, time]``, with the time axis at `time_axis`.
        where, lengths : array or sequence, optional
            The mask, as for the losses. The rate is over the unmasked steps, and 0 if there are
            none; in a moving window masked steps are silent.

        Returns
        -------
        array
            ``[batch, class]``; with a window, with a time axis where the spikes have it.

        Raises
        ------
        ValueError, TypeError
            If `spikes` is not an array of real numbers with at least three axes, if `num_classes`
            does not divide the number of neurons, or if a mask does not fit.
        """
        prepared, rate, _ = self._rate(spikes, where, lengths)
        return self._in_layout(prepared, rate)

    def confidence(self, spikes: Array, *, where: Any = None, lengths: Any = None) -> Array:
        """Return the confidence in each class, by `mode`, in the shape of the rates."""
        prepared, rate, logit = self._rate(spikes, where, lengths)
        xp = prepared.library.xp
        if self.mode == "probability":
            confidence = rate / (xp.sum(rate, axis=CLASS, keepdims=True) + self.eps)
        else:
            logit = logit - xp.max(logit, axis=CLASS, keepdims=True)
            total = xp.sum(xp.exp(logit), axis=CLASS, keepdims=True)
            logarithmic = self.mode == "logsoftmax"
            confidence = logit - xp.log(total) if logarithmic else xp.exp(logit) / total
        return self._in_layout(prepared, confidence)

    def predict(self, spikes: Array, *, where: Any = None, lengths: Any = None) -> Array:
        """Return the index of the class with the highest rate, or of the first one of them.

        The shape is that of the rates without their class axis. If all is masked it is 0.
        """
        prepared, _, logit = self._rate(spikes, where, lengths)
        return self._in_layout(prepared, prepared.library.xp.argmax(logit, axis=CLASS))

    def _rate(self, spikes: Array, where: Any, lengths: Any) -> tuple[PreparedInput, Array, Array]:
        """Return the rates, and again with minus infinity for masked classes."""
        prepared = prepare_input(
            spikes,
            where,
            lengths,
            time_axis=self.time_axis,
            smallest_rank=3,
            by_class=True,
            argument="spikes",
        )
        library, layout = prepared.library, prepared.layout
        values, mask = prepared.values, prepared.mask
        classes = layout.classes(self.num_classes)
        number = 1
        if classes != layout.neurons:
            group = readouts.population(library, values, mask, classes, per_step=True)
            values, mask, number = group.values, group.mask, group.number
        first = layout.time_axis == 0
        reading, _ = readouts.rate(library, values, self.time_window, mask, time_first=first)
        rate = logit = reading.u if number == 1 else reading.u / number
        if reading.mask is not None and reading.mask.shape[CLASS] > 1:
            xp = library.xp
            some = xp.any(reading.mask, axis=CLASS, keepdims=True)
            logit = xp.where(reading.mask | ~some, rate, -math.inf)
        return prepared, rate, logit

    def _in_layout(self, prepared: PreparedInput, x: Array) -> Array:
        if self.time_window is None:
            return x
        in_layout: Array = prepared.layout.time_as_in_input(prepared.library, x)
        return in_layout


@dataclass(frozen=True)
class Rate(_Classifier):
    """Classify by the rates over all of time.

    Parameters
    ----------
    mode : {"probability", "softmax", "logsoftmax"}, default "probability"
        The result of `confidence`: the normalised rates, their softmax, or its logarithm.
    eps : float, default 1e-6
        Added to the sum of rates, so that the confidence of silence is 0.
    num_classes : int, optional
        The number of classes, each the mean of a group of neighbouring neurons. Without it each
        neuron is a class.
    time_axis : int, default -1
        The axis of the spikes that is time.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is outside its range or of the wrong kind.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> sx.Rate()(np.asarray([[[1, 0, 1, 1], [0, 0, 1, 0]]]))
    array([0])
    """

    _: KW_ONLY
    mode: str = "probability"
    eps: float = EPSILON
    num_classes: int | None = None
    time_axis: int = -1

    time_window = None


@dataclass(frozen=True)
class MovingWindow(_Classifier):
    """Classify at every time step, by the rates in a moving window.

    Parameters
    ----------
    time_window : int
        Length of the window, in time steps.
    mode : {"probability", "softmax", "logsoftmax"}, default "probability"
        The result of `confidence`: the normalised rates, their softmax, or its logarithm.
    eps : float, default 1e-6
        Added to the sum of rates, so that the confidence of silence is 0.
    num_classes : int, optional
        The number of classes, each the mean of a group of neighbouring neurons. Without it each
        neuron is a class.
    time_axis : int, default -1
        The time axis of the spikes, and of the results.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is outside its range or of the wrong kind.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> sx.MovingWindow(2)(np.asarray([[[1, 0, 0, 0], [0, 0, 1, 1]]]))
    array([[0, 0, 1, 1]])
    """

    time_window: int
    mode: str = "probability"
    eps: float = EPSILON
    _: KW_ONLY
    num_classes: int | None = None
    time_axis: int = -1

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.check_fields(self, time_window=_checks.count)
