"""Losses that return the values and gradients of lava-dl, for arrays from any library.

The classes `SpikeRate`, `SpikeMax`, `SpikeMoid` and `SparsityEnforcer` have the same options as the
classes with the same names in `spikeloss_xp`. The classes return the values and gradients of
lava-dl 0.6.0, which may differ from the values and gradients of `spikeloss_xp`. The PyTorch modules
in `spikeloss_xp.slayer.loss` use the classes of this module. Importing this module does not import
PyTorch.

For training, use the losses of `spikeloss_xp`. If neurons are silent or saturated, the losses of
this module may be infinite or have a gradient of 0.
"""

import functools
import math
from dataclasses import KW_ONLY, dataclass, fields

import numpy as np

from spikeloss_xp import criteria, losses
from spikeloss_xp._arrays import Adapter
from spikeloss_xp._checks import number, option, scale
from spikeloss_xp._input.labels import Labels
from spikeloss_xp._input.prepared import Reading, Trains
from spikeloss_xp._typing import Array, PerClass, ValueAndPullback
from spikeloss_xp.backends._axis import Axis
from spikeloss_xp.criteria import EPSILON, of_class_mask, taking_part
from spikeloss_xp.losses.event_rates import mean_magnitude
from spikeloss_xp.readouts import ReadResult

__all__ = ["SparsityEnforcer", "SpikeMax", "SpikeMoid", "SpikeRate"]

LEAST = float(np.float32(1e-12))  # the smallest divisor in PyTorch's derivative of a term


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__


def only_one(value: PerClass, argument: str) -> PerClass:
    """Return `value` if it is 1, otherwise raise an error."""
    if value != 1:
        raise ValueError(
            f"{argument} must be 1, because the loss of lava-dl has no such weight: use "
            f"spikeloss_xp.SpikeMoid; got {value}"
        )
    return value


class Published:
    """The base class for losses that return the values of lava-dl."""

    def __repr__(self) -> str:
        options = (f"{each.name}={getattr(self, each.name)!r}" for each in fields(self))  # type: ignore[arg-type]
        return f"published.{type(self).__name__}({', '.join(options)})"


@dataclass(frozen=True, repr=False)
class SpikeRate(Published, losses.SpikeRate):
    """The loss `spikeloss_xp.SpikeRate`, but `true_rate` need not be higher than `false_rate`.

    As in lava-dl, `true_rate` may be lower than `false_rate`, or equal to `false_rate`.

    Examples
    --------
    >>> import numpy as np
    >>> from spikeloss_xp.slayer import published
    >>> spikes = np.asarray([[[1, 0, 1, 1], [0, 0, 1, 0]]])  # [batch, class, time]
    >>> float(published.SpikeRate(0.0, 0.5, time_axis=-1)(spikes, [1]))
    0.0625
    """

    def _check_order(self) -> None:
        """Accept all target rates, whichever of them is higher."""


@dataclass(frozen=True, repr=False)
class SpikeMax(Published, losses.SpikeMax):
    """The loss `spikeloss_xp.SpikeMax`, but with the values of lava-dl, which may be infinite.

    With ``mode="probability"``, the loss is infinite if the labelled neuron is silent. The options
    are the same as in `spikeloss_xp.SpikeMax`, but `pseudo_count` has no effect.

    Examples
    --------
    >>> import numpy as np
    >>> from spikeloss_xp.slayer import published
    >>> spikes = np.asarray([[[1, 0, 1, 1], [0, 0, 1, 0]]])  # [batch, class, time]
    >>> float(published.SpikeMax(time_axis=-1)(spikes, [0]).round(3))
    0.288
    """

    def criterion(self, reading: Reading, labels: Labels) -> ValueAndPullback:
        """Return the negative log-probabilities of the labels."""
        if self.mode == "softmax":
            return super().criterion(reading, labels)
        one_hot = labels.one_hot(reading)
        return cross_entropy_of_rates(reading.classes, reading.u, one_hot, reading.class_mask)


@dataclass(frozen=True, repr=False)
class SpikeMoid(Published, losses.SpikeMoid):
    """The loss `spikeloss_xp.SpikeMoid`, but with logarithms of at least -100, as in lava-dl.

    The options are the same as in `spikeloss_xp.SpikeMoid`, with two exceptions. By default,
    `alpha` is 1 and `theta` is 0, as in lava-dl. `pos_weight` must be 1.

    Examples
    --------
    >>> import numpy as np
    >>> from spikeloss_xp.slayer import published
    >>> spikes = np.asarray([[[1, 0, 1, 1], [0, 0, 1, 0]]])  # [batch, class, time]
    >>> loss = published.SpikeMoid(time_axis=-1, alpha=0.25, theta=0.5)
    >>> float(loss(spikes, [[True, False]]).round(3))
    0.313
    """

    _: KW_ONLY
    alpha: float = option(1, scale)
    theta: float = option(0, number)
    pos_weight: PerClass = option(1.0, only_one)

    def criterion(self, reading: Reading, labels: Labels) -> ValueAndPullback:
        """Return the binary cross-entropies."""
        logit = self.score(reading)
        terms, to_logit = binary_cross_entropy(reading.adapter, logit, labels.numbers)
        return terms, lambda cotangent: to_logit(cotangent) / self.alpha


@dataclass(frozen=True, repr=False)
class SparsityEnforcer(Published, losses.SparsityEnforcer):
    """The loss `spikeloss_xp.SparsityEnforcer`, but with a different gradient at silent steps.

    The options are the same as in `spikeloss_xp.SparsityEnforcer`. If the rate is above `max_rate`,
    the derivative of ``|x|`` at ``x = 0`` is defined as 0, as in lava-dl, so silent steps have no
    gradient. If the rate is below `min_rate`, this derivative is defined as 1, because an event at
    a silent step would bring the rate closer to `min_rate`. Events may be graded or negative, and
    no warning is given if their mean magnitude is above 1.

    Examples
    --------
    >>> import numpy as np
    >>> from spikeloss_xp.slayer import published
    >>> float(published.SparsityEnforcer(max_rate=1.0)(np.asarray([[3.0, 0, -1, 0]])))
    0.0
    """

    def _warn_of_unit(self, highest: float) -> None:
        """Give no warning, because the mean magnitude of graded events may be above 1."""

    def _read(self, trains: Trains, labels: Labels) -> ReadResult:
        adapter, axes = trains.adapter, self._averaged_axes(trains)
        options = {"axes": axes, "others": labels.numbers}
        read = functools.partial(mean_magnitude, adapter, trains.values, trains.mask, **options)
        reading, to_values = read(at_silence=False)
        if not self.min_rate:
            return reading, to_values
        return read(at_silence=reading.u < reading.per_class(self.min_rate))


def cross_entropy_of_rates(
    classes: Axis, rate: Array, one_hot: Array, class_mask: Array | None = None
) -> ValueAndPullback:
    """Return ``-log(r_y / (sum(r) + 1e-6))`` with the rate ``r_y`` of the labelled class.

    The result is infinite if ``r_y`` is 0.
    """
    xp = classes.adapter.xp
    _, rate = taking_part(classes, rate, class_mask)
    own = classes.sum(xp.where(one_hot, rate, 0.0))
    total = classes.sum(rate) + EPSILON
    terms = xp.log(total) - xp.log(own)

    def pullback(cotangent: Array) -> Array:
        derivative = xp.where(one_hot, 1 / total - 1 / own, 1 / total)
        return of_class_mask(classes.adapter, cotangent * derivative, class_mask)

    return terms, pullback


def binary_cross_entropy(adapter: Adapter, logit: Array, target: Array) -> ValueAndPullback:
    """Return ``-y log(p) - (1 - y) log(1 - p)`` with ``p = 1 / (1 + exp(-z))`` and clamped logs.

    Logarithms below -100, including the logarithm of 0, are clamped to -100. If `p` is near 1,
    ``1 - p`` and ``log(1 - p)`` are imprecise, as in lava-dl.

    The pullback uses the derivative that PyTorch computes for lava-dl, which is not the derivative
    of the clamped terms. PyTorch first divides ``p - y`` by ``max(p (1 - p), 1e-12)``, and then
    multiplies the quotient by ``p (1 - p)``.
    """
    xp, fixed = adapter.xp, adapter.stop_gradient
    zero, clamped, least = (adapter.scalar(logit, value) for value in (0.0, -100.0, LEAST))
    lowest = -min(100.0, math.log(xp.finfo(logit.dtype).max))
    low, high = (adapter.scalar(logit, sign * (lowest + 1)) for sign in (1, -1))
    z = xp.maximum(xp.minimum(logit, high), low)  # exp(-z) cannot overflow
    p = 1 / (1 + xp.exp(-z))
    rest = 1 - p
    sure = rest == 0
    log_p = xp.where(sure, zero, -adapter.logaddexp(zero, -logit))
    log_p = xp.where(logit < lowest, clamped, log_p)
    log_rest = xp.where(sure, clamped, xp.log(xp.where(sure, zero + 1, rest)))
    terms = -(target * log_p + (1 - target) * log_rest)

    # Adding `precise - fixed(precise)`, which is 0, changes only the derivative of the terms.
    precise, _ = criteria.binary_cross_entropy(adapter, z, target)
    share = fixed(p * rest / xp.maximum(p * rest, least))
    terms = fixed(terms) + share * (precise - fixed(precise))
    return terms, lambda cotangent: cotangent * share * (p - target)
