"""PyTorch modules that replace `lava.lib.dl.slayer.loss` and `lava.lib.dl.slayer.classifier`.

Only the import of a script changes::

    import spikeloss_xp.slayer as slayer  # was: import lava.lib.dl.slayer as slayer

    error = slayer.loss.SpikeRate(true_rate=0.2, false_rate=0.03)
    prediction = slayer.classifier.Rate.predict(spikes)

Names, arguments, defaults, attributes and values (``numerics="lava"``) equal those of lava-dl
0.6.0. Calls that raise in lava-dl, or that give None or NaN gradients, work here. Of the public
modules, only this one imports PyTorch.
"""

from spikeloss_xp.slayer import classifier, loss

__all__ = ["classifier", "loss"]
