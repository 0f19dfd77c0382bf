"""Train small networks with several losses: ``python tools/training/measure.py``.

The measurement takes about 90 minutes on two cores. The results of each training are stored in
build/, so that an interrupted run can be continued. At the end, all results are written to
tests/data/training.json and to the tables in docs/which-loss-trains.md. First install the required
packages::

    python -m pip install -e ".[torch,jax]" scikit-learn mnist1d==0.0.2.post1 tqdm flax optax \\
        grain loguru nirtorch pbr
    python -m pip install --no-deps snntorch==1.0.0 spikingjelly==2.0.0 norse==1.1.0 spyx==1.0.0
"""

import json
from collections.abc import Callable, Iterator
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
# The cells of frameworks have their default settings, except that the decay is 0.9.
SNNTORCH = Settings("snnTorch", "atan", slope=2)
SPIKINGJELLY = Settings("SpikingJelly", "ATan", slope=2, decay=0.5, decay_input=True, reset="zero")
NORSE = Settings("Norse", "super", slope=100)
SPYX = Settings("Spyx", "superspike", slope=25)


class Network(NamedTuple):
    """The data and settings of a network, and the loss that its framework usually uses."""

    data: str
    settings: Settings
    usual: str = ""


# The weight and rates of the bounds are chosen on these networks; the other networks are reported.
CHOICE = {
    "digits, 20 steps": Network("digits 20", PLAIN["fast sigmoid"]),
    "digits, 20 steps, silent at first": Network(
        "digits 20", PLAIN["fast sigmoid"]._replace(bias=-1.0)
    ),
    "randman": Network("randman", PLAIN["triangular"]),
    "digits, 40 steps, snnTorch": Network("digits 40", SNNTORCH),
}
REPORTED = {
    **{
        f"{surrogate}{words}": Network("digits 60", PLAIN[surrogate]._replace(bias=bias))
        for surrogate in ("sigmoid", "fast sigmoid")
        for words, bias in (("", 0.0), (", silent at first", -1.0))
    },
    "recurrent": Network("mnist1d", PLAIN["sigmoid"]._replace(recurrent=True)),
    "convolution": Network("mnist1d image", PLAIN["sigmoid"]._replace(convolution=True)),
    "triangular": Network("mnist1d", PLAIN["triangular"]._replace(depth=2)),
    "snnTorch": Network("mnist1d", SNNTORCH._replace(depth=2), "mse_count_loss"),
    "SpikingJelly": Network("mnist1d", SPIKINGJELLY._replace(depth=2), "mse of rates"),
    "Norse": Network("digits 20", NORSE, "mse of rates"),
    "Spyx": Network("digits 20", SPYX, "integral_crossentropy"),
}


def entropy(readout: str = "count", **options: Any) -> sx.CrossEntropy:
    return sx.CrossEntropy(time_axis=0, readout=readout, **options)


def bounded_rates(readout: str) -> Callable[..., Any]:
    """Return a cross entropy whose bounds penalise rates instead of square roots of counts."""
    plain = entropy(readout)

    def loss(spikes: Any, label: Any) -> Any:
        rate, one_hot = spikes.mean(0), torch.nn.functional.one_hot(label, CLASSES).bool()
        outside = torch.where(one_hot, (0.5 - rate).clamp(min=0), (rate - 0.02).clamp(min=0))
        return plain(spikes, label) + 20 * outside.square().sum(1).mean()

    return loss


BOUNDS = {
    f"weight {x:g}": {"rates": (0.5, 0.02), "rate_weight": x} for x in (0.02, 0.1, 0.5, 1, 3, 10)
}
BOUNDS |= {
    f"rates {a:g}, {b:g}": {"rates": (a, b), "rate_weight": 0.1}
    for a, b in ((0.3, 0.02), (0.8, 0.02), (0.5, 0.1))
}
CHOICES: dict[str, Any] = {
    f"{readout}, {name}": entropy(readout, **options)
    for readout in ("count", "sqrt_count")
    for name, options in BOUNDS.items()
}
CHOICES |= {f"{x}, in rates": bounded_rates(x) for x in ("count", "sqrt_count")}
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
    if name == "integral_crossentropy":
        import spyx.fn

        return spyx.fn.integral_crossentropy(smoothing=0.3, time_axis=0)
    assert name == "mse of rates"
    one_hot, mse = torch.nn.functional.one_hot, torch.nn.functional.mse_loss
    return lambda spikes, label: mse(spikes.mean(0), one_hot(label, CLASSES).to(spikes.dtype))


class Setting(NamedTuple):
    """One training: a network, a loss and a learning rate."""

    network: str
    loss: str
    rate: float


def settings() -> Iterator[Setting]:
    """Yield all trainings, beginning with the networks on which the bounds are chosen."""
    for named, losses in ((CHOICE, CHOICES), (REPORTED, LOSSES)):
        for name, network in named.items():
            usual = [network.usual] if network.usual else []
            for rate in RATES:
                yield from (Setting(name, loss, rate) for loss in (*losses, *usual))


def train(setting: Setting, epochs: int = EPOCHS, seeds: int = SEEDS) -> dict[str, Any]:
    """Train the networks for all seeds at once, and return their results on the test set."""
    network = (CHOICE | REPORTED)[setting.network]
    own = (CHOICES | LOSSES).get(setting.loss) or usual_loss(setting.loss)
    (spikes, label), test = data.load(network.data)
    changes = {"rate": setting.rate, "seeds": seeds}
    trained = networks.build(network.settings._replace(**changes), spikes.shape[2])

    def loss(output: Any, label: Any) -> Any:
        """Return the sum over the networks, so that each has the gradient of its own mean."""
        return seeds * own(output.reshape(len(output), -1, CLASSES), label.reshape(-1))

    generators = [torch.Generator().manual_seed(seed) for seed in range(seeds)]
    for _ in range(epochs):
        orders = torch.stack([torch.randperm(len(label), generator=each) for each in generators])
        for chosen in orders.split(BATCH, dim=1):
            trained.step(loss, spikes[:, chosen], label[chosen])
    output = trained.output(test[0][:, None].expand(-1, seeds, -1, -1))
    return setting._asdict() | summary(torch.tensor(output).sum(0), test[1])


def summary(counts: torch.Tensor, label: torch.Tensor) -> dict[str, list[float]]:
    """Return the results of each network from its output counts, ``[seed, sample, class]``.

    A network predicts the class with the most spikes. If k classes tie and include the label, the
    sample adds 1 / k to the number of correct predictions, like a random guess among these classes.
    """
    most = counts.amax(-1)
    tied = (counts == most[..., None]).sum(-1)
    own = counts[:, torch.arange(len(label)), label]
    figures = {"accuracy": (own == most) / tied, "spikes": counts.sum(-1), "silent": own == 0}
    return {
        key: [round(x, 5) for x in each.double().mean(1).tolist()] for key, each in figures.items()
    }


def main() -> None:
    record = {
        "epochs": EPOCHS,
        "seeds": SEEDS,
        "versions": runs.versions(),
        "trainings": runs.run(f"trainings-{EPOCHS}-epochs-{SEEDS}-seeds", train, list(settings())),
    }
    training_page.RECORD.write_text(json.dumps(record) + "\n", encoding="utf-8")
    training_page.write()


if __name__ == "__main__":
    main()
