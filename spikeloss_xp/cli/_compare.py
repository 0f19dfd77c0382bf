"""The command ``compare``: the same losses on the same spikes in several places."""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spikeloss_xp._consistency import Place, differences, evaluate, reference
from spikeloss_xp.backends._available import adapter
from spikeloss_xp.cli._places import chosen
from spikeloss_xp.cli._recording import Recording, UsageError, load
from spikeloss_xp.cli._table import Row, as_json, table
from spikeloss_xp.cli._terminal import printable, status_line
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


def run(options: argparse.Namespace) -> int:
    """Compare, print what came out, and return the exit status."""
    recording = load(options.file)
    where, unused = chosen(options.backend, options.device, options.dtype)
    wanted = [
        case
        for case in cases(recording)
        if options.loss is None or case.name.partition(",")[0] in options.loss
    ]
    usable = [case for case in wanted if case.left_out is None]
    left_out = {case.name: case.left_out for case in wanted if case.left_out is not None}
    if not usable:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise UsageError(f"{recording.name}: nothing to evaluate ({reasons})")

    with np.errstate(all="ignore"):  # what overflows is in the rows, and only NumPy warns of it
        rows = _rows(usable, recording, where, options.dtype)
    agree = all(row.problem is None for row in rows)
    shape = list(recording.input.shape)
    if options.json:
        about = {
            "recording": recording.name,
            "shape": shape,
            "dtype": options.dtype,
            "agree": agree,
            "unused": unused,
            "left_out": left_out,
        }
        print(as_json(rows, **about))
    else:
        print(f"{printable(recording.name)}: spikes {shape}, {options.dtype}\n")
        print(table(rows, colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ))
        print(f"\n{_verdict(rows)}")
        for heading, why in (("Not used", unused), ("Left out", left_out)):
            for name, reason in why.items():
                print(f"{heading}: {name}: {reason}")
    return 0 if agree else 1


def _rows(
    usable: Sequence[Case], recording: Recording, where: Sequence[Place], dtype: str
) -> list[Row]:
    """Evaluate, telling a terminal how far it has got."""
    rows: list[Row] = []
    with status_line() as show:
        for row in compare(usable, recording, where, dtype):
            rows.append(row)
            show(f"{len(rows)} of {len(usable) * len(where)}: {row.loss} on {row.place}")
    return rows


def _verdict(rows: Sequence[Row]) -> str:
    wrong = sum(row.problem is not None for row in rows)
    if wrong:
        return f"{wrong} of {len(rows)} rows DISAGREE with NumPy in float64."
    return (
        f"All {len(rows)} rows agree with NumPy in float64, as far as rounding allows. A "
        "difference is relative to the largest entry; the time is that of value and gradient."
    )


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
