"""Learning rates are proportional to the size of the weights of PyTorch modules."""

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from _support.networks import module_of, network_of
from spikeloss_xp.torch import parameter_groups


def rates_by_name(network, **options):
    names = {x: name for name, x in network.named_parameters()}
    groups = parameter_groups(network, **options)
    torch.optim.Adam(groups)
    return {names[x]: group["lr"] for group in groups for x in group["params"]}


def rms(x):
    return x.detach().square().mean().sqrt().item()


@pytest.mark.parametrize(("options", "step"), [({}, 0.03), ({"relative_step": 0.1}, 0.1)])
def test_learning_rate_is_a_fraction_of_the_size_of_the_weight(options, step):
    network = network_of(20, 30, 3).append(nn.BatchNorm1d(3))
    network[0].bias.data *= 0
    sizes = {0: rms(network[0].weight), 2: rms(network[2].weight), 4: 1.0}
    expected = {f"{i}.{x}": step * sizes[i] for i in sizes for x in ("weight", "bias")}
    assert rates_by_name(network, **options) == pytest.approx(expected)


def full(shape, value):
    return nn.Parameter(torch.full(shape, value))


def test_other_parameters_have_a_tenth_of_the_step_as_their_learning_rate():
    """Weights of one input have two axes, one of length 1, and biases may have two axes too.

    The scales and thresholds have several axes, to broadcast, but they are no weights.
    """
    network = module_of(
        None,
        bias=full((3,), 0.0),
        decay=full((), 0.9),
        scale=full((1, 1, 30), 0.8),
        threshold=full((1, 30), 1.0),
        matrix=full((3, 3), 2.0),
        kernel=full((1, 4, 2), 2.0),
        slopes=nn.ParameterDict({"a": torch.zeros(())}),
        of_one_input=module_of(None, first=full((30, 1), 2.0), shift=nn.LayerNorm((3, 10))),
        leaky=module_of(None, decay=full((30,), 0.0)),
    )
    nn.utils.parametrize.register_parametrization(network.leaky, "decay", nn.Sigmoid())
    others = ("decay", "scale", "threshold", "slopes.a", "leaky.parametrizations.decay.original")
    expected = {
        **dict.fromkeys(others, 0.003),
        **dict.fromkeys(("bias", "matrix", "kernel", "of_one_input.first"), 0.06),
        **dict.fromkeys(("of_one_input.shift.weight", "of_one_input.shift.bias"), 0.03),
    }
    assert rates_by_name(network) == pytest.approx(expected)


def test_frozen_parameters_have_no_group_and_shared_ones_a_single_group():
    network = network_of(20, 20, 20)
    network[2].weight = network[0].weight
    network[2].bias.requires_grad_(False)
    assert list(rates_by_name(network)) == ["0.weight", "0.bias"]
    network[0].weight.requires_grad_(False)
    network[0].weight.data *= 0
    network[0].bias.requires_grad_(False)
    assert parameter_groups(network) == []


def test_rates_for_sgd_are_divided_by_the_size_of_the_gradient():
    network = network_of(20, 30, 3).append(nn.PReLU(1))
    for i, layer in enumerate(network[::2]):
        layer.weight.grad = torch.full_like(layer.weight, 10.0**i)
    expected = [0.1 * 0.03 * rms(network[0].weight), 0.001 * 0.03 * rms(network[4].weight)]
    found = rates_by_name(network, momentum=0.9)
    assert [found[name] for name in ("0.weight", "4.weight")] == pytest.approx(expected)
    assert found["0.bias"] == found["0.weight"]
    plain = rates_by_name(network, momentum=0)
    assert plain == pytest.approx({name: 10 * rate for name, rate in found.items()})


@pytest.mark.parametrize("gradient", [None, 0.0, float("nan")])
def test_rates_for_sgd_need_gradients(gradient):
    network = network_of(20, 30, 3)
    for x in network.parameters():
        x.grad = torch.ones_like(x)
    network[2].weight.grad = None if gradient is None else torch.full((3, 30), gradient)
    with pytest.raises(ValueError, match=r"gradient of weight in 2 .* call backward"):
        parameter_groups(network, momentum=0.9)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_weight_without_a_size_raises(value):
    network = network_of(20, 30, 3)
    network[2].weight.data.fill_(value)
    with pytest.raises(ValueError, match=r"root mean square of weight in 2 is .* no learning"):
        parameter_groups(network)


def test_step_and_momentum_must_be_in_range():
    with pytest.raises(ValueError, match="step must be above 0"):
        parameter_groups(network_of(20, 3), relative_step=0)
    for momentum in (-0.1, 1.0):
        with pytest.raises(ValueError, match="momentum must be at least 0 and below 1"):
            parameter_groups(network_of(20, 3), momentum=momentum)
