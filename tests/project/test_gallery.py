"""An example of the gallery needs no file beside it. The build of the site runs all of them."""

import ast
import re
from pathlib import Path

GALLERY = Path(__file__).parents[2] / "docs" / "gallery"
EXAMPLES = sorted(GALLERY.glob("plot_*.py"))
NOTEBOOKS = (GALLERY.parent / "notebooks").glob("plot_*.py")


def test_example_needs_no_file_beside_it() -> None:
    beside = {path.stem for path in GALLERY.glob("*.py")}
    for path in (*EXAMPLES, *NOTEBOOKS):
        text = path.read_text(encoding="utf-8")
        imported = re.findall(r"^\s*(?:import|from) (\w+)", text, flags=re.M)
        assert beside.isdisjoint(imported), path.name


def test_pictures_have_an_alternative_text() -> None:
    for path in EXAMPLES:
        text = path.read_text(encoding="utf-8")
        calls = [ast.unparse(x.func) for x in ast.walk(ast.parse(text)) if isinstance(x, ast.Call)]
        assert calls.count("describe") == calls.count("figure") > 0, path.name
