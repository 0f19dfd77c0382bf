"""Compare with lava-dl 0.6.0, if it is installed."""

import importlib.metadata
import unittest

import pytest
import torch

from _support.side_by_side import import_peer
from spikeloss_xp import slayer

lava = import_peer("lava.lib.dl.slayer")


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


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_gradient_of_spike_moid_equals_that_of_lava_dl(label):
    logits, alpha = torch.linspace(-60, 60, 481), 0.05
    labels, gradients = torch.full((481, 1), label), []
    for module in (slayer.loss.SpikeMoid(alpha=alpha), lava.loss.SpikeMoid(alpha=alpha)):
        leaf = (logits * alpha)[:, None, None].requires_grad_()
        gradients += torch.autograd.grad(module(leaf, labels), leaf)
    # A few roundings of float32, relative to the largest slope, 1 / alpha.
    torch.testing.assert_close(*gradients, rtol=2e-6, atol=4e-7 / alpha)
