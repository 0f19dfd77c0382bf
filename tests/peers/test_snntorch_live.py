"""Compare with snnTorch 1.0.0, if it is installed.

Its losses take `[time, batch, class]`. Each equals one line of this library. The second half of the
file shows the defects of its losses.
"""

import ast
import dataclasses
from pathlib import Path

import pytest

from _support.side_by_side import (
    assert_match,
    evaluate_line,
    generator,
    import_peer,
    labels,
    potentials,
    table_rows,
    torch,
    trains,
)

snn = import_peer("snntorch.functional")

import spikeloss_xp as sx

# All numbers of steps are divisible by 4: snnTorch rounds target counts down, see below.
SHAPES = [(20, 4, 3), (8, 1, 10), (100, 16, 2), (4, 5, 5)]
TRUE_RATE, FALSE_RATE = 0.75, 0.25

every_shape = pytest.mark.parametrize("shape", SHAPES)
every_reduction = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])


def with_target(loss, target, **weight):
    """Return the loss as a function of the spikes alone."""
    return lambda x: loss(x, target, **weight)


@pytest.mark.parametrize(("there", "here"), table_rows("snnTorch"))
def test_migration_table_rows_match(there, here):
    steps, batch, classes, group = 20, 4, 3, 2
    y = labels(classes, (batch,))
    names = {"SF": snn, "sx": sx, "y": y, "w": torch.tensor([1.0, 2.0, 5.0])}
    names |= {"T": steps, "C": classes, "G": group}
    neurons = classes * group if "num_classes" in here else classes
    assert_match(
        *(lambda x, line=line: evaluate_line(line, names | {"x": x}) for line in (there, here)),
        trains((steps, batch, neurons)) if "count" in here else potentials((steps, batch, neurons)),
    )


SAME_LOSS = {
    "ce_count_loss": (sx.CrossEntropy(time_axis=0, reduction="sum"), trains),
    "ce_max_membrane_loss": (
        sx.CrossEntropy(readout="max", time_axis=0, reduction="sum"),
        potentials,
    ),
    "ce_rate_loss": (sx.SpikeMax(1, "softmax", time_axis=0), trains),
    "mse_count_loss": (sx.SpikeRate(1, 0, readout="count", time_axis=0), trains),
    "mse_membrane_loss": (sx.SpikeRate(1, 0, 1, time_axis=0), potentials),
}


@every_shape
@every_reduction
@pytest.mark.parametrize("name", SAME_LOSS)
def test_loss_matches(name, shape, reduction):
    loss, input = SAME_LOSS[name]
    ours, options = dataclasses.replace(loss, reduction=reduction), {"reduction": reduction}
    if name == "mse_count_loss":
        ours = dataclasses.replace(ours, true_rate=TRUE_RATE, false_rate=FALSE_RATE)
        options |= {"correct_rate": TRUE_RATE, "incorrect_rate": FALSE_RATE}
    steps, label = shape[0], labels(shape[2], shape[1:2])

    def in_their_unit(x):
        value = ours(x, label)
        if name == "mse_count_loss" or (loss.moving_window and reduction == "sum"):
            return value / steps
        return value.mean(0) if loss.moving_window and reduction == "none" else value

    assert_match(with_target(getattr(snn, name)(**options), label), in_their_unit, input(shape))


@every_shape
def test_mse_membrane_loss_with_target_potentials(shape):
    label = labels(shape[2], shape[1:2])
    one_hot = torch.nn.functional.one_hot(label, shape[2]).bool()
    desired = torch.where(one_hot, 1.25, 0.5).expand(shape)
    theirs = snn.mse_membrane_loss(on_target=1.25, off_target=0.5)
    ours = sx.SpikeRate(1.25, 0.5, 1, "mean", time_axis=0)
    assert_match(with_target(theirs, label), with_target(ours, label), potentials(shape))
    ours_per_entry = sx.SpikeTime(length=1, reduction="mean", time_axis=0)
    assert_match(
        with_target(theirs, label), with_target(ours_per_entry, desired), potentials(shape)
    )


@every_shape
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_mse_membrane_loss_with_labels_per_step(shape):
    # snnTorch takes one label per step for the whole batch.
    label_per_step = labels(shape[2], shape[:1])
    ours = sx.SpikeRate(1, 0, 1, "mean", time_axis=0)
    assert_match(
        with_target(snn.mse_membrane_loss(time_var_targets=True), label_per_step),
        with_target(ours, label_per_step[:, None].expand(shape[:2])),
        potentials(shape),
    )


@pytest.mark.parametrize(("classes", "group"), [(3, 4), (2, 8), (5, 1)])
@every_reduction
def test_population_codes_match(classes, group, reduction):
    # snnTorch sums the G neurons of a class. Counts do so too; SpikeRate averages them.
    steps, label = 20, labels(classes, (4,))
    spikes = trains((steps, 4, classes * group))
    population = {"population_code": True, "num_classes": classes, "reduction": reduction}
    common = {"num_classes": classes, "reduction": reduction, "time_axis": 0}

    ours = sx.CrossEntropy(**common)
    assert_match(
        with_target(snn.ce_count_loss(**population), label), with_target(ours, label), spikes
    )

    ours = sx.SpikeRate(TRUE_RATE, FALSE_RATE, readout="count", **common)
    theirs = snn.mse_count_loss(TRUE_RATE, FALSE_RATE, **population)
    assert_match(
        with_target(theirs, label), lambda spikes: group**2 * ours(spikes, label) / steps, spikes
    )


@every_shape
def test_class_weights_of_cross_entropies_match(shape):
    steps, label = shape[0], labels(shape[2], shape[1:2])
    weight = 0.5 + torch.rand(shape[2], generator=generator(3))
    for name, readout in (("ce_count_loss", "count"), ("ce_max_membrane_loss", "max")):
        # The mean of snnTorch is over the samples; it is not PyTorch's weighted mean, see below.
        for reduction, our_reduction in (("mean", "batchmean"), ("none", "none")):
            ours = sx.CrossEntropy(readout=readout, reduction=our_reduction, time_axis=0)
            assert_match(
                with_target(getattr(snn, name)(reduction=reduction, weight=weight), label),
                with_target(ours, label, weight=weight),
                potentials(shape),
            )
    ours = sx.SpikeMax(1, "softmax", "batchmean", time_axis=0)
    assert_match(
        with_target(snn.ce_rate_loss(weight=weight), label),
        lambda x: ours(x, label, weight=weight) / steps,
        potentials(shape),
    )


# Defects of snnTorch 1.0.0, and the results of this library instead.


def test_snntorch_weighted_mean_is_not_divided_by_the_weights():
    input, label, weight = (
        potentials((5, 4, 3)),
        torch.tensor([0, 2, 1, 2]),
        torch.tensor([1, 2, 5.0]),
    )
    expected = torch.nn.functional.cross_entropy(input.sum(0), label, weight)
    theirs = snn.ce_count_loss(weight=weight)(input, label)
    torch.testing.assert_close(theirs * 4 / weight[label].sum(), expected)
    ours = sx.CrossEntropy(time_axis=0)
    torch.testing.assert_close(ours(input, label, weight=weight), expected)


def test_snntorch_weighted_sum_is_not_a_scalar():
    input, label, weight = potentials((5, 4, 3)), labels(3, (4,)), torch.ones(3)
    for name in ("ce_count_loss", "ce_rate_loss", "ce_max_membrane_loss"):
        theirs = getattr(snn, name)
        assert theirs(reduction="sum", weight=weight)(input, label).shape == (4,)
    ours = sx.CrossEntropy(time_axis=0, reduction="sum")
    assert ours(input, label, weight=weight).shape == ()


@pytest.mark.parametrize("name", ["mse_count_loss", "mse_membrane_loss"])
def test_snntorch_mse_weights_are_applied_to_the_wrong_axis(name):
    theirs = getattr(snn, name)
    weight = torch.tensor([1.0, 2.0, 5.0])
    with pytest.raises(RuntimeError, match="must match the size of tensor b"):
        theirs(weight=weight)(trains((4, 2, 3)), torch.tensor([0, 1]))
    # With as many samples as classes it runs, and applies the weight of sample b to class b.
    label = torch.tensor([2, 0, 0])
    spikes = trains((4, 3, 3))
    terms = theirs(reduction="none")(spikes, label)
    weighted = theirs(reduction="none", weight=weight)(spikes, label)
    torch.testing.assert_close(weighted, terms * weight[label])

    count = sx.SpikeRate(1, 0, readout="count", reduction="none", time_axis=0)
    terms = count(spikes, label)
    torch.testing.assert_close(count(spikes, label, weight=weight), terms * weight[label][:, None])


def test_snntorch_target_count_is_rounded_down():
    spikes = torch.zeros(100, 1, 1)
    spikes[:29] = 1
    assert int(100 * 0.29) == 28
    theirs = snn.mse_count_loss(correct_rate=0.29)(spikes, torch.tensor([0]))
    torch.testing.assert_close(theirs, torch.tensor((29 - 28) ** 2 / 100))
    ours = sx.SpikeRate(0.29, 0, readout="count", time_axis=0)(spikes, torch.tensor([0]))
    assert ours < 1e-9  # (29 - 100 * 0.29)² is 0 up to float32 rounding

    # snnTorch rounds three quarters of ten steps down to seven.
    theirs = snn.mse_count_loss(correct_rate=0.75)(spikes[22:32], torch.tensor([0]))
    assert theirs == 0
    ours = sx.SpikeRate(0.75, 0, readout="count", time_axis=0)(spikes[22:32], torch.tensor([0]))
    assert ours == 0.25


def test_snntorch_computes_in_float32_for_float64_input():
    input, label = potentials((8, 4, 6), torch.float64), labels(3, (4,))
    population = {"population_code": True, "num_classes": 3}
    for theirs in (
        snn.ce_rate_loss(),
        snn.mse_membrane_loss(),
        snn.ce_count_loss(**population),
    ):
        assert theirs(input, label).dtype == torch.float32
    weight = torch.ones(3, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="expected scalar type Float but found Double"):
        snn.ce_count_loss(**population, weight=weight)(input, label)

    ours = sx.SpikeMax(1, "softmax", "mean", num_classes=3, time_axis=0)
    assert ours(input, label, weight=weight).dtype == torch.float64


def test_snntorch_ce_rate_loss_does_not_support_population_codes():
    steps, classes, group = 5, 3, 2
    label = torch.tensor([2])
    silence = torch.zeros(steps, 1, classes * group)
    population = {"population_code": True, "num_classes": classes}
    with pytest.raises(TypeError, match="not subscriptable"):  # it indexes `weight`, None
        snn.ce_rate_loss(**population)(silence, label)

    spikes = silence.clone().requires_grad_()
    snn.ce_rate_loss(**population, weight=torch.ones(2))(spikes, label).backward()
    # Class 2 consists of neurons 4 and 5, but the loss of snnTorch rewards neuron 2.
    assert (spikes.grad[0, 0] < 0).tolist() == [False, False, True, False, False, False]

    spikes = silence.clone().requires_grad_()
    ours = sx.SpikeMax(1, "softmax", num_classes=classes, time_axis=0)
    ours(spikes, label).backward()
    assert (spikes.grad[0, 0] < 0).tolist() == [False, False, False, False, True, True]


@pytest.mark.parametrize(("classes", "group"), [(3, 4), (2, 8), (5, 1)])
def test_population_codes_per_step_match_the_intended_loss(classes, group):
    label = labels(classes, (4,))

    def intended(input):
        logits = input.unflatten(-1, (classes, group)).sum(-1)
        return torch.stack([torch.nn.functional.cross_entropy(x, label) for x in logits]).mean()

    ours = sx.CrossEntropy(
        num_classes=classes, temperature=1 / group, time_axis=0, moving_window=1, readout="rate"
    )
    input = potentials((6, 4, classes * group), torch.float64)
    assert_match(intended, with_target(ours, label), input)


def test_snntorch_negative_off_target_is_ignored():
    theirs = snn.mse_membrane_loss(on_target=1, off_target=-1, reduction="none")
    at_rest = torch.zeros(4, 1, 3)
    terms = theirs(at_rest, torch.tensor([0]))
    assert terms.tolist() == [[1, 0, 0]]  # the targets are (1, 0, 0) instead of (1, -1, -1)
    assert sx.SpikeRate(1, -1, 1, "mean", time_axis=0)(at_rest, [0]) == 1


def test_snntorch_labels_per_step_are_shared_by_all_samples():
    theirs = snn.mse_membrane_loss(time_var_targets=True)
    label_per_step = labels(3, (6, 4))
    with pytest.raises(RuntimeError, match="same number of dimensions"):
        theirs(potentials((6, 4, 3)), label_per_step)
    with pytest.warns(UserWarning, match="different to the input size"):
        theirs(potentials((6, 4, 3)), label_per_step[:, 0])
    assert sx.SpikeRate(1, 0, 1, time_axis=0)(potentials((6, 4, 3)), label_per_step).shape == ()


@pytest.mark.parametrize("name", ["ce_count_loss", "ce_rate_loss", "ce_max_membrane_loss"])
def test_snntorch_cross_entropies_require_floating_spikes_and_int64_labels(name):
    theirs = getattr(snn, name)()
    spikes, label = trains((8, 4, 3)), labels(3, (4,))
    with pytest.raises(NotImplementedError, match="not implemented for"):
        theirs(spikes.bool(), label)
    with pytest.raises(RuntimeError, match="expected target dtype to be Long or Byte"):
        theirs(spikes, label.int())
    ours = sx.SpikeMax(1, "softmax", time_axis=0)
    assert ours(spikes.bool(), label.int()) == ours(spikes, label)


def test_snntorch_mean_of_no_samples_is_nan():
    spikes, ignored = trains((8, 4, 3)), torch.full((4,), -100)
    assert snn.ce_count_loss()(spikes, ignored).isnan()
    with pytest.raises(RuntimeError, match="index -100 is out of bounds"):
        snn.mse_count_loss()(spikes, ignored)
    for ours in (
        sx.SpikeMax(mode="softmax", reduction="mean", time_axis=0),
        sx.SpikeRate(1, 0, reduction="mean", time_axis=0),
    ):
        assert ours(spikes, ignored) == 0


def test_snntorch_value_may_have_an_axis():
    spikes, label = trains((8, 4, 3)), labels(3, (4,))
    assert snn.ce_rate_loss()(spikes, label).shape == (1,)
    assert snn.mse_membrane_loss()(spikes, label).shape == (1,)
    assert sx.SpikeMax(1, "softmax", "mean", time_axis=0)(spikes, label).shape == ()


def test_snntorch_maximum_gives_the_gradient_to_one_of_tied_steps():
    # This is no defect, but if a membrane reaches its maximum twice, both steps are equally good.
    label = torch.tensor([0])
    gradients = []
    for loss in (
        snn.ce_max_membrane_loss(),
        sx.CrossEntropy(readout="max", time_axis=0, reduction="sum"),
    ):
        potential = torch.ones(4, 1, 2, requires_grad=True)
        loss(potential, label).backward()
        gradients.append(potential.grad[:, 0, 0])
    theirs, ours = gradients
    assert sorted(theirs.tolist()) == [-0.5, 0, 0, 0]
    assert ours.tolist() == [-0.125] * 4


def test_snntorch_arguments_are_not_checked():
    spikes, label = trains((8, 4, 3)), labels(3, (4,))
    snn.mse_count_loss(correct_rate=1.75, incorrect_rate=-0.5)(spikes, label)
    with pytest.raises(ValueError, match="true_rate"):
        sx.SpikeRate(1.75, -0.5, readout="count")
    assert snn.ce_rate_loss()(spikes[:0], label).isnan()
    with pytest.raises(ValueError, match="no elements"):
        sx.SpikeMax(1, "softmax", time_axis=0)(spikes[:0], label)


def firing(shape):
    """Return trains that all fire, some of them at the last step only."""
    spikes = trains(shape)
    spikes[-1] = torch.maximum(spikes[-1], 1 - spikes.amax(0))
    return spikes


@every_shape
@every_reduction
def test_ce_temporal_loss_has_the_same_value_if_all_fire(shape, reduction):
    spikes, label = firing(shape), labels(shape[2], shape[1:2])
    options = {"readout": "latency", "time_axis": 0}
    ours = sx.CrossEntropy(**options, reduction=reduction)(spikes, label)
    torch.testing.assert_close(ours, snn.ce_temporal_loss(reduction=reduction)(spikes, label))
    weight = torch.linspace(0.5, 2, shape[2])
    weighted = sx.CrossEntropy(**options, reduction=reduction)
    if reduction != "mean":
        torch.testing.assert_close(
            weighted(spikes, label, weight=weight),
            snn.ce_temporal_loss(reduction=reduction, weight=weight)(spikes, label),
        )


@every_shape
@every_reduction
def test_mse_temporal_loss_has_the_same_value_if_all_fire(shape, reduction):
    spikes, label, steps = firing(shape), labels(shape[2], shape[1:2]), shape[0]
    ours = sx.SpikeLatency(1, 3, reduction=reduction, time_axis=0)(spikes, label)
    theirs = snn.mse_temporal_loss(on_target=1, off_target=3, reduction=reduction)
    torch.testing.assert_close(ours / steps**2, theirs(spikes, label).float())
    times = torch.randint(steps, spikes.shape[1:], generator=generator(3))
    ours = sx.SpikeLatency(reduction=reduction, time_axis=0)(spikes, times.float())
    theirs = snn.mse_temporal_loss(target_is_time=True, reduction=reduction)
    torch.testing.assert_close(ours / steps**2, theirs(spikes, times).float())


def test_snntorch_silence_is_a_spike_at_the_last_step():
    steps, latency = 6, sx.Latency(time_axis=0).latency
    silent = torch.zeros(steps, 1, 2)
    last = silent.clone()
    last[-1] = 1
    first_spike = snn.SpikeTime().first_spike_fn
    assert (first_spike(silent, "cpu") == first_spike(last, "cpu")).all()
    assert latency(last).tolist() == [[steps - 1] * 2]
    assert latency(silent).tolist() == [[steps] * 2]
    gradients = []
    for loss in (
        snn.ce_temporal_loss(),
        sx.CrossEntropy(readout="latency", time_axis=0),
    ):
        leaf = silent.clone().requires_grad_()
        loss(leaf, torch.tensor([0])).backward()
        gradients.append(leaf.grad[:, 0, 0])
    theirs, ours = gradients
    assert (theirs != 0).tolist() == [False] * (steps - 1) + [True]
    assert (ours < 0).all()
    assert (ours.diff() > 0).all()


def test_snntorch_temporal_losses_misread_targets_and_graded_spikes():
    spikes, label = firing((6, 3, 4)), labels(4, (3,))
    _, targets = snn.SpikeTime()(spikes, label)
    assert not targets.any()  # the default off_target is meant to be the last step
    graded = torch.full((6, 1, 1), 0.5)
    assert snn.SpikeTime().first_spike_fn(graded, "cpu").tolist() == [[-0.5]]
    expected = sum(0.5**k for k in range(1, 7))
    assert sx.Latency(time_axis=0).latency(graded).tolist() == [[expected]]


EXAMPLE = Path(__file__).parents[2] / "docs" / "gallery" / "plot_early_answers.py"


def loss_of_the_example(**libraries):
    """Return the function of the gallery's example that makes snnTorch's loss."""
    text = EXAMPLE.read_text(encoding="utf-8")
    names = {"torch_first_spike", "jax_first_spike", "snntorch_loss"}
    nodes = [n for n in ast.parse(text).body if getattr(n, "name", None) in names]
    assert {n.name for n in nodes} == names
    exec("\n\n".join(ast.get_source_segment(text, n) for n in nodes), libraries)
    return libraries["snntorch_loss"]


@every_shape
@pytest.mark.parametrize("library", ["torch", "jax"])
def test_loss_of_the_example_is_ce_temporal_loss(shape, library):
    jax, optax = pytest.importorskip("jax"), pytest.importorskip("optax")
    example = loss_of_the_example(torch=torch, jax=jax, jnp=jax.numpy, optax=optax)()
    label, spikes = labels(shape[2], shape[1:2]), trains(shape)
    spikes[:, 0, 0] = 0  # silent
    leaf = spikes.clone().requires_grad_()
    theirs = snn.ce_temporal_loss()(leaf, label)
    theirs.backward()
    if library == "torch":
        mine = spikes.clone().requires_grad_()
        value = example(mine, label)
        value.backward()
        gradient = mine.grad
    else:
        given = jax.numpy.asarray(spikes.numpy()), jax.numpy.asarray(label.numpy())
        found = jax.value_and_grad(example)(*given)
        value, gradient = (torch.tensor(x.tolist()) for x in found)
    torch.testing.assert_close(value, theirs.detach(), check_dtype=False)
    torch.testing.assert_close(gradient, leaf.grad, check_dtype=False)
