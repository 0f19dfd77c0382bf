"""The input of the losses on spike times, in the axes of spikes in bins."""

import dataclasses
from typing import Any, ClassVar

from spikeloss_xp._arrays import adapter_of, rank
from spikeloss_xp._input.prepared import PreparedInput
from spikeloss_xp._typing import Array
from spikeloss_xp.losses.base import Loss


class TimesLoss(Loss):
    """The base class of the losses on spike times."""

    time_axis: ClassVar[int] = -1  # type: ignore[misc]

    def __repr__(self) -> str:
        fields = (field.name for field in dataclasses.fields(self))  # type: ignore[arg-type]
        given = ", ".join(f"{name}={getattr(self, name)!r}" for name in fields)
        return f"times.{type(self).__name__}({given})"

    def _prepare_input(
        self, input: Array, where: Any, lengths: Any, context: int = 0
    ) -> PreparedInput:
        adapter, shape = adapter_of(input), tuple(input.shape)
        if len(shape) not in (2, 3) or adapter.xp.isdtype(input.dtype, "bool"):
            raise ValueError(
                "input must hold spike times, [batch, class] or [batch, class, spike]; got "
                f"{input.dtype} of shape {shape}"
            )
        if lengths is not None:
            raise TypeError("spike times take no lengths: NaN and infinity are padding")
        if rank(where) > 1:
            raise ValueError(
                f"where must have shape {shape[:1]}, [batch], with spike times: NaN and infinity "
                "are padding"
            )
        times = input if len(shape) == 3 else adapter.xp.expand_dims(input, axis=-1)
        prepared = super()._prepare_input(times, where, None, context)
        prepared.layout = prepared.layout._replace(shape=shape, has_time=False)
        return prepared


def mask_of_trains(mask: Array | None) -> Array | None:
    """Return the mask of samples, without the axis of the spikes, along which it is constant."""
    return None if mask is None else mask[:, :1, :1]
