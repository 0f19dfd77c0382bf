"""Random spiking networks in five libraries, for verdict.py and advice.py.

About half of the networks start near values that usually work: a wide surrogate, moderate weights
and a low threshold. The settings of the other networks are drawn from wide ranges, so that most of
them fail, each for reasons of its own. The settings depend only on the set, the stream and the
index of a network, so any network can be rebuilt alone.
"""

import functools
import importlib.util
import itertools
import math
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from training_networks import CLASSES, Spike, surrogate_gradient, unrolled

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
    and `detached` is the index of a layer whose spikes are detached by mistake.
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


@functools.cache
def recipe(library: str) -> types.ModuleType:
    """Return the recipe that scales the weights in PyTorch or JAX."""
    path = Path(__file__).resolve().parents[2] / "docs" / "recipes" / f"scale_weights_{library}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def draw(name: str, stream: str, index: int) -> Settings:
    """Return the settings of a network from its set, stream and index."""
    random = np.random.default_rng((STREAMS[stream], list(SETS).index(name), index))

    def pick(*values: Any) -> Any:
        return values[random.integers(len(values))]

    usual, convolution = random.random() < 0.5, random.random() < 0.25
    cell = pick(*SETS[name])
    surrogate = pick(*WIDE[cell])
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


def layers_of(settings: Settings, inputs: int) -> list[Layer]:
    """Return the sizes of the layers, from input to output."""
    if not settings.convolution:
        sizes = (inputs, *settings.depth * (WIDTH,), CLASSES)
        return [Layer(*pair) for pair in itertools.pairwise(sizes)]
    hidden = [Layer(*each) for each in CHANNELS[: settings.depth]]
    side = SIDE // math.prod(each.stride or 1 for each in hidden)
    return [*hidden, Layer(hidden[-1].outputs * side**2, CLASSES)]


def build(settings: Settings, inputs: int) -> "TorchNetwork | JAXNetwork":
    """Return the untrained network with these settings."""
    kind = JAXNetwork if settings.cell in SETS["JAX"] else TorchNetwork
    return kind(settings, inputs)


# PyTorch -----------------------------------------------------------------------------------------


class TorchNetwork(torch.nn.Module):
    """A network in PyTorch, with plain cells or the cells of a framework."""

    def __init__(self, settings: Settings, inputs: int) -> None:
        super().__init__()
        torch.manual_seed(settings.seed)
        self.settings = settings
        sizes = layers_of(settings, inputs)
        self.layers = torch.nn.ModuleList(torch_layer(each, settings) for each in sizes)
        self.optimiser = torch.optim.Adam(self.parameters(), lr=settings.rate)

    def spikes(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the spikes of each layer for an input ``[time, sample, input]``."""
        found = []
        for index, layer in enumerate(self.layers):
            current = layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])
            spikes = torch_neurons(current, self.settings)
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

    def scale(self, x: torch.Tensor, rate: float, *, learning_rates: bool = False) -> None:
        """Scale the weights of dense layers until each layer fires in this share of the steps.

        If `learning_rates` is true, the learning rate of each layer gets the same factor.
        """
        layers = [linear for _, linear in self.layers]
        neurons = functools.partial(torch_neurons, settings=self.settings)
        factors = recipe("torch").scale_weights(layers, neurons, x, rate)
        if learning_rates:
            self.optimiser = recipe("torch").scaled_adam(layers, factors, self.settings.rate)

    def output(self, x: torch.Tensor) -> np.ndarray:
        """Return the output spikes of the network in evaluation mode."""
        self.eval()
        with torch.no_grad():
            spikes = self.spikes(x)[-1]
        self.train()
        return spikes.numpy()


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


def torch_neurons(current: torch.Tensor, settings: Settings) -> torch.Tensor:
    """Return the spikes of leaky neurons with these currents, whose first axis is time.

    In a plain cell, the membrane potential is multiplied by the decay at each step, and the current
    is added. If the potential exceeds the threshold, the neuron fires, and the threshold is
    subtracted.
    """
    if settings.cell == "SpikingJelly":
        return spikingjelly_cell(settings)(current)
    if settings.cell == "Norse":
        return norse_spikes(current, settings)
    step = snntorch_cell(settings) if settings.cell == "snnTorch" else plain_cell(settings)
    return unrolled(step, current, torch.zeros_like(current[0]))


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


def norse_spikes(current: torch.Tensor, settings: Settings) -> torch.Tensor:
    """Return the spikes of Norse's LIF cells, which filter the current and reset to 0."""
    from norse.torch import LIFCell, LIFParameters

    parameters = LIFParameters(
        tau_mem_inv=torch.tensor(1000 * (1 - settings.decay)),  # a step takes a millisecond
        v_th=torch.tensor(float(settings.threshold)),
        method=settings.surrogate,
        alpha=torch.tensor(settings.slope),
    )
    return unrolled(LIFCell(parameters), current, None)


# JAX ---------------------------------------------------------------------------------------------


class JAXNetwork:
    """A network in JAX, with plain cells or the cells of Spyx.

    The weights are a list with a dictionary for each layer, and their shapes are those of flax.
    Batch normalisation always uses the statistics of its input, even for the test set.
    """

    def __init__(self, settings: Settings, inputs: int) -> None:
        import jax
        import optax

        self.settings, random = settings, np.random.default_rng(settings.seed)
        sizes = layers_of(settings, inputs)
        self.weights = [jax_layer(each, settings, random) for each in sizes]
        self._optimise(optax.adam(settings.rate))

        def value(weights: Any, loss: Any, x: Any, label: Any) -> Any:
            *hidden, output = jax_spikes(weights, sizes, settings, x)
            return loss(output, label), (output, hidden)

        self._value = jax.jit(jax.value_and_grad(value, has_aux=True), static_argnums=1)
        self._spikes = jax.jit(lambda weights, x: jax_spikes(weights, sizes, settings, x)[-1])
        dense = sizes[-1:]
        self._layer = jax.jit(lambda weight, x: jax_spikes([weight], dense, settings, x)[0])

    def _optimise(self, optimiser: Any) -> None:
        import jax
        import optax

        def step(weights: Any, state: Any, gradients: Any) -> Any:
            updates, state = optimiser.update(gradients, state)
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

    def scale(self, x: torch.Tensor, rate: float, *, learning_rates: bool = False) -> None:
        """Scale the weights of dense layers until each layer fires in this share of the steps.

        If `learning_rates` is true, the learning rate of each layer gets the same factor.
        """
        scaled = recipe("jax").scale_weights(self.weights, self._layer, x.numpy(), rate)
        self.weights, factors = scaled
        if learning_rates:
            self._optimise(recipe("jax").scaled_adam(factors, self.settings.rate))

    def output(self, x: torch.Tensor) -> np.ndarray:
        """Return the output spikes of the network."""
        return np.asarray(self._spikes(self.weights, x.numpy()))


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
