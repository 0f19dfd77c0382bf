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
COPY, PLAIN = "a copy of the bytes", "the plain line"


@pytest.mark.slow
def test_dry_run_goes_through_all_steps(tmp_path):
    for library in ("torch", "jax"):
        pytest.importorskip(library)
    for package in LACKING:
        text = f"raise ModuleNotFoundError('No module named {package}', name={package!r})\n"
        (tmp_path / f"{package}.py").write_text(text, encoding="utf-8")
    environment = os.environ | {
        "PYTHONPATH": str(tmp_path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu",
    }  # fmt: skip
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
    assert len(record["benchmarks"]) == 27
    for row in record["benchmarks"]:
        if "ModuleNotFoundError: No module named 'optax'" in row["problems"].values():
            assert (row["library"], row["problems"].keys()) == ("jax", {PLAIN})
        else:
            assert row["problems"] == {}
            assert row["ratios"].keys() == {COPY, PLAIN}
    assert "A dry run is not for the docs." in ran.stdout


# What is made of the results ---------------------------------------------------------------------

SEEN = {
    "cupy": {"version": "14.2.0", "packages": ["cupy-cuda13x"], "card": "A card", "problem": None},
    "torch": {"version": "2.11.0", "packages": ["torch"], "card": "A card", "problem": None},
    "jax": {"version": None, "packages": [], "problem": "ModuleNotFoundError: no | jax"},
}
ROW = {
    "library": "cupy",
    "work": "counts [1, 2, 3]",
    "problems": {},
    "milliseconds": 2.0,
    "ratios": {COPY: 0.25, PLAIN: 3.0},
}


def printed(*outcomes, selected=None):
    """Return what pytest prints for tests with these outcomes, each a case of autocast."""
    cases = [f"tests/{gpu.AUTOCAST}[a {x}]" for x in range(len(outcomes))]
    lines = [f"collected {len(cases) if selected is None else selected} items"]
    lines += [f"{case} {x.upper()}   [ 10%]" for case, x in zip(cases, outcomes, strict=True)]
    pairs = zip(cases, outcomes, strict=True)
    lines += [f"FAILED {case} - assert a | b" for case, x in pairs if x == "failed"]
    return "\n".join(lines)


def ran(text):
    """Return the results of a process that printed a text."""
    found = gpu.Ran(0, {})
    verify.count(text, found)
    return found


def record_of(rows=(ROW,), **processes):
    """Return the record of a run in which pytest printed a text for each library."""
    tests = {library: ran(text) for library, text in processes.items()}
    return verify.record(SEEN, tests, list(rows), {}, dry_run=False)


def results(record):
    return {claim["what"]: claim["result"] for claim in record["claims"]}


def test_claims_are_verified_by_the_tests_of_their_library():
    record = record_of(cupy=printed("passed", "skipped"), torch=printed("passed", "failed"))
    assert results(record) == {
        "CuPy": "verified",
        "PyTorch on a GPU": "failed",
        "JAX on a GPU": "not run",
        "CuPy for CUDA 12": "not run",
        "CuPy for CUDA 13": "verified",
        "autocast on CUDA": "failed",
    }
    assert gpu.cell("CuPy", of=record) == "on A card, CuPy 14.2.0"
    assert gpu.cell("CuPy for CUDA 13", version=True, of=record) == "14.2.0"
    assert gpu.cell("PyTorch on a GPU", of=record) == "**failed** on A card, PyTorch 2.11.0"
    assert gpu.cell("JAX on a GPU", of=record).startswith(f"{gpu.NOT_YET}; lowered")
    status, last = verify.verdict(record)
    assert (status, last.partition(":")[0]) == (1, "FAILED (GPU)")
    assert gpu.AUTOCAST in last


@pytest.mark.parametrize(
    "written",
    [printed("passed", selected=2), printed(), printed("skipped")],
    ids=["cut", "none", "skip"],
)
def test_tests_that_did_not_run_verify_nothing(written):
    record = record_of(torch=written)
    assert results(record)["PyTorch on a GPU"] == "not finished"
    assert gpu.cell("PyTorch on a GPU", of=record).startswith(f"{gpu.NOT_YET}; checked")
    status, last = verify.verdict(record)
    assert (status, last.partition(":")[0]) == (1, "NOT FINISHED (GPU)")


@pytest.mark.parametrize(
    ("contender", "problem", "status", "result"),
    [
        (gpu.OURS, f"{gpu.DIFFERS} by 1.0e-01", 1, "failed"),
        (gpu.OURS, "OutOfMemoryError: no | memory", 1, "verified"),
        (PLAIN, "OutOfMemoryError: no | memory", 0, "verified"),
    ],
)
def test_problem_of_the_benchmark_is_a_failure_if_it_is_ours(contender, problem, status, result):
    row = {**ROW, "problems": {contender: problem}}
    record = record_of([row], cupy=printed("passed"), torch=printed("passed"))
    assert results(record)["CuPy"] == result
    assert results(record)["PyTorch on a GPU"] == "verified"
    assert verify.verdict(record)[0] == status
    assert problem.replace("|", "/") in gpu.markdown(record)
