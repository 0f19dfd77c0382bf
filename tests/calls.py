"""One call of a loss, evaluated by the library on some backend, and by the reference in float64."""

import dataclasses
import functools
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import reference
from conftest import BACKENDS
from contract import (
    BATCH,
    CLASSES,
    FORMS,
    LABELS,
    ONE_OF_EACH,
    SIZES,
    STEPS,
    TRAINS,
    Form,
)

import spikeloss_xp as sx

OPTIONS = ("where", "lengths", "weight")
IGNORED = -100

DIRECTIONS = 3
DIFFERENCES = 1e-8
"""What differences of fourth order are good for, of the largest slope: some 1e-10, and room."""


@dataclass(frozen=True, eq=False)
class Call:
    """A loss, and the NumPy arrays that it is called with, time last."""

    loss: Any
    spikes: np.ndarray
    target: Any = None
    where: Any = None
    lengths: Any = None
    weight: Any = None
    cotangent: Any = None

    def but(self, **changes: Any) -> "Call":
        """The same, but for some arguments."""
        return dataclasses.replace(self, **changes)

    def having(self, **options: Any) -> "Call":
        """The same with a loss of other options, and with a cotangent for its value."""
        call = self.but(loss=dataclasses.replace(self.loss, **options))
        shape = np.shape(call.value())
        return call.but(cotangent=np.random.default_rng(7).uniform(0.5, 1.5, size=shape))

    @property
    def options(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in OPTIONS}
        return {name: value for name, value in given.items() if value is not None}

    def value(self, spikes: np.ndarray | None = None) -> Any:
        """The value, by the reference."""
        spikes = self.spikes if spikes is None else spikes
        return reference.value(self.loss, spikes, self.target, **self.options)

    def slopes(self, directions: np.ndarray) -> np.ndarray:
        """The slopes of the value, weighted with the cotangent, along directions."""
        cotangent = 1.0 if self.cotangent is None else self.cotangent

        def along(steps: np.ndarray) -> float:
            there = self.spikes + np.tensordot(steps, directions, axes=1)
            return float(np.sum(cotangent * self.value(there)))

        return reference.differences(along, np.zeros(len(directions)), step=1e-4)

    def on(self, backend: Any, dtype: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Value and gradient on a backend, with all arguments arrays of it."""
        arrays = [backend.asarray(self.spikes, dtype)]
        if self.target is not None:
            arrays.append(backend.asarray(self.target))
        options = {name: backend.asarray(value) for name, value in self.options.items()}
        if self.cotangent is not None:
            options["cotangent"] = backend.asarray(self.cotangent)
        value, gradient = _compiled(backend, self.loss)(*arrays, **options)
        return backend.numpy(value), backend.numpy(gradient)


@functools.cache
def _compiled(backend: Any, loss: Any) -> Any:
    return backend.compiled(sx.value_and_grad(loss))


def agree(
    call: Call, got: tuple[np.ndarray, np.ndarray], rtol: float, *, least: float = 0.0
) -> None:
    """Assert that value and gradient are those of the reference.

    The gradient is compared along a few directions at random: they see an error in any entry.
    Value and gradient are taken to be of the size `least` if they are smaller.
    """
    value, gradient = got
    wanted = np.asarray(call.value())
    assert value.shape == wanted.shape
    size = max(least, float(np.max(np.abs(wanted))))
    np.testing.assert_allclose(value, wanted, rtol=0, atol=rtol * size)
    assert gradient.shape == call.spikes.shape
    directions = np.random.default_rng(3).normal(size=(DIRECTIONS, *call.spikes.shape))
    slopes = np.tensordot(directions, gradient, axes=call.spikes.ndim)
    steepest = max(least, float(np.linalg.norm(gradient))) * np.linalg.norm(directions[0])
    np.testing.assert_allclose(
        slopes, call.slopes(directions), rtol=0, atol=max(rtol, DIFFERENCES) * steepest
    )


# Examples of the forms in the record -------------------------------------------------------------

SOME = ("SpikeMax-smoothed-count-window", "SpikeTime", "SpikeRate-per-class-max")


def pairs(*, jax: Collection[str] = (), without: str = "none of them") -> list[tuple[str, str]]:
    """Name every backend with every form, or with one of each where they would tell no more.

    JAX takes a third of a second to make a new computation ready: it gets the forms that are named.
    What other devices do is the same as on the first of their library.
    """
    some = dict.fromkeys(("array-api-strict-device1", "cupy", "torch-cuda"), ONE_OF_EACH)
    some |= {"jax": (), "jax-x64": jax}
    return [
        (backend, form)
        for backend in BACKENDS
        for form in some.get(backend, FORMS)
        if without not in form
    ]


NOT_JAX = [name for name in BACKENDS if "jax" not in name]
not_jax = pytest.mark.parametrize("backend", NOT_JAX, indirect=True)
one_jax = pytest.mark.parametrize("backend", [*NOT_JAX, "jax-x64"], indirect=True)


def example(form: Form) -> Call:
    """A call with spikes that are graded, and a labelled class that is silent in one sample.

    All spikes are different, so that nothing lies where a loss has a kink.
    """
    random = np.random.default_rng(0)
    spikes = random.uniform(0.125, 1, size=(BATCH, form.neurons, STEPS))
    shape = [SIZES[axis] for axis in form.target_axes]
    what = form.contract.target
    if what is None:  # signed, and not all neurons alike
        signs = random.choice([-1, 1], size=spikes.shape)
        return Call(form.loss(), spikes * signs * np.asarray([[[0.5], [1.0], [1.25], [1.5]]]))
    if what is TRAINS:
        return Call(form.loss(), spikes, random.uniform(0, 1, size=spikes.shape))
    if what is not LABELS:
        return Call(form.loss(), spikes, random.uniform(0, 1, size=shape))
    label = random.integers(CLASSES, size=shape)
    if form.options["readout"] != "max":
        group = form.neurons // CLASSES
        first = label.reshape(BATCH, -1)[0, 0] * group
        spikes[0, first : first + group] = 0
    return Call(form.loss(), spikes, label)


def with_everything(form: Form) -> Call:
    """An example with masks of all kinds, and what else the form takes in a call."""
    call, random = example(form), np.random.default_rng(1)
    where = random.random(call.spikes.shape) < 0.8
    group = form.neurons // CLASSES
    where[1] = True
    where[2, group : 2 * group] = False  # a class; in the next sample, that of the label
    own = call.target.reshape(BATCH, -1)[3, 0] * group if form.contract.target is LABELS else 0
    where[3, own : own + group] = False
    call = call.but(where=where, lengths=np.asarray([6, 3, 6, 5, 6]))
    if form.contract.target is LABELS:
        label = call.target.copy()
        label.reshape(BATCH, -1)[4, 0] = IGNORED  # the first step of it, if there is one for each
        call = call.but(target=label)
    if "weight" in form.contract.call:
        call = call.but(weight=random.uniform(0.5, 2, size=CLASSES))
    return call


def spoilt(call: Call) -> Call:
    """The same, of which nothing is left where it is masked: not in spikes, not in the target."""
    kept = reference.kept_entries(call.spikes.shape, -1, call.where, call.lengths)
    target, name = call.target, type(call.loss).__name__
    if name == "SpikeTime":
        target = np.where(kept, target, np.nan)
    elif name == "SpikeMoid":
        groups = kept.reshape(len(kept), target.shape[1], -1, kept.shape[-1]).any(axis=2)
        target = np.where(groups if target.ndim == 3 else groups.any(axis=2), target, np.nan)
    elif target is not None:
        target = np.where(kept.any(axis=1 if target.ndim == 2 else (1, 2)), target, 77)
    return call.but(spikes=np.where(kept, call.spikes, np.nan), target=target)


def having_time(call: Call) -> set[str]:
    """Name the arguments that have a time axis."""
    windowed = getattr(call.loss, "moving_window", None) is not None
    axes_with_time = {  # how many axes an argument has if it has one
        "spikes": call.spikes.ndim,
        "target": {"SpikeTime": call.spikes.ndim, "SpikeMoid": 3}.get(type(call.loss).__name__, 2),
        "cotangent": np.ndim(call.cotangent) or None,
    }
    found = {name for name, ndim in axes_with_time.items() if np.ndim(getattr(call, name)) == ndim}
    if np.ndim(call.where) > 1:
        found.add("where")
    return found if windowed or type(call.loss).__name__ == "SpikeTime" else found - {"cotangent"}


def moved(call: Call, time_axis: int) -> Call:
    """The same call with time on another axis than the last."""
    beside_batch = reference.place_of_time(call.spikes.shape, time_axis)
    fields = {}
    for name in having_time(call):
        x = getattr(call, name)
        whole = name == "spikes" or type(call.loss).__name__ == "SpikeTime" or name == "where"
        whole = whole and x.shape == call.spikes.shape
        fields[name] = np.moveaxis(x, -1, time_axis if whole else beside_batch)
    return call.but(loss=dataclasses.replace(call.loss, time_axis=time_axis), **fields)
