"""The file that the command reads: formats, targets, and what is wrong with a file."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from spikeloss_xp.cli._compare import load

SPIKES = (np.random.default_rng(0).random((4, 3, 40)) < 0.2).astype(np.float32)
LABEL = np.asarray([0, 2, 1, 0])
FAST = "--backend numpy --loss SparsityEnforcer"


def save(**arrays):
    """Write an .npz file with spikes and a label, which `arrays` replace; None leaves one out."""
    arrays = {"input": SPIKES, "label": LABEL, **arrays}
    np.savez("own.npz", **{name: array for name, array in arrays.items() if array is not None})


@pytest.mark.parametrize("dtype", ["float64", "float16", "bool", "uint8", ">f4"])
def test_real_dtypes_are_read(command, dtype):
    save(input=np.asfortranarray(SPIKES.astype(dtype)), label=LABEL.astype(">i2"))
    recording = load("own.npz")
    np.testing.assert_array_equal(recording.input, SPIKES)
    np.testing.assert_array_equal(recording.targets["classes"], LABEL)
    assert recording.input.dtype.isnative  # PyTorch takes no other byte order
    assert recording.targets["classes"].dtype.isnative


def test_compressed_file_is_read(command):
    np.savez_compressed("own.npz", input=SPIKES, label=LABEL, more=LABEL)
    np.testing.assert_array_equal(load("own.npz").input, SPIKES)


RATES = {"SpikeRate", "SpikeMax", "CrossEntropy", "SpikeMoid", "SparsityEnforcer"}
TARGETS = {
    "trains": SPIKES[::-1],
    "signal": SPIKES - 0.5,
    "classes": LABEL.astype(np.int32),
    "per step": np.ones((4, 40), np.int64),
    "hot": np.eye(3)[[0, 1, 2, 2]],
    "hot per step": SPIKES > 0,
}


@pytest.mark.parametrize(
    ("targets", "evaluated"),
    [
        ({"target": "trains"}, {"SpikeTime", "PoissonNLL", "SparsityEnforcer"}),
        ({"target": "signal"}, {"SpikeTime", "SparsityEnforcer"}),
        ({"target": "classes"}, RATES),
        ({"label": "hot"}, {"SpikeMoid", "SparsityEnforcer"}),
        ({"target": "trains", "label": "classes"}, {"SpikeTime", "PoissonNLL", *RATES}),
        ({"label": "per step"}, RATES),
        ({"label": "hot per step"}, {"SpikeMoid", "SparsityEnforcer"}),
    ],
)
def test_targets_in_file_select_the_losses(command, targets, evaluated):
    np.savez("own.npz", input=SPIKES, **{key: TARGETS[kind] for key, kind in targets.items()})
    status, out, err = command("compare own.npz --backend numpy --json")
    assert (status, err) == (0, "")
    result = json.loads(out)
    losses = {row["loss"] for row in result["rows"]}
    assert {name.partition(",")[0] for name in losses} == evaluated
    assert all("window" not in name or name.endswith(", window 40") for name in losses)
    assert result["shape"] == [4, 3, 40]
    per_step = any("step" in kind for kind in targets.values())
    global_rate = losses & {"SpikeRate", "SpikeMax", "SpikeMoid"}
    assert bool(global_rate) == (not per_step and "SpikeMoid" in evaluated)
    no_target = "the file has no target for this loss"
    assert (result["left_out"].get("SpikeTime") == no_target) == ("SpikeTime" not in evaluated)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"input": None}, "must contain an array `input`, and `target` or `label`"),
        ({"label": None}, "it contains 'input'"),
        ({"input": None, "label": None}, "it contains no array"),
        ({"label": LABEL[:3]}, "(3,)"),
        ({"label": None, "target": np.swapaxes(SPIKES, 1, 2)}, "(4, 40, 3)"),
        ({"label": LABEL + 3}, "`label` must contain classes from 0 to 2; got values from 3 to 5"),
        ({"input": SPIKES[0]}, "got shape (3, 40)"),
        ({"input": SPIKES[..., :0]}, "got shape (4, 3, 0)"),
        ({"input": np.where(SPIKES, np.nan, SPIKES)}, "`input` contains NaN or infinity"),
        ({"input": np.full((4, 3, 40), 1e300)}, "`input` contains numbers too large for float32"),
        ({"input": SPIKES * 1j}, "`input` must hold numbers; got ndarray of complex64"),
        ({"input": SPIKES.astype(str)}, "`input` must hold numbers; got ndarray of <U32"),
    ],
)
def test_wrong_array_fails(command, arrays, message):
    save(**arrays)
    assert message in command.error(f"compare own.npz {FAST}")


def test_arrays_that_no_selected_loss_accepts_fail(command):
    save(label=None, target=SPIKES)
    assert "no loss can be evaluated" in command.error("compare own.npz --loss SpikeMax")
    save(input=-SPIKES)
    assert "SpikeMax rejects these arrays" in command.error("compare own.npz --loss SpikeMax")


def bytes_of(write, *arrays, **named):
    """Return what a function of NumPy writes to a file."""
    stream = io.BytesIO()
    write(stream, *arrays, **named)
    return stream.getvalue()


VALID = bytes_of(np.savez, input=SPIKES, label=LABEL)
NOT_NPZ = "File is not a zip file. Save arrays of numbers with numpy.savez."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", NOT_NPZ, id="empty"),
        pytest.param(b"0 1 0\n", NOT_NPZ, id="text"),
        pytest.param(bytes_of(np.save, SPIKES), NOT_NPZ, id="npy"),
        pytest.param(VALID[:-50], NOT_NPZ, id="cut off"),
        pytest.param(
            VALID.replace(SPIKES.tobytes(), (1 - SPIKES).tobytes()), "Bad CRC-32", id="changed"
        ),
    ],
)
def test_malformed_file_fails(command, content, message):
    Path("own.npz").write_bytes(content)
    assert f"own.npz: cannot be read: {message}" in command.error(f"compare own.npz {FAST}")


def test_zip_file_of_texts_fails(command):
    with zipfile.ZipFile("own.npz", "w") as archive:
        archive.writestr("input", "0 1 0")
        archive.writestr("label", "0")
    assert "`input` must hold numbers; got bytes" in command.error(f"compare own.npz {FAST}")


def test_missing_file_or_folder_fails(command):
    assert "nowhere.npz: cannot be read: No such file" in command.error("compare nowhere.npz")
    Path("folder.npz").mkdir()
    assert "folder.npz: cannot be read: " in command.error("compare folder.npz")


class Malicious:
    """An object that creates a file when it is unpickled."""

    def __reduce__(self):
        return Path("unpickled").touch, ()


def test_nothing_is_unpickled(command):
    objects = np.asarray([Malicious()], dtype=object)
    save(input=objects)
    assert "Object arrays cannot be loaded" in command.error(f"compare own.npz {FAST}")
    save(more=objects)  # an array that the command does not need
    assert command(f"compare own.npz {FAST}")[0] == 0
    assert not Path("unpickled").exists()
