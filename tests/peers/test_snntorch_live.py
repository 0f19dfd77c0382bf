"""What docs/migrating.md says of snnTorch 1.0.0 beside its first table.

Its losses take `[time, batch, class]`. test_tables.py compares both lines of each row.
"""

import pytest

from _support.side_by_side import generator, import_peer, labels, torch, trains

snn = import_peer("snntorch.functional")

import spikeloss_xp as sx

SPIKES, LABEL = trains((8, 4, 3)), labels(3, (4,))
WEIGHT = torch.tensor([1.0, 2.0, 5.0])
STEP_ENTROPY = sx.CrossEntropy(time_axis=0, moving_window=1)


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
    assert STEP_ENTROPY(SPIKES.double(), LABEL).dtype == torch.float64
    for arrays in ((SPIKES.bool(), LABEL), (SPIKES, LABEL.int())):
        with pytest.raises((NotImplementedError, RuntimeError)):
            snn.ce_rate_loss()(*arrays)
        assert STEP_ENTROPY(*arrays) == STEP_ENTROPY(SPIKES, LABEL)


def test_accuracy_is_that_of_snntorch():
    assert sx.CrossEntropy(time_axis=0).accuracy(SPIKES, LABEL) == snn.accuracy_rate(SPIKES, LABEL)


def test_temporal_losses_have_the_same_value_if_all_fire():
    """Some neurons fire at the last step only."""
    spikes, steps = SPIKES.clone(), len(SPIKES)
    spikes[-1] = torch.maximum(spikes[-1], 1 - spikes.amax(0))
    times = torch.randint(steps, spikes.shape[1:], generator=generator(3))
    entropy = sx.CrossEntropy(readout="latency", time_axis=0)
    targets = {"on_target": 1, "off_target": 3}
    # The value here, and that of snnTorch.
    cases = [
        (entropy(spikes, LABEL), snn.ce_temporal_loss()(spikes, LABEL)),
        (
            sx.SpikeLatency(1, 3, time_axis=0)(spikes, LABEL) / steps**2,
            snn.mse_temporal_loss(**targets)(spikes, LABEL),
        ),
        (
            sx.SpikeLatency(time_axis=0)(spikes, times.float()) / steps**2,
            snn.mse_temporal_loss(target_is_time=True)(spikes, times),
        ),
    ]
    for ours, theirs in cases:
        torch.testing.assert_close(ours, theirs.float())


def test_snntorch_silence_is_a_spike_at_the_last_step():
    steps = 6
    silent = torch.zeros(steps, 1, 2)
    last = silent.clone()
    last[-1] = 1
    first_spike = snn.SpikeTime().first_spike_fn
    assert (first_spike(silent, "cpu") == first_spike(last, "cpu")).all()
    squares = sx.SpikeLatency(0, 0, time_axis=0, reduction="none")
    assert squares(last, [0]).tolist() == [[(steps - 1) ** 2] * 2]
    assert squares(silent, [0]).tolist() == [[steps**2] * 2]
    gradients = []
    for loss in (snn.ce_temporal_loss(), sx.CrossEntropy(readout="latency", time_axis=0)):
        leaf = silent.clone().requires_grad_()
        loss(leaf, torch.tensor([0])).backward()
        gradients.append(leaf.grad[:, 0, 0])
    theirs, ours = gradients
    assert (theirs != 0).tolist() == [False] * (steps - 1) + [True]
    assert (ours < 0).all()
    assert (ours.diff() > 0).all()
