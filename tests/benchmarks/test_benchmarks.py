"""Each piece of work of the benchmark, run once; timed with ``--benchmark-enable``."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("jax")

from rows import rows

# What PyTorch itself loads when it first compiles.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

CONTENDERS = [
    (row, who, setup)
    for row in rows()
    for who, setup in {"ours": row.ours, **{k: v[0] for k, v in row.others.items()}}.items()
]


@pytest.mark.parametrize(
    ("row", "who", "setup"), CONTENDERS, ids=[f"{row.work} / {who}" for row, who, _ in CONTENDERS]
)
def test_it_runs(benchmark, row, who, setup):
    small = tuple(min(size, limit) for size, limit in zip(row.shape, (2, 16, 300), strict=True))
    shape = small if benchmark.disabled else row.shape
    try:
        run = setup(row.loss, shape)
    except ModuleNotFoundError as error:
        pytest.skip(f"{error.name} is not installed")
    benchmark(run)
