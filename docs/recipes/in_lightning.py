"""A Lightning module with the loss of the whole batch: see docs/processes.md."""

import lightning
import torch

from spikeloss_xp.backends.torch import LossModule


class Classifier(lightning.LightningModule):
    """A classifier whose loss is correct for any number of processes."""

    def __init__(self, network, loss, class_weights=None, learning_rate=1e-3):
        super().__init__()
        self.save_hyperparameters("loss", "learning_rate")
        self.network = network
        self.loss = LossModule(loss, weight=class_weights)

    def training_step(self, batch, batch_idx):
        """Return this process's share. Lightning averages the gradients."""
        spikes, target, options = batch
        total, weight = self.loss.sum_and_weight(
            self.network(spikes), target, **options
        )
        if self.hparams.loss.reduction == "sum":
            return total * self.trainer.world_size
        weight = self.trainer.strategy.reduce(weight, reduce_op="sum")
        # the loss is 0 if everything is masked
        weight = torch.where(weight > 0, weight, torch.inf)
        return total * self.trainer.world_size / weight

    def configure_optimizers(self):
        """Return the optimizer."""
        return torch.optim.Adam(
            self.network.parameters(), self.hparams.learning_rate
        )
