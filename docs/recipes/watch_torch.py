"""Log a few numbers in a PyTorch loop: see docs/guides/watch-a-training.md."""

import spikeloss_xp as sx


def train(network, forward, loss, optimizer, batches, log, every=100):
    """Train a network, and log the scalars of every hundredth batch."""
    for step, (x, y) in enumerate(batches):
        output, hidden = forward(x)
        loss(output, y).backward()
        if step % every == 0:
            weights = network.named_parameters()
            gradients = {name: p.grad for name, p in weights if p.requires_grad}
            report = sx.diagnose(loss, output, y, hidden=hidden, gradients=gradients)
            log(report.scalars(), step)
        optimizer.step()
        optimizer.zero_grad()
