"""The gallery's examples run alone, and their drawing functions are those of `pictures.py`."""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

GALLERY = Path(__file__).parents[2] / "docs" / "gallery"
EXAMPLES = sorted(GALLERY.glob("plot_*.py"))
NOTEBOOKS = sorted((GALLERY.parent / "notebooks").glob("plot_*.py"))
PICTURES = GALLERY / "pictures.py"
BESIDE = {path.stem for path in GALLERY.glob("*.py")}
SECONDS = 300
START, END = "# sphinx_gallery_start_ignore\n", "# sphinx_gallery_end_ignore\n"

each_example = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)


def _imports(path: Path) -> set[str]:
    """Return the packages that a script cannot run without: its imports at the top level."""
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    plain = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    named = {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in plain | named}


def _statements(text: str) -> list[str]:
    """Return the source of the statements at the top level, without imports and docstring."""
    skipped = ast.Import | ast.ImportFrom | ast.Expr
    nodes = [node for node in ast.parse(text).body if not isinstance(node, skipped)]
    return [str(ast.get_source_segment(text, node)) for node in nodes]


@each_example
def test_example_imports_no_file_beside_it(path: Path) -> None:
    assert not _imports(path) & BESIDE


@each_example
def test_drawing_functions_are_copies_of_pictures(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    copies = _statements(text.partition(START)[2].partition(END)[0])

    assert "literalinclude:: /gallery/pictures.py" in text  # on the page, for who copies its cells
    assert copies
    assert set(copies) <= set(_statements(PICTURES.read_text(encoding="utf-8")))


@each_example
def test_pictures_have_an_alternative_text(path: Path) -> None:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    calls = [node.func for node in nodes if isinstance(node, ast.Call)]
    called = [function.id for function in calls if isinstance(function, ast.Name)]
    assert called.count("describe") == called.count("figure") > 0


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES + NOTEBOOKS, ids=lambda path: path.stem)
def test_example_runs_alone_in_an_empty_folder(path: Path, tmp_path: Path) -> None:
    packages = _imports(path) - BESIDE
    missing = {name for name in packages if importlib.util.find_spec(name) is None}
    if missing:
        pytest.skip(f"needs {', '.join(sorted(missing))}")
    folder = tmp_path / "empty"
    folder.mkdir()
    script = shutil.copy(path, folder)
    # Compiled as a user's program: a training run takes eight times as long without optimizations.
    environment = os.environ | {"MPLBACKEND": "agg", "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}

    process = subprocess.run(
        [sys.executable, script],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip

    assert process.returncode == 0, process.stdout + process.stderr
    assert [file.name for file in folder.iterdir()] == [path.name]
