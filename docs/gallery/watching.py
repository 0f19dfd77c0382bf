"""Draw a healthy and an unhealthy training: ``python docs/gallery/watching.py``.

The guide "Watch a training" shows the picture, and phones show a narrow one. The two trainings
differ only in their learning rate. The curves are what the loop of the guide logs.
"""

import itertools
import runpy
from pathlib import Path

import matplotlib

matplotlib.use("agg")  # to a file, also where there is no screen

import pictures
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

import spikeloss_xp as sx
from losses import save
from spikeloss_xp.torch import scale_network

DOCS = Path(__file__).parents[1]
train = runpy.run_path(str(DOCS / "recipes" / "watch_torch.py"))["train"]
SIZES = [64, 100, 100, 100, 100, 10]
RUNS = {0.002: (pictures.TEAL, "healthy"), 0.02: (pictures.PINK, "unhealthy")}
"""The learning rates, with the colour and the name of each curve."""
PANELS = "loss", "hidden.7/silent", "gradient/0.weight/rms"


class Neurons(torch.nn.Module):
    """Leaky integrate-and-fire neurons with a wide surrogate gradient."""

    def forward(self, currents):
        """Return the spikes, ``[time, sample, neuron]``."""
        membrane, spikes = 0.0, []
        for current in currents:
            membrane = 0.9 * membrane + current
            smooth = torch.sigmoid(4 * (membrane - 1))
            spikes.append((membrane > 1).float() + smooth - smooth.detach())
            membrane = membrane - spikes[-1].detach()
        return torch.stack(spikes)


def batches(epochs=4):
    """Return spikes and labels of digits, in batches of 64."""
    ink, labels = (torch.tensor(x) for x in load_digits(return_X_y=True))
    spikes = torch.floor(torch.arange(16)[:, None, None] * ink / 16).diff(dim=0)
    order = [torch.randperm(len(labels)) for _ in range(epochs)]
    return [(spikes[:, i].float(), labels[i]) for i in torch.cat(order).split(64)]


def logged(rate):
    """Return the steps, and the scalars at each of them."""
    torch.manual_seed(0)
    pairs = [torch.nn.Linear(*ends) for ends in itertools.pairwise(SIZES)]
    layers = [layer for linear in pairs for layer in (linear, Neurons())]
    network, data, found = torch.nn.Sequential(*layers), batches(), {}
    scale_network(network, lambda: network(data[0][0]))
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    loss = sx.CrossEntropy(time_axis=0)
    train(
        network, network, loss, optimizer, data,
        lambda scalars, step: found.update({step: scalars}), every=5,
    )  # fmt: skip
    return found


def draw(runs, **options):
    """Return a picture with a panel for each scalar, and a curve for each training."""
    plt.rcParams.update(pictures.STYLE | {"font.size": 9, "lines.linewidth": 2})
    figure, axes = plt.subplots(
        **options, dpi=200, layout="constrained", sharex=True
    )
    for ax, key in zip(axes, PANELS, strict=True):
        for rate, found in runs.items():
            colour, name = RUNS[rate]
            curve = [scalars[key] for scalars in found.values()]
            ax.plot([*found], curve, color=colour, label=f"{name}: lr={rate}")
        ax.set_title(key)
        ax.set_xmargin(0)
    axes[0].set(ylim=(0, None))
    axes[0].legend()
    axes[1].set(ylim=(0, 1))
    axes[2].set(yscale="log")
    axes[2].minorticks_off()
    figure.supxlabel("training step", fontsize=9)
    return figure


def main():
    """Write the pictures."""
    runs = {rate: logged(rate) for rate in RUNS}
    wide = draw(runs, ncols=3, figsize=(8.4, 2.6))
    narrow = draw(runs, nrows=3, figsize=(4.2, 6))
    save(wide, DOCS / "images" / "watching.png")
    save(narrow, DOCS / "images" / "watching-narrow.png")


if __name__ == "__main__":
    main()
