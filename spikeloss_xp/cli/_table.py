"""Tables of text, and the same as JSON."""

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
TEXT_COLUMNS = 4  # from the left; numbers follow
RED, PLAIN = "\033[31m", "\033[0m"


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


def table(rows: Sequence[Row], *, colour: bool) -> str:
    """Lay out rows as text, the name of a loss on the first of its rows only."""
    cells = [HEADINGS, *(_cells(row, rows[i - 1] if i else None) for i, row in enumerate(rows))]
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
            text = f"{RED}{text}{PLAIN}" if colour else text
        lines.append(text)
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _cells(row: Row, above: Row | None) -> tuple[str, ...]:
    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    return (
        "" if above is not None and above.loss == row.loss else row.loss,
        row.place.library,
        row.place.version,
        row.place.device,
        number(row.value, ".8g"),
        number(row.gradient_norm, ".5g"),
        number(row.value_difference, ".1e"),
        number(row.gradient_difference, ".1e"),
        "" if row.seconds is None else _duration(row.seconds),
    )


def _duration(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def as_json(rows: Sequence[Row], **about: Any) -> str:
    """Return rows, and what there is to say about them, as JSON; what is not finite as null."""

    def plain(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    listed = [
        {
            "loss": row.loss,
            "backend": row.place.library,
            "version": row.place.version,
            "device": row.place.device,
            "value": plain(row.value),
            "gradient_norm": plain(row.gradient_norm),
            "value_difference": plain(row.value_difference),
            "gradient_difference": plain(row.gradient_difference),
            "seconds": row.seconds,
            "problem": row.problem,
        }
        for row in rows
    ]
    return json.dumps({**about, "rows": listed}, indent=2)
