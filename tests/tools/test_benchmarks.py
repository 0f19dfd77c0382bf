"""Run every contender of the benchmark once; ``--benchmark-enable`` times them."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("jax")

from rows import rows

# PyTorch warns about code that it loads itself on the first compilation.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")

CONTENDERS = [
    (row, contender, setup)
    for row in rows()
    for contender, setup in {"ours": row.ours, **{k: v[0] for k, v in row.others.items()}}.items()
]


@pytest.mark.slow(but=20)
@pytest.mark.parametrize(
    ("row", "contender", "setup"),
    CONTENDERS,
    ids=[f"{row.work} / {contender}" for row, contender, _ in CONTENDERS],
)
def test_contender_runs(benchmark, row, contender, setup):
    small = tuple(min(size, limit) for size, limit in zip(row.shape, (2, 16, 300), strict=True))
    shape = small if benchmark.disabled else row.shape
    try:
        run = setup(row.loss, shape)
    except ModuleNotFoundError as error:
        pytest.skip(f"{error.name} is not installed")
    benchmark(run)
