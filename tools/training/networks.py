"""The spiking networks of all measurements, and the loop that trains them.

`draw` returns the settings of a random network, for verdict.py and advice.py. About half of these
networks start near values that usually work: a wide surrogate, moderate weights and a low
threshold. The settings of the others are drawn from wide ranges, so that most of them fail, each
for reasons of its own. The settings depend only on the set, the stream and the index of a network,
so any network can be rebuilt alone.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from spikeloss_xp.torch import parameter_groups, scale_network
from spikeloss_xp.torch.scaling import RECURRENT

CLASSES = 10
WIDTH = 100  # neurons in a dense hidden layer
CHANNELS = (8, 16, 16, 16, 16)  # of the convolutions
# The places, the width of the kernels and the strides of convolutions, by the number of inputs.
CONVOLUTIONS = {
    **{64: ((8, 8), 3, (1, 2, 1, 1, 1)), 196: ((14, 14), 3, (2, 1, 2, 1, 1))},
    40: ((40,), 5, (2, 2)),
    32: ((32,), 5, (2, 2, 1)),
}
STREAMS = {"verdict": 1053, "advice": 2053}  # seeds
# Networks in JAX are no longer trained, but a set keeps its number in `draw`.
SETS = ("plain", "snnTorch", "SpikingJelly", "JAX", "Norse", "timing", "speech")
OWN = {"fast sigmoid": (1, 2), "arctan": (1, 2), "triangular": (0.5, 1), "box": (0.5, 1)}
# The surrogates of each cell, with slopes at which they are wide.
WIDE: dict[str, dict[str, tuple[float, ...]]] = {
    "plain": OWN,
    "snnTorch": {"fast_sigmoid": (1, 2), "atan": (1, 2), "triangular": (1,), "sigmoid": (2, 4)},
    "SpikingJelly": {
        **{"ATan": (1, 2), "Sigmoid": (2, 4), "Erf": (1, 2)},
        "PiecewiseQuadratic": (0.5, 1),
    },
    "Norse": dict.fromkeys(("super", "tanh", "heavi_erfc"), (1, 2)),
}


class Settings(NamedTuple):
    """Everything that defines a network and its training.

    `scale` multiplies the initial weights, `bounds` tells whether the loss has bounds on the rates,
    and `detached` is the index of a layer whose spikes are detached by mistake. `width` is the
    number of neurons in a dense hidden layer. SGD has a momentum of 0.9 and 50 times the `rate`.
    `bias` is added to the initial output biases.
    """

    cell: str
    surrogate: str
    slope: float
    depth: int = 1
    decay: float = 0.9
    scale: float = 1
    threshold: float = 1
    rate: float = 0.002
    bounds: bool = False
    reset: str = "subtract"
    seed: int = 0
    convolution: bool = False
    normalised: bool = False
    skip: bool = False
    decay_input: bool = False
    detached: int | None = None
    recurrent: bool = False
    width: int = WIDTH
    optimiser: str = "Adam"
    bias: float = 0.0
    classes: int = CLASSES
    potentials: bool = False  # of the outputs


def draw(name: str, stream: str, index: int) -> Settings:
    """Return the settings of a network from its set, stream and index.

    In spike timing data, each input fires once. Hardly any of the settings for other data work
    there, so the usual ones have larger weights.
    """
    if name == "speech":
        return draw_for_speech(index)
    random = np.random.default_rng((STREAMS[stream], SETS.index(name), index))

    def pick(*values: Any) -> Any:
        return values[random.integers(len(values))]

    usual, convolution = random.random() < 0.5, random.random() < 0.25
    cell = "plain" if (timing := name == "timing") else name
    surrogate = pick(*WIDE[cell])
    if timing:
        convolution, seed, surrogate = False, int(random.integers(10**6)), pick(*OWN)
    else:
        depth = pick(2, 3, 4, 5) if convolution else pick(1, 2, 3, 4, 5)
    decays, scales = ((0.9, 0.95), (3, 5, 8)) if timing else ((0.5, 0.8, 0.9), (1, 1.5, 2))
    return Settings(
        cell,
        surrogate,
        slope=float(pick(*WIDE[cell][surrogate]) if usual else pick(0.5, 1, 2, 5, 10, 25, 100)),
        depth=pick(1, 2, 3) if timing else depth,
        decay=pick(*decays) if usual else pick(0.5, 0.8, 0.9, 0.95),
        scale=pick(*scales) if usual else pick(0.3, 1, 2, 4, 8),
        threshold=pick(0.5, 1) if usual else pick(0.5, 1, 2),
        rate=pick(0.002, 0.005) if usual else pick(0.0005, 0.002, 0.01),
        bounds=pick(False, True),
        reset="subtract" if timing else pick("subtract", "zero"),
        seed=seed if timing else int(random.integers(10**6)),
        convolution=convolution,
        normalised=convolution and pick(False, True),
        skip=convolution and pick(False, True),
        decay_input=cell == "SpikingJelly" and not usual and pick(False, True),
        detached=pick(*range(depth + 1))
        if not timing and cell == "plain" and random.random() < 1 / 16
        else None,
        recurrent=timing and pick(False, True),
        width=pick(50, 100) if timing else WIDTH,
    )


def draw_for_speech(index: int) -> Settings:
    """Return the settings of a recurrent network for nine speakers."""
    random = np.random.default_rng((STREAMS["advice"], SETS.index("speech"), index))
    ranges = {
        **{"slope": (1, 5, 25), "depth": (1, 2, 3, 4), "decay": (0.7, 0.9, 0.97)},
        **{"scale": (0.3, 1, 3), "threshold": (0.5, 1, 2), "rate": (0.0005, 0.002, 0.01)},
        "width": (50, 100),
    }
    drawn = {name: random.choice(values).item() for name, values in ranges.items()}
    seed = int(random.integers(10**6))
    return Settings("plain", "fast sigmoid", **drawn, seed=seed, recurrent=True, classes=9)


def draw_for_verdict(
    of_data: int, index: int, kinds: tuple[str, ...], classes: int, *, potentials: bool
) -> Settings:
    """Return the settings of a network, whose kind is drawn too, for the data with this number."""
    random = np.random.default_rng((STREAMS["verdict"], of_data, index))

    def pick(*values: Any) -> Any:
        return values[random.integers(len(values))]

    kind = kinds[index % len(kinds)]
    return Settings(
        "plain",
        pick(*OWN),
        slope=float(pick(1, 2, 5, 10, 25, 25, 50, 100)),
        depth=pick(1, 2, 3),
        decay=float(np.exp(-1 / np.exp(random.uniform(np.log(2), np.log(40))))),
        scale=pick(0.3, 1, 1, 1, 2, 4),
        threshold=pick(0.5, 1, 1, 2),
        rate=float(np.exp(random.uniform(np.log(3e-4), np.log(3e-2)))),
        bounds=pick(False, False, False, True),
        seed=int(random.integers(10**6)),
        convolution=kind == "convolution",
        recurrent=kind == "recurrent",
        width=pick(40, 80, 120),
        classes=classes,
        potentials=potentials,
    )


def layers_of(settings: Settings, inputs: int) -> list["Layer"]:
    """Return the weights of each layer, from input to output."""
    if not settings.convolution:
        sizes = (inputs, *settings.depth * (settings.width,), settings.classes)
        return [Layer(nn.Linear(*pair)) for pair in itertools.pairwise(sizes)]
    found, channels, normalised = [], 1, settings.normalised
    places, width, strides = CONVOLUTIONS[inputs]
    kinds = (nn.Conv1d, nn.BatchNorm1d) if len(places) == 1 else (nn.Conv2d, nn.BatchNorm2d)
    for stride, outputs in zip(strides[: settings.depth], CHANNELS, strict=False):
        weights = kinds[0](channels, outputs, width, stride, width // 2, bias=not normalised)
        norm = kinds[1](outputs, track_running_stats=False) if normalised else None
        found.append(Layer(weights, norm, (*places, channels)))
        places, channels = tuple(-(-place // stride) for place in places), outputs
    return [*found, Layer(nn.Linear(math.prod(places) * channels, settings.classes))]


class Layer(nn.Module):
    """Weights, and perhaps a norm. The input of a convolution has the shape of places, channels."""

    def __init__(self, weights: Any, norm: Any = None, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.weights, self.norm, self.shape = weights, norm or nn.Identity(), shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        images = x.reshape(-1, *self.shape).movedim(-1, 1) if self.shape else x
        currents = self.norm(self.weights(images))
        return (currents.movedim(1, -1) if self.shape else currents).reshape(*x.shape[:2], -1)


class Neurons(nn.Module):
    """Leaky neurons, of a kind of cell, which may have recurrent weights."""

    is_fused = True  # with plain cells; scale_network must see the operations

    def __init__(self, settings: Settings, *, recurrent: bool) -> None:
        super().__init__()
        self.settings = settings
        self.recurrent = nn.Linear(*2 * (settings.width,), bias=False) if recurrent else None

    def forward(self, currents: torch.Tensor) -> torch.Tensor:
        """Return the spikes of neurons with these currents, whose first axis is time."""
        if self.settings.cell == "plain" and Neurons.is_fused:
            weight = None if self.recurrent is None else self.recurrent.weight
            return PlainCells.apply(currents, weight, self.settings)
        cell = cell_of(self.settings)
        if self.settings.cell == "SpikingJelly":
            return cell(currents)
        state = None if self.settings.cell == "Norse" else torch.zeros_like(currents[0])
        spikes: list[torch.Tensor] = []
        for now in currents:
            if self.recurrent is not None and spikes:
                now = now + self.recurrent(spikes[-1])
            spike, state = cell(now, state)
            spikes.append(spike)
        return torch.stack(spikes)


class Potentials(nn.Module):
    """Leaky neurons that do not fire, and that return their potentials."""

    recurrent = None

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.decay = settings.decay

    def forward(self, currents: torch.Tensor) -> torch.Tensor:
        found = [torch.zeros_like(currents[0])]
        for now in currents:
            found.append(self.decay * found[-1] + (1 - self.decay) * now)
        return torch.stack(found[1:])


class Network(nn.Module):
    """A network in PyTorch, with plain cells or the cells of a framework.

    Batch normalisation always uses the statistics of its input, even for the test set.
    """

    def __init__(self, settings: Settings, inputs: int) -> None:
        super().__init__()
        self.settings, self.weights = settings, nn.ModuleList(layers_of(settings, inputs))
        kinds = [settings.recurrent] * (len(self.weights) - 1) + [False]
        self.neurons = nn.ModuleList(Neurons(settings, recurrent=each) for each in kinds)
        if settings.potentials:
            self.neurons[-1] = Potentials(settings)
        self.draw_weights()
        rate = settings.rate * (50 if settings.optimiser == "SGD" else 1)
        self.optimise([{"params": list(self.parameters()), "lr": rate}])

    @torch.no_grad()
    def draw_weights(self) -> None:
        """Draw weights as `torch.nn.Linear` does, and multiply them by the scale."""
        random = np.random.default_rng(self.settings.seed)

        def uniform(inputs: int, *shape: int) -> torch.Tensor:
            return torch.tensor(random.uniform(-(inputs**-0.5), inputs**-0.5, shape).T)

        for weights in (layer.weights for layer in self.weights):
            outputs, inputs = weights.weight.flatten(1).shape
            kernel, bias = uniform(inputs, inputs, outputs), uniform(inputs, outputs)
            weights.weight.copy_(self.settings.scale * kernel.reshape(weights.weight.shape))
            if weights.bias is not None:
                weights.bias.copy_(bias)
        weights.bias += self.settings.bias
        for neurons in self.neurons:
            if neurons.recurrent is not None:
                kernel = uniform(*3 * (self.settings.width,))
                neurons.recurrent.weight.copy_(self.settings.scale * kernel)

    def optimise(self, groups: list[dict[str, Any]], warm_up: int = 1) -> None:
        """Use the optimiser of the settings, which is slower in the first `warm_up` steps."""
        sgd = self.settings.optimiser == "SGD"
        self.optimiser = torch.optim.SGD(groups, momentum=0.9) if sgd else torch.optim.Adam(groups)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser, lambda step: min(1, (step + 1) / warm_up)
        )

    def layers(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the spikes of each layer for an input ``[time, sample, input]``."""
        found = []
        for index, (layer, neurons) in enumerate(zip(self.weights, self.neurons, strict=True)):
            spikes = neurons(layer(x))
            if index == self.settings.detached:
                spikes = spikes.detach()
            x = x + spikes if self.settings.skip and x.shape == spikes.shape else spikes
            found.append(spikes)
        return found

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)[-1]

    @torch.no_grad()
    def output(self, x: torch.Tensor) -> np.ndarray:
        """Return the output spikes as an array."""
        return self(x).numpy()

    def gradients(self, value: torch.Tensor) -> dict[str, Any]:
        """Return the gradients of a value by name; those of recurrent weights are at the end."""
        self.zero_grad()
        if value.requires_grad:
            value.backward()
        return {name: x.grad for name, x in self.named_parameters()}

    def scale_layers(self, x: torch.Tensor, lengths: Any = None) -> None:
        """Scale the weights alone."""
        Neurons.is_fused = False
        options = {"modules": self.neurons, "time_axis": 0, "lengths": lengths}
        try:
            scale_network(self, lambda: self(x), **options)
        finally:
            Neurons.is_fused = True

    def scale(
        self,
        loss: Callable[..., Any],
        x: torch.Tensor,
        label: torch.Tensor,
        step: float,
        warm_up: int,
        recurrent: float = RECURRENT,
        lengths: Any = None,
    ) -> None:
        """Scale the weights and the learning rates as the advice says.

        Recurrent weights are first multiplied by a factor.
        """
        for neurons in self.neurons:
            if neurons.recurrent is not None:
                neurons.recurrent.weight.data *= recurrent / RECURRENT
        self.scale_layers(x, lengths)
        self.gradients(loss(self(x), label, lengths=lengths))  # for SGD
        momentum = 0.9 if self.settings.optimiser == "SGD" else None
        self.optimise(parameter_groups(self, step, momentum=momentum), warm_up)


def train(
    network: Network,
    loss: Callable[..., Any],
    x: Any,
    label: Any,
    epochs: int,
    batch: int,
    penalty: Callable[..., Any] = lambda hidden: 0.0,
    lengths: torch.Tensor | None = None,
) -> Iterator[None]:
    """Train a network, with a pause after each update."""
    generator = torch.Generator().manual_seed(network.settings.seed)
    for _ in range(epochs):
        for chosen in torch.randperm(x.shape[1], generator=generator).split(batch):
            *hidden, output = network.layers(x[:, chosen])
            options = {} if lengths is None else {"lengths": lengths[chosen]}
            target = label[:, chosen] if label.ndim == x.ndim else label[chosen]
            network.gradients(loss(output, target, **options) + penalty(hidden))
            network.optimiser.step()
            network.schedule.step()
            yield


DERIVATIVES: dict[str, Callable[..., torch.Tensor]] = {  # of a surrogate, at slope * distance
    "sigmoid": lambda x, slope: slope * torch.sigmoid(x) * (1 - torch.sigmoid(x)),
    "fast sigmoid": lambda x, slope: 1 / (1 + x.abs()) ** 2,
    "arctan": lambda x, slope: 1 / (1 + (math.pi / 2 * x.abs()) ** 2),
    "triangular": lambda x, slope: (1 - x.abs()).clip(0),
    "box": lambda x, slope: (x.abs() < 0.5).to(x.dtype),
}


class Spike(torch.autograd.Function):
    """Return 1 if a membrane is above its threshold and 0 otherwise, with a surrogate gradient."""

    @staticmethod
    def forward(ctx, above, surrogate, slope):
        ctx.save_for_backward(above)
        ctx.surrogate = surrogate, slope
        return (above > 0).to(above.dtype)

    @staticmethod
    def backward(ctx, cotangent):
        (above,), (surrogate, slope) = ctx.saved_tensors, ctx.surrogate
        return cotangent * DERIVATIVES[surrogate](slope * above, slope), None, None


class PlainCells(torch.autograd.Function):
    """The plain cells of all time steps in one function, which is faster than an operation each."""

    @staticmethod
    def forward(ctx, currents, weight, settings):
        membrane = spike = torch.zeros_like(currents[0])
        above, spikes = torch.empty_like(currents), torch.empty_like(currents)
        for step, current in enumerate(currents):
            membrane = torch.add(current, membrane, alpha=settings.decay)
            if weight is not None and step:
                membrane = torch.addmm(membrane, spike, weight.T)
            above[step] = membrane - settings.threshold
            spikes[step] = spike = (above[step] > 0).to(membrane.dtype)
            membrane = torch.sub(membrane, spike, alpha=settings.threshold)
        ctx.save_for_backward(above, spikes, weight)
        ctx.settings = settings
        return spikes

    @staticmethod
    def backward(ctx, cotangents):
        (above, spikes, weight), settings = ctx.saved_tensors, ctx.settings
        slope = settings.slope
        surrogates = DERIVATIVES[settings.surrogate](slope * above, slope)
        of_currents, of_membrane = torch.empty_like(above), None
        for step in reversed(range(len(above))):
            of_spike = cotangents[step]
            if of_membrane is not None and weight is not None:
                of_spike = torch.addmm(of_spike, of_membrane, weight)
            of_this = surrogates[step] * of_spike
            if of_membrane is not None:
                of_this = torch.add(of_this, of_membrane, alpha=settings.decay)
            of_currents[step] = of_membrane = of_this
        if weight is None:
            return of_currents, None, None
        return of_currents, of_currents[1:].flatten(0, 1).T @ spikes[:-1].flatten(0, 1), None


def cell_of(settings: Settings) -> Callable[..., Any]:
    """Return a cell. Its step takes a current and a state, and returns spikes and a new state.

    The cell of SpikingJelly takes all currents instead, and the cell of Norse filters them first.
    """

    def plain(current: Any, membrane: Any) -> tuple[Any, Any]:
        membrane = settings.decay * membrane + current
        above = membrane - settings.threshold
        spike = Spike.apply(above, settings.surrogate, settings.slope)
        return spike, membrane - settings.threshold * spike.detach()

    if settings.cell == "snnTorch":
        import snntorch
        from snntorch import surrogate

        snntorch.SpikingNeuron.init()  # forget the cells before, which snnTorch would keep forever
        make = getattr(surrogate, settings.surrogate)
        return snntorch.Leaky(
            beta=settings.decay,
            threshold=settings.threshold,
            spike_grad=make() if settings.surrogate == "triangular" else make(settings.slope),
            reset_mechanism=settings.reset,
        )
    if settings.cell == "SpikingJelly":
        from spikingjelly.activation_based import neuron, surrogate

        return neuron.LIFNode(
            tau=1 / (1 - settings.decay),
            decay_input=settings.decay_input,
            v_threshold=float(settings.threshold),
            v_reset=None if settings.reset == "subtract" else 0.0,
            surrogate_function=getattr(surrogate, settings.surrogate)(settings.slope),
            step_mode="m",
        )
    if settings.cell == "Norse":
        from norse.torch import LIFCell, LIFParameters

        parameters = LIFParameters(
            tau_mem_inv=torch.tensor(1000 * (1 - settings.decay)),  # a step takes a millisecond
            v_th=torch.tensor(float(settings.threshold)),
            method=settings.surrogate,
            alpha=torch.tensor(settings.slope),
        )
        return LIFCell(parameters)
    return plain
