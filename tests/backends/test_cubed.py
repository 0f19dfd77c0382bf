"""cubed: losses are lazy, and those without a filter need no adapter of this library."""

import re
from pathlib import Path

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.calls import example, with_everything
from _support.cases import close
from _support.contract import FORMS
from _support.peers import import_peer
from spikeloss_xp import _arrays
from spikeloss_xp.backends import _available

cubed = import_peer("cubed")
xp = import_peer("cubed.array_api")

PAGE = Path(__file__).parents[2] / "docs" / "contributing" / "adding-a-backend.md"
TRAINS = (np.random.default_rng(0).random((5, 6, 301)) < 0.2).astype(float)
LABELS = np.asarray([3, 0, 5, 1, 1])
WHOLE = ("SpikeRate-rate", "SpikeMax", "SpikeMoid-groups-rate", "CrossEntropy-groups-cold-last")
WHOLE += ("SquaredError-count", "SparsityEnforcer-neuron", "SpikeLatency", "CrossEntropy-latency")


@pytest.fixture
def documented_adapter(monkeypatch):
    """Use the adapter of the page, as if its package were installed."""
    (code,) = re.findall(r"```python\n(# cubed_spikeloss.py\n.*?)```", PAGE.read_text(), re.DOTALL)
    names = {"__name__": "cubed_spikeloss"}
    exec(code, names)
    adapter = names["CubedAdapter"](cubed)
    monkeypatch.setitem(_available._loaded, "cubed", adapter)
    monkeypatch.setitem(_arrays._adapters, cubed.Array, adapter)
    monkeypatch.setitem(_arrays._adapters, type(lazy(TRAINS)), adapter)


def lazy(x):
    return xp.asarray(x, chunks=(2, *x.shape[1:]))


def compare(function, *arrays):
    with np.errstate(all="ignore"):
        expected = function(*arrays)
        got = cubed.compute(*function(*map(lazy, arrays)))
    for of_cubed, of_numpy in zip(got, expected, strict=True):
        close(np.asarray(of_cubed), of_numpy, 1e-12)


@pytest.mark.parametrize("make", [example, with_everything])
@pytest.mark.parametrize("form", WHOLE)
def test_losses_of_whole_trains_equal_numpy(form, make):
    call = make(FORMS[form])
    targets = () if call.target is None else (call.target,)
    compare(lambda x: sx.value_and_grad(call.loss)(x, *targets, **call.options), call.spikes)


def test_predictions_and_losses_on_spike_times_equal_numpy():
    loss, latency = (
        sx.SpikeMax(time_axis=-1, reduction="sum"),
        sx.CrossEntropy(readout="latency", time_axis=-1),
    )
    compare(lambda x, y: (loss.predict(x), loss.accuracy(x, y)), TRAINS, LABELS)
    compare(lambda x: (latency.predict(x),), TRAINS[:, :, :61])
    times = np.random.default_rng(1).random((5, 6, 4)) * 50
    times[0, 0, 2:] = np.inf
    first = sx.times.CrossEntropy(temperature=2.0, silent_time=60.0)
    compare(sx.value_and_grad(first), times, LABELS)


@pytest.mark.parametrize(
    ("loss", "target"),
    [
        (sx.SpikeTime(time_constant=5, time_axis=-1, reduction="sum"), TRAINS[::-1].copy()),
        (sx.SpikeMax(moving_window=20, time_axis=-1, reduction="sum"), LABELS),
        (sx.SpikeRate(0.5, 0.05, moving_window=100, time_axis=-1, reduction="sum"), LABELS),
    ],
)
def test_filters_with_the_documented_adapter_equal_numpy(loss, target, documented_adapter):
    compare(sx.value_and_grad(loss), TRAINS, target)
    sx.testing.assert_consistent(loss, TRAINS, target, backends=["cubed"])
