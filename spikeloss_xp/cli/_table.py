"""Comparison results as a text table or as JSON."""

import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spikeloss_xp._consistency import Place

HEADINGS = ("library", "device", "value", "value err", "grad err", "time", "verdict")
LEFT = (0, 1, 6)  # these columns hold text, and the others numbers
WIDTH = 80
RED, GREEN, BOLD, RESET = "\033[31m", "\033[32m", "\033[1m", "\033[0m"


@dataclass(frozen=True)
class Row:
    """The result of one loss on one backend and device.

    Differences are relative to the largest entry of the reference, which is NumPy in float64.
    `problem` describes the disagreement or failure, and is None if the result agrees.
    """

    loss: str
    place: Place
    value: float | None = None
    gradient_norm: float | None = None
    value_difference: float | None = None
    gradient_difference: float | None = None
    seconds: float | None = None
    problem: str | None = None

    @property
    def verdict(self) -> str:
        """Whether the result agrees with the reference; "FAILED" if there is no result."""
        if self.problem is None:
            return "agrees"
        return "FAILED" if self.value is None else "DISAGREES"


def table(rows: Sequence[Row], *, colour: bool) -> str:
    """Return rows as an aligned text table, with a heading line for each loss.

    The table has 80 columns or fewer, unless names of libraries or devices are very long.
    """
    cells = [HEADINGS, *map(_row_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  " + _aligned(HEADINGS, widths), "  " + "  ".join("-" * width for width in widths)]
    for i, row in enumerate(rows):
        if i == 0 or rows[i - 1].loss != row.loss:
            lines.append(f"{BOLD}{row.loss}{RESET}" if colour else row.loss)
        text = "  " + _aligned(cells[i + 1], widths)
        if colour:
            verdict = row.verdict
            text = f"{text.removesuffix(verdict)}{_colour_of(row)}{verdict}{RESET}"
        lines.append(text)
        if row.problem is not None:
            problem = textwrap.fill(
                row.problem, WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 4
            )
            lines.append(f"{RED}{problem}{RESET}" if colour else problem)
    return "\n".join(lines)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (
        cell.ljust(width) if column in LEFT else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join(padded).rstrip()


def _colour_of(row: Row) -> str:
    return GREEN if row.problem is None else RED


def _row_cells(row: Row) -> tuple[str, ...]:
    def number(value: float | None, format_spec: str) -> str:
        return "" if value is None else format(value, format_spec)

    return (
        row.place.library,
        row.place.device,
        number(row.value, ".5g"),
        number(row.value_difference, ".1e"),
        number(row.gradient_difference, ".1e"),
        "" if row.seconds is None else _format_duration(row.seconds),
        row.verdict,
    )


def _format_duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    milliseconds = seconds * 1e3
    digits = 3 if milliseconds < 10 else 1
    return f"{milliseconds:.{digits}f} ms"


def as_json(rows: Sequence[Row], **metadata: Any) -> str:
    """Return `metadata` and the rows as a JSON object. NaN and infinite results become null."""

    def finite_or_none(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    records = [
        {
            "loss": row.loss,
            "backend": row.place.library,
            "version": row.place.version,
            "device": row.place.device,
            "value": finite_or_none(row.value),
            "gradient_norm": finite_or_none(row.gradient_norm),
            "value_difference": finite_or_none(row.value_difference),
            "gradient_difference": finite_or_none(row.gradient_difference),
            "seconds": row.seconds,
            "verdict": row.verdict,
            "problem": row.problem,
        }
        for row in rows
    ]
    return json.dumps({**metadata, "rows": records}, indent=2)
