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
import torch.nn.functional as F  # noqa: N812

import spikeloss_xp as sx

CLASSES = 10
WIDTH = 100  # neurons in a dense hidden layer
CHANNELS = (8, 16, 16, 16, 16)  # of the convolutions
# The places, the width of the kernels and the strides of convolutions, by the number of inputs.
CONVOLUTIONS = {64: ((8, 8), 3, (1, 2, 1, 1, 1)), 40: ((40,), 5, (2, 2))}
STREAMS = {"reported": 1053, "advice": 2053}  # seeds
# The cells of each set.
SETS = {
    "plain": ("plain",),
    "snnTorch": ("snnTorch",),
    "SpikingJelly": ("SpikingJelly",),
    "JAX": ("JAX", "Spyx"),  # are no longer trained; they keep their number in `draw`
    "Norse": ("Norse",),
    "timing": ("plain",),
}
OWN = {"fast sigmoid": (1, 2), "arctan": (1, 2), "triangular": (0.5, 1), "box": (0.5, 1)}
# The surrogates of each cell, with slopes at which they are wide.
WIDE: dict[str, dict[str, tuple[float, ...]]] = {
    "plain": OWN,
    "snnTorch": {"fast_sigmoid": (1, 2), "atan": (1, 2), "triangular": (1,), "sigmoid": (2, 4)},
    "SpikingJelly": {"ATan": (1, 2), "Sigmoid": (2, 4), "Erf": (1, 2)},
    "Norse": dict.fromkeys(("super", "tanh", "heavi_erfc"), (1, 2)),
}
WIDE["SpikingJelly"]["PiecewiseQuadratic"] = (0.5, 1)


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


class Layer(NamedTuple):
    """The sizes of a layer. A convolution also has the shape of its input, and its stride."""

    inputs: int
    outputs: int
    shape: tuple[int, ...] = ()  # the places and the channels
    stride: int = 1


Weights = list[dict[str, Any]]  # of each layer: kernel, bias, recurrent weights, scale of a norm


def draw(name: str, stream: str, index: int) -> Settings:
    """Return the settings of a network from its set, stream and index.

    In spike timing data, each input fires once. Hardly any of the settings for other data work
    there, so the usual ones have larger weights.
    """
    random = np.random.default_rng((STREAMS[stream], list(SETS).index(name), index))

    def pick(*values: Any) -> Any:
        return values[random.integers(len(values))]

    usual, convolution = random.random() < 0.5, random.random() < 0.25
    cell = pick(*SETS[name])
    surrogate = pick(*WIDE[cell])
    if timing := name == "timing":
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


def layers_of(settings: Settings, inputs: int) -> list[Layer]:
    """Return the sizes of the layers, from input to output."""
    if not settings.convolution:
        sizes = (inputs, *settings.depth * (settings.width,), CLASSES)
        return [Layer(*pair) for pair in itertools.pairwise(sizes)]
    found, channels = [], 1
    places, width, strides = CONVOLUTIONS[inputs]
    for stride, outputs in zip(strides[: settings.depth], CHANNELS, strict=False):
        size = channels * width ** len(places)
        found.append(Layer(size, outputs, (*places, channels), stride))
        places, channels = tuple(-(-place // stride) for place in places), outputs
    return [*found, Layer(math.prod(places) * channels, CLASSES)]


def currents(layer: dict[str, Any], size: Layer, x: Any) -> Any:
    """Return the input ``[time, sample, input]`` of a layer multiplied by its kernel.

    The currents of a convolution are ``[time, sample, place, channel]``.
    """
    if not size.shape:
        return x @ layer["kernel"]
    *places, channels = size.shape
    width = round((size.inputs / channels) ** (1 / len(places)))
    kernel = layer["kernel"].T.reshape(size.outputs, channels, *(width for _ in places))
    convolution = F.conv1d if len(places) == 1 else F.conv2d
    images = x.reshape(-1, *size.shape).movedim(-1, 1)
    found = convolution(images, kernel, stride=size.stride, padding=width // 2)
    return found.movedim(1, -1).reshape(*x.shape[:2], -1, size.outputs)


def rms(x: torch.Tensor) -> float:
    return float(x.detach().square().mean().sqrt())


def train(
    network: "Network", loss: Callable[..., Any], x: Any, label: Any, epochs: int, batch: int
) -> Iterator[None]:
    """Train a network, with a pause after each epoch."""
    generator = torch.Generator().manual_seed(network.settings.seed)
    for _ in range(epochs):
        for chosen in torch.randperm(len(label), generator=generator).split(batch):
            network.step(loss, x[:, chosen], label[chosen])
        yield


class Network:
    """A network in PyTorch, with plain cells or the cells of a framework.

    Batch normalisation always uses the statistics of its input, even for the test set.
    """

    penalty: Callable[..., Any] = staticmethod(lambda hidden: 0.0)  # is added to the loss

    def __init__(self, settings: Settings, inputs: int) -> None:
        self.settings, self.sizes = settings, layers_of(settings, inputs)
        self.weights = [
            {
                name: torch.tensor(x, dtype=torch.float32, requires_grad=True)
                for name, x in each.items()
            }
            for each in self.drawn()
        ]
        rate = settings.rate * (50 if settings.optimiser == "SGD" else 1)
        self.optimise([dict.fromkeys(layer, rate) for layer in self.weights])

    def optimise(self, rates: list[dict[str, float]], warm_up: int = 1) -> None:
        """Use the optimiser of the settings, which is slower in the first `warm_up` steps."""
        weights, rates = by_name(self.weights), by_name(rates)
        groups = [{"params": [x], "lr": rates[name]} for name, x in weights.items()]
        sgd = self.settings.optimiser == "SGD"
        self.optimiser = torch.optim.SGD(groups, momentum=0.9) if sgd else torch.optim.Adam(groups)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser, lambda step: min(1, (step + 1) / warm_up)
        )

    def drawn(self) -> Weights:
        """Return weights drawn as in `torch.nn.Linear`, multiplied by the scale."""
        random, found = np.random.default_rng(self.settings.seed), []

        def uniform(inputs: int, *shape: int) -> np.ndarray:
            return random.uniform(-(inputs**-0.5), inputs**-0.5, shape)

        for inputs, outputs, shape, _ in self.sizes:
            kernel = self.settings.scale * uniform(inputs, inputs, outputs)
            found.append({"kernel": kernel, "bias": uniform(inputs, outputs)})
            if self.settings.normalised and shape:
                found[-1] |= {"scale": np.ones(outputs), "bias": np.zeros(outputs)}
        found[-1]["bias"] += self.settings.bias
        for layer in found[:-1] if self.settings.recurrent else ():
            width = self.settings.width
            layer["recurrent"] = self.settings.scale * uniform(width, width, width)
        return found

    def spikes(self, weights: Weights, x: Any) -> list[Any]:
        """Return the spikes of each layer for an input ``[time, sample, input]``."""
        found = []
        for index, (layer, size) in enumerate(zip(weights, self.sizes, strict=True)):
            current = currents(layer, size, x)
            if "scale" in layer:
                current = current - current.mean((0, 1, 2))
                current = layer["scale"] * current / ((current**2).mean((0, 1, 2)) + 1e-5) ** 0.5
            current = (current + layer["bias"]).reshape(*x.shape[:2], -1)
            spikes = self.fire(current, layer.get("recurrent"))
            if index == self.settings.detached:
                spikes = spikes.detach()
            x = x + spikes if self.settings.skip and x.shape == spikes.shape else spikes
            found.append(spikes)
        return found

    def fire(self, current: torch.Tensor, recurrent: torch.Tensor | None) -> torch.Tensor:
        """Return the spikes of leaky neurons with these currents, whose first axis is time."""
        cell = TORCH_CELLS[self.settings.cell](self.settings)
        if self.settings.cell == "SpikingJelly":
            return cell(current)
        state = None if self.settings.cell == "Norse" else torch.zeros_like(current[0])
        spikes: list[torch.Tensor] = []
        for now in current:
            if recurrent is not None and spikes:
                now = now + spikes[-1] @ recurrent
            spike, state = cell(now, state)
            spikes.append(spike)
        return torch.stack(spikes)

    def inspect(
        self, loss: Callable[..., Any], x: torch.Tensor, label: torch.Tensor
    ) -> tuple[Any, list[Any], Any]:
        """Return the value of the loss, the spikes of each layer, and the gradients by name.

        The gradients of recurrent weights are at the end.
        """
        self.optimiser.zero_grad()
        layers = self.spikes(self.weights, x)
        value = loss(layers[-1], label) + self.penalty(layers[:-1])
        if value.requires_grad:
            value.backward()
        return value.detach(), layers, {name: x.grad for name, x in by_name(self.weights).items()}

    @torch.no_grad()
    def evaluated(self, weights: Weights, x: torch.Tensor) -> list[Any]:
        """Return the spikes of each layer with other weights."""
        return self.spikes(weights, x)

    def output(self, x: torch.Tensor) -> np.ndarray:
        """Return the output spikes."""
        return np.asarray(self.evaluated(self.weights, x)[-1])

    def step(self, loss: Callable[..., Any], x: torch.Tensor, label: torch.Tensor) -> None:
        """Change the weights once."""
        self.inspect(loss, x, label)
        self.optimiser.step()
        self.schedule.step()

    def scale(
        self,
        loss: Callable[..., Any],
        x: torch.Tensor,
        label: torch.Tensor,
        step: float,
        warm_up: int,
    ) -> None:
        """Scale each layer until it fires in 5 % of the steps of a batch, and set the biases to 0.

        The learning rate of each weight becomes `step` times its root mean square. With SGD, this
        is divided by the root mean square of the first gradient. Before batch normalisation, its
        scale is multiplied instead of the weights.
        """
        start = [layer | {"bias": 0 * layer["bias"]} for layer in self.weights]
        scaled = [("scale",) if "scale" in each else ("kernel", "recurrent") for each in start]

        def multiplied(factors: list[float]) -> Weights:
            return [
                layer | {name: factor * layer[name] for name in names if name in layer}
                for layer, names, factor in zip(start, scaled, factors, strict=True)
            ]

        def run(factors: list[float]) -> list[Any]:
            return self.evaluated(multiplied(factors), x)

        found = multiplied(sx.scale_to_rate(run, len(start), 0.05, time_axis=0))
        self.weights = [{k: x.detach().requires_grad_() for k, x in each.items()} for each in found]
        rates = [{name: step * rms(x) for name, x in layer.items()} for layer in self.weights]
        if self.settings.optimiser == "SGD":
            self.inspect(loss, x, label)
            for layer, own in zip(self.weights, rates, strict=True):
                own |= {
                    k: rate * (1 - 0.9) / (rms(layer[k].grad) + 1e-12) for k, rate in own.items()
                }
        for own, (of_bias, *_) in zip(rates, scaled, strict=True):
            own["bias"] = own[of_bias]
        self.optimise(rates, warm_up)


def by_name(layers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what all layers have, with the recurrent weights at the end."""
    found = {f"{i}.{name}": x for i, layer in enumerate(layers) for name, x in layer.items()}
    return dict(sorted(found.items(), key=lambda item: "recurrent" in item[0]))


# A step of a cell takes a current and a state, and returns spikes and a new state.


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
        distance, probability = slope * above.abs(), torch.sigmoid(slope * above)
        derivative = {
            "sigmoid": slope * probability * (1 - probability),
            "fast sigmoid": 1 / (1 + distance) ** 2,
            "arctan": 1 / (1 + (math.pi / 2 * distance) ** 2),
            "triangular": (1 - distance).clip(0),
            "box": (distance < 0.5).to(above.dtype),
        }[surrogate]
        return cotangent * derivative, None, None


def plain_cell(settings: Settings) -> Callable[..., Any]:
    """Return a cell that decays, adds the current, and subtracts the threshold after a spike."""

    def step(current: Any, membrane: Any) -> tuple[Any, Any]:
        membrane = settings.decay * membrane + current
        above = membrane - settings.threshold
        spike = Spike.apply(above, settings.surrogate, settings.slope)
        return spike, membrane - settings.threshold * spike.detach()

    return step


def snntorch_cell(settings: Settings) -> Any:
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


def spikingjelly_cell(settings: Settings) -> Any:
    from spikingjelly.activation_based import neuron, surrogate

    return neuron.LIFNode(
        tau=1 / (1 - settings.decay),
        decay_input=settings.decay_input,
        v_threshold=float(settings.threshold),
        v_reset=None if settings.reset == "subtract" else 0.0,
        surrogate_function=getattr(surrogate, settings.surrogate)(settings.slope),
        step_mode="m",
    )


def norse_cell(settings: Settings) -> Any:
    """Return a LIF cell of Norse, which filters the current and resets to 0."""
    from norse.torch import LIFCell, LIFParameters

    parameters = LIFParameters(
        tau_mem_inv=torch.tensor(1000 * (1 - settings.decay)),  # a step takes a millisecond
        v_th=torch.tensor(float(settings.threshold)),
        method=settings.surrogate,
        alpha=torch.tensor(settings.slope),
    )
    return LIFCell(parameters)


TORCH_CELLS = {
    "plain": plain_cell,
    "snnTorch": snntorch_cell,
    "SpikingJelly": spikingjelly_cell,
    "Norse": norse_cell,
}
