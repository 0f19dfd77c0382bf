"""Train small networks with several losses: ``python tools/training/measure.py``.

It needs PyTorch, scikit-learn and snnTorch, and takes less than half an hour on one core. The
results go to tests/data/training.json, and from there to the tables of docs/which-loss-trains.md.
"""

import argparse
import dataclasses
import importlib.metadata
import itertools
import json

import torch
import training_page
from training_page import RATES

import spikeloss_xp as sx

LIBRARIES = ("numpy", "torch", "scikit-learn", "snntorch")
TRAINING_IMAGES, HIDDEN, CLASSES, BATCH = 1437, 100, 10, 100
DECAY = 0.9  # of the membrane, per step

SOFT_TO_SHARP = "sqrt_count, soft to sharp"
LOSSES = {  # as the page names them
    "count": sx.CrossEntropy(time_axis=0),
    "sqrt_count": sx.CrossEntropy(time_axis=0, readout="sqrt_count"),
    SOFT_TO_SHARP: sx.CrossEntropy(time_axis=0, readout="sqrt_count"),
    "SpikeMax": sx.SpikeMax(reduction="mean", time_axis=0),
    "SpikeRate": sx.SpikeRate(0.5, 0.02, reduction="mean", time_axis=0),
    "SpikeMoid": sx.SpikeMoid(theta=0.2, alpha=0.1, reduction="mean", time_axis=0),
}
NETWORKS = {  # surrogate derivative, bias of the outputs, numbers of steps
    "narrow": ("narrow", 0.0, (20, 60)),
    "narrow, silent at first": ("narrow", -1.0, (20, 60)),
    "snnTorch": ("snnTorch", 0.0, (25, 100)),
    "wide": ("wide", 0.0, (20, 60)),
    "wide, silent at first": ("wide", -1.0, (20, 60)),
}


class Spike(torch.autograd.Function):
    """Whether a membrane is above its threshold, with the derivative of a surrogate."""

    @staticmethod
    def forward(ctx, above, surrogate):
        ctx.save_for_backward(above)
        ctx.surrogate = surrogate
        return (above > 0).to(above.dtype)

    @staticmethod
    def backward(ctx, cotangent):
        (above,) = ctx.saved_tensors
        if ctx.surrogate == "wide":
            probability = torch.sigmoid(4 * above)
            return cotangent * 4 * probability * (1 - probability), None
        return cotangent / (1 + 25 * above.abs()).square(), None


def neurons(current, cell):
    """Return the spikes of leaky neurons with these currents, ``[time, ...]``.

    A membrane keeps 0.9 of itself at each step and adds its current. Above 1 the neuron fires, and
    the membrane loses 1.
    """
    membrane, spikes = torch.zeros_like(current[0]), []
    if cell == "snnTorch":
        import snntorch

        leaky = snntorch.Leaky(beta=DECAY)
        membrane = leaky.init_leaky()
    for now in current:
        if cell == "snnTorch":
            spike, membrane = leaky(now, membrane)
        else:
            membrane = DECAY * membrane + now
            spike = Spike.apply(membrane - 1, cell)
            membrane = membrane - spike
        spikes.append(spike)
    return torch.stack(spikes)


def initial_weights(seeds, bias):
    """Return weights and biases as those of `torch.nn.Linear`, with an axis for the seeds."""
    shapes, weights = ((64, HIDDEN), (1, HIDDEN), (HIDDEN, CLASSES), (1, CLASSES)), []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        uniform = [2 * torch.rand(shape, generator=generator) - 1 for shape in shapes]
        inputs = (64, 64, HIDDEN, HIDDEN)
        weights.append([x * number**-0.5 for x, number in zip(uniform, inputs, strict=True)])
    stacked = [torch.stack(same) for same in zip(*weights, strict=True)]
    stacked[-1] += bias
    return [weight.requires_grad_() for weight in stacked]


def output(weights, spikes, cell):
    """Return the output spikes ``[time, seed, batch, class]`` of input spikes of that layout."""
    to_hidden, hidden_bias, to_output, output_bias = weights
    hidden = neurons(spikes @ to_hidden + hidden_bias, cell)
    return neurons(hidden @ to_output + output_bias, cell)


def digits(steps):
    """Return spikes ``[time, sample, pixel]`` and labels: at each step a pixel fires by chance.

    The probability is its grey level, from 0 to 1.
    """
    from sklearn.datasets import load_digits

    grey, labels = load_digits(return_X_y=True)
    grey = torch.tensor(grey / 16, dtype=torch.float32)
    chance = torch.rand((steps, *grey.shape), generator=torch.Generator().manual_seed(0))
    return (chance < grey).float(), torch.tensor(labels)


def train(name, cell, bias, rate, spikes, labels, *, epochs, seeds):
    """Train a network for each seed, all at once; return their figures for the test."""
    training_images = min(TRAINING_IMAGES, len(labels) - 1)
    weights = initial_weights(seeds, bias)
    optimiser = torch.optim.Adam(weights, lr=rate)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    for epoch in range(epochs):
        loss = LOSSES[name]
        if name == SOFT_TO_SHARP:
            loss = dataclasses.replace(loss, temperature=4 ** -(epoch / max(epochs - 1, 1)))
        orders = torch.stack([torch.randperm(training_images, generator=g) for g in generators])
        for chosen in orders.split(BATCH, dim=1):
            spikes_out = output(weights, spikes[:, chosen], cell)
            label = labels[chosen].flatten()
            if name == "SpikeMoid":
                label = torch.nn.functional.one_hot(label, CLASSES).float()
            # The mean over the samples of all seeds, times the number of seeds, has for each
            # network the gradient of its own mean.
            value = len(seeds) * loss(spikes_out.flatten(1, 2), label)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
    with torch.no_grad():
        test = spikes[:, training_images:, None].transpose(1, 2).expand(-1, len(seeds), -1, -1)
        return summary(output(weights, test, cell), labels[training_images:])


def summary(spikes, labels):
    """Return the four figures of each network, from output spikes and labels of the test.

    A network answers with the class of most spikes. If k classes have as many, a right answer
    counts 1 / k, which is what a guess among them would have on average.
    """
    counts = spikes.sum(0)  # [seed, sample, class]
    most = counts.amax(-1)
    tied = (counts == most[..., None]).sum(-1)
    own = counts[:, torch.arange(len(labels)), labels]
    figures = {
        "accuracy": (own == most) / tied,
        "spikes": counts.sum(-1),
        "silent": own == 0,
        "ties": tied > 1,
    }
    return {
        key: [round(x, 5) for x in per.double().mean(1).tolist()] for key, per in figures.items()
    }


def measure(rates, losses, *, epochs, seeds):
    """Yield the figures of each network, number of steps, learning rate and loss."""
    for network, (cell, bias, lengths) in NETWORKS.items():
        for steps in lengths:
            data = digits(steps)
            for rate, name in itertools.product(rates, losses):
                figures = train(name, cell, bias, rate, *data, epochs=epochs, seeds=seeds)
                setting = {"network": network, "steps": steps, "rate": rate, "loss": name}
                print(setting, flush=True)
                yield setting | figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3, help="at least 2")
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error("the page has the scatter between seeds: --seeds must be at least 2")
    torch.set_num_threads(1)
    seeds = range(arguments.seeds)
    record = {
        "epochs": arguments.epochs,
        "seeds": arguments.seeds,
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "untrained": list(measure([0.0], ["count"], epochs=0, seeds=seeds)),
        "trainings": list(measure(RATES, LOSSES, epochs=arguments.epochs, seeds=seeds)),
    }
    training_page.RECORD.write_text(json.dumps(record) + "\n", encoding="utf-8")
    training_page.write()


if __name__ == "__main__":
    main()
