"""Classifiers: which class spike trains stand for, and how sure that is."""

from dataclasses import KW_ONLY, dataclass

from spikeloss_xp import _arrays, _checks, _dispatch, readouts
from spikeloss_xp._layout import CLASS, Layout
from spikeloss_xp._typing import Array, Namespace
from spikeloss_xp.criteria import EPSILON

MODES = ("probability", "softmax", "logsoftmax")


class _Classifier:
    time_window: int | None
    mode: str
    eps: float
    time_axis: int

    def __post_init__(self) -> None:
        _checks.one_of(MODES, self.mode, "mode")
        object.__setattr__(self, "eps", _checks.not_negative(self.eps, "eps"))
        object.__setattr__(self, "time_axis", _checks.integer(self.time_axis, "time_axis"))

    def __call__(self, spikes: Array) -> Array:
        """Return the prediction."""
        return self.predict(spikes)

    def forward(self, spikes: Array) -> Array:
        """Return the prediction: the same as calling it."""
        return self.predict(spikes)

    def rate(self, spikes: Array) -> Array:
        """Return the rates, in spikes per time step.

        Parameters
        ----------
        spikes : array
            ``[batch, *space, time]``, with time where `time_axis` says.

        Returns
        -------
        array
            ``[batch, class]``, and with a window a time axis where the spikes have it.

        Raises
        ------
        ValueError, TypeError
            If `spikes` is not an array of real numbers with at least three axes.
        """
        xp, layout, rate = self._rate(spikes)
        return self._natural(xp, layout, rate)

    def confidence(self, spikes: Array) -> Array:
        """Return the confidence in each class, as `mode` says, in the shape of the rates."""
        xp, layout, rate = self._rate(spikes)
        if self.mode == "probability":
            confidence = rate / (xp.sum(rate, axis=CLASS, keepdims=True) + self.eps)
        else:
            logit = rate - xp.max(rate, axis=CLASS, keepdims=True)
            total = xp.sum(xp.exp(logit), axis=CLASS, keepdims=True)
            logarithmic = self.mode == "logsoftmax"
            confidence = logit - xp.log(total) if logarithmic else xp.exp(logit) / total
        return self._natural(xp, layout, confidence)

    def predict(self, spikes: Array) -> Array:
        """Return the index of the class with the highest rate, the first of several.

        The shape is that of the rates without their class axis.
        """
        xp, layout, rate = self._rate(spikes)
        return self._natural(xp, layout, xp.argmax(rate, axis=CLASS))

    def _rate(self, spikes: Array) -> tuple[Namespace, Layout, Array]:
        xp = _dispatch.namespace(spikes, "spikes")
        layout = Layout.of(spikes, self.time_axis, smallest_rank=3)
        spikes, _ = _arrays.floating(xp, spikes, "spikes")
        by_class, _ = layout.batch_class_time(xp, spikes)
        reading, _ = readouts.rate(xp, by_class, self.time_window)
        return xp, layout, reading.u

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
    time_axis: int = -1

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "time_window", _checks.count(self.time_window, "time_window"))
