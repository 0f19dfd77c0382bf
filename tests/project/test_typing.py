"""The types of the options are what the checks accept, and the typed script runs.

`.ci/types` checks the script with mypy and pyright.
"""

import runpy
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

import spikeloss_xp as sx

USER = Path(__file__).parents[1] / "typed" / "user.py"
CLASSES = (
    *(sx.SpikeTime, sx.SpikeRate, sx.SpikeMax, sx.SpikeLatency, sx.SpikeMoid),
    *(sx.CrossEntropy, sx.SparsityEnforcer, sx.Rate, sx.MovingWindow),
)
AXIS = {"time_axis": -1}
REQUIRED: dict[str, dict[str, Any]] = {  # arguments that the constructors require
    **{
        "SpikeRate": {"true_rate": 0.5, "false_rate": 0.0},
        "MovingWindow": {"time_window": 2, **AXIS},
    },
    **{"SpikeLatency": AXIS, "CrossEntropy": AXIS, "Rate": AXIS, "SpikeMoid": {"theta": 0}},
}


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_literal_types_are_the_accepted_strings(kind):
    every, required = get_type_hints(kind), REQUIRED.get(kind.__name__, {})
    hints = {field.name: every[field.name] for field in fields(kind) if field.init}
    annotated = {name: get_args(hint) for name, hint in hints.items()}
    options = {name: args for name, args in annotated.items() if args and isinstance(args[0], str)}
    assert options, "every class has an option of several strings"
    assert str not in hints.values(), "a string option needs a Literal type"
    for option, accepted in options.items():
        for value in accepted:
            kind(**required, **{option: value})
        for value in {"mean", "rate", "probability", "lava", "men"} - set(accepted):
            with pytest.raises(ValueError, match=f"{option}.*{value}"):
                kind(**required, **{option: value})


def test_documented_calls_of_the_typed_script_run():
    for needed in ("jax", "torch"):  # the script imports both
        pytest.importorskip(needed)
    script = runpy.run_path(str(USER))
    script["documented_numpy"]()
    script["documented_torch"]()
