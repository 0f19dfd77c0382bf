"""SpikeMoid: binary cross-entropy for multi-label classification."""

from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar

from spikeloss_xp import _checks, criteria
from spikeloss_xp._input.labels import Labels
from spikeloss_xp._input.prepared import Reading
from spikeloss_xp._input.targets import MULTI_HOT, Target
from spikeloss_xp._typing import Array, PerClass, Readout, ValueAndPullback
from spikeloss_xp.losses.classes import ClassLoss, check_readout


@dataclass(frozen=True)
class SpikeMoid(ClassLoss):
    r"""Binary cross-entropy between multi-hot labels and the sigmoid of the rates.

    .. math::
        L = -\sum_{b, c} \bigl( v_c \, y \log p + (1 - y) \log(1 - p) \bigr), \qquad
        p = \sigma\Bigl(\frac{r - \theta}{\alpha}\Bigr)

    where :math:`r` are the firing rates or another quantity that `readout` names. The label
    :math:`y` is 1 for each class that is present, and 0 for each class that is absent. With a
    moving window, the loss has a term for each time step. The formula shows the sum of the terms,
    which is the result with ``reduction="sum"``. By default, the loss is the mean of the terms.

    Parameters
    ----------
    time_axis : int
        The time axis of `input`: 0 for ``[time, batch, class]``, and -1 for
        ``[batch, class, time]``. If the target or the array of terms has a time axis, its axes have
        the same order as the axes of `input`.
    readout : {"rate", "count", "max", "last"}, default "rate"
        The quantity that is computed for each neuron: its firing rate, its spike count, or the
        maximum or last value of its membrane potential.
    moving_window : int, optional
        The length of the moving window, in time steps. Without a window, rates and counts are
        computed over all time steps.
    reduction : {"mean", "sum", "batchmean", "none"}, default "mean"
        How the terms of the loss are reduced to a result. ``"mean"`` returns the mean of the terms,
        ``"sum"`` returns their sum, and ``"batchmean"`` returns their sum divided by the number of
        samples. ``"none"`` returns all terms. With ``reduction="none"``, the result has shape
        ``[batch, class]``, or ``[batch, class, time]`` if there is a window.
    num_classes : int, optional
        The number of classes. The neurons are divided into `num_classes` groups of neighbouring
        neurons. Each group represents one class, and the loss averages over the neurons of the
        group. By default, each neuron represents one class.
    alpha : float
        The temperature :math:`\alpha` by which :math:`r - \theta` is divided, from 1e-6 to 1e18.
        The temperature has the same unit as :math:`r`, which is spikes per time step for firing
        rates.
    theta : float
        The value :math:`\theta` of :math:`r` at which the probability of a class is 1/2. For firing
        rates, choose a number between the rates of silent and active neurons, such as ``theta=0.2``
        with ``alpha=0.1``.
    pos_weight : float or sequence of float, default 1
        The factor :math:`v_c` by which :math:`y \log p` is multiplied, as in
        `torch.nn.BCEWithLogitsLoss` (at least 0). With a factor above 1, positive labels have more
        weight than negative labels. Pass one number for all classes, or a sequence with one number
        for each class. With ``reduction="mean"``, the factor does not affect the number by which
        the sum of the terms is divided.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is out of range or has the wrong type.

    Notes
    -----
    `input` has shape ``[batch, *space, time]``. The spatial axes are flattened into one class axis.
    `target` holds bools, or floats between 0 and 1. The shape of `target` is ``[batch, class]``.
    With a window, the shape may also be ``[batch, class, time]``.

    References
    ----------
    .. [1] S. B. Shrestha, L. Zhu and P. Sun, "Spikemax: Spike-based loss methods for
       classification", IJCNN 2022.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> spikes = np.asarray([[[1, 0, 1, 1], [0, 0, 1, 0]]])  # [batch, class, time]
    >>> loss = sx.SpikeMoid(time_axis=-1, alpha=0.25, theta=0.5)
    >>> float(loss(spikes, [[True, False]]).round(3))
    0.313
    """

    _: KW_ONLY
    readout: Readout = _checks.option("rate", check_readout)
    alpha: float = field(metadata=_checks.checked_by(_checks.scale))
    theta: float = field(metadata=_checks.checked_by(_checks.number))
    pos_weight: PerClass = _checks.option(1.0, _checks.one_or_more(_checks.not_negative))

    ignore_index: ClassVar[None] = None  # type: ignore[misc]
    targets: ClassVar[tuple[Target, ...]] = (MULTI_HOT,)
    _shields_masked: ClassVar[bool] = False
    _per_class: ClassVar[tuple[str, ...]] = ("pos_weight",)

    def score(self, reading: Reading) -> Array:
        """Return the logits of the classes. A class is predicted if its logit is above 0."""
        return (reading.u - self.theta) / self.alpha

    def criterion(self, reading: Reading, labels: Labels) -> ValueAndPullback:
        """Return the binary cross-entropy of each class."""
        adapter, target, logit = reading.adapter, labels.numbers, self.score(reading)
        weight = None if self.pos_weight == 1 else reading.per_class(self.pos_weight)
        terms, to_logit = criteria.binary_cross_entropy(adapter, logit, target, weight)
        return terms, lambda cotangent: to_logit(cotangent) / self.alpha
