"""Calls of `diagnose`: errors, other losses, graphs and devices."""

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import diagnoses
from _support.diagnoses import FRESH, LABEL, WIDE, codes
from _support.programs import run_python
from _support.root import STAND_INS

LOSS = sx.CrossEntropy(time_axis=-1)
PENALTY = sx.SparsityEnforcer(0.3, time_axis=-1)
BATCH = LOSS, FRESH, LABEL


WRONG = {
    "type of the labels": (LOSS, FRESH, LABEL / 2, {}),
    "type of a mask": (LOSS, FRESH, LABEL, {"where": np.ones(len(LABEL))}),
    "times": (sx.times.SpikeLatency(silent_time=1.0), FRESH[..., None], LABEL, {}),
    "layers": (
        sx.SparsityEnforcer(0.1, time_axis=-1),
        [FRESH, FRESH[0]],
        None,
        {"lengths": [2] * len(FRESH)},
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_shape_or_type_raises_as_a_call(name):
    loss, spikes, target, options = WRONG[name]
    targets = () if target is None else (target,)
    with pytest.raises((ValueError, TypeError)) as of_call:
        loss(spikes, *targets, **options)
    with pytest.raises(of_call.type) as raised:
        sx.diagnose(loss, spikes, *targets, **options)
    assert str(raised.value) == str(of_call.value)


def test_refused_value_is_a_finding_with_the_message_of_the_loss():
    with pytest.raises(ValueError, match="target") as error:
        LOSS(FRESH, LABEL + 1)
    report = sx.diagnose(LOSS, FRESH, LABEL + 1, hidden=[WIDE])
    assert [each.seen for each in report.findings] == [str(error.value)]
    vanishing = diagnoses.gradients(1e-6, 1.0)
    of_gradients = sx.diagnose(LOSS, FRESH, LABEL + 1, gradients=vanishing)
    assert codes(of_gradients) == ["refused", "vanishing-gradient"]
    of_penalty = sx.diagnose(
        sx.SparsityEnforcer(0.3, time_axis=-1), WIDE, lengths=[99] * 24, gradients=vanishing
    )
    assert codes(of_penalty) == ["refused", "vanishing-gradient"]
    assert report.numbers == {"loss": None}
    assert [layer.name for layer in report.layers] == ["hidden.0"]
    assert "loss" not in report.scalars()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_graph_and_gradient_of_a_tensor_stay_as_they_are(dtype):
    torch = pytest.importorskip("torch")
    leaf = torch.tensor(FRESH).to(getattr(torch, dtype)).requires_grad_()
    leaf.grad = torch.ones_like(leaf)
    spikes, label = leaf * 1, torch.tensor(LABEL)
    report = sx.diagnose(LOSS, spikes, label, hidden={"a": leaf})
    numpy_report = sx.diagnose(*BATCH, hidden={"a": FRESH})
    assert report.findings == numpy_report.findings
    assert report.layers == numpy_report.layers
    assert (leaf.grad == 1).all()
    assert spikes.requires_grad
    LOSS(spikes, label).backward()
    assert not (leaf.grad == 1).all()


def test_spikes_without_a_graph_are_a_note_unless_gradients_are_passed():
    torch = pytest.importorskip("torch")
    x = torch.tensor(FRESH)
    assert codes(sx.diagnose(LOSS, x, LABEL)) == ["no-graph"]
    assert codes(sx.diagnose(LOSS, x.clone().requires_grad_(), LABEL)) == []
    assert codes(sx.diagnose(LOSS, x, LABEL, gradients=[torch.ones(2, 2)])) == []
    with torch.no_grad():
        assert codes(sx.diagnose(LOSS, x, LABEL)) == []
    layers = [x.clone().requires_grad_(), x]
    assert codes(sx.diagnose(sx.SparsityEnforcer(0.3, time_axis=-1), layers)) == ["no-graph"]


class Module:
    """An object that holds arrays, but is no sequence and no mapping."""


TIME_FIRST = np.moveaxis(FRESH, -1, 0)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((LOSS, FRESH), {}, TypeError, "target"),
        ((LOSS, 1j * FRESH, LABEL), {}, TypeError, "input"),
        ((LOSS, FRESH.astype(object), LABEL), {}, TypeError, "input"),
        ((LOSS, FRESH.astype(str), LABEL), {}, TypeError, "input"),
        ((PENALTY, FRESH, LABEL), {}, TypeError, "SparsityEnforcer takes no target"),
        ((PENALTY, np.asarray(0.5)), {}, ValueError, r"must have a batch, .* got shape \(\)"),
        (BATCH, {"hidden": [TIME_FIRST]}, ValueError, r"hidden\.0 must have as many samples as"),
        (BATCH, {"gradients": {}}, ValueError, "gradients must hold at least one array or None"),
        (BATCH, {"gradients": [[]]}, ValueError, "gradients must hold at least one array or None"),
        (BATCH, {"gradients": Module()}, TypeError, r"gradients .*jax\.tree\.leaves"),
        (BATCH, {"gradients": [1.0]}, TypeError, r"gradients \(0\) must be an array or None; got"),
        (BATCH, {"gradients": {"a": 1j * WIDE}}, TypeError, r"gradients \(a\) .*complex"),
        (BATCH, {"hidden": [1j * WIDE]}, TypeError, "hidden.0 .*complex"),
        (BATCH, {"hidden": ["text"]}, TypeError, "hidden.0 "),
        (BATCH, {"hidden": [*WIDE[:, :, :2].transpose(2, 0, 1)]}, ValueError, "stack them"),
        (BATCH, {"hidden": {1: WIDE, "a": WIDE[:0]}}, ValueError, "hidden.a has no elements"),
        ((sx.SpikeRate, FRESH, LABEL), {"time_axis": -1}, TypeError, "must be a loss of this lib"),
        (("mean", FRESH, LABEL), {"time_axis": -1}, TypeError, "another function of the input and"),
        ((None, FRESH), {}, TypeError, "time_axis must be given"),
        ((None, FRESH), {"time_axis": 0, "weight": [1, 1]}, TypeError, "weight"),
        (
            (None, FRESH),
            {"time_axis": 0, "where": np.ones((1, 1, 1, 1), bool), "hidden": FRESH},
            ValueError,
            "where must hold bools of shape",
        ),
        ((None, FRESH), {"time_axis": 3}, ValueError, "time_axis=3 is not an axis of output"),
        ((None, np.ones(5)), {"time_axis": 0}, ValueError, r"must have a batch .* shape \(5,\)"),
        (BATCH, {"time_axis": 1}, ValueError, "must be the time axis of the loss, -1; got 1"),
    ],
)
def test_wrong_call_raises(arguments, options, error, words):
    with pytest.raises(error, match=words):
        sx.diagnose(*arguments, **options)


def test_call_in_a_compiled_function_raises():
    jax = pytest.importorskip("jax")
    spikes, label = jax.numpy.asarray(FRESH), jax.numpy.asarray(LABEL)
    calls = [
        lambda x: sx.diagnose(LOSS, x, label).numbers["loss"],
        lambda x: sx.diagnose(LOSS, spikes, label, hidden=[x]).numbers["loss"],
        lambda x: sx.diagnose(LOSS, spikes, label, gradients={"a": x}).numbers["loss"],
    ]
    for call, name in zip(calls, ("input", "input", r"gradients \(a\)"), strict=True):
        with pytest.raises(TypeError, match=f"{name} must be an array whose values can be read"):
            jax.jit(call)(spikes)  # it traces all arrays, even those that are not its arguments


WAITS_OF_PYTORCH = """
import torch, torch_device
import spikeloss_xp as sx
from spikeloss_xp.diagnosis import Finding, findings
torch_device.install()
on_device = torch_device.GpuTensor
spikes = on_device((torch.rand(20, 24, 10) < 0.2).float())
hidden = on_device((torch.rand(20, 24, 50) < 0.1).float())
gradients = [on_device(torch.randn(50, 30)), on_device(torch.randn(10, 50))]
options = dict(hidden=hidden, gradients=gradients)
for window in (None, 5):
    loss = sx.CrossEntropy(time_axis=0, moving_window=window)
    for label in (torch.arange(24) % 10, on_device(torch.arange(24) % 10)):
        torch_device.reset_counts()
        sx.diagnose(loss, spikes, label, **options)
        print(torch_device.WAITS.total())
"""


@pytest.mark.compiles
def test_all_numbers_are_copied_from_a_device_at_once():
    """The second number of each pair includes the labels, which are on the device too."""
    pytest.importorskip("torch")
    assert run_python(WAITS_OF_PYTORCH, path=STAND_INS).split() == ["1", "2"] * 2


def test_without_a_loss_layers_and_gradients_are_reported(backend):
    hidden = [backend.asarray(WIDE), backend.asarray(0 * WIDE)]
    weights = [backend.asarray(np.full((3, 3), x, "float32")) for x in (1e-9, 1e3)]
    output = backend.asarray(FRESH)
    report = sx.diagnose(None, output, time_axis=-1, hidden=hidden, gradients=weights)
    assert [layer.name for layer in report.layers] == ["hidden.0", "hidden.1", "output"]
    assert report.layers[-1].rate == pytest.approx(FRESH.mean())
    assert report.numbers == {"output, as it is read": "[batch, neuron, time] = (24, 4, 20)"}
    assert [(x.code, x.severity) for x in report.findings] == [
        ("silent-hidden", "note"), ("vanishing-gradient", "note"),
    ]  # fmt: skip
    assert "class" not in str(report)
    assert "loss" not in report.scalars()


def failing(x):
    raise RuntimeError("no such file")


@pytest.mark.parametrize(
    ("loss", "seen"),
    [
        (failing, "RuntimeError: no such file"),
        (lambda x: x, "the loss must be a number; got an array of shape (24, 4, 20)"),
        (lambda x: float("nan"), "the loss is nan"),
    ],
)
def test_loss_that_fails_is_a_finding_and_the_layers_are_shown(loss, seen):
    report = sx.diagnose(loss, FRESH, time_axis=-1, hidden=[0 * WIDE])
    assert report.findings[0].seen == seen
    assert report.layers[0].silent == 1
    assert "silent-hidden" in codes(report)


def test_loss_may_compute_gradients_of_its_own():
    torch = pytest.importorskip("torch")

    def loss(x):
        (slope,) = torch.autograd.grad(x.square().sum(), x, create_graph=True)
        return slope.abs().mean()

    report = sx.diagnose(loss, torch.tensor(FRESH, requires_grad=True), time_axis=-1)
    assert report.numbers["loss"] == pytest.approx(2 * FRESH.mean())


def test_time_axis_may_repeat_that_of_the_loss():
    for axis in (-1, 2):
        assert sx.diagnose(*BATCH, time_axis=axis) == sx.diagnose(*BATCH)
