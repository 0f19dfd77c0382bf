"""Gradients accumulated over micro-batches are those of the whole batch."""

import pytest

from _support.processes import (
    CASES,
    COMPILED,
    RTOL,
    SPARSITY,
    SPLIT_MATTERS,
    error,
    one_process,
    recipes,
)
from _support.split import mixed, mixing

PARTS = (slice(0, 5), slice(5, 6), slice(6, 8))
EQUAL_PARTS = (slice(0, 4), slice(4, 8))


def torch_model(batch):
    """Return a model of PyTorch, and the micro-batches as tensors."""
    torch = pytest.importorskip("torch")

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix = torch.nn.Parameter(torch.asarray(mixing(batch.spikes.shape[1])))
            self.unused = torch.nn.Parameter(torch.zeros(()))

        def forward(self, spikes):
            return mixed(self.matrix, spikes)

    def of_part(part):
        options = {name: torch.asarray(x) for name, x in part.options.items()}
        target = () if part.target is None else (torch.asarray(part.target),)
        return torch.asarray(part.spikes), *target, options

    return Model(), [of_part(batch.part(samples)) for samples in PARTS]


@pytest.mark.parametrize("name", CASES)
def test_torch_gradients_equal_the_whole(name):
    batch = CASES[name]
    model, micro_batches = torch_model(batch)
    value = recipes("in_torch").accumulate(batch.loss, model, micro_batches)
    got = value.numpy(), model.matrix.grad.numpy()
    assert error(got, one_process(batch)) < RTOL


@pytest.mark.parametrize("name", SPARSITY)
def test_torch_sparsity_equals_the_whole(name):
    batch = SPARSITY[name]
    model, micro_batches = torch_model(batch)
    value = recipes("in_torch").accumulate_sparsity(batch.loss, model, micro_batches)
    got = value.numpy(), model.matrix.grad.numpy()
    assert error(got, one_process(batch)) < RTOL


@pytest.mark.parametrize(
    "name", [n if n in SPLIT_MATTERS else pytest.param(n, marks=pytest.mark.slow) for n in COMPILED]
)
def test_jax_gradients_equal_the_whole(name):
    jax, batch = pytest.importorskip("jax"), CASES[name]

    with jax.enable_x64(True):
        parts = [batch.part(samples) for samples in EQUAL_PARTS]  # of one size: compiled once
        micro_batches = [(part.spikes, part.target, part.options) for part in parts]
        params = jax.numpy.asarray(mixing(batch.spikes.shape[1]))
        got = recipes("in_jax").accumulate(batch.loss, mixed, params, micro_batches)
    assert error(got, one_process(batch)) < RTOL


@pytest.mark.parametrize("name", SPLIT_MATTERS)
def test_mean_of_means_is_another(name):
    """The cases tell a right recipe from a wrong one."""
    batch = CASES[name]
    parts = [one_process(batch.part(samples)) for samples in PARTS]
    means = [sum(results) / len(parts) for results in zip(*parts, strict=True)]
    assert error(means, one_process(batch)) > 1e-3
