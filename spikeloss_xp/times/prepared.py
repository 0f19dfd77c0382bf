"""Spike times and their mask, prepared for the losses on spike times."""

from typing import Any

from spikeloss_xp._arrays import adapter_of, shape_of
from spikeloss_xp._input.prepared import Prepared, prepare_input
from spikeloss_xp._spike_pairs import check_not_trains
from spikeloss_xp._typing import Array


def prepare_times(input: Array, where: Any, lengths: Any, num_classes: int | None) -> Prepared:
    """Check spike times and their mask, and give them the same axes as binned spikes."""
    adapter, shape = adapter_of(input), tuple(input.shape)
    if len(shape) not in (2, 3) or adapter.xp.isdtype(input.dtype, "bool"):
        raise ValueError(
            "input must hold spike times of shape [batch, class] or [batch, class, spike]; got "
            f"{input.dtype} of shape {shape}"
        )
    if lengths is not None:
        raise TypeError("losses on spike times take no lengths: use NaN or infinity as padding")
    if where is not None and shape_of(where) != shape[:1]:
        raise ValueError(
            f"where must have shape {shape[:1]} ([batch]) for spike times; got {shape_of(where)}: "
            "to leave out individual spikes, replace their times by NaN or infinity"
        )
    check_not_trains(adapter, input, "input")
    times = input if len(shape) == 3 else adapter.xp.expand_dims(input, axis=-1)
    prepared = prepare_input(times, where, None, time_axis=-1)
    prepared.layout = prepared.layout._replace(shape=shape, has_time=False)
    if num_classes is not None:
        prepared.num_classes = prepared.layout.number_of_classes(num_classes)
    if prepared.mask is not None:  # the mask is constant along classes and spikes
        prepared.mask = prepared.mask[:, :1, :1]
    return prepared
