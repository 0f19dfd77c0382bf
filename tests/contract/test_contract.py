"""Every form in contract.py agrees with the reference, and the pages agree with it."""

import inspect

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import contract, reference
from _support.backends import on
from _support.calls import FEW_FORMS, WITH_TARGET, agree, example, moved, pairs, with_everything
from _support.cases import close
from _support.contract import CONTRACTS, FORMS, LAYOUTS, ONE_OF_EACH, REDUCTIONS

SCALAR_REDUCTIONS = REDUCTIONS[:-1]


@pytest.mark.parametrize("page", [contract.PAGE, *contract.PAGES], ids=lambda page: page.stem)
def test_page_matches_the_record(page):
    text = contract.pages()[page]
    assert page.read_text(encoding="utf-8") == text, "run: python tools/write_pages.py"


def test_shared_options_and_call_arguments_are_on_the_page():
    text = contract.PAGE.read_text(encoding="utf-8")
    for name in {*contract.SHARED, *(name for c in CONTRACTS for name in c.call)}:
        assert f"\n| `{name}` | " in text


CLASSIFIERS = (sx.Rate, sx.MovingWindow)


@pytest.mark.parametrize(
    "kind", [*contract.PAGES.values(), sx.losses.Composed, *CLASSIFIERS], ids=lambda x: x.__name__
)
def test_defaults_of_shared_options_are_those_of_the_page(kind):
    new = kind in (sx.CrossEntropy, sx.SquaredError, sx.SpikeLatency, *CLASSIFIERS)
    parameters = inspect.signature(kind).parameters
    defaults = {name: parameters[name].default for name in contract.SHARED if name in parameters}
    expected = {"reduction": "mean" if new else "sum", "num_classes": None, "ignore_index": -100}
    expected["time_axis"] = inspect.Parameter.empty if new else -1
    assert defaults.items() <= expected.items()


def test_one_of_each_covers_every_loss_readout_and_term_shape():
    chosen = [FORMS[name] for name in ONE_OF_EACH]
    assert {form.contract.name for form in chosen} == {c.name for c in CONTRACTS}
    assert {form.options.get("readout") for form in chosen} >= set(contract.READOUTS)
    assert {form.terms_axes for form in chosen} == {form.terms_axes for form in FORMS.values()}


@pytest.mark.parametrize(
    ("name", "form"), [*pairs(jax=ONE_OF_EACH), *(("jax", form) for form in FEW_FORMS)]
)
def test_loss_matches_the_reference(name, form):
    with on(name) as backend:
        for make in (example, with_everything):
            call = make(FORMS[form])
            if form.startswith("SparsityEnforcer"):
                call = call.replace(cotangent=np.asarray(-1.75))
            else:
                call = call.with_loss_options(reduction="none")
            agree(call, call.on(backend), backend.rtol)


@pytest.mark.parametrize(("name", "form"), pairs(jax=FEW_FORMS[2:], forms=WITH_TARGET))
def test_reductions_divide_the_sum_of_terms(name, form):
    with on(name) as backend:
        for make in (example, with_everything):
            call = make(FORMS[form]).with_loss_options(reduction="none")
            evaluated = reference.evaluate(call.loss, call.spikes, call.target, **call.options)
            ones = np.ones(call.cotangent.shape)
            _, of_the_sum = call.replace(cotangent=ones).on(backend)
            for reduction in SCALAR_REDUCTIONS:
                reduced = call.with_loss_options(reduction=reduction)
                value, gradient = reduced.on(backend)
                assert value.shape == ()
                close(value, reduced.value(), backend.rtol)
                scale = reduced.cotangent / reference.divisor(reduction, evaluated)
                close(gradient, scale * of_the_sum, backend.rtol)


@pytest.mark.parametrize(("name", "form"), pairs(jax=FEW_FORMS[1:]))
def test_loss_is_the_same_in_every_layout(name, form):
    """With a mask of the full shape, and with one value per step."""
    full_mask_call = with_everything(FORMS[form])
    mask = np.random.default_rng(2).random((contract.BATCH, contract.STEPS)) < 0.7
    with on(name) as backend:
        for call in (full_mask_call, full_mask_call.replace(where=mask)):
            if not form.startswith("SparsityEnforcer"):
                call = call.with_loss_options(reduction="none")
            expected, expected_gradient = call.on(backend)
            for time_axis in LAYOUTS:
                value, gradient = moved(call, time_axis).on(backend)
                axes = contract.in_layout(FORMS[form].terms_axes, time_axis)
                terms_time_axis = axes.index("time") if "time" in axes else -1
                if axes:
                    value = np.moveaxis(value, terms_time_axis, -1)
                close(value, expected, backend.rtol)
                close(np.moveaxis(gradient, time_axis, -1), expected_gradient, backend.rtol)
