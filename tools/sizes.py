"""Print the size of the code, so that growth is noticed.

Run ``python tools/sizes.py`` in an environment with this checkout installed. With ``--pages``, it
prints the words of each page instead.
"""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import numpy as np

import spikeloss_xp as sx

ROOT = Path(__file__).resolve().parents[1]


def tracked(*patterns: str) -> list[Path]:
    """Return the repository's Python files that match, including files not yet committed."""
    command = ["git", "ls-files", "-co", "--exclude-standard", *patterns]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return [path for name in listed.split() if (path := ROOT / name).is_file()]


def words_of_pages() -> dict[str, int]:
    """Return the number of words of each page, including code and tables, as ``wc -w`` counts."""
    pages = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
    return {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").split())
        for path in pages
    }


def lines_of_code(path: Path) -> int:
    """Return the number of lines, excluding docstrings, comments and blank lines."""
    source = path.read_text(encoding="utf-8")
    documentation: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            statement = node.body[0]
            documentation.update(range(statement.lineno, (statement.end_lineno or 0) + 1))
    lines = enumerate((line.strip() for line in source.splitlines()), 1)
    return sum(i not in documentation for i, line in lines if line and not line.startswith("#"))


def way_of(call: Callable[[], object]) -> str:
    """Return how many calls of the library's functions a call makes, and in how many files.

    They are counted during the third call, when all caches are filled. Compare numbers only for the
    same version of Python: in 3.11, a comprehension counts as a call.
    """
    folders = tuple(str(Path(module.__file__).parent) for module in (sx, sx.backends))
    entered: list[str] = []

    def enter(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(folders):
            entered.append(frame.f_code.co_filename)

    call()
    call()
    sys.setprofile(enter)
    call()
    sys.setprofile(None)
    return f"{len(entered)} calls, {len(set(entered))} files"


def ways() -> dict[str, str]:
    """Return the number of calls and files for some typical calls."""
    spikes, label, trains = np.zeros((4, 10, 50), np.float32), np.arange(4), np.ones((4, 10, 50))
    spike_max, spike_time = (
        sx.SpikeMax(moving_window=20, time_axis=-1, reduction="sum"),
        sx.value_and_grad(sx.SpikeTime(time_axis=-1, reduction="sum")),
    )
    found = {
        "SpikeMax(20), NumPy": way_of(lambda: spike_max(spikes, label)),
        "SpikeTime, NumPy, gradient": way_of(lambda: spike_time(spikes, trains)),
    }
    found["construction of CrossEntropy"] = way_of(lambda: sx.CrossEntropy(time_axis=0))
    return found | ways_in_torch() if importlib.util.find_spec("torch") else found


def ways_in_torch() -> dict[str, str]:
    """Return the number of calls and files for typical calls on PyTorch tensors."""
    import torch

    entropy, penalty = sx.CrossEntropy(time_axis=0), sx.SparsityEnforcer(time_axis=0)
    x, y = torch.zeros(20, 100, 10, requires_grad=True), torch.arange(100) % 10
    layers = [x, torch.zeros(20, 100, 50, requires_grad=True)]
    gradients = [torch.ones(50, 30), torch.ones(10, 50)]
    options = {"hidden": layers[1:], "gradients": gradients}
    return {
        "CrossEntropy, PyTorch, backward": way_of(lambda: entropy(x, y).backward()),
        "SparsityEnforcer, PyTorch, backward": way_of(lambda: penalty(layers).backward()),
        "diagnose, PyTorch, one hidden layer": way_of(
            lambda: sx.diagnose(entropy, x, y, **options)
        ),
    }


def main() -> None:
    """Print all sizes."""
    if "--pages" in sys.argv[1:]:
        words = words_of_pages()
        for page, number in sorted(words.items(), key=lambda item: -item[1]):
            print(f"{number:6} {page}")
        print(f"{sum(words.values()):6} words in {len(words)} pages")
        return
    package = tracked("spikeloss_xp/*.py", "backends/*.py")
    tests = tracked("tests/*.py", "tools/*.py")
    print(f"lines of code        {sum(map(lines_of_code, package))}")
    print(f"modules              {len(package)}")
    for name, way in ways().items():
        print(f"way of a call        {way}: {name}")
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in tests)
    print(f"lines of tests       {lines}, with their tools")
    print(f"words of pages       {sum(words_of_pages().values())}")


if __name__ == "__main__":
    main()
