"""PyTorch modules that replace `lava.lib.dl.slayer.loss` and `lava.lib.dl.slayer.classifier`.

A script keeps the neurons, blocks and data sets of lava-dl, and takes its losses from here::

    import lava.lib.dl.slayer as slayer
    import spikeloss_xp.slayer as s

    slayer.loss, slayer.classifier = s.loss, s.classifier

Names, arguments, defaults, attributes and values (``numerics="lava"``) equal those of lava-dl
0.6.0. Calls that raise in lava-dl, or that give None or NaN gradients, work here. Of the public
modules, only this one imports PyTorch.
"""

from typing import TYPE_CHECKING, NoReturn

from spikeloss_xp.slayer import classifier, loss

__all__ = ["classifier", "loss"]


if not TYPE_CHECKING:  # to a type checker, a missing name stays an error

    def __getattr__(name: str) -> NoReturn:
        """Raise for `block`, `io` and what else lava-dl has under this name."""
        message = f"module {__name__!r} has no attribute {name!r}"
        if not name.startswith("_"):
            message += (
                ": it has only loss and classifier. Keep `import lava.lib.dl.slayer as slayer` and "
                "take these two from here: import spikeloss_xp.slayer as s; "
                "slayer.loss, slayer.classifier = s.loss, s.classifier"
            )
        raise AttributeError(message, name=name)
