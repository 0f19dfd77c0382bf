"""Send scalars to TensorBoard: see docs/guides/watch-a-training.md."""

from torch.utils.tensorboard import SummaryWriter

writer = SummaryWriter()  # writes files to the folder "runs"


def log(scalars, step):
    """Send the scalars of one step."""
    for name, value in scalars.items():
        writer.add_scalar(name, value, step)
