"""Calls of `SparsityEnforcer`, and calls with values that a loss does not accept."""

import math
from typing import Any

from spikeloss_xp._arrays import Adapter, floating, host_values
from spikeloss_xp.diagnosis import _layers
from spikeloss_xp.diagnosis._report import Observations


class Penalty:
    """A call of a `SparsityEnforcer`, with attributes and methods like those of `Batch`."""

    name, output, divisor = "input", None, 1.0

    def __init__(self, loss: Any, x: Any, **masks: Any) -> None:
        self.loss, self.x = loss, x
        self.adapter, value = _layers.eager(loss(x, **masks), "input")
        self.arrays = {"value": value}

    def finish(self, value: Any = None) -> None:
        """Set the value of the loss, if it has one."""
        self.value = None if value is None else float(value)

    @property
    def largest(self) -> float:
        """The largest event of all layers."""
        layers = [_layers.eager(x, name) for name, x in _layers.named_leaves(self.x, "input")]
        largest = [adapter.xp.max(floating(adapter, x)) for adapter, x in layers]
        return max(float(host_values(x, "input")) for x in largest)

    def numbers(self) -> dict[str, Any]:
        """Return the value of the loss, keyed by name."""
        return {"loss": self.value}

    def findings(self) -> Observations:
        """Yield the findings of the call, except for those about its layers."""
        if not math.isfinite(self.value or 0):
            yield "not-finite", f"the loss is {self.value}"
        yield from self.loss.findings(self)


class Refusal(Penalty):
    """A call with values that the loss does not accept. It has no value and no layers."""

    def __init__(self, adapter: Adapter, error: ValueError) -> None:
        self.adapter, self.error, self.arrays = adapter, error, {}

    def findings(self) -> Observations:
        """Yield the error message of the loss."""
        yield "refused", str(self.error)
