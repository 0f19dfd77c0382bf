"""Functions that check hyper-parameters and arrays.

Error messages name the argument, the rule and the value that arrived.
"""

import math
import operator
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import Field, field
from typing import Any, ClassVar, TypeVar, get_args

import numpy as np

from spikeloss_xp._typing import Array, Namespace, Reduction

LONGEST = (1 << 31) - 1  # the largest integer that every library can represent
SMALLEST_SCALE, LARGEST = 1e-6, 1e18  # even the square of LARGEST is finite in float32
LEARNED = (
    ": the gradient of an array would be lost. To learn this number, apply it to the arrays that "
    "you pass to the loss, as in loss(input / temperature, target)"
)
WITHOUT_UNIT = ": pass x.magnitude, or the number converted to the unit of the parameters"
Number = TypeVar("Number", bound=float)  # type checkers accept an int where a float is expected


def has_unit(x: Any) -> bool:
    """Return whether a number, an array or any entry of a sequence has a unit of measurement.

    The function recognises the units of neo, quantities, Pint, Brian2 and Astropy.
    """
    if type(x) in (float, int):
        return False
    if isinstance(x, list | tuple):
        if not (x and isinstance(x[0], list | tuple)):
            x = list({type(each): each for each in x}.values())
        return any(map(has_unit, x))
    return hasattr(x, "dimensionality") or hasattr(x, "dimensions") or hasattr(x, "unit")


def shown(value: Any) -> str:
    """Return the repr of a value. For an array with more than ten entries, return its shape."""
    shape = tuple(getattr(value, "shape", ()))
    return f"an array of shape {shape}" if math.prod(shape) > 10 else repr(value)


def real(value: Any, argument: str) -> float:
    """Convert a real number to a Python float, or raise an error."""
    if type(value) is float:
        return value
    try:
        learned = getattr(value, "requires_grad", False)
        if isinstance(value, str | bytes | bool) or learned or has_unit(value):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        # A scalar array whose value cannot be read is a traced array.
        learned = learned or getattr(value, "shape", None) == ()
        hint = WITHOUT_UNIT if has_unit(value) else LEARNED if learned else ""
        raise TypeError(f"{argument} must be a number; got {shown(value)}{hint}") from None
    except OverflowError:
        return math.inf


Check = Callable[[Any, str], Any]
"""A function that takes a value and the name of its argument, and returns the checked value."""


def option(default: Any, check: Check) -> Any:
    """Return a dataclass field with a default and a check, for a subclass of `Checked`."""
    return field(default=default, metadata=checked_by(check))


def checked_by(check: Check) -> dict[str, Check]:
    """Return the metadata of a required field, for ``field(metadata=checked_by(check))``.

    A required field cannot be declared with `option`, because a type checker would assume that the
    field has a default.
    """
    return {"check": check}


class Checked:
    """Base class for frozen dataclasses whose options are checked by the constructor.

    If a subclass changes only the default of an option, the check of the option still applies.
    """

    _option_checks: ClassVar[dict[str, Check]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Collect the checks of the fields that the subclass declares."""
        super().__init_subclass__(**kwargs)
        declared = {name: each for name, each in vars(cls).items() if isinstance(each, Field)}
        own = {
            name: each.metadata["check"]
            for name, each in declared.items()
            if "check" in each.metadata
        }
        cls._option_checks = cls._option_checks | own

    def __post_init__(self) -> None:
        """Check each option."""
        for argument, check in self._option_checks.items():
            if argument in vars(self):
                check_field(self, argument, check)


def check_field(instance: Any, argument: str, check: Check) -> None:
    """Check a field of `instance`, and replace it with the value that its check returns."""
    value = getattr(instance, argument)
    check_no_spikes(type(instance), argument, value)
    object.__setattr__(instance, argument, check(value, argument))


def check_no_spikes(kind: type, argument: str, value: Any) -> None:
    """Raise an error if an option has more than one axis, because it probably holds spikes."""
    if getattr(value, "ndim", 0) > 1:
        name, target = kind.__name__, ", target" * bool(getattr(kind, "targets", ()))
        raise TypeError(
            f"{argument} of {name} must have at most one axis; got shape {tuple(value.shape)}: if "
            f"these are spikes, create {name} first and then call it with the arrays, "
            f"{name}(...)(input{target})"
        )


def one_or_more(check: Callable[[Any, str], float]) -> Callable[[Any, str], Any]:
    """Return a check that accepts a single number, or a sequence with a number for each class."""

    def checked(value: Any, argument: str) -> float | tuple[float, ...]:
        several = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        if several or getattr(value, "ndim", 0) == 1:
            if len(value) == 0:
                raise ValueError(f"{argument} must be one or more numbers; got an empty sequence")
            return tuple(check(entry, f"{argument}[{i}]") for i, entry in enumerate(value))
        return check(value, argument)

    return checked


def bounds(value: Any, argument: str) -> tuple[float, float]:
    """Return the lower bound for the labelled class and the upper bound for the other classes."""
    is_sequence = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    is_pair = (is_sequence or getattr(value, "ndim", 0) == 1) and len(value) == 2
    rates: Any = one_or_more(rate)(value, argument) if is_pair else None
    if rates is None or not rates[0] > rates[1]:
        raise ValueError(
            f"{argument} must be a pair of rates, with a bound for the labelled class and a "
            f"smaller bound for the other classes; got {shown(value)}"
        )
    pair: tuple[float, float] = rates
    return pair


def each_class(*options: Any) -> Iterator[tuple[float, ...]]:
    """Yield a tuple with the values of all options for each class.

    An option is either a single number for all classes, or a tuple with a number for each class.
    """
    several = [value if isinstance(value, tuple) else (value,) for value in options]
    number = max(map(len, several))
    return zip(*(value * number if len(value) == 1 else value for value in several), strict=False)


def integer(value: Any, argument: str) -> int:
    """Convert an integer to a Python int, or raise an error."""
    if type(value) is int:
        return value
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{argument} must be an integer; got {value!r}") from None


def _within(
    convert: Callable[[Any, str], Number], *rules: tuple[float, float, str]
) -> Callable[[Any, str], Number]:
    """Return a check that converts a number, and raises an error if the number breaks a rule.

    Each rule is a tuple of the smallest number, the largest number and a description in words.
    """
    lowest, highest = max(low for low, _, _ in rules), min(high for _, high, _ in rules)

    def checked(value: Any, argument: str) -> Number:
        result = convert(value, argument)
        if lowest <= result <= highest:
            return result
        words = next(words for low, high, words in rules if not low <= result <= high)
        raise ValueError(f"{argument} must {words}; got {value!r}")

    return checked


FINITE = -sys.float_info.max, sys.float_info.max, "be finite"
NUMBER = FINITE, (-LARGEST, LARGEST, f"be at most {LARGEST:g} in magnitude")
ABOVE_0 = math.nextafter(0, 1), math.inf, "be above 0"
number = _within(real, *NUMBER)
positive = _within(real, *NUMBER, ABOVE_0)
not_negative = _within(real, *NUMBER, (0, math.inf, "be at least 0"))
fraction = _within(real, *NUMBER, (0, math.nextafter(1, 0), "be at least 0 and below 1"))
share = _within(real, *NUMBER, (0, 1, "be between 0 and 1"))
dispersion = _within(real, *NUMBER, (0, 1e6, "be between 0 and 1e6"))
rate = _within(real, *NUMBER, (0, 1, "be between 0 and 1, in spikes per time step"))
firing_rate = _within(
    real, *NUMBER, ABOVE_0, (-math.inf, 1, "be at most 1, in spikes per time step")
)
# A scale is a divisor, so it must be large enough for the quotient to fit in float32.
AT_LEAST_SMALLEST = SMALLEST_SCALE, math.inf, f"be at least {SMALLEST_SCALE:g}"
scale = _within(real, *NUMBER, ABOVE_0, AT_LEAST_SMALLEST)
# Labels must fit in 32 bits, because some libraries have no wider integers.
label = _within(integer, (-LONGEST - 1, LONGEST, "fit in 32 bits, like a label"))
AT_MOST_LONGEST = -math.inf, LONGEST, f"be at most {LONGEST}"
count = _within(integer, (1, math.inf, "be at least 1"), AT_MOST_LONGEST)
one_or_two = _within(integer, (1, 2, "be 1 or 2"))


def optional(check: Check) -> Check:
    """Return a check that accepts None and every value that `check` accepts."""
    return lambda value, argument: None if value is None else check(value, argument)


optional_count = optional(count)


def one_of(options: Collection[str]) -> Callable[[Any, str], str]:
    """Return a check that accepts only the strings in `options`."""

    def checked(value: Any, argument: str) -> str:
        if not isinstance(value, str) or value not in options:
            raise ValueError(f"{argument} must be one of {', '.join(options)}; got {value!r}")
        return str(value)  # a NumPy string would have a different repr

    return checked


reduction = one_of(get_args(Reduction))


def flag(value: Any, argument: str) -> bool:
    """Return `value` if it is True or False, otherwise raise an error."""
    if not isinstance(value, bool):
        raise TypeError(f"{argument} must be True or False; got {value!r}")
    return value


def function(value: Any, argument: str) -> Any:
    """Return `value` if it is callable, otherwise raise an error."""
    if not callable(value):
        raise TypeError(f"{argument} must be a function; got {value!r}")
    return value


# Array checks ---------------------------------------------------------------------------------


def check_overflow(xp: Namespace, dtype: Any, known: np.ndarray | None, argument: str) -> None:
    """Raise an error if a finite number in `known` would overflow when converted to `dtype`."""
    limits = xp.finfo(dtype)
    if known is None or known.dtype.kind != "f" or known.dtype.itemsize * 8 <= limits.bits:
        return
    size = np.abs(known)
    if bool(((size > limits.max) & (size < math.inf)).any()):
        raise ValueError(
            f"{argument} contains a number of magnitude {size[size < math.inf].max():g}, which "
            f"overflows in {dtype}, the dtype used for computation"
        )


def check_shape(
    given: Array,
    argument: str,
    what: str,
    expected: dict[str, tuple[int, ...]],
    hint: Callable[[tuple[int, ...]], str] = lambda shape: "",
) -> None:
    """Raise an error if an argument does not have one of the expected shapes.

    `expected` maps the description of each expected shape to the shape. `hint` takes the shape of
    the argument, and returns a hint that is added to the error message.
    """
    shape = tuple(given.shape)
    if shape not in expected.values():
        shapes = " or ".join(f"{shape} ({meaning})" for meaning, shape in expected.items())
        raise ValueError(f"{argument} must hold {what} of shape {shapes}; got {shape}{hint(shape)}")


def lowest_below(known: np.ndarray | None, limit: float) -> float | None:
    """Return the lowest value in `known` if this value is below `limit`, otherwise None."""
    # `known` may be empty, because a process in distributed training may have no samples.
    if known is None or not known.size or known.min() >= limit:
        return None
    below = known[known < limit]
    return float(below.min()) if below.size else None


def check_range(
    values: np.ndarray | None, highest: int, argument: str, ignored: int | None = None
) -> bool:
    """Raise an error if an integer other than `ignored` is below 0 or above `highest`.

    Return True if all values are known to be in the range from 0 to `highest`, otherwise False.
    """
    if values is None:
        return False
    inside = (values >= 0) & (values <= highest)
    if bool(inside.all()):
        return True
    if ignored is not None:
        inside |= values == ignored
    if not bool(inside.all()):
        others = values if ignored is None else values[values != ignored]
        left_out = f" (to leave an entry out, use {ignored})" if ignored is not None else ""
        raise ValueError(
            f"{argument} must be between 0 and {highest}; "
            f"got values from {others.min()} to {others.max()}"
            f"{left_out if others.min() < 0 else ''}"
        )
    return False


def check_train(train: Any, argument: str) -> None:
    """Raise an error if `train` holds several spike trains instead of one."""
    if isinstance(train, list | tuple) and any(
        isinstance(times, list | tuple) or getattr(times, "ndim", 0) for times in train
    ):
        raise ValueError(
            f"{argument} holds several trains, but must hold the spike times of a single train. "
            "From a list trials[trial][neuron], select one trial, as in trials[0], or one neuron, "
            "as in [trial[0] for trial in trials]"
        )
