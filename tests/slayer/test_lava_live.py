"""Compare with lava-dl 0.6.0, if it is installed."""

import importlib.metadata
import unittest

import numpy as np
import pytest

torch = pytest.importorskip("torch")
lava = pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl is not installed")

from spikeloss_xp import slayer

SHAPES = [(2, 5, 60), (4, 10, 128), (1, 3, 250), (2, 2, 3, 90)]


def generator(seed):
    return torch.Generator().manual_seed(seed)


def trains(shape, seed=0):
    """Return binary trains in which every neuron spikes in every window of 3 or more steps."""
    spikes = torch.rand(shape, generator=generator(seed)) < 0.3
    spikes[..., ::3] = True
    return spikes.float()


def assert_match(theirs, ours, spikes, *target):
    """Assert that both losses have the same value and gradient, to float32 precision."""
    results = []
    for loss in (theirs, ours):
        leaf = spikes.clone().requires_grad_()
        value = loss(leaf, *target)
        value.backward()
        results.append((value.detach(), leaf.grad))
    (value, gradient), (our_value, our_gradient) = results
    # Both are float32 sums of up to 10^4 terms, added in different orders.
    np.testing.assert_allclose(our_value, value, rtol=2e-5)
    np.testing.assert_allclose(our_gradient, gradient, atol=2e-5 * gradient.abs().max().item())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("arguments", [{}, {"filter_order": 2}, {"time_constant": 3, "length": 7}])
def test_spike_time_matches(shape, reduction, arguments):
    modules = [
        library.loss.SpikeTime(reduction=reduction, **arguments) for library in (lava, slayer)
    ]
    assert_match(*modules, trains(shape), trains(shape, seed=1))
    theirs, ours = (module.filter for module in modules)
    torch.testing.assert_close(ours.filter.flatten(), theirs.filter.flatten())
    torch.testing.assert_close(ours(trains(shape)), theirs(trains(shape)))
    modules[1].load_state_dict(
        {name: value.reshape(-1) for name, value in modules[0].state_dict().items()}
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("window", [None, 3, 20])
def test_losses_with_labels_match(shape, reduction, window):
    spikes = trains(shape)
    classes = int(np.prod(shape[1:-1]))
    label = torch.randint(classes, shape[:1], generator=generator(2))
    if window is not None:
        label = label[:, None].repeat(1, shape[-1])
    common = {"moving_window": window, "reduction": reduction}
    for name, arguments in (
        ("SpikeRate", {"true_rate": 0.4, "false_rate": 0.1}),
        ("SpikeMax", {}),
        ("SpikeMax", {"mode": "softmax"}),
    ):
        assert_match(
            *(getattr(library.loss, name)(**arguments, **common) for library in (lava, slayer)),
            spikes,
            label,
        )
    multi_hot = (torch.rand((shape[0], classes), generator=generator(3)) < 0.5).float()
    if window is not None:
        multi_hot = multi_hot[..., None].repeat(1, 1, shape[-1])
    assert_match(
        *(library.loss.SpikeMoid(alpha=0.5, theta=0.2, **common) for library in (lava, slayer)),
        spikes,
        multi_hot,
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_sparsity_and_classifiers_match(shape):
    spikes = trains(shape)

    def collected(library):
        def loss(x):
            sparsity = library.loss.SparsityEnforcer(max_rate=0.05, lam=2.0)
            for factor in (1, -2):
                sparsity.append(factor * x)
            return sparsity.loss

        return loss

    assert_match(collected(lava), collected(slayer), spikes)
    theirs, ours = lava.classifier.Rate, slayer.classifier.Rate
    torch.testing.assert_close(ours.rate(spikes), theirs.rate(spikes))
    for mode in ("probability", "softmax", "logsoftmax"):
        torch.testing.assert_close(ours.confidence(spikes, mode), theirs.confidence(spikes, mode))
        windows = [library.classifier.MovingWindow(20, mode) for library in (lava, slayer)]
        torch.testing.assert_close(*(window.confidence(spikes) for window in windows))
        torch.testing.assert_close(*(window.rate(spikes) for window in windows))
    assert torch.equal(ours.predict(spikes), theirs.predict(spikes))


def test_losses_assigned_to_lava_serve_a_script(monkeypatch):
    monkeypatch.setattr(lava, "loss", slayer.loss)  # undone after the test
    monkeypatch.setattr(lava, "classifier", slayer.classifier)
    import lava.lib.dl.slayer as script

    block = script.block.cuba.Dense(
        {"threshold": 1.25, "current_decay": 0.25, "voltage_decay": 0.03}, 6, 3
    )
    spikes = block(trains((2, 6, 20)))
    error = script.loss.SpikeRate(true_rate=0.2, false_rate=0.03)
    error(spikes, torch.tensor([0, 2])).backward()
    assert isinstance(error, slayer.loss.SpikeRate)
    assert block.synapse.weight.grad.isfinite().all()
    assert script.classifier.Rate.predict(spikes).shape == (2,)


def test_infinite_and_clamped_values_match():
    spikes = trains((2, 3, 40))
    spikes[:, 1] = 0
    label = torch.tensor([1, 0])
    for library in (lava, slayer):
        assert library.loss.SpikeMax()(spikes, label) == torch.inf
        # At a logit of 20 the probability rounds to 1 in float32.
        moid = library.loss.SpikeMoid(alpha=1 / 20)
        assert moid(torch.ones(1, 1, 5), torch.zeros(1, 1)) == 100
        # At a logit of -95 it rounds to 0.
        moid = library.loss.SpikeMoid(alpha=1 / 95)
        assert moid(-torch.ones(1, 1, 5), torch.ones(1, 1)) == 100


def test_lava_dl_tests_pass_with_one_import_changed():
    (path,) = (
        file
        for file in importlib.metadata.files("lava-dl") or ()
        if file.parts[-2:] == ("slayer", "test_loss.py")
    )
    theirs = "import lava.lib.dl.slayer as slayer"
    source = path.read_text()
    assert source.count(theirs) == 1
    namespace = {"__name__": "test_loss"}
    exec(
        compile(source.replace(theirs, "import spikeloss_xp.slayer as slayer"), str(path), "exec"),
        namespace,
    )
    cases = [
        c for c in namespace.values() if isinstance(c, type) and issubclass(c, unittest.TestCase)
    ]
    suite = unittest.TestSuite(map(unittest.defaultTestLoader.loadTestsFromTestCase, cases))
    result = unittest.TestResult()
    suite.run(result)
    assert result.testsRun == 3
    assert result.wasSuccessful(), [*result.errors, *result.failures]
