"""The check that the tests, the core and the adapters are files of one checkout.

The adapters are in the folder backends/ and belong to the package `spikeloss_xp`, which only an
installation puts together. Python would otherwise take the core from the current folder and the
adapters from the copy that is installed.
"""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STAND_INS = ROOT / "tests" / "_support" / "stand_ins"
"""The folder from which a process imports the stand-in for CuPy, which has two devices."""
REMEDY = "Install this checkout first: python -m pip install -e '.[all,test]'"


def _folder(package: str) -> Path | None:
    """Return the folder that a package would be imported from."""
    try:
        found = importlib.util.find_spec(package)
    except ModuleNotFoundError:  # the package around it is missing
        return None
    return Path(found.origin).resolve().parent if found and found.origin else None


def check_one_root() -> None:
    """Raise an error that says what to do unless the package is complete and from one place.

    The folder of an sdist has the adapters beside the package, where Python does not find them. The
    package is then taken from where it is installed.
    """
    in_checkout = (ROOT / "spikeloss_xp" / "backends").exists()
    if not in_checkout:
        sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != ROOT]
    core, adapters = _folder("spikeloss_xp"), _folder("spikeloss_xp.backends")
    if core is None or adapters is None:
        missing = "spikeloss_xp" if core is None else "spikeloss_xp.backends"
        raise pytest.UsageError(f"{missing} is not installed. {REMEDY}")
    if adapters.parent not in (core, core.parent):
        raise pytest.UsageError(
            f"spikeloss_xp is imported from {core}, but its adapters from {adapters}. {REMEDY}"
        )
    if in_checkout and not (ROOT / "spikeloss_xp" / "backends").samefile(ROOT / "backends"):
        raise pytest.UsageError(
            f"{ROOT} has two folders with adapters, backends and spikeloss_xp/backends, and only "
            "the second one is imported. Replace the second one by a link to the first one"
        )
    if in_checkout and core != ROOT / "spikeloss_xp":
        raise pytest.UsageError(
            f"The tests are in {ROOT}, but spikeloss_xp is imported from {core}. {REMEDY}"
        )
