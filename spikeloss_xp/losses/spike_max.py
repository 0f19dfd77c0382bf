"""SpikeMax: the labelled class should fire most."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any

from spikeloss_xp import _arrays, _checks, criteria, readouts
from spikeloss_xp._layout import CLASS, Layout
from spikeloss_xp._targets import Labels
from spikeloss_xp._typing import Array, Namespace, Pullback
from spikeloss_xp.losses._rate_loss import NUMERICS, RateLoss
from spikeloss_xp.readouts import Reading

MODES = ("probability", "softmax")


@dataclass(frozen=True)
class SpikeMax(RateLoss):
    r"""Negative log-likelihood of the label, for classes as probable as their rates say.

    .. math::
        L = -\sum_b \log p_{b, y_b}, \qquad
        p_c = \frac{r_c}{\sum_{c'} r_{c'} + 10^{-6}} \quad \text{or} \quad
        p_c = \frac{e^{r_c}}{\sum_{c'} e^{r_{c'}}}

    with the rates of `SpikeRate`, over all of time or, summed over time, in a moving window.

    Parameters
    ----------
    moving_window : int, optional
        Length of the moving window, in time steps. Without one the rate is over all of time.
    mode : {"probability", "softmax"}, default "probability"
        Probabilities are the rates, normalised, or their softmax.
    reduction : {"sum", "mean", "batchmean", "none"}, default "sum"
        Add the terms; average them; divide their sum by the number of samples; or return them:
        ``[batch]``, or ``[batch, time]`` with a window.
    readout : {"rate", "count", "max", "last"}, default "rate"
        What is read of a neuron: its rate, its number of spikes, or of a membrane potential the
        largest or the last, over all of time. Potentials are logits, and need the softmax mode.
    temperature : float, default 1
        What the logits of the softmax mode are divided by, in units of what is read; above 0. The
        other mode has none.
    label_smoothing : float, default 0
        The part of a label that is spread evenly over all classes; at least 0 and below 1. The
        published numerics have none.
    pseudo_count : float, default 0.5
        How many spikes :math:`a` of the labelled neuron are few enough for the logarithm to go on
        along its tangent; above 0. Of no effect in the softmax mode.
    numerics : {"stable", "lava"}, default "stable"
        ``"lava"`` gives the published values where the labelled neuron is silent too: infinity.
    num_classes : int, optional
        The number of classes, each a group of as many neighbouring neurons, which it is the mean
        of. Without it each neuron is a class.
    ignore_index : int, default -100
        The class index of a sample, or step, that is left out.
    time_axis : int, default -1
        The axis of `input` that is time. Labels and terms that have time have it there too.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is outside its range or of the wrong kind.

    Notes
    -----
    `input` has shape ``[batch, *space, time]``, where space is collapsed into one class axis.
    `target` holds class indices: integers of shape ``[batch]`` or, with a window,
    ``[batch, time]``. An index that is no class raises where values can be read for free, and
    makes the loss NaN elsewhere (on a GPU, in a traced function).

    Below a rate of :math:`r_0 = a / T` (with a window :math:`a / W`, of counts :math:`a`, with
    `num_classes` divided by the number of neurons of a class) of the labelled neuron, where
    :math:`-\log r` would go to infinity, the missing part :math:`d = r_0 - r_y` is given to every
    class, and the term is
    :math:`-\log r_0 + d / r_0 + \log(\sum r + 10^{-6} + C d)`. With the default no binary spike
    train has such a rate but 0: for all others the value is the published one. The gradient is
    finite everywhere, and pushes a silent labelled neuron to fire.

    References
    ----------
    .. [1] S. B. Shrestha, L. Zhu and P. Sun, "Spikemax: Spike-based loss methods for
       classification", IJCNN 2022.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> spikes = np.asarray([[[1, 0, 1, 1], [0, 0, 1, 0]]])  # one sample, two classes, four steps
    >>> float(sx.SpikeMax()(spikes, [0]).round(3))  # -log(3 / 4)
    0.288
    """

    moving_window: int | None = None
    mode: str = "probability"
    reduction: str = "sum"
    _: KW_ONLY
    readout: str = "rate"
    temperature: float = 1.0
    label_smoothing: float = 0.0
    pseudo_count: float = 0.5
    numerics: str = "stable"
    num_classes: int | None = None
    ignore_index: int = -100
    time_axis: int = -1

    def __post_init__(self) -> None:
        self._check(
            temperature=_checks.scale,
            label_smoothing=_checks.fraction,
            pseudo_count=_checks.scale,
            ignore_index=_checks.integer,
        )
        _checks.one_of(MODES, self.mode, "mode")
        _checks.one_of(NUMERICS, self.numerics, "numerics")
        if self.mode == "probability" and self.readout in readouts.WHOLE:
            raise ValueError(
                f"readout={self.readout!r} reads potentials, which are logits: it needs "
                f"mode='softmax'; got mode={self.mode!r}"
            )
        if self.mode == "probability" and self.temperature != 1:
            raise ValueError(
                f"temperature is that of a softmax: it needs mode='softmax'; got "
                f"temperature={self.temperature} with mode={self.mode!r}"
            )
        if self.numerics == "lava" and self.label_smoothing:
            raise ValueError(
                f"the published loss has no label_smoothing: it needs numerics='stable'; got "
                f"label_smoothing={self.label_smoothing} with numerics='lava'"
            )

    def _target(
        self, xp: Namespace, layout: Layout, spikes: Array, kept: Array | None, target: Any
    ) -> Labels:
        return self._class_labels(xp, layout, spikes, kept, target)

    def _counted(self, xp: Namespace, kept: Array | None, labels: Labels) -> Array | None:
        if kept is not None and kept.shape[CLASS] > 1:  # a sample needs the neuron of its label
            own = labels.hot if labels.valid is None else labels.hot | ~labels.valid
            kept = xp.any(own & kept, axis=CLASS, keepdims=True)
        return super()._counted(xp, kept, labels)

    def _criterion(self, xp: Namespace, reading: Reading, wanted: Labels) -> tuple[Array, Pullback]:
        among, counted = reading.kept, reading.counted
        if among is not None and counted is not None and among.shape[CLASS] > 1:
            among = among | ~counted  # where there is no term, it is to be finite all the same
        else:
            among = None
        if self.label_smoothing:
            return self._smoothed(xp, reading, wanted, among)
        return criteria.weighted(*self._hard(xp, reading, wanted, among), wanted.amount)

    def _hard(
        self, xp: Namespace, reading: Reading, labels: Labels, among: Array | None
    ) -> tuple[Array, Pullback]:
        known = labels.hot, labels.valid
        if self.mode == "softmax":
            logit, to_u = self._logit(reading)
            terms, to_logit = criteria.cross_entropy_of_logits(xp, logit, *known, among)
            return terms, lambda cotangent: to_u(to_logit(cotangent))
        if self.numerics == "lava":
            return criteria.cross_entropy_of_rates_as_published(xp, reading.u, *known, among)
        few = self.pseudo_count * reading.spike
        return criteria.cross_entropy_of_rates(xp, reading.u, *known, few, among)

    def _smoothed(
        self, xp: Namespace, reading: Reading, labels: Labels, among: Array | None
    ) -> tuple[Array, Pullback]:
        """Return the terms of all labels, mixed as the smoothed label is."""
        u = reading.u
        present = xp.ones_like(u) if among is None else xp.astype(among, u.dtype)
        share = self.label_smoothing / xp.sum(present, axis=CLASS, keepdims=True)
        amount = (1 - self.label_smoothing) * xp.astype(labels.hot, u.dtype) + share
        amount = present * amount if labels.weight is None else present * amount * labels.weight
        if labels.valid is not None:
            amount = xp.where(labels.valid, amount, _arrays.constant(xp, u, math.nan))
        if self.mode == "softmax":
            logit, to_u = self._logit(reading)
            terms, to_logit = criteria.smooth_cross_entropy_of_logits(xp, logit, amount, among)
            return terms, lambda cotangent: to_u(to_logit(cotangent))
        few = self.pseudo_count * reading.spike
        return criteria.smooth_cross_entropy_of_rates(xp, u, amount, few, among)

    def _logit(self, reading: Reading) -> tuple[Array, Pullback]:
        if self.temperature == 1:
            return reading.u, lambda cotangent: cotangent
        return reading.u / self.temperature, lambda cotangent: cotangent / self.temperature

    def _natural(self, xp: Namespace, layout: Layout, terms: Array) -> tuple[Array, Pullback]:
        natural, to_terms = super()._natural(xp, layout, xp.squeeze(terms, axis=CLASS))
        return natural, lambda cotangent: xp.expand_dims(to_terms(cotangent), axis=CLASS)
