"""The losses and their base classes."""

from spikeloss_xp._input import targets
from spikeloss_xp.losses import blocks  # noqa: F401 -- registers `blocks.split`
from spikeloss_xp.losses.base import Loss
from spikeloss_xp.losses.classes import ClassLoss
from spikeloss_xp.losses.cross_entropy import CrossEntropy
from spikeloss_xp.losses.nll import BernoulliNLL, NegativeBinomialNLL, PoissonNLL
from spikeloss_xp.losses.regression import AbsoluteError, HuberError, SquaredError
from spikeloss_xp.losses.sparsity_enforcer import SparsityEnforcer
from spikeloss_xp.losses.spike_latency import SpikeLatency
from spikeloss_xp.losses.spike_max import SpikeMax
from spikeloss_xp.losses.spike_moid import SpikeMoid
from spikeloss_xp.losses.spike_rate import SpikeRate
from spikeloss_xp.losses.spike_time import SpikeTime
from spikeloss_xp.losses.trains import TrainLoss

__all__ = [
    "AbsoluteError",
    "BernoulliNLL",
    "ClassLoss",
    "CrossEntropy",
    "HuberError",
    "Loss",
    "NegativeBinomialNLL",
    "PoissonNLL",
    "SparsityEnforcer",
    "SpikeLatency",
    "SpikeMax",
    "SpikeMoid",
    "SpikeRate",
    "SpikeTime",
    "SquaredError",
    "TrainLoss",
    "targets",
]
