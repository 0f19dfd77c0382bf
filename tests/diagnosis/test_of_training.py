"""`diagnose` on networks that learn, that have learned, and in which a fault is planted then."""

import math

import numpy as np
import pytest

import spikeloss_xp as sx

torch = pytest.importorskip("torch")

from _support.networks import module_of, network_of, recorded

LOSS = sx.CrossEntropy(time_axis=0)
ABOUT_SIZES = {"vanishing-gradient", "exploding-gradient", "zero-gradient", "no-gradient"}
ENOUGH = 0.95


def timing():
    """Return 60 samples of ten classes. Each input fires once, at a time of its class."""
    random = np.random.default_rng(0)
    label = np.arange(60) % 10
    times = random.integers(2, 18, size=(10, 40))[label] + random.integers(-2, 3, size=(60, 40))
    spikes = 3.0 * (np.arange(20)[:, None, None] == times)
    return torch.tensor(spikes, dtype=torch.float32), torch.tensor(label)


def report_of(network, x, label):
    """Return the report on a batch, whose gradients are left in the network."""
    network.zero_grad()
    seen, output = recorded(network, inputs=x)
    LOSS(output, label).backward()
    return sx.diagnose(LOSS, output, label, hidden=seen.hidden, gradients=seen.gradients)


def problems(report):
    return {finding.code for finding in report.findings if finding.severity == "problem"}


@pytest.mark.slow(but=1)
@pytest.mark.parametrize("seed", range(100))
def test_network_that_has_learned_gets_no_problem_until_a_fault_is_planted(seed):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    x, label = timing()
    random = np.random.default_rng(seed)
    hidden = [50] * int(random.integers(1, 3))
    network = network_of(40, *hidden, 10, gain=float(random.choice([1, 1.5, 2])), seed=seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.005)
    for _ in range(20):
        report = report_of(network, x, label)
        accuracy = report.numbers["accuracy"]
        assert accuracy <= 0.9 or not problems(report) & ABOUT_SIZES, str(report)
        if accuracy >= ENOUGH:
            break
        for _ in range(5):
            optimizer.zero_grad()
            LOSS(network(x), label).backward()
            optimizer.step()
    torch.set_num_threads(threads)
    assert accuracy >= ENOUGH
    network.insert(2, module_of(lambda self, x: x.detach()))
    assert "no-gradient" in problems(report_of(network, x, label))
    network[-2].weight.data[0, 0] = math.nan
    assert "not-finite" in problems(report_of(network, x, label))


def test_module_with_a_loss_is_inspected_as_its_loss():
    from spikeloss_xp.torch import LossModule

    spikes, label = timing()
    weight = torch.arange(1.0, 41.0)
    expected = sx.diagnose(LOSS, spikes, label, weight=weight)
    assert sx.diagnose(LossModule(LOSS, weight=weight), spikes, label) == expected
    assert sx.diagnose(LossModule(LOSS), spikes, label, weight=weight) == expected
