"""Calls of a loss, evaluated by the library on a backend and by the float64 reference."""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import reference
from _support.backends import TESTED
from _support.contract import (
    BATCH,
    CLASSES,
    COUNTS,
    FORMS,
    LABELS,
    ONE_OF_EACH,
    PROBABILITIES,
    SIZES,
    STEPS,
    TIMES,
    Form,
)

OPTIONS = ("where", "lengths", "weight")
IGNORED = -100

DIRECTIONS = 3
DIFFERENCE_RTOL = 1e-8
"""Tolerance for fourth-order differences, relative to the largest derivative.

Their error is about 1e-10; the rest is margin.
"""


@dataclass(frozen=True, eq=False)
class Call:
    """A loss and the NumPy arrays that it is called with, with time as the last axis."""

    loss: Any
    spikes: np.ndarray
    target: Any = None
    where: Any = None
    lengths: Any = None
    weight: Any = None
    cotangent: Any = None

    def replace(self, **changes: Any) -> "Call":
        """Return a copy with some fields replaced."""
        return dataclasses.replace(self, **changes)

    def with_loss_options(self, **options: Any) -> "Call":
        """Return a copy whose loss has other options, with a random cotangent for its value."""
        call = self.replace(loss=dataclasses.replace(self.loss, **options))
        shape = np.shape(call.value())
        return call.replace(cotangent=np.random.default_rng(7).uniform(0.5, 1.5, size=shape))

    @property
    def options(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in OPTIONS}
        return {name: value for name, value in given.items() if value is not None}

    def value(self, spikes: np.ndarray | None = None) -> Any:
        """Return the value, computed by the reference."""
        spikes = self.spikes if spikes is None else spikes
        return reference.value(self.loss, spikes, self.target, **self.options)

    def directional_derivatives(self, directions: np.ndarray) -> np.ndarray:
        """Return the reference derivatives of the cotangent-weighted value along directions."""
        cotangent = 1.0 if self.cotangent is None else self.cotangent

        def value_along(steps: np.ndarray) -> float:
            shifted = self.spikes + np.tensordot(steps, directions, axes=1)
            return float(np.sum(cotangent * self.value(shifted)))

        return reference.differences(value_along, np.zeros(len(directions)), step=1e-4)

    def arguments(self, backend: Any) -> tuple[list[Any], dict[str, Any]]:
        """Return the target, if any, and the options, as arrays of the library of a backend."""
        target = [] if self.target is None else [backend.asarray(self.target)]
        return target, {name: backend.asarray(value) for name, value in self.options.items()}

    def on(self, backend: Any, dtype: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return value and gradient on a backend, with all arguments as arrays of its library."""
        target, options = self.arguments(backend)
        if self.cotangent is not None:
            options["cotangent"] = backend.asarray(self.cotangent)
        spikes = backend.asarray(self.spikes, dtype)
        value, gradient = _compiled(backend, self.loss)(spikes, *target, **options)
        return backend.numpy(value), backend.numpy(gradient)


@functools.cache
def _compiled(backend: Any, loss: Any) -> Any:
    return backend.compiled(sx.value_and_grad(loss))


def run(backend: Any, function: Any, *arrays: Any, **options: Any) -> Any:
    """Compile a function, call it with NumPy arrays, and return its results as NumPy arrays."""

    def to_host(x: Any) -> Any:
        return [to_host(part) for part in x] if isinstance(x, tuple | list) else backend.numpy(x)

    options = {name: backend.asarray(x) for name, x in options.items()}
    return to_host(backend.compiled(function)(*map(backend.asarray, arrays), **options))


def each(functions: Any) -> Any:
    """Return a function that returns what each of the functions does."""
    return lambda *arrays, **options: [one(*arrays, **options) for one in functions]


def agree(
    call: Call,
    got: tuple[np.ndarray, np.ndarray],
    rtol: float,
    *,
    min_scale: float = 0.0,
    roundings: float = 0.0,
) -> None:
    """Assert that value and gradient agree with the reference.

    The gradient is compared along a few random directions, so an error in any entry shows.
    Tolerances are relative to the size of the value and gradient, or to `min_scale` if larger.
    Those of the value also allow for `roundings`, an absolute error.
    """
    value, gradient = got
    expected = np.asarray(call.value())
    assert value.shape == expected.shape
    value_scale = max(min_scale, float(np.max(np.abs(expected))))
    atol = rtol * value_scale + roundings
    np.testing.assert_allclose(value, expected, rtol=0, atol=atol)
    assert gradient.shape == call.spikes.shape
    directions = np.random.default_rng(3).normal(size=(DIRECTIONS, *call.spikes.shape))
    directional_derivatives = np.tensordot(directions, gradient, axes=call.spikes.ndim)
    gradient_scale = max(min_scale, float(np.linalg.norm(gradient)))
    derivative_scale = gradient_scale * np.linalg.norm(directions[0])
    np.testing.assert_allclose(
        directional_derivatives,
        call.directional_derivatives(directions),
        rtol=0,
        atol=max(rtol, DIFFERENCE_RTOL) * derivative_scale,
    )


# Example calls -----------------------------------------------------------------------------------

OF_TRAINS = (sx.SpikeTime, sx.PoissonNLL, sx.NegativeBinomialNLL, sx.BernoulliNLL)
WITH_TARGET = tuple(name for name in ONE_OF_EACH if FORMS[name].contract.target is not None)
NOT_JAX = [name for name in TESTED if "jax" not in name]
not_jax = pytest.mark.parametrize("backend", NOT_JAX, indirect=True)
one_jax = pytest.mark.parametrize(
    "backend", [*NOT_JAX, "jax-x64", *(["jax-cuda"] if "jax-cuda" in TESTED else [])], indirect=True
)


def example(form: Form) -> Call:
    """Return a call with graded spikes; the labelled class is silent in the first sample.

    All spikes differ, so that no loss is evaluated where it is not differentiable.
    """
    random = np.random.default_rng(0)
    spikes = random.uniform(0.125, 1, size=(BATCH, form.neurons, STEPS))
    shape = [SIZES[axis] for axis in form.target_axes]
    target_kind = form.contract.target
    if target_kind is None:  # signed, with a different scale for each neuron
        signs = random.choice([-1, 1], size=spikes.shape)
        return Call(form.loss(), spikes * signs * np.asarray([[[0.5], [1.0], [1.25], [1.5]]]))
    if target_kind is COUNTS:
        return Call(form.loss(), spikes, 1.0 * random.integers(0, 2, size=shape))
    if target_kind is not LABELS:
        largest = STEPS if target_kind is TIMES else 1
        return Call(form.loss(), spikes, random.uniform(0, largest, size=shape))
    label = random.integers(CLASSES, size=shape)
    if form.options.get("readout") != "max":
        group = form.neurons // CLASSES
        first_of_label = label.reshape(BATCH, -1)[0, 0] * group
        spikes[0, first_of_label : first_of_label + group] = 0
    return Call(form.loss(), spikes, label)


def with_everything(form: Form) -> Call:
    """Return an example with masks, lengths, an ignored label and weights, as the form permits."""
    call, random = example(form), np.random.default_rng(1)
    where = random.random(call.spikes.shape) < 0.8
    group = form.neurons // CLASSES
    where[1] = True
    where[2, group : 2 * group] = False  # a whole class
    has_labels = form.contract.target is LABELS
    first_of_label = call.target.reshape(BATCH, -1)[3, 0] * group if has_labels else 0
    where[3, first_of_label : first_of_label + group] = False  # the labelled class, or class 0
    call = call.replace(where=where, lengths=np.asarray([6, 3, 6, 5, 6]))
    if has_labels:
        label = call.target.copy()
        label.reshape(BATCH, -1)[4, 0] = IGNORED  # only at its first step, if labels are per step
        call = call.replace(target=label)
    elif form.contract.target is PROBABILITIES:
        q = call.target.copy()
        q[(4, ..., 0) if q.ndim == 3 else 4] = 0  # a row of zeros, at the first step of several
        call = call.replace(target=q)
    if "weight" in form.contract.call:
        call = call.replace(weight=random.uniform(0.5, 2, size=CLASSES))
    return call


def with_nan_where_masked(call: Call) -> Call:
    """Return a copy with NaN in masked spikes and targets, and with invalid masked labels."""
    mask = reference.full_mask(call.spikes.shape, -1, call.where, call.lengths)
    target = call.target
    if isinstance(call.loss, OF_TRAINS):
        target = np.where(mask, target, np.nan)
    elif target is not None and target.dtype.kind == "f":  # a number for each class
        groups = mask.reshape(len(mask), target.shape[1], -1, mask.shape[-1]).any(axis=2)
        target = np.where(groups if target.ndim == 3 else groups.any(axis=2), target, np.nan)
    elif target is not None:
        target = np.where(mask.any(axis=1 if target.ndim == 2 else (1, 2)), target, 77)
    return call.replace(spikes=np.where(mask, call.spikes, np.nan), target=target)


def arguments_with_time(call: Call) -> set[str]:
    """Return the names of the arguments that have a time axis."""
    trains, window = isinstance(call.loss, OF_TRAINS), getattr(call.loss, "moving_window", None)
    ndim_per_step = 2 + (np.asarray(call.target).dtype.kind not in "iu")
    has_time = {
        "spikes": True,
        "target": np.ndim(call.target) == (call.spikes.ndim if trains else ndim_per_step),
        "where": np.ndim(call.where) > 1,
        "cotangent": np.ndim(call.cotangent) > 0 and bool(trains or window),
    }
    return {name for name, has_it in has_time.items() if has_it}


def moved(call: Call, time_axis: int) -> Call:
    """Return the same call with time moved from the last axis to `time_axis`."""
    short_time_axis = reference.target_time_axis(call.spikes.shape, time_axis)
    changes = {}
    for name in arguments_with_time(call):
        x = getattr(call, name)
        may_have_it = name in ("spikes", "where") or isinstance(call.loss, OF_TRAINS)
        has_input_shape = may_have_it and x.shape == call.spikes.shape
        changes[name] = np.moveaxis(x, -1, time_axis if has_input_shape else short_time_axis)
    return call.replace(loss=dataclasses.replace(call.loss, time_axis=time_axis), **changes)


def with_layout(call: Call, space: tuple[int, ...], axis: int) -> Call:
    """Return the same call with the axes of `space` as class axes, and with another time axis."""
    shape, trains = call.spikes.shape, isinstance(call.loss, OF_TRAINS)
    names = ("spikes", "where", *(("target", "cotangent") if trains else ()))
    of_input = {name: x for name in names if np.shape(x := getattr(call, name)) == shape}
    split = {name: x.reshape(shape[0], *space, shape[-1]) for name, x in of_input.items()}
    return moved(call.replace(**split), axis)


def take_samples(call: Call, samples: Any) -> Call:
    """Return the same call with some of the samples."""
    fields = ("spikes", "target", "where", "lengths", "cotangent")
    given = {name: x for name in fields if np.ndim(x := getattr(call, name))}
    return call.replace(**{name: np.asarray(x)[samples] for name, x in given.items()})


def take_steps(call: Call, first: int, stop: int) -> Call:
    """Return the same call with some of the steps, which are the last axis."""
    taken = {name: getattr(call, name)[..., first:stop] for name in arguments_with_time(call)}
    if call.lengths is not None:
        taken["lengths"] = np.clip(call.lengths - first, 0, stop - first)
    return call.replace(**taken)
