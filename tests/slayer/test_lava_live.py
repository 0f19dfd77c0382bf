"""Compare with lava-dl 0.6.0, if it is installed."""

import importlib
import importlib.metadata
import itertools
import unittest

import pytest

from _support.pages import DOCS
from _support.processes import recipes
from _support.side_by_side import generator, import_peer, torch
from spikeloss_xp import slayer as ours

slayer = import_peer("lava.lib.dl.slayer")
FRAMEWORKS = {  # the module of each framework, and the name that the page has for it
    "snnTorch": ("snntorch", "snn"),
    "SpikingJelly": ("spikingjelly.activation_based.neuron", "neuron"),
    "Norse": ("norse.torch", "norse"),
}


def test_lava_dl_tests_pass_with_one_import_changed():
    files = importlib.metadata.files("lava-dl") or ()
    (path,) = (file for file in files if file.parts[-2:] == ("slayer", "test_loss.py"))
    theirs = "import lava.lib.dl.slayer as slayer"
    source = path.read_text()
    assert source.count(theirs) == 1
    namespace = {"__name__": "test_loss"}
    changed = source.replace(theirs, "import spikeloss_xp.slayer as slayer")
    exec(compile(changed, str(path), "exec"), namespace)
    kinds = [c for c in namespace.values() if isinstance(c, type)]
    cases = [c for c in kinds if issubclass(c, unittest.TestCase)]
    suite = unittest.TestSuite(map(unittest.defaultTestLoader.loadTestsFromTestCase, cases))
    suite.run(result := unittest.TestResult())
    assert result.testsRun == 3
    assert result.wasSuccessful(), [*result.errors, *result.failures]


def spikes_of_lava(blocks, spikes):
    """Return the output of blocks, whose neurons fire, for spikes ``[time, batch, neuron]``."""
    spikes = spikes.permute(1, 2, 0)
    for block in blocks:
        block.synapse.weight.data += 0.05
        spikes = block(spikes)
    return spikes.detach().permute(2, 0, 1)


def blocks(*sizes):
    torch.manual_seed(1)
    options = {"threshold": 1.25, "current_decay": 0.25, "voltage_decay": 0.125}
    pairs = itertools.pairwise(sizes)
    return [slayer.block.cuba.Dense(options, *pair, delay_shift=False) for pair in pairs]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_neurons_on_the_page_spike_like_those_of_lava_dl(framework):
    module, name = FRAMEWORKS[framework]
    names = {name: import_peer(module), "tensor": torch.tensor}
    page = (DOCS / "migrating.md").read_text(encoding="utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith(f"| {framework} | `{name}.")]
    neurons = eval(row.split("`")[1], names)
    spikes, (block,) = (
        (torch.rand((200, 4, 16), generator=generator(3)) < 0.3).float(),
        blocks(16, 20),
    )
    there = spikes_of_lava([block], spikes)
    weight = block.synapse.pre_hook_fx(block.synapse.weight).detach()[:, :, 0, 0, 0]
    state, outputs = (
        {"snnTorch": (torch.zeros(4, 20),) * 2, "Norse": (None,)}.get(framework, ()),
        [],
    )
    for drive in spikes @ weight.T:
        result = neurons(drive * 8 if framework == "Norse" else drive, *state)
        output, *state = result if isinstance(result, tuple) else (result,)
        outputs.append(output)
    differing = (torch.stack(outputs) != there).sum()
    assert there.mean() > 0.2
    # lava-dl rounds its states to 1 / 4096, which moves some spikes.
    assert differing <= 0.01 * there.sum()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_network_that_nir_carries_spikes_like_that_of_lava_dl(framework):
    import_peer("nir")
    recipe, network = recipes("from_lava"), blocks(16, 20, 5)
    spikes = (torch.rand((50, 4, 16)) < 0.3).float()
    there = spikes_of_lava(network, spikes)
    graph = recipe.to_nir(network)
    if framework == "Norse":
        imported = import_peer("norse.torch").from_nir(graph, dt=1e-4)
    elif framework == "snnTorch":
        imported = import_peer("snntorch.import_nir").import_from_nir(graph)
    else:
        exchange = import_peer("spikingjelly.activation_based.nir_exchange")
        imported = exchange.import_from_nir(graph, dt=1e-4)
        importlib.import_module("spikingjelly.activation_based.functional").set_step_mode(
            imported, "s"
        )
    differing = (recipe.run(imported, spikes) != there).sum()
    page = " ".join((DOCS / "migrating.md").read_text(encoding="utf-8").split())
    assert f"{differing} of {there.sum():.0f} output spikes differed" in page


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_gradient_of_spike_moid_equals_that_of_lava_dl(label):
    logits, alpha = torch.linspace(-60, 60, 481), 0.05
    labels, gradients = torch.full((481, 1), label), []
    for module in (ours.loss.SpikeMoid(alpha=alpha), slayer.loss.SpikeMoid(alpha=alpha)):
        leaf = (logits * alpha)[:, None, None].requires_grad_()
        gradients += torch.autograd.grad(module(leaf, labels), leaf)
    # A few roundings of float32, relative to the largest slope, 1 / alpha.
    torch.testing.assert_close(*gradients, rtol=2e-6, atol=4e-7 / alpha)
