"""Comparison results as a text table or as JSON."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spikeloss_xp._consistency import Place

HEADINGS = (
    "loss",
    "backend",
    "version",
    "device",
    "value",
    "|gradient|",
    "value diff",
    "grad diff",
    "time",
)
TEXT_COLUMNS = 4  # the leftmost columns hold text, and the others numbers
RED, RESET = "\033[31m", "\033[0m"


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


def table(rows: Sequence[Row], *, colour: bool) -> str:
    """Return rows as an aligned text table. Consecutive rows of a loss show its name once."""
    cells = [HEADINGS, *(_row_cells(row, rows[i - 1] if i else None) for i, row in enumerate(rows))]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for i, line in enumerate(cells):
        padded = (
            cell.ljust(width) if j < TEXT_COLUMNS else cell.rjust(width)
            for j, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        text = "  ".join(padded).rstrip()
        if i and rows[i - 1].problem is not None:
            text += "  DISAGREES: " + str(rows[i - 1].problem)
            text = f"{RED}{text}{RESET}" if colour else text
        lines.append(text)
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _row_cells(row: Row, previous: Row | None) -> tuple[str, ...]:
    def number(value: float | None, format_spec: str) -> str:
        return "" if value is None else format(value, format_spec)

    return (
        "" if previous is not None and previous.loss == row.loss else row.loss,
        row.place.library,
        row.place.version,
        row.place.device,
        number(row.value, ".8g"),
        number(row.gradient_norm, ".5g"),
        number(row.value_difference, ".1e"),
        number(row.gradient_difference, ".1e"),
        "" if row.seconds is None else _format_duration(row.seconds),
    )


def _format_duration(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


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
            "problem": row.problem,
        }
        for row in rows
    ]
    return json.dumps({**metadata, "rows": records}, indent=2)
