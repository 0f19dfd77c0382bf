"""The command `evaluate`: its values, where they are written, and what it says."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import terminal

import spikeloss_xp as sx
from spikeloss_xp.backends import available
from spikeloss_xp.cli import _source, _task, main

SAMPLES, CLASSES, STEPS = 11, 3, 40
RNG = np.random.default_rng(5)
SPIKES = (RNG.random((SAMPLES, CLASSES, STEPS)) < 0.2).astype(np.float32)
TRAINS = (RNG.random(SPIKES.shape) < 0.2).astype(np.float32)
CLASS = RNG.integers(CLASSES, size=SAMPLES)
CLASS_BY_STEP = RNG.integers(CLASSES, size=(SAMPLES, STEPS))
HOT = RNG.random((SAMPLES, CLASSES)).astype(np.float32)
LENGTHS = np.asarray([0, 1, 40, 39, 7, 40, 2, 3, 25, 40, 11])
EYE = np.eye(CLASSES, dtype=bool)
USABLE = [name for name, info in available().items() if info.usable]


def run(capsys, file, loss, *arguments):
    """Return exit status, standard output and standard error."""
    status = main(["evaluate", str(file), "--loss", loss, *map(str, arguments)])
    return status, *capsys.readouterr()


def evaluated(capsys, file, loss, *arguments):
    """Return the losses that are written, and what is said of them."""
    status, out, err = run(capsys, file, loss, "--json", *arguments)
    assert (status, err) == (0, "")
    said = json.loads(out)
    losses = np.load(said["output"])
    assert losses.dtype == np.float64
    assert said["samples"] == len(losses)
    return losses, said


def options(**given):
    return [word for key, value in given.items() for word in ("--option", f"{key}={value}")]


def one_by_one(loss, spikes, *target, lengths=None, dtype=np.float64):
    """Return the loss of each sample, called on nothing but that sample."""
    found = []
    for i in range(len(spikes)):
        only = slice(i, i + 1)
        masks = {} if lengths is None else {"lengths": lengths[only]}
        found.append(float(loss(spikes[only].astype(dtype), *(t[only] for t in target), **masks)))
    return np.asarray(found)


@pytest.fixture
def file(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "own.npz", **arrays)
        return tmp_path / "own.npz"

    return write


CASES = {  # the loss, its options, the target in the file, and what the loss itself is to be given
    "SpikeTime": (sx.SpikeTime, {}, TRAINS),
    "SpikeTime, mean": (sx.SpikeTime, {"length": 7, "reduction": "mean"}, TRAINS),
    "SpikeRate": (sx.SpikeRate, {"true_rate": 0.5, "false_rate": (0, 0.1, 0.2)}, CLASS),
    "SpikeRate, by step": (
        sx.SpikeRate,
        {"true_rate": 0.5, "false_rate": 0, "moving_window": 5, "ignore_index": 1},
        CLASS_BY_STEP,
    ),
    "SpikeRate, mean by step": (
        sx.SpikeRate,
        {
            "true_rate": 0.5,
            "false_rate": 0,
            "moving_window": 5,
            "ignore_index": 1,
            "reduction": "mean",
        },
        CLASS_BY_STEP,
    ),
    "SpikeMax": (sx.SpikeMax, {}, CLASS),
    "SpikeMax, batchmean": (sx.SpikeMax, {"reduction": "batchmean", "moving_window": 9}, CLASS),
    "SpikeMax, softmax": (
        sx.SpikeMax,
        {"mode": "softmax", "label_smoothing": 0.1, "readout": "count"},
        CLASS,
    ),
    "SpikeMoid": (sx.SpikeMoid, {"alpha": 0.25, "theta": 0.5}, HOT),
    "SpikeMoid, of classes": (sx.SpikeMoid, {}, CLASS),
    "SpikeMoid, of classes by step": (sx.SpikeMoid, {"moving_window": 5}, CLASS_BY_STEP),
    "SparsityEnforcer": (sx.SparsityEnforcer, {}, None),
    "SparsityEnforcer, per neuron": (
        sx.SparsityEnforcer,
        {"per": "neuron", "min_rate": 0.25, "max_rate": 0.5, "lam": 3},
        None,
    ),
}
TEXT = {"true_rate": "0.5", "false_rate": "0,0.1,0.2"}


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["all", "lengths"])
@pytest.mark.parametrize("case", CASES)
def test_losses_are_those_of_each_sample_alone(backend, capsys, file, case, lengths):
    if backend.name == "array-api-strict-device1":
        pytest.skip("the command knows the default device of such a library only")
    loss, given, target = CASES[case]
    arrays = {"input": SPIKES, "target": target, "lengths": lengths}
    path = file(**{name: array for name, array in arrays.items() if array is not None})
    typed = {k: ",".join(map(str, v)) if isinstance(v, tuple) else v for k, v in given.items()}
    where = ["--backend", backend.library, "--dtype", backend.dtype]
    if backend.place.startswith("cuda"):
        where += ["--device", backend.place]
    losses, said = evaluated(capsys, path, loss.__name__, *options(**typed), *where, "--batch", 4)

    if loss is sx.SpikeMoid and target.dtype.kind == "i":
        target = EYE[target] if target.ndim == 1 else np.moveaxis(EYE[target], -1, 1)
    targets = () if target is None else (target,)
    expected = one_by_one(loss(**given), SPIKES, *targets, lengths=lengths)
    np.testing.assert_allclose(losses, expected, rtol=backend.rtol, atol=backend.rtol / 10)
    assert len(set(losses)) > SAMPLES / 2  # they are not all the same
    assert said["loss"] == repr(loss(**given))
    assert (said["backend"], said["dtype"]) == (backend.library, backend.dtype)
    assert said["mean"] == pytest.approx(losses.mean())


def test_losses_by_dask(capsys, file):
    pytest.importorskip("dask.array")
    path = file(input=SPIKES, label=CLASS)
    losses, _ = evaluated(capsys, path, "SpikeMax", "--backend", "dask", "--batch", 4)
    np.testing.assert_allclose(losses, one_by_one(sx.SpikeMax(), SPIKES, CLASS), rtol=1e-5)


@pytest.mark.parametrize("case", ["SpikeTime", "SpikeMax, batchmean", "SpikeRate, by step"])
@pytest.mark.parametrize("axis", [1, -2])
def test_time_may_be_any_axis_but_the_first(capsys, file, case, axis):
    loss, given, target = CASES[case]
    turned = np.swapaxes(SPIKES, 1, 2)
    wanted = np.swapaxes(target, 1, 2) if target.ndim == 3 else target
    path = file(input=turned, target=wanted)
    typed = options(**given, time_axis=axis)
    losses, _ = evaluated(capsys, path, loss.__name__, *typed, "--dtype", "float64")
    expected = one_by_one(loss(**given), SPIKES, target)
    np.testing.assert_allclose(losses, expected, rtol=1e-12)


def test_classes_are_multi_hot_labels_wherever_time_is(capsys, file):
    space = (RNG.random((SAMPLES, STEPS, 2, 3)) < 0.2).astype(np.float32)
    path = file(input=space, label=CLASS_BY_STEP)
    given = {"moving_window": 5, "num_classes": 3, "time_axis": 1}
    losses, _ = evaluated(capsys, path, "SpikeMoid", *options(**given), "--dtype", "float64")
    expected = one_by_one(sx.SpikeMoid(**given), space, EYE[CLASS_BY_STEP])
    np.testing.assert_allclose(losses, expected, rtol=1e-12)


def test_a_label_of_what_does_not_count_may_be_anything(capsys, file):
    label = np.where(np.arange(STEPS) < LENGTHS[:, None], CLASS_BY_STEP, -7)
    path = file(input=SPIKES, label=label, lengths=LENGTHS)
    for loss, given in (("SpikeMoid", {}), ("SpikeRate", {"true_rate": 1, "false_rate": 0})):
        typed = options(moving_window=5, **given)
        losses, _ = evaluated(capsys, path, loss, *typed, "--restart")
        assert losses[0] == 0
        assert (losses[1:] > 0).all()


def folder(path, arrays):
    path.mkdir()
    for name, array in arrays.items():
        np.save(path / f"{name}.npy", array)


def zarr_folder(path, arrays, **more):
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(path, mode="w", zarr_format=more.pop("zarr_format", 3))
    for name, array in arrays.items():
        chunks = (3, *array.shape[1:])
        made = group.create_array(name, shape=array.shape, chunks=chunks, dtype=array.dtype, **more)
        made[:] = array


FORMATS = {
    "own.npz": lambda path, arrays: np.savez(path, **arrays),
    "compressed.npz": lambda path, arrays: np.savez_compressed(path, **arrays),
    "folder": folder,
    "three.zarr": zarr_folder,
    "two.zarr": lambda path, arrays: zarr_folder(path, arrays, zarr_format=2),
    "plain.zarr": lambda path, arrays: zarr_folder(path, arrays, compressors=None),
    "no suffix": zarr_folder,
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_kind_of_file(capsys, tmp_path, name):
    label = CLASS.astype(">i4")
    arrays = {"input": SPIKES.astype(">f8"), "target": TRAINS, "label": label, "lengths": LENGTHS}
    FORMATS[name](tmp_path / name, arrays)
    for loss, target in (("SpikeTime", TRAINS), ("SpikeMax", CLASS)):
        losses, said = evaluated(capsys, tmp_path / name, loss, "--batch", 4)
        made = getattr(sx, loss)()
        expected = one_by_one(made, SPIKES, target, lengths=LENGTHS, dtype=np.float32)
        np.testing.assert_allclose(losses, expected, rtol=1e-5)
        stem = name.removesuffix(".npz").removesuffix(".zarr")
        assert Path(said["output"]) == tmp_path / f"{stem}.{loss}.npy"


def test_a_zarr_array_in_shards_and_with_chunks_that_were_not_written(capsys, tmp_path):
    spikes = SPIKES.copy()
    spikes[3:9] = 0  # of which zarr writes nothing
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(tmp_path / "own.zarr", mode="w")
    made = group.create_array(
        "input", shape=SPIKES.shape, chunks=(1, 3, 20), shards=(4, 3, 40), dtype="float32"
    )
    made[:] = spikes
    losses, _ = evaluated(capsys, tmp_path / "own.zarr", "SparsityEnforcer", "--batch", 5)
    expected = one_by_one(sx.SparsityEnforcer(), spikes, dtype=np.float32)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["?", "u1", "i8", "u8", "f2", "f8", ">i2"])
@pytest.mark.parametrize("library", USABLE)
def test_spikes_of_any_dtype(capsys, file, dtype, library):
    path = file(input=SPIKES.astype(dtype), target=TRAINS.astype(dtype))
    losses, _ = evaluated(capsys, path, "SpikeTime", "--backend", library)
    np.testing.assert_allclose(losses, one_by_one(sx.SpikeTime(), SPIKES, TRAINS), rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.float64])
def test_jax_is_given_no_more_bits_than_it_has(capsys, file, dtype):
    pytest.importorskip("jax")
    spikes, wanted = (trains.astype(dtype) * dtype(2**33) for trains in (SPIKES, TRAINS))
    path = file(input=spikes, target=wanted)
    losses, _ = evaluated(capsys, path, "SpikeTime", "--backend", "jax")
    expected = one_by_one(sx.SpikeTime(), spikes, wanted.astype(np.float64))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_the_label_is_preferred_where_there_are_both(capsys, file):
    path = file(input=SPIKES, target=TRAINS, label=HOT)
    losses, _ = evaluated(capsys, path, "SpikeMoid")
    np.testing.assert_allclose(losses, one_by_one(sx.SpikeMoid(), SPIKES, HOT), rtol=1e-5)


def test_batches_make_no_difference(capsys, file, tmp_path):
    path = file(input=SPIKES, target=TRAINS)
    whole, _ = evaluated(capsys, path, "SpikeTime", "--batch", 10**30)
    for batch in (1, 3, SAMPLES):
        out = tmp_path / f"{batch}.npy"
        losses, _ = evaluated(capsys, path, "SpikeTime", "--batch", batch, "--output", out)
        np.testing.assert_allclose(losses, whole, rtol=1e-6)


def sizes_of_batches(monkeypatch):
    """Return a list that the size of each batch will be appended to."""
    sizes, losses = [], _task.Task.losses

    def counted(self, start, stop):
        sizes.append(stop - start)
        return losses(self, start, stop)

    monkeypatch.setattr(_task.Task, "losses", counted)
    return sizes


@pytest.mark.parametrize(
    ("entries", "in_npz", "in_zarr"),
    [(1, 1, 3), (CLASSES * STEPS * 5, 5, 3), (CLASSES * STEPS * 8, 8, 6), (1 << 22, 11, 11)],
)
def test_a_batch_is_of_so_many_entries_and_of_whole_chunks(
    capsys, monkeypatch, tmp_path, file, entries, in_npz, in_zarr
):
    sizes = sizes_of_batches(monkeypatch)
    monkeypatch.setattr(_task, "ENTRIES", entries)
    evaluated(capsys, file(input=SPIKES), "SparsityEnforcer")
    assert max(sizes) == sizes[0] == in_npz
    assert sum(sizes) == SAMPLES
    sizes.clear()
    zarr_folder(tmp_path / "own.zarr", {"input": SPIKES})
    (tmp_path / "own.SparsityEnforcer.npy").rename(tmp_path / "other.npy")
    (tmp_path / "own.SparsityEnforcer.npy.json").unlink()
    evaluated(capsys, tmp_path / "own.zarr", "SparsityEnforcer")
    assert max(sizes) == sizes[0] == in_zarr
    assert sum(sizes) == SAMPLES


def test_what_is_not_finite_is_counted_and_left_out_of_the_mean(capsys, file):
    spikes = SPIKES.astype(np.float64)
    spikes[2, 0, 0], spikes[3, 1, 1], spikes[5, 1, 1] = np.nan, np.inf, 1e300
    path = file(input=spikes, target=TRAINS)
    losses, said = evaluated(capsys, path, "SpikeTime")
    finite = np.isfinite(losses)
    assert list(np.flatnonzero(~finite)) == [2, 3, 5]  # 1e300 is infinite in float32
    assert said["nan"] == np.isnan(losses).sum()
    assert said["nan"] + said["infinite"] == 3
    assert said["mean"] == pytest.approx(losses[finite].mean())
    _, out, _ = run(capsys, path, "SpikeTime", "--restart")
    assert " of the others" in out
    np.savez(path, input=spikes[2:3], target=TRAINS[2:3])
    _, said = evaluated(capsys, path, "SpikeTime", "--restart")
    assert (said["mean"], said["nan"] + said["infinite"]) == (None, 1)


def test_nan_in_padding_is_no_matter(capsys, file):
    spikes = np.where(np.arange(STEPS) < LENGTHS[:, None, None], SPIKES, np.nan)
    path = file(input=spikes, label=CLASS, lengths=LENGTHS)
    losses, said = evaluated(capsys, path, "SpikeMax")
    expected = one_by_one(sx.SpikeMax(), SPIKES, CLASS, lengths=LENGTHS)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert said["nan"] == said["infinite"] == 0


def test_what_is_printed(capsys, file, tmp_path):
    path = file(input=SPIKES, label=CLASS)
    status, out, err = run(capsys, path, "SpikeMax", "--option", "moving_window=5")
    assert (status, err) == (0, "")
    heading, rows = out.split("\n\n")
    expected = f"{path}: SpikeMax(moving_window=5) by numpy {np.__version__} on cpu, float32"
    assert heading == expected
    rows = dict(line.split(None, 1) for line in rows.splitlines())
    mean = np.load(tmp_path / "own.SpikeMax.npy").mean()
    assert rows.pop("mean") == f"loss   {mean:.8g}"
    assert float(rows.pop("speed").removesuffix(" samples/s")) > 0
    assert rows == {
        "samples": "11",
        "not": "finite  0 NaN, 0 infinite",
        "written": f"to  {tmp_path / 'own.SpikeMax.npy'}",
    }


def test_where_the_losses_go(capsys, tmp_path, monkeypatch):
    folder(tmp_path / "some.data", {"input": SPIKES})
    monkeypatch.chdir(tmp_path / "some.data")
    for given, beside in ((".", tmp_path), ("../some.data", Path(".."))):
        _, said = evaluated(capsys, given, "SparsityEnforcer")
        assert Path(said["output"]) == beside / "some.data.SparsityEnforcer.npy"
    _, said = evaluated(capsys, ".", "SparsityEnforcer", "--output", "here.npy")
    assert said["output"] == "here.npy"
    assert sorted(p.name for p in Path().iterdir()) == ["here.npy", "here.npy.json", "input.npy"]


def test_the_folder_is_left_as_it_was(capsys, tmp_path):
    folder(tmp_path / "own", {"input": SPIKES, "label": CLASS})
    before = {p: p.read_bytes() for p in (tmp_path / "own").iterdir()}
    evaluated(capsys, tmp_path / "own", "SpikeMax")
    assert {p: p.read_bytes() for p in (tmp_path / "own").iterdir()} == before
    for output in ("own/input.npy", "own/label.npy"):
        for more in ([], ["--restart"]):
            status, _, err = run(
                capsys, tmp_path / "own", "SpikeMax", "--output", tmp_path / output, *more
            )
            assert status == 2
            assert "has no record" in err
    assert {p: p.read_bytes() for p in (tmp_path / "own").iterdir()} == before


@pytest.mark.parametrize(
    ("loss", "arguments", "message"),
    [
        ("SpikeRate", [], "needs --option true_rate=... and --option false_rate=..."),
        ("SpikeRate", options(true_rate=0.5), "SpikeRate needs --option false_rate=..."),
        ("SpikeRate", options(true_rate=2, false_rate=0), "true_rate must be between 0 and 1"),
        ("SpikeRate", options(true_rate="0.1,x", false_rate=0), "must be a number; got '0.1,x'"),
        ("SpikeRate", options(true_rate="0.1,0.2", false_rate=0), "one number, or 3, one for each"),
        ("SpikeRate", options(true_rate="nan", false_rate=0), "true_rate must be finite"),
        ("SpikeMax", options(moving_window=0), "SpikeMax: moving_window must be at least 1"),
        ("SpikeMax", options(moving_window=1.5), "must be an integer; got 1.5"),
        ("SpikeMax", options(moving_window="9" * 5000), "moving_window must be"),
        ("SpikeMax", options(mode="soft"), "mode must be one of probability, softmax; got 'soft'"),
        ("SpikeMax", options(reduction="none"), "reduction='none' is no loss of a sample"),
        ("SpikeMax", options(num_classes=2), "num_classes=2 must divide the number of neurons, 3"),
        ("SpikeMax", options(time_axis=0), "time_axis=0 is the first axis of `input`, which must"),
        ("SpikeMax", options(time_axis=-3), "time_axis=-3 is the first axis"),
        ("SpikeMax", options(time_axis=3), "time_axis=3 is not an axis of an input of shape"),
        (
            "SpikeMax",
            options(alpha=1),
            "not a key=value of SpikeMax, which has moving_window, mode",
        ),
        ("SpikeMax", options(_terms=1), "not a key=value of SpikeMax"),
        ("SpikeMax", ["--option", "mode"], "--option 'mode' is not a key=value"),
        ("SpikeMax", options(mode="softmax") * 2, "--option mode is given twice"),
        (
            "SpikeTime",
            options(length=10**12),
            "SpikeTime: there is not enough memory for a loss with",
        ),
        ("SparsityEnforcer", options(_terms=1), "not a key=value of SparsityEnforcer"),
        ("SpikeMax", ["--backend", "nosuchlibrary"], "No module named 'nosuchlibrary'"),
        ("SpikeMax", ["--device", "toaster"], "numpy: it has no device 'toaster', only cpu"),
        ("SpikeMax", ["--output", "losses.npz"], "an .npy file is written"),
        ("SpikeMax", ["--output", "nowhere/losses.npy"], "there is no folder nowhere"),
    ],
)
def test_what_cannot_be_done_is_answered(capsys, file, tmp_path, loss, arguments, message):
    path = file(input=SPIKES, target=TRAINS if loss == "SpikeTime" else CLASS)
    status, out, err = run(capsys, path, loss, *arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert err.startswith("spikeloss-xp: error: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [path]  # nothing was begun


@pytest.mark.parametrize(
    "arguments",
    [
        ["own.npz"],
        ["own.npz", "--loss", "Spike"],
        ["own.npz", "--loss", "SpikeMax", "--dtype", "float16"],
        ["own.npz", "--loss", "SpikeMax", "--batch", "0"],
        ["own.npz", "--loss", "SpikeMax", "--batch", "many"],
        ["--loss", "SpikeMax"],
    ],
)
def test_unknown_words_are_bad_usage(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", *arguments])
    assert stopped.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "not enough memory for samples 0 to 3 at once: see --batch"),
        (RuntimeError("out of\nmemory"), "fails on numpy .*: RuntimeError: out of memory"),
        (ValueError("no"), "SpikeMax does not take samples 0 to 3: no"),
    ],
)
def test_what_stops_a_library_is_said(capsys, file, monkeypatch, error, message):
    def fail(*arguments, **more):
        raise error

    monkeypatch.setattr(sx.SpikeMax, "__call__", fail)
    status, _, err = run(capsys, file(input=SPIKES, label=CLASS), "SpikeMax", "--batch", 4)
    assert status == 2
    assert err.count("\n") == 1
    assert re.search(message, err)


def test_without_zarr_it_is_said_how_to_get_it(capsys, tmp_path, monkeypatch):
    (tmp_path / "own.zarr").mkdir()
    monkeypatch.setitem(sys.modules, "zarr", None)
    status, _, err = run(capsys, tmp_path / "own.zarr", "SparsityEnforcer")
    assert status == 2
    assert "pip install zarr" in err


def test_an_old_zarr_is_answered(capsys, tmp_path, monkeypatch):
    (tmp_path / "own.zarr").mkdir()
    monkeypatch.setitem(sys.modules, "zarr", type(sys)("zarr"))
    sys.modules["zarr"].__version__ = "2.18.3"
    status, _, err = run(capsys, tmp_path / "own.zarr", "SparsityEnforcer")
    assert status == 2
    assert "needs zarr 3 or newer, and 2.18.3 is installed" in err


def test_zarr_is_imported_for_zarr_only(tmp_path, file):
    program = (
        "import sys; from spikeloss_xp.cli import main\n"
        "main(['evaluate', sys.argv[1], '--loss', 'SparsityEnforcer'])\n"
        "assert 'zarr' not in sys.modules\n"
    )
    command = [sys.executable, "-c", program, file(input=SPIKES)]
    subprocess.run(command, check=True, capture_output=True)


def on_a_terminal(arguments, cwd):
    """Run the command with standard error on a terminal, and return what it shows there."""
    command = [sys.executable, "-m", "spikeloss_xp", "evaluate", *arguments]
    return terminal.shown(command, status=0, only_errors=True, cwd=cwd)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals on Windows")
def test_progress_on_a_terminal(tmp_path, file):
    arguments = [file(input=SPIKES), "--loss", "SparsityEnforcer", "--batch", "3"]
    lines = on_a_terminal(arguments, tmp_path).split(b"\r")
    assert lines[1] == b"[------------------------] 0 of 11 samples\033[K"
    assert lines[2].startswith(b"[######------------------] 3 of 11 samples, ")
    assert lines[2].endswith(b" s left\033[K")
    assert [line.split()[1] for line in lines[1:-1]] == [b"0", b"3", b"6", b"9"]
    assert lines[-1] == b"\033[K"  # and it is gone


def test_no_progress_elsewhere(file):
    command = [sys.executable, "-m", "spikeloss_xp", "evaluate", file(input=SPIKES)]
    command += ["--loss", "SparsityEnforcer", "--batch", "3"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stderr == b""
    assert b"\r" not in done.stdout


def test_the_names_that_are_read(tmp_path, capsys, file):
    assert _source.NAMES == ("input", "target", "label", "lengths")
    status, _, err = run(capsys, file(input=SPIKES, target=TRAINS), "SpikeMax")
    assert status == 2
    assert "target must hold integers" in err
    status, _, err = run(capsys, file(input=SPIKES, label=CLASS), "SpikeTime")
    assert "SpikeTime needs target; it holds input, label" in err
    status, _, err = run(capsys, file(input=SPIKES), "SpikeMoid")
    assert "SpikeMoid needs label or target; it holds input" in err
