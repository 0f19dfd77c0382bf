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
    """Return functions that scale a network, return its spikes, and make one step of Adam."""
    jax, _ = pytest.importorskip("jax"), import_peer("equinox")
    optax, recipe = import_peer("optax"), recipes("scale_equinox")
    network = recipes("watch_equinox").Network(SIZES, jax.random.key(0))
    scaled = recipe.scaled(network, INPUTS)
    before = [layer.weight for layer in network.layers]
    after = [(layer.weight, layer.bias) for layer in scaled.layers]
    optimizer = recipe.scaled_adam(scaled)
    state = optimizer.init(scaled)
    gradient, updates = jax.tree.map(lambda x: 1 + 0 * x, scaled), []
    for _ in range(30):
        update, state = optimizer.update(gradient, state)
        updates.append([(layer.weight, layer.bias) for layer in update.layers])
    optax.apply_updates(scaled, update)
    return scaled(INPUTS), before, after, updates


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
    before = [layer.kernel[...] for layer in layers]
    factors = recipe.scale_network(network, forward)
    after = [(layer.kernel[...], layer.bias[...]) for layer in layers]
    for old, (new, _), factor in zip(before, after, factors, strict=True):
        np.testing.assert_allclose(new, factor * old, rtol=1e-6)
    spikes = forward(network)
    optimizer = nnx.Optimizer(network, recipe.scaled_adam(network), wrt=nnx.Param)
    gradient, updates = jax.tree.map(lambda x: 1 + 0 * x, nnx.state(network, nnx.Param)), []
    for _ in range(30):
        old = [(layer.kernel[...], layer.bias[...]) for layer in layers]
        optimizer.update(network, gradient)
        new = [(layer.kernel[...], layer.bias[...]) for layer in layers]
        updates.append(jax.tree.map(lambda a, b: a - b, new, old))
    return spikes, before, after, updates


@pytest.mark.parametrize("make", [in_equinox, in_flax, in_spyx])
def test_scaled_network_fires_at_the_rate(make):
    spikes, before, after, updates = make()
    for x in spikes:
        assert 0.05 / 1.3 <= x.mean() <= 0.05 * 1.3
    for old, (new, bias), *changes in zip(before, after, *updates, strict=True):
        np.testing.assert_allclose(new, new[0, 0] / old[0, 0] * old, rtol=1e-5)
        assert not bias.any()
        size = np.sqrt((new**2).mean())
        # The first step of Adam is the learning rate, whatever the gradient.
        np.testing.assert_allclose(np.abs(changes[0][0]), 0.03 / 20 * size, rtol=1e-3)
        for change in changes[-1]:  # after the warm-up, the weight and its bias
            np.testing.assert_allclose(np.abs(change), 0.03 * size, rtol=1e-3)
