"""Calls of `diagnose` on batches that are as they should be, and on batches with one mistake.

Each line of the texts below is a case: a loss, its input, its target, and the other arguments. In
`FAULTY` the code of the expected first finding stands before it. The lines use the names of NumPy,
of the library and of `arrays`. ``[time, batch, class]`` has ``_first`` in its name, and
``[batch, time, class]`` has ``_between``; the other arrays have time last.
"""

import functools
from typing import Any

import numpy as np
import pytest

import spikeloss_xp as sx
from spikeloss_xp import times

BATCH, CLASSES, STEPS = 24, 4, 20

HEALTHY = """
CrossEntropy(time_axis=-1), fresh, label
CrossEntropy(time_axis=-1), trained, label
CrossEntropy(time_axis=0), fresh_first, label
CrossEntropy(time_axis=1), trained_between, label
CrossEntropy(time_axis=-1, reduction="sum"), fresh, label
CrossEntropy(time_axis=-1, reduction="none"), fresh, label, hidden={"first": wide, "next": [wide]}
CrossEntropy(time_axis=-1, readout="sqrt_count"), fresh, label
CrossEntropy(time_axis=-1, readout="rate", temperature=0.1), trained, label
CrossEntropy(time_axis=-1, readout="rate"), potentials, label
CrossEntropy(time_axis=-1, readout="latency", temperature=2), trained, label
CrossEntropy(time_axis=-1, readout="max"), potentials, label
CrossEntropy(time_axis=-1, readout="last"), potentials, label
CrossEntropy(time_axis=-1, readout="softmax_sum"), potentials, label
CrossEntropy(time_axis=-1, moving_window=1), potentials, label
CrossEntropy(time_axis=-1, moving_window=5), fresh, label_of_steps
CrossEntropy(time_axis=-1, moving_window=5), fresh, where(arange(20) < 10, -100, label_of_steps)
CrossEntropy(time_axis=-1, rates=(0.5, 0.02)), fresh, label
CrossEntropy(time_axis=-1, rates=(0.5, 0.02)), trained, label
CrossEntropy(time_axis=-1, readout="sqrt_count", rates=(0.5, 0.02)), fresh, label
CrossEntropy(time_axis=-1), trained, probabilities
CrossEntropy(time_axis=-1, label_smoothing=0.1), trained, label, weight=[1, 2, 1, 1]
CrossEntropy(time_axis=-1, num_classes=2), trained, label // 2
CrossEntropy(time_axis=-1), fresh, where(arange(24) < 6, -100, label)
CrossEntropy(time_axis=-1), votes, label
CrossEntropy(time_axis=-1), images, label_of_pixels
CrossEntropy(time_axis=-1), trained, label, lengths=lengths
CrossEntropy(time_axis=-1), trained, label, where=arange(24) < 20
CrossEntropy(time_axis=-1), with_nan, label, where=isfinite(with_nan)
CrossEntropy(time_axis=-1), trained[:1, :, :4], label[:1]
CrossEntropy(time_axis=-1), ones_like(fresh[:1, :, :4]), label[:1]
CrossEntropy(time_axis=-1), trained > 0, label, hidden=wide > 0
CrossEntropy(time_axis=-1), 2 * exact, where(arange(24) < 10, (label + 1) % 4, label)
CrossEntropy(time_axis=-1), trained, label, lengths=where(arange(24) < 2, 1, lengths)
SpikeRate(0.5, 0.05, time_axis=-1), where(arange(4)[:, None] < 2, 1, fresh), label
SpikeRate(0.5, 0.05, time_axis=-1), fresh, label
SpikeRate(0.5, 0.0, time_axis=-1), exact, label
SpikeRate((0.5, 0.4, 0.5, 0.6), 0.05, 5, time_axis=0), trained_first, label
SpikeMax(time_axis=-1), fresh, label
SpikeMax(5, time_axis=-1), trained, label
SpikeMax(mode="softmax", time_axis=-1), trained, label
SpikeMoid(theta=0.2, time_axis=-1), trained, multi_hot
SpikeMoid(5, theta=0.2, time_axis=1), fresh_between, multi_hot
SpikeLatency(time_axis=-1), trained, label
SpikeLatency(0.0, 15.0, 2.0, time_axis=-1), fresh, label
SpikeTime(5, time_axis=-1), trained, exact
SpikeTime(5, time_axis=0), fresh_first, trained_first
SpikeTime(5, time_axis=-1), fresh[:, 0], trained[:, 0]
SquaredError(time_axis=-1, readout="last"), potentials, potentials[..., 0]
SquaredError(time_axis=-1, moving_window=1), potentials, 2 * potentials
SquaredError(time_axis=-1), fresh, trained.mean(axis=-1)
SquaredError(time_axis=-1), fresh, fresh.mean(axis=-1)
AbsoluteError(time_axis=-1), trained, exact.mean(axis=-1)
HuberError(time_axis=-1), fresh, trained.mean(axis=-1)
SparsityEnforcer(0.05), wide
SparsityEnforcer(0.05), [wide, fresh], lengths=lengths
SparsityEnforcer(0.05, min_rate=0.01, per="neuron"), {"first": wide, "next": [fresh, trained]}
SparsityEnforcer(2.0, scale=(1.0, 2.0)), [wide, trained]
SparsityEnforcer(2.0), 4 * wide
times.CrossEntropy(silent_time=20.0, temperature=2.0), first, label
times.CrossEntropy(silent_time=20.0, temperature=2.0), several, label
times.CrossEntropy(silent_time=20.0), where(arange(5) == 0, 0, several), label
times.SpikeLatency(silent_time=20.0), first, label
times.SpikeLatency(false_time=15.0, silent_time=20.0), several, label
times.SpikeTime(time_constant=5.0), several, several[::-1]
times.VictorPurpura(cost=0.1), several, several[::-1]
CrossEntropy(time_axis=0), network(0)["spikes"], network(0)["label"], hidden=network(0)["hidden"]
CrossEntropy(time_axis=0), network(30)["spikes"], network(0)["label"], hidden=network(30)["hidden"]
CrossEntropy(time_axis=0, readout="max"), network(0)["potentials"], network(0)["label"]
SpikeRate(0.5, 0.02, time_axis=0), network(0)["spikes"], network(0)["label"]
SparsityEnforcer(0.1, time_axis=0), [network(30)["hidden"], network(30)["spikes"]]
""".strip().splitlines()

FAULTY = [
    line.split(": ", 1)
    for line in """
refused: CrossEntropy(time_axis=-1), fresh, label + 1
refused: SpikeRate(0.5, 0.02, time_axis=-1), fresh, label - 1
refused: CrossEntropy(time_axis=-1, readout="sqrt_count"), potentials, label
refused: CrossEntropy(time_axis=-1), fresh, label, lengths=lengths + 20
refused: SparsityEnforcer(0.05), [wide, fresh], lengths=lengths + 20
refused: CrossEntropy(time_axis=-1), fresh, -probabilities
not-finite: CrossEntropy(time_axis=-1), with_nan, label
not-finite: SpikeMax(time_axis=-1), where(with_nan > 0, inf, 0), label
not-finite: CrossEntropy(time_axis=-1), fresh, label, hidden=[wide, with_nan]
refused: times.CrossEntropy(silent_time=20.0), trained, label
refused: times.SpikeTime(time_constant=5.0), trained, several
refused: times.CrossEntropy(silent_time=20.0, num_classes=2), first, label // 2 + 1
times-out-of-range: times.SpikeLatency(silent_time=20.0), where(isnan(several), -1, several), label
times-out-of-range: times.CrossEntropy(silent_time=20.0), nan_to_num(several), label
times-out-of-range: times.SpikeLatency(silent_time=20.0), where(arange(4) < 3, 0, first), label
times-out-of-range: times.CrossEntropy(silent_time=20.0), 1000 * first + 20, label
times-out-of-range: times.CrossEntropy(silent_time=0.5), late, label
times-out-of-range: times.CrossEntropy(silent_time=20.0), full_like(first, 20), label
not-spikes: CrossEntropy(time_axis=-1), potentials, label
not-spikes: CrossEntropy(time_axis=-1), round(potentials, 1), label
not-spikes: CrossEntropy(time_axis=0), softmax(potentials_first), label
not-spikes: CrossEntropy(time_axis=-1), log(softmax(potentials)), label
not-spikes: SpikeRate(0.5, 0.02, time_axis=-1), potentials, label
not-spikes: SpikeMax(time_axis=-1), softmax(potentials), label
not-spikes: CrossEntropy(time_axis=-1, readout="latency"), softmax(potentials), label
reversed-rates: SpikeRate(0.02, 0.5, time_axis=-1), fresh, label
reversed-rates: SpikeRate((0.5, 0.5, 0.5, 0.02), 0.1, time_axis=-1), trained, label
impossible-rate: SparsityEnforcer(1.0), wide
impossible-rate: SparsityEnforcer(5.0), [wide, fresh]
time-constant: SpikeTime(0.005, time_axis=-1), fresh, trained
temperature: CrossEntropy(time_axis=-1, temperature=0.01), trained, label
temperature: CrossEntropy(time_axis=-1, temperature=1000), trained, label
temperature: CrossEntropy(time_axis=-1, readout="rate", temperature=20), trained, label
temperature: times.CrossEntropy(silent_time=0.02), first / 1000, label
inverted-mask: CrossEntropy(time_axis=-1), padded, label, where=arange(20) >= 10
inverted-mask: SpikeMax(time_axis=0), padded_first, label, where=arange(20) >= 10
short-lengths: CrossEntropy(time_axis=-1), trained, label, lengths=lengths // 10
short-lengths: CrossEntropy(time_axis=-1), (arange(20) > 0) * fresh, label, lengths=label // 4 + 1
one-class: CrossEntropy(time_axis=-1), fresh, 0 * label
one-class: CrossEntropy(time_axis=-1), fresh, 0 * probabilities + [0.7, 0.1, 0.1, 0.1]
one-class: CrossEntropy(time_axis=-1), fresh, (arange(24) < 9)[:, None] * [0.7, 0.1, 0.1, 0.1]
one-class: SpikeRate(0.5, 0.02, time_axis=-1), fresh, 0 * label + 3
silent-hidden: CrossEntropy(time_axis=-1), fresh, label, hidden={"first": wide, "next": 0 * wide}
silent-hidden: CrossEntropy(time_axis=-1), 0 * fresh, label, hidden=[wide, 0 * wide]
silent-hidden: SparsityEnforcer(0.1), [wide, 0 * wide]
silent-output: CrossEntropy(time_axis=-1), 0 * fresh, label
silent-output: times.CrossEntropy(silent_time=20.0), full_like(first, nan), label
silent-hidden: times.CrossEntropy(silent_time=20.0), nan * first, label, hidden=[nan * first]
silent-output: CrossEntropy(time_axis=-1), 0 * fresh, label, lengths=lengths
silent-output: SpikeMax(time_axis=-1), 0 * fresh, label
silent-output: SpikeTime(5, time_axis=-1), 0 * fresh, trained
silent-output: SpikeMoid(theta=0.2, time_axis=-1), 0 * fresh, multi_hot
saturated: CrossEntropy(time_axis=-1), ones_like(fresh), label
saturated: SpikeRate(0.5, 0.02, time_axis=0), ones_like(fresh_first), label
saturated: CrossEntropy(time_axis=-1), fresh, label, hidden=ones_like(wide)
certain-and-wrong: CrossEntropy(time_axis=-1), trained, (label + 1) % 4
one-answer: SpikeRate(0.5, 0.05, time_axis=-1), where(arange(4)[:, None] == 1, 1, fresh), label
not-finite: SpikeTime(5, time_axis=-1), fresh, fresh * nan
not-finite: SpikeMax(numerics="lava", time_axis=-1), where(arange(4)[:, None] < 2, 0, fresh), label
one-answer: SpikeMax(time_axis=-1), where(arange(4)[:, None] == 1, 1, fresh)[:8], label[:8]
certain-and-wrong: CrossEntropy(time_axis=-1, readout="max"), 30 * potentials, (label + 1) % 4
silent-labels: CrossEntropy(time_axis=-1, temperature=3), exact, (label + 1) % 4
silent-labels: SpikeMax(time_axis=-1), exact[:20], where(arange(20) < 2, label[:20], label[1:21])
silent-labels: CrossEntropy(time_axis=-1, moving_window=5), exact, late_label
silent-labels: SpikeLatency(time_axis=-1), exact, (label + 1) % 4
silent-labels: times.CrossEntropy(silent_time=20.0, temperature=10.0), only_label, (label + 1) % 4
zero-gradient: CrossEntropy(time_axis=-1), fresh, 0 * label - 100
zero-gradient: SpikeLatency(tolerance=20.0, time_axis=-1), trained, (label + 1) % 4
zero-gradient: CrossEntropy(time_axis=-1), fresh, label, weight=[0, 0, 0, 0]
zero-gradient: CrossEntropy(time_axis=-1), fresh, label, where=arange(24) < 0
zero-gradient: times.VictorPurpura(cost=1000.0), several, several + 100
zero-gradient: SpikeMoid(alpha=0.001, theta=0.5, numerics="lava", time_axis=-1), fresh, multi_hot
ambiguous-layout: CrossEntropy(time_axis=1), fresh_first[:, :20], label[:20]
ambiguous-layout: CrossEntropy(time_axis=0), fresh_between[:20], label[:20]
ambiguous-layout: SpikeRate(0.5, 0.02, time_axis=-1), trained[..., :4], label
labels-too-low: CrossEntropy(time_axis=-1), fresh, label // 2
labels-too-low: CrossEntropy(time_axis=-1), fresh_between, label
absent-class: CrossEntropy(time_axis=-1), fresh, label % 2 * 3
mostly-masked: CrossEntropy(time_axis=-1), trained, label, lengths=lengths // 3
ties: CrossEntropy(time_axis=-1), where(arange(4)[:, None] < 2, repeated, 0), label
ties: CrossEntropy(time_axis=-1), repeated, label
""".strip().splitlines()
]

NO_FINDING = """
CrossEntropy(time_axis=-1), trained, label, lengths=0 * lengths + 10
CrossEntropy(time_axis=-1), 2 * exact, where(arange(24) < 12, label, (label + 1) % 4)
CrossEntropy(time_axis=-1, num_classes=2), one_of_each_group, label // 2
SparsityEnforcer(2.0), [4 * wide, wide]
times.SpikeTime(time_constant=5.0), several, several[::-1]
times.CrossEntropy(silent_time=20.0, temperature=2.0), first, label, hidden=[several]
SpikeMoid(theta=0.2, time_axis=-1), trained, 0.25 + 0.5 * multi_hot
CrossEntropy(time_axis=-1), exact[:, :1], 0 * label
""".strip().splitlines()


def softmax(x: Any) -> Any:
    """Return probabilities."""
    shares = np.exp(x)
    return shares / shares.sum(axis=-1, keepdims=True)


def arrays() -> dict[str, Any]:
    """Return the arrays of the cases."""
    random = np.random.default_rng(0)
    shape = BATCH, CLASSES, STEPS

    def drawn(rate: Any, shape: tuple[int, ...] = shape) -> Any:
        return (random.random(shape) < rate).astype("float32")

    label = np.arange(BATCH) % CLASSES
    hot = (label[:, None] == np.arange(CLASSES))[..., None]
    trained = drawn(np.where(hot, 0.5, 0.03))
    trained[np.arange(BATCH), label, 4] = 1
    potentials = random.normal(size=shape).cumsum(axis=-1) / 4
    known = np.where(drawn(0.7, (BATCH, CLASSES, 5)) > 0, random.uniform(0, 18, (24, 4, 5)), np.nan)
    first = np.fmin.reduce(known, axis=-1)
    made = {
        "label": label,
        "label_of_steps": np.repeat(label[:, None], STEPS, axis=1),
        "late_label": np.where(np.arange(STEPS) < 10, -100, (label[:, None] + 1) % CLASSES),
        "label_of_pixels": random.integers(CLASSES, size=(3, 2, 5)),
        "probabilities": softmax(random.normal(size=(BATCH, CLASSES)) + 3 * hot[..., 0]),
        "multi_hot": hot[..., 0] | (random.random((BATCH, CLASSES)) < 0.2),
        "lengths": random.integers(12, STEPS, size=BATCH),
        "fresh": drawn(0.2),
        "trained": trained,
        "exact": hot * (np.arange(STEPS) % 2.0),
        "one_of_each_group": hot[label // 2 * 2] * (np.arange(STEPS) % 2.0),
        "late": np.where(np.arange(BATCH)[:, None] == 0, 0.25, first + 1),  # in 23 of 24 samples
        "padded": np.where(np.arange(STEPS) < 10, trained, 0),
        "repeated": np.repeat(drawn(0.3, (BATCH, 1, STEPS)), CLASSES, axis=1),
        "votes": drawn(0.3, (*shape, 10)).mean(axis=-1),
        "images": drawn(0.2, (3, CLASSES, 2, 5, STEPS)),
        "wide": drawn(0.1, (BATCH, 50, STEPS)),
        "potentials": potentials + np.where(hot, 0.5, 0),
        "with_nan": np.where(drawn(0.05) > 0, np.nan, trained),
        "several": known,
        "first": first,
        "only_label": np.where(hot[..., 0], 3.0, np.nan),
    }
    for name in ("fresh", "trained", "potentials", "padded"):
        made[f"{name}_first"] = np.moveaxis(made[name], -1, 0)
        made[f"{name}_between"] = np.moveaxis(made[name], -1, 1)
    for x in made.values():
        x.flags.writeable = False  # nothing that is diagnosed changes
    return made


def lif(current: Any, torch: Any) -> tuple[Any, Any]:
    """Return spikes and potentials, ``[time, batch, neuron]``, with an arctangent surrogate."""
    u, s, spikes, potentials = 0.0, 0.0, [], []
    for x in current:
        u = 0.9 * u * (1 - s) + x
        soft = torch.arctan(torch.pi * (u - 1)) / torch.pi
        s = ((u > 1).float() - soft).detach() + soft
        spikes.append(s)
        potentials.append(u)
    return torch.stack(spikes), torch.stack(potentials)


@functools.cache
def network(updates: int) -> dict[str, Any]:
    """Return outputs of a network of PyTorch with two layers, after steps of descent by signs."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several wait for each other in matrices as small as these
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(32) % CLASSES
    rates = 0.1 + 0.5 * torch.rand((CLASSES, 30), generator=generator)
    x = (torch.rand((12, 32, 30), generator=generator) < rates[label]).float()
    weights = [
        (torch.randn(shape, generator=generator) * gain / shape[0] ** 0.5).requires_grad_()
        for shape, gain in (((30, 40), 1.0), ((40, CLASSES), 1.5))
    ]
    loss = sx.CrossEntropy(time_axis=0)
    for i in range(updates + 1):
        hidden, _ = lif(x @ weights[0], torch)
        spikes, potentials = lif(hidden @ weights[1], torch)
        if i == updates:
            break
        slopes = torch.autograd.grad(loss(spikes, label), weights)
        for w, slope in zip(weights, slopes, strict=True):
            w.data -= 0.01 * slope.sign()
    torch.set_num_threads(threads)
    return {"spikes": spikes, "potentials": potentials, "hidden": hidden, "label": label}


NAMES = {**vars(np), **vars(sx), "times": times, "softmax": softmax, "network": network, **arrays()}


def arguments(case: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a case, on NumPy but for those of the network."""
    return eval(f"given({case})", {**NAMES, "given": lambda *args, **options: (args, options)})
