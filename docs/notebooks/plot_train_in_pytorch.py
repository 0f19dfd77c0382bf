"""
Train in PyTorch
================

A network of leaky integrate-and-fire neurons learns the handwritten digits of scikit-learn. To
install what this notebook needs, run ``pip install ".[torch]" scikit-learn matplotlib``.
"""

# %%
# The data
# --------
#
# The value of a pixel is the probability of a spike in each of 20 time steps.

import numpy as np
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.metrics import ConfusionMatrixDisplay

import spikeloss_xp as sx

torch.set_num_threads(1)  # faster here, because the matrices are small
pixels, labels = load_digits(return_X_y=True)
chance = np.random.default_rng(0).random((20, *pixels.shape))
# [time, sample, pixel]
inputs = torch.tensor(chance < pixels / 16, dtype=torch.float32)
labels = torch.tensor(labels)
test = slice(1437, None)
print(f"{inputs.sum(0).mean():.1f} spikes of each pixel")

# %%
# The network
# -----------
#
# The membrane potential decays, and each spike lowers it by 1. In the backward pass, the derivative
# of a spike is replaced by the derivative of a sigmoid. This is the surrogate gradient.


def fire(currents):
    """Return the spikes of LIF neurons, ``[time, sample, neuron]``."""
    membrane, output = 0, []
    for current in currents:
        membrane = 0.9 * membrane + current
        smooth = torch.sigmoid(4 * (membrane - 1))
        output.append((membrane > 1).float() + (smooth - smooth.detach()))
        membrane = membrane - output[-1]
    return torch.stack(output)


torch.manual_seed(0)
hidden, last = torch.nn.Linear(64, 100), torch.nn.Linear(100, 10)
optimizer = torch.optim.Adam([*hidden.parameters(), *last.parameters()], lr=0.005)

# %%
# The loss
# --------
#
# The loss computes the spike count of each output neuron. You can also try
# ``readout="sqrt_count"``, or a moving window with ``moving_window=10``.

loss = sx.CrossEntropy(time_axis=0)
values, accuracies = [], []
for _ in range(10):
    for batch in torch.randperm(1437).split(100):
        value = loss(fire(last(fire(hidden(inputs[:, batch])))), labels[batch])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    with torch.no_grad():
        output = fire(last(fire(hidden(inputs[:, test]))))
    accuracies.append(float(loss.accuracy(output, labels[test])))
print(f"accuracy for the 360 digits of the test: {accuracies[-1]:.0%}")

# %%
# What the network learned
# ------------------------

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
left.plot(values)
left.set(title="loss of each batch", xlabel="step", yscale="log")
right.plot(range(1, 11), accuracies, marker="o")
right.set(title="accuracy of the test", xlabel="epoch", ylim=(0, 1))
plt.show()

# %%
# A loss predicts the class from the quantity that it computes. In this notebook, the predicted
# class is the class with the highest spike count. In the confusion matrix, the rows are the true
# digits.

confusion = loss.confusion(output, labels[test])
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
ConfusionMatrixDisplay(confusion.numpy()).plot(ax=left, cmap="Blues", colorbar=False)
right.eventplot([np.flatnonzero(train) for train in output[:, 0].T])
right.set(title=f"output spikes for a {labels[test][0]}")
right.set(xlabel="time step", ylabel="class", yticks=range(10), xlim=(-1, 20))
plt.show()
