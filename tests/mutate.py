"""Change the library in one place at a time, and list the changes that no test notices.

Run ``python tests/mutate.py`` for the whole sample, or ``--only spikeloss_xp/filters.py:123`` for the
mutants of a line. Results are appended to build/mutants/results.jsonl, so that a run can go on;
``--restart`` forgets them, ``--survivors`` runs those again that survived, and ``--page`` writes
docs/mutants.md from them and from the reasons in tests/data/mutants.json.

A mutant runs in a copy of the checkout: first on the library of its file, which is NumPy but for
adapters, with the tests named after its file before the others; then its own tests on all libraries;
then all quick tests of the mathematics and the adapters. It is found when one of them fails.

mutmut 3.8 names a mutant after the path of its file, which is not the module in backends/, skips
functions with a decorator, and puts a trampoline before each function, which compilers then trace.
cosmic-ray 8.7 starts one command for each mutant, with the import of PyTorch and JAX in each, has no
stages, and no mutants of masks, axes and copies.
"""

import argparse
import ast
import hashlib
import importlib.util
import itertools
import json
import math
import multiprocessing
import os
import queue
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "mutants"
RESULTS = WORK / "results.jsonl"
REASONS = ROOT / "tests" / "data" / "mutants.json"
PAGE = ROOT / "docs" / "mutants.md"
SEED, SAMPLE = 0, 340
CPU_SECONDS, SECONDS = 1500, 5400
"""Limits on a stage: processor time, which ends endless loops, and the clock, for locks."""
LEFT_OUT = (  # commands; sizes of speed; types; libraries that are tested in other environments
    *("spikeloss_xp/cli/*", "spikeloss_xp/__main__.py", "spikeloss_xp/_tuning.py"),
    *("spikeloss_xp/_typing.py", "backends/_dpnp.py", "backends/_mlx.py", "backends/_ndonnx.py"),
)
HOST = "not (torch or jax or strict or cupy or compiles)"
OWN = {  # the beginning of a path: which cases run first, and the tests to begin with
    "backends/_cupy": ("cupy", "tests/backends"),
    "backends/_dask": (HOST, "tests/backends/test_dask.py"),
    "backends/_jax": ("jax", "tests/transforms/test_jax.py tests/backends"),
    "backends/_torch": ("torch", "tests/transforms/test_torch.py tests/backends tests/transforms"),
    "backends/torch": ("torch", "tests/backends/test_loss_module.py tests/transforms/test_torch.py"),
    "backends/": (HOST, "tests/test_golden.py tests/backends"),
    "spikeloss_xp/_kernels": (HOST, "tests/test_filters.py"),
    "spikeloss_xp/_block_filter": (HOST, "tests/test_filters.py"),
    "spikeloss_xp/distances": (HOST, "tests/distances"),
    "spikeloss_xp/slayer": ("not jax", "tests/slayer"),
    "spikeloss_xp/times": (HOST, "tests/times"),
    "spikeloss_xp/": (HOST, "tests/test_golden.py tests/losses tests/contract/test_differential.py"),
}
FOLDERS = "backends contract distances losses slayer times transforms".split()

OTHER = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq},
    **{ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn},
    **{ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And, ast.Add: ast.Sub, ast.Sub: ast.Add},
    **{ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult},
    **{ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd},
}
PAIRS = "min max, minimum maximum, argmin argmax, any all, floor ceil, zeros ones, zeros_like ones_like"
SWAPPED = {a: b for pair in PAIRS.split(", ") for a, b in itertools.permutations(pair.split())}
DROPPED = {"abs", "astype", "ascontiguousarray", "clip", "copy", "detach"}
MASKS = {"lengths", "mask", "term_mask", "valid", "where", "weight"}


@dataclass(frozen=True)
class Mutant:
    """A change of one expression; `name` says where it is, and `key` stays if lines move."""

    file: str
    name: str
    key: str
    start: int
    stop: int
    new: str

    def of(self, source: bytes) -> bytes:
        return source[: self.start] + self.new.encode() + source[self.stop :]


def changed(node: Any, **fields: Any) -> Any:
    """Return a copy of a node with other fields."""
    return type(node)(**{**dict(ast.iter_fields(node)), **fields})


def variants(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield pairs of an expression in a node and what a mutant has in its place."""
    match node:
        case ast.Compare(ops=[op, *others]) if type(op) in OTHER:
            yield node, changed(node, ops=[OTHER[type(op)](), *others])
        case (ast.BoolOp(op=op) | ast.BinOp(op=op) | ast.AugAssign(op=op)) if type(op) in OTHER:
            yield node, changed(node, op=OTHER[type(op)]())
        case ast.UnaryOp():
            yield node, node.operand
        case ast.Constant(value=bool(value)):
            yield node, ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield node, ast.Constant(value + 1)
        case ast.Constant(value=float(value)):
            yield node, ast.Constant(2 * value if value else 1.0)
        case ast.IfExp():
            yield from ((node, node.body), (node, node.orelse))
        case ast.If() | ast.While():
            yield from ((node.test, ast.Constant(value)) for value in (False, True)[: 2 - isinstance(node, ast.While)])
        case ast.Expr(value=ast.Call() as call):
            yield call, ast.Constant(None)
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(args=args, func=func)):
            read = [*args, getattr(func, "value", None)]
            if any(isinstance(x, ast.Name) and x.id == name for x in read):
                yield node.value, ast.Name(name)
        case ast.keyword(arg=name, value=value) if name in MASKS and not isinstance(value, ast.Constant):
            yield value, ast.Constant(None)
        case ast.Call(args=args, func=ast.Name(id=name) | ast.Attribute(attr=name)):
            yield from calls(node, name, args)


def calls(node: ast.Call, name: str, args: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield the mutants of a call of a function or method with a name."""
    field = "id" if isinstance(node.func, ast.Name) else "attr"
    if name in SWAPPED:
        yield node, changed(node, func=changed(node.func, **{field: SWAPPED[name]}))
    if name in DROPPED and (args or field == "attr"):
        yield node, args[0] if args else node.func.value
    if name == "where" and len(args) == 3:
        yield node, changed(node, args=[args[0], args[2], args[1]])
    for arg in args:
        if isinstance(arg, ast.Name) and arg.id in MASKS:
            yield arg, ast.Constant(None)


def judged(node: Any, function: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the nodes that run, with the name of the function around them, but for messages."""
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Assert | ast.arg | ast.ImportFrom | ast.Import):
        return
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        function = f"{function}.{node.name}".removeprefix(".")
    yield function, node
    for field, value in ast.iter_fields(node):
        if field not in ("annotation", "bases", "decorator_list", "returns"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and "TYPE_CHECKING" not in ast.unparse(child)[:20]:
                    yield from judged(child, function)


def mutants(file: str) -> Iterator[Mutant]:
    """Yield all mutants of a file."""
    source = (ROOT / file).read_bytes()
    lines = list(itertools.accumulate(map(len, source.splitlines(True)), initial=0))
    seen: Counter[str] = Counter()
    for function, within in judged(ast.parse(source)):
        for node, new in variants(within):
            old, text = ast.unparse(node), ast.unparse(new)
            if not function and "|" in old:
                continue  # a type
            key = f"{file} {function}: {old} -> {text}"
            seen[key] += 1
            key += f" ({seen[key]})" * (seen[key] > 1)
            start, stop = (
                lines[line - 1] + column
                for line, column in (
                    (node.lineno, node.col_offset),
                    (node.end_lineno, node.end_col_offset),
                )
            )
            name = f"{file}:{node.lineno}:{node.col_offset}: {old} -> {text}"
            yield Mutant(file, name, key, start, stop, text if isinstance(new, ast.stmt) else f"({text})")


def order(mutant: Mutant) -> bytes:
    """Return what the mutants of a file are drawn by; a change elsewhere leaves it as it is."""
    return hashlib.sha256(f"{SEED} {mutant.key}".encode()).digest()


def sample() -> tuple[list[Mutant], list[Mutant]]:
    """Return the mutants that are drawn, the same share of each file, and all of them."""
    files = [*ROOT.glob("spikeloss_xp/**/*.py"), *ROOT.glob("backends/*.py")]
    names = sorted(path.relative_to(ROOT) for path in files)
    points = [list(mutants(str(n))) for n in names if not any(map(n.match, LEFT_OUT))]
    share = SAMPLE / sum(map(len, points))
    drawn = [sorted(found, key=order)[: math.ceil(share * len(found))] for found in points]
    return sorted(itertools.chain(*drawn), key=order), list(itertools.chain(*points))


def stages(file: str) -> list[list[str]]:
    """Return the arguments of the runs of tests that a mutant of a file has to pass."""
    start = next(start for start in OWN if file.startswith(start))
    first, tests = OWN[start]
    quick = "numpy" if first == HOST else first
    stem = Path(file).stem.strip("_")
    places = [f"tests/{folder}/test_{stem}*.py" for folder in (".", *FOLDERS)]
    named = [str(path.relative_to(ROOT)) for place in places for path in sorted(ROOT.glob(place))]
    own = (named if start.endswith("/") else []) or tests.split()
    every = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "tests").glob("test_*.py"))]
    every += [f"tests/{folder}" for folder in FOLDERS]
    others = [tests for tests in every if tests not in own]
    return [
        ["-k", first, *own],
        ["-k", quick, *others],
        ["-k", f"not ({first})", *own],
        ["-k", f"not ({quick})", *others],
    ]


def run_tests(copy: Path, arguments: list[str]) -> None:
    """Run tests of a copy in this process, which has imported the array libraries only."""
    import pytest

    os.setsid()
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    os.chdir(copy)
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ["PYTHONPATH"] = str(copy)
    sys.path.insert(0, str(copy))
    status = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *arguments])
    sys.stdout.flush()
    os._exit(status)


def passes(copy: Path, arguments: list[str]) -> tuple[bool, str]:
    """Return whether tests of a copy pass, and the end of what they print."""
    process = multiprocessing.get_context("forkserver").Process(
        target=run_tests, args=(copy, arguments)
    )
    process.start()
    process.join(SECONDS)
    if process.is_alive():
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
    log = (copy / "log").read_text(encoding="utf-8", errors="replace")
    failed = re.findall(r"^(?:FAILED|ERROR) (.*)", log, re.M)
    return process.exitcode in (0, 5), failed[0][:300] if failed else f"exit {process.exitcode} {log[-300:]}"


def make_copy(number: int) -> Path:
    """Copy the files of the checkout, with the adapters where an import of the core finds them."""
    copy = WORK / f"copy{number}"
    shutil.rmtree(copy, ignore_errors=True)
    listed = ["git", "ls-files", "-co", "--exclude-standard"]
    for name in subprocess.check_output(listed, cwd=ROOT, text=True).splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    (copy / "spikeloss_xp" / "backends").symlink_to("../backends")
    return copy


def judge(mutant: Mutant, stage: int, copies: "queue.Queue[Path]") -> None:
    """Run the tests of a stage on a mutant, and append the result."""
    copy = copies.get()
    path, begin = copy / mutant.file, time.time()
    compiled = Path(importlib.util.cache_from_source(path))
    original = path.read_bytes()
    try:
        path.write_bytes(mutant.of(original))
        compiled.unlink(missing_ok=True)  # it may have the time and the size of the mutant
        good, end = passes(copy, stages(mutant.file)[stage])
    finally:
        path.write_bytes(original)
        compiled.unlink(missing_ok=True)
        copies.put(copy)
    result = {"key": mutant.key, "found": not good, "stage": stage, "by": end, "name": mutant.name}
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(result | {"seconds": round(time.time() - begin)}) + "\n")
    print("found   " if not good else f"passes {stage}", mutant.name, flush=True)


def results() -> dict[str, dict[str, Any]]:
    """Return the last result of each mutant by its key."""
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.exists() else []
    return {found["key"]: found for found in map(json.loads, lines)}


def write_page(drawn: list[Mutant]) -> None:
    """Write the counts of each folder, and the survivors with their reasons."""
    known, reasons = results(), json.loads(REASONS.read_text(encoding="utf-8"))
    counts: dict[str, Counter[str]] = {}
    rows = []
    for mutant in sorted(drawn, key=lambda m: (m.file, m.start)):
        result = known[mutant.key]["found"] or reasons.get(mutant.key, "gap: no reason is recorded")
        kind = "found" if known[mutant.key]["found"] else result.partition(":")[0]
        counts.setdefault(str(Path(mutant.file).parent), Counter())[kind] += 1
        if kind != "found":
            where, _, change = mutant.key.partition(": ")
            rows.append(f"| `{where}` | `{change}` | {result} |".replace("->", "→"))
    total = sum(counts.values(), Counter())
    kinds = ("found", "equivalent", "speed", "gap")
    lines = [(name, *(str(count[kind]) for kind in kinds)) for name, count in counts.items()]
    lines.append(("all", *(str(total[kind]) for kind in kinds)))
    table = ["| folder | found | equivalent | speed only | not found |", "|---|---|---|---|---|"]
    table += [f"| {' | '.join(line)} |" for line in lines]
    survivors = ["| place | change | why no test fails |", "|---|---|---|", *rows]
    text = PAGE.read_text(encoding="utf-8")
    head = text[: text.index("| folder |")]
    middle = re.search(r"\n\n[^|]+(?=\| place \|)", text)[0]  # type: ignore[index]
    PAGE.write_text(head + "\n".join(table) + middle + "\n".join(survivors) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", help="run the mutants whose name begins so, drawn or not")
    parser.add_argument("--list", action="store_true", help="print the mutants, and run none")
    parser.add_argument("--restart", action="store_true", help="forget the results")
    parser.add_argument("--survivors", action="store_true", help="run the survivors again")
    parser.add_argument("--page", action="store_true", help="write the page, and run none")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    drawn, every = sample()
    if options.page:
        return write_page(drawn)
    if options.restart:
        RESULTS.unlink(missing_ok=True)
    known = results()
    if options.only:
        drawn = [mutant for mutant in every if mutant.name.startswith(options.only)]
    if options.only or options.survivors:
        known = {key: result for key, result in known.items() if result["found"] and not options.only}
    print(f"{len(drawn)} of {len(every)} mutants; {len(known)} have results")
    if options.list:
        return print(*(mutant.name for mutant in drawn), sep="\n")
    begin_server()
    copies: queue.Queue[Path] = queue.Queue()
    for number in range(options.workers):
        copies.put(make_copy(number))
    for stage in range(4):  # the quick tests of all mutants before the slow ones of those that pass
        todo = [m for m in drawn if m.key not in known or (not known[m.key]["found"] and known[m.key]["stage"] < stage)]
        todo.sort(key=lambda mutant: "jax" in mutant.file)  # which take long, last
        with ThreadPoolExecutor(options.workers) as pool:
            list(pool.map(lambda mutant: judge(mutant, stage, copies), todo))
        known |= {key: found for key, found in results().items() if any(key == m.key for m in todo)}


def begin_server() -> None:
    """Set up the process that imports the array libraries once, and that test runs are forks of."""
    from _support.compilers import configure

    os.environ |= {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(WORK / "cache")}
    configure()  # programs of mutants are compiled to a folder of their own
    libraries = "numpy torch jax dask.array array_api_strict hypothesis pytest _pytest.pytester".split()
    multiprocessing.get_context("forkserver").set_forkserver_preload(libraries)


if __name__ == "__main__":
    main()
