"""SpikeMax: the labelled class should fire most."""

from dataclasses import KW_ONLY, dataclass
from typing import Any

from spikeloss_xp import _checks, _targets, criteria
from spikeloss_xp._layout import Layout
from spikeloss_xp._typing import Array, Namespace, Pullback
from spikeloss_xp.losses._loss import NUMERICS, RateLoss

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
    reduction : {"sum", "mean", "none"}, default "sum"
        Add the terms, average them, or return them: ``[batch]``, or ``[batch, time]`` with a
        window.
    pseudo_count : float, default 0.5
        How many spikes :math:`a` of the labelled neuron are few enough for the logarithm to go on
        along its tangent; above 0. Of no effect in the softmax mode.
    numerics : {"stable", "lava"}, default "stable"
        ``"lava"`` gives the published values where the labelled neuron is silent too: infinity.
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

    Below a rate of :math:`r_0 = a / T` (or :math:`a / W`) of the labelled neuron, where
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
    pseudo_count: float = 0.5
    numerics: str = "stable"
    time_axis: int = -1

    def __post_init__(self) -> None:
        self._check(moving_window=_checks.optional_count, pseudo_count=_checks.positive)
        _checks.one_of(MODES, self.mode, "mode")
        _checks.one_of(NUMERICS, self.numerics, "numerics")

    def _target(
        self, xp: Namespace, layout: Layout, spikes: Array, target: Any
    ) -> tuple[Array, Array]:
        return _targets.class_labels(
            xp, layout, spikes, target, per_step=self.moving_window is not None
        )

    def _criterion(
        self, xp: Namespace, layout: Layout, u: Array, target: tuple[Array, Array]
    ) -> tuple[Array, Pullback]:
        if self.mode == "softmax":
            return criteria.cross_entropy_of_logits(xp, u, *target)
        if self.numerics == "lava":
            return criteria.cross_entropy_of_rates_as_published(xp, u, *target)
        few = self.pseudo_count / (self.moving_window or layout.steps)
        return criteria.cross_entropy_of_rates(xp, u, *target, few)
