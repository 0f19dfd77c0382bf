"""
A loss of your own
==================

How do you write a loss that works in all array libraries?

A loss consists of two parts. The readout computes a quantity from the spikes, which is called the
reading. The criterion compares the reading with the target. This example writes both parts for a
new loss: the labelled neuron should lead, and it should lead early.
"""

# %%
# The formula
# -----------
#
# Later spikes have less weight, and the labelled class should be ahead of every other class by a
# margin:
#
# .. math::
#    u_c = \sum_t e^{-t / \tau} s_{c, t}, \qquad
#    L = \sum_{c \ne y} \max(m - (u_y - u_c), 0)^2 .
#
# Once the lead of the label is at least the margin, the loss and its gradient are 0.
#
# The loss
# --------
#
# The readout and the criterion each return their result and its *pullback*. The pullback is a
# function that takes the derivative of the loss with respect to the result, and returns the
# derivative of the loss with respect to the argument. ``xp`` is the namespace of the array library.
# The code uses only functions of the array API standard, so the same code works with all libraries.
# Labels, masks, weights, reductions and layouts are inherited from ``ClassLoss``.

from dataclasses import dataclass

import numpy as np
from matplotlib import pyplot as plt

import spikeloss_xp as sx


@dataclass(frozen=True)
class EarlyLead(sx.losses.ClassLoss):
    """The label should lead by a margin, in counts that fade with time."""

    time_constant: float = 20
    margin: float = 1

    def read(self, trains):
        """Count the spikes of each neuron, each for ``exp(-t / time_constant)``."""
        xp, spikes = trains.xp, trains.values  # masked spikes are 0
        step = xp.astype(trains.time.positions(spikes), spikes.dtype)
        worth = xp.exp(-step / self.time_constant)
        reading = trains.reading(trains.time.sum(worth * spikes))
        return reading, lambda cotangent: cotangent * worth

    def criterion(self, reading, labels):
        """Return ``max(margin - (u_y - u_c), 0)²`` for each class except ``y``."""
        xp, u, classes = reading.xp, reading.u, reading.classes
        label, zero = labels.one_hot(reading), xp.zeros_like(u)
        own = classes.sum(xp.where(label, u, zero))
        short = xp.where(label, zero, xp.clip(self.margin - own + u, min=0))

        def pullback(cotangent):
            slope = 2 * cotangent * short  # of each class except the label
            return slope - xp.where(label, classes.sum(slope), zero)

        return short * short, pullback


# %%
# Its gradient
# ------------
#
# The labelled neuron fires five times in each of two samples. In the first sample it fires late,
# and in the second sample it fires early.

spikes = np.zeros((2, 3, 60))  # [batch, class, time]
spikes[0, 0, 35:60:5] = spikes[1, 0, 4:29:5] = 1
spikes[:, 1, [8, 30, 50]] = 1
spikes[:, 2, [15, 42]] = 1
labels = [0, 0]

loss = EarlyLead(time_axis=-1, reduction="sum")
value, gradient = sx.value_and_grad(loss)(spikes, labels)

fig, axes = plt.subplots(2, 2, figsize=(7, 3.4), sharex=True, layout="constrained")
for sample, (above, below) in enumerate(axes.T):
    times = [np.nonzero(train)[0] for train in spikes[sample]]
    above.eventplot(times, color="black", linelengths=0.7)
    above.invert_yaxis()
    above.set_title(("label late: spikes", "label early: spikes")[sample])
    image = below.imshow(
        gradient[sample], cmap="coolwarm", vmin=-5, vmax=5, aspect="auto"
    )
    below.set(title="gradient", xlabel="time (steps)")
for ax in axes.flat:
    ax.set_yticks(range(3), ["label", "class 1", "class 2"])
fig.colorbar(image, ax=axes[1])
plt.show()

# %%
# In the left sample, a spike of the label lowers the loss (blue), and an early spike lowers it
# most. A spike of any other class raises the loss (red). In the right sample, the label leads by
# the margin, so the loss and its gradient are 0. A loss that counts spikes cannot tell the two
# samples apart:

counts = sx.CrossEntropy(time_axis=-1, reduction="none")
each = EarlyLead(time_axis=-1, reduction="none")(spikes, labels)  # [batch, class]
print("CrossEntropy", counts(spikes, labels))
print("EarlyLead   ", each.sum(axis=-1))

# %%
# A test that all libraries agree
# -------------------------------
#
# In this test, PyTorch and JAX differentiate the readout and the criterion automatically. The
# gradient in NumPy comes from the pullbacks that we wrote. If the two gradients agree, the
# pullbacks are right.

print(sx.testing.assert_consistent(loss, spikes.astype(np.float32), labels))
sx.testing.assert_consistent(
    loss, spikes, labels, lengths=[60, 25], weight=[1, 2, 3]
)

# %%
# The test also detects mistakes, such as a wrong factor in a pullback:


class Mistaken(EarlyLead):
    """The same loss with half of its gradient."""

    def criterion(self, reading, labels):
        """Return the right terms and a wrong pullback."""
        terms, pullback = super().criterion(reading, labels)
        return terms, lambda cotangent: pullback(cotangent) / 2


try:
    sx.testing.assert_consistent(Mistaken(time_axis=-1), spikes, labels)
except AssertionError as complaint:
    print(complaint)
else:
    raise RuntimeError("no other library here differentiates by itself")
