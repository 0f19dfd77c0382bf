"""The report of `diagnose`: as a table, as HTML, and as numbers for a logger."""

import functools
import html
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from spikeloss_xp.diagnosis._layers import Gradient, Layer

Observations = Iterator[tuple[str, ...]]  # a code, what was seen, and the names of layers
BATCH_NUMBERS = 8  # the number of lines about the batch
NAME = 19  # the width of a name in a table of 80 columns
MARKS = {"problem": "!", "note": "*"}


@dataclass(frozen=True)
class Finding:
    """Something that `diagnose` found.

    Attributes
    ----------
    code : str
        The stable name of the finding, which is also its anchor in the documentation.
    severity : {"problem", "note"}
        A problem keeps a network from learning. A note may describe something that is intended.
    seen, why, remedy : str
        What was seen, why it matters, and what to do.
    names : tuple of str
        The names of the layers and parameters to which the finding applies.
    """

    code: str
    severity: str
    seen: str
    why: str
    remedy: str
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.severity}: {self.code}: {self.seen}\n    {self.why}\n    {self.remedy}"


class Row(NamedTuple):
    """A row of the table: a layer, the gradient of the weight in front of it, or both."""

    mark: str
    layer: Layer | None
    gradient: Gradient | None


@dataclass(frozen=True)
class Report:
    """The result of `diagnose`. Its string shows the layers, the batch and the findings.

    Attributes
    ----------
    numbers : dict
        The numbers of the batch, keyed by their names in words.
    layers : tuple of Layer
        How often the neurons of each layer fire, from the first hidden layer to the output. A
        layer has the attributes `name`, `rate`, `silent`, `always_on`, `silent_samples`,
        `samples` and `finite`.
    gradients : tuple of Gradient
        The size of the gradient of each parameter. A gradient has the attributes `name`, `rms`
        and `is_weight`.
    findings : tuple of Finding
        The findings, with problems before notes and causes before their consequences.
    """

    numbers: Mapping[str, Any]
    layers: tuple[Layer, ...]
    gradients: tuple[Gradient, ...]
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        rows = self._rows()
        lines = [_line("", HEAD)] if rows else []
        lines += [_line(row.mark, _cells(row)) for row in rows]
        batch = self._batch()
        width = max(map(len, batch))
        lines += ["", *(f"{name:{width}}  {words}" for name, words in batch.items()), ""]
        return "\n".join([*lines, *map(str, self.findings or ("nothing found",))]).lstrip("\n")

    def _repr_html_(self) -> str:
        rows = "".join(map(_html_row, _with_bars(self._rows())))
        table = f"<table>{_html_cells(('', *HEAD, ''), 'th')}{rows}</table>" if rows else ""
        batch = "".join(_html_cells(each) for each in self._batch().items())
        findings = "".join(map(_html_finding, self.findings)) or "<p>nothing found</p>"
        return f"<div>{table}<table>{batch}</table>{findings}</div>"

    def scalars(self) -> dict[str, float]:
        """Return the numbers to watch during a training, for any logger.

        Returns
        -------
        dict of str to float
            The keys are ``"loss"``; ``"accuracy"``, if the target has classes; ``"output/rate"``,
            ``"output/silent"`` and ``"output/always_on"``, and the same three for each hidden
            layer, such as ``"hidden.0/rate"``; and ``"gradient/NAME/rms"`` for each parameter,
            such as ``"gradient/fc1.weight/rms"``. Rates and fractions are between 0 and 1.
            Characters that a logger may refuse, such as spaces, are replaced by underscores.
            Numbers that are NaN or infinite are left out.
        """
        found: dict[str, Any] = {key: self.numbers.get(key) for key in ("loss", "accuracy")}
        for layer in self.layers:
            for key in ("rate", "silent", "always_on"):
                found[f"{layer.name}/{key}"] = getattr(layer, key)
        for gradient in self.gradients:
            found[f"gradient/{gradient.name}/rms"] = gradient.rms
        return {
            re.sub(r"[^\w./-]", "_", key): float(x)
            for key, x in found.items()
            if x is not None and math.isfinite(x)
        }

    def _rows(self) -> list[Row]:
        """Return the rows of the table.

        If there are as many weights as layers, a row has a layer and the weight in front of it.
        """
        weights = [each for each in self.gradients if each.is_weight]
        if len(weights) == len(self.layers):
            pairs: Iterable[Any] = zip(self.layers, weights, strict=True)
        else:
            pairs = [(each, None) for each in self.layers] + [(None, each) for each in weights]
        return [Row(self._mark(pair), *pair) for pair in pairs]

    def _mark(self, pair: tuple[Any, ...]) -> str:
        names = {each.name for each in pair if each is not None}
        severities = [each.severity for each in self.findings if names.intersection(each.names)]
        return MARKS[severities[0]] if severities else ""

    def _batch(self) -> dict[str, str]:
        """Return the most important numbers of the batch in words."""
        return {name: _in_words(x) for name, x in list(self.numbers.items())[:BATCH_NUMBERS]}


HEAD = ("layer", "rate", "silent", "always on", "gradient", "weight")


def _cells(row: Row) -> tuple[str, ...]:
    """Return the cells of a row as text."""
    layer, gradient, texts = row.layer, row.gradient, [""] * 6
    if layer is not None:
        texts[:4] = layer.name, f"{layer.rate:.3g}", f"{layer.silent:.0%}", f"{layer.always_on:.0%}"
    if gradient is not None:
        texts[4:] = "none" if gradient.rms is None else f"{gradient.rms:.1e}", gradient.name
    return tuple(texts)


def _line(mark: str, cells: tuple[str, ...]) -> str:
    """Return a row as a line of at most 80 characters."""
    name, rate, silent, always_on, gradient, weight = cells
    shortened = [x if len(x) <= NAME else f"...{x[3 - NAME :]}" for x in (name, weight)]
    numbers = f"{rate:>7}  {silent:>6}  {always_on:>9}  {gradient:>8}"
    return f"{mark:1} {shortened[0]:{NAME}}  {numbers}  {shortened[1]}".rstrip()


def _with_bars(rows: list[Row]) -> list[tuple[Row, float]]:
    """Return each row with the length of the bar for its gradient, on a log scale."""
    sizes = [row.gradient.rms or 0.0 if row.gradient else 0.0 for row in rows]
    logs = [math.log10(x) if 0 < x < math.inf else math.nan for x in sizes]
    known = [x for x in logs if not math.isnan(x)] or [0.0]
    lowest, highest = min(*known, max(known) - 4), max(known)
    return [
        (row, 0.0 if math.isnan(x) else 0.05 + 0.95 * (x - lowest) / (highest - lowest))
        for row, x in zip(rows, logs, strict=True)
    ]


def _html_row(row_and_length: tuple[Row, float]) -> str:
    """Return a row of the table with bars for its rate and its gradient."""
    row, length = row_and_length
    name, rate, silent, always_on, gradient, weight = map(html.escape, _cells(row))
    firing = _bar(row.layer.rate) if row.layer else ""
    cells = (row.mark, name, rate + firing, silent, always_on, gradient + _bar(length), weight)
    return _html_cells((*cells, ""), escaped=True)


def _bar(length: float) -> str:
    """Return a bar in the colour of the text, which suits light and dark notebooks."""
    style = f"height:4px;width:{80 * min(length, 1):.0f}px;background:currentColor;opacity:.5"
    return f'<div style="{style}"></div>' if length > 0 else ""


def _html_cells(cells: Iterable[str], tag: str = "td", escaped: bool = False) -> str:
    texts = cells if escaped else map(html.escape, cells)
    style = "text-align:left;vertical-align:top"
    return f"<tr>{''.join(f'<{tag} style={style!r}>{x}</{tag}>' for x in texts)}</tr>"


def _html_finding(finding: Finding) -> str:
    seen, why, remedy = map(html.escape, (finding.seen, finding.why, finding.remedy))
    return f"<p><b>{finding.severity}: {finding.code}</b>: {seen}<br>{why}<br>{remedy}</p>"


def _in_words(x: Any) -> str:
    """Return one or several numbers as text, with floats rounded to three significant digits."""
    if isinstance(x, list | tuple):
        inside = ", ".join(map(_in_words, x))
        return f"[{inside}]" if isinstance(x, list) else f"({inside})"
    return f"{x:.3g}" if isinstance(x, float) else str(x)


@functools.cache
def texts() -> dict[str, Any]:
    """Return the texts of all findings, with problems first and in causal order."""
    import tomllib  # imported here, because few uses of the library need them
    from importlib.resources import files

    path = files("spikeloss_xp") / "data" / "findings.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def finding_of(observed: tuple[str, ...], options: Iterable[str], *, certain: bool) -> Finding:
    """Return a finding with its texts.

    The remedy mentions only those options that the loss has. If `certain` is False, nothing is
    known about the gradients of the weights, on which some findings depend.
    """
    code, seen, *names = observed
    text = texts()[code]
    remedies = [text["remedy"], *(text.get("options", {}).get(name, "") for name in options)]
    severity = text["severity"]
    if text.get("gradients_decide"):
        severity = "note" if certain else severity
        remedies.insert(0, "" if certain else GRADIENTS_DECIDE)
    remedy = " ".join(filter(None, remedies))
    return Finding(code, severity, seen, text["why"], remedy, tuple(names))


GRADIENTS_DECIDE = "Pass gradients to find out whether the weights still learn."


def silent_layer(name: str, samples: int) -> tuple[str, ...]:
    """Return the observation that a layer is silent in every sample."""
    code = "silent-output" if name == "output" else "silent-hidden"
    return code, f"{name} is silent in all {samples} samples", name
