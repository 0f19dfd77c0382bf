"""Every loss in every form that the record has, and the page that is made of the record."""

import inspect

import contract
import numpy as np
import pytest
import reference
from calls import SOME, agree, example, moved, pairs, with_everything
from cases import close
from conftest import on
from contract import CONTRACTS, FORMS, LAYOUTS, ONE_OF_EACH, OPTIONS, REDUCTIONS

BY_DIVISION = REDUCTIONS[:-1]


def test_the_page_is_what_the_record_says():
    text = contract.PAGE.read_text(encoding="utf-8")
    assert text == contract.page(), "write it anew: python tests/contract.py"


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.name)
def test_the_record_is_what_the_signatures_say(contract):
    parameters = inspect.signature(contract.loss).parameters.values()
    needed = {p.name for p in parameters if p.default is p.empty}
    assert needed <= set(contract.required)
    recorded = {*contract.required, *contract.options, *contract.parameters}
    assert {p.name for p in parameters} == recorded
    assert set(contract.options) <= set(OPTIONS)
    with_target = () if contract.target is None else ("target",)
    call = list(inspect.signature(contract.loss.__call__).parameters)[1:]
    assert [name for name in call if name != "weight" or name in contract.call] == [
        "input", *with_target, *contract.call,
    ]  # fmt: skip


def test_one_of_each_is_one_of_each():
    chosen = [FORMS[name] for name in ONE_OF_EACH]
    assert {form.contract.name for form in chosen} == {c.name for c in CONTRACTS}
    assert {form.options.get("readout") for form in chosen} >= set(contract.READOUTS)
    assert {form.terms_axes for form in chosen} == {form.terms_axes for form in FORMS.values()}


@pytest.mark.parametrize(
    ("name", "form"), [*pairs(jax=ONE_OF_EACH), *(("jax", form) for form in SOME)]
)
def test_a_form_is_the_formula(name, form):
    with on(name) as backend:
        for make in (example, with_everything):
            call = make(FORMS[form])
            if form.startswith("SparsityEnforcer"):
                call = call.but(cotangent=np.asarray(-1.75))
            else:
                call = call.having(reduction="none")
            agree(call, call.on(backend), backend.rtol)


@pytest.mark.parametrize(("name", "form"), pairs(jax=SOME[:1], without="Sparsity"))
def test_reductions_are_divisions(name, form):
    with on(name) as backend:
        for make in (example, with_everything):
            call = make(FORMS[form]).having(reduction="none")
            found = reference.evaluate(call.loss, call.spikes, call.target, **call.options)
            for reduction in BY_DIVISION:
                reduced = call.having(reduction=reduction)
                value, gradient = reduced.on(backend)
                assert value.shape == ()
                close(value, reduced.value(), backend.rtol)
                share = reduced.cotangent / reference.divisor(reduction, found)
                as_much = call.but(cotangent=np.full(call.cotangent.shape, share))
                close(gradient, as_much.on(backend)[1], backend.rtol)


@pytest.mark.parametrize(("name", "form"), pairs(jax=SOME[1:]))
def test_a_form_is_the_same_in_every_layout(name, form):
    """With a mask of the full shape and one for each step."""
    whole = with_everything(FORMS[form])
    kept = np.random.default_rng(2).random((contract.BATCH, contract.STEPS)) < 0.7
    with on(name) as backend:
        for call in (whole, whole.but(where=kept)):
            if not form.startswith("SparsityEnforcer"):
                call = call.having(reduction="none")
            wanted, wanted_gradient = call.on(backend)
            for time_axis in LAYOUTS:
                value, gradient = moved(call, time_axis).on(backend)
                axes = contract.in_layout(FORMS[form].terms_axes, time_axis)
                at = axes.index("time") if "time" in axes else -1
                close(np.moveaxis(value, at, -1) if axes else value, wanted, backend.rtol)
                close(np.moveaxis(gradient, time_axis, -1), wanted_gradient, backend.rtol)
