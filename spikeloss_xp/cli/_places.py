"""Select the backends and devices that the command-line options name."""

from collections.abc import Sequence

from spikeloss_xp._consistency import Place, places
from spikeloss_xp.backends import available
from spikeloss_xp.backends._available import describe, problem_in_words
from spikeloss_xp.cli._recording import UsageError


def select_places(
    backends: Sequence[str] | None, device: str | None, dtype: str
) -> tuple[list[Place], dict[str, str]]:
    """Return the selected places, and why each of the other array libraries is not used.

    Every library in `backends` must be usable. If `backends` is None, any usable library will do.
    """
    infos = available() if backends is None else {name: describe(name) for name in backends}
    found: list[Place] = []
    unused: dict[str, str] = {}
    for name, info in infos.items():
        here = places(info, device)
        if not info.usable:
            unused[name] = problem_in_words(info)
        elif not here:
            unused[name] = f"it has no device {device!r}; its devices: {', '.join(info.devices)}"
        elif not here[0].holds(dtype):
            unused[name] = f"it has no {dtype}"
        else:
            found += here
    if not found or (backends is not None and unused):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in unused.items())
        raise UsageError(f"no result for {reasons}")
    return found, unused
