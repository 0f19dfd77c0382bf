"""Compare the run time of losses and plain lines on a GPU, with one array library.

``python tools/gpu/verify.py`` runs this program in a separate process, which prints one line of
JSON per row. Before a loss is timed, its results are compared with the results in NumPy.
"""

import contextlib
import importlib
import itertools
import json
import sys
import time
import warnings
from typing import Any

import numpy as np
import plain
from contenders import Run
from timing import times

from _support.gpu import DIFFERS, LIBRARIES, OURS

TOLERANCE = 1e-4
"""The largest relative error of value and gradient, after float32 sums of 3e7 terms."""
LARGE, SMALL, DRY = (1000, 256, 100), (100, 256, 20), (30, 4, 5)  # [time, batch, class]


def works(*, dry_run: bool) -> list[tuple[str, tuple[int, int, int], str]]:
    """Return the losses, sizes and layouts to measure, beginning with the large sizes."""
    if dry_run:
        return list(itertools.product(plain.LOSSES, [DRY], ["first"]))
    large = itertools.product(plain.LOSSES, [LARGE], plain.LAYOUTS)
    return [*large, *itertools.product(plain.LOSSES, [SMALL], ["first"])]


def measure(library: str, *work: Any, dry_run: bool) -> dict[str, Any]:
    """Check and time the contenders for one loss, size and layout."""
    loss, size, layout = work
    expected = plain.setups("NumPy", *work)[OURS]()()
    place, options = contextlib.nullcontext(), {"min_seconds": 0.3}  # each JAX run waits
    if dry_run:
        options = {"min_rounds": 3, "min_seconds": 0.05}
    elif library == "torch":
        import torch

        place, options["wait"] = torch.device("cuda:0"), torch.cuda.synchronize
    elif library == "cupy":
        options["wait"] = importlib.import_module("cupy").cuda.Device().synchronize
    runs: dict[str, Run] = {}
    problems: dict[str, str] = {}
    for name, setup in plain.setups(LIBRARIES[library], *work).items():
        try:
            with place:  # only here, because the context slows down every operation
                run = setup()
            result = run()
            wrong = np.max(plain.errors(result, expected)) if name == OURS else 0.0
        except Exception as failure:  # such as a lack of memory or of a compiler
            problems[name] = f"{type(failure).__name__}: {failure}".partition("\n")[0]
            continue
        if wrong <= TOLERANCE:
            runs[name] = run
        else:
            problems[name] = f"{DIFFERS} by {wrong:.1e}"
    timed = times(runs, **options) if OURS in runs else {}
    text = f"{loss} {list(size)}, time {layout}"
    return {"library": library, "work": text, "problems": problems} | timed


def main(library: str, seconds: str, *options: str) -> None:
    warnings.filterwarnings("ignore")
    dry_run = "--dry-run" in options
    deadline, chosen = time.monotonic() + float(seconds), works(dry_run=dry_run)
    while chosen and time.monotonic() < deadline:
        print(json.dumps(measure(library, *chosen.pop(0), dry_run=dry_run)))
    print(json.dumps({"left": len(chosen)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
