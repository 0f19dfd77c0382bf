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
LACKING = ("array_api_strict", "dask", "hypothesis", "pytest_benchmark", "xdist")
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


SEEN = {
    "cupy": {"version": "14.2.0", "packages": ["cupy-cuda13x"], "card": "A card", "problem": None},
    "torch": {"version": "2.11.0", "packages": ["torch"], "card": "A card", "problem": None},
    "jax": {"version": None, "packages": [], "problem": "ModuleNotFoundError: no | jax"},
}
CASE = f"tests/{gpu.AUTOCAST}[a b]"
PASSED, SKIPPED = (f"collected 1 items\n{CASE} {x}   [ 50%]\n" for x in ("PASSED", "SKIPPED"))
HALF = PASSED.replace("collected 1", "collected 2")
FAILED = f"{HALF}{CASE} FAILED   [100%]\nFAILED {CASE} - assert a | b"
WRONG, NO_MEMORY = f"{gpu.DIFFERS} by 1.0e-01", "OutOfMemoryError: no | memory"


@pytest.mark.parametrize(
    ("printed", "problems", "verdict", "cupy", "torch"),
    [
        (PASSED, {}, "PASSED", "verified", "verified"),
        (FAILED, {}, "FAILED", "verified", "failed"),
        (HALF, {}, "NOT FINISHED", "verified", "not finished"),
        (SKIPPED, {}, "NOT FINISHED", "verified", "not finished"),
        ("collected 0 items", {}, "NOT FINISHED", "verified", "not finished"),
        (PASSED, {gpu.OURS: WRONG}, "FAILED", "failed", "verified"),
        (PASSED, {gpu.OURS: NO_MEMORY}, "FAILED", "verified", "verified"),
        (PASSED, {PLAIN: NO_MEMORY}, "PASSED", "verified", "verified"),
    ],
)
def test_only_tests_that_passed_and_right_results_verify(printed, problems, verdict, cupy, torch):
    """Given what PyTorch's tests printed and the problems of CuPy's benchmark."""
    tests = {"cupy": gpu.Ran(0, {}), "torch": gpu.Ran(0, {})}
    verify.count(PASSED, tests["cupy"])
    verify.count(printed, tests["torch"])
    row = {"library": "cupy", "work": "counts [1, 2, 3]", "problems": problems}
    record = verify.record(SEEN, tests, [row], {}, dry_run=False)
    assert {claim["what"]: claim["result"] for claim in record["claims"]} == {
        **{"CuPy": cupy, "CuPy for CUDA 12": "not run", "CuPy for CUDA 13": cupy},
        **{"PyTorch on a GPU": torch, "autocast on CUDA": torch, "JAX on a GPU": "not run"},
    }
    status, last = verify.verdict(record)
    assert (status, last.partition(" (GPU): ")[0]) == (int(verdict != "PASSED"), verdict)
    assert all(problem.replace("|", "/") in gpu.markdown(record) for problem in problems.values())
    place = "on A card, PyTorch 2.11.0"
    shown = {"verified": place, "failed": f"**failed** {place}"}.get(torch, gpu.NOT_YET)
    assert gpu.cell("PyTorch on a GPU", of=record).startswith(shown)
    if cupy == "verified":
        assert gpu.cell("CuPy for CUDA 13", version=True, of=record) == "14.2.0"
