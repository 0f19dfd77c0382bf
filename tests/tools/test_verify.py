"""The kit for a machine with a GPU goes through all its steps on the CPU, and reports failures."""

import json
import os
import subprocess
import sys

import pytest
import verify

from _support import gpu, pages

pytestmark = pytest.mark.skipif(
    not (pages.ROOT / "backends").exists(), reason="the kit runs in the source tree"
)
LACKING = ("array_api_strict", "dask", "pytest_benchmark", "xdist")
"""What a machine with a GPU may lack."""
PLAIN = "the plain line"


@pytest.mark.slow
def test_dry_run_goes_through_all_steps(tmp_path):
    for library in ("torch", "jax"):
        pytest.importorskip(library)
    for package in LACKING:
        text = f"raise ModuleNotFoundError('No module named {package}', name={package!r})\n"
        (tmp_path / f"{package}.py").write_text(text, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, verify.__file__, "--out", str(tmp_path / "out"), "--dry-run"]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[-1].startswith("PASSED (dry run on the CPU): CuPy "), ran.stdout
    record = json.loads((tmp_path / "out" / "gpu.json").read_text(encoding="utf-8"))
    results = {claim["what"]: claim["result"] for claim in record["claims"]}
    packages = ("CuPy for CUDA 12", "CuPy for CUDA 13")
    assert results == {
        claim.what: "not run" if claim.what in packages else "verified" for claim in gpu.CLAIMS
    }
    assert len(record["benchmarks"]) == 24
    for row in record["benchmarks"]:
        if "ModuleNotFoundError: No module named 'optax'" in row["problems"].values():
            assert (row["library"], row["problems"].keys()) == ("jax", {PLAIN})
        else:
            assert row["problems"] == {}
            assert row["ratios"].keys() == {PLAIN}
    assert "A dry run is not for the docs." in ran.stdout
