"""Log a few numbers in a PyTorch loop: see docs/guides/watch-a-training.md."""

from contextlib import nullcontext

import spikeloss_xp as sx
from spikeloss_xp.torch import record


def train(network, forward, loss, optimizer, batches, log, every=100):
    """Train a network, and log the scalars of every hundredth batch."""
    for step, (x, y) in enumerate(batches):
        watched = step % every == 0
        with record(network) if watched else nullcontext() as seen:
            output = forward(x)
        loss(output, y).backward()
        if watched:
            found = {"hidden": seen.hidden, "gradients": seen.gradients}
            log(sx.diagnose(loss, output, y, **found).scalars(), step)
        optimizer.step()
        optimizer.zero_grad()
