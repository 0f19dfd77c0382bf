"""The benchmark page is the one that its figures give."""

import page
import pytest


def test_page_is_written_from_its_figures():
    written = page.PAGE.read_text(encoding="utf-8")
    assert written == page.text(written, *page.last_figures()), "run tools/benchmarks/page.py"


@pytest.mark.parametrize("figure", ["164", "56 have", "1.35 times", "Measured on: "])
def test_changed_figure_of_the_page_is_replaced(figure):
    written, figures = page.PAGE.read_text(encoding="utf-8"), page.last_figures()
    changed = written.replace(
        figure, figure + "7" if figure.endswith(" ") else "99" + figure[2:], 1
    )
    assert changed != written
    assert page.text(changed, *figures) == written


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
