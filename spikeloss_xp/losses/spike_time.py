"""SpikeTime: the squared distance between filtered spike trains and target trains."""

import math
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, ClassVar

from spikeloss_xp import _checks, criteria
from spikeloss_xp._arrays import host_values
from spikeloss_xp._input.labels import Labels
from spikeloss_xp._input.prepared import Reading, Trains
from spikeloss_xp._typing import Array, SupportsArray, ValueAndPullback
from spikeloss_xp.filters import check_size
from spikeloss_xp.losses.trains import TrainLoss
from spikeloss_xp.primitives.kernels import Exponential
from spikeloss_xp.readouts import ReadResult


@dataclass(frozen=True)
class SpikeTime(TrainLoss):
    r"""Squared difference between filtered spike trains and filtered target trains.

    .. math::
        L = \sum_{b, c, t} \Bigl( \sum_{k < L} h_k \, (s - \hat s)_{b, c, t - k} \Bigr)^2,
        \qquad h_k = \binom{k + n - 1}{n - 1} e^{-k / \tau}

    The loss is the squared van Rossum distance in discrete time. The loss depends on all spikes of
    a train. The filter is causal: its output depends on the current time step and on earlier steps.
    The formula shows the sum of the terms, which is the result with ``reduction="sum"``. By
    default, the loss is the mean of the terms over samples, neurons and time steps.

    Parameters
    ----------
    time_axis : int
        The time axis of `input`: 0 for ``[time, batch, class]``, and -1 for
        ``[batch, class, time]``.
    reduction : {"mean", "sum", "batchmean", "none"}, default "mean"
        How the terms of the loss are reduced to a result. ``"mean"`` returns the mean of the terms,
        ``"sum"`` returns their sum, and ``"batchmean"`` returns their sum divided by the number of
        samples. ``"none"`` returns all terms. With ``reduction="none"``, the result has the shape
        of the input.
    time_constant : float, default 5
        The time constant :math:`\tau` of the filter, in time steps (above 0).
    length : int, optional
        The length of the filter, in time steps. The default is 20 time constants, rounded up; for
        example, 100 steps for a time constant of 5. If `kernel` is a function, `length` is
        required.
    filter_order : int, default 1
        The order :math:`n` of the filter. The filter of order :math:`n` is the convolution of
        :math:`n` identical exponentials. The filter of order 1 is the exponential itself.
    kernel : sequence of float, array or callable, optional
        Your own filter :math:`h`, which is used instead of the exponential filter. Pass either the
        taps :math:`h_0, h_1, \ldots` or a function. The first tap is the weight of the current
        step. A function takes the lag :math:`k` as a float and returns the tap :math:`h_k`. The
        constructor calls the function for each lag below `length`. The length of the filter is the
        number of taps. The taps are not normalised.
    filter_target : bool, default True
        Whether the target is filtered like the input. If `filter_target` is False, the target is a
        signal, and the filtered spikes are compared with this signal.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is out of range or has the wrong type.

    See Also
    --------
    spikeloss_xp.times.SpikeTime : The same distance for lists of spike times.
    spikeloss_xp.distances.van_rossum : The van Rossum distances between all pairs of trains.

    Notes
    -----
    `input` has shape ``[batch, *space, time]``. `target` has the same shape as `input`, and holds
    target trains, or a signal with ``filter_target=False``. Masked entries of `input` and `target`
    are set to 0 before filtering. The run time of an exponential filter does not depend on the
    length of the filter. If you pass a `kernel`, the run time grows with the number of taps. Taps
    for lags that are longer than the trains are not used.

    References
    ----------
    .. [1] Mark van Rossum, "A novel spike distance", Neural Computation 13(4), 2001.
    .. [2] S. B. Shrestha and G. Orchard, "SLAYER: Spike layer error reassignment in time",
       NeurIPS 2018.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> spikes, target = np.zeros((2, 1, 1, 4))
    >>> spikes[0, 0, 1] = 1  # a spike where the target has none
    >>> float(sx.SpikeTime(time_axis=-1, reduction="sum")(spikes, target).round(3))
    2.12
    """

    _: KW_ONLY
    time_constant: float = _checks.option(5, _checks.positive)
    length: int | None = _checks.option(None, _checks.optional_count)
    filter_order: int = _checks.option(1, _checks.count)
    kernel: Sequence[float] | SupportsArray | Callable[[float], float] | None = None
    filter_target: bool = _checks.option(True, _checks.flag)

    _shields_masked: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel is None:
            check_size(self._exponential)
            return
        for name in ("time_constant", "filter_order"):
            if getattr(self, name) != getattr(type(self), name):
                raise ValueError(
                    f"kernel replaces {name}, so {name} must be left out; got both, with "
                    f"{name}={getattr(self, name)}"
                )
        taps = _taps(self.kernel, self.length)
        if self.length not in (len(taps), None):
            raise ValueError(
                f"length must be omitted, or be the number of taps of the kernel, {len(taps)}; got "
                f"{self.length}"
            )
        object.__setattr__(self, "kernel", taps)
        object.__setattr__(self, "length", None)

    @property
    def number_of_taps(self) -> int:
        """The length of the filter, in time steps."""
        if isinstance(self.kernel, tuple):
            return len(self.kernel)
        if self.length is not None:
            return self.length
        return math.ceil(min(20 * self.time_constant, _checks.LONGEST))

    @property
    def memory(self) -> int:
        """The number of earlier time steps that a term depends on, ``number_of_taps - 1``."""
        return self.number_of_taps - 1

    @property
    def _exponential(self) -> Exponential:
        return Exponential(self.time_constant, self.number_of_taps, self.filter_order)

    def _read(self, trains: Trains, labels: Labels) -> ReadResult:
        # The filter is linear, so it is applied once to the difference between input and target.
        adapter = trains.adapter
        if self.filter_target:
            trains = trains.part(trains.values - labels.numbers, trains.mask)
        trains = trains.filled()
        kernel = self._exponential if self.kernel is None else self._taps_for(trains)
        axis = trains.time.index
        # The adjoint of a causal filter is the same filter, applied backwards in time.
        adjoint = partial(adapter.causal_filter, kernel=kernel, axis=axis, reverse=True)
        return trains.reading(adapter.causal_filter(trains.values, kernel, axis)), adjoint

    def _taps_for(self, trains: Trains) -> Array:
        """Return the taps as an array with the dtype and device of `trains`."""
        kernel: Any = self.kernel
        adapter, values, steps = trains.adapter, trains.values, trains.time.length(trains.values)
        if isinstance(kernel, tuple):
            return adapter.constants(kernel if len(kernel) <= steps else kernel[:steps], values)
        return trains.xp.astype(adapter.to_device_of(kernel, values), values.dtype, copy=False)

    def criterion(self, reading: Reading, labels: Labels) -> ValueAndPullback:
        """Return the squared differences between the filtered spikes and the target."""
        return criteria.squared(reading.u if self.filter_target else reading.u - labels.numbers)


def _taps(kernel: Any, length: int | None) -> tuple[float, ...]:
    """Return the taps as Python numbers, given an array or a function of the lag."""
    if callable(kernel):
        if length is None:
            raise ValueError(
                "length must be given if kernel is a function: it is the number of taps; got None"
            )
        return tuple(_checks.number(kernel(float(k)), f"kernel({k})") for k in range(length))
    if getattr(kernel, "requires_grad", False):
        raise TypeError(
            "kernel must be constant; got an array that requires a gradient: detach it or, to "
            "learn the kernel, filter the trains with causal_filter and compare the results"
        )
    taps = host_values(kernel, "kernel")
    if taps.ndim != 1 or len(taps) == 0:
        raise ValueError(
            "kernel must be a function of the lag, or taps of shape [length]; got shape "
            f"{taps.shape}"
        )
    return tuple(_checks.number(tap, f"kernel[{k}]") for k, tap in enumerate(taps.tolist()))
