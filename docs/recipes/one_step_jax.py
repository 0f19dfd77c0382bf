"""Compare the loss of a step with optax and with forward-mode gradients."""

import jax
import numpy as np
import optax

import spikeloss_xp as sx

step_loss = sx.CrossEntropy(time_axis=-1, readout="last")


def main():
    """Compare values and gradients."""
    potential, label = np.random.default_rng(0).normal(size=(8, 10)), np.arange(8)
    tangent = np.where(np.arange(10) == 0, -1.0, 1.0) + 0 * potential
    _, signal = sx.value_and_grad(step_loss)(potential[..., None], label)

    def ours(y):
        return step_loss(y[..., None], label)

    def theirs(y):
        return optax.softmax_cross_entropy_with_integer_labels(y, label).mean()

    with jax.enable_x64(True):
        value, gradient = jax.value_and_grad(theirs)(potential)
        np.testing.assert_allclose(
            jax.grad(ours)(potential), gradient, rtol=1e-9, atol=1e-12
        )
        same, slope = jax.jvp(ours, [potential], [tangent])
    np.testing.assert_allclose(same, value, rtol=1e-12)
    np.testing.assert_allclose(slope, np.sum(signal[..., 0] * tangent), rtol=1e-9)


if __name__ == "__main__":
    main()
