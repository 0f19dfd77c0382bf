"""Compare with lava-dl 0.6.0, if it is installed."""

import importlib.metadata
import math
import unittest

import pytest

from _support.side_by_side import assert_match, generator, import_peer, torch

lava = import_peer("lava.lib.dl.slayer")

from spikeloss_xp import slayer

LIBRARIES = (lava, slayer)
LOSSES = [  # test_slayer.py compares more options with recorded values
    ("SpikeTime", {"time_constant": 3, "length": 7, "filter_order": 2}),
    ("SpikeRate", {"true_rate": 0.4, "false_rate": 0.1, "moving_window": 3}),
    ("SpikeMax", {}),
    ("SpikeMax", {"mode": "softmax", "moving_window": 20, "reduction": "mean"}),
    ("SpikeMoid", {"alpha": 0.5, "theta": 0.2}),
]
SHAPE = 2, 2, 3, 90


def trains(seed=0):
    """Return binary trains in which every neuron spikes in every window of 3 or more steps."""
    spikes = torch.rand(SHAPE, generator=generator(seed)) < 0.3
    spikes[..., ::3] = True
    return spikes.float()


def target_of(name, window):
    """Return trains, a label for each sample or step, or classes that are right or wrong."""
    if name == "SpikeTime":
        return trains(seed=1)
    batch, *space, steps = SHAPE
    classes = math.prod(space)
    if name == "SpikeMoid":
        return (torch.rand((batch, classes), generator=generator(3)) < 0.5).float()
    label = torch.randint(classes, (batch,), generator=generator(2))
    return label if window is None else label[:, None].expand(batch, steps)


@pytest.mark.parametrize(("name", "arguments"), LOSSES)
def test_loss_matches(name, arguments):
    theirs, ours = modules = [getattr(library.loss, name)(**arguments) for library in LIBRARIES]
    spikes, target = trains(), target_of(name, arguments.get("moving_window"))
    # Both are float32 sums of up to 10^4 terms, added in different orders.
    assert_match(*(lambda x, f=module: f(x, target) for module in modules), spikes)
    if name == "SpikeTime":
        torch.testing.assert_close(ours.filter.filter.flatten(), theirs.filter.filter.flatten())
        torch.testing.assert_close(ours.filter(spikes), theirs.filter(spikes))
        state = {name: value.reshape(-1) for name, value in theirs.state_dict().items()}
        ours.load_state_dict(state)


def test_sparsity_and_classifiers_match():
    spikes = trains()

    def collected(library):
        def loss(x):
            sparsity = library.loss.SparsityEnforcer(max_rate=0.05, lam=2.0)
            for factor in (1, -2):
                sparsity.append(factor * x)
            return sparsity.loss

        return loss

    assert_match(*map(collected, LIBRARIES), spikes)
    for function in (
        lambda classifier, mode: classifier.Rate.rate(spikes),
        lambda classifier, mode: classifier.Rate.predict(spikes),
        lambda classifier, mode: classifier.Rate.confidence(spikes, mode),
        lambda classifier, mode: classifier.MovingWindow(20, mode).confidence(spikes),
        lambda classifier, mode: classifier.MovingWindow(20, mode).rate(spikes),
    ):
        for mode in ("probability", "softmax", "logsoftmax"):
            theirs, ours = (function(library.classifier, mode) for library in LIBRARIES)
            torch.testing.assert_close(ours, theirs)


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
