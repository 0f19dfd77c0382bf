"""SpikeMoid: an independent yes or no for each class (multi-label)."""

import warnings
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from spikeloss_xp import _checks, criteria, readouts
from spikeloss_xp._input.labels import MULTI_HOT, Labels
from spikeloss_xp._typing import Array, Numerics, PerClass, Readout, Reduction, ValueAndPullback
from spikeloss_xp.losses.classes import NUMERICS, ReadsClasses
from spikeloss_xp.predictions import BinaryScores, ClassScores
from spikeloss_xp.readouts import Reading


@dataclass(frozen=True)
class SpikeMoid(ReadsClasses):
    r"""Binary cross-entropy between multi-hot labels and the sigmoid of the rates.

    .. math::
        L = -\sum_{b, c} \bigl( v_c \, y \log p + (1 - y) \log(1 - p) \bigr), \qquad
        p = \sigma\Bigl(\frac{r - \theta}{\alpha}\Bigr)

    with the rates :math:`r` of `SpikeRate`. With a moving window the sum is over the steps too.

    Parameters
    ----------
    moving_window : int, optional
        Length of the moving window, in time steps. By default the rate is over the whole duration.
    reduction : {"sum", "mean", "batchmean", "none"}, default "sum"
        Return the sum of the terms, their mean, their sum divided by the number of samples, or the
        terms: ``[batch, class]``, or ``[batch, class, time]`` with a window.
    alpha : float, default 1
        Temperature :math:`\alpha`, in the unit of the reading, which for rates is spikes per time
        step; above 0.
    theta : float, default 0
        The reading :math:`\theta`, in the same unit, at which the probability of a class is 1/2.
        Leaving it out warns if rates or counts are read: they are never below 0.
    readout : {"rate", "count", "max", "last"}, default "rate"
        The reading of a neuron: its rate, its number of spikes, or the largest or the last value
        of a membrane potential.
    pos_weight : float or sequence of float, default 1
        The factor :math:`v_c` of the first logarithm, as in `torch.nn.BCEWithLogitsLoss`: the
        weight of the positive labels of class `c` against its negative ones; at least 0. A number
        for all classes, or a sequence of one for each. A mean does not divide by it. It must be 1
        with ``numerics="lava"``.
    numerics : {"stable", "lava"}, default "stable"
        ``"lava"`` returns the published value, 100 with gradient 0, if `p` rounds to 0 or 1.
    num_classes : int, optional
        The number of classes. Each class is the mean of a group of neighbouring neurons. By default
        each neuron is a class.
    time_axis : int, default -1
        The axis of `input` that is time. Targets and terms with a time axis have it there too.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is outside its range or of the wrong type.

    Notes
    -----
    `input` has shape ``[batch, *space, time]``. The space axes are flattened to one class axis.
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
    reduction: Reduction = "sum"
    alpha: float = 1
    theta: float | None = None
    _: KW_ONLY
    readout: Readout = "rate"
    pos_weight: PerClass = 1.0
    numerics: Numerics = "stable"
    num_classes: int | None = None
    time_axis: int = -1

    ignore_index: ClassVar[None] = None  # type: ignore[misc]
    targets: ClassVar[tuple[str, ...]] = (MULTI_HOT,)
    _scores_of: ClassVar[type[ClassScores]] = BinaryScores
    _by_class: ClassVar[tuple[str, ...]] = ("pos_weight",)

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.check_fields(
            self,
            alpha=_checks.scale,
            theta=_checks.optional(_checks.number),
            pos_weight=_checks.one_or_more(_checks.not_negative),
            numerics=_checks.one_of(NUMERICS),
        )
        if self.theta is None:
            if self.readout in readouts.WINDOWED:
                warnings.warn(
                    "SpikeMoid has theta=0, and no rate is below it: every class is more probable "
                    "than not, silent ones too, and hardly any network learns. Pass a theta "
                    "between the rates of silent and of active neurons, such as theta=0.2 with "
                    "alpha=0.1. An explicit theta=0 does not warn.",
                    UserWarning,
                    stacklevel=3,
                )
            object.__setattr__(self, "theta", 0.0)
        if self.numerics == "lava" and self.pos_weight != 1:
            raise ValueError(
                "the published loss has no pos_weight: it needs numerics='stable'; got "
                f"pos_weight={self.pos_weight} with numerics='lava'"
            )

    def score(self, reading: Reading) -> Array:
        """Return the logits of the classes, each of which is predicted if its logit is above 0."""
        return (reading.u - (self.theta or 0.0)) / self.alpha

    def criterion(self, reading: Reading, labels: Labels) -> ValueAndPullback:
        """Return the binary cross-entropies."""
        adapter, target, logit = reading.adapter, labels.numbers, self.score(reading)
        if self.numerics == "lava":
            terms, to_logit = criteria.binary_cross_entropy_as_published(adapter, logit, target)
        elif self.pos_weight == 1:
            terms, to_logit = criteria.binary_cross_entropy(adapter, logit, target)
        else:
            weight = reading.per_class(self.pos_weight)
            terms, to_logit = criteria.weighted_binary_cross_entropy(adapter, logit, target, weight)
        return terms, lambda cotangent: to_logit(cotangent) / self.alpha
