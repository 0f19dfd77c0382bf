"""Change the library in one place at a time, and list the changes that no test notices.

``python tools/mutate.py`` runs a sample and writes tests/mutants.md, where people add the reasons
why mutants survive. ``--since REVISION`` draws the sample from the lines that changed after a
revision of git, and prints the survivors with these reasons. ``--only spikeloss_xp/filters.py:67``
runs all mutants of a line. A run continues where an earlier one was stopped, and runs survivors
without a reason again. To begin anew, delete build/mutants.

Each mutant is tested in a copy of the checkout, in three stages: with random calls, wrong calls
and the tests of its file, on NumPy or, for an adapter, on its own library; with the tests of its
folder, on NumPy and array-api-strict; and, unless the page gives a reason, with all quick tests. It
is found as soon as a test fails.

A row of the page names the file, the function and the change, with "..." for nested operands. It
stays valid when other lines of the function change, and when a nested operand does. If the function
has no such expression any more, the row is stale: the program prints it and leaves it out.
"""

import argparse
import ast
import hashlib
import importlib.util
import json
import math
import multiprocessing
import os
import queue
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, chain, permutations, repeat
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
WORK = ROOT / "build" / "mutants"
RESULTS = WORK / "results.jsonl"
PAGE = ROOT / "tests" / "mutants.md"
SEED = 3
UNKNOWN = "gap: not known"
SECONDS = 1200  # of a stage; an endless loop is stopped then
# The command; numbers of speed; types; libraries that need another environment.
LEFT_OUT = re.compile("spikeloss_xp/(cli|__main__|_t)|backends/_(cupy|dpnp|mlx|ndonnx)")
SLOW = "torch or jax or device1 or cupy or compiles"
QUICK, ON_NUMPY = f"not ({SLOW})", f"not ({SLOW} or strict)"
FIRST = {"_jax": "jax", "_torch": "torch", "torch": "torch", "slayer": "not jax"}
EVERY = ["tests/backends", "tests", "--ignore=tests/project", "--ignore=tests/tools"]
FEW = [  # these tests find most mutants
    f"tests/contract/test_{name}.py" for name in ("differential", "wrong_calls", "wrong_targets")
]
CORE = ["tests/test_golden.py", "tests/losses", "tests/contract"]

OPERATORS = "Lt LtE, Gt GtE, Eq NotEq, Is IsNot, In NotIn, And Or, Add Sub, Mult Div, BitAnd BitOr"
NAMES = "min max, minimum maximum, argmin argmax, any all, floor ceil, zeros ones"
PAIRS = f"{OPERATORS}, {NAMES}".split(", ")
OTHER = dict(chain(*(permutations(pair.split()) for pair in PAIRS)), FloorDiv="Mult", Mod="Mult")
DROPPED = {"abs", "astype", "ascontiguousarray", "clip", "copy", "detach"}
MASKS = {"lengths", "mask", "term_mask", "valid", "where", "weight"}


class Mutant(NamedTuple):
    """A change of one expression in a file; its `key` is the name of its row on the page."""

    file: str
    line: int
    key: str
    start: int
    stop: int
    new: str


def changed(node: Any, **fields: Any) -> Any:
    """Return a copy of a node with other fields."""
    return type(node)(**(dict(ast.iter_fields(node)) | fields))


def variants(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield pairs of an expression in a node and its replacement in a mutant."""
    match node:
        case ast.Compare(ops=[op, *others]):
            yield node, changed(node, ops=[getattr(ast, OTHER[type(op).__name__])(), *others])
        case ast.BoolOp(op=op) | ast.BinOp(op=op) | ast.AugAssign(op=op):
            if other := OTHER.get(type(op).__name__):
                yield node, changed(node, op=getattr(ast, other)())
        case ast.UnaryOp():
            yield node, node.operand
        case ast.Constant(value=bool() | int() | float() as value):
            yield node, ast.Constant(not value if isinstance(value, bool) else value + 1)
        case ast.IfExp():
            yield from ((node, node.body), (node, node.orelse))
        case ast.If():
            yield from ((node.test, ast.Constant(value)) for value in (False, True))
        case ast.Expr(value=ast.Call() as call):
            yield call, ast.Constant(None)
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(args=args, func=func)):
            if name in {getattr(x, "id", "") for x in (*args, getattr(func, "value", None))}:
                yield node.value, ast.Name(name)  # a step is left out
        case ast.Call(args=args, func=ast.Name(id=name) | ast.Attribute(attr=name) as func):
            given = [each.value for each in node.keywords if each.arg in MASKS]
            given += [each for each in args if getattr(each, "id", "") in MASKS]
            yield from ((each, ast.Constant(None)) for each in given)
            if name in OTHER:
                field = "id" if isinstance(func, ast.Name) else "attr"
                yield node, changed(node, func=changed(func, **{field: OTHER[name]}))
            if name in DROPPED and (args or isinstance(func, ast.Attribute)):
                yield node, args[0] if args else func.value
            if name == "where" and len(args) == 3:
                yield node, changed(node, args=[args[0], args[2], args[1]])


def outline(node: Any, *, nested: bool = False) -> Any:
    """Return an expression with "..." for the operands of its operands."""
    rest = ast.Constant(...)
    match node:
        case (
            ast.Name()
            | ast.Constant()
            | ast.operator()
            | ast.cmpop()
            | ast.boolop()
            | ast.unaryop()
        ):
            return node
        case ast.Attribute(value=value):
            return changed(node, value=outline(value, nested=True))
        case ast.Subscript(value=value) if nested:
            return changed(node, value=outline(value, nested=True), slice=rest)
        case ast.Call(func=func, args=args, keywords=keywords) if nested:
            given = [rest] if args or keywords else []
            return changed(node, func=outline(func, nested=True), args=given, keywords=[])
        case ast.AST() if not nested or isinstance(node, ast.keyword):
            fields = {name: outline(value, nested=True) for name, value in ast.iter_fields(node)}
            return changed(node, **fields)
        case list():
            return [outline(each, nested=True) for each in node]
    return rest if isinstance(node, ast.AST) else node


def judged(node: Any, function: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the nodes that run, with the function around them; not those of types and messages."""
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Assert | ast.arg):
        return
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        function = f"{function}.{node.name}".removeprefix(".")
    yield function, node
    skipped = {"annotation", "bases", "decorator_list", "returns"}
    for value in (value for field, value in ast.iter_fields(node) if field not in skipped):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and ast.unparse(child)[:16] != "if TYPE_CHECKING":
                yield from judged(child, function)


def mutants(file: str) -> Iterator[Mutant]:
    """Yield all mutants of a file."""
    source, seen = (ROOT / file).read_bytes(), Counter[str]()
    lines = list(accumulate(map(len, source.splitlines(keepends=True)), initial=0))
    for function, around in judged(ast.parse(source)):
        for old, made in variants(around):
            before, after = ast.unparse(old), ast.unparse(made)
            text = isinstance(old, ast.BinOp) and "'" in f"{before} {after}"
            if text or (not function and "|" in f"{before} {after}") or before == after:
                continue  # a message, a type, or no change
            parts = outline(old), outline(made, nested=type(old) is not type(made))
            key = f"{file} {function}: {' -> '.join(map(ast.unparse, parts))}"
            seen[key] += 1
            key += f" ({seen[key]})" * (seen[key] > 1)
            new = ast.unparse(made) if isinstance(made, ast.stmt) else f"({ast.unparse(made)})"
            start, stop = lines[old.lineno - 1], lines[old.end_lineno - 1]
            start, stop = start + old.col_offset, stop + old.end_col_offset
            yield Mutant(file, old.lineno, key, start, stop, new)


def changed_lines(revision: str) -> dict[str, set[int]]:
    """Return the numbers of the lines of each file that changed after a revision of git."""
    command = ["git", "diff", "-U0", revision, "--", "spikeloss_xp", "backends"]
    text = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    lines: dict[str, set[int]] = {}
    for line in text.splitlines():
        if line.startswith("+++ "):
            own = lines.setdefault(line.removeprefix("+++ b/"), set())
        elif hunk := re.match(r"@@ .* \+(\d+)(?:,(\d+))? @@", line):
            start, number = int(hunk[1]), int(hunk[2] or 1)
            own.update(range(start, start + number))
    return lines


def sample(
    number: int, seed: int, lines: dict[str, set[int]] | None = None
) -> tuple[list[Mutant], list[Mutant]]:
    """Return the drawn mutants, the same share of those of each file, and all of them.

    If `lines` are given, all mutants are in these lines.
    """
    paths = chain(ROOT.glob("spikeloss_xp/**/*.py"), ROOT.glob("backends/*.py"))
    files = sorted(str(path.relative_to(ROOT)) for path in paths)
    found = [list(mutants(file)) for file in files if not LEFT_OUT.match(file)]
    if lines is not None:
        found = [[m for m in each if m.line in lines.get(m.file, ())] for each in found]
    share, drawn = number / sum(map(len, found)), []
    for each in found:  # a change of other lines draws the same ones
        each.sort(key=lambda mutant: hashlib.sha256(f"{seed} {mutant.key}".encode()).digest())
        drawn += each[: math.ceil(share * len(each))]
    return drawn, list(chain(*found))


def stages(file: str) -> list[list[str]]:
    """Return the arguments of the runs of tests that a mutant of a file has to pass."""
    stem, folder = Path(file).stem, Path(file).parent.name
    first = FIRST.get(folder) or FIRST.get(stem[:6]) or ON_NUMPY
    names = (f"tests/test_{name.strip('_')}*.py" for name in (stem, folder))
    paths = {path for name in names for path in ROOT.glob(name)}
    named = [f"tests/{path.name}" for path in sorted(paths)]
    begin, own = [*FEW, *named], [*named, *CORE]
    folders = [f"tests/{path.name}" for path in ROOT.glob(f"tests/{folder}*/")]  # or torch_room
    if folders:
        begin, own = [*FEW, *folders], [*folders, *CORE[2:], "tests/transforms"]
    more = ["-k", QUICK if first == ON_NUMPY else first, *own]
    return [["-k", first, *begin], more, EVERY]


def run_tests(copy: Path, arguments: list[str]) -> None:
    """Run tests of a copy in this process, which has imported the array libraries only."""
    import pytest

    os.chdir(copy)
    os.environ["PYTHONPATH"] = str(copy)
    sys.path.insert(0, str(copy))
    with open("log", "w", encoding="utf-8") as sys.stdout:
        status = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *arguments])
    os._exit(status)  # whatever threads a library has left


def failing(copy: Path, arguments: list[str]) -> str:
    """Return which test of a copy fails, or an empty string if all pass or none is chosen."""
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=run_tests, args=(copy, arguments))
    process.start()
    process.join(SECONDS)
    process.kill()
    process.join()
    log = (copy / "log").read_text(encoding="utf-8", errors="replace")
    failed = re.findall(r"^(?:FAILED|ERROR) (.*)", log, re.M) or [f"exit {process.exitcode}"]
    return "" if process.exitcode in (0, 5) else failed[0]


def write(path: Path, source: bytes) -> None:
    """Write a module, without its compiled file, which may have the same time and size."""
    path.write_bytes(source)
    Path(importlib.util.cache_from_source(path)).unlink(missing_ok=True)


def judge(mutant: Mutant, stage: int, copies: "queue.Queue[Path]") -> dict[str, Any]:
    """Run the tests of a stage on a mutant, append the result and return it."""
    copy = copies.get()
    source = (copy / mutant.file).read_bytes()
    new = source[: mutant.start] + mutant.new.encode() + source[mutant.stop :]
    write(copy / mutant.file, new)
    found = failing(copy, stages(mutant.file)[stage])
    write(copy / mutant.file, source)
    copies.put(copy)
    print("found by" if found else "survives", stage, mutant.line, mutant.key, flush=True)
    result = {"key": mutant.key, "stage": stage, "found": found}
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")
    return result


def run(drawn: list[Mutant], known: dict[str, Any], reasons: dict[str, str], workers: int) -> None:
    """Run the stages of each mutant until it is found; with a reason, not the last one."""
    from _support.compilers import configure

    os.environ |= {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(WORK / "cache")}
    configure()  # programs of mutants are compiled to a folder of their own
    libraries = ["numpy", "torch", "jax", "dask.array", "array_api_strict", "pytest"]
    multiprocessing.get_context("forkserver").set_forkserver_preload(libraries)
    copies: queue.Queue[Path] = queue.Queue()
    for number in range(workers):
        copy = WORK / f"copy{number}"
        shutil.rmtree(copy, ignore_errors=True)
        ignored = shutil.ignore_patterns(".*", "build")
        shutil.copytree(ROOT, copy, symlinks=True, ignore=ignored)  # a link to its own `backends`
        copies.put(copy)
    drawn = sorted(drawn, key=lambda mutant: mutant.file, reverse=True)  # adapters are slow
    for stage in range(3):
        last = {m: known.get(m.key, {"found": "", "stage": -1}) for m in drawn}
        todo = [m for m in drawn if not last[m]["found"] and last[m]["stage"] < stage]
        todo = [m for m in todo if stage < 2 or m.key not in reasons]
        with ThreadPoolExecutor(workers) as pool:
            for result in pool.map(judge, todo, repeat(stage), repeat(copies)):
                known[result["key"]] = result


def write_page(drawn: list[Mutant], known: dict[str, Any], reasons: dict[str, str]) -> None:
    """Write the counts of each folder, and the survivors with the reasons that the page has."""
    from _support import pages

    counts: dict[str, Counter[str]] = {}
    survivors = []
    for mutant in sorted(drawn, key=lambda mutant: (mutant.file, mutant.start)):
        reason = "found" if known[mutant.key]["found"] else reasons.get(mutant.key, UNKNOWN)
        if reason != "found":
            survivors.append(("`{}`".format(mutant.key.replace("|", "\\|")), reason))
        for folder in (str(Path(mutant.file).parent), "total"):
            counts.setdefault(folder, Counter())[reason.partition(":")[0]] += 1
    kinds = ("found", "equivalent", "speed", "gap")
    folders = ((name, *(str(count[x]) for x in kinds)) for name, count in sorted(counts.items()))
    tables = [
        pages.table(("folder", *kinds), folders),
        pages.table(("mutant", "why no test fails"), survivors),
    ]
    pages.write(PAGE, {"# Mutants": tables})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", help="run the mutants of a line, drawn or not")
    parser.add_argument("--sample", type=int, default=300, help="how many are drawn, about")
    parser.add_argument("--seed", type=int, default=SEED, help="another seed draws others")
    parser.add_argument("--since", help="draw from the lines changed after this revision of git")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    lines_since = changed_lines(options.since) if options.since else None
    drawn, every = sample(options.sample, options.seed, lines_since)
    if options.only:
        drawn = [m for m in every if f"{m.file}:{m.line}" == options.only]
        return run(drawn, {}, {}, options.workers)
    RESULTS.touch()
    rows = re.findall(r"^\| `(.+)` \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.M)
    reasons = {key.replace("\\|", "|"): reason for key, reason in rows if reason != UNKNOWN}
    if not options.since:
        for key in reasons.keys() - {mutant.key for mutant in every}:
            print("stale:", key)
    lines = RESULTS.read_text(encoding="utf-8").splitlines()
    known = {result["key"]: result for result in map(json.loads, lines)}
    known = {k: x for k, x in known.items() if x["found"] or x["stage"] < 2 or k in reasons}
    run(drawn, known, reasons, options.workers)
    if options.since:
        missed = [m for m in drawn if not known[m.key]["found"]]
        print(f"the tests find {len(drawn) - len(missed)} of {len(drawn)} mutants; others:")
        reasoned = (f"{m.file}:{m.line} {m.key}: {reasons.get(m.key, UNKNOWN)}" for m in missed)
        return print(*reasoned, sep="\n")
    write_page(drawn, known, reasons)


if __name__ == "__main__":
    main()
