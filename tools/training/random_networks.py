"""Random spiking networks in five libraries, for verdict.py and advice.py.

About half of the networks start near values that usually work: a wide surrogate, moderate weights
and a low threshold. The settings of the other networks are drawn from wide ranges, so that most of
them fail, each for reasons of its own. The settings depend only on the set, the stream and the
index of a network, so any network can be rebuilt alone.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from training_networks import CLASSES, Spike, surrogate_gradient, unrolled

import spikeloss_xp as sx

WIDTH = 100  # neurons in a dense hidden layer
SIDE = 8  # of an image; the convolutions expect digits
CHANNELS = ((1, 8, 1), (8, 16, 2)) + 3 * ((16, 16, 1),)  # inputs, outputs, stride
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
    "SpikingJelly": {
        "ATan": (1, 2),
        "Sigmoid": (2, 4),
        "Erf": (1, 2),
        "PiecewiseQuadratic": (0.5, 1),
    },
    "Spyx": {
        "superspike": (1, 2),
        "arctan": (1, 2),
        "tanh": (1, 2),
        "triangular": (0.5, 1),
        "boxcar": (0.5, 1),
    },
    "Norse": {"super": (1, 2), "tanh": (1, 2), "heavi_erfc": (1, 2)},
}


class Settings(NamedTuple):
    """Everything that defines a network and its training.

    `scale` multiplies the initial weights, `bounds` tells whether the loss has bounds on the rates,
    and `detached` is the index of a layer whose spikes are detached by mistake. `width` is the
    number of neurons in a dense hidden layer. SGD has a momentum of 0.9 and 50 times the `rate`.
    """

    cell: str
    surrogate: str
    slope: float
    depth: int
    decay: float
    scale: float
    threshold: float
    rate: float
    bounds: bool
    reset: str
    seed: int
    convolution: bool = False
    normalised: bool = False
    skip: bool = False
    decay_input: bool = False
    detached: int | None = None
    recurrent: bool = False
    width: int = WIDTH
    classes: int = CLASSES
    optimiser: str = "Adam"


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


class Batch(NamedTuple):
    """What a network did with a batch, in the arrays of its library.

    Spikes have the axes ``[time, sample, neuron]``. The gradients are ordered from input to output.
    """

    value: Any
    output: Any
    hidden: list[Any]
    gradients: Any


def draw(name: str, stream: str, index: int) -> Settings:
    """Return the settings of a network from its set, stream and index."""
    random = np.random.default_rng((STREAMS[stream], list(SETS).index(name), index))

    def pick(*values: Any) -> Any:
        return values[random.integers(len(values))]

    usual, convolution = random.random() < 0.5, random.random() < 0.25
    cell = pick(*SETS[name])
    surrogate = pick(*WIDE[cell])
    if name == "timing":
        return timing(pick, usual, int(random.integers(10**6)))
    depth = pick(2, 3, 4, 5) if convolution else pick(1, 2, 3, 4, 5)
    return Settings(
        cell,
        surrogate,
        slope=float(pick(*WIDE[cell][surrogate]) if usual else pick(0.5, 1, 2, 5, 10, 25, 100)),
        depth=depth,
        decay=pick(0.5, 0.8, 0.9) if usual else pick(0.5, 0.8, 0.9, 0.95),
        scale=pick(1, 1.5, 2) if usual else pick(0.3, 1, 2, 4, 8),
        threshold=pick(0.5, 1) if usual else pick(0.5, 1, 2),
        rate=pick(0.002, 0.005) if usual else pick(0.0005, 0.002, 0.01),
        bounds=pick(False, True),
        reset=pick("subtract", "zero"),
        seed=int(random.integers(10**6)),
        convolution=convolution,
        normalised=convolution and pick(False, True),
        skip=convolution and pick(False, True),
        decay_input=cell == "SpikingJelly" and not usual and pick(False, True),
        detached=pick(*range(depth + 1)) if cell == "plain" and random.random() < 1 / 16 else None,
    )


def timing(pick: Callable[..., Any], usual: bool, seed: int) -> Settings:
    """Return the settings of a network for spike timing data, in which each input fires once.

    Hardly any of the settings for other data work, so the `usual` ones have larger weights.
    """
    surrogate = pick(*OWN)
    return Settings(
        "plain",
        surrogate,
        slope=float(pick(*OWN[surrogate]) if usual else pick(0.5, 1, 2, 5, 10, 25, 100)),
        depth=pick(1, 2, 3),
        decay=pick(0.9, 0.95) if usual else pick(0.5, 0.8, 0.9, 0.95),
        scale=pick(3, 5, 8) if usual else pick(0.3, 1, 2, 4, 8),
        threshold=pick(0.5, 1) if usual else pick(0.5, 1, 2),
        rate=pick(0.002, 0.005) if usual else pick(0.0005, 0.002, 0.01),
        bounds=pick(False, True),
        reset="subtract",
        seed=seed,
        recurrent=pick(False, True),
        width=pick(50, 100),
    )


def layers_of(settings: Settings, inputs: int) -> list[Layer]:
    """Return the sizes of the layers, from input to output."""
    if not settings.convolution:
        sizes = (inputs, *settings.depth * (settings.width,), settings.classes)
        return [Layer(*pair) for pair in itertools.pairwise(sizes)]
    hidden = [Layer(*each) for each in CHANNELS[: settings.depth]]
    side = SIDE // math.prod(each.stride or 1 for each in hidden)
    return [*hidden, Layer(hidden[-1].outputs * side**2, settings.classes)]


def build(settings: Settings, inputs: int) -> "TorchNetwork | JAXNetwork":
    """Return the untrained network with these settings."""
    if settings.recurrent and settings.cell in ("SpikingJelly", *SETS["JAX"]):
        raise ValueError(f"a recurrent network with {settings.cell} cells is not implemented")
    kind = JAXNetwork if settings.cell in SETS["JAX"] else TorchNetwork
    return kind(settings, inputs)


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


# PyTorch -----------------------------------------------------------------------------------------


class TorchNetwork(torch.nn.Module):
    """A network in PyTorch, with plain cells or the cells of a framework."""

    def __init__(self, settings: Settings, inputs: int) -> None:
        super().__init__()
        torch.manual_seed(settings.seed)
        self.settings = settings
        sizes = layers_of(settings, inputs)
        self.layers = torch.nn.ModuleList(torch_layer(each, settings) for each in sizes)
        hidden, width = settings.depth if settings.recurrent else 0, settings.width
        self.recurrent = torch.nn.ModuleList(
            torch.nn.Linear(width, width, bias=False) for _ in range(hidden)
        )
        for each in self.recurrent:
            each.weight.data *= settings.scale
        self._optimise([{"params": list(self.parameters()), "lr": self.rate}])

    @property
    def rate(self) -> float:
        """The learning rate of all layers."""
        return self.settings.rate * (50 if self.settings.optimiser == "SGD" else 1)

    def _optimise(self, groups: list[dict[str, Any]], warm_up: int = 1) -> None:
        options = {"momentum": 0.9} if self.settings.optimiser == "SGD" else {}
        self.optimiser = getattr(torch.optim, self.settings.optimiser)(groups, **options)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser, lambda step: min(1, (step + 1) / warm_up)
        )

    def spikes(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the spikes of each layer for an input ``[time, sample, input]``."""
        found = []
        for index, layer in enumerate(self.layers):
            current = layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])
            recurrent = self.recurrent[index] if index < len(self.recurrent) else None
            spikes = torch_neurons(current, self.settings, recurrent)
            if index == self.settings.detached:
                spikes = spikes.detach()
            x = x + spikes if self.settings.skip and x.shape == spikes.shape else spikes
            found.append(spikes.flatten(2))
        return found

    def inspect(self, loss: Callable[..., Any], x: torch.Tensor, label: torch.Tensor) -> Batch:
        """Return the spikes and gradients of a batch."""
        *hidden, output = self.spikes(x)
        value = loss(output, label)
        self.optimiser.zero_grad()
        if value.requires_grad:
            value.backward()
        gradients = {name: each.grad for name, each in self.named_parameters()}
        return Batch(value.detach(), output, hidden, gradients)

    def step(self, loss: Callable[..., Any], x: torch.Tensor, label: torch.Tensor) -> None:
        """Perform a training step."""
        self.inspect(loss, x, label)
        self.optimiser.step()
        self.schedule.step()

    def scale(
        self, scaling: Scaling, loss: Callable[..., Any], x: torch.Tensor, label: torch.Tensor
    ) -> None:
        """Scale the weights on a batch, or those of the batch normalisation that follows them."""
        both = itertools.zip_longest(self.layers, self.recurrent)
        parts = [
            [part for part in (*layer, recurrent) if hasattr(part, "weight")]
            for layer, recurrent in both
        ]
        norm = torch.nn.BatchNorm2d
        scaled = [[part for part in of if isinstance(part, norm)] or of for of in parts]
        start = [[part.weight.detach().clone() for part in of] for of in scaled]

        @torch.no_grad()
        def run(factors: list[float]) -> list[torch.Tensor]:
            for of, weights, factor in zip(scaled, start, factors, strict=True):
                for part, weight in zip(of, weights, strict=True):
                    part.weight.copy_(factor * weight)
                    if scaling.step is not None and part.bias is not None:
                        part.bias.zero_()
            return self.spikes(x)

        factors = factors_of(scaling, self.settings, run, len(parts), x)
        run(factors)
        self.inspect(loss, x, label)  # its gradients are used with SGD

        def rate(part: Any, factor: float) -> float:
            if scaling.step is None:
                return self.rate * factor
            size = scaling.step * rms(part.weight.detach())
            adam = self.settings.optimiser == "Adam"
            return size if adam else (1 - 0.9) * size / (rms(part.weight.grad) + 1e-12)

        groups = [
            {"params": list(part.parameters()), "lr": rate(part, factor if part in changed else 1)}
            for of, changed, factor in zip(parts, scaled, factors, strict=True)
            for part in of
        ]
        self._optimise(groups, scaling.warm_up)

    def output(self, x: torch.Tensor) -> np.ndarray:
        """Return the output spikes of the network in evaluation mode."""
        self.eval()
        with torch.no_grad():
            spikes = self.spikes(x)[-1]
        self.train()
        return spikes.numpy()


def rms(x: Any) -> float:
    return float((x**2).mean() ** 0.5)


def torch_layer(layer: Layer, settings: Settings) -> torch.nn.Module:
    """Return a module that computes the currents of a layer."""
    if layer.stride is None:
        linear = torch.nn.Linear(layer.inputs, layer.outputs)
        linear.weight.data *= settings.scale
        return torch.nn.Sequential(torch.nn.Flatten(), linear)
    convolution = torch.nn.Conv2d(
        layer.inputs, layer.outputs, 3, stride=layer.stride, padding=1, bias=not settings.normalised
    )
    convolution.weight.data *= settings.scale
    parts: list[torch.nn.Module] = [convolution]
    if layer.inputs == 1:
        parts.insert(0, torch.nn.Unflatten(1, (1, SIDE, SIDE)))
    if settings.normalised:
        parts.append(torch.nn.BatchNorm2d(layer.outputs))
    return torch.nn.Sequential(*parts)


def torch_neurons(
    current: torch.Tensor, settings: Settings, recurrent: torch.nn.Module | None = None
) -> torch.Tensor:
    """Return the spikes of leaky neurons with these currents, whose first axis is time.

    In a plain cell, the membrane potential is multiplied by the decay at each step, and the current
    is added. If the potential exceeds the threshold, the neuron fires, and the threshold is
    subtracted.
    """
    if settings.cell == "SpikingJelly":
        return spikingjelly_cell(settings)(current)
    if settings.cell == "Norse":
        return unrolled(norse_cell(settings), current, None, recurrent)
    step = snntorch_cell(settings) if settings.cell == "snnTorch" else plain_cell(settings)
    return unrolled(step, current, torch.zeros_like(current[0]), recurrent)


def plain_cell(settings: Settings) -> Callable[..., Any]:
    def step(current: torch.Tensor, membrane: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
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
        detach_reset=True,
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


# JAX ---------------------------------------------------------------------------------------------


class JAXNetwork:
    """A network in JAX, with plain cells or the cells of Spyx.

    The weights are a list with a dictionary for each layer, and their shapes are those of flax.
    Batch normalisation always uses the statistics of its input, even for the test set.
    """

    def __init__(self, settings: Settings, inputs: int) -> None:
        import jax

        self.settings, random = settings, np.random.default_rng(settings.seed)
        sizes = layers_of(settings, inputs)
        self.weights = [jax_layer(each, settings, random) for each in sizes]
        self._optimise(jax.tree.map(lambda _: settings.rate, self.weights))

        def value(weights: Any, loss: Any, x: Any, label: Any) -> Any:
            *hidden, output = jax_spikes(weights, sizes, settings, x)
            return loss(output, label), (output, hidden)

        self._value = jax.jit(jax.value_and_grad(value, has_aux=True), static_argnums=1)
        self._spikes = jax.jit(lambda weights, x: jax_spikes(weights, sizes, settings, x))

    def _optimise(self, rates: Any, warm_up: int = 1) -> None:
        import jax
        import optax

        growing = optax.linear_schedule(1 / warm_up, 1, max(warm_up - 1, 1))
        optimiser = optax.adam(growing)

        def step(weights: Any, state: Any, gradients: Any) -> Any:
            updates, state = optimiser.update(gradients, state)
            updates = jax.tree.map(lambda update, rate: rate * update, updates, rates)
            return optax.apply_updates(weights, updates), state

        self.state, self._step = optimiser.init(self.weights), jax.jit(step)

    def inspect(self, loss: Callable[..., Any], x: torch.Tensor, label: torch.Tensor) -> Batch:
        """Return the spikes and gradients of a batch."""
        arrays = x.numpy(), label.numpy()
        (value, (output, hidden)), gradients = self._value(self.weights, loss, *arrays)
        return Batch(value, output, hidden, gradients)

    def step(self, loss: Callable[..., Any], x: torch.Tensor, label: torch.Tensor) -> None:
        """Perform a training step."""
        gradients = self.inspect(loss, x, label).gradients
        self.weights, self.state = self._step(self.weights, self.state, gradients)

    def scale(
        self, scaling: Scaling, loss: Callable[..., Any], x: torch.Tensor, label: torch.Tensor
    ) -> None:
        """Scale the weights on a batch, or those of the batch normalisation that follows them."""
        start = self.weights
        if scaling.step is not None:
            start = [layer | {"bias": 0 * layer["bias"]} for layer in start]
        names = ["scale" if "scale" in layer else "kernel" for layer in start]

        def scaled(factors: list[float]) -> list[dict[str, Any]]:
            each = zip(start, names, factors, strict=True)
            return [layer | {name: factor * layer[name]} for layer, name, factor in each]

        def run(factors: list[float]) -> list[Any]:
            return self._spikes(scaled(factors), x.numpy())

        factors = factors_of(scaling, self.settings, run, len(start), x)
        self.weights = scaled(factors)

        def rates(layer: dict[str, Any], name: str, factor: float) -> dict[str, float]:
            if scaling.step is None:
                unscaled = dict.fromkeys(layer, self.settings.rate)
                return unscaled | dict.fromkeys((name, "bias"), self.settings.rate * factor)
            sizes = {each: scaling.step * rms(weight) for each, weight in layer.items()}
            return sizes | {"bias": sizes[name]}

        self._optimise(list(map(rates, self.weights, names, factors)), scaling.warm_up)

    def output(self, x: torch.Tensor) -> np.ndarray:
        """Return the output spikes of the network."""
        return np.asarray(self._spikes(self.weights, x.numpy())[-1])


def jax_layer(layer: Layer, settings: Settings, random: np.random.Generator) -> dict[str, Any]:
    """Return the weights of a layer, drawn as in PyTorch and multiplied by the scale."""
    shape = (layer.inputs, layer.outputs) if layer.stride is None else (3, 3, *layer[:2])
    bound = math.prod(shape[:-1]) ** -0.5
    kernel, bias = random.uniform(-bound, bound, shape), random.uniform(-bound, bound, shape[-1])
    drawn = {"kernel": settings.scale * kernel, "bias": bias}
    if settings.normalised and layer.stride is not None:
        drawn |= {"scale": np.ones(layer.outputs), "bias": np.zeros(layer.outputs)}
    return {name: each.astype(np.float32) for name, each in drawn.items()}


def jax_spikes(weights: Any, sizes: list[Layer], settings: Settings, x: Any) -> list[Any]:
    """Return the spikes of each layer for an input ``[time, sample, input]``."""
    import jax

    start, scan = x.shape[:2], jax.lax.scan
    cell = spyx_cell(settings) if settings.cell == "Spyx" else jax_cell(settings)
    x, found = x.reshape(*start, SIDE, SIDE, 1) if settings.convolution else x, []
    for weight, size in zip(weights, sizes, strict=True):
        current = jax_current(weight, size, x.reshape(-1, *x.shape[2:]))
        current = current.reshape(*start, *current.shape[1:])
        _, spikes = scan(cell, jax.numpy.zeros_like(current[0]), current)
        x = x + spikes if settings.skip and x.shape == spikes.shape else spikes
        found.append(spikes.reshape(*start, -1))
    return found


def jax_current(weight: dict[str, Any], size: Layer, x: Any) -> Any:
    """Return the currents of a layer, for inputs whose first axis is for the samples."""
    import jax

    if size.stride is None:
        return x.reshape(len(x), -1) @ weight["kernel"] + weight["bias"]
    axes, strides = ("NHWC", "HWIO", "NHWC"), (size.stride, size.stride)
    padding = [(1, 1), (1, 1)]
    current = jax.lax.conv_general_dilated(
        x, weight["kernel"], strides, padding, dimension_numbers=axes
    )
    if "scale" in weight:
        mean, variance = current.mean((0, 1, 2)), current.var((0, 1, 2))
        current = weight["scale"] * (current - mean) / jax.numpy.sqrt(variance + 1e-5)
    return current + weight["bias"]


def jax_cell(settings: Settings) -> Callable[..., Any]:
    """Return a step of a scan with the same neurons as in a plain network in PyTorch."""
    import jax

    @jax.custom_jvp
    def fire(above: Any) -> Any:
        return (above > 0).astype(above.dtype)

    @fire.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        (above,), (tangent,) = primals, tangents
        gradient = surrogate_gradient(tangent, above, settings.surrogate, settings.slope)
        return fire(above), gradient

    def step(membrane: Any, current: Any) -> Any:
        membrane = settings.decay * membrane + current
        spike = fire(membrane - settings.threshold)
        return membrane - settings.threshold * jax.lax.stop_gradient(spike), spike

    return step


def spyx_cell(settings: Settings) -> Callable[..., Any]:
    """Return a step of a scan with the neurons of Spyx."""
    import spyx.axn
    import spyx.nn
    from flax import nnx

    value = 1 / settings.slope if settings.surrogate == "boxcar" else settings.slope
    activation = getattr(spyx.axn, settings.surrogate)(value)
    leaky = spyx.nn.LIF((), settings.decay, settings.threshold, activation, rngs=nnx.Rngs(0))
    # A Spyx cell returns spikes and membrane, but a scan expects the reverse order.
    return lambda membrane, current: leaky(current, membrane)[::-1]
