"""Hyper-parameters: what constructors accept, and that no option costs more than the data."""

import ast
import collections
import inspect
import re

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.calls import each, run
from _support.cases import close
from spikeloss_xp.primitives import kernels as kernels_module
from spikeloss_xp.primitives.kernels import Exponential


@pytest.mark.parametrize("make", [range, np.arange, lambda n: collections.deque(range(n))])
def test_any_sequence_gives_a_number_for_each_class(make):
    """A list of Hydra or OmegaConf is a sequence too, and no list."""
    numbers = make(2)
    assert sx.SpikeRate(numbers, 0.0).true_rate == (0.0, 1.0)
    assert sx.SpikeMoid(theta=0, pos_weight=numbers).pos_weight == (0.0, 1.0)
    assert sx.SpikeTime(kernel=numbers).kernel == (0.0, 1.0)


def test_long_window_and_kernel_are_cut_to_the_duration(backend, monkeypatch):
    lengths = []
    taps = Exponential.taps

    def counted(self):
        lengths.append(self.length)
        return taps(self)

    monkeypatch.setattr(Exponential, "taps", counted)
    kernels_module.block_matrices.cache_clear()
    longest, spikes = 2**31 - 1, np.random.default_rng(0).uniform(size=(2, 3, 9))
    windows = [
        sx.value_and_grad(sx.CrossEntropy(moving_window=n, reduction="sum", time_axis=-1))
        for n in (9, longest)
    ]
    for expected, got in zip(*run(backend, each(windows), spikes, [0, 2]), strict=True):
        close(got, expected, backend.rtol)
    kernels = each([sx.SpikeTime(1e6, n, 2) for n in (9, longest)])
    np.testing.assert_array_equal(*run(backend, kernels, spikes, 0 * spikes))
    assert max(lengths, default=0) <= 9


@pytest.mark.parametrize("order", [1, 2, 3, 6])
@pytest.mark.parametrize("time_constant", [1e-6, 0.3, 1.0, 7.5, 1e3, 1e12])
@pytest.mark.parametrize("length", [1, 2, 10, 3000])
def test_largest_tap_is_the_maximum_of_the_taps(order, time_constant, length):
    kernel = Exponential(time_constant, length, order)
    assert kernel.largest_tap() == pytest.approx(kernel.taps().max(), rel=1e-9)


@pytest.mark.parametrize("module", [sx, sx.losses, sx.times, sx.distances, sx.testing])
def test_defaults_are_those_of_the_docstring(module):
    for thing in filter(callable, map(vars(module).get, module.__all__)):
        parameters = inspect.signature(thing).parameters
        documented = re.findall(r"^(\w[\w, ]*) : .*, default (\S+)$", inspect.getdoc(thing), re.M)
        for names, default in documented:
            for name in names.split(", "):  # None: the constructor sets the default
                wanted = (None, ast.literal_eval(default))
                assert parameters[name].default in wanted, (thing, name)
