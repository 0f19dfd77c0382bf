"""The page docs/guides/recordings.md: its scores, and what it says about nemos and PyTorch."""

import re

import pytest

from _support.pages import DOCS

PAGE = (DOCS / "guides" / "recordings.md").read_text(encoding="utf-8")


def names_before(heading):
    """Return the names that the page defines before a heading."""
    text, names = PAGE.split(f"\n## {heading}\n")[0], {}
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S):
        exec(block, names)
    return names


@pytest.mark.compiles
def test_scores_in_the_table_are_those_of_the_fit():
    for needed in ("jax", "torch"):
        pytest.importorskip(needed)
    names = names_before("The same data in nemos")
    rows = re.findall(r"^\| [^|]+ \| `(.+)` \| ([\d.]+) \|$", PAGE, re.M)
    assert len(rows) == 4
    for line, value in rows:
        assert eval(line, names) == pytest.approx(float(value), abs=1e-3), line
