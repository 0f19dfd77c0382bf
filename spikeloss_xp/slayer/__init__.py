"""PyTorch modules that take the place of `lava.lib.dl.slayer.loss` and `.classifier`.

Change the import, and keep the script::

    import spikeloss_xp.slayer as slayer  # was: import lava.lib.dl.slayer as slayer

    error = slayer.loss.SpikeRate(true_rate=0.2, false_rate=0.03)
    prediction = slayer.classifier.Rate.predict(spikes)

Names, arguments, defaults and attributes are those of lava-dl 0.6.0, and so are the values
(``numerics="lava"``). What raises there, or gives None or NaN gradients, works. This is the one
part of the library that imports PyTorch.
"""

from spikeloss_xp.slayer import classifier, loss

__all__ = ["classifier", "loss"]
