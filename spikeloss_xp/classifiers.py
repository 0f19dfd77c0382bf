"""Classifiers that predict the class of spike trains and return the confidence in each class."""

import math
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from spikeloss_xp import _checks
from spikeloss_xp._input.prepared import Prepared, prepare_input
from spikeloss_xp._typing import ArrayT, ConfidenceMode, OptionalArray
from spikeloss_xp.criteria import EPSILON
from spikeloss_xp.predictions import ClassScores, Predictor
from spikeloss_xp.readouts import Trains, read_classes

__all__ = ["MovingWindow", "Rate"]

MODES = get_args(ConfidenceMode)


class Classifier(_checks.Checked, Predictor):
    """Base class for classifiers that predict the class with the highest rate."""

    window: int | None = None
    mode: str
    eps: float
    time_axis: int

    if TYPE_CHECKING:
        __call__ = forward = Predictor.predict
    else:  # `predict` is looked up at each call because a subclass may override it

        def __call__(self, input, **masks):
            """Return the predicted class, as `predict` does."""
            return self.predict(input, **masks)

        forward = __call__

    def _prepare_input(self, input: Any, where: Any, lengths: Any, context: int = 0) -> Prepared:
        return prepare_input(input, where, lengths, self.time_axis, num_classes=self.num_classes)

    def _scores(self, prepared: Prepared, per_step: bool) -> ClassScores:
        """Return the rates of the classes, at each step if there is a moving window."""
        window = self.window
        trains = Trains.of(prepared, prepared.values, prepared.mask)
        reading, _ = read_classes(trains, "rate", window, self.num_classes)
        return ClassScores(prepared, reading.u, reading.mask, window is not None)

    def rate(
        self, input: ArrayT, *, where: OptionalArray = None, lengths: OptionalArray = None
    ) -> ArrayT:
        """Return the rate of each class, in spikes per time step.

        Parameters
        ----------
        input : array
            The spikes, ``[batch, *space, time]``, with the time axis at `time_axis`.
        where, lengths : array or sequence, optional
            The mask, in the same form as for a loss. The rate is the mean over the unmasked steps,
            or 0 if all steps are masked. In a moving window, masked steps are treated as silent.

        Returns
        -------
        array
            The rates, ``[batch, class]``. With a moving window, they also have a time axis, at the
            same position as in `input`.

        Raises
        ------
        ValueError, TypeError
            If `input` is not an array of real numbers with at least three axes, if `num_classes`
            does not divide the number of neurons, or if a mask has the wrong shape or dtype.
        """
        scores = self._read_scores(input, where, lengths, False)
        rate: ArrayT = scores.result(scores.values)
        return rate

    def confidence(
        self, input: ArrayT, *, where: OptionalArray = None, lengths: OptionalArray = None
    ) -> ArrayT:
        """Return the confidence in each class, as defined by `mode`.

        The result has the same shape as the result of `rate`.
        """
        scores = self._read_scores(input, where, lengths, False)
        xp, rate, classes = scores.prepared.adapter.xp, scores.values, scores.classes
        if self.mode == "probability":
            rate = xp.where(scores.of_classes() == -math.inf, 0.0, rate)  # masked classes
            share = rate / (classes.sum(rate) + self.eps)
        else:
            logit = scores.of_classes()
            logit = logit - classes.max(logit)
            total = classes.sum(xp.exp(logit))
            logarithmic = self.mode == "logsoftmax"
            share = logit - xp.log(total) if logarithmic else xp.exp(logit) / total
        confidence: ArrayT = scores.result(share)
        return confidence


@dataclass(frozen=True)
class Rate(Classifier):
    """Classify spike trains by their rates over the whole duration.

    Parameters
    ----------
    time_axis : int
        The time axis of the spikes: 0 for ``[time, batch, class]``, and -1 for
        ``[batch, class, time]``.
    mode : {"probability", "softmax", "logsoftmax"}, default "probability"
        What `confidence` returns: the normalised rates, the softmax of the rates, or the logarithm
        of the softmax.
    eps : float, default 1e-6
        A number added to the sum of the rates, so that the confidence is 0 if all neurons are
        silent. `eps` is used only in ``"probability"`` mode.
    num_classes : int, optional
        The number of classes. The rate of a class is the mean rate of a group of neighbouring
        neurons. By default, each neuron is a class.
    ignore_index : int, default -100
        The label of samples or steps that `accuracy` and `confusion` ignore.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is out of range or has the wrong type.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> sx.classifiers.Rate(time_axis=-1)(np.asarray([[[1, 0, 1, 1], [0, 0, 1, 0]]]))
    array([0])
    """

    _: KW_ONLY
    time_axis: int = field(metadata=_checks.checked_by(_checks.integer))
    mode: ConfidenceMode = _checks.option("probability", _checks.one_of(MODES))
    eps: float = _checks.option(EPSILON, _checks.not_negative)
    num_classes: int | None = _checks.option(None, _checks.optional_count)
    ignore_index: int = _checks.option(-100, _checks.label)


@dataclass(frozen=True)
class MovingWindow(Classifier):
    """Classify spike trains at each time step by their rates in a moving window.

    Parameters
    ----------
    window : int
        The length of the window, in time steps.
    mode : {"probability", "softmax", "logsoftmax"}, default "probability"
        What `confidence` returns: the normalised rates, the softmax of the rates, or the logarithm
        of the softmax.
    eps : float, default 1e-6
        A number added to the sum of the rates, so that the confidence is 0 if all neurons are
        silent. `eps` is used only in ``"probability"`` mode.
    time_axis : int
        The time axis of the spikes and of the results: 0 for ``[time, batch, class]``, and -1 for
        ``[batch, class, time]``.
    num_classes : int, optional
        The number of classes. The rate of a class is the mean rate of a group of neighbouring
        neurons. By default, each neuron is a class.
    ignore_index : int, default -100
        The label of samples or steps that `accuracy` and `confusion` ignore.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is out of range or has the wrong type.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> spikes = np.asarray([[[1, 0, 0, 0], [0, 0, 1, 1]]])
    >>> sx.classifiers.MovingWindow(2, time_axis=-1)(spikes)
    array([[0, 0, 1, 1]])
    """

    window: int = field(metadata=_checks.checked_by(_checks.count))
    mode: ConfidenceMode = _checks.option("probability", _checks.one_of(MODES))
    eps: float = _checks.option(EPSILON, _checks.not_negative)
    _: KW_ONLY
    time_axis: int = field(metadata=_checks.checked_by(_checks.integer))
    num_classes: int | None = _checks.option(None, _checks.optional_count)
    ignore_index: int = _checks.option(-100, _checks.label)

    per_step: ClassVar[bool] = True
