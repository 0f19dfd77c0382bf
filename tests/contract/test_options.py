"""The random calls of the quick run draw every option of every loss, and the reference knows it."""

import dataclasses
import re
from typing import Any, get_args

import numpy as np
import pytest
from test_differential import QUICK

import spikeloss_xp as sx
from _support import reference
from _support.calls import Call
from _support.random_calls import random_call
from spikeloss_xp._typing import EntropyReadout
from spikeloss_xp.readouts import READOUTS

PUBLIC = {
    **{name: getattr(sx, name) for name in sx.__all__},
    **{f"times.{name}": getattr(sx.times, name) for name in sx.times.__all__},
}
LOSSES = {
    name: x for name, x in PUBLIC.items() if isinstance(x, type) and issubclass(x, sx.losses.Loss)
}


def others(call: Call, field: Any, drawn: set[Any]) -> list[Any]:
    """Return the loss of a call with the default of an option instead of the value drawn for it.

    An option that is required has no default, and gets each of the values `drawn` in other calls.
    """
    losses = []
    for value in drawn if field.default is dataclasses.MISSING else {field.default}:
        try:
            losses.append(dataclasses.replace(call.loss, **{field.name: value}))
        except (TypeError, ValueError):  # not valid with the other options of this loss
            continue
    return [loss for loss in losses if loss != call.loss]


def differ(call: Call, other: Any) -> bool:
    """Return whether the reference has another value for another loss on the same arrays.

    The spikes are moved a little, so that another slope changes the value too.
    """
    moved = call.spikes + np.random.default_rng(0).normal(scale=1e-3, size=call.spikes.shape)
    arguments = moved, call.target
    value = reference.value(call.loss, *arguments, **call.options)
    try:
        changed = reference.value(other, *arguments, **call.options)
    except (AssertionError, IndexError, TypeError, ValueError):
        return True  # it has read the option, because nothing else was changed
    if np.shape(changed) != np.shape(value):
        return True
    # The published numerics differ from the stable ones by rounding, and that is no other formula.
    return not np.allclose(changed, value, rtol=1e-9, atol=0, equal_nan=True)


@pytest.mark.filterwarnings("ignore:SpikeMoid was created without theta")
def test_every_option_is_drawn_and_known_to_the_reference():
    kinds = ("small", "times")
    seeds = [(seed, kind) for kind in kinds for seed in range(max(QUICK[kind].values()))]
    calls = [random_call(*seed).in_full() for seed in seeds]
    never_drawn, unknown = [], []
    for name, loss in LOSSES.items():
        own = [call for call in calls if type(call.loss) is loss]
        for field in dataclasses.fields(loss):
            drawn = {getattr(call.loss, field.name) for call in own}
            pairs = [(call, other) for call in own for other in others(call, field, drawn)]
            if not pairs:
                never_drawn.append(f"{name}.{field.name}")
            elif not any(differ(*pair) for pair in pairs):
                unknown.append(f"{name}.{field.name}")
    assert not never_drawn, "draw other values than the default in random_calls.py"
    assert not unknown, "reference.py returns the same value with the default"


def test_readouts_are_those_of_the_types_and_of_the_docstring():
    described = sx.CrossEntropy.__doc__.partition("readout : ")[2].partition("moving_window : ")[0]
    bullets = re.findall(r"- (``.*?``): ", described)
    assert get_args(EntropyReadout) == tuple(READOUTS)
    assert sorted(re.findall(r'"(\w+)"', " ".join(bullets))) == sorted(READOUTS)
    for loss in LOSSES.values():
        assert set(getattr(loss, "readouts", ())) <= set(READOUTS)
