"""The operations of modules, as `record` counts them, against one spike at a time."""

import gc
import math
import random
import weakref

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.networks import BATCH, INPUTS, STEPS, Loop, Neurons, module_of, network_of
from _support.side_by_side import torch
from spikeloss_xp.torch import record

nn = torch.nn
KINDS = "linear", "conv1d", "conv2d", "conv2d", "conv3d", "convT", "mode"


def counted(network, *inputs, **options):
    """Return the activity of one call of a network."""
    with record(network, operations=True) as seen, torch.no_grad():
        network(*inputs)
    return seen.activity(**({"time_axis": 0} | options))


def one_at_a_time(layer, inputs, times=False):
    """Return the outputs that each active input reaches, counted for one spike at a time.

    If `times` is True, the inputs are numbers of spikes.
    """
    weights = {n: torch.ones_like(p) * (n == "weight") for n, p in layer.named_parameters()}
    shape = inputs.shape[1:]
    spikes = torch.eye(math.prod(shape)).reshape(-1, *shape)  # one in each sample
    sizes = torch.func.functional_call(layer, weights, (spikes,)).flatten(1).sum(1)
    number = inputs if times else inputs != 0
    return (sizes * number.flatten(1)).sum().item()


def random_layer(choose):
    """Return a layer with random options, and the shape of its input."""
    g, k, s = choose([1, 1, 2]), choose([1, 3, 5]), choose([1, 2, 3])
    p, d = choose([0, 1, 2]), choose([1, 1, 2])
    channels, kind = (2 * g, 4 * g), choose(KINDS)
    if kind == "linear":
        return nn.Linear(13, 7), (13,)
    if kind == "conv3d":
        return nn.Conv3d(*channels, min(k, 3), s, p, d, g), (channels[0], 7, 6, 5)
    if kind == "convT":
        rank = choose([1, 2, 3])
        made = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[rank - 1]
        return made(*channels, min(k, 3), s, min(p, k // 2), s - 1, g), (channels[0], *[5] * rank)
    if kind == "mode":
        mode = choose(["circular", "reflect", "replicate"])
        return nn.Conv2d(*channels, k, s, p, d, g, padding_mode=mode), (channels[0], 9, 11)
    made, size = (nn.Conv1d, (21,)) if kind == "conv1d" else (nn.Conv2d, (11, 11))
    return made(*channels, k, s, p, d, g, bias=choose([True, False])), (channels[0], *size)


@pytest.mark.parametrize("seed", [0, 1, pytest.param(2, marks=pytest.mark.slow)])
def test_24_random_layers_equal_one_spike_at_a_time(seed):
    choose = random.Random(seed).choice
    torch.manual_seed(seed)
    for _ in range(24):
        layer, shape = random_layer(choose)
        spikes = (torch.rand(4, *shape) < 0.3) * torch.randint(0, 2, (4, *shape)).mul(2).sub(1.0)
        found = counted(nn.Sequential(layer), spikes, samples=4).modules["0"]
        expected = one_at_a_time(layer, spikes)
        dense = one_at_a_time(layer, torch.ones_like(spikes))
        assert found == (expected, 0, dense, 4), layer
        numbers = counted(nn.Sequential(layer), spikes * 0.5, samples=4).modules["0"]
        assert numbers == (0, expected, dense, 4), layer


def test_recurrent_weights_in_a_loop_equal_the_recorded_spikes():
    network = Loop()
    with torch.no_grad():
        network.last.weight *= 8  # the output fires
    with record(network, operations=True) as seen:
        network(INPUTS)
    counts = seen.activity(time_axis=0)
    hidden = seen.spikes["neurons"].round()
    again, last = 30 * hidden[:-1].sum(), 3 * hidden.sum()
    assert again > 0
    samples = STEPS * BATCH
    assert counts.modules == {
        "first": (30 * INPUTS.sum(), 0, samples * 600, BATCH),
        "again": (again, 0, samples * 900, BATCH),
        "last": (last, 0, samples * 90, BATCH),
    }
    assert counts.layers == sx.activity(seen.spikes, time_axis=0).layers
    total = 30 * INPUTS.sum() + again + last
    assert counts.operations_per_sample == pytest.approx(total.item() / BATCH, rel=1e-15)


def test_number_of_steps_in_a_call_has_no_effect():
    """A shared layer is called twice, for all steps, for each step, and with one folded axis."""
    layer, neurons = nn.Linear(20, 20), Neurons()

    def folded(self, x):
        x = self.layer(self.layer(x.flatten(0, 1))).unflatten(0, x.shape[:2])
        return self.neurons(x)

    forms = {
        "whole": lambda self, x: self.neurons(self.layer(self.layer(x))),
        "steps": lambda self, x: self.neurons(
            torch.stack([self.layer(self.layer(step)) for step in x])
        ),
        "folded": folded,
    }
    lengths = torch.arange(BATCH) + 3
    for options in ({}, {"lengths": lengths}):
        whole, steps, fold = (
            counted(module_of(each, layer=layer, neurons=neurons), INPUTS, **options)
            for each in forms.values()
        )
        assert whole.modules == steps.modules == fold.modules
        assert whole.modules["layer"].multiply_accumulates > 0


@pytest.mark.parametrize("batch_first", [False, True])
def test_padding_has_no_effect(batch_first):
    def swapped(x):
        return x.transpose(0, 1) if batch_first else x

    network = module_of(
        lambda self, x: self.neurons(self.first(x)),
        first=nn.Linear(20, 30),
        neurons=module_of(lambda self, x: swapped(Neurons.forward(None, swapped(x)))),
    )
    lengths, axis = torch.arange(BATCH) + 2, int(batch_first)
    one_by_one = [
        counted(network, swapped(INPUTS[:n, i : i + 1]), time_axis=axis)
        for i, n in enumerate(lengths)
    ]
    padded = torch.where(torch.arange(STEPS)[:, None, None] < lengths[:, None], INPUTS, 0.3)
    found = counted(network, swapped(padded), time_axis=axis, lengths=lengths)
    expected = sum(one_by_one)
    assert found.layers == expected.layers
    assert found.modules == expected.modules
    assert found.modules["first"].multiply_accumulates == 0  # the padding is no number either
    where = torch.arange(STEPS)[:, None] < lengths
    again = counted(network, swapped(padded), time_axis=axis, where=swapped(where))
    assert again.modules == found.modules


def test_steps_and_samples_in_one_axis_need_the_number_of_samples():
    network = nn.Sequential(nn.Linear(20, 5), module_of(lambda self, x: (x > 0.1).float()))
    expected = counted(network, INPUTS)
    with pytest.raises(ValueError, match="pass samples=, the number of samples"):
        counted(network, INPUTS.flatten(0, 1))
    lengths = torch.arange(BATCH) + 3
    for options in ({}, {"lengths": lengths}):
        found = counted(network, INPUTS.flatten(0, 1), samples=BATCH, **options)
        same = counted(network, INPUTS, **options)
        assert found.layers == same.layers
        assert found.modules == same.modules
    by_sample = INPUTS.transpose(0, 1).flatten(0, 1)
    assert counted(network, by_sample, time_axis=1, samples=BATCH).layers == expected.layers
    with pytest.raises(ValueError, match="pass samples= to activity"):
        counted(network[:1], INPUTS.flatten(0, 1))
    functions = counted(network[:1], INPUTS.flatten(0, 1), samples=BATCH)
    assert functions.modules == expected.modules


def test_channels_that_equal_the_samples_are_not_taken_for_samples():
    """The second layer tells that the first axis holds samples and steps, 3 steps of 4 samples."""
    spiking = module_of(lambda self, x: (x > 0.1).float())
    network = nn.Sequential(nn.Conv2d(2, 4, 3), spiking, nn.Conv2d(4, 5, 3), type(spiking)())
    inputs, options = torch.rand(12, 2, 8, 8), {"samples": 4, "lengths": [1, 2, 3, 3]}
    with record(network) as seen:
        network(inputs)
    kept = torch.arange(3)[:, None] < torch.tensor(options["lengths"])
    for name, x in seen.spikes.items():
        layer = seen.activity(time_axis=0, **options).layers[name]
        assert layer.entries == 9 * x[0].numel()
        assert layer.events == x.unflatten(0, (3, 4))[kept].sum()
    with record(network[:2]) as seen:
        network[:2](inputs)
    with pytest.raises(ValueError, match="whether samples and steps share the first axis"):
        seen.activity(time_axis=0, **options)
    without_mask = seen.activity(time_axis=0, samples=4).layers["1"]
    assert (without_mask.entries, without_mask.samples) == (12 * 4 * 6 * 6, 4)


def test_number_of_samples_may_be_passed_for_a_loop_over_steps():
    """The advice on calls with tokens is to pass it, also if the steps are a multiple of it."""
    network = module_of(lambda self, x: (x > 0.1).float())
    inputs, lengths = torch.rand(8, 4, 3, 5), [8, 5, 3, 8]  # [time, sample, token, neuron]
    with record(nn.Sequential(network)) as seen:
        for step in inputs:
            seen._network(step)
    with pytest.raises(ValueError, match="each call was one time step, pass samples="):
        seen.activity(time_axis=0, lengths=lengths)
    found = seen.activity(time_axis=0, lengths=lengths, samples=4)
    assert found.layers["0"].entries == sum(lengths) * 15


def test_spikes_in_a_reused_tensor_raise():
    network = module_of(lambda self, x: self.buffer.copy_(x > 0), buffer=torch.zeros(BATCH, 20))
    with record(network, [network]) as seen, torch.no_grad():
        for step in INPUTS:
            network(step)
    with pytest.raises(ValueError, match="the same tensor in several calls"):
        _ = seen.spikes


def test_masks_of_a_module_that_is_not_called_for_each_step_raise():
    network = module_of(
        lambda self, x: self.neurons(x + self.constant(x[0])),
        constant=nn.Linear(20, 20),
        neurons=Neurons(),
    )
    assert counted(network, INPUTS).modules["constant"].dense == BATCH * 400
    with pytest.raises(ValueError, match="constant cannot be assigned to time steps"):
        counted(network, INPUTS, lengths=torch.arange(BATCH))


def test_modules_that_are_not_counted_are_named():
    network = module_of(
        lambda self, x: self.neurons(
            self.norm(self.own(x)) + self.attention(x, x, x)[0] + nn.functional.linear(x, self.w)
        ),
        own=module_of(
            lambda self, x: nn.functional.linear(x, self.weight),
            weight=nn.Parameter(torch.rand(20, 20)),
        ),
        norm=nn.LayerNorm(20),
        attention=nn.MultiheadAttention(20, 2),
        unused=nn.Linear(3, 3),
        neurons=Neurons(),
        w=nn.Parameter(torch.rand(20, 20)),
    )
    counts = counted(network, INPUTS)
    assert not counts.modules
    table = str(counts)
    for name in ("own (", "norm (LayerNorm)", "attention (Multi", "unused (Linear, not called)"):
        assert name in table
    assert "functions" in table
    assert not sx.activity(INPUTS, time_axis=0).not_counted


def test_network_and_inputs_are_left_alone():
    """Nothing keeps the inputs, no random number is drawn, and the output is the same."""
    network, inputs = nn.Sequential(nn.Conv1d(2, 3, 5), nn.ReLU()), torch.rand(4, 2, 30)
    state = torch.get_rng_state()
    with record(network, operations=True) as seen:
        output = network(inputs)
    assert not seen._operations._waiting  # not even a copy
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(output, network(inputs))
    expected = seen.activity(time_axis=0, samples=4).modules
    kept = weakref.ref(inputs)
    del inputs, output
    gc.collect()
    assert kept() is None
    assert seen.activity(time_axis=0, samples=4).modules == expected


@pytest.mark.parametrize("mode", ["inference", "bfloat16", "float64", "parametrized"])
def test_mode_of_the_network_has_no_effect(mode):
    size = 10 + len(mode)  # the connections of a shape are cached
    layer = nn.Conv2d(300, 2, 3, padding=1)
    spikes = (torch.rand(4, 300, size, size) < 0.9).float()
    expected = one_at_a_time(nn.Conv2d(1, 2, 3, padding=1), spikes.sum(1, keepdim=True), times=True)
    if mode == "parametrized":
        nn.utils.parametrizations.weight_norm(layer)
    elif mode != "inference":
        layer, spikes = layer.to(getattr(torch, mode)), spikes.to(getattr(torch, mode))
    context = torch.inference_mode() if mode == "inference" else torch.enable_grad()
    with context, record(nn.Sequential(layer), operations=True) as seen:
        layer(spikes)
    found = seen.activity(time_axis=0, samples=4)
    assert found.modules["0"].accumulates == expected
    assert len(found.not_counted) == 1  # not the parts of the parametrization


def test_calls_with_different_shapes_and_changed_inputs_are_counted_as_they_were():
    network = module_of(
        lambda self, x: [self.layer(x), x.zero_(), self.layer(x[:1] + 1)], layer=nn.Linear(20, 3)
    )
    found = counted(network, torch.ones(4, 20), samples=4).modules["layer"]
    assert found == (5 * 60, 0, 5 * 60, 4)


@pytest.mark.compiles  # a checkpoint imports the compiler
def test_sums_exceed_float32_and_checkpoints_are_counted_once():
    layer = nn.Linear(2**10 + 1, 2**14 + 1, bias=False)
    network = module_of(
        lambda self, x: torch.utils.checkpoint.checkpoint(self.layer, x, use_reentrant=False),
        layer=layer,
    )
    inputs = torch.ones(1, 2**10 + 1, requires_grad=True)
    with record(network, operations=True) as seen:
        network(inputs).sum().backward()
    (found,) = seen.activity(time_axis=0, samples=1).modules.values()
    assert found.accumulates == found.dense == (2**10 + 1) * (2**14 + 1)
    assert found.accumulates != int(np.float32(found.accumulates))


def test_size_of_the_output_of_a_transposed_convolution_counts():
    layer, spikes = nn.ConvTranspose1d(2, 3, 3, stride=2, padding=1), torch.ones(4, 2, 5)
    for size, places in ((9, 13), (10, 14)):
        network = module_of(lambda self, x, size=size: self.layer(x, [size]), layer=layer)
        (found,) = counted(network, spikes, samples=4).modules.values()
        assert found.dense == found.accumulates == 4 * 2 * 3 * places


def test_without_operations_only_layers_are_summed():
    network = nn.Sequential(nn.Linear(20, 30), Neurons())
    with record(network) as seen:
        network(INPUTS)
    counts = seen.activity(time_axis=0)
    assert list(counts.layers) == ["1"]
    assert not counts.modules
    assert not counts.not_counted
    with (
        pytest.raises(TypeError, match="operations must be True or False"),
        record(network, operations=1),
    ):
        pass


@pytest.mark.parametrize("make", [lambda: network_of(20, 30, 3), Loop])
def test_several_batches_in_one_record_raise_and_their_activities_add_up(make):
    torch.manual_seed(0)
    network, parts = make(), []
    with record(network, operations=True) as seen:
        network(INPUTS), network(INPUTS)
    with pytest.raises(ValueError, match=r"called 2 times, .* record one batch at a time"):
        seen.activity(time_axis=0)
    for _ in range(2):
        with record(network, operations=True) as seen:
            network(INPUTS)
        parts.append(seen.activity(time_axis=0))
    one, both = ([x.accumulates for x in y.modules.values()] for y in (parts[0], sum(parts)))
    assert both == [2 * number for number in one]
