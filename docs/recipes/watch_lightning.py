"""Log a few numbers in Lightning: see docs/guides/watch-a-training.md."""

import contextlib

import lightning

import spikeloss_xp as sx
from spikeloss_xp.backends.torch import record


class Watch(lightning.Callback):
    """Log the scalars of every hundredth step of a `Classifier`.

    With several processes, the loss and the rates are those of the share of the
    first process.
    """

    def __init__(self, every=100):
        self.every = every
        self.recording = contextlib.ExitStack()

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        """Begin to record the spikes, and keep the batch."""
        self.recording.close()
        is_time = trainer.global_step % self.every == 0
        if is_time and trainer.is_global_zero:
            self.seen = self.recording.enter_context(record(module.network))
            self.batch = batch

    def on_before_optimizer_step(self, trainer, module, optimizer):
        """Log the scalars. Lightning has unscaled the gradients already."""
        if trainer.global_step % self.every or not trainer.is_global_zero:
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
