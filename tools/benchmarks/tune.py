"""Time rows of the benchmark with several values of a number in `spikeloss_xp/_tuning.py`.

``python tools/benchmarks/tune.py NAME VALUE [VALUE ...] [--rows PATTERN]`` prints, for each row
whose name has the pattern, how many times as long each value takes as the present one. The values
take turns in one process.
"""

import argparse
from collections.abc import Callable
from typing import Any

from rows import Row, rows
from timing import measure_seconds, time_ratio

from spikeloss_xp import _kernels, _tuning


def with_value(row: Row, name: str, value: Any) -> Callable[[], Any]:
    """Return the run of a row that has a value of its own for a tuned number."""

    def use() -> None:
        if getattr(_tuning, name) != value:
            setattr(_tuning, name, value)
            _kernels.block_matrices.cache_clear()  # they depend on the numbers of the block filter

    use()
    run = row.ours(row.loss, row.shape)  # its first call compiles, with this value

    def run_with_value() -> Any:
        use()
        return run()

    run_with_value()
    return run_with_value


def main() -> None:
    """Measure, and print a line for each row."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", help="the number, such as CHUNK")
    parser.add_argument("values", nargs="+", type=int, help="other values to try")
    parser.add_argument("--rows", default="", help="only rows whose name has this")
    arguments = parser.parse_args()
    present = getattr(_tuning, arguments.name)
    print(f"{arguments.name} = {present}: times as long as with this value")
    for row in rows():
        if arguments.rows not in row.work:
            continue
        values = (present, *arguments.values)
        seconds = measure_seconds({str(x): with_value(row, arguments.name, x) for x in values})
        ratios = (f"{x}: {time_ratio(seconds, str(x), str(present)):.2f}" for x in values[1:])
        print(f"{row.work:60} {', '.join(ratios)}", flush=True)


if __name__ == "__main__":
    main()
