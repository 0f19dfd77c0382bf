"""Log a few numbers in Lightning: see docs/guides/watch-a-training.md and activity.md."""

import contextlib
import dataclasses

import lightning

from spikeloss_xp.torch import diagnose_network, record


class Watch(lightning.Callback):
    """Diagnose the first batch of a `Classifier` before each hundredth update.

    With ``every=1, unit="epoch"``, diagnose it before the last update of each epoch.
    With several processes, the loss and the rates describe only the samples of
    the first process.
    """

    def __init__(self, every=100, unit="step"):
        self.every, self.unit = every, unit
        self.watched = self.first = None

    def is_due(self, trainer):
        """Return whether this process logs the scalars before this update."""
        if self.unit == "epoch":
            due = trainer.is_last_batch and trainer.current_epoch % self.every == 0
        else:
            due = trainer.global_step % self.every == 0
        return trainer.is_global_zero and due

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        """Log the scalars, and print the problems."""
        self.watched = self.watched or batch
        if not self.is_due(trainer):
            return
        inputs, target, options = self.watched
        report = diagnose_network(
            module.network,
            module.loss,
            lambda: module.network(inputs),
            target,
            self.first,
            updates=max(trainer.global_step, 1),
            **options,
        )
        self.first = self.first or report
        for logger in trainer.loggers:
            logger.log_metrics(report.scalars(), trainer.global_step)
        for finding in report.findings:
            if finding.severity == "problem":
                print(finding)


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
