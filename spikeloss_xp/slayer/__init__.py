"""PyTorch modules that replace `lava.lib.dl.slayer.loss` and `lava.lib.dl.slayer.classifier`.

A script can keep using the neurons, blocks and data sets of lava-dl, and replace only the losses
and classifiers::

    import lava.lib.dl.slayer as slayer
    import spikeloss_xp.slayer as s

    slayer.loss, slayer.classifier = s.loss, s.classifier

Names, arguments, defaults, attributes and values (with ``numerics="lava"``) are the same as in
lava-dl 0.6.0. Some calls raise an error in lava-dl, or their gradients are None or NaN. The same
calls work in this module. Importing this module imports PyTorch.
"""

from typing import TYPE_CHECKING, NoReturn

from spikeloss_xp.slayer import classifier, loss

__all__ = ["classifier", "loss"]


if not TYPE_CHECKING:  # so that a type checker still reports a missing name as an error

    def __getattr__(name: str) -> NoReturn:
        """Raise an error for `block`, `io` and everything else that only the lava-dl module has."""
        message = f"module {__name__!r} has no attribute {name!r}"
        if not name.startswith("_"):
            message += (
                ": it has only loss and classifier. Keep `import lava.lib.dl.slayer as slayer` and "
                "replace these two in it: import spikeloss_xp.slayer as s; "
                "slayer.loss, slayer.classifier = s.loss, s.classifier"
            )
        raise AttributeError(message, name=name)
