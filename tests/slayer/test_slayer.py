"""Check that the `slayer` modules are drop-in replacements for those of lava-dl 0.6.0."""

import copy
import functools
import gc
import inspect
import io
import pickle
import warnings
import weakref

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import spikeloss_xp as sx
from spikeloss_xp import slayer
from test_golden import CASES, RTOL, load_case

SIGNATURES = {  # of lava-dl 0.6.0
    slayer.loss.SpikeTime: "time_constant=5, length=100, filter_order=1, reduction='sum'",
    slayer.loss.SpikeRate: "true_rate, false_rate, moving_window=None, reduction='sum'",
    slayer.loss.SpikeMax: "moving_window=None, mode='probability', reduction='sum'",
    slayer.loss.SpikeMoid: "moving_window=None, reduction='sum', alpha=1, theta=0",
    slayer.loss.SparsityEnforcer: "max_rate=0.01, lam=1.0",
    slayer.classifier.MovingWindow: "time_window, mode='probability', eps=1e-06",
    slayer.classifier.Rate.confidence: "spike, mode='probability', eps=1e-06",
}
SPIKES = (torch.rand(2, 3, 40, generator=torch.Generator().manual_seed(0)) < 0.4).float()
SPIKES[:, :, 0] = 1  # so that the first windows contain a spike
LABEL = torch.tensor([2, 0])
MODULES = [
    (slayer.loss.SpikeTime(3, 20, 2, "mean"), SPIKES.roll(1, -1)),
    (slayer.loss.SpikeRate(0.2, 0.03, 5), LABEL),
    (slayer.loss.SpikeMax(5, "softmax"), LABEL),
    (slayer.loss.SpikeMoid(alpha=0.25, theta=0.1), torch.tensor([[1.0, 0, 0], [0, 1, 1]])),
]


@pytest.mark.parametrize("made", SIGNATURES, ids=lambda made: made.__qualname__)
def test_arguments_have_the_names_order_and_defaults_of_lava(made):
    signature = inspect.signature(made)
    positional = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
        if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    assert ", ".join(map(str, positional)) == SIGNATURES[made]


@pytest.mark.slow(but=70)
@pytest.mark.parametrize("i", range(CASES))
def test_values_and_gradients_equal_the_published_ones(i):
    loss, append, input, label, expected, gradient = load_case(i, slayer.loss)
    spikes = torch.tensor(input, requires_grad=True)
    for factor in append or ():
        loss.append(spikes * factor)
    value = loss.loss if append else loss(spikes, torch.tensor(label))
    value.backward()
    np.testing.assert_allclose(value.detach(), expected, rtol=RTOL)
    np.testing.assert_allclose(spikes.grad, gradient, atol=RTOL * abs(gradient).max())


@pytest.mark.parametrize(("module", "target"), MODULES, ids=lambda x: type(x).__name__)
def test_modules_can_be_copied_saved_loaded_and_converted(module, target):
    value = module(SPIKES, target)
    second = "desired" if isinstance(module, slayer.loss.SpikeTime) else "label"  # as in lava-dl
    assert torch.equal(module.forward(input=SPIKES, **{second: target}), value)
    stored = io.BytesIO()
    torch.save(module.state_dict(), stored)
    stored.seek(0)
    copies = [copy.deepcopy(module), pickle.loads(pickle.dumps(module))]
    copies += torch.nn.ModuleList([module]).to("cpu")
    copies[0].load_state_dict(torch.load(stored))
    for other in copies:
        assert torch.equal(other(SPIKES, target), value)
        assert repr(other) == repr(module)
    assert module.double()(SPIKES.double(), target).dtype == torch.float64
    module.float()


def test_state_dicts_have_the_keys_of_lava():
    assert set(slayer.loss.SpikeTime().state_dict()) == {"filter.filter"}
    assert set(slayer.loss.SpikeMax(5).state_dict()) == {"window.filter.filter"}
    assert not slayer.loss.SpikeMax().state_dict()
    assert set(slayer.classifier.MovingWindow(5).state_dict()) == {"filter.filter"}


def test_attributes_equal_those_of_lava_and_can_be_set():
    module = slayer.loss.SpikeRate(0.2, 0.03, 5, "mean")
    assert (module.true_rate, module.false_rate, module.reduction) == (0.2, 0.03, "mean")
    assert isinstance(module.window, slayer.classifier.MovingWindow)
    one, module = torch.ones(1, 1, 4), slayer.loss.SpikeRate(1.0, 0.0)
    assert module(one, torch.tensor([0])) == 0
    module.true_rate = 0.5
    assert module(one, torch.tensor([0])) == 0.25
    module.true_rate = 2
    with pytest.raises(ValueError, match="true_rate"):
        module(one, torch.tensor([0]))


def test_filter_can_be_called_and_replaced():
    module = slayer.loss.SpikeTime(time_constant=5, length=30, filter_order=2)
    kernel = torch.tensor(sx.exponential_kernel(5, 30, 2), dtype=torch.float32)
    assert torch.equal(module.filter.filter, kernel)
    impulse = torch.zeros(1, 1, 40)
    impulse[..., 3] = 1
    assert torch.equal(module.filter(impulse)[0, 0, 3:33], kernel)
    module.filter.filter = torch.tensor([1.0])  # as loading the state dict of another filter would
    assert module(SPIKES, 0 * SPIKES) == SPIKES.sum()


def test_stable_numerics_can_be_selected():
    spikes = SPIKES * torch.tensor([1.0, 1, 0])[:, None]
    expected = sx.SpikeMax(time_axis=-1, reduction="sum")(spikes, LABEL)
    assert slayer.loss.SpikeMax(numerics="stable")(spikes, LABEL) == expected
    one, wrong = torch.ones(1, 1, 4), torch.zeros(1, 1)
    assert slayer.loss.SpikeMoid(alpha=1 / 20)(one, wrong) == 100
    assert slayer.loss.SpikeMoid(alpha=1 / 20, numerics="stable")(one, wrong) == 20


SILENT = torch.zeros(1, 2, 5)
"""The labelled neuron is silent, so the published loss is infinite."""


@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize("call", ["__call__", "forward"])
def test_value_that_is_not_finite_warns_once_for_each_line_of_the_caller(call, reduction):
    module = slayer.loss.SpikeMax(reduction=reduction)
    spikes = torch.cat([SILENT, SILENT + 1]).requires_grad_()  # the second sample is finite
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("default")
        for _ in range(3):
            assert getattr(module, call)(spikes, torch.tensor([0, 0])).isinf().any()
    (warning,) = record
    assert (warning.category, warning.filename) == (RuntimeWarning, __file__)
    assert "SpikeMax is not finite" in str(warning.message)
    assert "numerics='stable'" in str(warning.message)


def test_finite_values_and_stable_numerics_do_not_warn():
    label, stable = torch.tensor([0]), slayer.loss.SpikeMax(numerics="stable")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        slayer.loss.SpikeMax()(SPIKES[:1], label)
        assert stable(SILENT, label).isfinite()
        assert stable(SILENT + torch.nan, label).isnan()  # the advice would not help


@pytest.mark.compiles
@pytest.mark.parametrize(
    "transform",
    [
        pytest.param(
            lambda module: torch.compile(module, fullgraph=True, backend="eager"),
            marks=pytest.mark.slow,
        ),
        lambda module: torch.func.vmap(lambda *one: module(*(x[None] for x in one))),
    ],
    ids=["compile", "vmap"],
)
def test_compiled_and_batched_values_are_not_read(transform):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="SpikeMax is not finite")
        assert transform(slayer.loss.SpikeMax())(SILENT, torch.tensor([0])).isinf().all()


@pytest.mark.parametrize(("module", "target"), MODULES)
def test_call_with_a_weight_raises_with_the_loss_that_takes_it(module, target):
    name = type(module).__name__
    with pytest.raises(TypeError, match=f"slayer.loss.{name} .*got weight: spikeloss_xp.{name} "):
        module(torch.zeros(target.shape), target, weight=torch.ones(3))


def test_missing_attribute_raises_with_what_to_write():
    with pytest.raises(AttributeError, match=r"'block'.*classifier and published.*lava\.lib\.dl"):
        slayer.block  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'io'"):
        from spikeloss_xp.slayer import io  # noqa: F401
    assert not hasattr(slayer, "__wrapped__")


def test_sparsity_enforcer_collects_terms_until_it_is_cleared():
    spikes = SPIKES.clone().requires_grad_()
    sparsity = slayer.loss.SparsityEnforcer(max_rate=0.1, lam=3.0)
    assert torch.equal(sparsity.loss, torch.zeros(()))
    saved = spikes * 2
    saved_ref = weakref.ref(saved)
    sparsity.append(spikes)
    sparsity.append(saved**2)  # autograd saves `saved` for the gradient of the square
    terms = [(factor * SPIKES.mean().item() - 0.1) ** 2 for factor in (1, 4)]
    np.testing.assert_allclose([t.item() for t in sparsity.loss_list], terms, rtol=1e-5)
    with torch.no_grad():
        total = sparsity.loss
        total += 5  # the terms stay as they are
    np.testing.assert_allclose(sparsity.loss.item(), 3 * sum(terms), rtol=1e-5)
    del saved
    gc.collect()
    assert saved_ref() is not None
    sparsity.clear()
    gc.collect()
    assert saved_ref() is None
    assert sparsity.loss == 0
    assert sparsity.loss_list == []
    assert not sparsity.loss.requires_grad


def test_classifiers_match_the_formulas():
    rate, window_of = slayer.classifier.Rate, slayer.classifier.MovingWindow
    folded, r = SPIKES[:, None], SPIKES.mean(-1)  # [batch, 1, 3, time]
    assert torch.equal(rate.rate(folded), folded.mean(-1))
    for mode, expected in {
        "probability": r / (r.sum(1, keepdim=True) + 1e-6),
        "softmax": torch.softmax(r, 1),
        "logsoftmax": torch.log_softmax(r, 1),
    }.items():
        for confidence in (
            rate.confidence(folded, mode),
            window_of(40, mode).confidence(folded)[..., -1],
            window_of(40).confidence(folded, mode)[..., -1],
        ):
            torch.testing.assert_close(confidence, expected)
    assert torch.equal(rate.predict(SPIKES), r.argmax(1))
    assert torch.equal(rate()(SPIKES), r.argmax(1))
    window = window_of(10)
    torch.testing.assert_close(window.rate(SPIKES), window.filter(SPIKES))
    assert torch.equal(window(SPIKES), window.predict(SPIKES))  # lava-dl returns None
    assert window(SPIKES).shape == (2, 40)
    assert (window.mode, window.eps, window.time_window) == ("probability", 1e-6, 10)


def test_unknown_mode_or_negative_factor_raises():
    for call in (
        lambda: slayer.loss.SpikeMax(mode="anything"),
        lambda: slayer.classifier.Rate.confidence(SPIKES, mode="anything"),
        lambda: slayer.classifier.MovingWindow(5, "anything"),
        lambda: slayer.classifier.MovingWindow(5).confidence(SPIKES, mode="anything"),
    ):
        with pytest.raises(ValueError, match="mode"):
            call()
    with pytest.raises(ValueError, match="lam must be at least 0"):
        slayer.loss.SparsityEnforcer(lam=-1)


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.25, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_of_spike_moid_equals_that_of_the_published_formula(dtype, alpha):
    """Also where the logarithms are clamped, and where PyTorch limits the slope of the entropy."""
    logits = torch.linspace(-60, 60, 481, dtype=torch.float64)
    rates = (logits.repeat(3) * alpha).to(dtype)[:, None, None]
    labels = torch.tensor([0.0, 1.0, 0.3]).repeat_interleave(481).to(dtype)[:, None]
    module = slayer.loss.SpikeMoid(alpha=alpha)
    loss = slayer.published.SpikeMoid(alpha=alpha, time_axis=-1, reduction="sum")

    def published(x):
        p = torch.sigmoid((x / alpha).mean(-1))
        return torch.nn.functional.binary_cross_entropy(p, labels, reduction="sum")

    def gradient_of(function):
        leaf = rates.clone().requires_grad_()
        return torch.autograd.grad(function(leaf), leaf)[0]

    expected, eps = gradient_of(published), torch.finfo(dtype).eps
    close = functools.partial(torch.testing.assert_close, expected=expected, rtol=20 * eps)
    close(gradient_of(lambda x: module(x, labels)), atol=4 * eps / alpha)
    closed_form = sx.value_and_grad(loss)(rates.numpy(), labels.numpy())[1]
    close(torch.asarray(closed_form), atol=4 * eps / alpha)
    # The slope of the precise entropy differs from `p - 1` by the rounding of `p`.
    close(torch.func.grad(lambda x: loss(x, labels))(rates), atol=4 * eps / alpha)
