"""A loss, by its name and its hyper-parameters as they are typed."""

from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any

from spikeloss_xp.cli._recording import UsageError
from spikeloss_xp.losses import SparsityEnforcer, SpikeMax, SpikeMoid, SpikeRate, SpikeTime

CLASSES = (SpikeTime, SpikeRate, SpikeMax, SpikeMoid, SparsityEnforcer)
LOSSES = tuple(loss.__name__ for loss in CLASSES)


def made(name: str, options: Sequence[str]) -> Any:
    """Return the loss of this name, with options given as ``key=value``."""
    loss: Any = CLASSES[LOSSES.index(name)]
    known = {field.name: field for field in fields(loss) if field.init}
    given: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or key not in known:
            raise UsageError(
                f"--option {option!r} is not a key=value of {name}, which has {', '.join(known)}"
            )
        if key in given:
            raise UsageError(f"--option {key} is given twice")
        given[key] = _value(value)
    lacking = [
        f"--option {key}=..."
        for key, field in known.items()
        if field.default is MISSING and key not in given
    ]
    if lacking:
        raise UsageError(f"{name} needs {' and '.join(lacking)}")
    try:
        return loss(**given)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name}: {error}") from None
    except MemoryError:
        raise UsageError(
            f"{name}: there is not enough memory for a loss with these options"
        ) from None


def short(loss: Any) -> str:
    """Return how a loss is made, less the options that are as they always are."""
    options = {field.name: getattr(loss, field.name) for field in fields(loss) if field.repr}
    default = {field.name: field.default for field in fields(loss)}
    said = (f"{key}={value!r}" for key, value in options.items() if value != default[key])
    return f"{type(loss).__name__}({', '.join(said)})"


def _value(text: str) -> int | float | str | tuple[float, ...]:
    """Return an integer, a number, several numbers, or else a string."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        return text
