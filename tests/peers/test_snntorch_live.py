"""Compare with snnTorch 1.0.0, if it is installed.

Its losses take `[time, batch, class]`. Each equals one line of this library, in the table of
docs/migrating.md too. The second half of the file shows the differences that this page names.
"""

import dataclasses

import pytest

from _support.side_by_side import (
    assert_match,
    generator,
    import_peer,
    labels,
    potentials,
    torch,
    trains,
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


def test_snntorch_differs_as_the_page_says():
    """In class weights, target counts, and dtypes; see "What differs, and why" there."""
    expected = torch.nn.functional.cross_entropy(SPIKES.sum(0), LABEL, WEIGHT)
    theirs = snn.ce_count_loss(weight=WEIGHT)(SPIKES, LABEL)
    torch.testing.assert_close(theirs * 4 / WEIGHT[LABEL].sum(), expected)
    value = sx.CrossEntropy(time_axis=0)(SPIKES, LABEL, weight=WEIGHT)
    torch.testing.assert_close(value, expected)
    with pytest.raises(RuntimeError, match="must match the size of tensor b"):
        snn.mse_count_loss(weight=WEIGHT)(SPIKES, LABEL)  # along the class axis
    spikes = (torch.arange(100) < 29).float()[:, None, None]
    theirs = snn.mse_count_loss(correct_rate=0.29)(spikes, torch.tensor([0]))
    torch.testing.assert_close(theirs, torch.tensor(1 / 100))  # of a target count of 28
    assert sx.SpikeRate(0.29, 0, readout="count", time_axis=0)(spikes, [0]) < 1e-9
    assert snn.ce_rate_loss()(SPIKES.double(), LABEL).dtype == torch.float32
    assert step_entropy()(SPIKES.double(), LABEL).dtype == torch.float64
    for arrays in ((SPIKES.bool(), LABEL), (SPIKES, LABEL.int())):
        with pytest.raises((NotImplementedError, RuntimeError)):
            snn.ce_rate_loss()(*arrays)
        assert step_entropy()(*arrays) == step_entropy()(SPIKES, LABEL)


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
