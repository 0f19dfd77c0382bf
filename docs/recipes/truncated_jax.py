"""Backpropagate through segments of time in JAX, as described in docs/segments.md.

Run as a program, this file prints the relative errors of the gradient that truncation causes.
"""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

import spikeloss_xp as sx


def network(params, state, x):
    """Return the last state of a layer, and spikes, ``[time, batch, neuron]``."""

    def step(state, x):
        u, s = state
        u = 0.9 * u * (1 - s) + x @ params["input"] + s @ params["recurrent"]
        # its derivative is the surrogate gradient
        smooth = (u - 1) / (1 + 5 * abs(u - 1))
        s = (u > 1) + (smooth - jax.lax.stop_gradient(smooth))
        return (u, s), s

    return jax.lax.scan(step, state, x)


def in_segments(
    loss, params, initial, x, label, where, length, cut=jax.lax.stop_gradient
):
    """Return the loss. Applying `cut` between segments truncates the gradient."""

    def segment(carry, piece):
        state, before = cut(carry)
        x, label, where = piece
        state, train = network(params, state, x)
        here = train, label, where
        seen = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), before, here)
        sums = loss.sum_and_weight(*seen[:2], where=seen[2], context=loss.memory)
        return (state, jax.tree.map(lambda a: a[len(a) - loss.memory :], seen)), sums

    like = jnp.broadcast_to(initial[1], (len(x), *initial[1].shape)), label, where
    before = jax.tree.map(
        lambda a: jnp.zeros((loss.memory, *a.shape[1:]), a.dtype), like
    )
    pieces = jax.tree.map(
        lambda a: a.reshape(-1, length, *a.shape[1:]), (x, label, where)
    )
    totals, weights = jax.lax.scan(segment, (initial, before), pieces)[1]
    return totals.sum() / weights.sum()


@jax.enable_x64(True)
def main():
    """Compare segments of 50 steps with the whole train."""
    loss = sx.SpikeMax(moving_window=20, time_axis=0)
    keys = jax.random.split(jax.random.key(0), 4)
    params = {
        "input": 0.3 * jax.random.normal(keys[0], (20, 5)),
        "recurrent": 0.3 * jax.random.normal(keys[1], (5, 5)),
    }
    x = 1.0 * (jax.random.uniform(keys[2], (200, 4, 20)) < 0.3)
    label = jax.random.randint(keys[3], (200, 4), 0, 5)  # one label for each step
    where = jnp.arange(200)[:, None] < jnp.asarray([200, 200, 170, 90])
    initial = jnp.zeros((2, 4, 5))

    def whole(params):
        return loss(network(params, (*initial,), x)[1], label, where=where)

    value, gradient = jax.jit(jax.value_and_grad(whole))(params)
    cuts = {
        "nothing": lambda carry: carry,
        "the state": lambda carry: (jax.lax.stop_gradient(carry[0]), carry[1]),
        "state and context": jax.lax.stop_gradient,
    }
    for name, cut in cuts.items():

        def split(params, cut=cut):
            return in_segments(loss, params, (*initial,), x, label, where, 50, cut)

        found, got = jax.jit(jax.value_and_grad(split))(params)
        assert jnp.allclose(found, value, rtol=1e-12)
        missing, size = jax.tree.map(jnp.subtract, got, gradient), jnp.linalg.norm
        off = size(ravel_pytree(missing)[0]) / size(ravel_pytree(gradient)[0])
        print(f"{name:18}{off:4.0%}")
        assert name != "nothing" or off < 1e-12


if __name__ == "__main__":
    main()
