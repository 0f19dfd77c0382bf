"""The benchmark page is the one that its figures give."""

import page
import pytest


def test_page_is_written_from_its_figures():
    written = page.text(*page.last_figures())
    assert written == (page.DOCS / "benchmarks.md").read_text(encoding="utf-8"), (
        "run python tools/benchmarks/page.py"
    )


def test_ratios_of_the_table_are_read():
    table = """| work, value and gradient | time | against | times as long as ours | wanted |
|---|---|---|---|---|
| A | 2.45 ms | x | 71.9 | 60 |
|  |  | y | 1 / 4 | 1 / 2 **missed** |
| B | 1 ms | x | 1 / 5 |  |
| C | 1 ms |  |  |  |"""
    assert page.figures(table) == {
        ("A", "x"): (71.9, "71.9", "60", False),
        ("A", "y"): (0.25, "1 / 4", "1 / 2", True),
        ("B", "x"): (0.2, "1 / 5", "", False),
    }


def test_pictures_can_be_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    _, table, _ = page.last_figures()
    page.draw_speedup(page.figures(table), tmp_path / "a.png")
    page.draw_scaling(page.json.loads(page.SCALING.read_text()), tmp_path / "b.png")
    assert all((tmp_path / name).stat().st_size > 10_000 for name in ("a.png", "b.png"))
