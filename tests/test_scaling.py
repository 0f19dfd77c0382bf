"""`scale_to_rate`: each layer fires at the given rate, or an error says why it does not."""

import math

import numpy as np
import pytest

import spikeloss_xp as sx

STEPS, BATCH = 40, 8
RNG = np.random.default_rng(0)
INPUTS = RNG.random((STEPS, BATCH, 20)) < 0.3
WEIGHTS = [0.01 * RNG.normal(size=(20, 30)), RNG.normal(size=(30, 30)), RNG.normal(size=(30, 9))]


def fire(currents):
    membrane, spikes = 0.0, []
    for current in currents:
        membrane = 0.9 * membrane + current
        spikes.append(membrane > 1)
        membrane = membrane - spikes[-1]
    return np.stack(spikes)


class Network:
    """A network of NumPy, which keeps the factors that it was run with."""

    def __init__(self, convert=lambda spikes: spikes):
        self.convert, self.calls = convert, []

    def __call__(self, factors):
        self.calls.append(factors)
        x, layers = INPUTS, []
        for weight, factor in zip(WEIGHTS, factors, strict=True):
            x = fire(x @ (factor * weight))
            layers.append(x)
        return self.convert(layers)


def rates(factors):
    return [x.mean() for x in Network()(factors)]


def is_close(rate, goal=0.05):
    return goal / 1.3 <= rate <= goal * 1.3


def one_layer(rate_of):
    """Return the `run` of a network of one layer with a rate that depends on its factor."""
    return lambda factors: [rate_of(*factors)]


def spikes_of(count_of):
    """Return the `run` of a network of one layer, whose neurons all fire this often."""
    fired = np.arange(20)[:, None, None] * np.ones((1, 4, 3))
    return one_layer(lambda factor: fired < count_of(factor))


def test_each_layer_fires_at_the_rate():
    network = Network()
    factors = sx.scale_to_rate(network, 3)
    assert all(map(is_close, rates(factors)))
    assert network.calls[-1] == factors
    assert len(network.calls) <= 1 + 3 * 14
    assert all(type(factor) is float for factor in factors)
    assert factors[0] > 10  # because its weights are small


def test_each_layer_has_a_rate_of_its_own():
    goals = (0.02, 0.1, 0.3)
    factors = sx.scale_to_rate(Network(), 3, goals)
    assert all(map(is_close, rates(factors), goals))
    assert factors == sx.scale_to_rate(Network(), 3, np.asarray(goals))


@pytest.mark.parametrize("dtype", ["bool", "int32", "float32"])
def test_arrays_of_each_library_give_the_factors_of_numpy(backend, dtype):
    """Spikes, or rates without axes."""
    for convert in (lambda x: x.astype(dtype), lambda x: np.asarray(x.mean())):
        network = Network(lambda layers, f=convert: [backend.asarray(f(x)) for x in layers])
        assert sx.scale_to_rate(network, 3) == sx.scale_to_rate(Network(), 3)


FORMS = {
    "mapping": lambda layers: dict(zip("abc", layers, strict=True)),
    "nested": lambda layers: {"hidden": layers[:2], "output": layers[2]},
    "tuple": tuple,
    "numbers": lambda layers: [float(x.mean()) for x in layers],
    "samples last": lambda layers: [x.swapaxes(0, 2) for x in layers],
    "one sample": lambda layers: [x.reshape(-1, x.shape[2]) for x in layers],
    "graded": lambda layers: [3 * x for x in layers],
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_the_result_gives_the_same_factors(form):
    assert sx.scale_to_rate(Network(FORMS[form]), 3) == sx.scale_to_rate(Network(), 3)


@pytest.mark.parametrize("time_axis", [0, 1, -1])
def test_padding_does_not_change_the_factors(backend, time_axis):
    def padded(layers):
        """Let all neurons fire after the end of each sample."""
        layers = [np.concatenate([x, 1 + 0 * x]) for x in layers]
        return [backend.asarray(np.moveaxis(x, 0, time_axis)) for x in layers]

    found = sx.scale_to_rate(Network(padded), 3, lengths=np.full(BATCH, STEPS), time_axis=time_axis)
    assert found == sx.scale_to_rate(Network(), 3)
    with pytest.raises(ValueError, match="layer 0 does not fire at a rate"):
        sx.scale_to_rate(Network(padded), 3, time_axis=time_axis)


@pytest.mark.parametrize("edge", [3, 4, 6])
def test_twice_the_rate_is_accepted_if_the_rate_jumps(edge):
    """The last factors of the bisection are above the edge or below it."""

    def jumps(factor):
        return 2 * (factor > edge)

    sentences = []
    [factor] = sx.scale_to_rate(spikes_of(jumps), 1, progress=sentences.append)
    assert jumps(factor) == 2  # a rate of 0 is as close, but means that nothing fires
    assert sentences[0].endswith("(calls for this layer: 14)")
    with pytest.raises(ValueError, match="too few steps"):
        sx.scale_to_rate(spikes_of(lambda factor: 3 * (factor > edge)), 1)


def test_twice_the_rate_is_not_accepted_if_the_rate_does_not_jump():
    message_of(one_layer(lambda factor: 0.03 * math.tanh(factor)))
    message_of(one_layer(lambda factor: 0.09))


def message_of(run, layers=1, **options):
    with pytest.raises(ValueError, match="does not fire at a rate of") as error:
        sx.scale_to_rate(run, layers, **options)
    return str(error.value)


def test_layer_without_input_raises():
    run = Network(lambda layers: {"first": layers[0], "second": 0 * layers[1], "last": layers[2]})
    message = message_of(run, 3)
    assert message.startswith("layer second does not fire at a rate of 0.05")
    assert "0 with 1, 0 with 8, 0 with 64" in message
    assert "nothing reaches the layer (all rates are 0)" in message


def test_layer_is_scaled_again_if_a_later_layer_feeds_back_into_it():
    sentences = []

    def run(factors):
        second = math.tanh(0.002 * factors[1])
        return [math.tanh(0.01 * factors[0] * (1 + 20 * second)), second]

    factors = sx.scale_to_rate(run, 2, progress=sentences.append)
    assert all(map(is_close, run(factors)))
    assert [sentence[:7] for sentence in sentences] == ["layer 0", "layer 1", "layer 0"]


@pytest.mark.parametrize("rate", [math.nan, math.inf, -0.1])
def test_rate_that_is_not_a_number_of_spikes_raises(backend, rate):
    with pytest.raises(ValueError, match=f"rate of layer 1 must be finite.*got {rate}"):
        sx.scale_to_rate(lambda factors: [0.05, rate], 2)
    if rate > 0 or math.isnan(rate):
        spikes = backend.asarray(np.full((3, 2, 4), rate))
        with pytest.raises(ValueError, match=r"rate of layer a must be finite.*NaN or infinite"):
            sx.scale_to_rate(lambda factors: {"a": spikes}, 1)


@pytest.mark.parametrize("found", [[], [0.1], [0.1] * 3, {"a": 0.1}, 0.1, ()])
def test_wrong_number_of_layers_raises(found):
    with pytest.raises(ValueError, match="of each layer; layers is 2, but got"):
        sx.scale_to_rate(lambda factors: found, 2)


@pytest.mark.parametrize("found", [None, "0.1", 1j, object()])
def test_result_that_is_not_a_number_or_array_raises(found):
    with pytest.raises(TypeError, match="layer 0 must hold numbers"):
        sx.scale_to_rate(lambda factors: [found], 1)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"layers": 0}, ValueError, "layers must be at least 1"),
        ({"layers": ["a", "b"]}, TypeError, "layers must be an integer"),
        ({"rate": 0}, ValueError, "rate must be above 0"),
        ({"rate": 1.5}, ValueError, "rate must be at most 1, in spikes per time step"),
        ({"rate": math.nan}, ValueError, "rate must"),
        ({"rate": "0.05"}, TypeError, "rate must be a number"),
        ({"rate": [0.05, 0.0, 0.1]}, ValueError, r"rate\[1\] must be above 0"),
        ({"rate": [0.05, 0.1]}, ValueError, "a number or 3 numbers; got 2 numbers"),
        ({"run": 3}, TypeError, "run must be a function"),
        ({"progress": True}, TypeError, "progress must be a function"),
        ({"lengths": [40] * BATCH}, TypeError, "lengths need a time_axis"),
        ({"lengths": [41] * BATCH, "time_axis": 0}, ValueError, "lengths must be between 0 and 40"),
        ({"lengths": [1.0] * BATCH, "time_axis": 0}, TypeError, "lengths must hold integers"),
        ({"lengths": [40], "time_axis": 0}, ValueError, "lengths must hold integers of shape"),
        ({"time_axis": 3}, ValueError, "time_axis=3 is not an axis of layer 0"),
        ({"time_axis": "time"}, TypeError, "time_axis must be an integer"),
    ],
    ids=str,
)
def test_wrong_argument_raises(options, error, match):
    with pytest.raises(error, match=match):
        sx.scale_to_rate(**{"run": Network(), "layers": 3} | options)
