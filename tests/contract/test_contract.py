"""The record of the losses in contract.py is complete, and the pages agree with it."""

import inspect
import re

import pytest

import spikeloss_xp as sx
from _support import contract
from _support.contract import CONTRACTS, FORMS, ONE_OF_EACH
from _support.random_calls import ON_TIMES


def test_page_matches_the_record():
    text = contract.PAGE.read_text(encoding="utf-8")
    assert text == contract.page(), "run: python tools/write_pages.py"


def test_call_arguments_are_on_the_page():
    text = contract.PAGE.read_text(encoding="utf-8")
    for name in {name for c in CONTRACTS for name in c.call}:
        assert f"\n| `{name}` | " in text


@pytest.mark.parametrize("entry", contract.LISTED, ids=lambda entry: entry.name)
def test_docstring_describes_every_option(entry):
    described = re.findall(r"^(\w+) : ", inspect.getdoc(entry.loss), flags=re.MULTILINE)
    assert sorted(described) == sorted(entry.options)


@pytest.mark.parametrize(
    "kind",
    [x.loss for x in contract.LISTED if x.loss is not sx.SparsityEnforcer],
    ids=lambda x: x.__name__,
)
def test_defaults_of_shared_options_are_those_of_the_page(kind):
    new = (sx.CrossEntropy, sx.SquaredError, sx.SpikeLatency, sx.losses.TrainLoss)
    new = issubclass(kind, new)
    parameters = inspect.signature(kind).parameters
    defaults = {name: parameters[name].default for name in contract.SHARED if name in parameters}
    expected = {"reduction": "mean" if new else "sum", "num_classes": None, "ignore_index": -100}
    expected["time_axis"] = inspect.Parameter.empty if new else -1
    assert defaults.items() <= expected.items()


def test_every_loss_has_an_entry_in_the_record():
    """From it come the random calls, and with them the tests of values and gradients."""
    kinds = {kind for name in sx.__all__ if isinstance(kind := getattr(sx, name), type)}
    assert kinds == {entry.loss for entry in CONTRACTS}
    assert {getattr(sx.times, name) for name in sx.times.__all__} <= set(ON_TIMES)


def test_one_of_each_covers_every_loss_readout_and_term_shape():
    chosen = [FORMS[name] for name in ONE_OF_EACH]
    assert {form.contract.name for form in chosen} == {c.name for c in CONTRACTS}
    assert {form.options.get("readout") for form in chosen} >= set(contract.READOUTS)
    assert {form.terms_axes for form in chosen} == {form.terms_axes for form in FORMS.values()}
