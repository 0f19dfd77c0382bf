"""The command ``evaluate`` on files of spike times: the losses of the spikes binned by hand."""

import json
import tracemalloc

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import terminal
from _support.damage import mutants, npy
from spikeloss_xp.cli import _files, _spike_times, main
from spikeloss_xp.spike_times import Bins

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
OPTIONS = ["--neurons", "3", "--steps", "40", "--time-step", "0.1", "--start", "0.2"]
FAST = ["--loss", "SparsityEnforcer", "--option", "max_rate=0"]


def save(path, arrays):
    """Write arrays to an .npz file, a folder of .npy files or a Zarr group, by the name."""
    if path.suffix == ".npz":
        (np.savez_compressed if path.stem == "compressed" else np.savez)(path, **arrays)
    elif path.suffix == ".zarr":
        zarr = pytest.importorskip("zarr")
        group = zarr.open_group(path, mode="w", zarr_format=2 if path.stem == "two" else 3)
        for name, values in arrays.items():
            data = np.asarray(values)
            group.create_array(name, data=data, chunks=(min(64, data.size),) * data.ndim)
    else:
        path.mkdir(exist_ok=True)
        for name, values in arrays.items():
            np.save(path / f"{name}.npy", values)
    return path


def run(capsys, path, *arguments):
    """Return the losses, or the error message, which must be one short line."""
    output = path.parent / "losses.npy"
    given = ["--json", "--overwrite", "--output", output, *arguments]
    status, out, err = terminal.run(capsys, "evaluate", path, *given)
    if error := terminal.error_of((status, out, err), path):
        return error
    losses = np.load(output)
    assert json.loads(out)["samples"] == len(losses)
    return losses


def expected_losses(loss, *target, spikes=SPIKES, **options):
    """Return the loss of each sample of the spikes that were binned by hand."""
    taken = [slice(i, i + 1) for i in range(len(spikes))]
    return [
        float(loss(spikes[i], *(t[i] for t in target), **{k: v[i] for k, v in options.items()}))
        for i in taken
    ]


@pytest.mark.parametrize("name", ["own.npz", "compressed.npz", "own", "own.zarr", "two.zarr"])
@pytest.mark.parametrize(("batch", "block"), [(1, 1), (2, 7), (3, 64), (5, 1 << 17)])
def test_losses_equal_those_of_binned_spikes(capsys, tmp_path, monkeypatch, name, batch, block):
    monkeypatch.setattr(_spike_times, "READ_SPIKES", block)
    path = save(tmp_path / name, FILE)
    expected = expected_losses(sx.SpikeMax(), LABEL)
    got = run(capsys, path, "--loss", "SpikeMax", "--batch", batch, "--dtype", "float64")
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_every_loss_and_target(capsys, tmp_path):
    lengths = np.asarray([40, 7, 0, 39, 25])
    target = (RNG.random(SPIKES.shape) < 0.2).astype(np.uint8)
    by_step = RNG.integers(NEURONS, size=(SAMPLES, STEPS))
    hot = RNG.random((SAMPLES, NEURONS))
    for loss, file, arguments in [
        (sx.SpikeTime(), {"target": target}, []),
        (sx.SpikeRate(0.5, 0), {"label": LABEL}, ["true_rate=0.5", "false_rate=0"]),
        (sx.SpikeMax(moving_window=5), {"label": by_step}, ["moving_window=5"]),
        (sx.SpikeMoid(theta=0), {"label": hot}, []),
        (sx.SpikeMax(time_axis=2), {"label": LABEL}, ["time_axis=2"]),
    ]:
        path = save(tmp_path / "own.npz", {**COLUMNS, **NUMBERS, **file, "lengths": lengths})
        options = [word for argument in arguments for word in ("--option", argument)]
        name = type(loss).__name__
        got = run(capsys, path, "--loss", name, "--dtype", "float64", *options)
        expected = expected_losses(loss, *file.values(), lengths=lengths)
        np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_numbers_of_the_command_line_come_before_those_of_the_file(capsys, tmp_path):
    expected = expected_losses(sx.SpikeMax(), LABEL)
    arguments = ["--loss", "SpikeMax", "--dtype", "float64"]
    path = save(tmp_path / "own.npz", {**COLUMNS, "label": LABEL})
    np.testing.assert_allclose(run(capsys, path, *arguments, *OPTIONS), expected, rtol=1e-12)
    path = save(tmp_path / "own.npz", {**FILE, "steps": [77], "start": 0, "time_step": 5})
    np.testing.assert_allclose(run(capsys, path, *arguments, *OPTIONS), expected, rtol=1e-12)
    # Bins of twice the length.
    got = run(
        capsys, save(tmp_path / "own.npz", FILE), *arguments, "--time-step", 0.2, "--steps", 20
    )
    halved = SPIKES.reshape(SAMPLES, NEURONS, 20, 2).sum(-1)
    np.testing.assert_allclose(
        got, expected_losses(sx.SpikeMax(), LABEL, spikes=halved), rtol=1e-12
    )


def test_one_recording_needs_no_sample(capsys, tmp_path):
    first = SAMPLE == 0
    path = save(tmp_path / "own.npz", {"times": TIMES[first], "neuron": NEURON[first], **NUMBERS})
    loss = sx.SparsityEnforcer(max_rate=0)
    expected = expected_losses(loss, spikes=SPIKES[:1])
    np.testing.assert_allclose(run(capsys, path, *FAST), expected, rtol=1e-6)
    # The default step is 1, and the default start 0.
    file = {"times": STEP_OF_SPIKE[first], "neuron": NEURON[first], "neurons": 3, "steps": 40}
    path = save(tmp_path / "whole.npz", file)
    np.testing.assert_allclose(run(capsys, path, *FAST), expected, rtol=1e-6)


def test_number_of_samples_without_targets(capsys, tmp_path):
    path = save(tmp_path / "own.npz", {**COLUMNS, **NUMBERS})
    assert "spike times need the number of samples: save it as `samples`, or pass --samples" in run(
        capsys, path, *FAST
    )
    expected = expected_losses(sx.SparsityEnforcer(max_rate=0))
    np.testing.assert_allclose(run(capsys, path, *FAST, "--samples", 5), expected, rtol=1e-6)
    path = save(tmp_path / "own.npz", {**COLUMNS, **NUMBERS, "samples": 7})
    losses = run(capsys, path, *FAST)
    np.testing.assert_allclose(losses, [*expected, 0, 0], rtol=1e-6)


def test_input_comes_before_spike_times(capsys, tmp_path):
    file = {"input": SPIKES, "label": LABEL, "times": np.asarray(["a"]), "start": [1, 2]}
    path = save(tmp_path / "own.npz", file)
    got = run(capsys, path, "--loss", "SpikeMax", "--dtype", "float64")
    np.testing.assert_allclose(got, expected_losses(sx.SpikeMax(), LABEL), rtol=1e-12)
    message = run(capsys, path, "--loss", "SpikeMax", "--steps", 3, "--time-step", 2)
    assert "--steps, --time-step: for spike times only, but the file holds `input`" in message


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
        (
            {"neuron": None},
            "beside `times` it must hold an array `neuron` with the neuron of each spike",
        ),
        ({"neuron": changed(NEURON, 77, 3)}, "`neuron` must be between 0 and 2; `neuron`[77] is 3"),
        ({"neuron": changed(NEURON, 77, -1)}, "`neuron`[77] is -1"),
        ({"neuron": NEURON * 1.0}, "`neuron` must hold integers, indices; got float64"),
        (
            {"sample": changed(SAMPLE, 299, 5)},
            "`sample` must be between 0 and 4; `sample`[299] is 5",
        ),
        ({"sample": changed(SAMPLE, 150, 0)}, "`sample` must not decrease, and `sample`[150] does"),
        ({"sample": SAMPLE.astype(np.uint64) + 2**63}, "`sample` must be between 0 and 4"),
        (
            {"neurons": None},
            "spike times need the number of neurons: save it as `neurons`, or pass --neu",
        ),
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
            {"times": TIMES.astype(np.float16), "time_step": 1e-3, "steps": 5000},
            "too coarse for bins of 0.001",
        ),
        ({"label": LABEL[:4]}, "`sample` must be between 0 and 3; `sample`["),
        ({"label": LABEL[:4], "samples": 5}, "`label` of shape (4,) does not fit an `input` of"),
        (
            {"sample": None, "samples": 5},
            "5 samples need an array `sample` with the sample of each spike",
        ),
        ({"label": None}, "spike times need the number of samples"),
        ({"neurons": 2**62}, "neurons must be at most 2147483647"),
        ({"steps": "40"}, "`steps` is not an array of real numbers"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
@pytest.mark.parametrize("name", ["own.npz", pytest.param("own.zarr", marks=pytest.mark.slow)])
def test_bad_spike_times_fail(capsys, tmp_path, monkeypatch, name, changes, message):
    monkeypatch.setattr(_spike_times, "READ_SPIKES", 10)
    file = {key: value for key, value in {**FILE, **changes}.items() if value is not None}
    got = run(capsys, save(tmp_path / name, file), "--loss", "SpikeMax")
    assert message in got
    assert "cannot be read" not in got


def test_bad_options_fail(capsys, tmp_path):
    path = save(tmp_path / "own.npz", FILE)
    for arguments, message in [
        (["--time-step", "nan"], "time_step must be finite; got nan"),
        (["--time-step", "0"], "time_step must be above 0; got 0"),
        (["--start", "9"], "must be from 9 to before 13, in 40 bins of 0.1; `times`[0] is"),
        (
            ["--option", "time_axis=1"],
            "spike times are binned to [batch, neuron, time], so time_axis must be -1 or 2; got 1",
        ),
        (["--samples", "6"], "`label` of shape (5,) does not fit"),
        (["--output", tmp_path / "folder" / "times.npy"], "it is a file of the input"),
    ]:
        folder = save(tmp_path / "folder", FILE) if "--output" in arguments else path
        assert message in run(capsys, folder, "--loss", "SpikeMax", *arguments)
    for arguments in (["--neurons", "0"], ["--steps", "1.5"], ["--start", "x"]):
        with pytest.raises(SystemExit):
            main(["evaluate", str(path), "--loss", "SpikeMax", *arguments])
        assert f"argument {arguments[0]}: " in capsys.readouterr().err


@pytest.mark.slow(but=1)
@pytest.mark.parametrize("name", ["times", "neuron", "sample"])
def test_damaged_npy_in_folder_never_crashes(capsys, tmp_path, name):
    path, messages = save(tmp_path / "own", FILE), set()
    for damaged in mutants(npy(FILE[name]), 100):  # .npy files have no checksum
        (path / f"{name}.npy").write_bytes(damaged)
        result = run(capsys, path, *FAST)
        messages.add(result if isinstance(result, str) else None)
    assert len(messages) > 5


def test_zarr_chunk_larger_than_memory_fails(capsys, tmp_path, monkeypatch):
    path = save(tmp_path / "own.zarr", FILE)
    entries = max(64, NEURONS * STEPS)  # of a chunk of times, and of a sample
    monkeypatch.setattr(_files, "_memory", lambda: 5 * 8 * entries)
    assert len(run(capsys, path, *FAST, "--batch", 1)) == SAMPLES
    metadata = path / "times" / "zarr.json"
    fields = json.loads(metadata.read_text())
    fields["chunk_grid"]["configuration"]["chunk_shape"] = [entries + 1]
    metadata.write_text(json.dumps(fields))
    message = run(capsys, path, *FAST, "--batch", 1)
    assert "`times` is too large (save it in smaller chunks)" in message


def test_memory_does_not_grow_with_the_number_of_spikes(tmp_path):
    count = 1 << 22  # 32 MiB of times, and a sample of 30 entries
    path = tmp_path / "times.npy"
    np.save(path, np.zeros(count))
    np.save(tmp_path / "neuron.npy", np.zeros(count, np.uint8))
    with path.open("rb") as times, (tmp_path / "neuron.npy").open("rb") as neuron:
        columns = {
            "times": _files.NpyRows(times, "times", path.stat().st_size),
            "neuron": _files.NpyRows(neuron, "neuron", (tmp_path / "neuron.npy").stat().st_size),
        }
        rows = _spike_times.BinnedRows(columns, Bins(10), 3, 1)
        tracemalloc.start()
        try:
            counts = rows.read(0, 1)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert counts.sum() == counts[0, 0, 0] == count
    assert (
        peak < 100 * _spike_times.READ_SPIKES
    )  # bytes; a block has a dozen arrays of 8 bytes a spike
