"""Compare with lava-dl 0.6.0, if it is installed."""

import importlib.metadata
import unittest

from _support.side_by_side import generator, import_peer, torch

lava = import_peer("lava.lib.dl.slayer")

from spikeloss_xp import slayer

LIBRARIES = (lava, slayer)
SPIKES = (torch.rand((2, 2, 3, 90), generator=generator(0)) < 0.3).float()
SPIKES[..., ::3] = 1  # every neuron spikes in every window of 3 or more steps


def test_filter_and_state_of_spike_time_match():
    """test_slayer.py compares the values of all losses with recorded ones of lava-dl."""
    theirs, ours = (library.loss.SpikeTime(3, 7, filter_order=2) for library in LIBRARIES)
    torch.testing.assert_close(ours.filter.filter.flatten(), theirs.filter.filter.flatten())
    torch.testing.assert_close(ours.filter(SPIKES), theirs.filter(SPIKES))
    state = {name: value.reshape(-1) for name, value in theirs.state_dict().items()}
    ours.load_state_dict(state)


def test_classifiers_match():
    for function in (
        lambda classifier, mode: classifier.Rate.rate(SPIKES),
        lambda classifier, mode: classifier.Rate.predict(SPIKES),
        lambda classifier, mode: classifier.Rate.confidence(SPIKES, mode),
        lambda classifier, mode: classifier.MovingWindow(20, mode).confidence(SPIKES),
        lambda classifier, mode: classifier.MovingWindow(20, mode).rate(SPIKES),
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
