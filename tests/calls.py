"""One call of a loss, evaluated by the library on some backend, and by the reference in float64."""

import dataclasses
import functools
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import reference
from cases import close
from conftest import BACKENDS
from contract import (
    BATCH,
    CLASSES,
    FORMS,
    LABELS,
    LAYOUTS,
    ONE_OF_EACH,
    SIZES,
    STEPS,
    TRAINS,
    Form,
    in_layout,
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

        return reference.differences(along, np.zeros(len(directions)))

    def on(
        self, backend: Any, dtype: str | None = None, *, compiled: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Value and gradient on a backend, with all arguments arrays of it.

        Not compiled by default: the operations on arrays of one shape are the same in many calls,
        and are then made ready once.
        """
        arrays = [backend.asarray(self.spikes, dtype)]
        if self.target is not None:
            arrays.append(backend.asarray(self.target))
        options = {name: backend.asarray(value) for name, value in self.options.items()}
        if self.cotangent is not None:
            options["cotangent"] = backend.asarray(self.cotangent)
        evaluate = _compiled(backend, self.loss) if compiled else sx.value_and_grad(self.loss)
        value, gradient = evaluate(*arrays, **options)
        return backend.numpy(value), backend.numpy(gradient)


@functools.cache
def _compiled(backend: Any, loss: Any) -> Any:
    return backend.compiled(sx.value_and_grad(loss))


def agree(call: Call, got: tuple[np.ndarray, np.ndarray], rtol: float) -> None:
    """Assert that value and gradient are those of the reference.

    The gradient is compared along a few directions at random: they see an error in any entry.
    """
    value, gradient = got
    wanted = np.asarray(call.value())
    assert value.shape == wanted.shape
    close(value, wanted, rtol)
    assert gradient.shape == call.spikes.shape
    directions = np.random.default_rng(3).normal(size=(DIRECTIONS, *call.spikes.shape))
    gradient = gradient.astype(np.float64)
    slopes = np.tensordot(directions, gradient, axes=call.spikes.ndim)
    size = np.linalg.norm(gradient) * np.linalg.norm(directions[0])
    np.testing.assert_allclose(
        slopes, call.slopes(directions), rtol=0, atol=max(rtol, DIFFERENCES) * size
    )


# Examples of the forms in the record -------------------------------------------------------------

SOME = ("SpikeTime", "SpikeRate-per-class-max", "SpikeMax-smoothed-count-window")


def pairs(*, jax: Collection[str] = (), without: str = "none of them") -> list[tuple[str, str]]:
    """Name every backend with every form, or with one of each where they would tell no more.

    JAX takes a third of a second to make a new computation ready: it gets the forms that are named.
    """
    some = {"array-api-strict-device1": ONE_OF_EACH, "jax": (), "jax-x64": jax}
    return [
        (backend, form)
        for backend in BACKENDS
        for form in some.get(backend, FORMS)
        if without not in form
    ]


NOT_JAX = [name for name in BACKENDS if "jax" not in name]


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


def moved(call: Call, form: Form, time_axis: int) -> Call:
    """The same call in another layout."""

    def move(x: Any, axes: tuple[str, ...]) -> Any:
        if x is None or "time" not in axes:
            return x
        return np.moveaxis(x, -1, in_layout(axes, time_axis).index("time"))

    full, per_step = LAYOUTS[-1], ("batch", "time")
    of_mask = {3: full, 2: per_step}.get(np.ndim(call.where), ())
    return call.but(
        loss=dataclasses.replace(call.loss, time_axis=time_axis),
        spikes=move(call.spikes, full),
        target=move(call.target, form.target_axes),
        where=move(call.where, of_mask),
        cotangent=move(call.cotangent, form.terms_axes if np.ndim(call.cotangent) else ()),
    )
