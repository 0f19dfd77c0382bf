"""The spiking networks of all measurements, in five libraries.

`draw` returns the settings of a random network, for verdict.py and advice.py. About half of these
networks start near values that usually work: a wide surrogate, moderate weights and a low
threshold. The settings of the others are drawn from wide ranges, so that most of them fail, each
for reasons of its own. The settings depend only on the set, the stream and the index of a network,
so any network can be rebuilt alone.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

import spikeloss_xp as sx

CLASSES = 10
WIDTH = 100  # neurons in a dense hidden layer
SIDE = 8  # of an image; the convolutions of random networks expect digits
CHANNELS = ((1, 8, 1), (8, 16, 2)) + 3 * ((16, 16, 1),)  # inputs, outputs, stride
KERNEL = 5  # of a convolution over a signal
OF_SIGNAL = ((1, 8, 2), (8, 16, 2), (16 * 7, CLASSES, None))  # 7 places are left of 40
STREAMS = {"tuning": 53, "reported": 1053, "advice": 2053}  # seeds
# The cells of each set.
SETS = {
    "plain": ("plain",),
    "snnTorch": ("snnTorch",),
    "SpikingJelly": ("SpikingJelly",),
    "JAX": ("JAX", "Spyx"),
    "Norse": ("Norse",),
    "timing": ("plain",),
}
OWN = {"fast sigmoid": (1, 2), "arctan": (1, 2), "triangular": (0.5, 1), "box": (0.5, 1)}
# The surrogates of each cell, with slopes at which they are wide.
WIDE: dict[str, dict[str, tuple[float, ...]]] = {
    "plain": OWN,
    "JAX": OWN,
    "snnTorch": {"fast_sigmoid": (1, 2), "atan": (1, 2), "triangular": (1,), "sigmoid": (2, 4)},
    "SpikingJelly": {"ATan": (1, 2), "Sigmoid": (2, 4), "Erf": (1, 2)},
    "Spyx": dict.fromkeys(("superspike", "arctan", "tanh"), (1, 2)),
    "Norse": dict.fromkeys(("super", "tanh", "heavi_erfc"), (1, 2)),
}
WIDE["SpikingJelly"]["PiecewiseQuadratic"] = (0.5, 1)
WIDE["Spyx"] |= dict.fromkeys(("triangular", "boxcar"), (0.5, 1))


class Settings(NamedTuple):
    """Everything that defines a network and its training.

    `scale` multiplies the initial weights, `bounds` tells whether the loss has bounds on the rates,
    and `detached` is the index of a layer whose spikes are detached by mistake. `width` is the
    number of neurons in a dense hidden layer. SGD has a momentum of 0.9 and 50 times the `rate`.

    If `seeds` is not 0, that many networks are trained at once: all arrays have an axis for them
    after the time, the seeds are 0, 1 and so on, and a convolution goes over a signal instead of an
    image. `bias` is added to their initial output biases.
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
    classes: int = CLASSES
    optimiser: str = "Adam"
    seeds: int = 0
    bias: float = 0.0


class Scaling(NamedTuple):
    """How the weights of a network are scaled, and how fast they change.

    By default, the weights are scaled until each layer fires at `rate`. The biases are 0, and the
    learning rate of a layer is `step` times the root mean square of its weights; with SGD, this is
    divided by that of the first gradients. The learning rates grow during the first `warm_up`
    steps. If `fluctuations` is true, the deviation of the membranes decides about the weights.
    Without a `step`, the biases stay, the learning rate is multiplied by the factor of the layer,
    and the bisection does not tell whether the rate was reached.
    """

    step: float | None = 0.03
    warm_up: int = 20
    rate: float = 0.05
    fluctuations: bool = False


class Layer(NamedTuple):
    """The sizes of a layer: neurons, or channels if there is a stride."""

    inputs: int
    outputs: int
    stride: int | None = None


Inspected = tuple[Any, list[Any], dict[str, Any]]
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
    if settings.seeds and settings.convolution:
        return [Layer(*each) for each in OF_SIGNAL]
    if not settings.convolution:
        sizes = (inputs, *settings.depth * (settings.width,), settings.classes)
        return [Layer(*pair) for pair in itertools.pairwise(sizes)]
    hidden = [Layer(*each) for each in CHANNELS[: settings.depth]]
    side = SIDE // math.prod(each.stride or 1 for each in hidden)
    return [*hidden, Layer(hidden[-1].outputs * side**2, settings.classes)]


def build(settings: Settings, inputs: int) -> "TorchNetwork | JAXNetwork":
    """Return the untrained network with these settings."""
    in_jax = settings.cell in SETS["JAX"]
    if settings.recurrent and (in_jax or settings.cell == "SpikingJelly"):
        raise ValueError(f"a recurrent network with {settings.cell} cells is not implemented")
    if in_jax and settings.optimiser != "Adam":
        raise ValueError(f"{settings.optimiser} in JAX is not implemented")
    return (JAXNetwork if in_jax else TorchNetwork)(settings, inputs)


def weights_of_seeds(settings: Settings, sizes: list[Layer]) -> Weights:
    """Return weights drawn as in `torch.nn.Linear`, with a first axis for the seeds."""
    networks = []
    shapes = [(size.inputs * (KERNEL if size.stride else 1), size.outputs) for size in sizes]
    shapes += settings.recurrent * [(settings.width, settings.width)]
    for seed in range(settings.seeds):
        random = np.random.default_rng(seed)
        drawn = [random.uniform(-(n**-0.5), n**-0.5, (n + 1, outputs)) for n, outputs in shapes]
        layers = [{"kernel": x[1:], "bias": x[:1]} for x in drawn[: len(sizes)]]
        layers[-1]["bias"] += settings.bias
        if settings.recurrent:
            layers[0]["recurrent"] = drawn[-1][1:]
        networks.append(layers)
    return [
        {name: np.stack([layer[name] for layer in same]).astype(np.float32) for name in same[0]}
        for same in zip(*networks, strict=True)
    ]


# Scaling -----------------------------------------------------------------------------------------


def factors_of(
    scaling: Scaling, settings: Settings, run: Callable[..., Any], layers: int, x: torch.Tensor
) -> list[float]:
    """Return the factors by which the weights of the layers are multiplied."""
    if scaling.fluctuations:
        return layers * [fluctuating(settings, x)]
    if scaling.step is not None:
        return sx.scale_to_rate(run, layers, scaling.rate, time_axis=0)
    factors = layers * [1.0]
    for layer in range(layers):
        low, high = 1e-3, 1e3
        for _ in range(20):
            factors[layer] = factor = (low * high) ** 0.5
            below = run(factors)[layer].mean() < scaling.rate
            low, high = (factor, high) if below else (low, factor)
    return factors


def fluctuating(settings: Settings, x: torch.Tensor) -> float:
    """Return the factor for PyTorch's default weights at which membranes fluctuate by a threshold.

    Without spikes, the standard deviation of the membranes of a dense layer equals the threshold if
    its inputs fire as often as those of the network (Rossbroich et al., 2022).
    """
    kept, gain = settings.decay, 1.0
    if settings.cell == "Norse" or settings.decay_input:
        gain = 1 - kept
    membrane, current, energy = 0.0, 1.0, 0.0
    for _ in range(500):  # the membrane after a spike
        membrane = kept * membrane + gain * current
        current *= 0.8 if settings.cell == "Norse" else 0  # its default synapse, at a millisecond
        energy += membrane**2
    variance = float((x**2).mean()) * energy / 3  # with weights of 1 / (3 * inputs) as variance
    return float(settings.threshold / variance**0.5)


@torch.no_grad()
def rms(x: Any) -> float:
    return float((x**2).mean() ** 0.5)


def by_name(weights: Weights) -> dict[str, Any]:
    """Return what all layers have, with the recurrent weights at the end."""
    found = {f"{i}.{name}": x for i, layer in enumerate(weights) for name, x in layer.items()}
    return dict(sorted(found.items(), key=lambda item: "recurrent" in item[0]))


# Networks ----------------------------------------------------------------------------------------


class Network:
    """What the networks of both libraries share.

    A subclass draws the `weights`, and tells how a convolution and the neurons are computed. Its
    `step` performs a training step. Its `inspect` returns the value of the loss, the spikes of each
    layer and the gradients by name, with those of recurrent weights at the end.
    """

    image: tuple[int, ...]  # the shape of an image with a single channel

    def __init__(self, settings: Settings, inputs: int) -> None:
        self.settings, self.sizes = settings, layers_of(settings, inputs)
        drawn = weights_of_seeds(settings, self.sizes) if settings.seeds else self.drawn()
        self.weights = self.placed(drawn)
        self.optimise([dict.fromkeys(layer, self.rate) for layer in self.weights])

    @property
    def rate(self) -> float:
        """The learning rate of all layers."""
        return self.settings.rate * (50 if self.settings.optimiser == "SGD" else 1)

    def spikes(self, weights: Weights, x: Any) -> list[Any]:
        """Return the spikes of each layer for an input ``[time, sample, input]``."""
        start, found = x.shape[:-1], []
        if self.settings.convolution:
            x = x.reshape(*start, *((1, -1) if self.settings.seeds else self.image))
        for index, (layer, size) in enumerate(zip(weights, self.sizes, strict=True)):
            if size.stride is None:
                current = x.reshape(*start, -1) @ layer["kernel"] + layer["bias"]
            else:
                current = self.convolved(index, layer, size.stride, x)
            spikes = self.fire(current, layer.get("recurrent"))
            if index == self.settings.detached:
                spikes = spikes.detach()
            x = x + spikes if self.settings.skip and x.shape == spikes.shape else spikes
            found.append(spikes.reshape(*start, -1))
        return found

    def scale(
        self, scaling: Scaling, loss: Callable[..., Any], x: torch.Tensor, label: torch.Tensor
    ) -> None:
        """Scale the weights on a batch, or those of the batch normalisation that follows them."""
        start = self.weights
        if scaling.step is not None:
            start = [layer | {"bias": 0 * layer["bias"]} for layer in start]
        changed = [("scale",) if "scale" in each else ("kernel", "recurrent") for each in start]

        def scaled(factors: list[float]) -> Weights:
            return [
                layer | {name: factor * layer[name] for name in names if name in layer}
                for layer, names, factor in zip(start, changed, factors, strict=True)
            ]

        def run(factors: list[float]) -> list[Any]:
            return self.evaluated(scaled(factors), x)

        factors = factors_of(scaling, self.settings, run, len(start), x)
        self.weights = self.placed(scaled(factors))
        _, _, gradients = self.inspect(loss, x, label)
        rates = []
        for index, (names, factor) in enumerate(zip(changed, factors, strict=True)):
            layer = self.weights[index]
            if scaling.step is None:
                scaled_too = (*names, "bias")
                rates.append({x: self.rate * (factor if x in scaled_too else 1) for x in layer})
                continue
            sizes = {name: scaling.step * rms(weight) for name, weight in layer.items()}
            if self.settings.optimiser == "SGD":
                for name in sizes:
                    sizes[name] *= (1 - 0.9) / (rms(gradients[f"{index}.{name}"]) + 1e-12)
            rates.append(sizes | {"bias": sizes[names[0]]})
        self.optimise(rates, scaling.warm_up)


class TorchNetwork(Network):
    """A network in PyTorch, with plain cells or the cells of a framework."""

    image = 1, SIDE, SIDE
    training = True

    def drawn(self) -> Weights:
        """Return the weights that `torch.nn` draws, multiplied by the scale."""
        torch.manual_seed(self.settings.seed)
        self.statistics: dict[int, Any] = {}  # running means and variances of batch normalisation
        width, normalised, found = self.settings.width, self.settings.normalised, []
        for size in self.sizes:
            options = {} if size.stride is None else {"kernel_size": 3, "bias": not normalised}
            kind = torch.nn.Linear if size.stride is None else torch.nn.Conv2d
            part = kind(size.inputs, size.outputs, **options)
            kernel = part.weight if size.stride else part.weight.T
            found.append({"kernel": self.settings.scale * kernel, "bias": part.bias})
            if part.bias is None:
                found[-1] |= {"bias": torch.zeros(size.outputs), "scale": torch.ones(size.outputs)}
        for layer in found[:-1] if self.settings.recurrent else ():
            part = torch.nn.Linear(width, width, bias=False)
            layer["recurrent"] = self.settings.scale * part.weight.T
        return found

    def placed(self, weights: Weights) -> Weights:
        """Return the weights as leaves of a graph."""
        return [
            {name: torch.as_tensor(x).detach().clone().requires_grad_() for name, x in each.items()}
            for each in weights
        ]

    def optimise(self, rates: list[dict[str, float]], warm_up: int = 1) -> None:
        """Start an optimiser with a learning rate for each weight."""
        of_weights = zip(by_name(self.weights).values(), by_name(rates).values(), strict=True)
        groups = [{"params": [weight], "lr": rate} for weight, rate in of_weights]
        options = {"momentum": 0.9} if self.settings.optimiser == "SGD" else {}
        self.optimiser = getattr(torch.optim, self.settings.optimiser)(groups, **options)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser, lambda step: min(1, (step + 1) / warm_up)
        )

    def convolved(self, index: int, layer: dict, stride: int, x: torch.Tensor) -> torch.Tensor:
        """Return the currents of a convolution over an image or a signal."""
        if self.settings.seeds:  # ``[time, seed, sample, channel, place]``
            patches = x.unfold(-1, KERNEL, stride).transpose(3, 4).flatten(4)
            current = patches.flatten(2, 3) @ layer["kernel"] + layer["bias"]
            return current.unflatten(2, patches.shape[2:4]).transpose(3, 4)
        bias = None if "scale" in layer else layer["bias"]
        current = torch.nn.functional.conv2d(x.flatten(0, 1), layer["kernel"], bias, stride, 1)
        if "scale" in layer:
            channels = len(layer["bias"])
            statistics = self.statistics.setdefault(
                index, (torch.zeros(channels), torch.ones(channels))
            )
            current = torch.nn.functional.batch_norm(
                current, *statistics, layer["scale"], layer["bias"], self.training
            )
        return current.unflatten(0, x.shape[:2])

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

    def inspect(self, loss: Callable[..., Any], x: torch.Tensor, label: torch.Tensor) -> Inspected:
        layers = self.spikes(self.weights, x)
        value = loss(layers[-1], label)
        self.optimiser.zero_grad()
        if value.requires_grad:
            value.backward()
        gradients = {name: x.grad for name, x in by_name(self.weights).items()}
        return value.detach(), layers, gradients

    def step(self, loss: Callable[..., Any], x: torch.Tensor, label: torch.Tensor) -> None:
        self.inspect(loss, x, label)
        self.optimiser.step()
        self.schedule.step()

    @torch.no_grad()
    def evaluated(self, weights: Weights, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the spikes of each layer with other weights."""
        return self.spikes(weights, x)

    def output(self, x: torch.Tensor) -> np.ndarray:
        """Return the output spikes of the network in evaluation mode."""
        self.training = False
        spikes = self.evaluated(self.weights, x)[-1]
        self.training = True
        return spikes.numpy()


# A step of a cell takes a current and a state, and returns spikes and a new state.


def surrogate_gradient(cotangent: Any, above: Any, surrogate: str, slope: float) -> Any:
    """Return the gradient with respect to a membrane that is this far above its threshold.

    The arguments may be tensors or JAX arrays, except that "sigmoid" is only for tensors.
    """
    distance = slope * abs(above)
    if surrogate == "sigmoid":
        probability = torch.sigmoid(slope * above)
        return cotangent * slope * probability * (1 - probability)
    if surrogate == "fast sigmoid":
        return cotangent / (1 + distance) ** 2
    if surrogate == "arctan":
        return cotangent / (1 + (math.pi / 2 * distance) ** 2)
    return cotangent * ((1 - distance).clip(0) if surrogate == "triangular" else distance < 0.5)


class Spike(torch.autograd.Function):
    """Return 1 if a membrane is above its threshold and 0 otherwise, with a surrogate gradient."""

    @staticmethod
    def forward(ctx, above, surrogate, slope):
        ctx.save_for_backward(above)
        ctx.surrogate = surrogate, slope
        return (above > 0).to(above.dtype)

    @staticmethod
    def backward(ctx, cotangent):
        return surrogate_gradient(cotangent, *ctx.saved_tensors, *ctx.surrogate), None, None


def leaky(settings: Settings, fire: Callable[..., Any], detached: Callable[..., Any]) -> Any:
    """Return a cell that decays, adds the current, and subtracts the threshold after a spike."""

    def step(current: Any, membrane: Any) -> tuple[Any, Any]:
        membrane = settings.decay * membrane + current
        spike = fire(membrane - settings.threshold)
        return spike, membrane - settings.threshold * detached(spike)

    return step


def plain_cell(settings: Settings) -> Callable[..., Any]:
    surrogate = settings.surrogate, settings.slope
    return leaky(settings, lambda above: Spike.apply(above, *surrogate), torch.Tensor.detach)


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
        detach_reset=not settings.seeds,  # networks with seeds have the default
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


class JAXNetwork(Network):
    """A network in JAX, with plain cells or the cells of Spyx.

    The shapes of its weights are those of flax. Batch normalisation always uses the statistics of
    its input, even for the test set.
    """

    image = SIDE, SIDE, 1

    def drawn(self) -> Weights:
        """Return weights drawn from the distributions of PyTorch, multiplied by the scale."""
        random, found = np.random.default_rng(self.settings.seed), []
        for size in self.sizes:
            shape = (size.inputs, size.outputs) if size.stride is None else (3, 3, *size[:2])
            bound = math.prod(shape[:-1]) ** -0.5
            kernel, bias = (random.uniform(-bound, bound, x) for x in (shape, shape[-1]))
            layer = {"kernel": self.settings.scale * kernel, "bias": bias}
            if self.settings.normalised and size.stride is not None:
                layer |= {"scale": np.ones(size.outputs), "bias": np.zeros(size.outputs)}
            found.append({name: each.astype(np.float32) for name, each in layer.items()})
        return found

    def placed(self, weights: Weights) -> Weights:
        return weights

    def optimise(self, rates: list[dict[str, float]], warm_up: int = 1) -> None:
        """Start an optimiser with a learning rate for each weight."""
        import jax
        import optax

        optimiser = optax.adam(optax.linear_schedule(1 / warm_up, 1, max(warm_up - 1, 1)))

        def step(weights: Weights, state: Any, gradients: Any) -> Any:
            updates, state = optimiser.update(gradients, state)
            updates = jax.tree.map(lambda update, rate: rate * update, updates, rates)
            return optax.apply_updates(weights, updates), state

        self.state, self._step = optimiser.init(self.weights), jax.jit(step)

    @functools.cached_property
    def _value(self) -> Callable[..., Any]:
        import jax

        def value(weights: Weights, loss: Any, x: Any, label: Any) -> Any:
            layers = self.spikes(weights, x)
            return loss(layers[-1], label), layers

        return jax.jit(jax.value_and_grad(value, has_aux=True), static_argnums=1)

    @functools.cached_property
    def _spikes(self) -> Callable[..., Any]:
        import jax

        return jax.jit(self.spikes)

    def convolved(self, index: int, layer: dict, stride: int, x: Any) -> Any:
        """Return the currents of a convolution."""
        import jax

        axes, padding = ("NHWC", "HWIO", "NHWC"), [(1, 1), (1, 1)]
        current = jax.lax.conv_general_dilated(
            x.reshape(-1, *x.shape[2:]), layer["kernel"], 2 * (stride,), padding,
            dimension_numbers=axes,
        )  # fmt: skip
        if "scale" in layer:
            mean, variance = current.mean((0, 1, 2)), current.var((0, 1, 2))
            current = layer["scale"] * (current - mean) / jax.numpy.sqrt(variance + 1e-5)
        return (current + layer["bias"]).reshape(*x.shape[:2], *current.shape[1:])

    def fire(self, current: Any, recurrent: None) -> Any:
        """Return the spikes of leaky neurons with these currents, whose first axis is time."""
        import jax

        cell = spyx_cell(self.settings) if self.settings.cell == "Spyx" else jax_cell(self.settings)
        start = jax.numpy.zeros_like(current[0])
        # A cell returns spikes and membrane, but a scan expects the reverse order.
        return jax.lax.scan(lambda state, now: cell(now, state)[::-1], start, current)[1]

    def gradients(self, loss: Callable[..., Any], x: torch.Tensor, label: torch.Tensor) -> Any:
        return self._value(self.weights, loss, x.numpy(), label.numpy())

    def inspect(self, loss: Callable[..., Any], x: torch.Tensor, label: torch.Tensor) -> Inspected:
        (value, layers), gradients = self.gradients(loss, x, label)
        return value, layers, by_name(gradients)

    def step(self, loss: Callable[..., Any], x: torch.Tensor, label: torch.Tensor) -> None:
        _, gradients = self.gradients(loss, x, label)
        self.weights, self.state = self._step(self.weights, self.state, gradients)

    def evaluated(self, weights: Weights, x: torch.Tensor) -> list[Any]:
        """Return the spikes of each layer with other weights."""
        return self._spikes(weights, x.numpy())

    def output(self, x: torch.Tensor) -> np.ndarray:
        """Return the output spikes of the network."""
        return np.asarray(self.evaluated(self.weights, x)[-1])


def jax_cell(settings: Settings) -> Callable[..., Any]:
    import jax

    @jax.custom_jvp
    def fire(above: Any) -> Any:
        return (above > 0).astype(above.dtype)

    @fire.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        (above,), (tangent,) = primals, tangents
        gradient = surrogate_gradient(tangent, above, settings.surrogate, settings.slope)
        return fire(above), gradient

    return leaky(settings, fire, jax.lax.stop_gradient)


def spyx_cell(settings: Settings) -> Callable[..., Any]:
    import spyx.axn
    import spyx.nn
    from flax import nnx

    value = 1 / settings.slope if settings.surrogate == "boxcar" else settings.slope
    activation = getattr(spyx.axn, settings.surrogate)(value)
    return spyx.nn.LIF((), settings.decay, settings.threshold, activation, rngs=nnx.Rngs(0))
