"""Print how large the code is, so that a change that makes it larger is seen.

Run ``python tools/sizes.py`` in an environment with this checkout installed.
"""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import numpy as np

import spikeloss_xp as sx

ROOT = Path(__file__).resolve().parents[1]


def tracked(*patterns: str) -> list[Path]:
    """Return the Python files of the repository that match, whether or not they are committed."""
    command = ["git", "ls-files", "-co", "--exclude-standard", *patterns]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return [path for name in listed.split() if (path := ROOT / name).is_file()]


def lines_of_code(path: Path) -> int:
    """Return the number of lines without docstrings, comments and blank lines."""
    source = path.read_text(encoding="utf-8")
    documentation: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            statement = node.body[0]
            documentation.update(range(statement.lineno, (statement.end_lineno or 0) + 1))
    lines = enumerate((line.strip() for line in source.splitlines()), 1)
    return sum(
        1 for i, line in lines if line and not line.startswith("#") and i not in documentation
    )


def place(path: Path) -> str:
    """Return the module or folder directly below the package that a file belongs to."""
    folder, first, *_ = path.relative_to(ROOT).parts
    return "backends" if folder == "backends" else first.removesuffix(".py")


def longest_chain(paths: list[Path]) -> list[str]:
    """Return the longest chain of imports between the modules and folders of the package.

    The adapters are left out: the registry imports one when the first array of its library arrives.
    """
    places = {place(path) for path in paths} - {"backends"}
    needs: dict[str, set[str]] = {name: set() for name in places}
    for path in paths:
        importer = place(path)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:  # what an import runs
            module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            for alias in getattr(node, "names", ()):
                package, _, inside = f"{module}{alias.name}".partition(".")
                found = inside.partition(".")[0]
                found = found if found in (*places, "backends") else "__init__"
                if package == "spikeloss_xp" and "backends" not in (importer, found):
                    needs[importer].add(found)
        needs.get(importer, set()).discard(importer)

    @functools.cache
    def chain_from(name: str) -> list[str]:
        return [name, *max(map(chain_from, sorted(needs[name])), key=len, default=[])]

    return max(map(chain_from, sorted(places)), key=len)


def files_of_a_call() -> int:
    """Return how many files of the library ``SpikeMax(20)(spikes, label)`` runs code of."""
    spikes, label = np.zeros((4, 10, 100), np.float32), np.arange(4)
    sx.SpikeMax(20)(spikes, label)
    folders = {str(Path(module.__file__).parent) for module in (sx, sx.backends)}
    files: set[str] = set()

    sys.setprofile(lambda frame, *_: files.add(frame.f_code.co_filename))
    sx.SpikeMax(20)(spikes, label)
    sys.setprofile(None)
    return len([name for name in files if name.startswith(tuple(folders))])


def main() -> None:
    """Print the sizes."""
    package = tracked("spikeloss_xp/*.py", "backends/*.py")
    tests = tracked("tests/*.py", "tools/*.py")
    chain = longest_chain(package)
    bases = [kind for kind in sx.SpikeMax.__mro__[1:] if kind.__module__.startswith("spikeloss_xp")]
    print(f"lines of code        {sum(map(lines_of_code, package))}")
    print(f"modules              {len(package)}")
    print(f"longest import chain {len(chain)}: {' -> '.join(chain)}")
    print(f"bases of a loss      {len(bases)}: {', '.join(kind.__name__ for kind in bases)}")
    print(f"files of a call      {files_of_a_call()}")
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in tests)
    print(f"lines of tests       {lines}, with their tools")


if __name__ == "__main__":
    main()
