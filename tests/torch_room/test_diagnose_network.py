"""A network is diagnosed in one call, and is the same afterwards."""

import copy

import pytest

torch = pytest.importorskip("torch")

import spikeloss_xp as sx
from _support.networks import BATCH, INPUTS, LABEL, has_hooks, module_of, network_of, recorded
from spikeloss_xp.torch import LossModule, diagnose_network

LOSS = sx.CrossEntropy(time_axis=0)


def noisy():
    """Return a network with a norm, dropout, a buffer that is replaced, and old gradients."""
    network = network_of(20, 30, 3)
    network.insert(1, module_of(lambda self, x: self.norm(x.flatten(0, 1)).view_as(x),
                                norm=torch.nn.BatchNorm1d(30)))  # fmt: skip
    network.insert(2, torch.nn.Dropout(0.2))

    def count(self, x):
        self.seen = self.seen + 1
        return x

    counter = module_of(count)
    counter.register_buffer("seen", torch.zeros(()))
    network.insert(3, counter)
    network[0].weight.grad = torch.ones(30, 20)
    network[2].eval()
    return network


def state(network):
    """Return everything that must not change."""
    return {
        "values": copy.deepcopy(network.state_dict()),
        "gradients": [None if x.grad is None else x.grad.clone() for x in network.parameters()],
        "training": [x.training for x in network.modules()],
        "random": torch.get_rng_state(),
    }


def assert_unchanged(network, before):
    after = state(network)
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert not has_hooks(network)


def test_report_is_that_of_a_loop_of_ones_own():
    network = network_of(20, 30, 3)
    report = diagnose_network(network, LOSS, lambda: network(INPUTS), LABEL)
    seen, output = recorded(network)
    LOSS(output, LABEL).backward()
    found = {"hidden": seen.hidden, "gradients": seen.gradients}
    assert report == sx.diagnose(LOSS, output, LABEL, **found)
    assert [x.name for x in report.layers] == ["hidden.1", "output"]
    assert all(x.rms for x in report.gradients)


@pytest.mark.parametrize("fails_in", [None, "forward", "loss", "report"])
def test_network_is_unchanged_also_after_an_error(fails_in):
    torch.manual_seed(0)
    network = noisy()
    gradient, before = network[0].weight.grad, state(network)

    def forward():
        network.train()
        output = network(INPUTS)
        if fails_in == "forward":
            raise RuntimeError("in forward")
        return output

    label = LABEL[:-1] if fails_in == "loss" else LABEL
    options = {"updates": 0} if fails_in == "report" else {}
    if fails_in is None:
        diagnose_network(network, LOSS, forward, label)
    else:
        with pytest.raises((RuntimeError, ValueError)):
            diagnose_network(network, LOSS, forward, label, **options)
    assert_unchanged(network, before)
    assert network[0].weight.grad is gradient


def test_gradients_are_those_of_this_batch_alone():
    network = network_of(20, 30, 3)
    fresh = diagnose_network(network, LOSS, lambda: network(INPUTS), LABEL)
    for x in network.parameters():
        x.grad = torch.full_like(x, 100.0)
    assert diagnose_network(network, LOSS, lambda: network(INPUTS), LABEL) == fresh


def test_call_within_no_grad_has_gradients():
    network = network_of(20, 30, 3)
    with torch.no_grad():
        report = diagnose_network(network, LOSS, lambda: network(INPUTS), LABEL)
        assert not torch.is_grad_enabled()
    assert report == diagnose_network(network, LOSS, lambda: network(INPUTS), LABEL)


def test_options_reach_the_loss_and_the_report():
    network, weight = network_of(20, 30, 3), torch.tensor([1.0, 2.0, 3.0])
    options = {"lengths": torch.arange(BATCH) + 3, "weight": weight}
    loss = LossModule(LOSS)
    report = diagnose_network(network, loss, lambda: network(INPUTS), LABEL, **options)
    value = loss(network(INPUTS), LABEL, **options).item()
    assert report.numbers["loss"] == pytest.approx(value)
    later = diagnose_network(
        network, LOSS, lambda: network(INPUTS), LABEL, report, updates=150, **options
    )
    assert later.numbers["earlier loss, updates since"] == (report.numbers["loss"], 150)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_other_losses_and_reductions_are_accepted(reduction):
    network = network_of(20, 30, 3)
    own = sx.CrossEntropy(time_axis=0, reduction=reduction)
    other = torch.nn.CrossEntropyLoss(reduction="mean" if reduction == "none" else reduction)
    for loss, options in (
        (own, {}),
        (lambda x, y: other(x.sum(0), y), {"time_axis": 0}),
    ):
        report = diagnose_network(network, loss, lambda: network(INPUTS), LABEL, **options)
        assert report.numbers["loss"] > 0
        assert all(x.rms for x in report.gradients)


def test_judges_with_the_report_before():
    network = network_of(20, 30, 3, gain=0.01)  # nothing fires

    def report(*earlier):
        return diagnose_network(network, LOSS, lambda: network(INPUTS), LABEL, *earlier)

    first = report()
    assert first.findings
    then = report(first)
    assert [x.severity for x in then.findings if x.code == "not-moved"] == ["problem"]
