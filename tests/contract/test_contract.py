"""The record of the losses in contract.py is complete, and pages, docstrings and types fit it.

The random calls of the quick run draw every option of every loss.
"""

import ast
import collections
import dataclasses
import inspect
import re
from typing import get_args

import numpy as np
import pytest
from test_differential import QUICK

import spikeloss_xp as sx
from _support import contract
from _support.calls import each, run
from _support.cases import close
from _support.contract import CONTRACTS, FORMS, ONE_OF_EACH
from _support.random_calls import ON_TIMES, random_call
from spikeloss_xp._typing import EntropyReadout
from spikeloss_xp.primitives import kernels as kernels_module
from spikeloss_xp.primitives.kernels import Exponential
from spikeloss_xp.readouts import READOUTS

PUBLIC = {
    **{name: getattr(sx, name) for name in sx.__all__},
    **{f"times.{name}": getattr(sx.times, name) for name in sx.times.__all__},
}
LOSSES = {
    name: x for name, x in PUBLIC.items() if isinstance(x, type) and issubclass(x, sx.losses.Loss)
}


@pytest.mark.parametrize("entry", contract.LISTED, ids=lambda entry: entry.name)
def test_docstring_describes_every_option(entry):
    text, _, _ = inspect.getdoc(entry.loss).partition("\nSee Also\n")
    described = re.findall(r"^(\w+) : ", text, flags=re.MULTILINE)
    assert sorted(described) == sorted(entry.options)


@pytest.mark.parametrize(
    "kind",
    [x.loss for x in contract.LISTED if x.loss is not sx.SparsityEnforcer],
    ids=lambda x: x.__name__,
)
def test_defaults_of_shared_options_are_those_of_the_page(kind):
    parameters = inspect.signature(kind).parameters
    defaults = {name: parameters[name].default for name in contract.SHARED if name in parameters}
    expected = {"reduction": "mean", "num_classes": None, "ignore_index": -100}
    expected["time_axis"] = inspect.Parameter.empty
    assert defaults.items() <= expected.items()


def test_every_loss_has_an_entry_in_the_record():
    """From it come the random calls, and with them the tests of values and gradients."""
    assert set(LOSSES.values()) == {*(entry.loss for entry in CONTRACTS), *ON_TIMES}


def test_one_of_each_covers_every_loss_readout_and_term_shape():
    chosen = [FORMS[name] for name in ONE_OF_EACH]
    assert {form.contract.name for form in chosen} == {c.name for c in CONTRACTS}
    assert {form.options.get("readout") for form in chosen} >= set(contract.READOUTS)
    assert {form.terms_axes for form in chosen} == {form.terms_axes for form in FORMS.values()}


# Options -----------------------------------------------------------------------------------------


def test_every_option_is_drawn_with_several_values():
    """test_differential.py compares them, and fails if the reference ignores an option."""
    kinds = ("small", "times")
    seeds = [(seed, kind) for kind in kinds for seed in range(max(QUICK[kind].values()))]
    drawn = [random_call(*seed).call.loss for seed in seeds]
    layouts = {random_call(seed, "small").layout for seed in range(20)}
    assert len({axis for _, axis in layouts}) > 2  # the time axis is drawn with the layout
    for name, kind in LOSSES.items():
        own = [loss for loss in drawn if type(loss) is kind]
        for option in {field.name for field in dataclasses.fields(kind)} - {"time_axis"}:
            assert len({getattr(loss, option) for loss in own}) > 1, f"{name}.{option}"


def test_readouts_are_those_of_the_types_and_of_the_docstring():
    described = sx.CrossEntropy.__doc__.partition("readout : ")[2].partition("moving_window : ")[0]
    bullets = re.findall(r"- (``.*?``): ", described)
    assert get_args(EntropyReadout) == tuple(READOUTS)
    assert sorted(re.findall(r'"(\w+)"', " ".join(bullets))) == sorted(READOUTS)
    for loss in LOSSES.values():
        assert set(getattr(loss, "readouts", ())) <= set(READOUTS)


@pytest.mark.parametrize("make", [range, np.arange, lambda n: collections.deque(range(n))])
def test_any_sequence_gives_a_number_for_each_class(make):
    """A list of Hydra or OmegaConf is a sequence too, and no list."""
    numbers = make(2)
    assert sx.SpikeRate(numbers, -1.0, readout="max", time_axis=-1).true_rate == (0.0, 1.0)
    assert sx.SpikeMoid(
        alpha=1, theta=0, pos_weight=numbers, time_axis=-1, reduction="sum"
    ).pos_weight == (0.0, 1.0)
    assert sx.SpikeTime(kernel=numbers, time_axis=-1).kernel == (0.0, 1.0)


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
        sx.value_and_grad(sx.CrossEntropy(moving_window=n, time_axis=-1)) for n in (9, longest)
    ]
    for expected, got in zip(*run(backend, each(windows), spikes, [0, 2]), strict=True):
        close(got, expected, backend.rtol)
    kernels = each(
        [
            sx.SpikeTime(time_constant=1e6, length=n, filter_order=2, time_axis=-1)
            for n in (9, longest)
        ]
    )
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
