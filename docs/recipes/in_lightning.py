"""A Lightning module with the loss of the whole batch: see docs/processes.md."""

import lightning
import torch

from spikeloss_xp.torch import LossModule, parameter_groups


def scaled_adam(network):
    """Return Adam with the learning rates of "Initialisation"."""
    return torch.optim.Adam(parameter_groups(network))


class Classifier(lightning.LightningModule):
    """A classifier whose loss is correct for any number of processes.

    `optimizer` is called with the network. It returns an optimizer, or whatever
    else `configure_optimizers` may return.
    """

    def __init__(self, network, loss, class_weights=None, optimizer=scaled_adam):
        super().__init__()
        self.save_hyperparameters("loss")
        self.network, self.optimizer = network, optimizer
        self.loss = LossModule(loss, weight=class_weights)

    def training_step(self, batch, batch_idx):
        """Return the share of this process. Lightning averages the gradients."""
        spikes, target, options = batch
        output = self.network(spikes)
        total, weight = self.loss.sum_and_weight(output, target, **options)
        value = total * self.trainer.world_size
        if self.hparams.loss.reduction != "sum":
            weight = self.trainer.strategy.reduce(weight, reduce_op="sum")
            # if everything is masked
            weight = torch.where(weight > 0, weight, torch.inf)
            value = value / weight
        # the mean over the processes is the loss
        self.log("train_loss", value, sync_dist=True)
        return value

    def on_validation_epoch_start(self):
        """Set the sums of the validation data to 0."""
        self.sums = [0, 0, 0]

    def validation_step(self, batch, batch_idx):
        """Add the loss, weight and confusion matrix of a batch to the sums."""
        spikes, target, options = batch
        output = self.network(spikes)
        total, weight = self.loss.sum_and_weight(output, target, **options)
        confusion = self.hparams.loss.confusion(output, target, **options)
        parts = total, weight, confusion
        self.sums = [x + y for x, y in zip(self.sums, parts, strict=True)]

    def on_validation_epoch_end(self):
        """Log the loss and accuracy of the validation data of all processes."""
        reduce = self.trainer.strategy.reduce
        total, weight, confusion = (reduce(x, reduce_op="sum") for x in self.sums)
        accuracy = confusion.diagonal().sum() / confusion.sum()
        values = {"val_loss": total / weight, "val_accuracy": accuracy}
        self.log_dict(values, sync_dist=True)

    def configure_optimizers(self):
        """Return the optimizer."""
        return self.optimizer(self.network)
