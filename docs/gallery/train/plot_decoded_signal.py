"""
A signal decoded from spikes
============================

How do you train a network to output a signal?

A point moves in the plane. Each of 100 input neurons has a place in the plane, and fires while the
point is close to this place. A small spiking network learns to decode the position of the point at
every step. ``SquaredError`` compares the two coordinates of the point with the membrane potentials
of the output layer.
"""

import numpy as np
import torch
from matplotlib import pyplot as plt

import spikeloss_xp as sx

torch.set_num_threads(1)  # faster for small matrices

# %%
# The task
# --------
#
# The paths for training are random and smooth. The farther the point is from the place of an input
# neuron, the less likely the neuron is to fire. Spikes have shape ``[time, sample, neuron]``, and
# targets have shape ``[time, sample, coordinate]``. The test path is a figure of eight.

STEPS, SAMPLES, NEURONS = 200, 12, 100
rng = np.random.default_rng(0)
places = rng.uniform(-1.2, 1.2, (NEURONS, 2))


def random_paths():
    """Return smooth random paths, ``[time, sample, coordinate]``."""
    time = np.arange(STEPS)[:, None, None, None] / STEPS
    cycles = rng.uniform(0.3, 2, (SAMPLES, 2, 3))
    phases = rng.uniform(0, 2 * np.pi, (SAMPLES, 2, 3))
    return 1.3 * np.sin(2 * np.pi * cycles * time + phases).mean(axis=-1)


def observed(paths):
    """Return the input spikes while the point moves along the paths."""
    distance = np.square(paths[:, :, None] - places).sum(axis=-1)
    fires = rng.random(distance.shape) < 0.4 * np.exp(-distance / (2 * 0.35**2))
    return torch.tensor(fires, dtype=torch.float32)


angle = 2 * np.pi * np.arange(STEPS) / STEPS
eight = np.stack([0.85 * np.sin(angle), 0.7 * np.sin(2 * angle)], axis=-1)[:, None]
test_spikes = observed(eight)

# %%
# The network
# -----------
#
# The hidden layer has 100 leaky integrate-and-fire neurons. The derivative of their spikes is
# replaced by the derivative of a fast sigmoid. The output layer has two leaky integrators that do
# not fire. Their membrane potentials are the decoded coordinates.


class Decoder(torch.nn.Module):
    """Map spikes to potentials, ``[time, sample, coordinate]``."""

    def __init__(self):
        super().__init__()
        self.hidden = torch.nn.Linear(NEURONS, 100)
        self.output = torch.nn.Linear(100, 2)

    def forward(self, spikes):
        """Return the membrane potentials of the output layer."""
        membrane, fired, potential, potentials = 0, 0, 0, []
        for current in self.hidden(3 * spikes):
            membrane = 0.8 * membrane + current - fired
            above = membrane - 1
            surrogate = above / (1 + 5 * abs(above))
            fired = (above >= 0) + (surrogate - surrogate.detach())
            potential = 0.8 * potential + 0.2 * self.output(fired)
            potentials.append(potential)
        return torch.stack(potentials)


# %%
# Training
# --------
#
# With a moving window of one step, the loss has a term at each step. In the first steps, too few
# spikes have arrived to decode a position, so a mask leaves out the terms of these steps. Each
# training step uses new random paths.

loss = sx.SquaredError(time_axis=0, moving_window=1)
mask = torch.ones((STEPS, SAMPLES), dtype=torch.bool)
mask[:20] = False

torch.manual_seed(0)
network = Decoder()
optimizer = torch.optim.Adam(network.parameters(), lr=0.015)
decoded = {}
for step in range(91):
    if step in (0, 10, 90):
        with torch.no_grad():
            decoded[step] = network(test_spikes)
        error = loss(decoded[step], torch.tensor(eight), where=mask[:, :1])
        print(f"after {step} steps: mean squared error {error:.3f} on the test path")
    paths = random_paths()
    optimizer.zero_grad()
    loss(network(observed(paths)), torch.tensor(paths), where=mask).backward()
    optimizer.step()

# %%
# The decoded path
# ----------------
#
# The two upper panels show the coordinates over time. The lower panels show the paths in the plane,
# without the masked steps.

fig, axes = plt.subplot_mosaic(
    [["x"] * 3, ["y"] * 3, [0, 10, 90]],
    figsize=(7, 6), height_ratios=(1, 1, 2), layout="constrained",
)  # fmt: skip
for coordinate, name in enumerate("xy"):
    axes[name].plot(eight[:, 0, coordinate], color="C2", label="target")
    axes[name].plot(decoded[90][:, 0, coordinate], color="C4", label="decoded")
    axes[name].axvspan(0, 20, color="0.9", label="masked")
    axes[name].set(ylabel=name, xlim=(0, STEPS))
axes["x"].legend(loc="upper right")
axes["y"].set_xlabel("time (steps)")
for step, path in decoded.items():
    axes[step].plot(*eight[:, 0].T, color="C2")
    axes[step].plot(*path[20:, 0].T, color="C4")
    axes[step].set(title=f"after {step} training steps", aspect="equal")
    axes[step].set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2))
plt.show()

# %%
# Both layers are leaky integrators, so the decoded point lags behind the true point. It is closest
# to the place where the true point was a few steps before:

for delay in (0, 2, 4, 6):
    late = loss(decoded[90][20:], torch.tensor(eight[20 - delay : STEPS - delay]))
    print(f"compared with the path {delay} steps before: {late:.4f}")
