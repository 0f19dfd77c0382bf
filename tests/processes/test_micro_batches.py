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


def test_masked_sample_stands_for_an_empty_share():
    """docs/processes.md recommends it, because a batch without samples raises an error."""
    torch = pytest.importorskip("torch")
    for target, options in ((torch.tensor([-100]), {}), (torch.zeros(1, 3), {"where": [False]})):
        loss = sx.SquaredError(time_axis=0) if options else sx.CrossEntropy(time_axis=0)
        spikes = torch.zeros((20, 1, 3), requires_grad=True)
        total, weight = loss.sum_and_weight(spikes, target, **options)
        total.backward()
        assert total == weight == 0
        assert not spikes.grad.any()
        with pytest.raises(ValueError, match="no elements"):
            loss.sum_and_weight(spikes[:, :0], target[:0])
