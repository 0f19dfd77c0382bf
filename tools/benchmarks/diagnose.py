"""Print what `diagnose` costs: ``python tools/benchmarks/diagnose.py``.

Its run time is given relative to value and gradient of the same loss, which is timed in turn with
it, and its memory relative to the input. docs/guides/watch-a-training.md quotes the numbers.
"""

import tracemalloc
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import timing
import torch

import spikeloss_xp as sx


def runs(library: Any, shape: tuple[int, int, int], hidden: int) -> dict[str, Callable[[], Any]]:
    """Return the two contenders for arrays ``[time, batch, class]`` and some hidden layers."""
    steps, samples, classes = shape
    random, asarray = np.random.default_rng(0), library.asarray
    spikes = random.random(shape, dtype=np.float32) < 0.1
    layers = [random.random((steps, samples, 100)) < 0.05 for _ in range(hidden)]
    sizes = [(100, 64), (100,), *[(100, 100), (100,)] * (hidden - 1), (classes, 100), (classes,)]
    given: dict[str, Any] = {}
    if hidden:
        given["hidden"] = [asarray(x, dtype=library.float32) for x in layers]
        gradients = [random.normal(0, 1e-3, size) for size in sizes]
        given["gradients"] = [asarray(x, dtype=library.float32) for x in gradients]
    loss, label = sx.CrossEntropy(time_axis=0), asarray(np.arange(samples) % classes)
    x = asarray(spikes, dtype=library.float32)
    value_and_grad = sx.value_and_grad(loss)
    return {
        "ours": lambda: sx.diagnose(loss, x, label, **given),
        "value and gradient": lambda: value_and_grad(x, label),
    }


def memory(run: Callable[[], Any], size: int) -> float:
    """Return the largest memory that a call needs, relative to a size in bytes."""
    tracemalloc.start()
    run()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / size


def main() -> None:
    torch.set_num_threads(1)
    for shape, hidden in (((20, 100, 10), 3), ((700, 250, 256), 0)):
        print(f"{list(shape)}, {hidden} hidden layers")
        for library in (np, torch, jnp):
            contenders = runs(library, shape, hidden)
            found = timing.times(contenders)
            ratio = 1 / found["ratios"]["value and gradient"]
            text = f"{found['milliseconds']:.3g} ms, {ratio:.1f} times value and gradient"
            if library is np and not hidden:
                needed = [memory(run, 4 * int(np.prod(shape))) for run in contenders.values()]
                text += "; memory {:.2f} and {:.2f} times the input".format(*needed)
            print(f"  {library.__name__}: {text}", flush=True)


if __name__ == "__main__":
    main()
