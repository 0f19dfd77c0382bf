"""Build a loss from its name and from options given as text."""

from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any

from spikeloss_xp.cli._recording import UsageError
from spikeloss_xp.losses import (
    SparsityEnforcer,
    SpikeLatency,
    SpikeMax,
    SpikeMoid,
    SpikeRate,
    SpikeTime,
)

CLASSES = (SpikeTime, SpikeRate, SpikeMax, SpikeLatency, SpikeMoid, SparsityEnforcer)
LOSSES = tuple(loss.__name__ for loss in CLASSES)


def build_loss(name: str, options: Sequence[str]) -> Any:
    """Return the loss called `name`, built with options of the form ``key=value``."""
    loss_class: Any = CLASSES[LOSSES.index(name)]
    accepted = {field.name: field for field in fields(loss_class) if field.init}
    given: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or key not in accepted:
            raise UsageError(
                f"--option {option!r} is not a key=value of {name}. Its options: "
                f"{', '.join(accepted)}"
            )
        if key in given:
            raise UsageError(f"--option {key} is given twice")
        given[key] = _parse_value(value)
    missing = [
        f"--option {key}=..."
        for key, field in accepted.items()
        if field.default is MISSING and key not in given
    ]
    if missing:
        raise UsageError(f"{name} needs {' and '.join(missing)}")
    try:
        return loss_class(**given)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name}: {error}") from None


def short_repr(loss: Any) -> str:
    """Return the repr of a loss without the options that have their default value."""
    options = {field.name: getattr(loss, field.name) for field in fields(loss) if field.repr}
    defaults = {field.name: field.default for field in fields(loss)}
    shown = (f"{key}={value!r}" for key, value in options.items() if value != defaults[key])
    return f"{type(loss).__name__}({', '.join(shown)})"


def _parse_value(text: str) -> int | float | str | tuple[float, ...]:
    """Return text as an int, a float or a tuple of floats if it parses as one, else as it is."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        return text
