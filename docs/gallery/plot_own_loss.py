"""
A loss of your own
==================

A loss is a readout, which reads something from the spikes, and a criterion, which compares that
with the target. Here both are new: the label should lead, and early. With their derivatives beside
them, the loss has a gradient in NumPy and CuPy too, and one line tests that all libraries agree.
"""

# %%
# What it is to be
# ----------------
#
# Often a network should decide soon, and then be left alone. So let a spike count the less the
# later it comes, and let the label be ahead of every other class by a margin:
#
# .. math::
#    u_c = \sum_t e^{-t / \tau} s_{c, t}, \qquad
#    L = \sum_{c \ne y} \max(m - (u_y - u_c), 0)^2 .
#
# Once the lead is large enough the loss is 0, and so is its gradient.
#
# A readout and a criterion
# -------------------------
#
# Each returns its result and its *pullback*: what takes the derivative of the loss with respect to
# that result to the derivative with respect to what it was computed from. ``xp`` is the namespace
# of the array library. With functions of the array API standard only, this is written once for
# all.

import functools

import numpy as np
import pictures

import spikeloss_xp as sx

CLASS = 1  # the axis of the classes, in [batch, class] and [batch, class, time]


def early_count(xp, spikes, kept, time_constant):
    """Count the spikes of each class, each for ``exp(-t / time_constant)``."""
    step = xp.cumulative_sum(xp.ones_like(spikes), axis=-1) - 1
    worth = xp.exp(-step / time_constant)  # what is masked is silent, and not counted anyhow
    return xp.sum(worth * spikes, axis=-1), lambda cotangent: cotangent[..., None] * worth


def shortfall(xp, u, label, margin):
    """Return ``max(margin - (u_y - u_c), 0)²`` of each class ``c`` but the label ``y``."""
    zero = xp.zeros_like(u)
    own = xp.sum(xp.where(label, u, zero), axis=CLASS, keepdims=True)
    short = xp.where(label, zero, xp.clip(margin - own + u, min=0))

    def pullback(cotangent):
        slope = 2 * cotangent * short  # of each class; that of the label is minus their sum
        return slope - xp.where(label, xp.sum(slope, axis=CLASS, keepdims=True), zero)

    return short * short, pullback


# %%
# The loss
# --------
#
# ``Composed`` makes a loss of the two, with labels, masks, weights, reductions and layouts as in
# the losses of the library. Hyper-parameters are what the functions are called with.


def early_lead(time_constant, margin=1.0, **options):
    """Return a loss by which the label should lead every other class by a margin, and early."""
    return sx.losses.Composed(
        functools.partial(early_count, time_constant=time_constant),
        functools.partial(shortfall, margin=margin),
        **options,
    )


# %%
# What it sees
# ------------
#
# Two samples, in which the labelled neuron fires five times: late in the one, early in the other.

spikes = np.zeros((2, 3, 60))
spikes[0, 0, 35:60:5] = spikes[1, 0, 4:29:5] = 1
spikes[:, 1, [8, 30, 50]] = 1
spikes[:, 2, [15, 42]] = 1
labels = [0, 0]

loss = early_lead(time_constant=20)
value, gradient = sx.value_and_grad(loss)(spikes, labels)
terms = early_lead(time_constant=20, reduction="none")(spikes, labels)  # [batch, class]
counted = np.cumsum(spikes * np.exp(-np.arange(60) / 20), axis=-1)  # up to each step

_, axes = pictures.figure(3, 2, size=(7, 5), sharex=True, sharey="row")
largest = np.abs(gradient).max()
for sample, (above, read, below) in enumerate(axes.T):
    pictures.raster(above, spikes[sample])
    pictures.trace(read, counted[sample], highest=counted.max())
    pictures.heat(below, gradient[sample], "", largest=largest)
    pictures.beside(read, [f"{term:.2f}" for term in terms[sample]], "loss", room=False)
    for ax in (above, read):
        pictures.shade(ax, row=0)
    above.set_title(("label late", "label early")[sample])
    read.set_title("early count so far")
    below.set(title="gradient", xlabel="time (steps)")
for ax in axes.flat:
    pictures.names(ax, ["label", "class 1", "class 2"])

# %%
# On the left the label is asked for spikes, the earlier the better, and the other classes for
# fewer, the more so the further they are ahead. On the right the label leads by the margin: there
# is nothing left to ask for. A loss that counts spikes cannot tell the two samples apart:

counts = sx.SpikeMax(readout="count", reduction="none")
print("SpikeMax  ", counts(spikes, labels))
print("early_lead", terms.sum(axis=-1))

# %%
# A test that all libraries agree
# -------------------------------
#
# In this test PyTorch and JAX differentiate the readout and the criterion by themselves, while the
# gradient of NumPy is what the pullbacks make it. Each is a test of the other.

libraries = [name for name, info in sx.backends.available().items() if info.usable]
for dtype in (np.float32, np.float64):
    train = spikes.astype(dtype)
    sx.testing.assert_consistent(loss, train, labels)
    sx.testing.assert_consistent(loss, train, labels, lengths=[60, 25], weight=[1, 2, 3])
    for odd in (np.zeros_like(train), np.ones_like(train)):  # silent, and saturated
        sx.testing.assert_consistent(loss, odd, [0, 2])
print("consistent:", ", ".join(libraries))

# %%
# Does the test find a mistake? Here is one, a forgotten factor.


def mistaken(xp, u, label):
    """Return the same terms, with half of their slope."""
    terms, pullback = shortfall(xp, u, label, margin=1.0)
    return terms, lambda cotangent: pullback(cotangent) / 2


try:
    sx.testing.assert_consistent(sx.losses.Composed(loss.read, mistaken), spikes, labels)
except AssertionError as complaint:
    print(complaint)
else:
    raise RuntimeError("not found: is there a library here that differentiates by itself?")
