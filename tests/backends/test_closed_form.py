"""A loss of a PyTorch tensor is one node of the graph, which behaves as autograd's own.

tests/contract/test_differential.py compares its gradient with the reference, for every loss.
"""

import gc
import weakref

import pytest

torch = pytest.importorskip("torch")

import spikeloss_xp as sx
from _support.calls import WITH_TARGET, with_everything
from _support.contract import FORMS
from spikeloss_xp import _tuning, slayer
from spikeloss_xp.slayer import published

SPIKES = torch.rand(2, 3, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
DESIRED = torch.zeros(2, 3, 8, dtype=torch.float64)
LABEL = [0, 2]
RATE = sx.SpikeRate(0.5, 0, time_axis=-1)
close = torch.testing.assert_close


def leaf():
    return SPIKES.clone().requires_grad_()


def is_one_node(value):
    return type(value.grad_fn).__name__ == "_ClosedFormBackward"


@pytest.mark.filterwarnings("error")
def test_infinite_loss_and_nan_give_no_warning():
    spikes = torch.zeros(1, 2, 4, requires_grad=True)
    value = published.SpikeMax(time_axis=-1)(spikes, [0])  # log(0)
    value.backward()
    assert value == torch.inf
    spikes = torch.full((1, 2, 4), torch.nan, requires_grad=True)
    sx.SpikeMax(time_axis=-1)(spikes, [0]).backward()
    assert spikes.grad.isnan().all()


def test_negated_views_are_evaluated():
    spikes, expected = torch._neg_view(SPIKES).requires_grad_(), (-SPIKES).requires_grad_()
    value, positive = RATE(spikes, LABEL), RATE(expected, LABEL)
    close(value, positive)
    (gradient,) = torch.autograd.grad(value, spikes, torch._neg_view(torch.ones_like(value)))
    positive.backward()
    close(gradient, -expected.grad)


every_chunk = pytest.mark.parametrize("chunk", [1 << 19, 24])


@every_chunk
def test_backward_frees_the_saved_pullback_and_a_second_one_needs_retain_graph(monkeypatch, chunk):
    monkeypatch.setattr(_tuning, "AUTOGRAD_CHUNK", chunk)
    spikes = leaf()
    value = sx.SpikeTime(time_axis=-1)(spikes, DESIRED)
    saved = weakref.ref(value.grad_fn.pullback)
    gc.collect()
    assert saved() is not None
    (3 * value).backward(retain_graph=True)
    gc.collect()
    assert saved() is None
    first = spikes.grad.clone()
    (3 * value).backward()
    close(spikes.grad, 2 * first, rtol=1e-14, atol=0)
    with pytest.raises(RuntimeError, match="second time"):
        (3 * value).backward()


@pytest.mark.parametrize("changed", ["spikes", "target", "where"])
def test_change_in_place_before_backward_raises(changed):
    start = leaf()
    arrays = {"spikes": start * 1, "target": DESIRED.clone(), "where": torch.ones(2, 3, 8) > 0}
    value = sx.SpikeTime(time_axis=-1)(arrays["spikes"], arrays["target"], where=arrays["where"])
    arrays[changed].zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


@pytest.mark.parametrize("learnt", [False, True])
def test_target_weight_class_probabilities_and_taps_get_gradients(learnt):
    spikes = SPIKES.clone().requires_grad_(learnt)
    desired = DESIRED.clone().requires_grad_()
    sx.SpikeTime(time_axis=-1, reduction="sum")(spikes, desired).backward()
    close(
        desired.grad,
        -sx.value_and_grad(sx.SpikeTime(time_axis=-1, reduction="sum"))(SPIKES, DESIRED)[1],
    )
    weight = torch.ones(3, dtype=torch.float64, requires_grad=True)
    terms = sx.SpikeMax(reduction="none", time_axis=-1)(spikes, LABEL, weight=weight)
    terms.sum().backward()
    close(weight.grad[LABEL], terms.detach())
    q = torch.rand(2, 3, dtype=torch.float64).requires_grad_()
    sx.CrossEntropy(time_axis=-1, reduction="sum")(spikes, q).backward()
    close(q.grad, -torch.log_softmax(SPIKES.sum(-1), 1), rtol=1e-12, atol=1e-12)
    loss = slayer.loss.SpikeTime(2, 4)
    loss.filter.filter = loss.filter.filter.double().requires_grad_()
    loss(spikes, DESIRED).backward()
    assert loss.filter.filter.grad.abs().min() > 0


@every_chunk
def test_batched_cotangents_equal_single_ones(monkeypatch, chunk):
    monkeypatch.setattr(_tuning, "AUTOGRAD_CHUNK", chunk)
    spikes = leaf()
    value = sx.SpikeTime(time_axis=-1)(spikes, DESIRED)
    (one,) = torch.autograd.grad(value, spikes, retain_graph=True)
    cotangents = torch.tensor([1.0, -2.0], dtype=torch.float64)
    (both,) = torch.autograd.grad(value, spikes, cotangents, is_grads_batched=True)
    close(both, torch.stack([one, -2 * one]), rtol=1e-12, atol=1e-12)


ENTROPIES = {
    "counts": sx.CrossEntropy(time_axis=0),
    "each step": sx.CrossEntropy(time_axis=0, moving_window=1),
    "window": sx.CrossEntropy(time_axis=-1, moving_window=5),
    "rates": sx.SpikeRate(0.5, 0.0, moving_window=5, time_axis=0),
}


@pytest.mark.parametrize("name", ENTROPIES)
def test_gradients_of_two_calls_share_no_memory(name):
    spikes = [torch.rand(6, 4, 3, dtype=torch.float64).requires_grad_() for _ in range(2)]
    label = torch.zeros(4 if ENTROPIES[name].time_axis == 0 else 6, dtype=torch.int64)
    values = [ENTROPIES[name](x, label) for x in spikes]
    first, second = (torch.autograd.grad(v, x)[0] for v, x in zip(values, spikes, strict=True))
    before = second.clone()
    first.zero_()
    close(second, before, rtol=0, atol=0)
    expected = sx.value_and_grad(ENTROPIES[name])(spikes[1].detach(), label)[1]
    close(second, expected, rtol=1e-12, atol=1e-15)
    assert (spikes[1] > 0).any()  # the input is as it was


@pytest.mark.parametrize(("name", "operations"), [("counts", 41), ("each step", 39), ("rates", 62)])
def test_number_of_operations_of_a_small_batch(name, operations):
    """Count operations: a small batch spends most of its time in their overhead.

    Two looks at ranges are 14 of them: PyTorch counts the parts of `aminmax` and of `item`.
    """
    spikes, label = torch.rand(20, 100, 10).requires_grad_(), torch.arange(100) % 10
    ENTROPIES[name](spikes, label).backward()
    with torch.profiler.profile() as profile:
        ENTROPIES[name](spikes, label).backward()
    names = [event.name for event in profile.events() if event.name.startswith("aten::")]
    views = ("aten::as_strided", "aten::empty", "aten::to", "aten::_to_copy", "aten::resolve")
    assert len([name for name in names if not name.startswith(views)]) <= operations


@pytest.mark.parametrize("form", WITH_TARGET)
def test_buffers_of_numpy_may_be_used_again_before_backward(form):
    """A loader that fills the same buffers with the next batch does not change this gradient."""
    call, gradients = with_everything(FORMS[form]), []
    for used_again in (False, True):
        spikes = torch.tensor(call.spikes, requires_grad=True)
        given = {name: x.copy() for name, x in {"target": call.target, **call.options}.items()}
        value = call.loss(spikes, **given)
        assert is_one_node(value)
        for buffer in given.values() if used_again else ():
            buffer[...] = 0
        kept = {"retain_graph": True}, {"retain_graph": True}, {"create_graph": True}
        gradients.append([torch.autograd.grad(value, spikes, **each)[0] for each in kept])
    for before, after in zip(*gradients, strict=True):
        assert torch.equal(before, after)
