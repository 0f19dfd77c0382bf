"""Train a spiking network on all JAX devices, as shown in docs/processes.md."""

import jax
import numpy as np
from lif_jax import fire

import spikeloss_xp as sx

mesh = jax.sharding.Mesh(jax.devices(), ("batch",))
by_sample = jax.NamedSharding(mesh, jax.P("batch"))
replicated = jax.NamedSharding(mesh, jax.P())
# the mean over all steps before padding
loss = sx.CrossEntropy(time_axis=0, moving_window=5)


def network(params, inputs):
    """Return the spikes of LIF neurons, ``[time, sample, class]``."""
    currents = (inputs @ params["weights"] + params["bias"]).swapaxes(0, 1)
    return jax.lax.scan(fire, 0 * currents[0], currents)[1]


@jax.jit
def train_step(params, inputs, labels, lengths):
    """Return the parameters after one step of gradient descent."""

    def value(params):
        return loss(network(params, inputs), labels, lengths=lengths)

    gradient = jax.grad(value)(params)
    return jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient)


@jax.jit
def evaluate(params, inputs, labels, lengths):
    """Return the loss and the confusion matrix."""
    output = network(params, inputs)
    matrix = loss.confusion(output, labels, lengths=lengths)
    return loss(output, labels, lengths=lengths), matrix


rng = np.random.default_rng(0)
# firing rates of 50 inputs, for each of 10 classes
rates = 0.3 * rng.random((10, 50))
labels, lengths = rng.integers(10, size=800), rng.integers(5, 21, size=800)
# [sample, time, neuron]
inputs = 1.0 * (rng.random((800, 20, 50)) < rates[labels, None])
data = inputs, labels, lengths

params = {"weights": rng.normal(0, 0.1, (50, 10)), "bias": np.zeros(10)}
params = jax.device_put(params, replicated)
test = jax.device_put([x[600:] for x in data], by_sample)
for epoch in range(20):
    for batch in rng.permutation(600).reshape(6, 100):
        part = jax.device_put([x[batch] for x in data], by_sample)
        params = train_step(params, *part)
    if epoch % 5 == 4:
        value, matrix = evaluate(params, *test)
        print(f"test loss {value:.4f}, accuracy {matrix.trace() / matrix.sum():.1%}")
