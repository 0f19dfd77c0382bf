"""The arguments, options and terms of each loss, as data for the tests and the documentation.

``python tools/write_pages.py`` writes the tables of docs/contract.md from it. Shapes are given as
names of axes.
"""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import spikeloss_xp as sx
from _support.mistakes import ARRAY_MISTAKES, OPTION_MISTAKES, VALUE_MISTAKES, Mistake
from _support.pages import DOCS, table, with_tables

PAGE = DOCS / "contract.md"

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
FLOATS = ("float16", "bfloat16", "float32", "float64")
COMPUTED_IN = {  # dtypes of the spikes: dtypes of the value and of the gradient
    ("float64",): ("float64", "float64"),
    ("float32",): ("float32", "float32"),
    ("float16", "bfloat16"): ("float32", "the dtype of the spikes"),
    ("bool", *INTEGERS): ("the library's default floating dtype",) * 2,
}

BATCH, CLASSES, STEPS = 5, 4, 6
SIZES = {"batch": BATCH, "class": CLASSES, "time": STEPS}
"""The axis sizes of the examples. They all differ, so that a transposed array fails a test."""

LAYOUTS = {
    0: ("time", "batch", "class"),
    1: ("batch", "time", "class"),
    -1: ("batch", "class", "time"),
}


@dataclass(frozen=True)
class Target:
    """The target of a loss."""

    description: str
    kind: str
    """The dtypes, in words for the page."""
    dtypes: tuple[str, ...]
    axes: tuple[str, ...]


TRAINS = Target(
    "desired spike trains, or a signal with `filter_target=False`",
    "bool, integers or floats",
    ("bool", *INTEGERS, *FLOATS),
    ("batch", "class", "time"),
)
LABELS = Target("class indices", "any integers", INTEGERS, ("batch",))
TIMES = Target("a target time for each class, in steps", "floats", FLOATS, ("batch", "class"))
MULTI_HOT = Target(
    "a label for each class, from 0 to 1", "bool or floats", ("bool", *FLOATS), ("batch", "class")
)

PROBABILITIES = Target("class probabilities", "floats of at least 0", FLOATS, ("batch", "class"))

NUMBERS = Target("a number for each reading", "floats", FLOATS, ("batch", "class"))

READOUTS = ("rate", "count", "max", "last")
ENTROPY_READOUTS = (*READOUTS, "sqrt_count", "latency", "softmax_sum")
WINDOWED = ("rate", "count", "sqrt_count")
REDUCTIONS = ("sum", "mean", "batchmean", "none")
OPTIONS = {  # of the constructors of the losses, with their permitted values
    "true_rate": "from 0 to 1: a number for all classes, or a sequence of one for each; any "
    'numbers with `readout="max"` and `"last"` and with a window of 1',
    "false_rate": "as `true_rate`, for the classes that are not the label",
    "true_time": "in steps, at least 0",
    "false_time": "in steps, at least 0, or `None` for the duration of the sample",
    "tolerance": "in steps, at least 0",
    "time_constant": "in steps, above 0",
    "length": "1 or more steps; `None`: 20 time constants",
    "filter_order": "1 or more",
    "filter_target": "`True` or `False`",
    "kernel": "a sequence of taps, or a function from the lag to its tap; `None`: an exponential",
    "max_rate": "at least 0",
    "min_rate": "from 0 to `max_rate`",
    "lam": "at least 0",
    "per": '`"array"`, `"neuron"`, `"sample"`, `"sample_neuron"`',
    "power": "2 or 1",
    "scale": 'numbers of at least 0, one for each array; with `per="array"` and `"sample"`',
    "moving_window": "1 or more steps, or `None` for the whole duration",
    "mode": '`"probability"`, `"softmax"`',
    "reduction": ", ".join(f'`"{name}"`' for name in REDUCTIONS),
    "readout": '`"rate"`, `"count"`, in `CrossEntropy` also `"sqrt_count"`; without a window also '
    '`"max"`, `"last"`, and in `CrossEntropy` `"latency"` and `"softmax_sum"`',
    "temperature": "at least 1e-6, in the units of the reading",
    "label_smoothing": "from 0 to below 1",
    "pseudo_count": "in spikes, at least 1e-6",
    "alpha": "at least 1e-6, in the units of the reading",
    "theta": "a number, in the units of the reading",
    "pos_weight": "at least 0: a number for all classes, or a sequence of one for each; 1 with "
    '`numerics="lava"`',
    "numerics": '`"stable"`, `"lava"`',
    "num_classes": "a divisor of the number of neurons; `None`: each neuron is a class",
    "ignore_index": "an integer of 32 bits",
    "time_axis": "an axis of `input`",
}
CLASSIFIER_OPTIONS = {  # likewise, of the classifiers
    "time_window": "1 or more steps",
    "mode": '`"probability"`, `"softmax"`, `"logsoftmax"`: what `confidence` returns',
    "eps": "at least 0; it is added to the sum of rates",
    **{name: OPTIONS[name] for name in ("num_classes", "ignore_index")},
    "time_axis": "an axis of the spikes",
}
COMPOSED_OPTIONS = {  # likewise, of `losses.Composed`
    "read": "a function: `read(xp, spikes, mask)`",
    "compare": "a function: `compare(xp, u, label)`",
    "per_step": "`True` or `False`: whether `read` returns a reading for each step",
    **{name: OPTIONS[name] for name in ("reduction", "num_classes", "ignore_index", "time_axis")},
}
DISTANCE_OPTIONS = {  # likewise, of the distances as objects
    "time_constant": "in steps or, with `times`, in the unit of the times; at least 1e-6",
    "cosine": "from 0 to 1",
    "squared": "`True` or `False`",
    "time_axis": "an axis of the trains",
    "times": "`True` or `False`",
}
CALL_ARGUMENTS = {  # keyword arguments of the calls, with their permitted values
    "where": "bools: `[batch]`, one for each step, or the shape of `input`",
    "lengths": "integers from 0 to the number of steps: `[batch]`",
    "weight": "finite numbers of at least 0: `[class]`",
    "others": "the `events_and_entries` of the rest of the batch: two scalar arrays, or with "
    '`per="neuron"` two arrays `[neuron]`',
}


@dataclass(frozen=True)
class Contract:
    """One loss with one kind of target. Its signatures tell its options and call arguments."""

    loss: type
    target: Target | None
    required: Mapping[str, Any] = field(default_factory=dict)
    """Options that the examples set: at least those without a default."""
    suffix: str = ""
    """Of the name, for a second kind of target."""
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"": {}})
    """Sets of options that change the criterion or group the neurons, by name."""

    @property
    def options(self) -> tuple[str, ...]:
        return tuple(inspect.signature(self.loss).parameters)

    @property
    def call(self) -> tuple[str, ...]:
        """The arguments of the call besides the spikes and the target."""
        without = ("self", "input", "target", *(("weight",) if self.target is TRAINS else ()))
        return tuple(
            x for x in inspect.signature(self.loss.__call__).parameters if x not in without
        )

    @property
    def terms(self) -> tuple[str, ...]:
        """The axes of the terms, without a window."""
        if self.target is None:
            return ()
        if self.loss in (sx.SpikeMax, sx.CrossEntropy):  # whose classes share a term
            return ("batch",)
        return ("batch", "class", "time") if self.target is TRAINS else ("batch", "class")

    @property
    def name(self) -> str:
        return "-".join(filter(None, (self.loss.__name__, self.suffix)))

    def forms(self) -> "Iterator[Form]":
        """Yield each variant with each readout, also with a window and with per-step targets."""
        readouts = ENTROPY_READOUTS if self.loss is sx.CrossEntropy else READOUTS
        readouts = readouts if "readout" in self.options else ("",)
        for suffix, variant in self.variants.items():
            for readout in readouts:
                name = "-".join(filter(None, (self.name, suffix, readout)))
                chosen = {**variant, **({"readout": readout} if readout else {})}
                yield Form(name, self, chosen)
                if "moving_window" in self.options and readout in ("", *WINDOWED):
                    windowed = {**chosen, "moving_window": 3}
                    yield Form(f"{name}-window", self, windowed)
                    yield Form(f"{name}-window-per-step", self, windowed, per_step=True)


@dataclass(frozen=True)
class Form:
    """A loss with a set of options, and with a target that is per sample or per step."""

    name: str
    contract: Contract
    options: Mapping[str, Any]
    per_step: bool = False

    def loss(self, **options: Any) -> Any:
        """Return the loss, with further options."""
        return self.contract.loss(**{**self.contract.required, **self.options, **options})

    @property
    def windowed(self) -> bool:
        return "moving_window" in self.options

    @property
    def target_axes(self) -> tuple[str, ...]:
        axes = self.contract.target.axes if self.contract.target else ()
        return (*axes, "time") if self.per_step else axes

    @property
    def terms_axes(self) -> tuple[str, ...]:
        return (*self.contract.terms, "time") if self.windowed else self.contract.terms

    @property
    def neurons(self) -> int:
        """The number of neurons in the examples: two per class if `num_classes` is set."""
        return 2 * CLASSES if "num_classes" in self.options else CLASSES


GROUPS = {"num_classes": CLASSES}
COLD = {"temperature": 0.25, "label_smoothing": 0.125}
SUMMED = {"time_axis": -1, "reduction": "sum"}
CONTRACTS = (
    Contract(
        sx.SpikeTime,
        TRAINS,
        required={"time_constant": 2, "length": 4},
        variants={
            "": {},
            "order2": {"filter_order": 2},
            "signal": {"filter_target": False},
            "taps": {"time_constant": 5, "length": 3, "kernel": (0.5, 1.0, -0.25)},
        },
    ),
    Contract(
        sx.SpikeRate,
        LABELS,
        required={"true_rate": 0.6875, "false_rate": 0.0625},
        variants={
            "": {},
            "per-class": {"true_rate": (0.9375, 0.8125, 0.6875, 0.5625), "false_rate": 0.0625},
            "groups": GROUPS,
        },
    ),
    Contract(
        sx.SpikeMax,
        LABELS,
        variants={
            "": {},
            "groups": GROUPS,
            "softmax": {"mode": "softmax"},
            "groups-softmax": {**GROUPS, "mode": "softmax"},
        },
    ),
    *(
        Contract(sx.CrossEntropy, target, SUMMED, suffix, {"": {}, "groups-cold": GROUPS | COLD})
        for target, suffix in ((LABELS, ""), (PROBABILITIES, "probabilities"))
    ),
    *(
        Contract(
            sx.SpikeLatency,
            target,
            SUMMED,
            suffix,
            {
                "": {"true_time": 1.25},
                "groups": {**GROUPS, "tolerance": 0.375, "false_time": 5.0},
            },
        )
        for target, suffix in ((LABELS, ""), (TIMES, "times"))
    ),
    Contract(sx.SquaredError, NUMBERS, SUMMED, variants={"": {}, "groups": GROUPS}),
    Contract(
        sx.SpikeMoid,
        MULTI_HOT,
        variants={
            "": {"alpha": 0.25, "theta": 0.5},
            "groups": {**GROUPS, "alpha": 0.25, "theta": 0},
            "pos-weight": {"alpha": 0.25, "theta": 0.5, "pos_weight": (0.25, 1.0, 8.0, 2.5)},
        },
    ),
    Contract(
        sx.SparsityEnforcer,
        None,
        required={"max_rate": 0.4375},
        variants={
            "": {},
            "neuron": {"per": "neuron", "lam": 2.0},
            "min": {"max_rate": 0.75, "min_rate": 0.6875, "per": "neuron"},
            "sample": {"per": "sample", "min_rate": 0.4, "power": 1},
            "sample-neuron": {"per": "sample_neuron", "max_rate": 0.75, "min_rate": 0.4},
        },
    ),
)
LISTED = tuple(contract for contract in CONTRACTS if not contract.suffix)
FORMS = {form.name: form for contract in CONTRACTS for form in contract.forms()}
ONE_OF_EACH = (
    *("SpikeTime", "SpikeTime-taps", "SpikeRate-rate-window-per-step", "SpikeRate-per-class-max"),
    *("SpikeMax", "SpikeMax-softmax-window", "CrossEntropy-count", "CrossEntropy-last"),
    *("CrossEntropy-groups-cold-sqrt_count-window", "CrossEntropy-groups-cold-softmax_sum"),
    *("CrossEntropy-probabilities-count", "CrossEntropy-probabilities-groups-cold-rate-window"),
    *("SpikeMoid-pos-weight-rate", "SpikeMoid-rate", "SpikeMoid-groups-rate-window"),
    *("SparsityEnforcer-neuron", "CrossEntropy-latency", "SpikeLatency"),
    "SpikeLatency-times-groups",
    "SquaredError-groups-rate-window-per-step",
    "SpikeTime-signal",
)
"""A few forms that cover every loss, readout and shape of terms."""


# The page ----------------------------------------------------------------------------------------


OPTION_TABLES = (
    (OPTIONS, [c.loss for c in LISTED]),
    (CLASSIFIER_OPTIONS, [sx.Rate, sx.MovingWindow, sx.Latency]),
    (COMPOSED_OPTIONS, [sx.losses.Composed]),
    (DISTANCE_OPTIONS, [sx.distances.VanRossum, sx.distances.Similarity]),
)


def page(text: str) -> str:
    """Return the text of docs/contract.md with its tables replaced."""
    mistakes = (OPTION_MISTAKES, ARRAY_MISTAKES, VALUE_MISTAKES)
    sections = {
        "## Options": [_default_table(*each) for each in OPTION_TABLES],
        "## Arguments of a call": [_call_table()],
        "## Layouts": [_layout_table()],
        "## Targets and terms": [_target_table()],
        "## Dtypes and devices": [_dtype_table()],
        "## Mistakes": [_mistake_table(each) for each in mistakes],
    }
    return with_tables(text, sections)


def _shape(axes: Iterable[str]) -> str:
    return f"`[{', '.join(axes)}]`"


def _call_table() -> str:
    rows = [
        (f"`{argument}`", allowed, *("yes" if argument in c.call else "" for c in LISTED))
        for argument, allowed in CALL_ARGUMENTS.items()
    ]
    return table(("argument", "may be", *(f"`{c.name}`" for c in LISTED)), rows)


def _default_table(options: Mapping[str, str], classes: Iterable[type]) -> str:
    """Return a table of the default of each option in each class, from the signatures."""
    signatures = {kind.__name__: inspect.signature(kind).parameters for kind in classes}
    rows = [
        (f"`{option}`", allowed, *(_default(s.get(option)) for s in signatures.values()))
        for option, allowed in options.items()
    ]
    return table(("option", "may be", *(f"`{name}`" for name in signatures)), rows)


def _default(parameter: inspect.Parameter | None) -> str:
    if parameter is None:
        return ""
    if parameter.default is parameter.empty:
        return "required"
    return "`" + repr(parameter.default).replace("'", '"') + "`"


def in_layout(axes: Iterable[str], time_axis: int) -> tuple[str, ...]:
    """Return axes in the order that `time_axis` gives them."""
    return tuple(sorted(axes, key=LAYOUTS[time_axis].index))


def _layout_table() -> str:
    full_axes = ("batch", "class", "time")
    rows = [
        (
            f"`{axis}`",
            *(_shape(in_layout(axes, axis)) for axes in (full_axes, ("batch", "time"), full_axes)),
        )
        for axis in LAYOUTS
    ]
    description = (
        "`input`",
        "class indices or a mask for each step",
        "multi-hot labels for each step",
    )
    return table(("`time_axis`", *description), rows)


def _target_table() -> str:
    rows = []
    for c in CONTRACTS:
        if c.target is not None:
            description = f"{c.target.description}: {c.target.kind}"
            shapes = [_shape(axes) for axes in (c.target.axes, c.terms)]
            if c.target is TRAINS:
                shapes = ["the shape of `input`"] * 2
            if "moving_window" in c.options:
                shapes[0] += f", or with a window {_shape((*c.target.axes, 'time'))}"
                shapes[1] += f", with a window {_shape((*c.terms, 'time'))}"
            rows.append((f"`{c.loss.__name__}`", description, *shapes))
    return table(("loss", "`target`", "shape of the target", "shape of the terms"), rows)


def _dtype_table() -> str:
    rows = []
    for dtypes, (value, gradient) in COMPUTED_IN.items():
        spikes = [dtype for dtype in dtypes if dtype not in INTEGERS]
        if len(spikes) < len(dtypes):
            spikes.append("any integers")
        rows.append((", ".join(spikes), value, gradient))
    return table(("spikes", "computation and value", "gradient"), rows)


def _mistake_table(mistakes: Iterable[Mistake]) -> str:
    rows = dict.fromkeys(
        (m.description, f"`{m.error.__name__}`", f"`{m.message_parts[0]}`") for m in mistakes
    )
    return table(("mistake", "error", "the message names"), rows)
