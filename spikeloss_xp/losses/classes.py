"""The base class for losses that compute one number for each class from the spikes."""

from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Any, ClassVar, get_args

from spikeloss_xp import _checks
from spikeloss_xp._input.prepared import Reading, Trains, check_number, prepare_input
from spikeloss_xp._input.targets import CLASS_INDICES, MULTI_HOT, Target
from spikeloss_xp._typing import Array, EntropyReadout, Readout, Reduction
from spikeloss_xp.losses.predictions import BinaryScores, ClassScores, Predictor
from spikeloss_xp.readouts import (
    READOUTS,
    ReadResult,
    own_reading,
    read_classes,
    read_groups,
)


def check_readout(value: Any, argument: str) -> str:
    """Return `value` if it is a readout of `ClassLoss`. Otherwise, raise an error."""
    try:
        return _checks.one_of(get_args(Readout))(value, argument)
    except ValueError as error:
        if value not in list(READOUTS):
            raise
        raise ValueError(f"{error}: use CrossEntropy, which has this readout") from None


@dataclass(frozen=True)
class ClassLoss(Predictor):
    """Base class for losses that compute one number for each class, such as a firing rate.

    To write your own loss, derive a frozen dataclass from this class, and define the
    hyper-parameters and the method `criterion`. The subclass inherits the options below, and may
    change their defaults. The base class applies masks, class weights and reductions. The base
    class also handles ignored labels, invalid labels and the order of the axes.

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
        The length of the moving window over which rates and counts are computed, in time steps.
        With a window, the loss has a term for each time step. Without a window, rates and counts
        are computed over all time steps.
    reduction : {"mean", "sum", "batchmean", "none"}, default "mean"
        How the terms of the loss are reduced to a result. ``"mean"`` returns the mean of the terms,
        ``"sum"`` returns their sum, and ``"batchmean"`` returns their sum divided by the number of
        samples. ``"none"`` returns all terms.
    num_classes : int, optional
        The number of classes. The neurons are divided into `num_classes` groups of neighbouring
        neurons. Each group represents one class, and the loss averages over the neurons of the
        group. By default, each neuron represents one class.
    ignore_index : int, default -100
        Samples and time steps with this class index as their label are ignored.

    Attributes
    ----------
    classes_compete : bool
        A class attribute that states whether the loss has only one term for all classes of a
        sample, as in a softmax cross entropy. If `classes_compete` is True, the class axis of the
        terms must have length 1. In `criterion`, ``reading.class_mask`` is False for each masked
        class, or None if no class is masked. By default, `classes_compete` is False.
    targets : tuple of Target
        A class attribute that lists the kinds of targets that the loss accepts. For example,
        ``losses.targets.PROBABILITIES`` stands for class probabilities. By default, the loss
        accepts only class indices.

    Examples
    --------
    In this example, the term of the labelled class is 0, and the term of every other class is the
    firing rate of the class:

    >>> from dataclasses import dataclass
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> @dataclass(frozen=True)
    ... class OtherRates(sx.losses.ClassLoss):
    ...     def criterion(self, reading, labels):
    ...         other = reading.xp.astype(~labels.one_hot(reading), reading.u.dtype)
    ...         return reading.u * other, lambda gradient: gradient * other
    >>> float(OtherRates(time_axis=0)(np.ones((20, 4, 10)), [0, 1, 2, 3]))
    0.9
    """

    _: KW_ONLY
    time_axis: int = field(metadata=_checks.checked_by(_checks.integer))
    readout: EntropyReadout = _checks.option("rate", check_readout)
    moving_window: int | None = _checks.option(None, _checks.optional_count)
    reduction: Reduction = _checks.option("mean", _checks.reduction)
    num_classes: int | None = _checks.option(None, _checks.optional_count)
    ignore_index: int = _checks.option(-100, _checks.label)

    targets: ClassVar[tuple[Target, ...]] = (CLASS_INDICES,)
    _per_class: ClassVar[tuple[str, ...]] = ()
    """The names of the options that may hold a sequence with one number for each class."""
    _sums_neurons: ClassVar[bool] = False
    """Whether spike counts are summed, instead of averaged, over the neurons of a class."""
    _reads_masked: ClassVar[bool] = False
    """Whether masked readings may be NaN, because they affect only terms that are masked too."""

    def __post_init__(self) -> None:
        """Check the options. If there is a moving window, check that the readout supports it."""
        super().__post_init__()
        if self.moving_window is None or self._reads_itself or READOUTS[self.readout].windowed:
            return
        raise ValueError(
            f"readout={self.readout!r} is computed over all time steps, so it has no "
            f"moving_window; got moving_window={self.moving_window}"
        )

    @property
    def memory(self) -> int | None:
        """The number of earlier time steps that a term depends on, or None if it is unlimited."""
        return None if self.moving_window is None else self.moving_window - 1

    @property
    def per_step(self) -> bool:  # type: ignore[override]
        """Whether the loss has a term for each time step.

        If `per_step` is True, the target may have a time axis.
        """
        return self.moving_window is not None

    def read(self, trains: Trains) -> ReadResult:
        """Return the quantity that `readout` names, such as the firing rate, and its pullback.

        The pullback returns the derivative with respect to ``trains.values``. To compute a
        different quantity, override this method. If `num_classes` is given, the overriding method
        receives one train for each class: the mean over the neurons of the class.
        """
        return read_classes(trains, self.readout, self.moving_window)

    def score(self, reading: Reading) -> Array:
        """Return a score for each class. `predict` returns the class with the largest score."""
        return reading.u

    def _prepare_input(self, input: Array, where: Any, lengths: Any, context: int = 0) -> Trains:
        options: Any = {"num_classes": self.num_classes, "context": context}
        prepared = prepare_input(input, where, lengths, self.time_axis, **options)
        for name in self._per_class:
            check_number(prepared, getattr(self, name), name)
        return prepared

    def _chunk_axes(self, prepared: Trains) -> tuple[int, ...]:
        chunked = self.moving_window is not None or self.readout == "latency"
        return (prepared.layout.batch_axis,) if chunked else ()

    def _read(self, trains: Trains, labels: Any, over_all_time: bool = False) -> ReadResult:
        mask = trains.mask
        window = None if over_all_time else self.moving_window
        if self._reads_itself:
            return read_groups(trains.filled(), self.num_classes, partial(own_reading, self))
        options = {"summed": self._sums_neurons}
        if mask is not None and labels is not None and not trains.adapter.on_host:
            options["masked_later"] = self._reads_masked and trains.classes.length(mask) == 1
        return read_classes(trains, self.readout, window, self.num_classes, **options)

    def _scores(self, prepared: Trains, per_step: bool) -> ClassScores:
        name = type(self).__name__
        if not self.targets[0].names_classes:
            raise TypeError(f"{name} predicts no classes, because its targets are numbers")
        if self.per_step and not per_step and self._reads_itself:
            raise ValueError(
                f"per_step must be True, because {name} overrides read, and the overridden method "
                "returns a reading for each step; got False"
            )
        reading, _ = self._read(prepared, None, not per_step)
        kind = BinaryScores if MULTI_HOT in self.targets else ClassScores
        return kind(prepared, self.score(reading), reading.mask, per_step)

    @property
    def _reads_itself(self) -> bool:
        """Whether a subclass overrides the method `read`."""
        return type(self).read is not ClassLoss.read
