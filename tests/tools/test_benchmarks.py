"""Every contender of the benchmark runs, and the pages have the figures of the records."""

import dataclasses

import daily
import page
import plain
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


@pytest.mark.parametrize("library", ["PyTorch", "JAX"])
@pytest.mark.parametrize("kind", ["likelihoods", "penalties"])
def test_plain_lines_equal_our_losses(kind, library):
    pytest.importorskip({"PyTorch": "torch", "JAX": "jax"}[library])
    named = {"likelihoods": plain.LIKELIHOODS, "penalties": plain.PENALTIES}[kind]
    for name in named:
        daily.checked(getattr(daily, kind), library, name, (20, 3, 4))  # raises


@pytest.mark.parametrize("library", ["NumPy", "PyTorch"])
def test_diagnosis_is_timed_with_the_loss_alone(library):
    if library == "PyTorch":
        pytest.importorskip("torch")
    report, (value, _) = (run() for run in daily.diagnosis(library, (20, 3, 4)).values())
    assert len(report.layers) == len(daily.HIDDEN)  # three hidden layers and the output
    assert report.numbers["loss"] == pytest.approx(float(value))


def test_record_has_all_rows_of_the_benchmark():
    assert list(page.read(page.DAILY)["rows"]) == [name for name, _ in daily.rows()]


def test_pages_are_written_from_their_records():
    for path, words in page.written().items():
        assert path.read_text(encoding="utf-8") == words, (
            f"{path.name}: run tools/benchmarks/page.py"
        )
