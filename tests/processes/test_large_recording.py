"""The program of docs/dask.md, on every library."""

import dataclasses
import re

import numpy as np
import pytest

from _support.backends import STAND_INS
from _support.processes import recipes

dask = pytest.importorskip("dask")
NUMBERS = r"mean loss (\d+\.\d+)\naccuracy  (\d+\.\d+)\n"
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
            zarr.create_array(folder / name, data=array, chunks=(3, *array.shape[1:]))


def test_batches_equal_the_whole_recording(backend, tmp_path, monkeypatch, capsys):
    if backend.library == "array_api_strict" or (backend.name == "torch-cuda" and STAND_INS):
        pytest.skip("the program prints by `tolist`, which arrays of this library do not have")
    program, folder = recipes("large_recording"), tmp_path / "recording"
    monkeypatch.setattr(program, "BATCH", 4)
    monkeypatch.setattr(program, "to_device", backend.asarray)
    save(folder, "zarr" if backend.library == "numpy" else "npy")
    with dask.config.set(scheduler="synchronous"):  # the 64-bit mode of JAX is that of a thread
        program.main(folder)

    mean, accuracy = map(float, re.search(NUMBERS, capsys.readouterr().out).groups())
    assert mean == pytest.approx(float(program.loss(SPIKES, LABELS)), abs=1e-6)  # 7 digits
    assert accuracy == pytest.approx(float(program.loss.accuracy(SPIKES, LABELS)), abs=1e-4)
    each = dataclasses.replace(program.loss, reduction="none")(SPIKES, LABELS)
    found = np.load(f"{folder}.losses.npy")
    np.testing.assert_allclose(found, each, rtol=backend.rtol)
