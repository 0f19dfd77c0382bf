"""From prepared spikes to terms: the readout, the criterion, masks and weights of a loss."""

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

from spikeloss_xp._dispatch import Library
from spikeloss_xp._input.layout import CLASS, Layout
from spikeloss_xp._input.masks import both, fill_masked
from spikeloss_xp._input.prepared import PreparedInput, prepare_input
from spikeloss_xp._typing import Array, Pullback
from spikeloss_xp.readouts import Reading


class Terms(NamedTuple):
    """The terms of a loss, of a batch or a chunk of it.

    Attributes
    ----------
    terms : array
        The terms, multiplied by their weights, and 0 where they are masked.
    mask, weight : array or None
        The term mask, True for the terms that count, and the weight of each term. They broadcast
        against the terms; None stands for True, and for 1.
    pullback : callable
        Takes the derivative of the loss with respect to the terms to the derivative with respect
        to the values that they were computed from.
    """

    terms: Array
    mask: Array | None
    weight: Array | None
    pullback: Pullback


class TermEvaluation(ABC):
    """The steps of a loss up to its terms, and the members by which losses differ."""

    time_axis: int
    _smallest_rank: ClassVar[int] = 3
    """The number of axes that an input needs."""
    _by_class: ClassVar[bool] = True
    """Whether `_read` takes axes ``[batch, class, time]``; otherwise those of the input."""
    _classes_compete: ClassVar[bool] = False
    """Whether the classes of a sample share one term, with a class axis of length 1."""

    def _prepare(
        self, input: Array, target: Any, where: Any, lengths: Any, weight: Any, context: int = 0
    ) -> tuple[PreparedInput, Any]:
        """Return the prepared input and the labels."""
        prepared = prepare_input(
            input,
            where,
            lengths,
            time_axis=self.time_axis,
            smallest_rank=self._smallest_rank,
            by_class=self._by_class,
            context=context,
        )
        labels = self._labels(prepared, target)
        return prepared, labels if weight is None else self._weigh(prepared, labels, weight)

    def _terms(
        self,
        library: Library,
        values: Array,
        mask: Array | None,
        labels: Any,
        scored: Array | None = None,
    ) -> Terms:
        """Return the terms of a batch or of a chunk of it, at the steps that are `scored`."""
        reading, to_values = self._read(library, values, mask, labels)
        reading = reading._replace(mask=both(reading.mask, scored))
        reading, mask = self._compete(library, reading, labels)
        if mask is not None:
            self._check_mask(mask, reading.u)
            # A reading of 1 has finite terms and derivatives in every criterion.
            # A count of infinity lacks no spike.
            counts = reading.counts
            if counts is not None:
                counts = fill_masked(library, counts, mask, math.inf)
            u = fill_masked(library, reading.u, mask, 1.0)
            reading = reading._replace(u=u, counts=counts)
        terms, to_reading = self._criterion(library, reading, labels)
        self._check_terms(terms, reading.u)
        factor, weight = self._term_weights(library, terms, labels)
        if factor is not None:
            terms = terms * factor
        if mask is not None:
            terms = fill_masked(library, terms, mask)

        def pullback(cotangent: Array) -> Array:
            cotangent = to_reading(cotangent if factor is None else cotangent * factor)
            if mask is not None:
                cotangent = fill_masked(library, cotangent, mask)
            return to_values(cotangent)

        return Terms(terms, mask, weight, pullback)

    def _check_terms(self, terms: Array, u: Array) -> None:
        """Raise if the terms of a subclass have the wrong shape: they must not broadcast."""
        shape = tuple(u.shape)
        if self._classes_compete:
            shape = (*shape[:CLASS], 1, *shape[CLASS + 1 :])
        if tuple(terms.shape) != shape:
            rule = "one for each sample" if self._classes_compete else "one for each reading"
            raise ValueError(
                f"the criterion of {type(self).__name__} must return terms of shape {shape}, "
                f"{rule}; got {tuple(terms.shape)}"
            )

    def _check_mask(self, mask: Array, u: Array) -> None:
        """Raise if the term mask of a subclass does not fit the terms."""
        fits = len(mask.shape) == len(u.shape) and all(
            length in (1, 1 if axis == CLASS and self._classes_compete else expected)
            for axis, (length, expected) in enumerate(zip(mask.shape, u.shape, strict=True))
        )
        if not fits:
            raise ValueError(
                f"the term mask of {type(self).__name__} has shape {tuple(mask.shape)}, which does "
                f"not fit the terms of readings of shape {tuple(u.shape)}"
            )

    # Members of subclasses -----------------------------------------------------------------------

    @abstractmethod
    def _labels(self, prepared: PreparedInput, target: Any) -> Any:
        """Return the checked target: an array, or a tuple of arrays and None."""

    def _weigh(self, prepared: PreparedInput, labels: Any, weight: Any) -> Any:
        """Return the labels with class weights."""
        raise TypeError(f"{type(self).__name__} takes no weight: it has no classes")

    @abstractmethod
    def _read(
        self, library: Library, values: Array, mask: Array | None, labels: Any
    ) -> tuple[Reading, Pullback]:
        """Return the reading, and its pullback to `values`."""

    @abstractmethod
    def _criterion(self, library: Library, reading: Reading, labels: Any) -> tuple[Array, Pullback]:
        """Return the terms, without class weights, and their pullback to ``reading.u``."""

    def _chunk_axes(self, prepared: PreparedInput) -> tuple[int, ...]:
        """Return the axes of values and terms along which chunks may be evaluated by themselves.

        Empty if readings are much smaller than the input: then chunks are not worth their overhead.
        """
        return ()

    def _target_axes(self, layout: Layout, ndim: int) -> tuple[int | None, ...] | None:
        """Return which axis of the input each axis of a target is, or None if that is unknown.

        An axis of classes is None.
        """
        return None

    def _batch_axis(self, prepared: PreparedInput) -> int:
        """Return the axis of the samples in the terms."""
        return 0

    def _compete(
        self, library: Library, reading: Reading, labels: Any
    ) -> tuple[Reading, Array | None]:
        """Return the reading with its class mask, and the term mask."""
        return reading, reading.mask

    def _term_weights(
        self, library: Library, terms: Array, labels: Any
    ) -> tuple[Array | None, Array | None]:
        """Return the factor of each term, and its weight in the divisor of a mean; None for 1."""
        return None, None

    def _terms_in_layout(self, prepared: PreparedInput, terms: Array) -> Array:
        """Return the terms in the layout of the input."""
        return terms

    def _terms_from_layout(self, prepared: PreparedInput, cotangent: Array) -> Array:
        """Return a cotangent of `_terms_in_layout` with the axes of the terms."""
        return cotangent
