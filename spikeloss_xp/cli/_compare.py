"""The command ``compare``: evaluate losses on several backends and compare the results."""

import argparse
import statistics
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spikeloss_xp._consistency import Place, differences, evaluate, reference
from spikeloss_xp.backends._available import adapter
from spikeloss_xp.cli._places import select_places
from spikeloss_xp.cli._recording import Recording, UsageError, load
from spikeloss_xp.cli._table import WIDTH, Row, as_json, table
from spikeloss_xp.cli._terminal import has_colour, printable, status_line
from spikeloss_xp.losses import SparsityEnforcer, SpikeMax, SpikeMoid, SpikeRate, SpikeTime

WINDOW = 50  # time steps; long enough to estimate a rate, short enough to follow its changes
MAX_CALLS, MAX_SECONDS = 50, 0.2  # timing a loss stops at the first of these limits


@dataclass(frozen=True)
class Case:
    """A loss, its name in the table and its targets, or why it is skipped."""

    name: str
    loss: Callable[..., Any]
    targets: tuple[np.ndarray, ...] = ()
    skip_reason: str | None = None


def run(options: argparse.Namespace) -> int:
    """Compare the losses on the selected backends, print the results, return the exit status."""
    recording = load(options.file)
    where, unused = select_places(options.backend, options.device, options.dtype)
    selected = [
        case
        for case in cases(recording)
        if options.loss is None or case.name.partition(",")[0] in options.loss
    ]
    usable = [case for case in selected if case.skip_reason is None]
    skipped = {case.name: case.skip_reason for case in selected if case.skip_reason is not None}
    if not usable:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise UsageError(f"{recording.name}: nothing to evaluate ({reasons})")

    with np.errstate(all="ignore"):  # only NumPy would warn, and the rows show any overflow
        rows = _evaluate_rows(usable, recording, where, options.dtype)
    agree = all(row.problem is None for row in rows)
    shape = list(recording.input.shape)
    if options.json:
        metadata = {
            "recording": recording.name,
            "shape": shape,
            "dtype": options.dtype,
            "agree": agree,
            "unused": unused,
            "left_out": skipped,
        }
        print(as_json(rows, **metadata))
    else:
        _print_report(
            recording, rows, where, options.dtype, {"Not used": unused, "Left out": skipped}
        )
    return 0 if agree else 1


def _evaluate_rows(
    usable: Sequence[Case], recording: Recording, where: Sequence[Place], dtype: str
) -> list[Row]:
    """Return the rows of `compare`, and show the progress on a terminal."""
    rows: list[Row] = []
    with status_line() as show:
        for row in compare(usable, recording, where, dtype):
            rows.append(row)
            show(f"{len(rows)} of {len(usable) * len(where)}: {row.loss} on {row.place}")
    return rows


def _print_report(
    recording: Recording,
    rows: Sequence[Row],
    where: Sequence[Place],
    dtype: str,
    reasons: Mapping[str, Mapping[str, str]],
) -> None:
    """Print the rows as a table, what they are compared with, and what is not among them."""
    versions = dict.fromkeys(f"{place.library} {place.version}" for place in where)
    print(f"{printable(recording.name)}: spikes {list(recording.input.shape)}, {dtype}")
    print(f"{textwrap.fill(', '.join(versions), WIDTH)}\n")
    print(table(rows, colour=has_colour(sys.stdout)))
    print(f"\n{textwrap.fill(_verdict(rows), WIDTH)}")
    for heading, reasons_by_name in reasons.items():
        for name, reason in reasons_by_name.items():
            print(textwrap.fill(f"{heading}: {name}: {reason}", WIDTH, subsequent_indent="  "))


def _verdict(rows: Sequence[Row]) -> str:
    disagreeing = sum(row.problem is not None for row in rows)
    explanation = (
        "The errors are relative to the largest entry of the reference; the time is that of value "
        "and gradient."
    )
    if disagreeing:
        return f"{disagreeing} of {len(rows)} rows DISAGREE with NumPy in float64. {explanation}"
    return (
        f"All {len(rows)} rows agree with NumPy in float64: they differ by rounding only. "
        f"{explanation}"
    )


def cases(recording: Recording) -> list[Case]:
    """Return the five losses. Rate losses appear twice: for all time steps and with a window."""
    window = min(WINDOW, recording.input.shape[-1])
    classes, multi_hot = recording.classes, recording.multi_hot
    result = [_make_case("SpikeTime", SpikeTime(), recording.trains, recording.input.ndim)]
    rate_losses: list[tuple[str, Any, np.ndarray | None, int]] = [
        ("SpikeRate", SpikeRate(true_rate=0.2, false_rate=0.03), classes, 1),
        ("SpikeMax", SpikeMax(), classes, 1),
        ("SpikeMax, softmax", SpikeMax(mode="softmax"), classes, 1),
        ("SpikeMoid", SpikeMoid(), multi_hot, 2),
    ]
    for name, loss, target, rank in rate_losses:
        result.append(_make_case(name, loss, target, rank))
        windowed = replace(loss, moving_window=window)
        result.append(_make_case(f"{name}, window {window}", windowed, target, rank + 1))
    return [*result, Case("SparsityEnforcer", SparsityEnforcer())]


def _make_case(name: str, loss: Any, target: np.ndarray | None, highest_rank: int) -> Case:
    if target is None:
        return Case(name, loss, skip_reason="the file has no target for this loss")
    if target.ndim > highest_rank:
        return Case(
            name, loss, skip_reason="the target has a time axis, which needs a moving window"
        )
    return Case(name, loss, (target,))


def compare(
    cases: Sequence[Case], recording: Recording, where: Sequence[Place], dtype: str
) -> Iterator[Row]:
    """Yield one row for each loss in each place, ordered by loss."""
    spikes = recording.input
    rounded = _rounded(spikes, where[0], dtype)
    if not np.isfinite(rounded).all():  # infinities would compare as equal
        raise UsageError(
            f"{recording.name}: `input` holds numbers too large for {dtype}: choose another --dtype"
        )
    for case in cases:
        try:
            expected = reference(case.loss, rounded, *case.targets)
        except ValueError as error:
            raise UsageError(
                f"{recording.name}: {case.name} refuses these arrays: {error}"
            ) from None
        for place in where:
            try:
                got, again = evaluate(case.loss, place, spikes, dtype, *case.targets)
                seconds = _median_seconds(again)
            except Exception as error:  # a failing backend becomes a row; the others continue
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
                "; ".join(f"the {name} {d}" for name, d in found.items() if not d.agrees) or None,
            )


def _rounded(spikes: np.ndarray, place: Place, dtype: str) -> np.ndarray:
    """Return spikes rounded to a dtype. The library of `place` rounds: NumPy may lack the dtype."""
    found = adapter(place.library)
    with found.scope(dtype):
        return found.to_host(place.put(spikes, dtype))


def _median_seconds(call: Callable[[], None]) -> float:
    call()  # warm-up; compilation happened in an earlier call
    durations: list[float] = []
    while len(durations) < MAX_CALLS and sum(durations) < MAX_SECONDS:
        start = time.perf_counter()
        call()
        durations.append(time.perf_counter() - start)
    return statistics.median(durations)
