"""Losses with the numbers of lava-dl, where they differ from `spikeloss_xp`, for every library.

`SpikeRate`, `SpikeMax`, `SpikeMoid` and `SparsityEnforcer` have the same options as the losses with
the same names in `spikeloss_xp`. Their values and gradients are those of lava-dl 0.6.0, which are
called the published numbers. The PyTorch modules in `spikeloss_xp.slayer.loss` use these losses.
Importing this module does not import PyTorch.

For training, use the losses of `spikeloss_xp`. The losses of this module may be infinite if neurons
are silent, and may have no gradient if neurons are silent or saturated.
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

LEAST = float(np.float32(1e-12))  # the smallest divisor in PyTorch's derivative, in any dtype


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__


def only_one(value: PerClass, argument: str) -> PerClass:
    """Return `value` if it is 1, otherwise raise an error."""
    if value != 1:
        raise ValueError(
            f"{argument} must be 1, because the published loss has no such weight: use "
            f"spikeloss_xp.SpikeMoid; got {value}"
        )
    return value


class Published:
    """A loss with the numbers of lava-dl."""

    def __repr__(self) -> str:
        options = (f"{each.name}={getattr(self, each.name)!r}" for each in fields(self))  # type: ignore[arg-type]
        return f"published.{type(self).__name__}({', '.join(options)})"


@dataclass(frozen=True, repr=False)
class SpikeRate(Published, losses.SpikeRate):
    """`spikeloss_xp.SpikeRate` as in lava-dl, which accepts equal and reversed target rates.

    Examples
    --------
    >>> import numpy as np
    >>> from spikeloss_xp.slayer import published
    >>> spikes = np.asarray([[[1, 0, 1, 1], [0, 0, 1, 0]]])  # [batch, class, time]
    >>> float(published.SpikeRate(0.0, 0.5, time_axis=-1)(spikes, [1]))
    0.0625
    """

    def _check_order(self) -> None:
        """Accept target rates in any order."""


@dataclass(frozen=True, repr=False)
class SpikeMax(Published, losses.SpikeMax):
    """`spikeloss_xp.SpikeMax` as in lava-dl, which is infinite if the labelled neuron is silent.

    The options are the same as in `spikeloss_xp.SpikeMax`, but `pseudo_count` has no effect.

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
    """`spikeloss_xp.SpikeMoid` as in lava-dl, where no logarithm is below -100.

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
    """`spikeloss_xp.SparsityEnforcer` as in lava-dl, also for graded and signed events.

    The options are the same as in `spikeloss_xp.SparsityEnforcer`. The difference is the derivative
    of ``|x|`` at silent steps, where ``x`` is 0. If the rate is above `max_rate`, this derivative
    is 0, so silent steps have no gradient. If the rate is below `min_rate`, the derivative is 1,
    because an event at a silent step would bring the rate closer to `min_rate`.

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
    """Return ``-log(r_y / (sum(r) + 1e-6))``, which is infinite if neuron `y` is silent."""
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

    A logarithm below -100 is clamped to -100. The logarithm of 0 is clamped in the same way. It
    occurs in two cases: ``log(1 - p)`` is the logarithm of 0 if `p` rounds to 1, and ``log(p)`` is
    the logarithm of 0 if ``exp(-z)`` overflows. If `p` is near 1, ``1 - p`` and ``log(1 - p)`` are
    imprecise, as in lava-dl. ``log(p)`` is computed from `z`.

    The derivative is the one that PyTorch computes for lava-dl, and not the derivative of the
    clamped terms. PyTorch first divides ``p - y`` by ``max(p (1 - p), 1e-12)``, and then multiplies
    the quotient by ``p (1 - p)``.
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

    # The difference from the fixed terms is 0, so it changes the derivative but not the value.
    precise, _ = criteria.binary_cross_entropy(adapter, z, target)
    share = fixed(p * rest / xp.maximum(p * rest, least))
    terms = fixed(terms) + share * (precise - fixed(precise))
    return terms, lambda cotangent: cotangent * share * (p - target)
