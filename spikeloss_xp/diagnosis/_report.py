"""The report of `diagnose`: as a table, as HTML, and as numbers for a logger."""

import functools
import html
import importlib
import itertools
import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from spikeloss_xp.losses import Loss
from spikeloss_xp.times.first_spike import TimesLoss

BATCH_NUMBERS = 8  # the number of lines about the batch
NAME = 19  # the width of a name in a table that is 80 characters wide
LONG = 20  # for a list with more entries, only the range is shown
INDENT = "    "
MORE = 'The guide "What diagnose finds" describes all findings.'
GRADIENTS_DECIDE = "Pass gradients to find out whether the weights still learn."
LOGGED = ("loss", "accuracy", "bits per spike", "mean rate", "mean count")  # keys of `numbers`
MARKS = {"problem": "!", "note": "*"}
HEAD = ("layer", "rate", "silent", "always on", "gradient", "weight")
# Findings with these codes are about layers. They are sorted by layer, from input to output, and
# not by code. Among the other findings, they are placed as if they all had the first code in this
# tuple.
OF_LAYERS = ("saturated", "stuck-hidden", "busy-hidden", "silent-hidden", "silent-output",
             "quiet-output")  # fmt: skip
Row = tuple[str, ...]  # a mark, and a cell for each column


class Layer(NamedTuple):
    """How often the neurons of a layer fire in a batch.

    Attributes
    ----------
    name : str
        The name of the layer, such as ``"hidden.0"`` or ``"output"``.
    rate : float
        The fraction of steps in which a neuron fires.
    silent, always_on : float
        The fraction of neurons that never fire, and the fraction that fire at every step. A neuron
        is not counted as always on if it has fewer than 8 unmasked steps in the batch, or only one
        unmasked step in each sample. Neurons that are masked at all steps are left out.
    silent_samples : float
        The fraction of samples in which no neuron fires.
    samples : int
        The number of samples.
    finite : bool
        Whether all entries are finite.
    first_spike : float or None
        If the layer holds spike times, the mean time of the first spike of a neuron in a sample.
        For other layers, it is None. The `rate` of a layer of spike times is NaN.
    holds_spikes : bool
        Whether the values may be spikes. If they are other numbers, such as potentials or the
        activations of a GRU, `rate` and `always_on` are NaN in a report.
    """

    name: str
    rate: float
    silent: float
    always_on: float
    silent_samples: float
    samples: int
    finite: bool
    first_spike: float | None = None
    holds_spikes: bool = True


class Gradient(NamedTuple):
    """The size of the gradient of one parameter.

    Attributes
    ----------
    name : str
        The name of the parameter.
    rms : float or None
        The root mean square of the nonzero entries, so that inputs that never fire do not change
        the value. The value is NaN or infinite if an entry is NaN or infinite, and None if the
        parameter has no gradient.
    is_weight : bool
        Whether the gradient is None, has two axes, or has several axes that are longer than 1.
    """

    name: str
    rms: float | None
    is_weight: bool


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

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> loss, output = sx.CrossEntropy(time_axis=0), np.zeros((20, 4, 3))
    >>> report = sx.diagnose(loss, output, [0, 1, 2, 0])
    >>> (finding,) = report.findings
    >>> finding.code, finding.severity, finding.names
    ('silent-output', 'problem', ('output',))
    """

    code: str
    severity: str
    seen: str
    why: str
    remedy: str
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        heading = f"{self.severity}: {self.code}: {self.seen}"
        texts = (heading, f"{INDENT}{self.why}", f"{INDENT}{self.remedy}")
        return "\n".join(map(_wrapped, texts))


# A `Finding`, or a code in the table of findings, a description, and names of layers or weights.
Observation = tuple[str, ...] | Finding
Observations = Iterator[Observation]


@dataclass(frozen=True)
class Report:
    """The result of `diagnose`. Printing it shows the layers, the batch and the findings.

    Attributes
    ----------
    numbers : dict
        The numbers about the batch, keyed by descriptive names. The confusion matrix is left out if
        there are more than 100 classes.
    layers : tuple
        How often the neurons of each layer fire, from the first hidden layer to the output. A
        layer has the attributes `name`, `rate`, `silent`, `always_on`, `silent_samples`,
        `samples` and `finite`.
    gradients : tuple
        The size of the gradient of each parameter. A gradient has the attributes `name`, `rms`
        and `is_weight`.
    findings : tuple of Finding
        The findings, with problems before notes and causes before their consequences.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> loss, output = sx.CrossEntropy(time_axis=0), np.zeros((20, 4, 3))
    >>> report = sx.diagnose(loss, output, [0, 1, 2, 0])
    >>> (layer,) = report.layers
    >>> layer.rate, [finding.code for finding in report.findings]
    (0.0, ['silent-output'])
    """

    numbers: Mapping[str, Any]
    layers: tuple[Layer, ...]
    gradients: tuple[Gradient, ...]
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        rows = self._rows()
        table = [*map(_line, [("", *self._head()), *rows]), ""] if rows else []
        return "\n".join([*table, self._rest()])

    def _repr_html_(self) -> str:
        rows = self._rows()
        head = "".join(f"<th>{name}</th>" for name in ("", *self._head()))
        body = "".join(map(_html_row, rows, self._bars(rows)))
        table = f'<table style="color:inherit;font-size:inherit"><tr>{head}</tr>{body}</table>'
        return f"{table}<pre>{html.escape(self._rest())}</pre>"

    def _rest(self) -> str:
        """Return the most important numbers about the batch, and the findings."""
        numbers = list(self.numbers.items())[:BATCH_NUMBERS]
        width = max((len(name) for name, _ in numbers), default=0)
        lines = [f"{name:{width}}  {_in_words(x)}" for name, x in numbers]
        lines += self._paragraphs()
        lines += ["", MORE if self.findings else "nothing found"]
        return "\n".join(lines)

    def _paragraphs(self) -> Iterator[str]:
        """Yield the lines about the findings, without repeating any text."""
        printed: set[str] = set()
        same = itertools.groupby(self.findings, lambda each: (each.code, each.why, each.remedy))
        for (code, *texts), found in same:
            first, *others = found
            names = [name for each in others for name in each.names]
            also = f"; also {', '.join(names)}" if names else ""
            yield ""
            yield _wrapped(f"{first.severity}: {code}: {first.seen}{also}")
            yield from (_wrapped(f"{INDENT}{text}") for text in texts if text not in printed)
            printed.update(texts)

    def plot(self) -> Any:
        """Plot the rates, the fractions of silent neurons and the gradients with matplotlib.

        Returns
        -------
        Figure
            A matplotlib figure with one panel for each quantity. Layers and weights with a problem
            are red.
        """
        # matplotlib is optional and slow to import, and type checkers may not find it.
        plt = importlib.import_module("matplotlib.pyplot")

        weights = [each for each in self.gradients if each.is_weight]
        # A log scale has no place for 0, NaN and infinity.
        sizes = [x if x and math.isfinite(x) else math.nan for x in (each.rms for each in weights)]
        powers = [math.log10(x) for x in sizes if x == x]
        bad = {name for each in self.findings if each.severity == "problem" for name in each.names}
        size = 1.5 + 0.3 * max(len(self.layers), len(weights))
        times = any(layer.first_spike is not None for layer in self.layers)
        rates = [layer.first_spike if times else layer.rate for layer in self.layers]
        columns = (
            ("first spike" if times else "rate", self.layers, rates),
            ("silent neurons", self.layers, [layer.silent for layer in self.layers]),
            ("gradient", weights, sizes),
        )[: 3 if weights else 2]
        number = len(columns)
        figure, panels = plt.subplots(1, number, figsize=(3 * number, size), layout="constrained")
        for panel, (title, rows, lengths) in zip(panels, columns, strict=True):
            names = [each.name for each in rows]
            colours = ["tab:red" if name in bad else "tab:blue" for name in names]
            panel.barh(range(len(rows)), lengths, color=colours)
            panel.set_yticks(range(len(rows)), names)
            # Matplotlib would choose wrong limits if there are no rows, or if the first or the last
            # bar has the length NaN.
            panel.set_ylim(max(len(rows), 1) - 0.5, -0.5)
            panel.set_title(title)
        panels[1].set_xlim(0, 1)
        if powers:
            panels[2].set_xscale("log")
            panels[2].minorticks_off()  # the labels of minor ticks would overlap
            lowest, highest = math.ceil(min(powers)) - 1, math.floor(max(powers)) + 1
            panels[2].set_xlim(10.0**lowest, 10.0**highest)
        return figure

    def scalars(self) -> dict[str, float]:
        """Return the numbers to monitor during training, as a dict for any logger.

        Returns
        -------
        dict of str to float
            A dict with these keys:

            - ``"loss"``: the mean of the terms, whatever the `reduction` of the loss. For
              `SparsityEnforcer`, it is the value of the loss.
            - ``"accuracy"``, if the target has classes.
            - ``"bits_per_spike"``, ``"mean_rate"`` and ``"mean_count"``, for likelihoods.
            - ``"output/rate"``, ``"output/silent"`` and ``"output/always_on"``. If the input holds
              predicted rates, these keys are missing. For `SparsityEnforcer`, the keys begin with
              ``"input"``.
            - The same three keys for each hidden layer, such as ``"hidden.0/rate"``. Layers of
              spike times have ``"first_spike"`` instead of ``"rate"``.
            - ``"gradient/NAME/rms"`` for each parameter, such as ``"gradient/fc1.weight/rms"``.

            Rates and fractions are between 0 and 1. Characters that a logger may refuse, such as
            spaces, are replaced by underscores. Numbers that are NaN or infinite are left out.
        """
        found: dict[str, Any] = {key: self.numbers.get(key) for key in LOGGED}
        for layer in self.layers:
            for key in ("rate", "first_spike", "silent", "always_on"):
                found[f"{layer.name}/{key}"] = getattr(layer, key)
        for gradient in self.gradients:
            found[f"gradient/{gradient.name}/rms"] = gradient.rms
        return {
            re.sub(r"[^\w./-]", "_", key): float(x)
            for key, x in found.items()
            if x is not None and math.isfinite(x)
        }

    def _head(self) -> tuple[str, ...]:
        """Return the names of the columns. Layers of spike times have no rate."""
        times = any(layer.first_spike is not None for layer in self.layers)
        return tuple("first" if times and name == "rate" else name for name in HEAD)

    def _rows(self) -> list[Row]:
        """Return the rows of the table.

        If there are as many weights as layers, each row shows a layer and the weight before it.
        """
        weights = [each for each in self.gradients if each.is_weight]
        if len(weights) == len(self.layers):
            pairs: Iterable[Any] = zip(self.layers, weights, strict=True)
        else:
            pairs = [(each, None) for each in self.layers] + [(None, each) for each in weights]
        return [self._row(*pair) for pair in pairs]

    def _row(self, layer: Layer | None, gradient: Gradient | None) -> Row:
        """Return the cells of a row. The first cell is a mark if a finding applies to the row."""
        cells = [""] * 6
        if layer is not None:
            rate = layer.rate if layer.first_spike is None else layer.first_spike
            numbers = f"{rate:.3g}", f"{layer.silent:.0%}", f"{layer.always_on:.0%}"
            cells[:4] = layer.name, *("-" if "nan" in number else number for number in numbers)
        if gradient is not None:
            size = "none" if gradient.rms is None else f"{gradient.rms:.1e}"
            cells[4:] = size, gradient.name
        names = {cells[0], cells[5]} - {""}
        severities = [each.severity for each in self.findings if names.intersection(each.names)]
        return MARKS[severities[0]] if severities else "", *cells

    def _bars(self, rows: list[Row]) -> list[tuple[float, float]]:
        """Return two bar lengths for each row of the table: for the rate and for the gradient.

        The bar for the gradient has a log scale.
        """
        rates = {each.name: each.rate for each in self.layers if math.isfinite(each.rate)}
        sizes = {each.name: each.rms or 0.0 for each in self.gradients}
        logs = {name: math.log10(x) for name, x in sizes.items() if 0 < x < math.inf}
        highest = max(logs.values(), default=0.0)
        lowest = min([highest - 4, *logs.values()])
        bars = {name: 0.05 + 0.95 * (x - lowest) / (highest - lowest) for name, x in logs.items()}
        return [(rates.get(row[1], 0.0), bars.get(row[-1], 0.0)) for row in rows]


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 80, subsequent_indent=INDENT, break_long_words=False)


def _line(row: Row) -> str:
    """Return a row of the table as a line of at most 80 characters."""
    mark, layer, rate, silent, always_on, gradient, weight = row
    layer, weight = (x if len(x) <= NAME else f"...{x[3 - NAME :]}" for x in (layer, weight))
    numbers = f"{rate:>7}  {silent:>6}  {always_on:>9}  {gradient:>8}"
    return f"{mark:1} {layer:{NAME}}  {numbers}  {weight}".rstrip()


def _html_row(row: Row, bars: tuple[float, float]) -> str:
    """Return a row of the table as HTML, with bars below the rate and the gradient."""
    cells = [html.escape(cell) for cell in row]
    for place, length in zip((2, 5), bars, strict=True):
        style = f"height:4px;width:{80 * min(length, 1):.0f}px;background:currentColor;opacity:.5"
        cells[place] += f'<div style="{style}"></div>' if length else ""
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _in_words(x: Any) -> str:
    """Return one or several numbers as text, with floats rounded to three significant digits."""
    if isinstance(x, list) and len(x) > LONG:
        return f"from {_in_words(min(x))} to {_in_words(max(x))}"
    if isinstance(x, list | tuple):
        inside = ", ".join(map(_in_words, x))
        return f"[{inside}]" if isinstance(x, list) else f"({inside})"
    return f"{x:.3g}" if isinstance(x, float) else str(x)


@functools.cache
def texts() -> dict[str, Any]:
    """Return the texts of all findings: problems before notes, and causes before effects."""
    import tomllib  # imported here because the texts are rarely needed
    from importlib.resources import files

    path = files("spikeloss_xp") / "data" / "findings.toml"
    text = path.read_text(encoding="utf-8")
    for name, shared in tomllib.loads(text)["shared"].items():
        text = text.replace(f"{{{name}}}", shared)
    return {code: found for code, found in tomllib.loads(text).items() if code != "shared"}


def finding_of(
    observed: Observation, loss: Any, *, all_learn: bool | None, learned: bool
) -> Finding:
    """Return a finding with its texts. A `Finding` is returned unchanged.

    The remedy mentions only those options that the loss has. Some texts are different if the loss
    reads spike times. `all_learn` says whether all weights have gradients, or is None if no
    gradients were passed. `learned` says whether the network has learned the batch. The severity of
    some findings depends on `all_learn` or `learned`.
    """
    if isinstance(observed, Finding):
        return observed
    code, seen, *names = observed
    if code not in texts():
        raise ValueError(f"a finding with a code of its own, {code!r}, must be a Finding")
    text = texts()[code]
    own = isinstance(loss, Loss)
    if isinstance(loss, TimesLoss):
        text = text | text.get("times", {})
    has = fields(loss) if own else ()
    # An option that is None by default, such as bounds on the rates, may be in use already.
    options = [x.name for x in has if x.default is not None or getattr(loss, x.name) is None]
    remedies = [text["remedy"], *(text.get("options", {}).get(name, "") for name in options)]
    severity = "note" if learned and text.get("unless_learned") else text["severity"]
    if text.get("gradients_decide"):
        severity = "note" if all_learn else severity
        remedies.insert(0, GRADIENTS_DECIDE if all_learn is None else "")
    remedy = " ".join(filter(None, remedies))
    return Finding(code, severity, seen, text["why"], remedy, tuple(names))


def sort_key(finding: Finding, names: list[str]) -> tuple[bool, int, int]:
    """Return a sort key for problems before notes, causes before effects, and layers in order."""
    of_layer, codes = finding.code in OF_LAYERS, [*texts(), finding.code]
    rank = codes.index(OF_LAYERS[0] if of_layer else finding.code)
    return finding.severity != "problem", rank, names.index(finding.names[0]) if of_layer else 0
