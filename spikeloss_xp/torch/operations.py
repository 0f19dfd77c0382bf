"""Count the synaptic operations of linear layers and convolutions in PyTorch while they run."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spikeloss_xp._activity import ROUNDING
from spikeloss_xp._arrays import adapter_of
from spikeloss_xp._input.layout import Layout
from spikeloss_xp._input.prepared import mask_of
from spikeloss_xp._tuning import CHUNK

TRANSPOSED = (torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d, torch.nn.ConvTranspose3d)
CONVOLUTIONS = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d, *TRANSPOSED)
COUNTED = (torch.nn.Linear, *CONVOLUTIONS)
SMALL = CHUNK // 8  # inputs with fewer entries are counted together
Options = tuple[tuple[str, Any], ...]


class Call(NamedTuple):
    """The numbers that are stored for one call of a module.

    The arrays have only the axes along which the module does not compute, such as the time and
    batch axes.

    Attributes
    ----------
    active : Tensor
        The number of operations for each output channel. For a linear layer, `active` is the number
        of input entries that are not 0. For a convolution, `active` is the number of connections
        from nonzero input entries to output positions.
    deviation : Tensor
        The largest distance between an input entry and its sign.
    channels, dense : int
        `channels` is the number of output channels to which an input channel is connected, so the
        number of operations is ``active * channels``. If no input entry were 0, each entry of
        ``active * channels`` would equal `dense`.
    """

    active: Tensor
    deviation: Tensor
    channels: int
    dense: int


class Batch(NamedTuple):
    """The arrangement of the time steps and samples of a batch.

    Attributes
    ----------
    samples : int
        The number of samples.
    mask : Tensor or None
        True for the steps to count, with the time and the batch axis in the order of the spikes.
    invalid : Tensor or None
        True for samples with an invalid length.
    time_first : bool
        Whether the time axis is before the batch axis.
    looped : bool
        Whether the spiking modules were called once for each time step.
    """

    samples: int
    mask: Tensor | None = None
    invalid: Tensor | None = None
    time_first: bool = True
    looped: bool = False

    @classmethod
    def of(cls, spikes: Tensor, time_axis: int, looped: bool, lengths: Any, where: Any) -> "Batch":
        """Return the arrangement of a batch, given the spikes of one layer."""
        layout = Layout.of(tuple(spikes.shape), time_axis)
        if lengths is None and where is None:
            return cls(layout.batch)
        like = spikes.new_zeros((*layout.with_time(layout.batch), 1), dtype=torch.float32)
        time_first = layout.time == 0
        layout = Layout.of(tuple(like.shape), 0 if time_first else 1)
        mask: Any
        mask, invalid = mask_of(adapter_of(like), layout, like, where, lengths)
        return cls(layout.batch, mask.expand(like.shape)[..., 0], invalid, time_first, looped)

    def masks(self, mask: Tensor, calls: list[Call], name: str) -> Iterator[Tensor]:
        """Yield the mask for each call of a module, in the shape of `Call.active`."""
        by_step, samples = mask if self.time_first else mask.T, self.samples
        shapes = [tuple(call.active.shape) for call in calls]
        is_step = [
            shape[:1] == (samples,) and (self.looped or shape[:2] != mask.shape) for shape in shapes
        ]
        times, rest = divmod(sum(is_step), len(by_step))  # the number of calls for each step
        steps = iter(by_step.repeat_interleave(times, 0)) if not rest else iter(())
        for shape, single in zip(shapes, is_step, strict=True):
            if single and not rest:
                part = next(steps)
            elif shape[:2] == mask.shape:
                part = mask
            elif shape[:1] == (mask.numel(),):
                part = mask.reshape(-1)
            else:
                raise ValueError(
                    f"the operations of {name} cannot be assigned to time steps: in {len(calls)} "
                    f"calls, its input had the shape {shape} without its last axes, but there are "
                    f"{samples} samples with {len(by_step)} steps: leave out lengths and where, or "
                    "record the samples one by one, without their padding"
                )
            yield part.reshape(*part.shape, *(1,) * (len(shape) - part.ndim)).expand(shape)


class Operations:
    """A counter for the operations of a network's modules while the network runs.

    Small inputs are copied and counted together, because a loop over time steps makes many calls
    with small inputs.
    """

    def __init__(self) -> None:
        self._calls: dict[torch.nn.Module, list[Call]] = {}
        # For each module, a pair: the common shape, dtype and requested output size of the inputs
        # that are not counted yet, and a list of these inputs.
        self._waiting: dict[torch.nn.Module, tuple[Any, list[Tensor]]] = {}

    @property
    def calls(self) -> dict[torch.nn.Module, list[Call]]:
        """The calls of each counted module. The modules are in the order of their first calls."""
        self.finish()
        return self._calls

    def finish(self) -> None:
        """Count all stored inputs that are not counted yet, and delete them."""
        for module in [*self._waiting]:
            self._count(module)

    def see(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Count one call of a module, if it is a linear layer or a convolution."""
        if not isinstance(module, COUNTED):
            return
        x, *others = *args, *kwargs.values()
        if not (isinstance(x, Tensor) and x.is_floating_point()):
            return
        self._calls.setdefault(module, [])
        is_sized = isinstance(module, TRANSPOSED) and others and others[0] is not None
        common = x.shape, x.dtype, tuple(others[0]) if is_sized else None
        if module in self._waiting and self._waiting[module][0] != common:
            self._count(module)
        _, inputs = self._waiting.setdefault(module, (common, []))
        inputs.append(x.clone() if x.numel() < SMALL else x)
        if x.numel() >= SMALL or len(inputs) * x.numel() >= CHUNK:
            self._count(module)

    def _count(self, module: Any) -> None:
        (*_, output_size), inputs = self._waiting.pop(module)
        x = inputs[0][None] if len(inputs) == 1 else torch.stack(inputs)
        self._calls[module] += _calls(module, x, output_size)


def sums_of(calls: list[Call], name: str, batch: Batch) -> Tensor:
    """Return the row for a module in the array `spikeloss_xp.Activity.sums`."""
    active, distance, dense = (
        torch.cat([x.reshape(-1) for x in each])
        for each in (
            [call.active.long() * call.channels for call in calls],
            [call.deviation for call in calls],
            [torch.full_like(call.active, call.dense, dtype=torch.int64) for call in calls],
        )
    )
    zero = active.new_tensor(0)
    samples, unknown = zero + batch.samples, zero
    if batch.mask is not None:
        parts = [x.reshape(-1) for x in batch.masks(batch.mask, calls, name)]
        keep = torch.cat(parts).to(zero.device)
        active, distance, dense = active * keep, distance.where(keep, 0), dense * keep
        samples = batch.mask.any(0 if batch.time_first else 1).sum()
        unknown = zero if batch.invalid is None else batch.invalid.sum()
    total, only_spikes = active.sum(), (distance <= ROUNDING).all()
    accumulates = total.where(only_spikes, 0)
    row = accumulates, total - accumulates, unknown, dense.sum(), zero, samples, zero
    return torch.stack([x.to(zero.device) for x in row])


def _calls(module: Any, x: Tensor, output_size: tuple[int, ...] | None) -> Iterator[Call]:
    """Yield a `Call` for each call of a module.

    The array `x` holds the input of each call along its first axis.
    """
    if isinstance(module, torch.nn.Linear):
        own, channels, places, dense = 1, module.out_features, None, 1
    else:
        own, channels = 1 + len(module.kernel_size), module.out_channels // module.groups
        size = None if output_size is None else output_size[1 - own :]
        shape = tuple(x.shape[1 - own :])
        places, dense = _places(*_geometry(module), shape, size, x.device)
    if x.device.type == "cpu" and x.numel() > CHUNK:
        entries = x.reshape(-1, *x.shape[-own:])
        parts = torch.split(entries, max(CHUNK * len(entries) // x.numel(), 1))
        counted = zip(*(_count(part, own, places) for part in parts), strict=True)
        active, deviation = (torch.cat(each).view(x.shape[:-own]) for each in counted)
    else:
        active, deviation = _count(x, own, places)
    for of_call in zip(active, deviation, strict=True):
        yield Call(*of_call, channels, x.shape[-own] * channels * dense)


def _count(x: Tensor, own: int, places: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the arrays `active` and `deviation` of a `Call`, for an input or a chunk of it.

    `own` is the number of axes along which the module computes. `places` holds, for each position
    in space, the number of output positions to which it is connected.
    """
    axes, sign = tuple(range(-own, 0)), x.sign()
    deviation = (x - sign).abs_().amax(axes)
    active = sign.mul_(sign).sum(-own, dtype=torch.float32)  # counts up to 2^24 are exact
    if places is not None:
        active = (active.long() * places).sum(axes[1:])
    return active, deviation


def _geometry(module: Any) -> tuple[type, Options]:
    """Return the PyTorch class of a convolution, and the options that define its connections."""
    kind = next(each for each in CONVOLUTIONS if isinstance(module, each))
    names = ["kernel_size", "stride", "padding", "dilation", "padding_mode"]
    names += ["output_padding"] * isinstance(module, TRANSPOSED)
    return kind, tuple((name, getattr(module, name)) for name in names)


@functools.lru_cache
def _places(
    kind: Any, options: Options, shape: tuple[int, ...], output_size: Any, device: torch.device
) -> tuple[Tensor, int]:
    """Return the number of output positions for each input position, and the sum of these numbers.

    The numbers are the gradient of the sum of the output of a convolution whose weights are all 1.
    The convolution has only one channel, because the numbers are the same for each channel.
    """
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
        layer = kind(1, 1, **dict(options), bias=False, device="meta")
        x = torch.ones((1, 1, *shape), dtype=torch.float32, device="cpu", requires_grad=True)
        weight = torch.ones(layer.weight.shape, dtype=torch.float32, device="cpu")
        rest = () if output_size is None else (output_size,)
        output = torch.func.functional_call(layer, {"weight": weight}, (x, *rest))
        (connections,) = torch.autograd.grad(output.sum(), x)
    places = connections[0, 0].round().long()
    return places.to(device), int(places.sum())
