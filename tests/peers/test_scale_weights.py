"""Neurons of other packages, as docs/diagnosis-measured.md uses them to scale initial weights."""

import pytest

from _support.processes import recipes
from _support.side_by_side import import_peer, torch, trains

pytestmark = pytest.mark.compiles  # or imports a large package, which takes as long


def test_scaled_weights_let_layers_of_snntorch_fire_in_the_given_share_of_the_steps():
    import_peer("snntorch")
    fire = recipes("scale_weights_snntorch").fire
    torch.manual_seed(0)
    layers = [torch.nn.Linear(30, 30) for _ in range(2)]
    x = trains((20, 16, 30))
    recipes("scale_weights_torch").scale_weights(layers, fire, x)
    for layer in layers:
        x = fire(layer(x))
        assert x.mean() == pytest.approx(0.05, abs=0.005)
