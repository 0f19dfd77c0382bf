"""Compare with snnTorch 1.0.0, if it is installed.

Its losses take `[time, batch, class]`. Each equals one line of this library, in the table of
docs/migrating.md too. The second half of the file shows the differences that this page names.
"""

import ast
import dataclasses

import numpy as np
import pytest

from _support.side_by_side import (
    DOCS,
    assert_match,
    generator,
    import_peer,
    labels,
    potentials,
    torch,
    trains,
    value_and_gradient,
)

snn = import_peer("snntorch.functional")

import spikeloss_xp as sx

# All numbers of steps are divisible by 4: snnTorch rounds target counts down, see below.
SHAPES = [(20, 4, 3), (4, 5, 5)]
RATES = {"correct_rate": 0.75, "incorrect_rate": 0.25}
SPIKES, LABEL = trains((8, 4, 3)), labels(3, (4,))
WEIGHT = torch.tensor([1.0, 2.0, 5.0])

every_shape = pytest.mark.parametrize("shape", SHAPES)
every_reduction = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])


def with_target(loss, target, **weight):
    """Return the loss as a function of the spikes alone."""
    return lambda x: loss(x, target, **weight)


def step_entropy(**options):
    """Return the cross entropy at each step, which snnTorch calls `ce_rate_loss`."""
    return sx.SpikeMax(1, "softmax", time_axis=0, **options)


SAME_LOSS = {
    "ce_count_loss": (sx.CrossEntropy(time_axis=0), trains),
    "ce_max_membrane_loss": (sx.CrossEntropy(readout="max", time_axis=0), potentials),
    "ce_rate_loss": (step_entropy(), trains),
    "mse_count_loss": (sx.SpikeRate(0.75, 0.25, readout="count", time_axis=0), trains),
    "mse_membrane_loss": (sx.SpikeRate(1, 0, 1, time_axis=0), potentials),
}


@every_shape
@every_reduction
@pytest.mark.parametrize(
    ("name", "group"),  # population codes, with several neurons for each class, are of counts
    [*((name, 1) for name in SAME_LOSS), ("ce_count_loss", 4), ("mse_count_loss", 4)],
)
def test_loss_matches(name, shape, reduction, group):
    loss, input = SAME_LOSS[name]
    steps, batch, classes = shape
    options = {"reduction": reduction} | (RATES if name == "mse_count_loss" else {})
    options |= {"population_code": True, "num_classes": classes} if group > 1 else {}
    ours = dataclasses.replace(loss, reduction=reduction, num_classes=classes)
    label = labels(classes, (batch,))

    def in_their_unit(x):
        value = ours(x, label)
        if name == "mse_count_loss":  # of a sum over the neurons of a class, here of their mean
            return value * group**2 / steps
        if loss.moving_window and reduction == "sum":
            return value / steps
        return value.mean(0) if loss.moving_window and reduction == "none" else value

    theirs = getattr(snn, name)(**options)
    assert_match(with_target(theirs, label), in_their_unit, input((steps, batch, classes * group)))


# What snnTorch 1.0.0 returns elsewhere, and the results of this library.


def test_snntorch_weighted_mean_is_not_divided_by_the_weights():
    input, ours = potentials((8, 4, 3)), sx.CrossEntropy(time_axis=0)
    expected = torch.nn.functional.cross_entropy(input.sum(0), LABEL, WEIGHT)
    theirs = snn.ce_count_loss(weight=WEIGHT)(input, LABEL)
    torch.testing.assert_close(theirs * 4 / WEIGHT[LABEL].sum(), expected)
    torch.testing.assert_close(ours(input, LABEL, weight=WEIGHT), expected)


@pytest.mark.parametrize("name", ["mse_count_loss", "mse_membrane_loss"])
def test_snntorch_mse_weights_are_applied_to_the_wrong_axis(name):
    theirs = getattr(snn, name)
    with pytest.raises(RuntimeError, match="must match the size of tensor b"):
        theirs(weight=WEIGHT)(SPIKES[:, :2], LABEL[:2])
    # With as many samples as classes it runs, and applies the weight of sample b to class b.
    label, spikes = torch.tensor([2, 0, 0]), SPIKES[:, :3]
    terms = theirs(reduction="none")(spikes, label)
    weighted = theirs(reduction="none", weight=WEIGHT)(spikes, label)
    torch.testing.assert_close(weighted, terms * WEIGHT[label])
    count = sx.SpikeRate(1, 0, readout="count", reduction="none", time_axis=0)
    expected = count(spikes, label) * WEIGHT[label][:, None]
    torch.testing.assert_close(count(spikes, label, weight=WEIGHT), expected)


@pytest.mark.parametrize(
    ("rate", "count", "steps", "error", "ours"),
    [(0.29, 29, 100, 1 / 100, 0), (0.75, 7, 10, 0, 0.25)],
)
def test_snntorch_target_count_is_rounded_down(rate, count, steps, error, ours):
    """After a rounding error that makes 28 of 100 * 0.29; three quarters of ten steps are 7.5."""
    spikes = (torch.arange(steps) < count).float()[:, None, None]
    theirs = snn.mse_count_loss(correct_rate=rate)(spikes, torch.tensor([0]))
    torch.testing.assert_close(theirs, torch.tensor(error, dtype=torch.float32))
    value = sx.SpikeRate(rate, 0, readout="count", time_axis=0)(spikes, [0])
    assert abs(value - ours) < 1e-9  # up to float32 rounding


def test_snntorch_computes_in_float32_for_float64_input():
    input, weight = potentials((8, 4, 6), torch.float64), WEIGHT.double()
    population = {"population_code": True, "num_classes": 3}
    for theirs in (snn.ce_rate_loss(), snn.mse_membrane_loss(), snn.ce_count_loss(**population)):
        assert theirs(input, LABEL).dtype == torch.float32
    with pytest.raises(RuntimeError, match="expected scalar type Float but found Double"):
        snn.ce_count_loss(**population, weight=weight)(input, LABEL)
    assert step_entropy(num_classes=3)(input, LABEL, weight=weight).dtype == torch.float64


@pytest.mark.parametrize("name", ["ce_count_loss", "ce_rate_loss", "ce_max_membrane_loss"])
def test_snntorch_cross_entropies_require_floating_spikes_and_int64_labels(name):
    theirs, ours = getattr(snn, name)(), step_entropy()
    with pytest.raises(NotImplementedError, match="not implemented for"):
        theirs(SPIKES.bool(), LABEL)
    with pytest.raises(RuntimeError, match="expected target dtype to be Long or Byte"):
        theirs(SPIKES, LABEL.int())
    assert ours(SPIKES.bool(), LABEL.int()) == ours(SPIKES, LABEL)


def test_snntorch_mean_of_no_samples_is_nan():
    ignored = torch.full((4,), -100)
    assert snn.ce_count_loss()(SPIKES, ignored).isnan()
    with pytest.raises(RuntimeError, match="index -100 is out of bounds"):
        snn.mse_count_loss()(SPIKES, ignored)
    for ours in (step_entropy(reduction="mean"), sx.SpikeRate(1, 0, reduction="mean", time_axis=0)):
        assert ours(SPIKES, ignored) == 0


# First spike times.


def firing(shape):
    """Return trains that all fire, some of them at the last step only."""
    spikes = trains(shape)
    spikes[-1] = torch.maximum(spikes[-1], 1 - spikes.amax(0))
    return spikes


@every_shape
@every_reduction
def test_temporal_losses_have_the_same_value_if_all_fire(shape, reduction):
    spikes, label, steps = firing(shape), labels(shape[2], shape[1:2]), shape[0]
    times = torch.randint(steps, spikes.shape[1:], generator=generator(3))
    options = {"reduction": reduction, "time_axis": 0}
    entropy = sx.CrossEntropy(readout="latency", **options)
    # The value here, and snnTorch's loss of the spikes and a target.
    cases = [
        (entropy(spikes, label), snn.ce_temporal_loss, {}, label),
        (
            sx.SpikeLatency(1, 3, **options)(spikes, label) / steps**2,
            *(snn.mse_temporal_loss, {"on_target": 1, "off_target": 3}, label),
        ),
        (
            sx.SpikeLatency(**options)(spikes, times.float()) / steps**2,
            *(snn.mse_temporal_loss, {"target_is_time": True}, times),
        ),
    ]
    if reduction != "mean":
        weight = torch.linspace(0.5, 2, shape[2])
        value = entropy(spikes, label, weight=weight)
        cases.append((value, snn.ce_temporal_loss, {"weight": weight}, label))
    for ours, loss, arguments, target in cases:
        theirs = loss(reduction=reduction, **arguments)(spikes, target)
        torch.testing.assert_close(ours, theirs.float())


def latency(spikes):
    """Return the latencies, by the line of docs/migrating.md."""
    label = torch.zeros(spikes.shape[1], dtype=torch.int64)
    return sx.SpikeLatency(0, 0, time_axis=0, reduction="none")(spikes, label) ** 0.5


def test_snntorch_silence_is_a_spike_at_the_last_step():
    steps = 6
    silent = torch.zeros(steps, 1, 2)
    last = silent.clone()
    last[-1] = 1
    first_spike = snn.SpikeTime().first_spike_fn
    assert (first_spike(silent, "cpu") == first_spike(last, "cpu")).all()
    assert latency(last).tolist() == [[steps - 1] * 2]
    assert latency(silent).tolist() == [[steps] * 2]
    gradients = []
    for loss in (snn.ce_temporal_loss(), sx.CrossEntropy(readout="latency", time_axis=0)):
        leaf = silent.clone().requires_grad_()
        loss(leaf, torch.tensor([0])).backward()
        gradients.append(leaf.grad[:, 0, 0])
    theirs, ours = gradients
    assert (theirs != 0).tolist() == [False] * (steps - 1) + [True]
    assert (ours < 0).all()
    assert (ours.diff() > 0).all()


def test_snntorch_temporal_losses_misread_targets_and_graded_spikes():
    _, targets = snn.SpikeTime()(firing((8, 4, 3)), LABEL)
    assert not targets.any()  # the default off_target is meant to be the last step
    graded = torch.full((6, 1, 1), 0.5)
    assert snn.SpikeTime().first_spike_fn(graded, "cpu").tolist() == [[-0.5]]
    expected = sum(0.5**k for k in range(1, 7))
    assert latency(graded).tolist() == [[expected]]


def loss_of_the_example(**libraries):
    """Return the loss of snnTorch, as the gallery's example makes it."""
    text = (DOCS / "gallery" / "plot_early_answers.py").read_text(encoding="utf-8")
    names = {"torch_first_spike", "jax_first_spike", "snntorch_loss"}
    nodes = [n for n in ast.parse(text).body if getattr(n, "name", None) in names]
    assert {n.name for n in nodes} == names
    exec("\n\n".join(ast.get_source_segment(text, n) for n in nodes), libraries)
    return libraries["snntorch_loss"]()


@every_shape
def test_loss_of_the_example_is_ce_temporal_loss(shape):
    jax, optax = pytest.importorskip("jax"), pytest.importorskip("optax")
    example = loss_of_the_example(torch=torch, jax=jax, jnp=jax.numpy, optax=optax)
    label, spikes = labels(shape[2], shape[1:2]), trains(shape)
    spikes[:, 0, 0] = 0  # silent
    expected = value_and_gradient(with_target(snn.ce_temporal_loss(), label), spikes)
    for array in (torch.asarray, jax.numpy.asarray):
        ours = with_target(example, array(label.numpy()))
        got = value_and_gradient(ours, array(spikes.numpy()))
        for found, wanted in zip(got, expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-6)
