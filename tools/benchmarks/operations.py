"""How long counting operations takes, and which counters are right.

``python tools/benchmarks/operations.py`` prints how much longer a forward pass in `record` takes
with ``operations=True`` (the median ratio of processor times on one core, called in turn). It then
prints for how many of 24 random layers the counters are right that are installed, compared with one
spike at a time: `record`, and the packages ``neurobench`` and ``spikingjelly``.
"""

import importlib
import random
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from spikeloss_xp.torch import record

torch.set_num_threads(1)


class Neurons(nn.Module):
    """Leaky neurons, which process ``[time, sample, ...]`` in one call, or one step."""

    def __init__(self, steps: bool = False) -> None:
        super().__init__()
        self.steps, self.membrane = steps, 0.0

    def fire(self, current: torch.Tensor) -> torch.Tensor:
        self.membrane = 0.9 * self.membrane + current
        soft = torch.sigmoid(self.membrane - 1)
        spikes = (self.membrane > 1).float() + soft - soft.detach()
        self.membrane = self.membrane - spikes
        return spikes

    def forward(self, currents: torch.Tensor) -> torch.Tensor:
        if self.steps:
            return self.fire(currents)
        self.membrane = 0.0
        return torch.stack([self.fire(current) for current in currents])


class Folded(nn.Sequential):
    """Modules that get time and samples in one axis."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Loop(nn.Sequential):
    """Modules that process one step after the other."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for each in self:
            if isinstance(each, Neurons):
                each.membrane = 0.0
        return torch.stack([super(Loop, self).forward(step) for step in x])


def networks() -> Iterator[tuple[str, nn.Module, torch.Tensor]]:
    """Yield a description, a network and its input."""
    for shape, hidden in (((50, 32, 100), 100), ((100, 128, 700), 256)):
        linear = nn.Linear(shape[-1], hidden), Neurons(), nn.Linear(hidden, 10), Neurons()
        yield f"linear, {shape}, {hidden} hidden", nn.Sequential(*linear), torch.rand(shape)
    for channels, kernel, size in ((16, 3, 32), (32, 5, 34)):
        layers = (
            *(Folded(nn.Conv2d(2, channels, kernel, padding=1)), Neurons()),
            *(Folded(nn.Conv2d(channels, 2 * channels, kernel, stride=2)), Neurons()),
        )
        inputs = torch.rand(8, 8, 2, size, size)
        yield f"convolutions, {tuple(inputs.shape)}", nn.Sequential(*layers), inputs
    for shape, hidden in (((25, 64, 100), 100), ((25, 128, 784), 1000)):
        steps = nn.Linear(shape[-1], hidden), Neurons(True), nn.Linear(hidden, 10), Neurons(True)
        yield f"loop over steps, {shape}, {hidden} hidden", Loop(*steps), torch.rand(shape)


def seconds(network: nn.Module, inputs: torch.Tensor, **options: bool) -> float:
    """Return the processor time of one forward pass in `record`."""
    start = time.thread_time()
    with record(network, **options):
        network(inputs)
    return time.thread_time() - start


def ratio(network: nn.Module, inputs: torch.Tensor, repeats: int = 41) -> float:
    """Return the time with operations, relative to the time without."""
    times = [
        (seconds(network, inputs), seconds(network, inputs, operations=True))
        for _ in range(repeats)
    ]
    without, counted = (statistics.median(each) for each in zip(*times[2:], strict=True))
    return counted / without


def layers(number: int = 24) -> Iterator[tuple[nn.Module, torch.Tensor]]:
    """Yield random layers, each with a batch of spikes."""
    choose = random.Random(1).choice
    for _ in range(number):
        g, k, s = choose([1, 1, 2]), choose([1, 3, 5]), choose([1, 2, 3])
        p, d = choose([0, 1, 2]), choose([1, 1, 2])
        kind = choose([nn.Conv2d, nn.Conv2d, nn.Linear, nn.ConvTranspose2d, nn.Conv1d])
        shape: tuple[int, ...] = {nn.Linear: (13,), nn.Conv1d: (2 * g, 21)}.get(kind, (2 * g, 9, 9))
        options = {"kernel_size": k, "stride": s, "padding": min(p, k // 2), "groups": g}
        options |= {} if kind is nn.ConvTranspose2d else {"dilation": d}
        layer = nn.Linear(13, 7) if kind is nn.Linear else kind(2 * g, 4 * g, **options)
        yield layer, (torch.rand(6, *shape) < 0.3).float()


def one_at_a_time(layer: nn.Module, spikes: torch.Tensor) -> float:
    """Return the number of connections that the spikes go through, one spike at a time."""
    weights = {n: torch.ones_like(x) * (n == "weight") for n, x in layer.named_parameters()}
    total = 0.0
    for place in spikes.nonzero():
        one = torch.zeros_like(spikes[:1])
        one[(0, *place[1:])] = 1
        total += torch.func.functional_call(layer, weights, (one,)).sum().item()
    return total


def counters() -> Iterator[tuple[str, Callable[[nn.Module, torch.Tensor], Any]]]:
    """Yield the name of each counter that is installed, and a function that calls it."""

    def ours(layer: nn.Module, spikes: torch.Tensor) -> float:
        with record(layer, operations=True) as seen:
            layer(spikes)
        return sum(x.accumulates for x in seen.activity(time_axis=0, samples=6).modules.values())

    yield "record", ours
    try:
        module = importlib.import_module("neurobench.metrics.utils.layers")
        yield "NeuroBench", lambda layer, spikes: module.single_layer_MACs(spikes, layer)[0]
        jelly = importlib.import_module("spikingjelly.activation_based.op_counter")
    except ModuleNotFoundError as error:
        print(f"not installed: {error.name}")
        return

    def of_jelly(layer: nn.Module, spikes: torch.Tensor) -> float:
        counter = jelly.SynOpCounter()
        with jelly.DispatchCounterMode([counter], strict=False), torch.no_grad():
            layer(spikes)
        return counter.get_total()

    yield "SpikingJelly", of_jelly


def main() -> None:
    """Print both tables."""
    torch.manual_seed(0)
    with torch.no_grad():
        truth = [(layer, spikes, one_at_a_time(layer, spikes)) for layer, spikes in layers()]
    for name, count in counters():
        right = sum(float(count(layer, spikes)) == total for layer, spikes, total in truth)
        print(f"{name}: right for {right} of {len(truth)} layers")
    for name, network, inputs in networks():
        print(f"{ratio(network, (inputs < 0.1).float()):.3f} times as long: {name}")


if __name__ == "__main__":
    main()
