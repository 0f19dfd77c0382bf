"""What holds of every loss, whatever it is called with.

The examples are the same in every run. Hypothesis draws the loss, its options, the layout and what
is masked; the numbers come from a seed, which it draws too. They keep off the kinks of the losses.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference
from calls import IGNORED, Call, agree, having_time, moved, spoilt
from cases import close
from conftest import BACKENDS, on
from contract import FLOATS, INTEGERS, WINDOWED
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import spikeloss_xp as sx

EXAMPLES = {  # JAX has each of them to compile
    "numpy": 200,
    "torch": 100,
    "jax": 6,
    "jax-x64": 12,
    "array-api-strict": 100,
    "array-api-strict-device1": 20,
}
LEAST = 0.01
"""The losses have terms around 1. One that is smaller is the difference of numbers around 1."""
SPACING = {"float16": 2.0**-11, "bfloat16": 2.0**-8}  # half a unit in the last place


def for_all(share: float = 1.0, **strategies: Any) -> Callable[[Callable[..., None]], Any]:
    """Check a property on every backend, with its number of examples or a share of them."""

    def decorate(check: Callable[..., None]) -> Any:
        def test(name: str) -> None:
            examples = max(2, round(share * EXAMPLES.get(name, 100)))
            chosen = settings(max_examples=examples, derandomize=True, deadline=None, database=None)
            with on(name) as backend:
                chosen(given(**strategies)(check))(backend)

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return pytest.mark.parametrize("name", BACKENDS)(test)

    return decorate


# What is drawn -----------------------------------------------------------------------------------

LOSSES = (sx.SpikeTime, sx.SpikeRate, sx.SpikeMax, sx.SpikeMoid, sx.SparsityEnforcer)
SHAPES = ((3, 6, 5), (2, 4, 3), (2, 1, 4))  # batch, neurons, time
SPACES = {6: ((6,), (2, 3)), 4: ((4,), (2, 2)), 1: ((1,), (1, 1), ())}
POTENTIALS = (0.6875, 0.0625, 1.4375, -0.5625)  # the first two are rates as well
PSEUDO_COUNTS = (0.45, 0.3, 1.7)  # of which no spikes, in eighths, are as many


@st.composite
def losses(draw: Any, neurons: int, kinds: tuple[type, ...] = LOSSES) -> Any:
    kind, pick = draw(st.sampled_from(kinds)), lambda *of: draw(st.sampled_from(of))
    if kind is sx.SparsityEnforcer:
        options = {"min_rate": pick(0.0, 0.53), "per": pick("array", "neuron")}
        return kind(pick(0.53, 0.77), pick(1.0, 2.5), **options)
    options = {"reduction": pick("none", "sum", "mean", "batchmean")}
    if kind is sx.SpikeTime:
        return kind(pick(0.75, 3.0), pick(1, 4, 100), pick(1, 2), **options)
    if kind is sx.SpikeMax and pick(True, False):
        options |= {"mode": "softmax", "temperature": pick(1.0, 0.25)}
    readouts = (
        WINDOWED if kind is sx.SpikeMax and "mode" not in options else (*WINDOWED, "max", "last")
    )
    options["readout"] = pick(*readouts)
    if options["readout"] in WINDOWED:
        options["moving_window"] = pick(None, 1, 2, 7)
    group = 1 if options["readout"] == "max" else pick(*(n for n in (1, 2, 3) if neurons % n == 0))
    if group > 1:
        options["num_classes"] = neurons // group
    if kind is sx.SpikeMax:
        return kind(label_smoothing=pick(0.0, 0.25), pseudo_count=pick(*PSEUDO_COUNTS), **options)
    if kind is sx.SpikeMoid:
        return kind(alpha=pick(1.0, 0.25), theta=pick(0.0, 0.375), **options)
    wanted = POTENTIALS if options["readout"] not in WINDOWED else POTENTIALS[:2]
    each = tuple(pick(*wanted) for _ in range(neurons // group))
    return kind(pick(pick(*wanted), each), pick(*wanted), **options)


@st.composite
def calls(draw: Any, kinds: tuple[type, ...] = LOSSES, *, masked: bool = True) -> Call:
    """Calls with time last and one class axis."""
    batch, neurons, steps = shape = draw(st.sampled_from(SHAPES))
    loss = draw(losses(neurons, kinds))
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    call = Call(loss, _spikes(draw, random, loss, shape))
    call = call.but(target=_target(draw, random, loss, shape))
    if isinstance(loss, sx.SpikeRate | sx.SpikeMax | sx.SpikeMoid) and draw(st.booleans()):
        call = call.but(weight=random.choice([0, 0.25, 1, 2], size=loss.num_classes or neurons))
    if masked:
        axes = draw(st.sampled_from((None, (0,), (0, 2), (0, 1, 2))))
        if axes is not None:  # in all of their steps some neurons, too
            where = random.random([shape[axis] for axis in axes]) < 0.75
            call = call.but(where=where & (random.random(where.shape[:-1])[..., None] < 0.8))
        if draw(st.booleans()):
            call = call.but(lengths=random.integers(0, steps + 1, size=batch))
        if draw(st.booleans()):
            call = spoilt(call)
    return call.having()


def _spikes(draw: Any, random: Any, loss: Any, shape: tuple[int, ...]) -> np.ndarray:
    """In eighths or in ones, so that every dtype holds them; some neurons silent or saturated."""
    if getattr(loss, "readout", None) == "max":  # no two in a train the same
        return random.permuted(np.broadcast_to(np.arange(1.0, 1 + shape[-1]) / 8, shape), axis=-1)
    binary = draw(st.booleans())
    size = np.ones(shape) if binary else random.integers(1, 9, size=shape) / 8
    if isinstance(loss, sx.SparsityEnforcer):  # whose readout has a kink at silence
        return size * random.choice([-1, 1], size=shape)
    if not binary and not (isinstance(loss, sx.SpikeMax) and loss.mode == "probability"):
        size *= random.choice([-1, 1], size=shape)
    return size * (random.random(shape) < random.choice([0, 0.5, 1], size=(*shape[:2], 1)))


def _target(draw: Any, random: Any, loss: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    batch, neurons, steps = shape
    if isinstance(loss, sx.SparsityEnforcer):
        return None
    if isinstance(loss, sx.SpikeTime):
        return random.integers(0, 9, size=shape) / 8
    time = (steps,) if loss.moving_window and draw(st.booleans()) else ()
    classes = loss.num_classes or neurons
    if isinstance(loss, sx.SpikeMoid):
        return random.integers(0, 9, size=(batch, classes, *time)) / 8
    label = random.integers(classes, size=(batch, *time))
    return np.where(random.random(label.shape) < 0.2, IGNORED, label)


def in_space(call: Call, space: tuple[int, ...]) -> Call:
    """The same with class axes of other lengths."""
    shape = call.spikes.shape

    def spread(x: Any) -> Any:
        return np.reshape(x, (shape[0], *space, shape[-1])) if np.shape(x) == shape else x

    trains = isinstance(call.loss, sx.SpikeTime)
    return call.but(
        spikes=spread(call.spikes),
        where=spread(call.where),
        target=spread(call.target) if trains else call.target,
        cotangent=spread(call.cotangent) if trains else call.cotangent,
    )


@st.composite
def layouts(draw: Any, call: Call) -> tuple[tuple[int, ...], int]:
    """The lengths of the class axes that a call may have instead of one, and an axis for time."""
    spaces = SPACES[call.spikes.shape[1]]
    if isinstance(call.loss, sx.SpikeRate | sx.SpikeMax | sx.SpikeMoid):  # these need a class axis
        spaces = spaces[:2]
    space = draw(st.sampled_from(spaces))
    return space, draw(st.sampled_from((-1, *range(2 + len(space)))))


def laid_out(call: Call, space: tuple[int, ...], axis: int) -> Call:
    return moved(in_space(call, space), axis)


@st.composite
def calls_laid_out(draw: Any) -> Call:
    call = draw(calls())
    return laid_out(call, *draw(layouts(call)))


# What holds --------------------------------------------------------------------------------------


@for_all(call=calls_laid_out(), dtype=st.sampled_from((*FLOATS, "bool", *INTEGERS)))
def test_value_and_gradient_are_those_of_the_formulas(backend, call, dtype):
    whole = bool(np.isin(call.spikes, (0, 1)).all())
    narrow = backend.name == "jax" and dtype.endswith("64")
    if not hasattr(backend.xp, dtype) or narrow or not (whole or dtype in FLOATS):
        dtype = backend.dtype
    value, gradient = call.on(backend, dtype)
    rtol = {"float64": 1e-12}.get(dtype, 1e-5)  # as `Backend.rtol`
    agree(call, (value, gradient.astype(np.float64)), rtol + SPACING.get(dtype, 0), least=LEAST)


@for_all(0.5, call=calls(), data=st.data())
def test_the_layout_makes_no_difference(backend, call, data):
    value, gradient = call.on(backend)
    space, axis = data.draw(layouts(call))
    got, of_it = laid_out(call, space, axis).on(backend)
    # terms are laid out as their cotangent is
    close(got, laid_out(call.but(cotangent=value), space, axis).cotangent, backend.rtol)
    close(np.moveaxis(of_it, axis, -1).reshape(gradient.shape), gradient, backend.rtol)


@for_all(0.5, call=calls(), seed=st.integers(0, 99))
def test_the_order_of_samples_makes_no_difference(backend, call, seed):
    order = np.random.default_rng(seed).permutation(len(call.spikes))
    value, gradient = call.on(backend)
    there, of_there = taken(call, order).on(backend)
    close(there, value[order] if np.ndim(value) else value, backend.rtol)
    close(of_there, gradient[order], backend.rtol)


SUMMED = (sx.SpikeTime, sx.SpikeRate, sx.SpikeMax, sx.SpikeMoid)


@for_all(0.5, call=calls(SUMMED))
def test_the_sum_is_that_of_the_samples(backend, call):
    call = call.having(reduction="sum").but(cotangent=None)
    value, gradient = call.on(backend)
    each = [taken(call, [b]).on(backend) for b in range(len(call.spikes))]
    np.testing.assert_allclose(value, sum(v for v, _ in each), rtol=backend.rtol)
    close(gradient, np.concatenate([g for _, g in each]), backend.rtol)


@for_all(0.5, call=calls(masked=False), seed=st.integers(0, 99))
def test_what_is_masked_might_as_well_not_be_there(backend, call, seed):
    """Some samples, and the last steps."""
    batch, _, steps = call.spikes.shape
    random = np.random.default_rng(seed)
    samples, last = np.flatnonzero(random.random(batch) < 0.7), random.integers(1, steps + 1)
    assume(len(samples))
    kept = np.zeros(call.spikes.shape, dtype=bool)
    kept[samples, :, :last] = True
    if random.random() < 0.5:
        masked = spoilt(call.but(where=kept))
    else:
        masked = spoilt(call.but(where=kept[:, 0, 0], lengths=np.full(batch, last)))
    fewer = until(taken(call, samples), last)
    value, gradient = masked.on(backend)
    wanted, wanted_gradient = fewer.on(backend)
    if np.ndim(value):  # the terms that are left are where their cotangent is
        left = until(taken(call.but(cotangent=value), samples), last).cotangent
        assert np.count_nonzero(value) == np.count_nonzero(left)
        value = left
    close(value, wanted, backend.rtol)
    close(gradient[samples, :, :last], wanted_gradient, backend.rtol)
    assert not gradient[~kept].any()


def taken(call: Call, samples: Any) -> Call:
    """The same with some of the samples."""

    def take(x: Any) -> Any:
        return x if np.ndim(x) == 0 else np.asarray(x)[samples]

    fields = ("spikes", "target", "where", "lengths", "cotangent")
    return call.but(**{f: take(getattr(call, f)) for f in fields if getattr(call, f) is not None})


def until(call: Call, last: int) -> Call:
    """The same with the first steps only."""
    return call.but(**{name: getattr(call, name)[..., :last] for name in having_time(call)})


@for_all(0.5, call=calls(), factor=st.sampled_from((0.5, 2.0, 4.0)))
def test_a_change_of_scale(backend, call, factor):
    """What the spikes are multiplied by, by a power of 2, the parameters can be multiplied by."""
    loss, power = call.loss, 2
    target = call.target
    if isinstance(loss, sx.SpikeTime):
        target = target * factor
    elif isinstance(loss, sx.SparsityEnforcer):
        loss = dataclasses.replace(
            loss, max_rate=loss.max_rate * factor, min_rate=loss.min_rate * factor
        )
    elif isinstance(loss, sx.SpikeMoid):
        loss, power = (
            dataclasses.replace(loss, alpha=loss.alpha * factor, theta=loss.theta * factor),
            0,
        )
    elif isinstance(loss, sx.SpikeMax) and loss.mode == "softmax":
        loss, power = dataclasses.replace(loss, temperature=loss.temperature * factor), 0
    elif isinstance(loss, sx.SpikeRate) and loss.readout not in WINDOWED:
        rates = (np.multiply(rate, factor).tolist() for rate in (loss.true_rate, loss.false_rate))
        loss = dataclasses.replace(
            loss, **dict(zip(("true_rate", "false_rate"), rates, strict=True))
        )
    else:
        assume(False)
    value, gradient = call.on(backend)
    scaled = call.but(loss=loss, spikes=call.spikes * factor, target=target)
    got, of_scaled = scaled.on(backend)
    close(got, value * factor**power, backend.rtol)
    close(of_scaled, gradient * factor ** (power - 1), backend.rtol)


@for_all(0.5, call=calls(masked=False))
def test_where_nothing_fires_the_value_is_known(backend, call):
    loss, (_, neurons, steps) = call.loss, call.spikes.shape
    call = call.but(spikes=np.zeros(call.spikes.shape), weight=None, cotangent=None)
    if not isinstance(loss, sx.SparsityEnforcer):
        call = call.but(loss=dataclasses.replace(loss, reduction="mean"))
    if isinstance(loss, sx.SpikeRate | sx.SpikeMax):
        assume((call.target != IGNORED).any())
        classes = loss.num_classes or neurons
        # how many steps a reading is the sum of, if it is a count
        length = (loss.moving_window or steps) if loss.readout == "count" else 1
    if isinstance(loss, sx.SparsityEnforcer):
        wanted = loss.lam * loss.min_rate**2
    elif isinstance(loss, sx.SpikeTime):
        call, wanted = call.but(target=call.spikes), 0.0
    elif isinstance(loss, sx.SpikeMoid):
        z = -loss.theta / loss.alpha
        wanted = math.log1p(math.exp(z)) - z * call.target.mean()
    elif isinstance(loss, sx.SpikeRate):
        true, false = (
            np.broadcast_to(r, classes) * length for r in (loss.true_rate, loss.false_rate)
        )
        labels = call.target[call.target != IGNORED]
        terms = [true[label] ** 2 + (false**2).sum() - false[label] ** 2 for label in labels]
        wanted = np.mean(terms) / classes
    elif loss.mode == "softmax":
        wanted = math.log(classes)
    else:  # as bad as a guess, and a nat worse
        reading = 1 if loss.readout == "count" else loss.moving_window or steps
        few = loss.pseudo_count / reading / (neurons // classes)
        wanted = 1 + math.log(classes + reference.EPSILON / few)
    value, gradient = call.on(backend)
    close(value, np.asarray(wanted), backend.rtol)
    assert np.isfinite(gradient).all()
