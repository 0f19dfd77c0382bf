"""A call of a loss in blocks of samples and segments of time, whose sums add up."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from spikeloss_xp._arrays import adapter_of, check_range, concrete_or_none
from spikeloss_xp._input.layout import Layout
from spikeloss_xp._typing import Array

if TYPE_CHECKING:
    from spikeloss_xp.losses.base import Loss


class Chunk(NamedTuple):
    """Some samples and steps of a block, which are evaluated at a time and stay in a cache.

    Attributes
    ----------
    spikes : array
        The spikes, with steps before and after those of the chunk.
    options : dict
        The other arguments of `Loss.sum_and_weight`.
    samples, own : slice
        The samples of the chunk, and its steps, counted from the first own one of the block.
    inside : slice
        Its steps among those of `spikes`.
    """

    spikes: Array
    options: dict[str, Any]
    samples: slice
    own: slice
    inside: slice


class Split(NamedTuple):
    """How a call of a loss may be split.

    Attributes
    ----------
    loss : Loss
        The loss, with the reduction "sum".
    layout : Layout
        The layout of the input.
    axes : dict
        For the input and each argument, which axis of the input each axis is; None for classes.
    independent : set of int
        The axes of the input along which blocks add up; along time if they overlap.
    dtype : dtype
        The dtype to compute in.
    divisor : array, int or None
        The number that the reduction divides the sum by; None for 1.
    """

    loss: "Loss"
    layout: Layout
    axes: dict[str, tuple[int | None, ...]]
    independent: set[int]
    dtype: Any
    divisor: Any

    def chunks(
        self, block: Array, arguments: dict[str, Any], *, place: Array, entries: int, ahead: bool
    ) -> Iterator[Chunk]:
        """Yield the chunks of a block, of about so many entries.

        A sample that is much larger than a chunk is cut into segments of time, if the loss has a
        term at each step.

        Parameters
        ----------
        block : array
            The spikes, with steps of its neighbours in time.
        arguments : dict
            Target, masks and lengths, with the samples and steps of the block; None for none.
        place : array
            The number of steps that belong to the block before, the number of its own steps, and
            which step of the train the first own one is.
        entries : int
            The number of entries of a chunk.
        ahead : bool
            Whether a chunk includes the later steps that its own steps reach, which a gradient
            needs, and a sum does not.
        """
        layout, reach = self.layout, self.loss.memory
        before, own, first_step = map(int, place)
        batch, steps = block.shape[layout.batch_axis], block.shape[layout.time_axis]
        samples, length = max(entries * batch // block.size, 1), own
        if reach is not None and block.size // batch > 4 * entries:
            length = max(entries * batch * steps // block.size, 8 * reach, 1)
        given = {name: x for name, x in arguments.items() if x is not None} | {"input": block}
        for first in range(0, batch, samples):
            for start in range(before, before + own, length):
                stop = min(start + length, before + own)
                read = max(start - (reach or 0), 0)
                read_to = min(stop + (reach or 0), steps) if ahead else stop
                chosen = slice(first, first + samples), slice(read, read_to)
                taken = {name: x[self.selection(name, *chosen)] for name, x in given.items()}
                lengths, taken_steps = taken.get("lengths"), read_to - read
                if lengths is not None and taken_steps < layout.steps:
                    start_of_chunk = first_step - before + read
                    taken["lengths"] = self._from_step(lengths, start_of_chunk, taken_steps)
                spikes, options = taken.pop("input"), {**taken, "context": start - read}
                in_block, inside = (slice(start - n, stop - n) for n in (before, read))
                yield Chunk(spikes, options, chosen[0], in_block, inside)

    def selection(self, name: str, samples: slice, steps: slice) -> tuple[slice, ...]:
        """Return the index of some samples and steps in the input or an argument."""
        chosen = {self.layout.batch_axis: samples, self.layout.time_axis: steps}
        return tuple(
            slice(None) if axis is None else chosen.get(axis, slice(None))
            for axis in self.axes[name]
        )

    def _from_step(self, lengths: Array, start: int, steps: int) -> Array:
        """Return lengths of whole trains as those of so many steps from `start` on."""
        xp = adapter_of(lengths, "lengths").xp
        check_range(concrete_or_none(lengths), self.layout.steps, "lengths")
        lengths = xp.astype(lengths, xp.int64)
        impossible = (lengths < 0) | (lengths > self.layout.steps)
        return xp.where(impossible, -1, xp.clip(lengths - start, 0, steps))
