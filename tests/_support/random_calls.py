"""Random calls of every loss and option, each drawn from one seed.

Spikes are multiples of 1/8, which every dtype holds exactly, and losses are drawn again where they
are not differentiable nearby, because the reference differentiates by differences.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

import spikeloss_xp as sx
from _support import reference
from _support.calls import (
    IGNORED,
    Call,
    take_samples,
    with_layout,
    with_nan_where_masked,
)
from _support.contract import ENTROPY_READOUTS, LISTED, READOUTS, REDUCTIONS, WINDOWED
from spikeloss_xp.slayer import published

LOSSES = tuple(contract.loss for contract in LISTED)
PAIRED = (sx.times.SpikeTime, sx.times.VictorPurpura)
ON_TIMES = (sx.times.CrossEntropy, sx.times.SpikeLatency, *PAIRED)
SPACES = {4: ((4,), (2, 2)), 6: ((6,), (2, 3)), 8: ((8,), (2, 2, 2))}
POTENTIALS = (0.6875, 0.0625, 1.4375, -0.5625)  # the first two are also valid rates
STEP_THRESHOLDS = (16, 32, 64, 128, 256, 512)
"""Durations, windows and kernels at which the filters and sums choose another algorithm: the limits
in `kernels.py` and `block_filter.py`, `SHORT` of the adapters, and multiples of block sizes."""
LONG_STEPS = 33_000
"""A duration of more than 512 blocks, whose carried sums are filtered in blocks as well."""
LONGEST_KERNEL = 300  # in a train of so many steps, because the reference sums tap by tap
LIKELIHOODS = (sx.PoissonNLL, sx.NegativeBinomialNLL, sx.BernoulliNLL)
LONG_CASES = {"long": 0.05, "large": 0.1}  # the share of calls with so many steps
MIN_SCALE = 0.01
"""Terms are around 1. Smaller ones are differences of such numbers, and no more accurate."""
MARGIN = 0.05
"""The distance to a point where a loss is not differentiable, in spikes: differences take steps of
2e-4 along normal directions, which change a sum over 1000 steps by up to 0.02."""


@dataclasses.dataclass(frozen=True)
class RandomCall:
    """A call with time as the last axis, and how it is varied for a backend.

    The batch holds the samples of `call` in the order of `samples`, which may repeat them.
    """

    call: Call
    samples: np.ndarray
    layout: tuple[tuple[int, ...], int] | None
    """The class axes and the time axis; None for spike times."""

    def in_full(self) -> Call:
        """Return the call with repeated samples, and with its class axes and time axis."""
        call = take_samples(self.call, self.samples)
        return with_layout(call, *self.layout) if self.layout else call


def random_call(
    seed: int,
    kind: str,
    thresholds: Iterable[int] = (),
    *,
    masked: bool = True,
    accept: Callable[[Call], bool] = lambda call: True,
) -> RandomCall:
    """Draw a call of one of these kinds.

    "small": all options and layouts, with up to 12 steps. "times": spike times. "long": durations,
    windows and kernels around `STEP_THRESHOLDS`. "large": a batch of repeated samples, whose number
    of entries is around one of `thresholds`. Calls are drawn until `accept` returns True for one of
    them.
    """
    random = np.random.default_rng([seed, *kind.encode()])
    while True:
        call = _draw(random, kind)
        if masked:
            call = _masked(random, call, kind)
        if _is_smooth(call) and accept(call):
            break
    call = call.with_loss_options()
    sparsity = isinstance(call.loss, sx.SparsityEnforcer)
    if not sparsity and getattr(call.loss, "reduction", "") in ("mean", "batchmean"):
        # then the gradient has the size of that of a sum, however many terms there are
        evaluated = reference.evaluate(call.loss, call.spikes, call.target, **call.options)
        divisor = reference.divisor(call.loss.reduction, evaluated) or 1
        call = call.replace(cotangent=call.cotangent * divisor)
    batch, neurons, steps = call.spikes.shape
    samples = random.integers(batch, size=batch)
    if kind == "large":
        entries = pick(random, *thresholds)
        number = max(-(-entries // (neurons * steps)) + pick(random, -1, 0, 1), 1)
        number += pick(random, 0, -number % 12)  # JAX has chunks only if they divide the batch
        samples = random.integers(batch, size=number)
        if isinstance(call.loss, sx.SparsityEnforcer):  # its mean is that of all samples together
            samples = random.permutation(np.repeat(np.arange(batch), -(-number // batch)))
    elif isinstance(call.loss, sx.SparsityEnforcer):
        samples = random.permutation(batch)
    if kind == "times":
        return RandomCall(call, samples, None)
    spaces: tuple[tuple[int, ...], ...] = SPACES.get(neurons, ((neurons,),))
    if isinstance(call.loss, sx.SpikeTime) and neurons == 1:
        spaces = ((1,), ())
    space = pick(random, *spaces)
    return RandomCall(call, samples, (space, pick(random, -1, *range(2 + len(space)))))


@contextlib.contextmanager
def named(drawn: RandomCall, repeat: str) -> Iterator[None]:
    """Add the drawn call, and the arguments of pytest that repeat it, to any error."""
    try:
        yield
    except Exception as error:
        given = {"spikes": drawn.call.spikes, "target": drawn.call.target} | drawn.call.options
        shapes = {name: np.shape(x) for name, x in given.items()}
        error.add_note(f"To run it again: python -m pytest {repeat}\n{drawn.call.loss}, {shapes}")
        raise


def is_published(call: Call) -> bool:
    """Tell whether a loss has the published numbers, which lose digits, most in float32."""
    return isinstance(call.loss, published.SpikeMax | published.SpikeMoid)


def tolerance(dtype: str, call: Call) -> float:
    """Return the relative tolerance: a few hundred roundings, as `Backend.rtol`.

    A softmax or sigmoid has as large a relative error as its argument has an absolute one.
    """
    epsilon = float(np.finfo(dtype).eps)
    rtol = {"float64": 1e-12, "float32": 1e-5}[dtype]
    scale = getattr(call.loss, "alpha", None) or getattr(call.loss, "temperature", None)
    if scale is None:
        return rtol
    reading = reference.read(call.loss, call.spikes, call.where, call.lengths)
    return rtol + 4 * epsilon * float(np.max(np.abs(reading.u))) / scale


def pick(random: np.random.Generator, *choices: Any) -> Any:
    return choices[random.integers(len(choices))]


def around(random: np.random.Generator, most: int) -> int:
    """Draw a number of steps up to `most`: near a threshold, or any, small ones more often."""
    near = [t + d for t in STEP_THRESHOLDS for d in (-1, 0, 1) if t + d <= most]
    anything = int(math.exp(random.uniform(0, math.log(most + 1))))
    return min(pick(random, anything, *near) if random.random() < 0.7 else anything, most)


def _draw(random: np.random.Generator, kind: str) -> Call:
    loss_kind = pick(random, *(ON_TIMES if kind == "times" else LOSSES))
    batch, neurons = pick(random, 1, 2, 3, 4), pick(random, 1, 2, 3, 4, 6, 8, 9)
    steps = pick(random, *range(1, 13))
    if kind == "times":
        batch, neurons = pick(random, 1, 3, 4), pick(random, 1, 2, 4, 6, 8, 9)
    if kind == "long":
        batch, neurons = pick(random, 1, 2), pick(random, 1, 2, 4)
        steps = around(random, 1200)
    elif kind == "large":
        batch, steps = 4, around(random, 130)
    if random.random() < LONG_CASES.get(kind, 0):
        loss_kind, batch, neurons, steps = sx.SpikeTime, 1, pick(random, 1, 2), LONG_STEPS
    if kind == "times":
        loss = _loss_on_times(random, loss_kind, neurons)
        spikes = _times(random, (batch, neurons, pick(random, 1, 2, 3, 4)))
    else:
        loss = _loss(random, loss_kind, neurons, steps)
        spikes = _spikes(random, loss, (batch, neurons, steps))
    call = Call(loss, spikes, _target(random, loss, spikes.shape))
    is_weighted = not isinstance(loss, sx.SparsityEnforcer)
    if is_weighted and random.random() < 0.5:
        weights = random.choice([0, 0.25, 1, 2], size=getattr(loss, "num_classes", 0) or neurons)
        call = call.replace(weight=weights)
    return call


def _masked(random: np.random.Generator, call: Call, kind: str) -> Call:
    """Return the call with a mask, with lengths, with both or with neither."""
    batch, _, steps = shape = call.spikes.shape
    times = kind == "times"
    axes = pick(random, None, *([(0,)] if times else [(0,), (0, 2), (0, 1, 2)]))
    if axes is not None:  # mask single entries, and some samples or neurons at all steps
        where = random.random([shape[axis] for axis in axes]) < pick(random, 0.5, 0.9)
        call = call.replace(where=where & (random.random(where.shape[:-1])[..., None] < 0.8))
    if random.random() < 0.5 and not times:
        call = call.replace(lengths=random.integers(0, steps + 1, size=batch))
    if isinstance(call.loss, PAIRED) or random.random() < 0.5:
        return call
    return with_nan_where_masked(call)


def in_other_memory(random: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """Return equal numbers: backwards, by columns or with gaps in memory, perhaps read-only."""
    x = np.repeat(x, 2, axis=-1)[..., ::2] if random.random() < 0.5 else x.copy()
    x = pick(random, x, np.asfortranarray(x), x[..., ::-1].copy()[..., ::-1])
    x.flags.writeable = random.random() < 0.5
    return x


def _loss_on_times(random: np.random.Generator, kind: Any, neurons: int) -> Any:
    options = {"reduction": pick(random, *REDUCTIONS)}
    if kind is sx.times.SpikeTime:
        return kind(time_constant=pick(random, 0.75, 3.0, 40.0), **options)
    if kind is sx.times.VictorPurpura:
        return kind(cost=pick(random, 0.3125, 1.5, 0.02), **options)
    group = pick(random, *(n for n in (1, 2, 3) if neurons % n == 0))
    options |= {"num_classes": neurons // group, "silent_time": pick(random, 9.6875, 21.4375)}
    options["ignore_index"] = pick(random, IGNORED, 0, neurons + 5)
    if kind is sx.times.CrossEntropy:
        options |= {"temperature": pick(random, 1.0, 0.25, 3.0)}
        return kind(label_smoothing=pick(random, 0.0, 0.25), **options)
    false_time = pick(random, None, 2.0)
    return kind(true_time=pick(random, 0.0, 8.5), false_time=false_time,
                tolerance=pick(random, 0.0, 1.25), **options)  # fmt: skip


def _times(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw spike times that differ by an eighth at least, and padding."""
    places = np.stack([random.permutation(math.prod(shape[1:])) for _ in range(shape[0])])
    times = places.reshape(shape) / 4 + random.integers(1 << 8, size=shape) / (1 << 11)
    padding = random.choice([math.nan, math.inf, -math.inf], size=shape)
    return np.where(random.random(shape) < pick(random, 0.1, 0.6, 0.9), padding, times)


def _loss(random: np.random.Generator, kind: Any, neurons: int, steps: int) -> Any:
    """Draw a loss with options that fit the number of neurons and steps."""

    def one(*choices: Any) -> Any:
        return pick(random, *choices)

    if kind is sx.SparsityEnforcer:
        limits = [(0.13, 0.0), (0.53, 0.0), (0.53, 0.53), (0.77, 0.53)]
        max_rate, min_rate = one(*limits)
        options = {"per": one("all", "neuron", "sample", "sample_neuron"), "power": one(1, 2)}
        if options["per"].endswith("neuron") and one(True, False):
            max_rate, min_rate = zip(*(one(*limits) for _ in range(neurons)), strict=True)
            min_rate = one(min_rate, 0.0)
        options["min_rate"] = min_rate
        options["reduction"] = one("mean", "sum")
        kind = one(kind, kind, published.SparsityEnforcer)
        return kind(max_rate, rate_weight=one(1.0, 2.5), time_axis=-1, **options)
    options = {"time_axis": -1, "reduction": one(*REDUCTIONS)}
    if kind is sx.SpikeTime:
        length = one(around(random, 1200), steps, max(steps - 1, 1), steps + 1, 10**5)
        length = min(length, LONGEST_KERNEL) if steps == LONG_STEPS else length
        options["filter_target"] = one(True, True, False)
        if random.random() < 0.25:
            taps = random.integers(-8, 9, size=min(length, 1200)) / 8
            return kind(kernel=taps, **options)
        options["time_constant"] = one(0.75, 3.0, 20.0, 400.0)
        return kind(length=length, filter_order=one(1, 1, 2, 3), **options)
    if kind in (sx.PoissonNLL, sx.NegativeBinomialNLL):
        options |= {"link": one("log", "identity"), "constant": one(True, False)}
        if kind is sx.NegativeBinomialNLL:
            each = tuple(one(1e-9, 0.125, 1.0, 8.0) for _ in range(neurons))
            options["dispersion"] = one(0.5, each)
        return kind(**options)
    if kind is sx.BernoulliNLL:
        return kind(link=one("logit", "hazard"), **options)
    readouts = ENTROPY_READOUTS if kind is sx.CrossEntropy else READOUTS
    if steps > 600 or kind is sx.SpikeMax:  # the differences of maxima become too small
        readouts = [readout for readout in readouts if readout in WINDOWED]
    options["readout"] = "latency" if kind is sx.SpikeLatency else one(*readouts)
    if options["readout"] in WINDOWED:
        options["moving_window"] = one(None, 1, around(random, steps), steps, steps + 1, 10 * steps)
    group = one(*(n for n in (1, 2, 3) if neurons % n == 0))
    if group > 1 or random.random() < 0.1:
        options["num_classes"] = neurons // group
    if kind is sx.HuberError:
        options["delta"] = one(0.3, 1.1)
    if issubclass(kind, sx.SquaredError):
        return kind(**options)
    if kind is not sx.SpikeMoid:
        options["ignore_index"] = one(IGNORED, 0, neurons + 5)
    if kind is sx.CrossEntropy:
        options |= {"temperature": one(1.0, 0.25, 3.0), "label_smoothing": one(0.0, 0.25)}
        if options["readout"] in WINDOWED:
            options["rates"] = one(None, (0.53, 0.07), (0.97, 0.03))
            options["rate_weight"] = one(0.1, 2.0)
        return kind(**options)
    if kind is sx.SpikeLatency:
        del options["readout"]
        options["tolerance"] = one(0.0, 0.0, 1.25)
        return kind(one(0, 2, 1.5 * steps), one(None, 1), **options)
    is_published = one(True, False, False)
    if kind is sx.SpikeMax:
        del options["readout"]
        mode = "probability" if is_published else one("probability", "softmax")
        kind = published.SpikeMax if is_published else kind
        # never equal to a count of spikes, which is in eighths
        return kind(mode=mode, pseudo_count=one(0.3125, 1.6875), **options)
    if kind is sx.SpikeMoid:
        kind = published.SpikeMoid if is_published else kind
        if not is_published:
            each = tuple(one(0.0, 0.25, 1.0, 8.0) for _ in range(neurons // group))
            options["pos_weight"] = one(1.0, 2.5, each)
        elif one(True, False):  # probabilities that round to 0 or 1
            return kind(alpha=2.0**-14, theta=0.34375, **options)
        return kind(alpha=one(1.0, 0.25), theta=one(0.0, 0.375), **options)
    assert kind is sx.SpikeRate, f"{kind.__name__} has no random options"
    targets = POTENTIALS if options["readout"] not in WINDOWED else POTENTIALS[:2]
    low, *others = sorted(one(targets, targets[:2]))
    per_class = tuple(one(*others) for _ in range(neurons // group))
    return kind(one(one(*others), per_class), low, one_sided=one(False, False, True), **options)


def _spikes(random: np.random.Generator, loss: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Draw spikes in eighths or ones; some neurons never or always spike."""
    if getattr(loss, "link", "") == "identity":  # so far from 0 that differences are accurate
        return random.integers(4, 17, size=shape) / 8
    if getattr(loss, "readout", None) == "max":  # all steps differ, so that the maximum is unique
        ramp = np.broadcast_to(np.arange(1.0, 1 + shape[-1]) / 8, shape)
        return random.permuted(ramp, axis=-1)
    binary = random.random() < 0.5
    size = np.ones(shape) if binary else random.integers(1, 9, size=shape) / 8
    is_probability = isinstance(loss, sx.SpikeMax) and loss.mode == "probability"
    if isinstance(loss, published.SpikeMax):  # it is infinite at silence
        return size
    counted = getattr(loss, "readout", "") in ("latency", "sqrt_count")
    counted = counted or getattr(loss, "rates", None) is not None
    if not binary and not is_probability and not counted:
        size *= random.choice([-1, 1], size=shape)
    return size * (random.random(shape) < random.choice([0, 0.1, 0.5, 1], size=(*shape[:2], 1)))


def _target(random: np.random.Generator, loss: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    batch, neurons, steps = shape
    if isinstance(loss, sx.SparsityEnforcer):
        return None
    if isinstance(loss, sx.SpikeTime):
        return random.integers(0, 9, size=shape) / 8
    if isinstance(loss, LIKELIHOODS):
        counts = random.integers(0, 2 if isinstance(loss, sx.BernoulliNLL) else 5, size=shape)
        return counts / (1 if getattr(loss, "constant", True) else 2)
    if isinstance(loss, PAIRED):  # between the spike times
        return np.floor(4 * _times(random, (batch, neurons, pick(random, 1, 2, 3)))) / 4 + 3 / 16
    time = (steps,) if getattr(loss, "moving_window", None) and random.random() < 0.5 else ()
    classes = loss.num_classes or neurons
    if isinstance(loss, sx.SquaredError):
        return random.integers(-8, 9, size=(batch, classes, *time)) / 8
    if isinstance(loss, sx.SpikeMoid):
        return random.integers(0, 9, size=(batch, classes, *time)) / 8
    if isinstance(loss, sx.SpikeLatency | sx.times.SpikeLatency) and random.random() < 0.5:
        return random.uniform(0, steps, size=(batch, classes))
    if isinstance(loss, sx.CrossEntropy | sx.times.CrossEntropy) and random.random() < 0.4:
        rows = random.random((batch, 1, *time)) < 0.8  # the others are rows of zeros
        return rows * random.integers(0, 9, size=(batch, classes, *time)) / 8
    label = random.integers(classes, size=(batch, *time))
    return np.where(random.random(label.shape) < 0.2, loss.ignore_index, label)


def _is_smooth(call: Call) -> bool:
    """Tell whether the loss is differentiable at all points near the spikes of a call."""
    loss = call.loss
    if isinstance(loss, sx.SparsityEnforcer):
        o = reference.options(loss)
        groups = reference.mean_magnitudes(o, call.spikes, call.where, call.lengths)
        # Without a lowest rate, there is no kink at 0.
        near = (abs(rate - kink) for rate, *kinks in groups for kink in kinks if kink)
        return all(distance > MARGIN / 5 for distance in near)
    if isinstance(loss, (sx.SpikeTime, sx.times.SpikeTime, *LIKELIHOODS)):
        return True
    if isinstance(loss, sx.times.VictorPurpura):  # linear, but where the cheapest edits change
        for step in 2e-3 * np.random.default_rng(3).normal(size=(8, *call.spikes.shape)):
            near = [np.sum(call.value(call.spikes + sign * step)) for sign in (-1, 0, 1)]
            if abs(near[0] - 2 * near[1] + near[2]) > 1e-9:
                return False
        return True
    reading = reference.read(loss, call.spikes, call.where, call.lengths)
    if isinstance(loss, published.SpikeMoid):
        # Between the two limits 1 - p has few digits, and the logarithm reaches its bound.
        z = abs(reading.u - loss.theta)[reading.term_mask] / loss.alpha
        if ((z > 6) & (z < 150)).any():
            return False
    if getattr(loss, "readout", "") == "max":
        trains = np.where(reading.mask, reading.trains, -1e9 * np.arange(reading.mask.shape[-1]))
        values = np.sort(trains, axis=-1)[..., -2:]
        return values.shape[-1] < 2 or not (values[..., 1] - values[..., 0] < MARGIN).any()
    if isinstance(loss, sx.SpikeMax) and loss.mode == "probability":
        counts = reading.u / reading.per_spike
        return not (abs(counts - loss.pseudo_count)[reading.term_mask] < MARGIN).any()
    if isinstance(loss, sx.CrossEntropy) and loss.rates:  # the curvature changes at the bounds
        n = reading.u * reading.most if loss.readout == "rate" else reading.u
        edge = [abs(n - rate * reading.most)[reading.term_mask] for rate in loss.rates]
        return not (np.asarray(edge) < MARGIN).any()
    if isinstance(loss, sx.SpikeRate) and loss.one_sided:
        rates = (reference.per_class(x, reading) for x in (loss.true_rate, loss.false_rate))
        edge = [abs(reading.u - np.asarray(x)[:, None] * reading.duration) for x in rates]
        margin = MARGIN / 5 if loss.readout == "rate" else MARGIN
        return not (np.asarray(edge)[:, reading.term_mask] < margin).any()
    if isinstance(loss, sx.AbsoluteError | sx.HuberError):  # the slope or its slope has a jump
        wanted = call.target if call.target.ndim == 3 else call.target[:, :, None]
        return bool((abs(abs(reading.u - wanted) - getattr(loss, "delta", 0)) > MARGIN).all())
    if isinstance(loss, sx.SpikeLatency | sx.times.SpikeLatency):
        # The curvature changes where the tolerance ends.
        times = (loss.true_time, loss.false_time, None)
        wanted = np.asarray(
            [reading.duration if t is None else np.full(reading.u.shape, t) for t in times]
            if call.target.ndim == 1
            else [call.target[..., None]]
        )
        edge = abs(abs(reading.u - wanted) - loss.tolerance)
        return loss.tolerance == 0 or not (edge < MARGIN)[:, reading.term_mask].any()
    return True
