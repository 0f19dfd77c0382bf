"""Every contender of the benchmark runs, and the page has the figures of its record."""

import dataclasses

import page
import pytest
from rows import ROWS

# PyTorch warns about code that it loads itself on the first compilation.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")


@pytest.mark.slow(but=20)
@pytest.mark.parametrize(
    ("row", "contender"),
    [pytest.param(row, x, id=f"{row.work} / {x}") for row in ROWS for x in row.contenders()],
)
def test_contender_runs(row, contender):
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    shape = tuple(min(size, limit) for size, limit in zip(row.shape, (2, 16, 300), strict=True))
    try:
        run = dataclasses.replace(row, shape=shape).contenders()[contender]()
    except ModuleNotFoundError as error:
        pytest.skip(f"{error.name} is not installed")
    run()


def test_page_is_written_from_its_records():
    written = page.PAGE.read_text(encoding="utf-8")
    assert written == page.text(written, *page.records()), "run tools/benchmarks/page.py"
