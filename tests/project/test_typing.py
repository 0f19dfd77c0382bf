"""The calls of the typed script run. `.ci/types` checks the script with mypy and pyright."""

import runpy
from pathlib import Path

import pytest

USER = Path(__file__).parents[1] / "typed" / "user.py"


def test_documented_calls_of_the_typed_script_run():
    for needed in ("jax", "torch"):  # the script imports both
        pytest.importorskip(needed)
    script = runpy.run_path(str(USER))
    script["documented_numpy"]()
    script["documented_torch"]()
