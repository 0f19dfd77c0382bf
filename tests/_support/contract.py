"""The arguments, options and terms of each loss, as data for the tests and the documentation.

Shapes are given as names of axes.
"""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import spikeloss_xp as sx
from _support.cases import as_published

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

    dtypes: tuple[str, ...]
    axes: tuple[str, ...]


# Objects of their own: tests tell targets apart by identity.
TRAINS = Target(("bool", *INTEGERS, *FLOATS), ("batch", "class", "time"))
COUNTS = Target(TRAINS.dtypes, TRAINS.axes)
LABELS = Target(INTEGERS, ("batch",))
MULTI_HOT = Target(("bool", *FLOATS), ("batch", "class"))
TIMES, PROBABILITIES, NUMBERS = (Target(FLOATS, ("batch", "class")) for _ in range(3))

READOUTS = ("rate", "count", "max", "last")
ENTROPY_READOUTS = (*READOUTS, "sqrt_count", "latency", "softmax_sum")
WINDOWED = ("rate", "count", "sqrt_count")
REDUCTIONS = ("sum", "mean", "batchmean", "none")
SHARED = ("reduction", "num_classes", "ignore_index", "time_axis")  # options of several losses


@dataclass(frozen=True)
class Contract:
    """One loss with one kind of target. Its signatures tell its options and call arguments."""

    loss: type
    target: Target | None
    required: Mapping[str, Any] = field(default_factory=dict)
    """Options that the examples set: at least those without a default."""
    suffix: str = ""
    """Of the name, for a second kind of target."""
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Sets of options that change the criterion or group the neurons, by name; "" for the first."""

    @property
    def options(self) -> tuple[str, ...]:
        return tuple(inspect.signature(self.loss).parameters)

    @property
    def call(self) -> tuple[str, ...]:
        """The arguments of the call besides the spikes and the target."""
        without = ("self", "input", "target", "unknown")
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
        return ("batch", "class", "time") if "time" in self.target.axes else ("batch", "class")

    @property
    def name(self) -> str:
        return "-".join(filter(None, (self.loss.__name__, self.suffix)))

    def forms(self) -> "Iterator[Form]":
        """Yield each variant with each readout, also with a window and with per-step targets."""
        readouts = ENTROPY_READOUTS if self.loss is sx.CrossEntropy else READOUTS
        readouts = readouts if "readout" in self.options else ("",)
        for suffix, variant in ({"": {}} | self.variants).items():
            for readout in WINDOWED if "rates" in variant else readouts:
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
        given = {**self.contract.required, **self.options, **options}
        if given.pop("published", False):
            return as_published(self.contract.loss(**given))
        return self.contract.loss(**given)

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
BOUNDS = {"rates": (0.75, 0.0625), "rate_weight": 0.5}
SUMMED = {"time_axis": -1, "reduction": "sum"}
CONTRACTS = (
    Contract(
        sx.SpikeTime,
        TRAINS,
        required=SUMMED | {"time_constant": 2, "length": 4},
        variants={
            "order2": {"filter_order": 2},
            "signal": {"filter_target": False},
            "taps": {"time_constant": 5, "length": 3, "kernel": (0.5, 1.0, -0.25)},
        },
    ),
    Contract(
        sx.SpikeRate,
        LABELS,
        required=SUMMED | {"true_rate": 0.6875, "false_rate": 0.0625},
        variants={
            "one-sided": {"true_rate": 0.59375, "false_rate": 0.40625, "one_sided": True},
            "per-class": {"true_rate": (0.9375, 0.8125, 0.6875, 0.5625), "false_rate": 0.0625},
            "groups": GROUPS,
        },
    ),
    Contract(
        sx.SpikeMax,
        LABELS,
        SUMMED,
        variants={
            "groups": GROUPS,
            "softmax": {"mode": "softmax"},
            "groups-softmax": {**GROUPS, "mode": "softmax"},
        },
    ),
    *(
        Contract(
            sx.CrossEntropy,
            target,
            SUMMED,
            suffix,
            {"groups-cold": GROUPS | COLD, "bounds": BOUNDS},
        )
        for target, suffix in ((LABELS, ""), (PROBABILITIES, "probabilities"))
    ),
    *(
        Contract(
            sx.SpikeLatency,
            target,
            SUMMED,
            suffix,
            {"": {"true_time": 1.25}, "groups": {**GROUPS, "tolerance": 0.375, "false_time": 5.0}},
        )
        for target, suffix in ((LABELS, ""), (TIMES, "times"))
    ),
    Contract(sx.SquaredError, NUMBERS, SUMMED, variants={"groups": GROUPS}),
    Contract(sx.AbsoluteError, NUMBERS, SUMMED),
    Contract(sx.HuberError, NUMBERS, SUMMED, variants={"": {"delta": 0.2}}),
    Contract(
        sx.SpikeMoid,
        MULTI_HOT,
        SUMMED,
        variants={
            "": {"alpha": 0.25, "theta": 0.5},
            "groups": {**GROUPS, "alpha": 0.25, "theta": 0},
            "pos-weight": {"alpha": 0.25, "theta": 0.5, "pos_weight": (0.25, 1.0, 8.0, 2.5)},
        },
    ),
    Contract(
        sx.PoissonNLL, COUNTS, SUMMED, variants={"rates": {"link": "identity", "constant": True}}
    ),
    Contract(
        sx.NegativeBinomialNLL,
        COUNTS,
        SUMMED | {"dispersion": 0.375},
        variants={"rates": {"link": "identity", "constant": True, "dispersion": (0, 0.25, 1, 8)}},
    ),
    Contract(sx.BernoulliNLL, COUNTS, SUMMED, variants={"hazard": {"link": "hazard"}}),
    Contract(
        sx.SparsityEnforcer,
        None,
        required={"max_rate": 0.4375, "time_axis": -1},
        variants={
            "neuron": {"per": "neuron", "rate_weight": 2.0},
            "min": {"max_rate": 0.75, "min_rate": 0.6875, "per": "neuron"},
            "sample": {"per": "sample", "min_rate": 0.4, "power": 1},
            "sample-neuron": {"per": "sample_neuron", "max_rate": 0.75, "min_rate": 0.4},
            "sum-lava": {"per": "sample", "reduction": "sum", "published": True},
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
    "CrossEntropy-bounds-count",
    "CrossEntropy-probabilities-bounds-rate-window",
    "SpikeLatency-times-groups",
    "SquaredError-groups-rate-window-per-step",
    "AbsoluteError-count",
    "HuberError-rate",
    "SpikeTime-signal",
    *("PoissonNLL", "PoissonNLL-rates", "BernoulliNLL", "BernoulliNLL-hazard"),
    *("NegativeBinomialNLL", "NegativeBinomialNLL-rates"),
)
"""A few forms that cover every loss, readout and shape of terms."""
