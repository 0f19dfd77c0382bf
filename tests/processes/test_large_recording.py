"""The program of docs/large-recordings.md: on every library, and in less memory than its file."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from _support.backends import STAND_INS
from _support.processes import RECIPES, recipes
from _support.root import ROOT

dask = pytest.importorskip("dask")
PAGE = (ROOT / "docs" / "large-recordings.md").read_text(encoding="utf-8")
NUMBERS = r"mean loss (\d+\.\d+)\naccuracy  (\d+\.\d+)\n"
LIMIT = 1 << 29  # bytes
RNG = np.random.default_rng(3)
SPIKES = (RNG.random((11, 3, 40)) < 0.2).astype("uint8")
LABELS = np.where(np.arange(11) < 6, -100, RNG.integers(3, size=11))  # so many weights are 0


def save(folder, kind):
    folder.mkdir()
    for name, array in (("input", SPIKES), ("label", LABELS)):
        if kind == "npy":
            np.save(folder / f"{name}.npy", array)
        else:
            zarr = pytest.importorskip("zarr")
            chunks = (3, *array.shape[1:])
            stored = zarr.create_array(
                folder / name, shape=array.shape, dtype=array.dtype, chunks=chunks
            )
            stored[...] = array


@pytest.mark.parametrize("kind", ["npy", "zarr"])
def test_batches_equal_the_whole_recording(backend, tmp_path, monkeypatch, capsys, kind):
    if backend.library == "array_api_strict" or (backend.name == "torch-cuda" and STAND_INS):
        pytest.skip("the program calls `tolist`, which these arrays, or the stand-in, lack")
    program, folder = recipes("large_recording"), tmp_path / "recording"
    monkeypatch.setattr(program, "BATCH", 4)
    monkeypatch.setattr(program, "to_device", backend.asarray)
    save(folder, kind)
    with dask.config.set(scheduler="synchronous"):  # the 64-bit mode of JAX is that of a thread
        program.main(folder)

    mean, accuracy = map(float, re.search(NUMBERS, capsys.readouterr().out).groups())
    assert mean == pytest.approx(float(program.loss(SPIKES, LABELS)), abs=1e-6)  # 7 digits
    assert accuracy == pytest.approx(float(program.loss.accuracy(SPIKES, LABELS)), abs=1e-4)
    each = dataclasses.replace(program.loss, reduction="none")(SPIKES, LABELS)
    found = np.load(f"{folder}.losses.npy")
    np.testing.assert_allclose(found, each, rtol=backend.rtol)


def run(folder, *code):
    """Run this code and then the program in a new process, and return what it prints."""
    program = str(RECIPES / "large_recording.py")
    main = f"import runpy, sys; runpy.run_path({program!r}, run_name='__main__')"
    command = [sys.executable, "-c", "\n".join([*code, main]), str(folder)]
    variables = os.environ | {"OPENBLAS_NUM_THREADS": "1", "DASK_NUM_WORKERS": "2"}
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.compiles
def test_page_shows_what_the_program_prints(tmp_path, monkeypatch):
    (code,) = re.findall(r"^```py\n(.*?)^```$", PAGE, flags=re.M | re.S)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/large-recordings.md", "exec"), {})
    (shown,) = re.findall(r"^```text\n(.*?)^```$", PAGE, flags=re.M | re.S)
    assert run("recording").endswith(shown)
    assert np.load("recording.losses.npy").shape == (10_000,)


@pytest.mark.compiles
@pytest.mark.skipif(sys.platform != "linux", reason="others may not keep to the limit")
def test_memory_is_less_than_the_file(tmp_path):
    samples = 2 * LIMIT // 1000
    np.save(tmp_path / "label.npy", np.zeros(samples, int))
    input = tmp_path / "input.npy"
    np.lib.format.open_memmap(input, "w+", "uint8", (samples, 10, 100))  # zeros, of no blocks
    assert input.stat().st_size > 2 * LIMIT - 1000
    limit = f"resource.RLIMIT_DATA, ({LIMIT}, {LIMIT})"  # of private, writable memory
    run(tmp_path, f"import resource; resource.setrlimit({limit})")
    losses = np.load(Path(f"{tmp_path}.losses.npy"))
    np.testing.assert_allclose(losses, np.full(samples, np.log(10)), rtol=1e-6)
