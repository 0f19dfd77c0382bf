"""Gradients accumulated over micro-batches are those of the whole batch."""

from functools import partial

import pytest

import spikeloss_xp as sx
from _support.processes import CASES, EACH_LOSS, MEANS, SPARSITY, assert_equal_one_process, recipes
from _support.split import mixed, mixing

UNEVEN = (slice(0, 5), slice(5, 6), slice(6, 8))
EQUAL = (slice(0, 4), slice(4, 8))
QUICK = [f"SpikeMoid-groups-rate-window-{reduction}" for reduction in ("sum", "mean", "batchmean")]


def accumulated(torch, batch):
    """Return the loss and the gradient that a recipe of PyTorch accumulates."""

    def of_part(part):
        options = {name: torch.asarray(x) for name, x in part.options.items()}
        target = () if part.target is None else (torch.asarray(part.target),)
        return torch.asarray(part.spikes), *target, options

    model, parameter = torch.nn.Module(), torch.nn.Parameter
    model.matrix = parameter(torch.asarray(mixing(batch.spikes.shape[1])))
    model.unused, model.forward = parameter(torch.zeros(())), partial(mixed, model.matrix)
    recipe = "accumulate_sparsity" if batch.target is None else "accumulate"
    micro_batches = [of_part(batch.part(samples)) for samples in UNEVEN]
    value = getattr(recipes("in_torch"), recipe)(batch.loss, model, micro_batches)
    return value.numpy(), model.matrix.grad.numpy()


def test_torch_gradients_equal_the_whole():
    torch = pytest.importorskip("torch")
    batches = {name: CASES[name] for name in EACH_LOSS} | SPARSITY
    assert_equal_one_process({name: accumulated(torch, batches[name]) for name in batches})


@pytest.mark.compiles
def test_jax_gradients_equal_the_whole(pytestconfig):
    jax, accumulate, found = pytest.importorskip("jax"), recipes("in_jax").accumulate, {}
    slow = pytestconfig.getoption("--slow")
    with jax.enable_x64(True):
        for name in [*QUICK, "nothing-counts-mean", *(MEANS if slow else ())]:
            parts = [CASES[name].part(samples) for samples in EQUAL]  # of one size: compiled once
            micro_batches = [(part.spikes, part.target, part.options) for part in parts]
            params = jax.numpy.asarray(mixing(parts[0].spikes.shape[1]))
            found[name] = accumulate(parts[0].loss, mixed, params, micro_batches)
    assert_equal_one_process(found)


def test_share_without_samples_adds_nothing():
    torch = pytest.importorskip("torch")
    spikes = torch.zeros((20, 0, 3), requires_grad=True)
    for loss, target in ((sx.CrossEntropy, torch.zeros(0).int()), (sx.SquaredError, spikes)):
        total, weight = loss(time_axis=0).sum_and_weight(spikes, target.detach())
        total.backward()
        assert total == weight == 0
        assert spikes.grad.shape == spikes.shape
        with pytest.raises(ValueError, match="no elements"):
            loss(time_axis=0)(spikes, target)
        with pytest.raises(ValueError, match="has no samples, but target has shape"):
            loss(time_axis=0).sum_and_weight(spikes, target.new_zeros(4))
    for per in ("all", "neuron"):
        sparsity = sx.SparsityEnforcer(0.1, time_axis=0, per=per)
        others = sparsity.events_and_entries(torch.ones((20, 4, 3)))
        empty = sparsity.events_and_entries(spikes)
        assert [x.shape for x in empty] == [x.shape for x in others]
        assert not any(x.any() for x in empty)
        value = sparsity(spikes, others=others)
        assert value == sparsity(torch.ones((20, 4, 3)))
        value.backward()
