"""Where to evaluate, by what was asked for."""

from collections.abc import Sequence

from spikeloss_xp._consistency import Place, places
from spikeloss_xp.backends import available
from spikeloss_xp.backends._available import describe
from spikeloss_xp.cli._recording import UsageError


def chosen(
    backends: Sequence[str] | None, device: str | None, dtype: str
) -> tuple[list[Place], dict[str, str]]:
    """Return where to evaluate, and why other array libraries are not used.

    A library that was asked for by name must be usable.
    """
    infos = available() if backends is None else {name: describe(name) for name in backends}
    found: list[Place] = []
    unused: dict[str, str] = {}
    for name, info in infos.items():
        here = places(info, device)
        if not info.usable:
            unused[name] = str(info.problem)
        elif not here:
            unused[name] = f"it has no device {device!r}, only {', '.join(info.devices)}"
        elif not here[0].holds(dtype):
            unused[name] = f"it has no {dtype}"
        else:
            found += here
    if not found or (backends is not None and unused):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in unused.items())
        raise UsageError(f"cannot be evaluated there: {reasons}")
    return found, unused
