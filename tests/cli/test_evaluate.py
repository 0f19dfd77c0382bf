"""The command ``evaluate``: losses, output files, messages and progress."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import terminal
from _support.damage import save
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
COUNTED = np.arange(STEPS) < LENGTHS[:, None]
EYE = np.eye(CLASSES, dtype=bool)
TIME_FIRST, TRAINS_TIME_FIRST = np.swapaxes(SPIKES, 1, 2), np.swapaxes(TRAINS, 1, 2)
SPACE = (RNG.random((SAMPLES, STEPS, 2, 3)) < 0.2).astype(np.float32)
BATCH = {"jax": SAMPLES, "dask": 6}  # each of their batches takes a tenth of a second or more
USABLE = [name for name, info in available().items() if info.usable]


def options(given):
    """Return the command-line arguments for these options of a loss."""
    texts = {k: ",".join(map(str, v)) if isinstance(v, tuple) else v for k, v in given.items()}
    return " ".join(f"--option {key}={text}" for key, text in texts.items())


def per_sample_losses(loss, spikes, *target, lengths=None, dtype=np.float64):
    """Return the loss of each sample, from one call of the loss for each."""
    losses = []
    for i in range(len(spikes)):
        sample = slice(i, i + 1)
        masks = {} if lengths is None else {"lengths": lengths[sample]}
        arrays = spikes[sample].astype(dtype), *(t[sample] for t in target)
        losses.append(float(loss(*arrays, **masks)))
    return np.asarray(losses)


BANDS = {"per": "neuron", "min_rate": 0.25, "max_rate": 0.5, "lam": 3}
SMOOTH = {"label_smoothing": 0.1, "readout": "sqrt_count"}
SPATIAL = {"moving_window": 5, "theta": 0, "num_classes": 3, "time_axis": 1}
RATES = {"true_rate": 0.5, "false_rate": 0, "moving_window": 5, "ignore_index": 1}
CASES = {  # name: loss, its options, the target in the file, and the input if it is not SPIKES
    "SpikeTime": (sx.SpikeTime, {}, TRAINS),
    "SpikeTime, mean": (sx.SpikeTime, {"length": 7, "reduction": "mean"}, TRAINS),
    "SpikeTime, time first": (sx.SpikeTime, {"time_axis": 1}, TRAINS_TIME_FIRST, TIME_FIRST),
    "SpikeRate": (sx.SpikeRate, {"true_rate": 0.5, "false_rate": (0, 0.1, 0.2)}, CLASS),
    "SpikeRate, by step": (sx.SpikeRate, RATES, CLASS_BY_STEP),
    "SpikeRate, mean by step": (sx.SpikeRate, {**RATES, "reduction": "mean"}, CLASS_BY_STEP),
    "SpikeRate, time first": (sx.SpikeRate, {**RATES, "time_axis": 1}, CLASS_BY_STEP, TIME_FIRST),
    "SpikeMax": (sx.SpikeMax, {}, CLASS),
    "SpikeMax, batchmean": (sx.SpikeMax, {"reduction": "batchmean", "moving_window": 9}, CLASS),
    "SpikeMax, time first": (sx.SpikeMax, {"time_axis": -2}, CLASS, TIME_FIRST),
    "CrossEntropy, root": (sx.CrossEntropy, SMOOTH, CLASS),
    "CrossEntropy, probabilities": (sx.CrossEntropy, {}, HOT + CLASS[:, None]),
    "CrossEntropy, sum": (sx.CrossEntropy, {"reduction": "sum"}, CLASS),
    "SquaredError": (sx.SquaredError, {"readout": "count"}, 9 * HOT),
    "SpikeLatency": (sx.SpikeLatency, {"tolerance": 0.5}, CLASS),
    "SpikeMoid": (sx.SpikeMoid, {"alpha": 0.25, "theta": 0.5}, HOT),
    "SpikeMoid, of classes": (sx.SpikeMoid, {"theta": 0}, CLASS),
    "SpikeMoid, by step": (sx.SpikeMoid, {"moving_window": 5, "theta": 0}, CLASS_BY_STEP),
    "SpikeMoid, time first": (sx.SpikeMoid, SPATIAL, CLASS_BY_STEP, SPACE),
    "SparsityEnforcer": (sx.SparsityEnforcer, {}, None),
    "SparsityEnforcer, per neuron": (sx.SparsityEnforcer, BANDS, None),
}


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["all", "lengths"])
@pytest.mark.parametrize("case", CASES)
def test_losses_equal_single_sample_calls(backend, command, case, lengths):
    if backend.name == "array-api-strict-device1":
        pytest.skip("the command knows the default device of such a library only")
    loss, given, target, *spikes = CASES[case]
    (spikes,) = spikes or (SPIKES,)
    arrays = {"input": spikes, "target": target, "lengths": lengths}
    if lengths is not None and spikes is SPIKES:  # masked entries may have any value
        arrays["input"] = np.where(COUNTED[:, None], SPIKES, np.nan)
        arrays["target"] = np.where(COUNTED, target, -7) if target is CLASS_BY_STEP else target
    save("own.npz", {name: array for name, array in arrays.items() if array is not None})
    where = f"--backend {backend.library} --dtype {backend.dtype}"
    where += f" --device {backend.place}" if backend.on_gpu else ""
    where += f" --batch {BATCH.get(backend.library, 4)}"
    losses, summary = command.losses(f"own.npz --loss {loss.__name__} {where}", options(given))

    if loss is sx.SpikeMoid and target.dtype.kind == "i":
        target = EYE[target] if spikes is SPACE else np.moveaxis(EYE[target], -1, 1)
    targets = () if target is None else (target,)
    made = loss(**{"time_axis": -1, **given})
    expected = per_sample_losses(made, spikes, *targets, lengths=lengths)
    np.testing.assert_allclose(losses, expected, rtol=backend.rtol, atol=backend.rtol / 10)
    assert len(set(losses)) > SAMPLES / 2  # the samples differ, so a mix-up would show
    assert summary["loss"] == repr(made)
    assert (summary["backend"], summary["dtype"]) == (backend.library, backend.dtype)
    assert summary["mean"] == pytest.approx(losses.mean())


@pytest.mark.parametrize(
    ("name", "made"),
    [
        *(("own.npz", {}), ("compressed.npz", {}), ("folder", {}), ("three.zarr", {})),
        *(("two.zarr", {"zarr_format": 2}), ("plain.zarr", {"compressors": None})),
        ("no-suffix", {"zarr_format": 3}),
    ],
)
def test_file_formats_give_equal_losses(command, name, made):
    label, spikes = CLASS.astype(">i4"), SPIKES.astype(">f8")
    spikes[3:9] = 0  # Zarr does not write chunks that equal the fill value
    save(name, {"input": spikes, "target": TRAINS, "label": label, "lengths": LENGTHS}, **made)
    for loss, target in (("SpikeTime", TRAINS), ("SpikeMax", CLASS)):
        losses, summary = command.losses(f"{name} --loss {loss} --batch 4")
        call = getattr(sx, loss)(), spikes, target
        expected = per_sample_losses(*call, lengths=LENGTHS, dtype=np.float32)
        np.testing.assert_allclose(losses, expected, rtol=1e-5)
        stem = name.removesuffix(".npz").removesuffix(".zarr")
        assert summary["output"] == f"{stem}.{loss}.npy"


@pytest.mark.parametrize("dtype", ["?", "u1", "i8", "u8", "f2", "f8", ">i2"])
@pytest.mark.parametrize("library", USABLE)
def test_input_dtype_does_not_change_losses(command, dtype, library):
    scale = 2**33 if np.dtype(dtype).itemsize == 8 else 1  # more than 32 bits hold as integers
    arrays = {"input": SPIKES, "target": TRAINS}
    save("own.npz", {name: x.astype(dtype) * np.array(scale, dtype) for name, x in arrays.items()})
    losses, _ = command.losses(f"own.npz --loss SpikeTime --backend {library}")
    expected = per_sample_losses(sx.SpikeTime(), SPIKES * float(scale), TRAINS * float(scale))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_label_takes_precedence_over_target(command):
    save("own.npz", {"input": SPIKES, "target": TRAINS, "label": HOT})
    losses, _ = command.losses("own.npz --loss SpikeMoid")
    expected = per_sample_losses(sx.SpikeMoid(theta=0), SPIKES, HOT)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("entries", "argument", "in_npz", "in_zarr"),
    [
        *((1, "", 1, 3), (CLASSES * STEPS * 5, "", 5, 3), (CLASSES * STEPS * 8, "", 8, 6)),
        *((1 << 22, "", 11, 11), (1, "--batch 4", 4, 4), (1, f"--batch {10**30}", 11, 11)),
    ],
)
def test_batch_size_follows_limit_chunks_and_option(
    command, monkeypatch, entries, argument, in_npz, in_zarr
):
    sizes, evaluate = [], _evaluate.Task.evaluate

    def recorded(self, start, stop):
        sizes.append(stop - start)
        return evaluate(self, start, stop)

    monkeypatch.setattr(_evaluate.Task, "evaluate", recorded)
    monkeypatch.setattr(_evaluate, "ENTRIES", entries)
    expected = per_sample_losses(sx.SparsityEnforcer(), SPIKES)
    for path, size in (("own.npz", in_npz), ("own.zarr", in_zarr)):
        save(path, {"input": SPIKES})
        sizes.clear()
        losses, _ = command.losses(f"{path} --loss SparsityEnforcer {argument}")
        np.testing.assert_allclose(losses, expected, rtol=1e-5)
        assert max(sizes) == sizes[0] == size
        assert sum(sizes) == SAMPLES


def test_nonfinite_losses_are_counted_and_not_averaged(command):
    spikes = SPIKES.astype(np.float64)
    spikes[2, 0, 0], spikes[3, 1, 1], spikes[5, 1, 1] = np.nan, np.inf, 1e300
    save("own.npz", {"input": spikes, "target": TRAINS})
    losses, summary = command.losses("own.npz --loss SpikeTime")
    finite = np.isfinite(losses)
    assert list(np.flatnonzero(~finite)) == [2, 3, 5]  # 1e300 is infinite in float32
    assert summary["nan"] == np.isnan(losses).sum()
    assert summary["nan"] + summary["infinite"] == 3
    assert summary["mean"] == pytest.approx(losses[finite].mean())
    assert " of the others" in command("evaluate own.npz --loss SpikeTime --overwrite")[1]
    save("own.npz", {"input": spikes[2:3], "target": TRAINS[2:3]})
    _, summary = command.losses("own.npz --loss SpikeTime")
    assert (summary["mean"], summary["nan"] + summary["infinite"]) == (None, 1)
    _, out, _ = command("evaluate own.npz --loss SpikeTime --overwrite")
    assert "mean loss   none is finite\nnot finite  1 NaN" in out


def test_summary_shows_loss_mean_and_speed(command):
    save("own.npz", {"input": SPIKES, "label": CLASS})
    status, out, err = command("evaluate own.npz --loss SpikeMax --option moving_window=5")
    assert (status, err) == (0, "")
    heading, rows = out.split("\n\n")
    version = np.__version__
    assert heading == f"own.npz: SpikeMax(moving_window=5) by numpy {version} on cpu, float32"
    rows = dict(line.split(None, 1) for line in rows.splitlines())
    assert float(rows.pop("speed").removesuffix(" samples/s")) > 0
    accuracy = sx.Rate(time_axis=-1).accuracy(SPIKES, CLASS)
    assert rows == {
        "samples": "11",
        "mean": f"loss   {np.load('own.SpikeMax.npy').mean():.8g}",
        "not": "finite  0 NaN, 0 infinite",
        "accuracy": f"{accuracy:.4f} of 11 labels",
        "written": "to  own.SpikeMax.npy",
    }


RATE = sx.Rate(time_axis=-1)
RATE_IGNORING = sx.Rate(ignore_index=2, time_axis=-1)
WINDOW, BY_STEP = {"moving_window": 5}, {"moving_window": 5, "ignore_index": 1}
BY_WINDOW = sx.MovingWindow(5, ignore_index=1, time_axis=-1)
ACCURACY_CASES = {  # name: loss, its options, label, lengths, classifier
    "SpikeMax": ("SpikeMax", {}, CLASS, None, RATE),
    "SpikeRate": ("SpikeRate", {"true_rate": 1, "false_rate": 0}, CLASS, LENGTHS, RATE),
    "CrossEntropy": ("CrossEntropy", {"readout": "sqrt_count"}, CLASS, LENGTHS, RATE),
    "SpikeLatency": ("SpikeLatency", {}, CLASS, LENGTHS, sx.Latency(time_axis=-1)),
    "window, one label": ("SpikeMax", WINDOW, CLASS, LENGTHS, RATE),
    "window, by step": ("SpikeMax", BY_STEP, CLASS_BY_STEP, LENGTHS, BY_WINDOW),
    "ignored": ("SpikeMax", {"ignore_index": 2}, CLASS, None, RATE_IGNORING),
    "unsigned labels": ("SpikeMax", {}, CLASS.astype(np.uint8), None, RATE),
    "mean": ("SpikeMax", {"reduction": "mean"}, CLASS, None, RATE),
}


@pytest.mark.parametrize("library", USABLE)
@pytest.mark.parametrize("case", ACCURACY_CASES)
def test_accuracy_equals_that_of_the_classifier(command, case, library):
    loss, given, label, lengths, classifier = ACCURACY_CASES[case]
    masks = {} if lengths is None else {"lengths": lengths}
    save("own.npz", {"input": SPIKES, "label": label, **masks})
    where = f"--batch {BATCH.get(library, 4)} --backend {library}"
    losses, summary = command.losses(f"own.npz --loss {loss} {where}", options(given))
    made = getattr(sx, loss)(**{"time_axis": -1, **given})
    np.testing.assert_allclose(
        losses, per_sample_losses(made, SPIKES, label, lengths=lengths), rtol=1e-5, atol=1e-6
    )
    expected = classifier.accuracy(SPIKES.astype(np.float64), label, **masks)
    assert summary["accuracy"] == pytest.approx(float(expected), abs=1e-12)
    assert 0 < summary["accuracy"] < 1
    number = (label != given.get("ignore_index", -100)).astype(int)
    if lengths is not None:
        number = number * (COUNTED if label.ndim > 1 else COUNTED[:, 0])
    assert summary["labels"] == number.sum()


@pytest.mark.parametrize("label", [CLASS, EYE[CLASS]])
def test_accuracy_of_independent_classes_is_that_of_their_answers(command, label):
    masks = {"lengths": LENGTHS}
    save("own.npz", {"input": SPIKES, "label": label, **masks})
    _, summary = command.losses("own.npz --loss SpikeMoid --option theta=0.45")
    accuracy = sx.SpikeMoid(theta=0.45).accuracy(SPIKES, EYE[CLASS], **masks)
    assert summary["accuracy"] == pytest.approx(float(accuracy))
    assert summary["labels"] == CLASSES * (LENGTHS > 0).sum()


def test_accuracy_follows_the_readout_of_the_loss(command):
    potentials = RNG.normal(size=SPIKES.shape)
    save("own.npz", {"input": potentials, "label": CLASS})
    given = options({"readout": "last", "reduction": "sum"})
    _, summary = command.losses("own.npz --loss CrossEntropy", given)
    assert summary["accuracy"] == np.mean(np.argmax(potentials[..., -1], axis=1) == CLASS)


def test_sample_whose_loss_is_nan_is_not_predicted(command):
    spikes = np.zeros((2, 3, STEPS))
    spikes[:, 0] = 1
    spikes[1, 0, 0] = np.nan
    save("own.npz", {"input": spikes, "label": np.zeros(2, int)})
    _, summary = command.losses("own.npz --loss SpikeMax")
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
def test_accuracy_is_left_out_without_class_labels(command, loss, arrays):
    save("own.npz", {"input": SPIKES, **arrays})
    _, summary = command.losses(f"own.npz --loss {loss}")
    assert (summary["accuracy"], summary["labels"]) == (None, 0)
    assert "\naccuracy" not in command(f"evaluate own.npz --overwrite --loss {loss}")[1]


def test_output_path_defaults_to_beside_the_input(command, tmp_path, monkeypatch):
    save("some.data", {"input": SPIKES})
    monkeypatch.chdir("some.data")
    for given, beside in ((".", tmp_path), ("../some.data", Path(".."))):
        _, summary = command.losses(f"{given} --loss SparsityEnforcer")
        assert Path(summary["output"]) == beside / "some.data.SparsityEnforcer.npy"
    _, summary = command.losses(". --loss SparsityEnforcer --output here.npy")
    assert summary["output"] == "here.npy"
    assert sorted(p.name for p in Path().iterdir()) == ["here.npy", "input.npy"]


RATE_OF = "SpikeRate --option false_rate=0 --option true_rate="


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("SpikeRate", "needs --option true_rate=... and --option false_rate=..."),
        ("SpikeRate --option true_rate=0.5", "SpikeRate needs --option false_rate=..."),
        (f"{RATE_OF}2", "true_rate must be between 0 and 1"),
        (f"{RATE_OF}0.1,x", "must be a number; got '0.1,x'"),
        (f"{RATE_OF}0.1,0.2", "one number, or 3, one for each"),
        ("SpikeMax --option moving_window=1.5", "must be an integer; got 1.5"),
        (f"SpikeMax --option moving_window={'9' * 5000}", "moving_window must be"),
        ("SpikeMax --option reduction=none", "reduction='none' gives no loss of a sample"),
        ("SpikeMax --option num_classes=2", "num_classes=2 must divide the number of neurons, 3"),
        ("SpikeMax --option time_axis=0", "time_axis=0 is the first axis of `input`, but the com"),
        ("SpikeMax --option time_axis=-3", "time_axis=-3 is the first axis"),
        ("SpikeMax --option time_axis=3", "time_axis=3 is not an axis of input of shape"),
        ("SpikeMax --option alpha=1", "not a key=value of SpikeMax. Its options: moving_window"),
        ("SpikeMax --option mode", "--option 'mode' is not a key=value"),
        ("SpikeMax --option mode=a --option mode=a", "--option mode is given twice"),
        ("SparsityEnforcer --option _terms=1", "not a key=value of SparsityEnforcer"),
        ("SpikeMax --device toaster", "numpy: it has no device 'toaster'; its devices: cpu"),
        ("SpikeMax --output losses.npz", "the name must end in .npy"),
    ],
)
def test_invalid_option_fails_with_one_line(command, loss, message):
    save("own.npz", {"input": SPIKES, "label": CLASS})
    assert message in command.error(f"evaluate own.npz --loss {loss}")
    assert list(Path().iterdir()) == [Path("own.npz")]  # no output was created


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "finds not enough memory for samples 0 to 3 at once: choose a smaller --b"),
        (
            RuntimeError("out of\nmemory"),
            "failed for samples 0 to 3 on numpy .*: RuntimeError: out of m",
        ),
        (ValueError("no"), "SpikeMax refuses samples 0 to 3: no"),
    ],
)
def test_library_exception_is_reported(command, monkeypatch, error, message):
    def fail(*arguments, **more):
        raise error

    monkeypatch.setattr(sx.SpikeMax, "_of_samples", fail)
    save("own.npz", {"input": SPIKES, "label": CLASS})
    assert re.search(message, command.error("evaluate own.npz --loss SpikeMax --batch 4"))


@pytest.mark.parametrize(
    ("version", "found"),
    [(None, "import of zarr halted; None in sys.modules"), ("2.18.3", "2.18.3 is installed")],
)
def test_missing_or_old_zarr_error_says_how_to_install_it(command, monkeypatch, version, found):
    Path("own.zarr").mkdir()
    monkeypatch.setitem(sys.modules, "zarr", version and SimpleNamespace(__version__=version))
    message = command.error("evaluate own.zarr --loss SparsityEnforcer")
    assert f"needs zarr 3 or newer: pip install --upgrade zarr ({found})" in message
    save("own.npz", {"input": SPIKES})  # which needs no Zarr
    assert command("evaluate own.npz --loss SparsityEnforcer")[0] == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals on Windows")
def test_progress_is_shown_on_a_terminal(command):
    save("own.npz", {"input": SPIKES})
    program = [sys.executable, "-m", "spikeloss_xp", "evaluate", "own.npz", "--batch", "3"]
    program += ["--loss", "SparsityEnforcer"]
    shown = terminal.run_on_terminal(program, status=0, stdout=subprocess.DEVNULL)
    lines = shown.split(b"\r")
    assert lines[1] == b"[------------------------] 0 of 11 samples\033[K"
    assert lines[2].startswith(b"[######------------------] 3 of 11 samples, ")
    assert lines[2].endswith(b" s left\033[K")
    assert [line.split()[1] for line in lines[1:5]] == [b"0", b"3", b"6", b"9"]
    assert set(lines[5:]) == {b"\033[K"}  # the line is cleared
