"""Recipes that scale networks of Equinox, Flax and Spyx: see docs/guides/initialisation.md."""

import importlib
import itertools

import numpy as np
import pytest

from _support.processes import recipes
from _support.side_by_side import import_peer, losses_of_spyx, trains

pytestmark = pytest.mark.compiles  # or imports a large package, which takes as long

SIZES = 20, 30, 25, 4
INPUTS = trains((20, 8, SIZES[0])).numpy()


def in_equinox():
    """Return the spikes of a scaled network, its layers, and their first updates."""
    jax, _ = pytest.importorskip("jax"), import_peer("equinox")
    recipe = recipes("scale_equinox")
    network = recipes("watch_equinox").Network(SIZES, jax.random.key(0))
    scaled = recipe.scaled(network, INPUTS)
    optimizer = recipe.scaled_adam(scaled)
    update, _ = optimizer.update(jax.tree.map(lambda x: 1 + 0 * x, scaled), optimizer.init(scaled))
    both = ([(layer.weight, layer.bias) for layer in x.layers] for x in (scaled, update))
    return scaled(INPUTS), *both


def in_flax():
    nnx = import_peer("flax.nnx")
    network = recipes("watch_flax").Network(SIZES, nnx.Rngs(0))
    return of_nnx(network, lambda network: network(INPUTS))


def in_spyx():
    nnx = import_peer("flax.nnx")
    losses_of_spyx()  # instead of the package, which needs much more
    nn, rngs = importlib.import_module("spyx.nn"), nnx.Rngs(0)
    layers = []
    for pair in itertools.pairwise(SIZES):
        layers += [nnx.Linear(*pair, rngs=rngs), nn.LIF(pair[1:], 0.9, rngs=rngs)]
    recipe = recipes("scale_spyx")
    return of_nnx(nn.Sequential(*layers), lambda network: recipe.spikes_of_layers(network, INPUTS))


def of_nnx(network, forward):
    jax, nnx, _ = pytest.importorskip("jax"), import_peer("flax.nnx"), import_peer("optax")
    recipe = recipes("scale_flax")
    layers = [x for x in network.layers if isinstance(x, nnx.Linear)]
    recipe.scale_network(network, forward)
    spikes, old = forward(network), [(layer.kernel[...], layer.bias[...]) for layer in layers]
    optimizer = nnx.Optimizer(network, recipe.scaled_adam(network), wrt=nnx.Param)
    optimizer.update(network, jax.tree.map(lambda x: 1 + 0 * x, nnx.state(network, nnx.Param)))
    new = [(layer.kernel[...], layer.bias[...]) for layer in layers]
    return spikes, old, jax.tree.map(lambda a, b: a - b, new, old)


@pytest.mark.parametrize("make", [in_equinox, in_flax, in_spyx])
def test_scaled_network_fires_at_the_rate(make):
    spikes, layers, updates = make()
    for x in spikes:
        assert 0.05 / 1.3 <= x.mean() <= 0.05 * 1.3
    for (weight, bias), changes in zip(layers, updates, strict=True):
        assert not bias.any()
        size = np.sqrt((weight**2).mean())
        for change in changes:  # the first step of Adam is the learning rate
            np.testing.assert_allclose(np.abs(change), 0.03 * size, rtol=1e-3)
