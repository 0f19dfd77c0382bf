"""The pages of the documentation whose tables are made from records.

The text of a page is written by hand. The programs that measure replace its tables.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown."""
    header = tuple(header)
    rule = ["---"] * len(header)
    return "\n".join("|" + "|".join(f" {x} " if x else " " for x in line) + "|"
                     for line in (header, rule, *rows))  # fmt: skip


def with_tables(text: str, sections: Mapping[str, Iterable[str]]) -> str:
    """Return a page with the tables of some sections replaced, given by their headings."""
    for heading, tables in sections.items():
        (section,) = re.findall(rf"^{re.escape(heading)}\n.*?(?=^#|\Z)", text, re.M | re.S)
        remaining = iter(tables)
        new = re.sub(
            r"(?:^\|.*\n)+",
            lambda old, of=remaining: next(of, old[0].strip()) + "\n",
            section,
            flags=re.M,
        )
        if rest := list(remaining):
            raise ValueError(f"the section {heading!r} has {len(rest)} tables too few")
        text = text.replace(section, new)
    return text


def with_figures(text: str, figures: Mapping[str, str]) -> str:
    """Return a page with what each pattern matches replaced; each has to match once."""
    for pattern, new in figures.items():
        text, number = re.subn(pattern, lambda _, new=new: new, text, flags=re.M)
        if number != 1:
            raise ValueError(f"the page has {number} places for {pattern}")
    return text


def ratio(number: float) -> str:
    """Return a ratio with three digits, as 1 / x if it is below 1."""
    return f"{number:.3g}" if number >= 1 else f"1 / {1 / number:.3g}"


def write(page: Path, sections: Mapping[str, Iterable[str]]) -> None:
    """Replace the tables of some sections of a page."""
    page.write_text(with_tables(page.read_text(encoding="utf-8"), sections), encoding="utf-8")
