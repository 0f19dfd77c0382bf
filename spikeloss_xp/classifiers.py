"""Classifiers: which class spike trains stand for, and how sure that is."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any

from spikeloss_xp import _arrays, _checks, _dispatch, _masks, readouts
from spikeloss_xp._layout import CLASS, Layout
from spikeloss_xp._typing import Array, Namespace
from spikeloss_xp.criteria import EPSILON

MODES = ("probability", "softmax", "logsoftmax")


class _Classifier:
    time_window: int | None
    mode: str
    eps: float
    num_classes: int | None
    time_axis: int

    def __post_init__(self) -> None:
        _checks.one_of(MODES, self.mode, "mode")
        object.__setattr__(self, "eps", _checks.not_negative(self.eps, "eps"))
        number = _checks.optional_count(self.num_classes, "num_classes")
        object.__setattr__(self, "num_classes", number)
        object.__setattr__(self, "time_axis", _checks.integer(self.time_axis, "time_axis"))

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
            ``[batch, *space, time]``, with time where `time_axis` says.
        where, lengths : array or sequence, optional
            What of the spikes counts, as for the losses. The rate is that of the steps that do,
            and 0 if none does; in a moving window the others are silent.

        Returns
        -------
        array
            ``[batch, class]``, and with a window a time axis where the spikes have it.

        Raises
        ------
        ValueError, TypeError
            If `spikes` is not an array of real numbers with at least three axes, if `num_classes`
            does not divide the number of neurons, or if a mask does not fit.
        """
        xp, layout, rate, _ = self._rate(spikes, where, lengths)
        return self._natural(xp, layout, rate)

    def confidence(self, spikes: Array, *, where: Any = None, lengths: Any = None) -> Array:
        """Return the confidence in each class, as `mode` says, in the shape of the rates."""
        xp, layout, rate, logit = self._rate(spikes, where, lengths)
        if self.mode == "probability":
            confidence = rate / (xp.sum(rate, axis=CLASS, keepdims=True) + self.eps)
        else:
            logit = logit - xp.max(logit, axis=CLASS, keepdims=True)
            total = xp.sum(xp.exp(logit), axis=CLASS, keepdims=True)
            logarithmic = self.mode == "logsoftmax"
            confidence = logit - xp.log(total) if logarithmic else xp.exp(logit) / total
        return self._natural(xp, layout, confidence)

    def predict(self, spikes: Array, *, where: Any = None, lengths: Any = None) -> Array:
        """Return the index of the class with the highest rate, the first of several.

        The shape is that of the rates without their class axis. Where nothing counts it is 0.
        """
        xp, layout, _, logit = self._rate(spikes, where, lengths)
        return self._natural(xp, layout, xp.argmax(logit, axis=CLASS))

    def _rate(
        self, spikes: Array, where: Any, lengths: Any
    ) -> tuple[Namespace, Layout, Array, Array]:
        """Return the rates, and again with minus infinity for classes that cannot be chosen."""
        xp = _dispatch.namespace(spikes, "spikes")
        layout = Layout.of(spikes, self.time_axis, smallest_rank=3)
        spikes, _ = _arrays.floating(xp, spikes, "spikes")
        spikes, kept, _ = _masks.masked(xp, layout, spikes, where, lengths)
        spikes, kept, _ = _masks.by_class(xp, layout, spikes, kept)
        classes = layout.classes(self.num_classes)
        if classes != layout.neurons:
            spikes, kept, *_ = readouts.population(xp, spikes, kept, classes, per_step=True)
        first = layout.time_axis == 0
        reading, _ = readouts.rate(xp, spikes, self.time_window, kept, time_first=first)
        rate = logit = reading.u
        if reading.kept is not None and reading.kept.shape[CLASS] > 1:
            some = xp.any(reading.kept, axis=CLASS, keepdims=True)
            lowest = _arrays.constant(xp, rate, -math.inf)
            logit = xp.where(reading.kept | ~some, rate, lowest)
        return xp, layout, rate, logit

    def _natural(self, xp: Namespace, layout: Layout, x: Array) -> Array:
        return x if self.time_window is None else layout.natural(xp, x)[0]


@dataclass(frozen=True)
class Rate(_Classifier):
    """Classify by the rates over all of time.

    Parameters
    ----------
    mode : {"probability", "softmax", "logsoftmax"}, default "probability"
        What `confidence` returns: the normalised rates, their softmax, or the logarithm of that.
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
        What `confidence` returns: the normalised rates, their softmax, or the logarithm of that.
    eps : float, default 1e-6
        Added to the sum of rates, so that the confidence of silence is 0.
    num_classes : int, optional
        The number of classes, each the mean of a group of neighbouring neurons. Without it each
        neuron is a class.
    time_axis : int, default -1
        The axis of the spikes that is time. What is returned has time there too.

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
        object.__setattr__(self, "time_window", _checks.count(self.time_window, "time_window"))
