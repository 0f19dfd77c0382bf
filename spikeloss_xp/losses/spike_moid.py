"""SpikeMoid: each class should fire, or not, on its own account."""

from dataclasses import KW_ONLY, dataclass
from typing import Any

from spikeloss_xp import _arrays, _checks, _targets, criteria
from spikeloss_xp._layout import Layout
from spikeloss_xp._targets import Labels
from spikeloss_xp._typing import Array, Namespace, Pullback
from spikeloss_xp.losses._rate_loss import NUMERICS, RateLoss
from spikeloss_xp.readouts import Reading


@dataclass(frozen=True)
class SpikeMoid(RateLoss):
    r"""Binary cross-entropy between multi-hot labels and the sigmoid of the rates.

    .. math::
        L = -\sum_{b, c} \bigl( y \log p + (1 - y) \log(1 - p) \bigr), \qquad
        p = \sigma\Bigl(\frac{r - \theta}{\alpha}\Bigr)

    with the rates of `SpikeRate`, over all of time or, summed over time, in a moving window.

    Parameters
    ----------
    moving_window : int, optional
        Length of the moving window, in time steps. Without one the rate is over all of time.
    reduction : {"sum", "mean", "batchmean", "none"}, default "sum"
        Add the terms; average them; divide their sum by the number of samples; or return them:
        ``[batch, class]``, or ``[batch, class, time]`` with a window.
    alpha : float, default 1
        Temperature :math:`\alpha`, in units of what is read: for rates, spikes per time step;
        above 0.
    theta : float, default 0
        The rate :math:`\theta`, in the same units, at which a class is as probable as not.
    readout : {"rate", "count", "max", "last"}, default "rate"
        What is read of a neuron: its rate, its number of spikes, or of a membrane potential the
        largest or the last, over all of time.
    numerics : {"stable", "lava"}, default "stable"
        ``"lava"`` gives the published values where `p` rounds to 0 or 1 too: 100, without a
        gradient.
    num_classes : int, optional
        The number of classes, each a group of as many neighbouring neurons, which it is the mean
        of. Without it each neuron is a class.
    time_axis : int, default -1
        The axis of `input` that is time. Labels and terms that have time have it there too.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is outside its range or of the wrong kind.

    Notes
    -----
    `input` has shape ``[batch, *space, time]``, where space is collapsed into one class axis.
    `target` is bool or real floating, between 0 and 1, of shape ``[batch, class]`` or, with a
    window, ``[batch, class, time]``.

    References
    ----------
    .. [1] S. B. Shrestha, L. Zhu and P. Sun, "Spikemax: Spike-based loss methods for
       classification", IJCNN 2022.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> spikes = np.asarray([[[1, 0, 1, 1], [0, 0, 1, 0]]])  # one sample, two classes, four steps
    >>> float(sx.SpikeMoid(alpha=0.25, theta=0.5)(spikes, [[True, False]]).round(3))
    0.627
    """

    moving_window: int | None = None
    reduction: str = "sum"
    alpha: float = 1
    theta: float = 0
    _: KW_ONLY
    readout: str = "rate"
    numerics: str = "stable"
    num_classes: int | None = None
    time_axis: int = -1

    def __post_init__(self) -> None:
        self._check(alpha=_checks.scale, theta=_checks.number)
        _checks.one_of(NUMERICS, self.numerics, "numerics")

    def _target(
        self, xp: Namespace, layout: Layout, spikes: Array, kept: Array | None, target: Any
    ) -> Labels:
        return _targets.multi_hot_labels(
            xp,
            layout,
            spikes,
            kept,
            target,
            classes=layout.classes(self.num_classes),
            per_step=self._has_time,
        )

    def _weigh(self, xp: Namespace, labels: Labels, weights: Array) -> Labels:
        return labels._replace(amount=weights, weight=weights)  # each class has a term of its own

    def _criterion(self, xp: Namespace, reading: Reading, wanted: Labels) -> tuple[Array, Pullback]:
        published = self.numerics == "lava"
        entropy = (
            criteria.binary_cross_entropy_as_published
            if published
            else criteria.binary_cross_entropy
        )
        hot = wanted.hot
        if reading.counted is not None:  # what is not may be NaN
            hot = xp.where(reading.counted, hot, _arrays.constant(xp, hot, 0.0))
        terms, to_logit = entropy(xp, (reading.u - self.theta) / self.alpha, hot)
        return criteria.weighted(
            terms, lambda cotangent: to_logit(cotangent) / self.alpha, wanted.amount
        )
