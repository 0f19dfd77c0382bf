"""The base class of the losses with a target train for each neuron."""

from dataclasses import KW_ONLY, dataclass
from typing import Any

from spikeloss_xp._input.labels import Labels, target_trains
from spikeloss_xp._input.prepared import Prepared, prepare_input
from spikeloss_xp._typing import Array, Reduction
from spikeloss_xp.losses.base import Loss
from spikeloss_xp.readouts import ReadResult, Trains, own_reading


class ReadsTrains(Loss):
    """The losses of trains, without the fields of their options."""

    per_step = None

    def _prepare_input(self, input: Array, where: Any, lengths: Any, context: int = 0) -> Prepared:
        return prepare_input(input, where, lengths, self.time_axis, 2, context=context)

    def _labels(self, prepared: Prepared, target: Any) -> Labels:
        return target_trains(prepared, target)

    def _chunk_axes(self, prepared: Prepared) -> tuple[int, ...]:
        layout = prepared.layout
        if self.reduction == "batchmean":  # it counts whole samples
            return (layout.batch_axis,)
        return layout.batch_axis, layout.class_axis


@dataclass(frozen=True)
class TrainLoss(ReadsTrains):
    """The base class of losses that compare each train with a target train or signal.

    Derive from it to write a loss of your own: a frozen dataclass with its own hyper-parameters
    and a `criterion`, which gets the target trains as ``labels.numbers``. The options below are
    inherited, and a subclass may change their defaults. Masks, weights of neurons, layouts and
    reductions need no code.

    Parameters
    ----------
    time_axis : int
        The axis of `input` that is time: 0 for ``[time, batch, neuron]``, and -1 for
        ``[batch, neuron, time]``.
    reduction : {"mean", "sum", "batchmean", "none"}, default "mean"
        How the terms are reduced.
    """

    _: KW_ONLY
    time_axis: int
    reduction: Reduction = "mean"

    @property
    def memory(self) -> int | None:
        """The number of earlier steps that a term reads; None if the loss reads whole trains.

        It is 0 unless a subclass overrides `read`, and then None unless the subclass overrides
        this too.
        """
        return 0 if type(self).read is TrainLoss.read else None

    def read(self, trains: Trains) -> ReadResult:
        """Return the reading of each train at each step, and its pullback to ``trains.values``.

        By default it is the input itself.
        """
        return trains.reading(trains.values), lambda cotangent: cotangent

    def _read(
        self, prepared: Prepared, values: Array, mask: Array | None, labels: Any
    ) -> ReadResult:
        return own_reading(self, Trains.of(prepared, values, mask))
