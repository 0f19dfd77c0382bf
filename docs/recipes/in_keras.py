"""Train a spiking network in Keras 3, as shown in docs/modules.md."""

import digits
import keras

import spikeloss_xp as sx

spikes = digits.spikes.swapaxes(0, 1)  # [sample, time, pixel]


def fire(membrane, current):
    """Return the next membrane potentials and the spikes of LIF neurons."""
    membrane = 0.9 * membrane + current
    # its derivative is the surrogate gradient
    smooth = keras.ops.sigmoid(4 * (membrane - 1))
    spike = keras.ops.cast(membrane > 1, membrane.dtype)
    spike = spike + smooth - keras.ops.stop_gradient(smooth)
    return membrane - spike, spike


class Neurons(keras.layers.Layer):
    """Leaky integrate-and-fire neurons."""

    def call(self, currents):
        """Return the spikes for currents ``[sample, time, neuron]``."""
        by_step = keras.ops.swapaxes(currents, 0, 1)
        _, spikes = keras.ops.scan(fire, 0 * by_step[0], by_step)
        return keras.ops.swapaxes(spikes, 0, 1)


def train(loss, epochs=10, seed=0):
    """Train on 1400 digits, and return the accuracy on the other 397."""
    keras.utils.set_random_seed(seed)
    hidden, last = keras.layers.Dense(100), keras.layers.Dense(10)
    network = keras.Sequential([hidden, Neurons(), last, Neurons()])
    network.compile(
        keras.optimizers.Adam(0.005),
        loss=lambda y, x: loss(x, keras.ops.cast(y, "int32")),
    )
    options = {"batch_size": 100, "epochs": epochs, "verbose": 0}
    network.fit(spikes[:1400], digits.labels[:1400], **options)
    output = network.predict(spikes[1400:], verbose=0)
    return float(sx.SpikeMax(time_axis=1).accuracy(output, digits.labels[1400:]))


if __name__ == "__main__":
    print(train(sx.CrossEntropy(time_axis=1, rates=(0.5, 0.02))))
