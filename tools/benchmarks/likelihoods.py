"""Print what likelihoods cost: ``python tools/benchmarks/likelihoods.py``.

Value and gradient are timed in turn with the plain line of PyTorch or JAX. The pages of the losses
quote the ratios.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import timing
import torch
import torch.nn.functional as F  # noqa: N812

import spikeloss_xp as sx

POISSON, RATES = (sx.PoissonNLL(time_axis=0, log_rates=x) for x in (True, False))
BERNOULLI = sx.BernoulliNLL(time_axis=0)


def in_torch(function: Callable[..., Any], x: Any, y: Any) -> Callable[[], Any]:
    leaf, target = torch.tensor(x, requires_grad=True), torch.tensor(y)

    def run() -> None:
        leaf.grad = None
        function(leaf, target).backward()

    return run


def in_jax(function: Callable[..., Any], x: Any, y: Any) -> Callable[[], Any]:
    compiled, arrays = jax.jit(jax.value_and_grad(function)), (jnp.asarray(x), jnp.asarray(y))
    return lambda: jax.block_until_ready(compiled(*arrays))


LINES: dict[str, tuple[Any, Any, Any]] = {  # our loss, and the lines of PyTorch and of JAX
    "log rates": (POISSON, F.poisson_nll_loss, lambda x, y: (jnp.exp(x) - y * x).mean()),
    "rates": (
        RATES,
        lambda x, y: F.poisson_nll_loss(x, y, log_input=False),
        lambda x, y: (x - y * jnp.log(x)).mean(),
    ),
    "logits": (
        BERNOULLI,
        F.binary_cross_entropy_with_logits,
        lambda x, y: (jnp.logaddexp(0, x) - y * x).mean(),
    ),
}


def main() -> None:
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    for shape in ((20, 100, 10), (20, 100, 100), (20, 100, 1000)):
        x = random.normal(-1, 1, shape).astype("f")
        counts = random.poisson(0.3, shape).astype("f")
        for name, (loss, *lines) in LINES.items():
            given = np.exp(x) if name == "rates" else x
            target = (counts > 0).astype("f") if name == "logits" else counts
            for library, line in zip((in_torch, in_jax), lines, strict=True):
                runs = {"ours": library(loss, given, target), "line": library(line, given, target)}
                found = timing.times(runs)
                ratio = 1 / found["ratios"]["line"]
                print(f"{list(shape)} {name}, {library.__name__}: {ratio:.2f} times the plain line")


if __name__ == "__main__":
    main()
