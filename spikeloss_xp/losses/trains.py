"""The base class for losses that compare the train of each neuron with a target train."""

from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

from spikeloss_xp import _checks
from spikeloss_xp._input.prepared import Trains, prepare_input
from spikeloss_xp._input.targets import AnyTrains, Target
from spikeloss_xp._typing import Array, Reduction
from spikeloss_xp.losses.with_target import TargetLoss
from spikeloss_xp.readouts import ReadResult, identity, own_reading


@dataclass(frozen=True)
class TrainLoss(TargetLoss):
    """Base class for losses that compare the train of each neuron with a target train or signal.

    To write your own loss, derive a frozen dataclass from this class, and define the
    hyper-parameters and the method `criterion`. The target trains are passed to `criterion` as
    ``labels.numbers``. The subclass inherits the options below, and may change their defaults. The
    base class applies masks, neuron weights and reductions. The base class also handles the order
    of the axes.

    Parameters
    ----------
    time_axis : int
        The time axis of `input`: 0 for ``[time, batch, neuron]``, and -1 for
        ``[batch, neuron, time]``.
    reduction : {"mean", "sum", "batchmean", "none"}, default "mean"
        How the terms of the loss are reduced to a result. ``"mean"`` returns the mean of the terms,
        ``"sum"`` returns their sum, and ``"batchmean"`` returns their sum divided by the number of
        samples. ``"none"`` returns all terms.

    Examples
    --------
    This loss is low if the input and the target fire at the same time steps:

    >>> from dataclasses import dataclass
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> @dataclass(frozen=True)
    ... class Overlap(sx.losses.TrainLoss):
    ...     def criterion(self, reading, labels):
    ...         n = labels.numbers
    ...         return -reading.u * n, lambda gradient: -gradient * n
    >>> float(Overlap(time_axis=0)(np.ones((20, 4, 10)), np.ones((20, 4, 10))))
    -1.0
    """

    _: KW_ONLY
    time_axis: int = field(metadata=_checks.checked_by(_checks.integer))
    reduction: Reduction = _checks.option("mean", _checks.reduction)

    per_step: ClassVar[bool | None] = None
    targets: ClassVar[tuple[Target, ...]] = (AnyTrains(),)
    smallest_rank: ClassVar[int] = 2
    """The smallest number of axes that an input may have.

    If `smallest_rank` is 2, the neuron axis is optional.
    """

    @property
    def memory(self) -> int | None:
        """The number of earlier time steps that a term depends on, or None if it is unlimited.

        By default, `memory` is 0. If a subclass overrides `read`, `memory` is None. A subclass
        whose terms depend on a fixed number of earlier time steps should override `memory` to
        return this number.
        """
        return 0 if type(self).read is TrainLoss.read else None

    def read(self, trains: Trains) -> ReadResult:
        """Return a value for each train and time step, and the pullback to ``trains.values``.

        By default, the returned values are the input itself. A subclass can override this method,
        for example to filter the trains.
        """
        return trains.reading(trains.values), identity

    def _read(self, trains: Trains, labels: Any) -> ReadResult:
        return own_reading(self, trains.filled())

    def _prepare_input(self, input: Array, where: Any, lengths: Any, context: int = 0) -> Trains:
        rank = self.smallest_rank
        return prepare_input(input, where, lengths, self.time_axis, rank, context=context)

    def _chunk_axes(self, prepared: Trains) -> tuple[int, ...]:
        layout = prepared.layout
        if self.reduction == "batchmean":
            # For "batchmean", chunks along the class axis would count each sample several times.
            return (layout.batch_axis,)
        return layout.batch_axis, layout.class_axis
