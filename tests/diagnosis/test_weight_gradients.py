"""The gradients of the weights, their sizes and the findings about them."""

import math
from dataclasses import replace

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import diagnoses
from _support.diagnoses import FRESH, LABEL, STEPS, WIDE, codes, problems

LOSS = sx.CrossEntropy(time_axis=-1)
BATCH = LOSS, FRESH, LABEL


POISSON = sx.PoissonNLL(time_axis=-1)


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_squares_of_gradients_may_underflow_and_overflow(size):
    gradient = np.asarray([[-3, 0], [0, -4]], dtype="float32") * np.float32(size)
    (found,) = sx.diagnose(*BATCH, gradients=[gradient]).gradients
    assert found.rms == pytest.approx(12.5**0.5 * size, rel=1e-6, abs=0)  # of the entries not 0


def test_gradients_without_entries_are_left_out():
    gradients = {"a": np.ones((1, 3)), "b": np.ones((0, 3)), "c": np.ones((2, 2))}
    report = sx.diagnose(*BATCH, gradients=gradients)
    assert [gradient.name for gradient in report.gradients] == ["a", "c"]


def test_gradients_of_several_libraries_and_nested_containers_keep_their_order():
    torch, jnp = pytest.importorskip("torch"), pytest.importorskip("jax.numpy")
    tensor = torch.full((2, 3), 2.0, dtype=torch.bfloat16)
    gradients = {"z": [tensor, None], "a": (jnp.full((2, 2), 3.0), {"layer10": np.eye(2)})}
    report = sx.diagnose(*BATCH, gradients=gradients)
    assert [(x.name, x.rms) for x in report.gradients] == [
        ("z.0", 2.0), ("z.1", None), ("a.0", 3.0), ("a.1.layer10", 1.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sizes", "seen", "names"),
    [
        ((None, None), "all gradients are None: call diagnose after backward() and before "
         "zero_grad()", ("0.weight", "0.bias", "1.weight", "1.bias")),
        ((1e-3, 0.0, 0.0), "1.weight, 2.weight have no gradient", ("1.weight", "2.weight")),
        ((None, 1e-3), "0.weight, 0.bias have no gradient", ("0.weight", "0.bias")),
        ((0.0, 1e-3), "0.weight has no gradient", ("0.weight",)),
        ((0.0,) * 4, "0.weight, 1.weight, 2.weight and 1 more have no gradient",
         tuple(f"{i}.weight" for i in range(4))),
        ((0.0,) * 3, "0.weight, 1.weight, 2.weight have no gradient",
         tuple(f"{i}.weight" for i in range(3))),
        ((1e-20, 2e-9), "no gradient is larger than 2.0e-09", ("0.weight", "1.weight")),
        ((1e-6, 1e-3),
         "the gradient of 0.weight is 1.0e-06, and the gradient of 1.weight is 1.0e-03",
         ("0.weight",)),
        ((200.0, 3100.0), "the gradient of 1.weight is 3.1e+03", ("1.weight",)),
        ((np.nan, 1.0), "NaN or infinity in the gradient of 0.weight, 0.bias",
         ("0.weight", "0.bias")),
    ],
)  # fmt: skip
def test_finding_about_gradients_says_what_was_seen(sizes, seen, names):
    report = sx.diagnose(*BATCH, gradients=diagnoses.gradients(*sizes))
    assert (report.findings[0].seen, report.findings[0].names) == (seen, names)


def test_recurrent_weights_do_not_make_a_network_deeper():
    """With four hidden layers, a gradient may shrink by a factor of 6 in each, so by 1296."""
    sizes = {f"{i}.weight": np.full((2, 2), 6.5**i, "f") for i in range(5)}
    recurrent = {f"{i}.{name}": x for i in range(5) for name, x in (
        ("weight", sizes[f"{i}.weight"]), ("recurrent", sizes[f"{i}.weight"]),
    )}  # fmt: skip
    hidden = [WIDE] * 4
    for gradients in (sizes, recurrent):
        report = sx.diagnose(*BATCH, hidden=hidden, gradients=gradients)
        assert "vanishing-gradient" in codes(report)
    assert "vanishing-gradient" not in codes(sx.diagnose(*BATCH, gradients=recurrent))


def test_large_gradient_of_a_readout_is_no_finding():
    """No surrogate gradient lies between a readout and the loss."""
    gradients, rng = diagnoses.gradients(1e-3, 1e-3, 0.3), np.random.default_rng(0)
    potentials, target = rng.normal(size=(24, 4, 20)), np.zeros((24, 4))
    loss = sx.SquaredError(time_axis=-1, readout="max")
    assert "vanishing-gradient" not in codes(
        sx.diagnose(loss, potentials, target, gradients=gradients)
    )
    spikes = (potentials > 1).astype(float)
    assert "vanishing-gradient" in codes(sx.diagnose(loss, spikes, target, gradients=gradients))


def test_gradient_at_a_threshold_is_no_finding():
    healthy = [(1e-3 / 29, 1e-3), (1e-3 / 35, 3e-4, 1e-3), (1e-3 / 200, 1e-4, 3e-4, 1e-3)]
    healthy += [(1e-5, 1.1e-5), (1.0, 1e-3)]
    of_loss = STEPS * np.abs(sx.value_and_grad(LOSS)(FRESH, LABEL)[1]).max(axis=(1, 2)).sum()
    largest = 19.9 * of_loss
    for sizes in (*healthy, (1e-3, 0.0), (largest, largest)):
        report = sx.diagnose(*BATCH, gradients=diagnoses.gradients(*sizes))
        assert codes(report) == [], sizes
    for sizes in ((1.1e-7 * of_loss,) * 2, (1e-3 / 30, 1e-3)):
        exact = [np.full((2, 2), size) for size in sizes]
        for loss in (LOSS, replace(LOSS, reduction="batchmean")):
            assert codes(sx.diagnose(loss, FRESH, LABEL, gradients=exact)) == [], sizes
    loss = sx.CrossEntropy(time_axis=-1, reduction="sum")
    report = sx.diagnose(loss, FRESH, LABEL, gradients=diagnoses.gradients(24 * largest))
    assert codes(report) == []


ABOUT_SIZES = {"vanishing-gradient", "exploding-gradient", "zero-gradient", "no-gradient"}
ONE_HOT = (LABEL[:, None] == np.arange(4))[..., None] * np.ones(STEPS)


@pytest.mark.parametrize(
    ("loss", "spikes", "target"),
    [
        (sx.SpikeRate(1.0, 0.0, time_axis=-1), ONE_HOT, LABEL),
        (sx.SpikeTime(time_axis=-1), ONE_HOT, ONE_HOT),
        (sx.SquaredError(time_axis=-1), ONE_HOT, ONE_HOT.mean(axis=-1)),
        (sx.SparsityEnforcer(0.5, time_axis=-1), ONE_HOT / 4, None),
        (lambda x, y: 0.0 * x.sum(), ONE_HOT, LABEL),
    ],
)
def test_gradients_of_0_at_the_minimum_of_a_loss_are_no_problem(loss, spikes, target):
    axis = None if isinstance(loss, sx.losses.Loss) else -1
    for last, found in ((0.0, set()), (1.0, {"no-gradient"})):  # something is detached
        given = [np.zeros((5, 4)), np.full((4, 4), last)]
        report = sx.diagnose(loss, spikes, target, time_axis=axis, gradients=given)
        assert {*codes(report)} & ABOUT_SIZES == found, str(report)
        assert not problems(report) & ABOUT_SIZES
    missing = sx.diagnose(loss, spikes, target, time_axis=axis, gradients=[None, given[1]])
    assert "no-gradient" in problems(missing)


@pytest.mark.parametrize(
    ("sizes", "found"),
    [
        ((1e-12, 1e-12), {"vanishing-gradient"}),
        ((1e6, 1e6), set()),
        ((math.nan, 1.0), {"not-finite"}),
        ((0.0, 1.0), set()),
        ((0.0, 0.0), {"no-gradient"}),
        ((None, 1.0), {"no-gradient"}),
    ],
)
def test_problems_of_gradients_without_a_loss(sizes, found):
    given = [None if size is None else np.full((2, 2), size) for size in sizes]
    assert problems(sx.diagnose(None, FRESH, time_axis=-1, gradients=given)) == found


@pytest.mark.parametrize(
    ("shape", "size", "found"),
    [
        ((), 1e-12, {"vanishing-gradient"}),
        ((), 1e-2, set()),
        ((), 1e4, {"exploding-gradient"}),
        ((1,), 1e4, {"exploding-gradient"}),  # like the losses of snnTorch for each step
        (None, 1e4, set()),  # the loss cannot be differentiated
    ],
)
def test_gradients_are_compared_with_that_of_another_loss(shape, size, found):
    torch = pytest.importorskip("torch")

    def loss(x, y):
        value = torch.nn.functional.cross_entropy(x.sum(-1), y)
        return 2.3 if shape is None else value.reshape(shape)

    given, weights = (torch.tensor(FRESH), torch.tensor(LABEL)), [np.full((2, 2), size)] * 2
    report = sx.diagnose(loss, *given, time_axis=-1, gradients=weights)
    assert {*codes(report)} == found


def test_model_of_a_recording_that_explains_it_has_no_vanishing_gradient():
    random = np.random.default_rng(0)
    log_rates = random.normal(-1.5, 1.0, size=(8, 30, 100))
    counts = random.poisson(np.exp(log_rates)).astype(float)
    loss, weights = POISSON, diagnoses.gradients(1e-6, 1e-1)
    assert not problems(sx.diagnose(loss, log_rates, counts, gradients=weights))
    unrelated = log_rates[::-1]
    assert codes(sx.diagnose(loss, unrelated, counts, gradients=weights)) == ["vanishing-gradient"]
