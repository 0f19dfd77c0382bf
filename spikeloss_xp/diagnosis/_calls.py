"""Classes for calls to losses about whose classes and terms `diagnose` reports nothing.

A `Batch` represents a call to most losses of this library. The classes in this module represent all
other calls. The method `finish` takes the entries of `arrays` after they have been copied to the
host.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from spikeloss_xp._arrays import Adapter, adapter_of, host_values, shape_of
from spikeloss_xp._input.layout import Layout
from spikeloss_xp._typing import Array
from spikeloss_xp.diagnosis import _layers, _losses
from spikeloss_xp.diagnosis._report import Observations
from spikeloss_xp.gradients import value_and_grad


class Call:
    """Base class for the loss calls in this module.

    If the loss could not be evaluated, `error` contains the reason.
    """

    name = "input"
    output = None
    has_labels = False
    progress: float | None = None
    constant: float | None = None
    value: float | None = None
    of_output: float | None = None
    """The size of the gradient of the loss with respect to the output, or None if it is unknown."""

    def __init__(self, adapter: Adapter, error: str = "", **arrays: Array) -> None:
        self.adapter = adapter
        self.error = error
        self.arrays = arrays

    def finish(self, value: Any = None, silent: Any = None) -> None:
        """Store the value of the loss, and its value for silent outputs."""
        if value is not None:
            self.value = float(value.item())
        if silent is not None:
            self.constant = float(silent.item())

    @property
    def learned(self) -> bool:
        """Whether the loss is 0, which is assumed to be its minimum."""
        return self.value == 0

    def numbers(self) -> dict[str, Any]:
        """Return a dict with the value of the loss."""
        return {"loss": self.value}

    def findings(self) -> Observations:
        """Yield a finding if the loss raised an error, or if its value is NaN or infinite."""
        if self.error:
            yield "refused", self.error
        elif self.value is not None and not math.isfinite(self.value):
            yield "not-finite", f"the loss is {self.value}"


class Refusal(Call):
    """A call in which the loss rejected a value."""


class Penalty(Call):
    """A call to a `SparsityEnforcer`."""

    def __init__(self, loss: Any, x: Any, **masks: Any) -> None:
        self.loss = loss
        adapter, value = _layers.eager(loss(x, **masks), "input")
        super().__init__(adapter, value=value)

    def findings(self) -> Observations:
        """Yield the findings about the value and the options of the loss."""
        yield from super().findings()
        yield from _losses.of_options(self.loss, self)


class Function(Call):
    """A call to a function that is not a loss of this library."""

    def __init__(
        self, function: Any, spikes: Any, target: Any, inputs: dict[str, Any], time_axis: int,
        *, is_judged: bool,
    ) -> None:  # fmt: skip
        super().__init__(adapter_of(np.empty(0)))  # the value is a NumPy array
        shapes = {name: shape_of(x) for name, x in inputs.items()}
        self.layouts = {name: Layout.of(x, time_axis, name) for name, x in shapes.items()}
        self.target = shape_of(target)
        self.has_labels = len(self.target) == 1
        if function is None:
            return
        given = [spikes] if target is None else [spikes, target]
        try:
            value = self._evaluate(function, *given)
            value = host_values(value, "loss")
            if is_judged and not isinstance(spikes, Mapping | list | tuple):
                given[0] = adapter_of(spikes, "output").xp.zeros_like(spikes)
                self.arrays["silent"] = host_values(function(*given), "loss")
        except Exception as error:  # the report shows the error and continues without the loss
            self.error = f"{type(error).__name__}: {error}"
            return
        if value.size == 1:
            self.arrays["value"] = value
        else:
            self.error = f"the loss must be a number; got an array of shape {value.shape}"

    def _evaluate(self, function: Any, *given: Any) -> Any:
        """Return the value of the function. For a differentiable function, set `of_output`."""

        def scalar(*arguments: Any) -> Any:
            value = function(*arguments)
            return value.reshape(())  # some losses return an array of one entry

        try:
            value, gradient = value_and_grad(scalar)(*given)
        except Exception:  # the function cannot be differentiated, or it raised its own error
            return function(*given)
        size = abs(gradient)
        total = adapter_of(size).sum_all(size)
        self.of_output = float(host_values(total, "loss"))
        return value

    def numbers(self) -> dict[str, Any]:
        """Return a dict with the value of the loss and the axes of each output."""
        value = {} if self.value is None else super().numbers()
        named = self.layouts.items()
        return value | {f"{name}, as it is read": _layers.axes(x, "neuron") for name, x in named}

    def findings(self) -> Observations:
        """Yield the findings about the value of the loss and about the order of the axes."""
        yield from super().findings()
        for name, x in self.layouts.items():
            if self.target == (x.steps,) and 1 < x.batch != x.steps:
                read = f"{name} is read as {x.batch} samples of {x.steps} steps"
                yield "ambiguous-layout", f"{read}, but there are {x.steps} labels"
