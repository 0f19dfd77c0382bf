"""Train a spiking network on all JAX devices, as shown in docs/processes.md."""

import jax
import jax.numpy as jnp
import numpy as np

import spikeloss_xp as sx

mesh = jax.sharding.Mesh(jax.devices(), ("batch",))
by_sample, replicated = jax.NamedSharding(mesh, jax.P("batch")), jax.NamedSharding(mesh, jax.P())
loss = sx.CrossEntropy(time_axis=0, moving_window=5)  # the mean over all steps before padding


def network(params, inputs):
    """Return the spikes of leaky integrate-and-fire neurons, ``[time, sample, class]``."""

    def step(membrane, current):
        membrane = 0.9 * membrane + current
        smooth = jnp.arctan(3 * (membrane - 1)) / 3  # its derivative is the surrogate gradient
        spike = (membrane > 1) + (smooth - jax.lax.stop_gradient(smooth))
        return membrane - spike, spike

    currents = (inputs @ params["weights"] + params["bias"]).swapaxes(0, 1)
    return jax.lax.scan(step, 0 * currents[0], currents)[1]


@jax.jit
def train_step(params, inputs, labels, lengths):
    """Return the parameters after one step of gradient descent."""
    gradient = jax.grad(lambda p: loss(network(p, inputs), labels, lengths=lengths))(params)
    return jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient)


@jax.jit
def evaluate(params, inputs, labels, lengths):
    """Return the loss and the confusion matrix."""
    output = network(params, inputs)
    return loss(output, labels, lengths=lengths), loss.confusion(output, labels, lengths=lengths)


rng = np.random.default_rng(0)
rates = 0.3 * rng.random((10, 50))  # firing rates of 50 inputs, for each of 10 classes
labels, lengths = rng.integers(10, size=800), rng.integers(5, 21, size=800)
inputs = 1.0 * (rng.random((800, 20, 50)) < rates[labels, None])  # [sample, time, neuron]
data = inputs, labels, lengths

params = {"weights": rng.normal(0, 0.1, (50, 10)), "bias": np.zeros(10)}
params = jax.device_put(params, replicated)
test = jax.device_put([x[600:] for x in data], by_sample)
for epoch in range(20):
    for batch in rng.permutation(600).reshape(6, 100):
        params = train_step(params, *jax.device_put([x[batch] for x in data], by_sample))
    if epoch % 5 == 4:
        value, matrix = evaluate(params, *test)
        print(f"test loss {value:.4f}, accuracy {matrix.trace() / matrix.sum():.1%}")
