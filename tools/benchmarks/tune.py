"""Time rows of the benchmark with several values of a number in `spikeloss_xp/_tuning.py`.

``python tools/benchmarks/tune.py NAME VALUE [VALUE ...] [--rows PATTERN]`` prints, for each row
whose name has the pattern, how many times as long each value takes as the present one. The values
take turns in one process.
"""

import argparse
from collections.abc import Callable
from typing import Any

from rows import ROWS, Row
from timing import times

from spikeloss_xp import _kernels, _tuning


def with_value(row: Row, name: str, value: Any) -> Callable[[], Any]:
    """Return the run of a row that has a value of its own for a tuned number."""

    def run_with_value() -> Any:
        if getattr(_tuning, name) != value:
            setattr(_tuning, name, value)
            _kernels.block_matrices.cache_clear()  # they depend on the numbers of the block filter
        return run()

    setattr(_tuning, name, value)
    run = row.contenders()["ours"]()
    run_with_value()  # compiles, with this value
    return run_with_value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", help="the number, such as CHUNK")
    parser.add_argument("values", nargs="+", type=int, help="other values to try")
    parser.add_argument("--rows", default="", help="only rows whose name has this")
    arguments = parser.parse_args()
    present = getattr(_tuning, arguments.name)
    print(f"{arguments.name} = {present}: times as long as with this value")
    for row in (row for row in ROWS if arguments.rows in row.work):
        runs = {str(x): with_value(row, arguments.name, x) for x in arguments.values}
        found = times({"ours": with_value(row, arguments.name, present), **runs})
        ratios = (f"{value}: {ratio:.2f}" for value, ratio in found["ratios"].items())
        print(f"{row.work:60} {', '.join(ratios)}", flush=True)


if __name__ == "__main__":
    main()
