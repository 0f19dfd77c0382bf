"""Log a few numbers in Lightning: see docs/guides/watch-a-training.md and activity.md."""

import contextlib
import dataclasses

import lightning

import spikeloss_xp as sx
from spikeloss_xp.torch import record


class Watch(lightning.Callback):
    """Log the scalars of every hundredth step of a `Classifier`.

    With ``every=1, unit="epoch"``, log the numbers of the last step of each epoch.
    With several processes, the loss and the rates describe only the samples of
    the first process.
    """

    def __init__(self, every=100, unit="step"):
        self.every, self.unit = every, unit
        self.recording = contextlib.ExitStack()

    def is_due(self, trainer):
        """Return whether this process logs the scalars of this step."""
        if self.unit == "epoch":
            due = trainer.is_last_batch and trainer.current_epoch % self.every == 0
        else:
            due = trainer.global_step % self.every == 0
        return trainer.is_global_zero and due

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        """Begin to record the spikes, and keep the batch."""
        self.recording.close()
        if self.is_due(trainer):
            self.seen = self.recording.enter_context(record(module.network))
            self.batch = batch

    def on_before_optimizer_step(self, trainer, module, optimizer):
        """Log the scalars. Lightning has unscaled the gradients already."""
        if not self.is_due(trainer):
            return
        self.recording.close()
        _, target, options = self.batch
        *_, output = self.seen.spikes.values()
        report = sx.diagnose(
            module.hparams.loss,
            output,
            target,
            hidden=self.seen.hidden,
            gradients=self.seen.gradients,
            weight=module.loss.weight,
            **options,
        )
        for logger in trainer.loggers:
            logger.log_metrics(report.scalars(), trainer.global_step)


class Operations(lightning.Callback):
    """Log the rates and the operations of the validation data of all processes.

    See docs/guides/activity.md.
    """

    def on_validation_epoch_start(self, trainer, module):
        """Forget the sums of the last epoch."""
        self.parts, self.recording = [], contextlib.ExitStack()

    def on_validation_batch_start(self, trainer, module, *_):
        """Begin to count."""
        recording = record(module.network, operations=True)
        self.seen = self.recording.enter_context(recording)

    def on_validation_batch_end(self, trainer, module, outputs, batch, *_):
        """Keep the sums of a batch."""
        self.recording.close()
        _, _, options = batch
        masks = {k: x for k, x in options.items() if k in ("lengths", "where")}
        time_axis = module.hparams.loss.time_axis
        self.parts.append(self.seen.activity(time_axis=time_axis, **masks))

    def on_validation_epoch_end(self, trainer, module):
        """Log what all batches of all processes have together."""
        counts = sum(self.parts)
        sums = trainer.strategy.reduce(counts.sums, reduce_op="sum")
        counts = dataclasses.replace(counts, sums=sums)
        for logger in trainer.loggers:
            logger.log_metrics(counts.scalars(), trainer.global_step)
