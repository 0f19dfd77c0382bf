"""The command ``evaluate`` on files of spike times: the losses of the spikes binned by hand."""

import contextlib
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from _support.damage import mutants, npy, save
from spikeloss_xp.binning import Bins
from spikeloss_xp.cli import _files, _spike_times

SAMPLES, NEURONS, STEPS, STEP, START = 5, 3, 40, 0.1, 0.2
RNG = np.random.default_rng(7)
SIZE = 300
# Sample 2 has no spikes. Most times are edges of bins, or next to one.
SAMPLE = np.sort(RNG.choice([0, 1, 3, 4], SIZE))
NEURON = RNG.integers(NEURONS, size=SIZE)
STEP_OF_SPIKE = RNG.integers(STEPS, size=SIZE)
TIMES = START + STEP * STEP_OF_SPIKE + RNG.choice([0, 0, 0.05, 0.0999], SIZE)
SPIKES = np.zeros((SAMPLES, NEURONS, STEPS))
np.add.at(SPIKES, (SAMPLE, NEURON, STEP_OF_SPIKE), 1)
LABEL = np.asarray([2, 0, 1, 1, 0])
COLUMNS = {"times": TIMES, "neuron": NEURON, "sample": SAMPLE}
NUMBERS = {"neurons": NEURONS, "steps": STEPS, "time_step": STEP, "start": START}
FILE = {**COLUMNS, **NUMBERS, "label": LABEL}
OPTIONS = "--neurons 3 --steps 40 --time-step 0.1 --start 0.2"
FAST = "--loss SparsityEnforcer --option max_rate=0 --dtype float64"
MAX = "--loss SpikeMax --dtype float64"


@pytest.fixture
def check(command):
    """Return a function that compares the losses of a file with those of spikes binned by hand."""

    def run(file, loss, numbers="", spikes=SPIKES, path="own.npz", **made):
        losses, _ = command.losses(save(path, file, **made), loss, numbers)
        targets = {name: file[name] for name in ("label", "target", "lengths") if name in file}
        save("binned.npz", {"input": spikes, **targets})
        expected, _ = command.losses("binned.npz", loss)
        np.testing.assert_allclose(losses, expected, rtol=1e-12)

    return run


@pytest.mark.parametrize(
    ("name", "made"),
    [
        *(("own.npz", {}), ("compressed.npz", {}), ("own", {})),
        *(("own.zarr", {}), ("two.zarr", {"zarr_format": 2})),
    ],
)
@pytest.mark.parametrize(("batch", "block"), [(1, 1), (2, 7), (3, 64), (5, 1 << 17)])
def test_losses_equal_those_of_binned_spikes(check, monkeypatch, name, made, batch, block):
    monkeypatch.setattr(_spike_times, "READ_SPIKES", block)
    check(FILE, MAX, f"--batch {batch}", path=name, **made)


SPARSE = {**COLUMNS, **NUMBERS}
MASKED = {**SPARSE, "lengths": np.asarray([40, 7, 0, 39, 25])}
TRAINS = (RNG.random(SPIKES.shape) < 0.2).astype(np.uint8)
HOT = RNG.random((SAMPLES, NEURONS))
BY_STEP = RNG.integers(NEURONS, size=(SAMPLES, STEPS))
FIRST = {"times": TIMES[SAMPLE == 0], "neuron": NEURON[SAMPLE == 0], **NUMBERS}
DEFAULTS = {"times": STEP_OF_SPIKE[SAMPLE == 0], "neuron": FIRST["neuron"]}  # steps of 1, from 0
RATES = "--loss SpikeRate --option true_rate=1 --option false_rate=0"


@pytest.mark.parametrize(
    ("file", "loss", "numbers", "spikes"),
    [
        ({**MASKED, "target": TRAINS}, "--loss SpikeTime --dtype float64", "", SPIKES),
        ({**MASKED, "label": LABEL}, f"{RATES} --dtype float64", "", SPIKES),
        ({**MASKED, "label": BY_STEP}, f"{MAX} --option moving_window=5", "", SPIKES),
        ({**MASKED, "label": HOT}, "--loss SpikeMoid --dtype float64", "", SPIKES),
        ({**MASKED, "label": LABEL}, f"{MAX} --option time_axis=2", "", SPIKES),
        ({**COLUMNS, "label": LABEL}, MAX, OPTIONS, SPIKES),
        ({**FILE, "steps": [77], "start": 0, "time_step": 5}, MAX, OPTIONS, SPIKES),
        (FILE, MAX, "--time-step 0.2 --steps 20", SPIKES.reshape(5, 3, 20, 2).sum(-1)),
        (FIRST, FAST, "", SPIKES[:1]),  # which need no `sample`
        (DEFAULTS, FAST, "--neurons 3 --steps 40", SPIKES[:1]),
        (SPARSE, FAST, "--samples 5", SPIKES),
        ({**SPARSE, "samples": 7}, FAST, "", np.concatenate([SPIKES, np.zeros((2, 3, 40))])),
        ({"input": SPIKES, "label": LABEL, "times": ["a"], "start": [1, 2]}, MAX, "", SPIKES),
    ],
)
def test_file_and_options_equal_binned_spikes(check, file, loss, numbers, spikes):
    check(file, loss, numbers, spikes)


def test_options_of_spike_times_fail_with_an_input(command):
    message = "--steps, --time-step: for spike times only, but the file holds `input`"
    save("own.npz", {"input": SPIKES, "label": LABEL})
    assert message in command.error("evaluate own.npz", MAX, "--steps 3 --time-step 2")


def changed(values, at, value):
    made = np.array(values)
    made[at] = value
    return made


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"times": changed(TIMES, 299, 4.3)}, "`times`[299] is 4.3, and 1 of"),
        ({"times": changed(TIMES, 100, np.nan)}, "`times`[100] is nan"),
        ({"times": changed(TIMES, 0, 0.1)}, "`times` must be from 0.2 to before 4.2, in 40 bins"),
        ({"times": TIMES > 1}, "`times` must be real floating or integer; got bool"),
        ({"times": TIMES * 1j}, "not an array of real numbers of up to 64 bits, but complex128"),
        ({"times": TIMES[:, None]}, "its spikes must have one axis, the same in each array; got"),
        ({"times": 1.0}, "`times` []"),
        ({"neuron": NEURON[:-1]}, "`times` [300], `neuron` [299], `sample` [300]"),
        ({"neuron": None}, "beside `times` it must hold an array `neuron` with the neuron of each"),
        ({"neuron": changed(NEURON, 77, 3)}, "`neuron` must be between 0 and 2; `neuron`[77] is 3"),
        ({"neuron": changed(NEURON, 77, -1)}, "`neuron`[77] is -1"),
        ({"neuron": NEURON * 1.0}, "`neuron` must hold integers, indices; got float64"),
        ({"sample": changed(SAMPLE, 299, 5)}, "must be between 0 and 4; `sample`[299] is 5"),
        ({"sample": changed(SAMPLE, 150, 0)}, "`sample` must not decrease, and `sample`[150] does"),
        ({"sample": SAMPLE.astype(np.uint64) + 2**63}, "`sample` must be between 0 and 4"),
        ({"neurons": None}, "need the number of neurons: save it as `neurons`, or pass --neurons"),
        ({"steps": None}, "spike times need the number of steps"),
        ({"steps": 0}, "steps must be at least 1; got 0"),
        ({"steps": 40.0}, "steps must be an integer; got 40.0"),
        ({"steps": [40, 40]}, "`steps` must be a number; got an array of shape (2,)"),
        ({"steps": 2**31 - 1, "neurons": 2**31 - 1}, "is too large (cut the recording into"),
        ({"time_step": np.inf}, "time_step must be finite; got inf"),
        ({"time_step": -1}, "time_step must be above 0; got -1"),
        ({"time_step": True}, "time_step must be a number; got True"),
        ({"start": np.nan}, "start must be finite; got nan"),
        (
            {"times": TIMES.astype("f2"), "time_step": 1e-3, "steps": 5000},
            "too coarse for bins of 0",
        ),
        ({"label": LABEL[:4]}, "`sample` must be between 0 and 3; `sample`["),
        ({"label": LABEL[:4], "samples": 5}, "`label` of shape (4,) does not fit an `input` of"),
        (
            {"sample": None, "samples": 5},
            "5 samples need an array `sample` with the sample of each",
        ),
        ({"label": None}, "need the number of samples: save it as `samples`, or pass --samples"),
        ({"neurons": 2**62}, "neurons must be at most 2147483647"),
        ({"steps": "40"}, "`steps` is not an array of real numbers"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
@pytest.mark.parametrize("name", ["own.npz", pytest.param("own.zarr", marks=pytest.mark.slow)])
def test_bad_spike_times_fail(command, monkeypatch, name, changes, message):
    monkeypatch.setattr(_spike_times, "READ_SPIKES", 10)
    file = {key: value for key, value in {**FILE, **changes}.items() if value is not None}
    got = command.error("evaluate", save(name, file), "--loss SpikeMax")
    assert message in got
    assert "cannot be read" not in got


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--time-step nan", "time_step must be finite; got nan"),
        ("--time-step 0", "time_step must be above 0; got 0"),
        ("--start 9", "must be from 9 to before 13, in 40 bins of 0.1; `times`[0] is"),
        ("--option time_axis=1", "spike times are binned to [batch, neuron, time], so time_axis"),
        ("--samples 6", "`label` of shape (5,) does not fit"),
        ("--output own/times.npy", "it is a file of the input"),
    ],
)
def test_bad_options_fail(command, arguments, message):
    save("own", FILE)
    assert message in command.error("evaluate own --loss SpikeMax", arguments)


@pytest.mark.slow(but=1)
@pytest.mark.parametrize("name", ["times", "neuron", "sample"])
def test_damaged_npy_in_folder_never_crashes(command, name):
    save("own", FILE)
    errors = set()
    for damaged in mutants(npy(FILE[name]), 100):  # .npy files have no checksum
        Path(f"own/{name}.npy").write_bytes(damaged)
        errors.add(command.error("evaluate own --overwrite", FAST))
    assert len(errors) > 5


def test_zarr_chunk_larger_than_memory_fails(command, monkeypatch):
    save("own.zarr", FILE)
    entries = max(64, NEURONS * STEPS)  # of a chunk of times, and of a sample
    monkeypatch.setattr(_files, "_memory", lambda: 5 * 8 * entries)
    assert command.error("evaluate own.zarr --batch 1 --overwrite", FAST) is None
    metadata = Path("own.zarr/times/zarr.json")
    fields = json.loads(metadata.read_text())
    fields["chunk_grid"]["configuration"]["chunk_shape"] = [entries + 1]
    metadata.write_text(json.dumps(fields))
    message = command.error("evaluate own.zarr --batch 1 --overwrite", FAST)
    assert "`times` is too large (save it in smaller chunks)" in message


def test_memory_does_not_grow_with_the_number_of_spikes(tmp_path):
    count = 1 << 22  # 32 MiB of times, and a sample of 30 entries
    save(tmp_path, {"times": np.zeros(count), "neuron": np.zeros(count, np.uint8)})
    with contextlib.ExitStack() as stack:
        columns = _files.open_folder(tmp_path, list, stack)
        rows = _spike_times.BinnedRows(columns, Bins(10), 3, 1)
        tracemalloc.start()
        try:
            counts = rows.read(0, 1)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert counts.sum() == counts[0, 0, 0] == count
    # In bytes: a block has a dozen arrays of 8 bytes a spike.
    assert peak < 100 * _spike_times.READ_SPIKES
