"""Losses and classifiers that return the same values as the losses and classifiers of lava-dl.

The PyTorch modules in `spikeloss_xp.slayer.loss` and `spikeloss_xp.slayer.classifier` replace
`lava.lib.dl.slayer.loss` and `lava.lib.dl.slayer.classifier`. The losses in
`spikeloss_xp.slayer.published` return the same values as lava-dl, and accept arrays from any
library.

A script can keep using the neurons, blocks and data sets of lava-dl, and replace only the losses
and classifiers::

    import lava.lib.dl.slayer as slayer
    import spikeloss_xp.slayer as s

    slayer.loss, slayer.classifier = s.loss, s.classifier

The classes have the same names, arguments, defaults and attributes as in lava-dl 0.6.0. With the
default ``numerics="lava"``, the losses also return the same values. Some calls that raise an error
or have a NaN gradient in lava-dl work in this subpackage. Using `loss` or `classifier` imports
PyTorch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from spikeloss_xp.slayer import published

if TYPE_CHECKING:
    from spikeloss_xp.slayer import classifier, loss

__all__ = ["classifier", "loss", "published"]


if not TYPE_CHECKING:  # so that a type checker still reports a missing name as an error

    def __getattr__(name: str) -> Any:
        """Import `loss` or `classifier`, which need PyTorch. Raise an error for other names."""
        if name in ("classifier", "loss"):
            return importlib.import_module(f"spikeloss_xp.slayer.{name}")
        message = f"module {__name__!r} has no attribute {name!r}"
        if not name.startswith("_"):
            message += (
                ": it has only loss, classifier and published. Keep `import lava.lib.dl.slayer as "
                "slayer` and replace two modules in it: import spikeloss_xp.slayer as s; "
                "slayer.loss, slayer.classifier = s.loss, s.classifier"
            )
        raise AttributeError(message, name=name)
