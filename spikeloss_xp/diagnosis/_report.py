"""The report of `diagnose`, which can be shown as a table or a figure, and sent to a logger."""

import functools
import importlib
import itertools
import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from spikeloss_xp.losses import Loss
from spikeloss_xp.readouts import READOUTS
from spikeloss_xp.times.first_spike import TimesLoss

BATCH_NUMBERS = 7  # how many entries of `numbers` are printed
NAME = 19  # the width of a name in a table that is 80 characters wide
NAMED_BARS = 50  # a panel with more bars shows numbers instead of names
LONG = 20  # a longer list is shown as a range
INDENT = "    "
MORE = 'The guide "What diagnose finds" describes all findings.'
SINCE = "earlier loss, updates since"  # a key of `Report.numbers`
ENOUGH = 90  # after fewer updates, a report does not judge the improvement
LOOK_AGAIN = "Train for about 100 updates, and diagnose again with this report as earlier."
# The keys of `Report.numbers` whose values `Report.scalars` returns.
LOGGED = ("loss", "accuracy", "bits per spike", "mean rate", "mean count")
MARKS = {"problem": "!", "note": "*"}
HEAD = ("layer", "rate", "silent", "always on", "gradient", "weight")
# A report lists findings with these codes in the order of the layers.
OF_LAYERS = ("busy-hidden", "silent-hidden", "silent-output", "quiet-output")
OF_NEURONS = ("bits per spike of each neuron", "mean rate of each neuron")  # keys of `numbers`
INK, GOOD, BAD = "#222832", "#0c8096", "#c43a80"  # the colours of the documentation
Row = tuple[str, ...]  # a row of the table: a mark, and the text of each column
Panel = tuple[str, dict[str, Any]]  # a panel of the figure: its title, and the length of each bar


class Layer(NamedTuple):
    """The firing statistics of a layer in one batch.

    Attributes
    ----------
    name : str
        The name of the layer, such as ``"hidden.0"`` or ``"output"``.
    rate : float
        The fraction of unmasked steps in which a neuron fires, averaged over neurons and samples.
    silent, always_on : float
        `silent` is the fraction of neurons that never fire. `always_on` is the fraction of neurons
        that fire at every unmasked step. A neuron is not counted as always on if it has fewer than
        8 unmasked steps in the batch, or only one unmasked step in each sample. Neurons that are
        masked at all steps are left out of both fractions.
    samples : int
        The number of samples.
    finite : bool
        Whether all entries of the layer are finite.
    first_spike : float or None
        For a layer of spike times, the mean time of the first spike, over all neurons and samples
        that have a spike. The `rate` of such a layer is NaN. For other layers, `first_spike` is
        None.
    holds_spikes : bool
        Whether the values may be spikes. If the values are other numbers, such as potentials,
        `rate` and `always_on` are NaN in a report.
    """

    name: str
    rate: float
    silent: float
    always_on: float
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
        The root mean square of the entries that are not 0. Entries that are 0 are left out, because
        they usually belong to inputs that never fire. `rms` is NaN or infinite if an entry is NaN
        or infinite. `rms` is None if the parameter has no gradient.
    is_weight : bool
        Whether the parameter is treated as a weight. A parameter is a weight if its gradient is
        None, has two axes, or has at least two axes that are longer than 1.
    """

    name: str
    rms: float | None
    is_weight: bool


@dataclass(frozen=True)
class Finding:
    """A possible cause of failure, or an unusual fact, that `diagnose` found in a batch.

    Attributes
    ----------
    code : str
        The stable name of the finding, which is also its anchor in the documentation.
    severity : {"problem", "note"}
        A problem keeps a network from learning. A note is a fact, which may be harmless.
    seen, why, remedy : str
        Three texts: the evidence in the batch, the reason why it matters, and what to do about it.
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
    ('silent-output', 'note', ('output',))
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


# An observation is a `Finding`, or a tuple of strings. The first string is a code in findings.toml.
# The second string describes the evidence. The other strings are names of layers or weights.
Observation = tuple[str, ...] | Finding
Observations = Iterator[Observation]


@dataclass(frozen=True)
class Report:
    """The result of `diagnose`, which is printed as a table of layers, numbers and findings.

    Attributes
    ----------
    numbers : dict
        The numbers about the batch, keyed by descriptive names. The confusion matrix is left out if
        there are more than 100 classes.
    layers : tuple
        The firing statistics of each layer, from the first hidden layer to the output. A layer has
        the attributes `name`, `rate`, `silent`, `always_on`, `samples` and `finite`.
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
        import html  # imported lazily to keep the import of the library fast

        rows = [("", *self._head()), *self._rows()]
        table = "".join(f"<tr><td>{'<td>'.join(map(html.escape, row))}" for row in rows)
        return f"<table>{table}</table><pre>{html.escape(self._rest())}</pre>"

    def _rest(self) -> str:
        """Return the text below the table: the first entries of `numbers`, and the findings."""
        numbers = list(self.numbers.items())[:BATCH_NUMBERS]
        width = max((len(name) for name, _ in numbers), default=0)
        lines = [f"{name:{width}}  {_in_words(x)}" for name, x in numbers]
        lines += self._paragraphs()
        lines += ["", MORE if self.findings else "nothing found"]
        lines += [] if enough(self.numbers) else [LOOK_AGAIN]
        return "\n".join(lines)

    def _paragraphs(self) -> Iterator[str]:
        """Yield the lines about the findings. A text that findings share is printed only once."""
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
        """Draw the report with matplotlib, in a figure that is as wide as the screen of a phone.

        Returns
        -------
        Figure
            A matplotlib figure with up to five panels. Three panels show the firing rate of each
            layer (for spike times, the time of the first spike), the fraction of silent neurons in
            each layer, and the size of the gradient of each weight. For likelihoods, two more
            panels show the bits per spike and the mean rate of each neuron. A panel without data is
            left out. Layers and weights to which a problem applies are pink.

        Raises
        ------
        ValueError
            If the report contains no data for any panel.
        """
        # matplotlib is imported here because it is optional and slow to import. `import_module` is
        # used because type checkers may not find matplotlib.
        plt = importlib.import_module("matplotlib.pyplot")

        panels = {title: bars for title, bars in self._panels() if bars}
        if not panels:
            raise ValueError("there is nothing to draw: pass hidden or gradients to diagnose")
        heights = [0.7 + 0.22 * min(len(bars), NAMED_BARS) for bars in panels.values()]
        figure, axes = plt.subplots(
            len(panels), figsize=(3.9, sum(heights)), height_ratios=heights,
            layout="constrained", squeeze=False,
        )  # fmt: skip
        bad = {name for each in self.findings if each.severity == "problem" for name in each.names}
        for axis, (title, bars) in zip(axes.flat, panels.items(), strict=True):
            _draw(axis, title, bars, bad)
        return figure

    def _panels(self) -> Iterator[Panel]:
        """Yield the title and the bars of each panel. A panel may have no bars."""
        layers = {each.name: each for each in self.layers}
        column = "first_spike" if self._has_times() else "rate"
        yield column.replace("_", " "), {name: getattr(x, column) for name, x in layers.items()}
        yield "silent neurons", {name: x.silent for name, x in layers.items()}
        for title in OF_NEURONS:
            yield title, {str(i): x for i, x in enumerate(self.numbers.get(title, ()))}
        yield "gradient", {each.name: each.rms for each in self.gradients if each.is_weight}

    def _has_times(self) -> bool:
        """Return whether the layers hold spike times. Such layers have no firing rate."""
        return any(layer.first_spike is not None for layer in self.layers)

    def scalars(self) -> dict[str, float]:
        """Return the numbers to monitor during training, as a dict for any logger.

        Returns
        -------
        dict of str to float
            A dict with these keys:

            - ``"loss"``: the value of the loss with ``reduction="mean"``. For `SparsityEnforcer`,
              it is the value with the reduction of the loss itself.
            - ``"accuracy"``, if the target has classes.
            - ``"bits_per_spike"``, ``"mean_rate"`` and ``"mean_count"``, for likelihoods.
            - ``"output/rate"``, ``"output/silent"`` and ``"output/always_on"``: how often the
              output neurons fire. If the input holds predicted rates, these keys are missing. For
              `SparsityEnforcer`, the keys begin with ``"input"`` instead of ``"output"``.
            - The same three keys for each hidden layer, for example ``"hidden.0/rate"``. For layers
              of spike times, the key ends with ``"first_spike"`` instead of ``"rate"``.
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
        """Return the names of the columns."""
        return tuple("first" if x == "rate" and self._has_times() else x for x in HEAD)

    def _rows(self) -> list[Row]:
        """Return the rows of the table.

        If there are as many weights as layers, each row shows a layer and the weights through which
        the layer receives its input.
        """
        weights = [each for each in self.gradients if each.is_weight]
        if len(weights) == len(self.layers):
            pairs: Iterable[Any] = zip(self.layers, weights, strict=True)
        else:
            pairs = [(each, None) for each in self.layers] + [(None, each) for each in weights]
        return [self._row(*pair) for pair in pairs]

    def _row(self, layer: Layer | None, gradient: Gradient | None) -> Row:
        """Return the cells of a row, of which the first marks problems and notes."""
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


def _draw(axes: Any, title: str, bars: dict[str, Any], bad: set[str]) -> None:
    """Draw a bar for each name, with the first bar at the top. Bars for names in `bad` are pink."""
    places, colours = range(len(bars)), [BAD if name in bad else GOOD for name in bars]
    lengths = [math.nan if x is None or math.isinf(x) else x for x in bars.values()]
    axes.barh(places, lengths, color=colours)
    if len(bars) <= NAMED_BARS:
        axes.set_yticks(places, map(_shortened, bars))
    axes.set_ylim(len(bars) - 0.5, -0.5)  # bars of length NaN also get room
    axes.set_title(title, loc="left", size="medium", weight="bold", color=INK)
    axes.tick_params(colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    if title == "silent neurons":
        axes.set_xlim(0, 1)
    if title == "gradient":
        _use_decades(axes, lengths)


def _use_decades(axes: Any, lengths: list[float]) -> None:
    """Use a log scale that begins and ends at powers of 10, if any length is above 0."""
    powers = [math.log10(x) for x in lengths if x > 0]
    if powers:
        axes.set_xscale("log")
        axes.minorticks_off()  # the labels of minor ticks would overlap
        axes.set_xlim(10.0 ** (math.ceil(min(powers)) - 1), 10.0 ** (math.floor(max(powers)) + 1))


def _shortened(name: str) -> str:
    """Return the end of a name that is too long for a table or a figure."""
    return name if len(name) <= NAME else f"...{name[3 - NAME :]}"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 80, subsequent_indent=INDENT, break_long_words=False)


def _line(row: Row) -> str:
    """Return a row of the table as a line of at most 80 characters."""
    mark, layer, rate, silent, always_on, gradient, weight = row
    numbers = f"{rate:>7}  {silent:>6}  {always_on:>9}  {gradient:>8}"
    return f"{mark:1} {_shortened(layer):{NAME}}  {numbers}  {_shortened(weight)}".rstrip()


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
    """Return the texts of all findings, keyed by code, in the order of findings.toml.

    In findings.toml, problems come before notes, and causes come before their consequences.
    """
    import tomllib  # imported here because the texts are rarely needed
    from importlib.resources import files

    path = files("spikeloss_xp") / "data" / "findings.toml"
    text = path.read_text(encoding="utf-8")
    for name, shared in tomllib.loads(text)["shared"].items():
        text = text.replace(f"{{{name}}}", shared)
    return {code: found for code, found in tomllib.loads(text).items() if code != "shared"}


def enough(numbers: Mapping[str, Any]) -> bool:
    """Return whether there were at least `ENOUGH` updates since an earlier report."""
    _, updates = numbers.get(SINCE, (None, 0))
    return bool(updates >= ENOUGH)


def findings_of(
    observed: list[Observation], loss: Any, *, blocked: bool, decided: bool
) -> tuple[Finding, ...]:
    """Return the findings with their texts. Problems come first, and causes before consequences.

    In findings.toml, possible causes of failure have the severity "cause". All possible causes
    become problems if learning is `blocked`, or if "not-moved" occurs together with another
    possible cause. In any other report, possible causes become notes.

    `decided` is True if gradients of weights were passed. If `decided` is False, a loss whose
    gradient is 0 also blocks learning.
    """
    named = {each[0] for each in observed if isinstance(each, tuple)}
    causes = {code for code in named if texts().get(code, {}).get("severity") == "cause"}
    blocked |= not decided and "zero-gradient" in causes
    cause = "problem" if blocked or {"not-moved"} < causes else "note"
    codes = {code: place for place, code in enumerate(texts())}
    codes |= dict.fromkeys(OF_LAYERS, codes[OF_LAYERS[0]])

    def place(finding: Finding) -> tuple[bool, int]:
        return finding.severity != "problem", codes.get(finding.code, len(codes))

    return tuple(sorted((_finding_of(each, loss, cause) for each in observed), key=place))


def _finding_of(observed: Observation, loss: Any, cause: str) -> Finding:
    """Return a finding with its texts. A `Finding` is returned unchanged.

    `cause` is the severity to use if findings.toml gives the severity "cause".
    """
    if isinstance(observed, Finding):
        return observed
    code, seen, *names = observed
    if code not in texts():
        raise ValueError(f"{code!r} is not a code of this library: yield a Finding, not a tuple")
    text = texts()[code]
    if isinstance(loss, TimesLoss):
        text = text | text.get("times", {})
    severity = cause if text["severity"] == "cause" else text["severity"]
    remedies = text.get("options", {})
    options = [remedies[name] for name in _unused(loss) if name in remedies]
    remedy = " ".join([text["remedy"], *options])
    return Finding(code, severity, seen, text["why"], remedy, tuple(names))


def _unused(loss: Any) -> list[str]:
    """Return the names of the loss's options that a remedy may recommend.

    A remedy does not recommend an option whose default is None if the loss already sets this
    option. A remedy recommends the option `rates` only if the readout of the loss allows it.
    """
    own = isinstance(loss, Loss)
    options = fields(loss) if own else ()
    names = [x.name for x in options if x.default is not None or getattr(loss, x.name) is None]
    bounded = READOUTS[loss.readout].windowed if "rates" in names else True
    return [name for name in names if bounded or name != "rates"]
