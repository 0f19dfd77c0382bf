"""
Learning where every spike belongs
==================================

How do you train a network to spike at exact times?

The inputs of the network are random spikes. The target is a spike train for each of 28 output
neurons, and the target spikes spell a word. ``SpikeTime`` measures how far the output is from the
target. Its gradient moves, adds and removes spikes until the word appears.
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
# The target is a word made of dots. Each dot is four neurons high, and the dots in a row are five
# steps apart. The input consists of 100 neurons that fire at random, in 5 % of all steps. We draw
# the input spikes once, and they stay the same during training. Arrays have shape ``[time, batch,
# neuron]``, with a batch size of one.

WORD = """
01111 11110 01110 10001 11111
10000 10001 00100 10010 10000
10000 10001 00100 10100 10000
01110 11110 00100 11000 11110
00001 10000 00100 10100 10000
00001 10000 00100 10010 10000
11110 10000 01110 10001 11111
"""
rows = WORD.strip().replace(" ", "0").splitlines()
dots = np.asarray([[dot == "1" for dot in row] for row in rows], dtype="float32")
spikes = np.zeros((29 * 5, 28), dtype="float32")
spikes[2::5] = np.repeat(dots, 4, axis=0).T
target = torch.tensor(np.pad(spikes, ((6, 6), (0, 0)))[:, None])

torch.manual_seed(0)
inputs = (torch.rand((len(target), 1, 100)) < 0.05).float()

# %%
# The loss
# --------
#
# ``SpikeTime`` filters both trains with an exponential and sums the squared differences. With a
# time constant of 5 steps, the trace of a spike that is slightly late still overlaps with the trace
# of the target spike. The closer the spike is to its target, the less it costs:

loss = sx.SpikeTime(time_constant=5, time_axis=0, reduction="sum")
one = torch.zeros((60, 1, 1))
one[10] = 1
for late in (0, 1, 2, 3, 4, 8):
    print(f"{late} steps late: {loss(torch.roll(one, late, 0), one).item():.2f}")
print(f"missing: {loss(torch.zeros_like(one), one).item():.2f}")

# %%
# A spike that is 4 or more steps late costs more than a missing spike. The loss therefore moves
# spikes that are close to their targets, and removes those that are far away.
#
# The network
# -----------
#
# The network has two layers of leaky integrate-and-fire neurons, with 100 inputs, 256 hidden
# neurons and 28 outputs. The derivative of a spike with respect to the potential is 0 almost
# everywhere, so training replaces it by a triangle, which is 1 at the threshold and falls to 0 at a
# distance of 1.


class Fire(torch.autograd.Function):
    """A spike where the membrane has reached 1, with a triangle for a derivative."""

    @staticmethod
    def forward(ctx, membrane):
        """Return the spikes."""
        ctx.save_for_backward(membrane)
        return (membrane >= 1).to(membrane.dtype)

    @staticmethod
    def backward(ctx, gradient):
        """Return the gradient with respect to the membrane."""
        (membrane,) = ctx.saved_tensors
        return gradient * torch.clamp(1 - abs(membrane - 1), min=0)


def layer(currents):
    """Return the spikes for these currents, ``[time, batch, neuron]``."""
    membrane = spike = torch.zeros_like(currents[0])
    spikes = []
    for current in currents:
        membrane = 0.9 * membrane + current - spike
        spike = Fire.apply(membrane)
        spikes.append(spike)
    return torch.stack(spikes)


# %%
# Training
# --------
#
# The initial weights are small, so the network begins with few output spikes.

weights = [0.13 * torch.randn((100, 256)), 0.08 * torch.randn((256, 28))]
optimizer = torch.optim.Adam([w.requires_grad_() for w in weights], lr=0.01)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 150)
outputs = []
for step in range(151):
    output = layer(layer(inputs @ weights[0]) @ weights[1])
    value = loss(output, target)
    outputs.append(output.detach())
    if step in (0, 15, 35, 75, 150):
        met = int((output * target).sum())
        print(
            f"after {step} steps: loss {value.item():.1f},",
            f"{met} of {int(target.sum())} target spikes met,",
            f"{int(output.sum()) - met} spikes elsewhere",
        )
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    schedule.step()

# %%
# In the picture, circles are target spikes and dots are output spikes. At first the spikes gather
# around the strokes of the letters. Then each spike moves to its exact step.

fig, axes = plt.subplots(
    2, 2, figsize=(8, 4.5), sharex=True, sharey=True, layout="constrained"
)
for ax, step in zip(axes.flat, (0, 15, 35, 150), strict=True):
    ax.scatter(*np.nonzero(target[:, 0].numpy()), s=14, c="none", edgecolors="C2")
    ax.scatter(*np.nonzero(outputs[step][:, 0].numpy()), s=4, c="black")
    ax.set_title(f"after {step} training steps")
axes[0, 0].invert_yaxis()
fig.supxlabel("time (steps)")
fig.supylabel("neuron")
plt.show()
