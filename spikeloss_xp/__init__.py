"""Loss functions for spike trains from any array library.

Each loss is written once and returns the same value and the same gradient for arrays from NumPy,
PyTorch, JAX and any other library that conforms to the array API standard.
"""

import importlib

# In the repository, `spikeloss_xp/backends` is a symbolic link to the folder `backends`. If git did
# not create the link, only the installed package contains this folder.
try:
    importlib.import_module("spikeloss_xp.backends")
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"spikeloss_xp or one of its dependencies is not installed: cannot import {error.name}. "
        "Run this in the folder that contains pyproject.toml: python -m pip install .",
        name=error.name,
    ) from None

from spikeloss_xp import backends, distances, testing, times
from spikeloss_xp._activity import Activity, activity
from spikeloss_xp.binning import bin_spikes
from spikeloss_xp.diagnosis import diagnose, scale_to_rate
from spikeloss_xp.filters import causal_filter, exponential_kernel, moving_average
from spikeloss_xp.gradients import value_and_grad
from spikeloss_xp.losses import (
    AbsoluteError,
    BernoulliNLL,
    CrossEntropy,
    HuberError,
    NegativeBinomialNLL,
    PoissonNLL,
    SparsityEnforcer,
    SpikeLatency,
    SpikeMax,
    SpikeMoid,
    SpikeRate,
    SpikeTime,
    SquaredError,
)

__version__ = "0.1.0"

__all__ = [
    "AbsoluteError",
    "Activity",
    "BernoulliNLL",
    "CrossEntropy",
    "HuberError",
    "NegativeBinomialNLL",
    "PoissonNLL",
    "SparsityEnforcer",
    "SpikeLatency",
    "SpikeMax",
    "SpikeMoid",
    "SpikeRate",
    "SpikeTime",
    "SquaredError",
    "activity",
    "backends",
    "bin_spikes",
    "causal_filter",
    "diagnose",
    "distances",
    "exponential_kernel",
    "moving_average",
    "scale_to_rate",
    "testing",
    "times",
    "value_and_grad",
]


def __dir__() -> list[str]:
    """Return the public names, without the modules for internal use."""
    return [*__all__, "__version__", "losses"]
