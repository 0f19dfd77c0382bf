"""Every contender of the benchmark runs, and the pages have the figures of the records."""

import daily
import others
import page
import plain
import pytest

# PyTorch warns about code that it loads itself on the first compilation.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")


SMALL = (2, 16, 300)  # [batch, class, time]


@pytest.mark.slow(but=8)
@pytest.mark.parametrize(
    ("setup", "library", "loss"),
    [
        *((others.SETUPS[other], library, loss) for loss, _, library, other in others.ROWS),
        *((setup, library, others.spike_time(100)) for setup, library in others.CURVES.values()),
    ],
)
def test_contender_runs(setup, library, loss):
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    try:
        run = setup(library, loss, SMALL)
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


def test_records_have_all_rows_of_the_benchmark():
    assert list(page.read(page.DAILY)["rows"]) == [name for name, _ in daily.rows()]
    rows = page.read(page.RECORD)["rows"]
    assert [row["work"] for row in rows] == [others.name_of(*row) for row in others.ROWS]
    assert [[*row["ratios"]] for row in rows] == [[other] for *_, other in others.ROWS]
    scaling = page.read(page.SCALING)
    assert {name: x["sizes"] for name, x in scaling.items()} == {
        name: sizes for name, (sizes, _) in others.SWEEPS.items()
    }
    assert all(x["milliseconds"].keys() == page.CURVES.keys() for x in scaling.values())


def test_page_is_written_from_its_records():
    assert page.PAGE.read_text(encoding="utf-8") == page.written(), "run tools/benchmarks/page.py"
