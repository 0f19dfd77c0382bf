"""An example of the gallery needs no file beside it. The build of the site runs all of them."""

import ast
from pathlib import Path

import pytest

GALLERY = Path(__file__).parents[2] / "docs" / "gallery"
EXAMPLES = sorted(GALLERY.glob("plot_*.py"))
NOTEBOOKS = sorted((GALLERY.parent / "notebooks").glob("plot_*.py"))


@pytest.mark.parametrize("path", EXAMPLES + NOTEBOOKS, ids=lambda path: path.stem)
def test_example_needs_no_file_beside_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)):
        names = [x.name for x in node.names] if isinstance(node, ast.Import) else []
        names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
        assert not {x.partition(".")[0] for x in names} & {x.stem for x in GALLERY.glob("*.py")}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_pictures_have_an_alternative_text(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    calls = [ast.unparse(x.func) for x in ast.walk(ast.parse(text)) if isinstance(x, ast.Call)]
    assert calls.count("describe") == calls.count("figure") > 0
