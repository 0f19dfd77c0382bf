"""Other libraries, whose tests are skipped without them, or fail where a run requires them."""

import importlib
import os
from types import ModuleType

import pytest

REQUIRED = set(os.environ.get("SPIKELOSS_XP_REQUIRED_PEERS", "").split())
"""Libraries whose tests must not be skipped: if one of them is missing, the run fails."""


def import_peer(module: str) -> ModuleType:
    """Import a module of another library, or skip the tests if it is not installed."""
    library = module.partition(".")[0]
    if library in REQUIRED:
        return importlib.import_module(module)
    return pytest.importorskip(module, reason=f"{library} is not installed")
