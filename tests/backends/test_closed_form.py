"""A loss of a PyTorch tensor is one node of the graph, which behaves as autograd's own."""

import dataclasses
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

torch = pytest.importorskip("torch")

import spikeloss_xp as sx
from _support.calls import example, with_everything
from _support.contract import FORMS, REDUCTIONS
from spikeloss_xp import _tuning, slayer

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")

LOSSES = [name for name in FORMS if "Sparsity" not in name]
SPIKES = torch.rand(2, 3, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
DESIRED = torch.zeros(2, 3, 8, dtype=torch.float64)
LABEL = [0, 2]


def leaf():
    return SPIKES.clone().requires_grad_()


def is_one_node(value):
    return type(value.grad_fn).__name__ == "_ClosedFormBackward"


@pytest.mark.slow(but=200)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("options", [example, with_everything])
@pytest.mark.parametrize("form", LOSSES)
def test_backward_equals_automatic_differentiation(form, options, reduction):
    call = options(FORMS[form])
    loss = dataclasses.replace(call.loss, reduction=reduction)
    spikes, target = torch.tensor(call.spikes, requires_grad=True), torch.tensor(call.target)
    given = {name: torch.tensor(option) for name, option in call.options.items()}
    value = loss(spikes, target, **given)
    assert is_one_node(value)
    cotangent = None
    if reduction == "none":
        cotangent = torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype).reshape(value.shape)
    value.backward(cotangent)
    expected, gradient = sx.value_and_grad(loss)(
        spikes.detach(), target, **given, **({} if cotangent is None else {"cotangent": cotangent})
    )
    torch.testing.assert_close(value.detach(), expected, rtol=1e-12, atol=0)
    largest = gradient.abs().max().item()
    torch.testing.assert_close(spikes.grad, gradient, rtol=0, atol=1e-12 * largest)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_evaluated_in_float32(dtype):
    value = sx.SpikeRate(0.5, 0)(SPIKES.to(dtype).requires_grad_(), LABEL)
    assert is_one_node(value)
    assert value.dtype == torch.float32


def test_gradient_may_be_changed_in_place():
    spikes = leaf()
    sx.SpikeRate(0.5, 0)(spikes, LABEL).backward()
    before = spikes.grad.clone()
    spikes.grad.mul_(2)
    torch.testing.assert_close(spikes.grad, 2 * before)


def test_label_out_of_range_raises_in_the_node():
    with pytest.raises(ValueError, match="target must be between 0 and 2; got values from 0 to 7"):
        sx.SpikeMax()(leaf(), torch.tensor([0, 7]))


@pytest.mark.filterwarnings("error")
def test_infinite_loss_and_nan_give_no_warning():
    spikes = torch.zeros(1, 2, 4, requires_grad=True)
    value = sx.SpikeMax(numerics="lava")(spikes, [0])  # log(0)
    value.backward()
    assert value == torch.inf
    spikes = torch.full((1, 2, 4), torch.nan, requires_grad=True)
    sx.SpikeMax()(spikes, [0]).backward()
    assert spikes.grad.isnan().all()


def test_negated_views_are_evaluated():
    spikes = torch._neg_view(SPIKES).requires_grad_()
    value = sx.SpikeRate(0.5, 0)(spikes, LABEL)
    torch.testing.assert_close(value.detach(), sx.SpikeRate(0.5, 0)(-SPIKES, LABEL))
    (gradient,) = torch.autograd.grad(value, spikes, torch._neg_view(torch.ones_like(value)))
    expected = leaf()
    sx.SpikeRate(0.5, 0)(-expected, LABEL).backward()
    torch.testing.assert_close(gradient, expected.grad)


@pytest.mark.parametrize("chunk", [1 << 19, 24])
def test_second_backward_needs_retain_graph(monkeypatch, chunk):
    monkeypatch.setattr(_tuning, "AUTOGRAD_CHUNK", chunk)
    spikes = leaf()
    value = 3 * sx.SpikeTime()(spikes, DESIRED)
    value.backward(retain_graph=True)
    first = spikes.grad.clone()
    value.backward()
    torch.testing.assert_close(spikes.grad, 2 * first, rtol=1e-14, atol=0)
    with pytest.raises(RuntimeError, match="second time"):
        value.backward()


def test_saved_pullback_is_freed_after_backward():
    held = []

    class Holding(sx.SpikeRate):
        def _criterion(self, library, reading, labels):
            terms, pullback = super()._criterion(library, reading, labels)
            held.append(weakref.ref(terms))

            def holding(cotangent, terms=terms):
                return pullback(cotangent)

            return terms, holding

    value = Holding(0.5, 0)(leaf(), LABEL)
    gc.collect()
    assert held[0]() is not None
    value.backward()
    gc.collect()
    assert held[0]() is None
    assert is_one_node(value)


@pytest.mark.parametrize("changed", ["spikes", "target", "where"])
def test_change_in_place_before_backward_raises(changed):
    start = leaf()
    arrays = {"spikes": start * 1, "target": DESIRED.clone(), "where": torch.ones(2, 3, 8) > 0}
    value = sx.SpikeTime()(arrays["spikes"], arrays["target"], where=arrays["where"])
    arrays[changed].zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def test_target_and_weight_get_gradients():
    spikes, desired = leaf(), DESIRED.clone().requires_grad_()
    sx.SpikeTime()(spikes, desired).backward()
    torch.testing.assert_close(desired.grad, -spikes.grad)
    weight = torch.ones(3, dtype=torch.float64, requires_grad=True)
    terms = sx.SpikeMax(reduction="none")(spikes, LABEL, weight=weight)
    terms.sum().backward()
    torch.testing.assert_close(weight.grad[LABEL], terms.detach())


@pytest.mark.parametrize("learnt", [False, True])
def test_class_probabilities_get_a_gradient(learnt):
    spikes = SPIKES.clone().requires_grad_(learnt)
    q = torch.rand(2, 3, dtype=torch.float64).requires_grad_()
    sx.CrossEntropy(time_axis=-1, reduction="sum")(spikes, q).backward()
    expected = -torch.log_softmax(SPIKES.sum(-1), 1)
    torch.testing.assert_close(q.grad, expected, rtol=1e-12, atol=1e-12)


def test_learnt_taps_get_a_gradient():
    loss = slayer.loss.SpikeTime(2, 4)
    ((name, taps),) = loss.filter.named_buffers()
    learnt = taps.double().requires_grad_()
    setattr(loss.filter, name, learnt)
    loss(leaf(), DESIRED).backward()
    assert learnt.grad.abs().min() > 0


def test_second_derivative_equals_the_hessian():
    spikes = leaf()
    value = sx.SpikeTime(2, 4)(spikes, DESIRED)
    assert is_one_node(value)
    (gradient,) = torch.autograd.grad(value, spikes, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), spikes)
    # The loss is quadratic, so with the Hessian H the gradient is H s, and the second 2 H H s.
    hessian = torch.func.hessian(lambda s: sx.SpikeTime(2, 4)(s, DESIRED))(SPIKES).reshape(48, 48)
    expected = 2 * (hessian @ (hessian @ SPIKES.reshape(48)))
    torch.testing.assert_close(second.reshape(48), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("chunk", [1 << 19, 24])
def test_batched_cotangents_equal_single_ones(monkeypatch, chunk):
    monkeypatch.setattr(_tuning, "AUTOGRAD_CHUNK", chunk)
    spikes = leaf()
    value = sx.SpikeTime()(spikes, DESIRED)
    (one,) = torch.autograd.grad(value, spikes, retain_graph=True)
    cotangents = torch.tensor([1.0, -2.0], dtype=torch.float64)
    (both,) = torch.autograd.grad(value, spikes, cotangents, is_grads_batched=True)
    torch.testing.assert_close(both, torch.stack([one, -2 * one]), rtol=1e-12, atol=1e-12)


def test_forward_mode_of_a_leaf_equals_the_gradient():
    tangent = torch.ones_like(SPIKES)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(leaf(), tangent)
        value = sx.SpikeTime()(dual, DESIRED)
        slope = torch.autograd.forward_ad.unpack_dual(value).tangent
    spikes = leaf()
    sx.SpikeTime()(spikes, DESIRED).backward()
    torch.testing.assert_close(slope, (tangent * spikes.grad).sum())


ENTROPIES = {
    "counts": sx.CrossEntropy(time_axis=0),
    "each step": sx.CrossEntropy(time_axis=0, moving_window=1),
    "window": sx.CrossEntropy(time_axis=-1, moving_window=5),
    "rates": sx.SpikeRate(0.5, 0.0, 5, time_axis=0),
}


@pytest.mark.parametrize("name", ENTROPIES)
def test_gradients_of_two_calls_share_no_memory(name):
    spikes = [torch.rand(6, 4, 3, dtype=torch.float64).requires_grad_() for _ in range(2)]
    label = torch.zeros(4 if ENTROPIES[name].time_axis == 0 else 6, dtype=torch.int64)
    values = [ENTROPIES[name](x, label) for x in spikes]
    first, second = (torch.autograd.grad(v, x)[0] for v, x in zip(values, spikes, strict=True))
    before = second.clone()
    first.zero_()
    torch.testing.assert_close(second, before, rtol=0, atol=0)
    expected = sx.value_and_grad(ENTROPIES[name])(spikes[1].detach(), label)[1]
    torch.testing.assert_close(second, expected, rtol=1e-12, atol=1e-15)
    assert (spikes[1] > 0).any()  # the input is as it was


def test_calls_of_several_threads_are_independent():
    spikes = [torch.rand(20, 8, 5).requires_grad_() for _ in range(16)]
    label = torch.arange(8) % 5
    expected = [sx.value_and_grad(ENTROPIES["window"])(x.detach(), label.new_zeros(20))[1]
                for x in spikes]  # fmt: skip

    def gradient(x):
        for _ in range(20):
            (found,) = torch.autograd.grad(ENTROPIES["window"](x, label.new_zeros(20)), x)
        return found

    with ThreadPoolExecutor(16) as threads:
        for got, wanted in zip(threads.map(gradient, spikes), expected, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "operations"), [("counts", 40), ("each step", 38), ("rates", 62), ("plain", 20)]
)
def test_number_of_operations_of_a_small_batch(name, operations):
    """Count operations: a small batch spends most of its time in their overhead."""
    spikes, label = torch.rand(20, 100, 10).requires_grad_(), torch.arange(100) % 10
    loss = ENTROPIES.get(name, lambda x, y: torch.nn.functional.cross_entropy(x.sum(0), y))
    loss(spikes, label).backward()
    with torch.profiler.profile() as profile:
        loss(spikes, label).backward()
    names = [event.name for event in profile.events() if event.name.startswith("aten::")]
    views = ("aten::as_strided", "aten::empty", "aten::to", "aten::_to_copy", "aten::resolve")
    assert len([name for name in names if not name.startswith(views)]) <= operations


@pytest.mark.parametrize("form", LOSSES)
def test_buffers_of_numpy_may_be_used_again_before_backward(form):
    """A loader that fills the same buffers with the next batch does not change this gradient."""
    call, gradients = with_everything(FORMS[form]), []
    for used_again in (False, True):
        spikes = torch.tensor(call.spikes, requires_grad=True)
        given = {name: x.copy() for name, x in {"target": call.target, **call.options}.items()}
        value = call.loss(spikes, **given)
        for buffer in given.values() if used_again else ():
            buffer[...] = 0
        value.backward()
        gradients.append(spikes.grad)
    assert torch.equal(*gradients)
