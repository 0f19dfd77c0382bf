"""Calls that compare no spikes with a target, or whose comparison `diagnose` cannot see into."""

import math
from typing import Any

from spikeloss_xp._arrays import Adapter, adapter_of, floating, host_values
from spikeloss_xp.diagnosis import _layers
from spikeloss_xp.diagnosis._report import Observations


class Penalty:
    """A call of a `SparsityEnforcer`, with attributes and methods like those of `Batch`."""

    name, output = "input", None
    of_output: float | None = None
    """The gradient of the loss with respect to the output, in the unit of the loss, if known."""
    value: float | None = None

    def __init__(self, loss: Any, x: Any, **masks: Any) -> None:
        self.loss, self.x = loss, x
        self.adapter, value = _layers.eager(loss(x, **masks), "input")
        self.arrays = {"value": value}

    def finish(self, value: Any = None) -> None:
        """Set the value of the loss, if it has one."""
        self.value = None if value is None else float(value)

    @property
    def learned(self) -> bool:
        """Whether the loss is at its minimum, as it is for rates within their range."""
        return self.value == 0

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


class Function(Penalty):
    """A call of a function that is no loss of this library, or no call if the function is None."""

    error = ""

    def __init__(self, function: Any, spikes: Any, target: Any, shapes: dict[str, str]) -> None:
        self.shapes, self.arrays = shapes, {}
        if function is None:
            return
        try:
            given = (spikes,) if target is None else (spikes, target)
            value = host_values(function(*given), "loss")
        except Exception as error:  # the report shows it, and goes on without the loss
            self.error = f"{type(error).__name__}: {error}"
            return
        if value.size == 1:
            self.adapter, self.arrays = adapter_of(value), {"value": value}
        else:
            self.error = f"the loss must be a number; got an array of shape {value.shape}"

    def finish(self, value: Any = None) -> None:
        """Set the value of the loss, if it has one."""
        super().finish(None if value is None else value.item())

    def numbers(self) -> dict[str, Any]:
        """Return the value of the loss, if it has one, and how each output is read."""
        return self.shapes if self.value is None else {"loss": self.value, **self.shapes}

    def findings(self) -> Observations:
        """Yield the error that the function raised, or that its value is not finite."""
        if self.error:
            yield "refused", self.error
        elif not math.isfinite(self.value or 0):
            yield "not-finite", f"the loss is {self.value}"
