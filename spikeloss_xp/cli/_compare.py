"""The same losses on the same spikes in several places."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spikeloss_xp._consistency import Place, differences, evaluate, reference
from spikeloss_xp.backends._available import adapter
from spikeloss_xp.cli._recording import Recording, UsageError
from spikeloss_xp.losses import SparsityEnforcer, SpikeMax, SpikeMoid, SpikeRate, SpikeTime

WINDOW = 50  # long enough for a rate, short enough to see it move
MOST_CALLS, LONGEST = 50, 0.2  # calls that are timed, and how many seconds they may take together


@dataclass(frozen=True)
class Case:
    """A loss, its name in the table, and its target; or why it has none."""

    name: str
    loss: Callable[..., Any]
    targets: tuple[np.ndarray, ...] = ()
    left_out: str | None = None


def cases(recording: Recording) -> list[Case]:
    """Return the five losses, those that read rates both over all of time and in a window."""
    window = min(WINDOW, recording.input.shape[-1])
    by_class, by_hot = recording.classes, recording.multi_hot
    found = [_case("SpikeTime", SpikeTime(), recording.trains, recording.input.ndim)]
    rate_losses: list[tuple[str, Any, np.ndarray | None, int]] = [
        ("SpikeRate", SpikeRate(true_rate=0.2, false_rate=0.03), by_class, 1),
        ("SpikeMax", SpikeMax(), by_class, 1),
        ("SpikeMax, softmax", SpikeMax(mode="softmax"), by_class, 1),
        ("SpikeMoid", SpikeMoid(), by_hot, 2),
    ]
    for name, loss, target, rank in rate_losses:
        found.append(_case(name, loss, target, rank))
        windowed = replace(loss, moving_window=window)
        found.append(_case(f"{name}, window {window}", windowed, target, rank + 1))
    return [*found, Case("SparsityEnforcer", SparsityEnforcer())]


def _case(name: str, loss: Any, target: np.ndarray | None, highest_rank: int) -> Case:
    if target is None:
        return Case(name, loss, left_out="there is no target for it")
    if target.ndim > highest_rank:
        return Case(name, loss, left_out="the target is for each step")
    return Case(name, loss, (target,))


@dataclass(frozen=True)
class Row:
    """What one loss gave in one place.

    The differences are from NumPy in float64, relative to the largest entry there. `problem` says
    what is wrong with the row, and is None if it agrees.
    """

    loss: str
    place: Place
    value: float | None = None
    gradient_norm: float | None = None
    value_difference: float | None = None
    gradient_difference: float | None = None
    seconds: float | None = None
    problem: str | None = None


def compare(
    cases: Sequence[Case], recording: Recording, where: Sequence[Place], dtype: str
) -> Iterator[Row]:
    """Yield a row for each loss in each place, the places of one loss together."""
    spikes = recording.input
    rounded = _rounded(spikes, where[0], dtype)
    if not np.isfinite(rounded).all():  # they would agree on infinity
        raise UsageError(f"{recording.name}: `input` holds numbers that are beyond {dtype}")
    for case in cases:
        try:
            expected = reference(case.loss, rounded, *case.targets)
        except ValueError as error:
            raise UsageError(f"{recording.name}: {case.name} does not take it: {error}") from None
        for place in where:
            try:
                got, again = evaluate(case.loss, place, spikes, dtype, *case.targets)
                seconds = _median_seconds(again)
            except Exception as error:  # one backend's failure is a row among the others
                yield Row(case.name, place, problem=f"{type(error).__name__}: {error}")
                continue
            found = differences(got, expected)
            yield Row(
                case.name,
                place,
                float(got.value),
                float(np.linalg.norm(got.gradient)),
                found["value"].relative,
                found["gradient"].relative,
                seconds,
                "; ".join(f"the {what} {d}" for what, d in found.items() if not d.agrees) or None,
            )


def _rounded(spikes: np.ndarray, place: Place, dtype: str) -> np.ndarray:
    """Return the spikes as they are in a dtype, which NumPy may not have."""
    found = adapter(place.library)
    with found.scope(dtype):
        return found.to_host(place.put(spikes, dtype))


def _median_seconds(call: Callable[[], None]) -> float:
    call()  # warm-up; what there was to compile was compiled before
    taken: list[float] = []
    while len(taken) < MOST_CALLS and sum(taken) < LONGEST:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)
