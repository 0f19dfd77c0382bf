"""What a GPU has verified: the lines of docs/support.md that need one, and the record of a run.

``python tools/gpu/verify.py`` makes the record. ``python tools/write_pages.py`` writes it to
docs/support.md, and the cells that wait for a GPU there and in docs/install.md.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from _support.pages import DOCS, ROOT, ratio, table

RECORD, PAGE = ROOT / "tests" / "data" / "gpu.json", DOCS / "support.md"
NOT_YET = "**not yet verified**"
OURS, DIFFERS = "ours", "differs from NumPy"

LIBRARIES = {"cupy": "CuPy", "torch": "PyTorch", "jax": "JAX"}


@dataclass(frozen=True)
class Claim:
    """A line of docs/support.md or docs/install.md that only a GPU can verify."""

    what: str
    library: str
    test: str = ""
    """The test that verifies it; empty for all the tests that run on the library's backend."""
    package: str = ""
    """The package that has to be installed, if a library has several."""
    without_gpu: str = ""
    """How it is checked on a machine without a GPU."""


ON_STAND_IN = "checked against a stand-in"
AUTOCAST = "transforms/test_torch.py::test_autocast_computes_in_float32"
CLAIMS = (
    Claim("CuPy", "cupy", without_gpu=ON_STAND_IN),
    Claim("PyTorch on a GPU", "torch", without_gpu=ON_STAND_IN),
    Claim("JAX on a GPU", "jax", without_gpu="lowered for CUDA, ROCm and TPUs"),
    Claim("CuPy for CUDA 12", "cupy", package="cupy-cuda12x"),
    Claim("CuPy for CUDA 13", "cupy", package="cupy-cuda13x"),
    Claim("autocast on CUDA", "torch", AUTOCAST),
)


@dataclass
class Ran:
    """What came of the tests of a library: how many were selected, and outcomes and messages."""

    selected: int
    outcomes: dict[str, tuple[str, str]]

    def of(self, test: str) -> "Ran":
        """Return what came of the cases of one test; those that are left may be among them."""
        chosen = {name: x for name, x in self.outcomes.items() if name.startswith(f"{test}[")}
        return Ran(self.selected - len(self.outcomes) + len(chosen), chosen)

    def counts(self) -> Counter[str]:
        found = Counter(outcome for outcome, _ in self.outcomes.values())
        return found + Counter(left=self.selected - len(self.outcomes))

    @property
    def result(self) -> str:
        counts = self.counts()
        if counts["failed"]:
            return "failed"
        return "verified" if counts["passed"] and not counts["left"] else "not finished"

    def __str__(self) -> str:
        counts, kinds = self.counts(), ("passed", "failed", "skipped", "left")
        return ", ".join(f"{counts[kind]} {kind}" for kind in kinds if counts[kind]) or "none ran"


def claims(
    tests: Mapping[str, Ran], libraries: Mapping[str, Any], benchmarks: list[dict[str, Any]]
) -> list[dict[str, str]]:
    """Return the result of each claim, given the tests, the libraries and the benchmark."""
    wrong = {
        row["library"] for row in benchmarks if row["problems"].get(OURS, "").startswith(DIFFERS)
    }
    found = []
    for claim in CLAIMS:
        packages = libraries.get(claim.library, {}).get("packages", [])
        result, counts = "not run", ""
        if claim.library in tests and (not claim.package or claim.package in packages):
            ran = tests[claim.library]
            ran = ran.of(claim.test) if claim.test else ran
            result = "failed" if claim.library in wrong and not claim.test else ran.result
            counts = str(ran)
        found.append({"what": claim.what, "result": result, "tests": counts})
    return found


# The record --------------------------------------------------------------------------------------


def record() -> dict[str, Any] | None:
    """Return the record of the last run on a GPU, or None if none has been committed."""
    if not RECORD.exists():
        return None
    found: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
    if found["dry_run"]:
        raise ValueError(f"{RECORD.name} is the record of a dry run, which verifies nothing")
    return found


def cell(what: str, *, version: bool = False, of: Mapping[str, Any] | None = None) -> str:
    """Return what docs/support.md says of a claim: where it was verified, or its `version`."""
    found = record() if of is None else of
    (claim,) = (claim for claim in CLAIMS if claim.what == what)
    results = {} if found is None else {line["what"]: line["result"] for line in found["claims"]}
    result = results.get(what, "not run")
    if found is None or result not in ("verified", "failed"):
        return "; ".join(filter(None, (NOT_YET, claim.without_gpu)))
    library = found["libraries"][claim.library]
    if version and result == "verified":
        return str(library["version"])
    place = f"{library['card']}, {LIBRARIES[claim.library]} {library['version']}"
    return f"on {place}" if result == "verified" else f"**failed** on {place}"


# Markdown ----------------------------------------------------------------------------------------


def _text(message: str) -> str:
    """Return a message of a library as text that can stand in a table."""
    return "`" + message.replace("|", "/").replace("`", "'") + "`" if message else ""


def _libraries(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, seen in found["libraries"].items():
        version, card = seen["version"] or "not installed", seen.get("card")
        yield LIBRARIES[name], version, card or _text(seen["problem"])


def _times(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for row in found["benchmarks"]:
        if "milliseconds" in row:
            first = (row["work"], LIBRARIES[row["library"]], f"{row['milliseconds']:.3g} ms")
            for name, times_ours in row["ratios"].items():
                yield (*first, name, ratio(times_ours))
                first = ("", "", "")


def problems(found: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Yield what failed or did not run, and whether it is a failure of this library."""
    for name, failures in found["failures"].items():
        for test, message in failures.items():
            yield f"{LIBRARIES[name]}, `{test}`: {_text(message)}", True
    for row in found["benchmarks"]:
        for name, text in row["problems"].items():
            work = f"{LIBRARIES[row['library']]}, {row['work']}, {name}"
            yield f"{work}: {_text(text)}", name == OURS
    for name, text in found["missing"].items():
        yield f"{LIBRARIES[name]}: {text}", False


def markdown(found: Mapping[str, Any]) -> str:
    """Return the record of a run as tables."""
    code = f"version {found['version']}" + f", commit {found['commit']}" * bool(found["commit"])
    parts = [
        f"{found['date']}, {code}; {found['machine']}."
        + " **A dry run on the CPU, which verifies nothing about a GPU.**" * found["dry_run"],
        table(("library", "version", "GPU"), _libraries(found)),
        table(
            ("line of What works where", "result", "its tests"),
            ((line["what"], line["result"], line["tests"]) for line in found["claims"]),
        ),
        "Times are medians of wall times, until the device has finished.",
        table(
            ("work, value and gradient", "library", "time", "against", "times as long as ours"),
            _times(found),
        ),
    ]
    if lines := [f"- {line}" for line, _ in problems(found)]:
        parts += ["What failed or did not run:", "\n".join(lines)]
    return "\n\n".join(parts)


def page(text: str) -> str:
    """Return the text of docs/support.md with the record of a run at its end, if there is one."""
    found, heading = record(), "\n### Record\n\n"
    before = text.partition(heading)[0]
    return before + heading + markdown(found) + "\n" if found else before
