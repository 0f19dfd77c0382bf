"""Log a few numbers in a PyTorch loop: see docs/guides/watch-a-training.md."""

from functools import partial

from spikeloss_xp.torch import diagnose_network


def train(network, forward, loss, optimizer, batches, log, every=100):
    """Train a network, and diagnose its first batch before each hundredth update."""
    watched = first = None
    for step, (x, y) in enumerate(batches):
        watched = watched or (x, y)
        if step % every == 0:
            run, target = partial(forward, watched[0]), watched[1]
            report = diagnose_network(
                network, loss, run, target, first, updates=max(step, 1)
            )
            first = first or report
            log(report.scalars(), step)
            problems = [f for f in report.findings if f.severity == "problem"]
            print(*problems, sep="\n", end="\n" * bool(problems))
        loss(forward(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
