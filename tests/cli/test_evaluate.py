"""The command ``evaluate``: losses, output files, messages and progress."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import terminal
from spikeloss_xp.backends import available
from spikeloss_xp.cli import _evaluate

SAMPLES, CLASSES, STEPS = 11, 3, 40
RNG = np.random.default_rng(5)
SPIKES = (RNG.random((SAMPLES, CLASSES, STEPS)) < 0.2).astype(np.float32)
TRAINS = (RNG.random(SPIKES.shape) < 0.2).astype(np.float32)
CLASS = RNG.integers(CLASSES, size=SAMPLES)
CLASS_BY_STEP = RNG.integers(CLASSES, size=(SAMPLES, STEPS))
HOT = RNG.random((SAMPLES, CLASSES)).astype(np.float32)
LENGTHS = np.asarray([0, 1, 40, 39, 7, 40, 2, 3, 25, 40, 11])
EYE = np.eye(CLASSES, dtype=bool)
BATCH = {"jax": SAMPLES, "dask": SAMPLES}  # each of their batches takes a tenth of a second or more
USABLE = [name for name, info in available().items() if info.usable]


def run(capsys, path, loss, *arguments):
    """Return exit status, standard output and standard error."""
    return terminal.run(capsys, "evaluate", path, "--loss", loss, "--overwrite", *arguments)


def evaluate(capsys, path, loss, *arguments):
    """Return the losses in the output file, and the summary that ``--json`` prints."""
    status, out, err = run(capsys, path, loss, "--json", *arguments)
    assert (status, err) == (0, "")
    summary = json.loads(out)
    losses = np.load(summary["output"])
    assert losses.dtype == np.float64
    assert summary["samples"] == len(losses)
    return losses, summary


def options(**given):
    """Return the command-line arguments for these options of a loss."""
    return [word for key, value in given.items() for word in ("--option", f"{key}={value}")]


def per_sample_losses(loss, spikes, *target, lengths=None, dtype=np.float64):
    """Return the loss of each sample, from one call of the loss for each."""
    losses = []
    for i in range(len(spikes)):
        sample = slice(i, i + 1)
        masks = {} if lengths is None else {"lengths": lengths[sample]}
        arrays = spikes[sample].astype(dtype), *(t[sample] for t in target)
        losses.append(float(loss(*arrays, **masks)))
    return np.asarray(losses)


@pytest.fixture
def save_npz(tmp_path):
    """Return a function that writes arrays to an .npz file and returns its path."""

    def write(**arrays):
        np.savez(tmp_path / "own.npz", **arrays)
        return tmp_path / "own.npz"

    return write


BY_STEP = {"true_rate": 0.5, "false_rate": 0, "moving_window": 5, "ignore_index": 1}
CASES = {  # name: loss, options of the loss, target in the file
    "SpikeTime": (sx.SpikeTime, {}, TRAINS),
    "SpikeTime, mean": (sx.SpikeTime, {"length": 7, "reduction": "mean"}, TRAINS),
    "SpikeRate": (sx.SpikeRate, {"true_rate": 0.5, "false_rate": (0, 0.1, 0.2)}, CLASS),
    "SpikeRate, by step": (sx.SpikeRate, BY_STEP, CLASS_BY_STEP),
    "SpikeRate, mean by step": (sx.SpikeRate, {**BY_STEP, "reduction": "mean"}, CLASS_BY_STEP),
    "SpikeMax": (sx.SpikeMax, {}, CLASS),
    "SpikeMax, batchmean": (sx.SpikeMax, {"reduction": "batchmean", "moving_window": 9}, CLASS),
    "CrossEntropy, root": (
        sx.CrossEntropy,
        {"time_axis": -1, "label_smoothing": 0.1, "readout": "sqrt_count"},
        CLASS,
    ),
    "CrossEntropy, probabilities": (sx.CrossEntropy, {"time_axis": -1}, HOT + CLASS[:, None]),
    "CrossEntropy, sum": (sx.CrossEntropy, {"time_axis": -1, "reduction": "sum"}, CLASS),
    "SquaredError": (sx.SquaredError, {"time_axis": -1, "readout": "count"}, 9 * HOT),
    "SpikeLatency": (sx.SpikeLatency, {"time_axis": -1, "tolerance": 0.5}, CLASS),
    "SpikeMoid": (sx.SpikeMoid, {"alpha": 0.25, "theta": 0.5}, HOT),
    "SpikeMoid, of classes": (sx.SpikeMoid, {"theta": 0}, CLASS),
    "SpikeMoid, of classes by step": (
        sx.SpikeMoid,
        {"moving_window": 5, "theta": 0},
        CLASS_BY_STEP,
    ),
    "SparsityEnforcer": (sx.SparsityEnforcer, {}, None),
    "SparsityEnforcer, per neuron": (
        sx.SparsityEnforcer,
        {"per": "neuron", "min_rate": 0.25, "max_rate": 0.5, "lam": 3},
        None,
    ),
}


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["all", "lengths"])
@pytest.mark.parametrize("case", CASES)
def test_losses_equal_single_sample_calls(backend, capsys, save_npz, case, lengths):
    if backend.name == "array-api-strict-device1":
        pytest.skip("the command knows the default device of such a library only")
    loss, given, target = CASES[case]
    arrays = {"input": SPIKES, "target": target, "lengths": lengths}
    path = save_npz(**{name: array for name, array in arrays.items() if array is not None})
    arguments = {k: ",".join(map(str, v)) if isinstance(v, tuple) else v for k, v in given.items()}
    where = ["--backend", backend.library, "--dtype", backend.dtype]
    if backend.on_gpu:
        where += ["--device", backend.place]
    where += ["--batch", BATCH.get(backend.library, 4)]
    losses, summary = evaluate(capsys, path, loss.__name__, *options(**arguments), *where)

    if loss is sx.SpikeMoid and target.dtype.kind == "i":
        target = EYE[target] if target.ndim == 1 else np.moveaxis(EYE[target], -1, 1)
    targets = () if target is None else (target,)
    expected = per_sample_losses(loss(**given), SPIKES, *targets, lengths=lengths)
    np.testing.assert_allclose(losses, expected, rtol=backend.rtol, atol=backend.rtol / 10)
    assert len(set(losses)) > SAMPLES / 2  # the samples differ, so a mix-up would show
    assert summary["loss"] == repr(loss(**given))
    assert (summary["backend"], summary["dtype"]) == (backend.library, backend.dtype)
    assert summary["mean"] == pytest.approx(losses.mean())


def test_dask_losses_equal_single_sample_calls(capsys, save_npz):
    pytest.importorskip("dask.array")
    path = save_npz(input=SPIKES, label=CLASS)
    losses, _ = evaluate(capsys, path, "SpikeMax", "--backend", "dask", "--batch", 4)
    np.testing.assert_allclose(losses, per_sample_losses(sx.SpikeMax(), SPIKES, CLASS), rtol=1e-5)


@pytest.mark.parametrize("case", ["SpikeTime", "SpikeMax, batchmean", "SpikeRate, by step"])
@pytest.mark.parametrize("axis", [1, -2])
def test_time_axis_can_be_any_but_the_first(capsys, save_npz, case, axis):
    loss, given, target = CASES[case]
    transposed = np.swapaxes(SPIKES, 1, 2)
    transposed_target = np.swapaxes(target, 1, 2) if target.ndim == 3 else target
    path = save_npz(input=transposed, target=transposed_target)
    arguments = options(**given, time_axis=axis)
    losses, _ = evaluate(capsys, path, loss.__name__, *arguments, "--dtype", "float64")
    expected = per_sample_losses(loss(**given), SPIKES, target)
    np.testing.assert_allclose(losses, expected, rtol=1e-12)


def test_class_indices_become_multi_hot_for_any_time_axis(capsys, save_npz):
    space = (RNG.random((SAMPLES, STEPS, 2, 3)) < 0.2).astype(np.float32)
    path = save_npz(input=space, label=CLASS_BY_STEP)
    given = {"moving_window": 5, "num_classes": 3, "time_axis": 1, "theta": 0}
    losses, _ = evaluate(capsys, path, "SpikeMoid", *options(**given), "--dtype", "float64")
    expected = per_sample_losses(sx.SpikeMoid(**given), space, EYE[CLASS_BY_STEP])
    np.testing.assert_allclose(losses, expected, rtol=1e-12)


def test_masked_labels_are_ignored(capsys, save_npz):
    label = np.where(np.arange(STEPS) < LENGTHS[:, None], CLASS_BY_STEP, -7)
    path = save_npz(input=SPIKES, label=label, lengths=LENGTHS)
    for loss, given in (("SpikeMoid", {}), ("SpikeRate", {"true_rate": 1, "false_rate": 0})):
        arguments = options(moving_window=5, **given)
        losses, _ = evaluate(capsys, path, loss, *arguments)
        assert losses[0] == 0
        assert (losses[1:] > 0).all()


def save_folder(path, arrays):
    path.mkdir()
    for name, array in arrays.items():
        np.save(path / f"{name}.npy", array)


def save_zarr(path, arrays, **options):
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(path, mode="w", zarr_format=options.pop("zarr_format", 3))
    for name, values in arrays.items():
        chunks = (3, *values.shape[1:])
        array = group.create_array(
            name, shape=values.shape, chunks=chunks, dtype=values.dtype, **options
        )
        array[:] = values


FORMATS = {
    "own.npz": lambda path, arrays: np.savez(path, **arrays),
    "compressed.npz": lambda path, arrays: np.savez_compressed(path, **arrays),
    "folder": save_folder,
    "three.zarr": save_zarr,
    "two.zarr": lambda path, arrays: save_zarr(path, arrays, zarr_format=2),
    "plain.zarr": lambda path, arrays: save_zarr(path, arrays, compressors=None),
    "no suffix": save_zarr,
}


@pytest.mark.parametrize("name", FORMATS)
def test_file_formats_give_equal_losses(capsys, tmp_path, name):
    label = CLASS.astype(">i4")
    arrays = {"input": SPIKES.astype(">f8"), "target": TRAINS, "label": label, "lengths": LENGTHS}
    FORMATS[name](tmp_path / name, arrays)
    for loss, target in (("SpikeTime", TRAINS), ("SpikeMax", CLASS)):
        losses, summary = evaluate(capsys, tmp_path / name, loss, "--batch", 4)
        call = getattr(sx, loss)(), SPIKES, target
        expected = per_sample_losses(*call, lengths=LENGTHS, dtype=np.float32)
        np.testing.assert_allclose(losses, expected, rtol=1e-5)
        stem = name.removesuffix(".npz").removesuffix(".zarr")
        assert Path(summary["output"]) == tmp_path / f"{stem}.{loss}.npy"


def test_zarr_shards_and_unwritten_chunks_are_read(capsys, tmp_path):
    spikes = SPIKES.copy()
    spikes[3:9] = 0  # zarr does not write chunks that equal the fill value
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(tmp_path / "own.zarr", mode="w")
    array = group.create_array(
        "input", shape=SPIKES.shape, chunks=(1, 3, 20), shards=(4, 3, 40), dtype="float32"
    )
    array[:] = spikes
    losses, _ = evaluate(capsys, tmp_path / "own.zarr", "SparsityEnforcer", "--batch", 5)
    expected = per_sample_losses(sx.SparsityEnforcer(), spikes, dtype=np.float32)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["?", "u1", "i8", "u8", "f2", "f8", ">i2"])
@pytest.mark.parametrize("library", USABLE)
def test_input_dtype_does_not_change_losses(capsys, save_npz, dtype, library):
    path = save_npz(input=SPIKES.astype(dtype), target=TRAINS.astype(dtype))
    losses, _ = evaluate(capsys, path, "SpikeTime", "--backend", library)
    np.testing.assert_allclose(losses, per_sample_losses(sx.SpikeTime(), SPIKES, TRAINS), rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.float64])
def test_jax_does_not_truncate_64_bit_input(capsys, save_npz, dtype):
    pytest.importorskip("jax")
    spikes, target = (trains.astype(dtype) * dtype(2**33) for trains in (SPIKES, TRAINS))
    path = save_npz(input=spikes, target=target)
    losses, _ = evaluate(capsys, path, "SpikeTime", "--backend", "jax")
    expected = per_sample_losses(sx.SpikeTime(), spikes, target.astype(np.float64))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_label_takes_precedence_over_target(capsys, save_npz):
    path = save_npz(input=SPIKES, target=TRAINS, label=HOT)
    losses, _ = evaluate(capsys, path, "SpikeMoid")
    np.testing.assert_allclose(
        losses, per_sample_losses(sx.SpikeMoid(theta=0), SPIKES, HOT), rtol=1e-5
    )


def test_batch_size_does_not_change_losses(capsys, save_npz, tmp_path):
    path = save_npz(input=SPIKES, target=TRAINS)
    expected, _ = evaluate(capsys, path, "SpikeTime", "--batch", 10**30)
    for batch in (1, 3, SAMPLES):
        out = tmp_path / f"{batch}.npy"
        losses, _ = evaluate(capsys, path, "SpikeTime", "--batch", batch, "--output", out)
        np.testing.assert_allclose(losses, expected, rtol=1e-6)


def record_batch_sizes(monkeypatch):
    """Return a list to which each later batch appends its size."""
    sizes, losses = [], _evaluate.Task.evaluate

    def recorded(self, start, stop):
        sizes.append(stop - start)
        return losses(self, start, stop)

    monkeypatch.setattr(_evaluate.Task, "evaluate", recorded)
    return sizes


@pytest.mark.parametrize(
    ("entries", "in_npz", "in_zarr"),
    [(1, 1, 3), (CLASSES * STEPS * 5, 5, 3), (CLASSES * STEPS * 8, 8, 6), (1 << 22, 11, 11)],
)
def test_batch_size_follows_entry_limit_and_chunks(
    capsys, monkeypatch, tmp_path, save_npz, entries, in_npz, in_zarr
):
    sizes = record_batch_sizes(monkeypatch)
    monkeypatch.setattr(_evaluate, "ENTRIES", entries)
    evaluate(capsys, save_npz(input=SPIKES), "SparsityEnforcer")
    assert max(sizes) == sizes[0] == in_npz
    assert sum(sizes) == SAMPLES
    sizes.clear()
    save_zarr(tmp_path / "own.zarr", {"input": SPIKES})
    evaluate(capsys, tmp_path / "own.zarr", "SparsityEnforcer")
    assert max(sizes) == sizes[0] == in_zarr
    assert sum(sizes) == SAMPLES


def test_nonfinite_losses_are_counted_and_not_averaged(capsys, save_npz):
    spikes = SPIKES.astype(np.float64)
    spikes[2, 0, 0], spikes[3, 1, 1], spikes[5, 1, 1] = np.nan, np.inf, 1e300
    path = save_npz(input=spikes, target=TRAINS)
    losses, summary = evaluate(capsys, path, "SpikeTime")
    finite = np.isfinite(losses)
    assert list(np.flatnonzero(~finite)) == [2, 3, 5]  # 1e300 is infinite in float32
    assert summary["nan"] == np.isnan(losses).sum()
    assert summary["nan"] + summary["infinite"] == 3
    assert summary["mean"] == pytest.approx(losses[finite].mean())
    _, out, _ = run(capsys, path, "SpikeTime")
    assert " of the others" in out
    np.savez(path, input=spikes[2:3], target=TRAINS[2:3])
    _, summary = evaluate(capsys, path, "SpikeTime")
    assert (summary["mean"], summary["nan"] + summary["infinite"]) == (None, 1)
    assert "mean loss   none is finite\nnot finite  1 NaN" in run(capsys, path, "SpikeTime")[1]


def test_nan_in_padding_is_ignored(capsys, save_npz):
    spikes = np.where(np.arange(STEPS) < LENGTHS[:, None, None], SPIKES, np.nan)
    path = save_npz(input=spikes, label=CLASS, lengths=LENGTHS)
    losses, summary = evaluate(capsys, path, "SpikeMax")
    expected = per_sample_losses(sx.SpikeMax(), SPIKES, CLASS, lengths=LENGTHS)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert summary["nan"] == summary["infinite"] == 0


def test_summary_shows_loss_mean_and_speed(capsys, save_npz, tmp_path):
    path = save_npz(input=SPIKES, label=CLASS)
    status, out, err = run(capsys, path, "SpikeMax", "--option", "moving_window=5")
    assert (status, err) == (0, "")
    heading, rows = out.split("\n\n")
    expected = f"{path}: SpikeMax(moving_window=5) by numpy {np.__version__} on cpu, float32"
    assert heading == expected
    rows = dict(line.split(None, 1) for line in rows.splitlines())
    mean = np.load(tmp_path / "own.SpikeMax.npy").mean()
    assert rows.pop("mean") == f"loss   {mean:.8g}"
    assert float(rows.pop("speed").removesuffix(" samples/s")) > 0
    accuracy = sx.Rate(time_axis=-1).accuracy(SPIKES, CLASS)
    assert rows.pop("accuracy") == f"{accuracy:.4f} of 11 labels"
    assert rows == {
        "samples": "11",
        "not": "finite  0 NaN, 0 infinite",
        "written": f"to  {tmp_path / 'own.SpikeMax.npy'}",
    }


ACCURACY_CASES = {  # name: loss, its options, label, lengths, classifier
    "SpikeMax": ("SpikeMax", {}, CLASS, None, sx.Rate(time_axis=-1)),
    "SpikeRate": (
        "SpikeRate",
        {"true_rate": 1, "false_rate": 0},
        CLASS,
        LENGTHS,
        sx.Rate(time_axis=-1),
    ),
    "CrossEntropy": (
        "CrossEntropy",
        {"readout": "sqrt_count"},
        CLASS,
        LENGTHS,
        sx.Rate(time_axis=-1),
    ),
    "SpikeLatency": ("SpikeLatency", {}, CLASS, LENGTHS, sx.Latency(time_axis=-1)),
    "window, one label": ("SpikeMax", {"moving_window": 5}, CLASS, LENGTHS, sx.Rate(time_axis=-1)),
    "window, by step": (
        "SpikeMax",
        {"moving_window": 5, "ignore_index": 1},
        CLASS_BY_STEP,
        LENGTHS,
        sx.MovingWindow(5, ignore_index=1, time_axis=-1),
    ),
    "ignored": (
        "SpikeMax",
        {"ignore_index": 2},
        CLASS,
        None,
        sx.Rate(ignore_index=2, time_axis=-1),
    ),
    "unsigned labels": ("SpikeMax", {}, CLASS.astype(np.uint8), None, sx.Rate(time_axis=-1)),
    "mean": ("SpikeMax", {"reduction": "mean"}, CLASS, None, sx.Rate(time_axis=-1)),
}


@pytest.mark.parametrize("library", USABLE)
@pytest.mark.parametrize("case", ACCURACY_CASES)
def test_accuracy_equals_that_of_the_classifier(capsys, save_npz, case, library):
    loss, given, label, lengths, classifier = ACCURACY_CASES[case]
    arrays = {"input": SPIKES, "label": label}
    masks = {} if lengths is None else {"lengths": lengths}
    path = save_npz(**arrays, **masks)
    where = ["--batch", BATCH.get(library, 4), "--backend", library]
    _, summary = evaluate(capsys, path, loss, *options(**given), *where)
    expected = classifier.accuracy(SPIKES.astype(np.float64), label, **masks)
    assert summary["accuracy"] == pytest.approx(float(expected), abs=1e-12)
    assert 0 < summary["accuracy"] < 1
    number = (label != given.get("ignore_index", -100)).astype(int)
    if lengths is not None:
        steps = np.arange(STEPS) < LENGTHS[:, None]
        number = number * (steps if label.ndim > 1 else steps[:, 0])
    assert summary["labels"] == number.sum()


@pytest.mark.parametrize("label", [CLASS, EYE[CLASS]])
def test_accuracy_of_independent_classes_is_that_of_their_answers(capsys, save_npz, label):
    path = save_npz(input=SPIKES, label=label, lengths=LENGTHS)
    _, summary = evaluate(capsys, path, "SpikeMoid", *options(theta=0.45))
    loss, masks = sx.SpikeMoid(theta=0.45), {"lengths": LENGTHS}
    assert summary["accuracy"] == pytest.approx(float(loss.accuracy(SPIKES, EYE[CLASS], **masks)))
    assert summary["labels"] == CLASSES * (LENGTHS > 0).sum()


def test_accuracy_follows_the_readout_of_the_loss(capsys, save_npz):
    potentials = RNG.normal(size=SPIKES.shape)
    path = save_npz(input=potentials, label=CLASS)
    arguments = options(readout="last", reduction="sum")
    _, summary = evaluate(capsys, path, "CrossEntropy", *arguments)
    assert summary["accuracy"] == np.mean(np.argmax(potentials[..., -1], axis=1) == CLASS)


def test_accuracy_of_latencies_predicts_the_first_spike(capsys, save_npz):
    spikes = np.zeros((4, 3, STEPS), np.float32)
    first = np.asarray([2, 0, 1, 1])
    for lag in range(3):
        spikes[np.arange(4), (first + lag) % 3, 5 + 10 * lag] = 1
    path = save_npz(input=spikes, label=first)
    _, summary = evaluate(capsys, path, "SpikeLatency")
    assert summary["accuracy"] == 1


def test_sample_whose_loss_is_nan_is_not_predicted(capsys, save_npz):
    spikes = np.zeros((2, 3, STEPS))
    spikes[:, 0] = 1
    spikes[1, 0, 0] = np.nan
    _, summary = evaluate(capsys, save_npz(input=spikes, label=np.zeros(2, int)), "SpikeMax")
    assert (summary["accuracy"], summary["labels"], summary["nan"]) == (0.5, 2, 1)


@pytest.mark.parametrize(
    ("loss", "arrays"),
    [
        ("SpikeTime", {"target": TRAINS, "label": CLASS}),
        ("SpikeMoid", {"label": HOT / 2}),
        ("CrossEntropy", {"target": HOT}),
        ("SpikeLatency", {"target": 10 * HOT}),
        ("SparsityEnforcer", {"label": CLASS}),
        ("SpikeMax", {"label": CLASS, "lengths": np.zeros(SAMPLES, int)}),
    ],
)
def test_accuracy_is_left_out_without_class_labels(capsys, save_npz, loss, arrays):
    path = save_npz(input=SPIKES, **arrays)
    _, summary = evaluate(capsys, path, loss)
    assert (summary["accuracy"], summary["labels"]) == (None, 0)
    _, out, _ = run(capsys, path, loss)
    assert "\naccuracy" not in out


def test_output_path_defaults_to_beside_the_input(capsys, tmp_path, monkeypatch):
    save_folder(tmp_path / "some.data", {"input": SPIKES})
    monkeypatch.chdir(tmp_path / "some.data")
    for given, beside in ((".", tmp_path), ("../some.data", Path(".."))):
        _, summary = evaluate(capsys, given, "SparsityEnforcer")
        assert Path(summary["output"]) == beside / "some.data.SparsityEnforcer.npy"
    _, summary = evaluate(capsys, ".", "SparsityEnforcer", "--output", "here.npy")
    assert summary["output"] == "here.npy"
    assert sorted(p.name for p in Path().iterdir()) == ["here.npy", "input.npy"]


@pytest.mark.parametrize(
    ("loss", "arguments", "message"),
    [
        ("SpikeRate", [], "needs --option true_rate=... and --option false_rate=..."),
        ("SpikeRate", options(true_rate=0.5), "SpikeRate needs --option false_rate=..."),
        ("SpikeRate", options(true_rate=2, false_rate=0), "true_rate must be between 0 and 1"),
        ("SpikeRate", options(true_rate="0.1,x", false_rate=0), "must be a number; got '0.1,x'"),
        ("SpikeRate", options(true_rate="0.1,0.2", false_rate=0), "one number, or 3, one for each"),
        ("SpikeMax", options(moving_window=1.5), "must be an integer; got 1.5"),
        ("SpikeMax", options(moving_window="9" * 5000), "moving_window must be"),
        ("SpikeMax", options(reduction="none"), "reduction='none' gives no loss of a sample"),
        ("SpikeMax", options(num_classes=2), "num_classes=2 must divide the number of neurons, 3"),
        (
            "SpikeMax",
            options(time_axis=0),
            "time_axis=0 is the first axis of `input`, but the command needs the batch",
        ),
        ("SpikeMax", options(time_axis=-3), "time_axis=-3 is the first axis"),
        ("SpikeMax", options(time_axis=3), "time_axis=3 is not an axis of input of shape"),
        (
            "SpikeMax",
            options(alpha=1),
            "not a key=value of SpikeMax. Its options: moving_window, mode",
        ),
        ("SpikeMax", ["--option", "mode"], "--option 'mode' is not a key=value"),
        ("SpikeMax", options(mode="softmax") * 2, "--option mode is given twice"),
        ("SparsityEnforcer", options(_terms=1), "not a key=value of SparsityEnforcer"),
        (
            "SpikeMax",
            ["--device", "toaster"],
            "numpy: it has no device 'toaster'; its devices: cpu",
        ),
        ("SpikeMax", ["--output", "losses.npz"], "the name must end in .npy"),
        ("SpikeMax", ["--output", "nowhere/losses.npy"], "there is no folder nowhere"),
    ],
)
def test_invalid_option_fails_with_one_line(capsys, save_npz, tmp_path, loss, arguments, message):
    path = save_npz(input=SPIKES, target=TRAINS if loss == "SpikeTime" else CLASS)
    assert message in terminal.error_of(run(capsys, path, loss, *arguments))
    assert list(tmp_path.iterdir()) == [path]  # no output was created


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            MemoryError(),
            "finds not enough memory for samples 0 to 3 at once: choose a smaller --batch",
        ),
        (
            RuntimeError("out of\nmemory"),
            "failed for samples 0 to 3 on numpy .*: RuntimeError: out of memory",
        ),
        (ValueError("no"), "SpikeMax refuses samples 0 to 3: no"),
    ],
)
def test_library_exception_is_reported(capsys, save_npz, monkeypatch, error, message):
    def fail(*arguments, **more):
        raise error

    monkeypatch.setattr(sx.SpikeMax, "_of_samples", fail)
    status, _, err = run(capsys, save_npz(input=SPIKES, label=CLASS), "SpikeMax", "--batch", 4)
    assert status == 2
    assert err.count("\n") == 1
    assert re.search(message, err)


@pytest.mark.parametrize(
    ("version", "found"),
    [(None, "import of zarr halted; None in sys.modules"), ("2.18.3", "2.18.3 is installed")],
)
def test_missing_or_old_zarr_error_says_how_to_install_it(
    capsys, tmp_path, monkeypatch, version, found
):
    (tmp_path / "own.zarr").mkdir()
    monkeypatch.setitem(sys.modules, "zarr", version and SimpleNamespace(__version__=version))
    status, _, err = run(capsys, tmp_path / "own.zarr", "SparsityEnforcer")
    assert status == 2
    assert f"needs zarr 3 or newer: pip install --upgrade zarr ({found})" in err


def evaluate_on_terminal(arguments, cwd):
    """Run the command with standard error on a terminal and return its output there."""
    command = [sys.executable, "-m", "spikeloss_xp", "evaluate", *arguments]
    return terminal.run_on_terminal(command, status=0, only_errors=True, cwd=cwd)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals on Windows")
def test_progress_is_shown_on_a_terminal(tmp_path, save_npz):
    arguments = [save_npz(input=SPIKES), "--loss", "SparsityEnforcer", "--batch", "3"]
    lines = evaluate_on_terminal(arguments, tmp_path).split(b"\r")
    assert lines[1] == b"[------------------------] 0 of 11 samples\033[K"
    assert lines[2].startswith(b"[######------------------] 3 of 11 samples, ")
    assert lines[2].endswith(b" s left\033[K")
    assert [line.split()[1] for line in lines[1:5]] == [b"0", b"3", b"6", b"9"]
    assert set(lines[5:]) == {b"\033[K"}  # the line is cleared


def test_no_progress_without_a_terminal_and_no_import_of_zarr_without_zarr_input(save_npz):
    program = (
        "import sys; from spikeloss_xp.cli import main\n"
        "main(['evaluate', sys.argv[1], '--loss', 'SparsityEnforcer', '--batch', '3'])\n"
        "assert 'zarr' not in sys.modules\n"
    )
    command = [sys.executable, "-c", program, save_npz(input=SPIKES)]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stderr == b""
    assert b"\r" not in done.stdout


def test_target_is_chosen_by_array_name_and_loss(tmp_path, capsys, save_npz):
    assert _evaluate.NAMES == ("input", "target", "label", "lengths")
    status, _, err = run(capsys, save_npz(input=SPIKES, target=TRAINS), "SpikeMax")
    assert status == 2
    assert "target must hold integers" in err
    status, _, err = run(capsys, save_npz(input=SPIKES, label=CLASS), "SpikeTime")
    assert "SpikeTime needs target; the file holds input, label" in err
    status, _, err = run(capsys, save_npz(input=SPIKES), "SpikeMoid")
    assert "SpikeMoid needs label or target; the file holds input" in err
