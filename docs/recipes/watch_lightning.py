"""Log a few numbers in Lightning: see docs/guides/watch-a-training.md."""

import functools

import lightning

import spikeloss_xp as sx


class Watch(lightning.Callback):
    """Log the scalars of every hundredth step of a `Classifier`.

    Spiking layers have the type `kind`. The last of them is the output.
    """

    def __init__(self, kind, every=100):
        self.kind, self.every = kind, every
        self.spikes, self.hooks = {}, []

    def on_fit_start(self, trainer, module):
        """Register hooks that keep the spikes of each spiking layer."""
        for name, layer in module.network.named_modules():
            if isinstance(layer, self.kind):
                hook = functools.partial(self.keep, name)
                self.hooks.append(layer.register_forward_hook(hook))

    def keep(self, name, layer, inputs, spikes):
        """Keep the spikes of a layer."""
        self.spikes[name] = spikes

    def on_fit_end(self, trainer, module):
        """Remove the hooks."""
        for hook in self.hooks:
            hook.remove()

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        """Keep the batch."""
        self.batch = batch

    def on_before_optimizer_step(self, trainer, module, optimizer):
        """Log the scalars. Lightning has unscaled the gradients already."""
        if trainer.global_step % self.every:
            return
        _, target, options = self.batch
        *hidden, (_, output) = self.spikes.items()
        weights = module.network.named_parameters()
        report = sx.diagnose(
            module.hparams.loss,
            output,
            target,
            hidden=dict(hidden),
            gradients={name: x.grad for name, x in weights if x.requires_grad},
            weight=module.loss.weight,
            **options,
        )
        for logger in trainer.loggers:
            logger.log_metrics(report.scalars(), trainer.global_step)
