"""Train a spiking network with NumPy alone, as shown in docs/quickstart.md."""

import numpy as np
from digits import labels, spikes

import spikeloss_xp as sx


def fire(currents):
    """Return the spikes of LIF neurons, and their surrogate derivative."""
    membrane, output, slope = 0, [], []
    for current in currents:
        membrane = 0.9 * membrane + current
        output.append((membrane > 1).astype(np.float32))
        slope.append(1 / (1 + 2 * abs(membrane - 1)) ** 2)
        membrane = membrane - output[-1]
    return np.stack(output), np.stack(slope)


def train(loss, epochs=20, seed=0):
    """Train on 1437 digits, and return the accuracy on the other 360."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(0, 0.05, (64, 10)).astype(np.float32)
    for _ in range(epochs):
        for batch in np.array_split(rng.permutation(1437), 15):
            output, slope = fire(spikes[:, batch] @ weights)
            _, gradient = sx.value_and_grad(loss)(output, labels[batch])
            gradient = gradient * slope
            # backpropagate through time along the membrane
            for t in range(18, -1, -1):
                gradient[t] += 0.9 * gradient[t + 1]
            weights -= 0.003 * np.tensordot(
                spikes[:, batch], gradient, ([0, 1], [0, 1])
            )
    output, _ = fire(spikes[:, 1437:] @ weights)
    return float(sx.SpikeMax(time_axis=0).accuracy(output, labels[1437:]))


if __name__ == "__main__":
    print(train(sx.CrossEntropy(time_axis=0)))
