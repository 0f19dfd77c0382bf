"""Send scalars to Weights & Biases: see docs/guides/watch-a-training.md."""

import wandb

run = wandb.init(project="spikes")  # without internet access, add mode="offline"


def log(scalars, step):
    """Send the scalars of one step."""
    run.log(scalars, step=step)
