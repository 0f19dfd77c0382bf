"""Base classes for losses that compute one number for each class from the spikes."""

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
    """Return `value` if it is a readout that all class losses have, otherwise raise an error."""
    try:
        return _checks.one_of(get_args(Readout))(value, argument)
    except ValueError as error:
        if value not in list(READOUTS):
            raise
        raise ValueError(f"{error}: use CrossEntropy, which has this readout") from None


@dataclass(frozen=True)
class ClassLoss(Predictor):
    """Base class for losses that compute one number for each class, such as a firing rate.

    To write your own loss, derive a frozen dataclass that defines its hyper-parameters and a
    `criterion`. The subclass inherits the options below, and may change their defaults. Masks,
    class weights, ignored and invalid labels, layouts and reductions work without further code.

    Parameters
    ----------
    time_axis : int
        The time axis of `input`: 0 for ``[time, batch, class]``, and -1 for
        ``[batch, class, time]``. Targets and terms with a time axis use the same order of axes as
        `input`.
    readout : {"rate", "count", "max", "last"}, default "rate"
        The quantity that is computed for each neuron: its firing rate, its spike count, or the
        maximum or last value of its membrane potential.
    moving_window : int, optional
        The length of the moving window for rates and counts, in time steps. With a window, there is
        a term at each step. By default, the quantity is computed over the whole duration.
    reduction : {"mean", "sum", "batchmean", "none"}, default "mean"
        How the terms are reduced: to their mean, to their sum, to their sum divided by the number
        of samples, or not at all.
    num_classes : int, optional
        The number of classes. Each class is a group of neighbouring neurons, and the loss uses the
        mean over the group. By default, each neuron is a class.
    ignore_index : int, default -100
        The class index that marks samples or steps to ignore. Ignored samples and steps have no
        terms.

    Attributes
    ----------
    classes_compete : bool
        A class attribute that states whether the classes of a sample share one term, as in a
        softmax. If True, the terms have a class axis of length 1. Then ``reading.class_mask`` is an
        array that is False for masked classes, or None if no class is masked. The default is False.
    targets : tuple of Target
        A class attribute that lists the kinds of targets that the loss accepts, such as
        ``losses.targets.PROBABILITIES``. By default, only class indices are accepted.

    Examples
    --------
    The mean rate of all neurons except the labelled one:

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
    """The options that may hold a number for each class."""
    _sums_neurons: ClassVar[bool] = False
    """Whether spike counts are summed over the neurons of a class instead of averaged."""
    _reads_masked: ClassVar[bool] = False
    """Whether masked readings may be NaN: True if they affect only terms that are masked too."""

    def __post_init__(self) -> None:
        """Check the options, and that the readout supports a moving window if there is one."""
        super().__post_init__()
        if self.moving_window is None or self._reads_itself or READOUTS[self.readout].windowed:
            return
        raise ValueError(
            f"readout={self.readout!r} reads the whole duration, so it has no moving_window; got "
            f"moving_window={self.moving_window}"
        )

    @property
    def memory(self) -> int | None:
        """The number of earlier steps that a term depends on, or None if there is no limit."""
        return None if self.moving_window is None else self.moving_window - 1

    @property
    def per_step(self) -> bool:  # type: ignore[override]
        """Whether readings and terms have a time axis. If True, labels may have a time axis too."""
        return self.moving_window is not None

    def read(self, trains: Trains) -> ReadResult:
        """Return the reading of each neuron, and its pullback to ``trains.values``.

        By default, the option `readout` selects the readout. Override this method to define your
        own readout. If `num_classes` is given, the method receives one train for each class: the
        mean over the neurons of the class.
        """
        return read_classes(trains, self.readout, self.moving_window)

    def score(self, reading: Reading) -> Array:
        """Return the scores of the classes. `predict` returns the class with the largest score."""
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
        """Whether a subclass overrides `read`."""
        return type(self).read is not ClassLoss.read
