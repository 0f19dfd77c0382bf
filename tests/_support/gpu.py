"""What a GPU has verified: the lines of docs/support.md that need one, and the record of a run.

``python tools/gpu/verify.py`` makes the record. ``python tools/write_pages.py`` writes the record
on docs/gpu.md from it, and the cells of docs/support.md that wait for a GPU.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from _support.pages import DOCS, ROOT, table

RECORD, PAGE = ROOT / "tests" / "data" / "gpu.json", DOCS / "gpu.md"
NOT_YET = "**not yet verified**: no GPU has run it"
OURS, DIFFERS = "ours", "differs from NumPy"
COPY, PLAIN, COMPILED = "a copy of the bytes", "the plain line", ", compiled"
"""Contenders of the benchmark, and how the name of a compiled one ends."""
LARGE = (256, 100, 1000)

LIBRARIES = {"cupy": "CuPy", "torch": "PyTorch", "jax": "JAX"}
BACKEND = {"cupy": "cupy", "torch": "torch-cuda", "jax": "jax-cuda"}
STAND_IN = {"cupy": ("cupy", "cupy"), "torch": ("torch", "torch"), "jax": ("jax", "jax-x64")}
"""The library and the backend on the CPU that a dry run takes in place of one on a GPU.

Its CuPy is the stand-in of the tests.
"""


@dataclass(frozen=True)
class Claim:
    """A line of docs/support.md that only a GPU can verify."""

    what: str
    library: str
    test: str = ""
    """The test that verifies it; empty for all the tests that run on the library's backend."""
    package: str = ""
    """The package that has to be installed, if a library has several."""
    without_gpu: str = ""
    """How it is checked on a machine without a GPU."""


ON_STAND_IN = "checked against a stand-in on every change"
AUTOCAST = "transforms/test_torch.py::test_autocast_computes_in_float32"
CLAIMS = (
    Claim("CuPy", "cupy", without_gpu=ON_STAND_IN),
    Claim("PyTorch on a GPU", "torch", without_gpu=ON_STAND_IN),
    Claim("JAX on a GPU", "jax", without_gpu="lowered for CUDA, ROCm and TPUs on every change"),
    Claim("CuPy for CUDA 12", "cupy", package="cupy-cuda12x"),
    Claim("CuPy for CUDA 13", "cupy", package="cupy-cuda13x"),
    Claim("autocast on CUDA", "torch", AUTOCAST),
)


@dataclass
class Counts:
    """How many tests were selected, and what came of them."""

    selected: int = 0
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    @property
    def left(self) -> int:
        return max(self.selected - self.passed - self.failed - self.skipped, 0)

    @property
    def result(self) -> str:
        if self.failed:
            return "failed"
        return "verified" if self.passed and not self.left else "not finished"

    def __str__(self) -> str:
        parts = ("passed", "failed", "skipped", "left")
        numbers = [f"{number} {part}" for part in parts if (number := getattr(self, part))]
        return ", ".join(numbers) or "none ran"


def wrong(row: Mapping[str, Any]) -> bool:
    """Tell whether a row of the benchmark found a number of ours that is wrong."""
    return any(
        name.startswith(OURS) and text.startswith(DIFFERS) for name, text in row["problems"].items()
    )


def claims(
    tests: Mapping[str, Any], libraries: Mapping[str, Any], wrong: Collection[str] = ()
) -> list[dict[str, str]]:
    """Return the result of each claim, given the tests and what is known of the libraries.

    `wrong` has the libraries whose numbers were wrong in the benchmark. A claim about one test has
    as many cases selected as ran, unless the time limit ended the run.
    """
    found = []
    for claim in CLAIMS:
        packages = libraries.get(claim.library, {}).get("packages", [])
        counts, result = None, "not run"
        if claim.library in tests and (not claim.package or claim.package in packages):
            ran = tests[claim.library]
            counts = Counts(**ran["counts"])
            if claim.test:
                one = ran["functions"].get(claim.test, {})
                counts = Counts(sum(one.values()) + counts.left, **one)
            result = "failed" if claim.library in wrong and not claim.test else counts.result
        found.append({"what": claim.what, "result": result, "tests": str(counts or "")})
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
    result = "not run"
    if found is not None:
        (result,) = (line["result"] for line in found["claims"] if line["what"] == what)
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


def _libraries(found: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    for name, seen in found["libraries"].items():
        version = seen["version"] or "not installed"
        yield (
            LIBRARIES[name],
            version,
            seen.get("cuda", ""),
            seen.get("card") or _text(seen["problem"]),
        )


def _times(found: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    for row in found["benchmarks"]:
        if "milliseconds" not in row:
            continue
        first = (row["work"], LIBRARIES[row["library"]], f"{row['milliseconds']:.3g} ms")
        for name, ratio in row["ratios"].items():
            yield (*first, name, f"{ratio:.3g}" if ratio >= 1 else f"1 / {1 / ratio:.3g}")
            first = ("", "", "")


def headline(found: Mapping[str, Any]) -> str:
    """Return a table for docs/benchmarks.md, of the losses on large spikes."""
    columns = {
        "time, as that of a copy of the bytes": (OURS, COPY),
        "compiled, as that of a copy": (OURS + COMPILED, COPY),
        "the plain line, as ours": (PLAIN, OURS),
        "both compiled": (PLAIN + COMPILED, OURS + COMPILED),
    }
    lines = []
    for row in found["benchmarks"]:
        times = {OURS: 1.0} | row.get("ratios", {})
        if str(list(LARGE)) in row["work"]:
            cells = (
                f"{times[name] / times[other]:.3g}" if name in times and other in times else ""
                for name, other in columns.values()
            )
            lines.append((f"{LIBRARIES[row['library']]}, {row['work']}", *cells))
    return table(("value and gradient", *columns), lines)


def _problems(found: Mapping[str, Any]) -> list[str]:
    lines = [
        f"- {LIBRARIES[name]}, `{failure['test']}`: {_text(failure['message'])}"
        for name, ran in found["tests"].items()
        for failure in ran["failures"]
    ]
    for row in found["benchmarks"]:
        work = f"{LIBRARIES[row['library']]}, {row['work']}"
        lines += [f"- {work}, {name}: {_text(text)}" for name, text in row["problems"].items()]
    return lines + [f"- {LIBRARIES[name]}: {text}" for name, text in found["missing"].items()]


def markdown(found: Mapping[str, Any]) -> str:
    """Return the record of a run as tables."""
    clocks = {LIBRARIES[row["library"]]: row["clock"] for row in found["benchmarks"]}
    code = f"version {found['version']}" + f", commit {found['commit']}" * bool(found["commit"])
    parts = [
        f"{found['date']}, {code}; {found['machine']}."
        + " **A dry run on the CPU, which verifies nothing about a GPU.**" * found["dry_run"],
        table(("library", "version", "CUDA", "GPU"), _libraries(found)),
        table(
            ("line of What works where", "result", "its tests"),
            ((line["what"], line["result"], line["tests"]) for line in found["claims"]),
        ),
        "Times are medians: " + "; ".join(f"{k}, {v}" for k, v in clocks.items()) + ".",
        table(
            ("work, value and gradient", "library", "time", "against", "times as long as ours"),
            _times(found),
        ),
    ]
    if problems := _problems(found):
        parts += ["What failed or did not run:", "\n".join(problems)]
    return "\n\n".join(parts)


def page(text: str) -> str:
    """Return the text of docs/gpu.md with the record at its end replaced."""
    found = record()
    none = (
        "No GPU has run the command yet, so the lines that need one are marked as not yet verified."
    )
    heading = "\n## Record\n\n"
    return (
        text.partition(heading)[0] + heading + (none if found is None else markdown(found)) + "\n"
    )
