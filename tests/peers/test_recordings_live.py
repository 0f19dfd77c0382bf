"""The scores on the page docs/guides/recordings.md are those of its fit."""

import re

import pytest

from _support.pages import DOCS

PAGE = (DOCS / "guides" / "recordings.md").read_text(encoding="utf-8")


def names_before(heading):
    """Return the names that the page defines before a heading."""
    text, names = PAGE.split(f"\n## {heading}\n")[0], {}
    exec("import numpy as np\nimport spikeloss_xp as sx", names)  # as in the first example
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S):
        exec(block, names)
    return names


@pytest.mark.compiles
def test_scores_in_the_table_are_those_of_the_fit():
    pytest.importorskip("jax")
    names = names_before("Masks")
    rows = re.findall(r"^\| [^|]+ \| `(.+)` \| ([\d.]+) \|$", PAGE, re.M)
    assert len(rows) == 4
    for line, value in rows:
        assert eval(line, names) == pytest.approx(float(value), abs=1e-3), line
