"""Time the losses of a training on one library's GPU, beside the plain line.

``python tools/gpu/verify.py`` runs this in a process of its own, which prints a line of JSON per
row. The results of this library are compared with those of NumPy before they are timed.
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
"""Of ours, relative to the value and to the largest gradient: float32 sums of 3e7 terms."""
LARGE, SMALL, DRY = (1000, 256, 100), (100, 256, 20), (30, 4, 5)  # [time, batch, class]


def works(*, dry_run: bool) -> list[tuple[str, tuple[int, int, int], str]]:
    """Return each loss, size and layout, the large ones first."""
    if dry_run:
        return list(itertools.product(plain.LOSSES, [DRY], ["first"]))
    large = itertools.product(plain.LOSSES, [LARGE], plain.LAYOUTS)
    return [*large, *itertools.product(plain.LOSSES, [SMALL], ["first"])]


def measure(library: str, *work: Any, dry_run: bool) -> dict[str, Any]:
    """Check and time the contenders for one loss, size and layout."""
    loss, size, layout = work
    expected = plain.setups("NumPy", *work)[OURS]()()
    place, options = contextlib.nullcontext(), {"min_seconds": 0.3}  # JAX waits in each run
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
            with place:  # only here: the context slows every operation down
                run = setup()
            result = run()
            wrong = np.max(plain.errors(result, expected)) if name == OURS else 0.0
        except Exception as failure:  # out of memory, no compiler, or any other
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
