"""Which adapter serves a library, and which libraries can be used here."""

import importlib
import importlib.metadata
from dataclasses import dataclass
from types import ModuleType
from typing import cast

from spikeloss_xp.backends._protocol import Adapter

BUILT_IN = ("numpy", "cupy", "torch", "jax", "dask")
ENTRY_POINTS = "spikeloss_xp.backends"

_loaded: dict[str, Adapter] = {}  # a cache of modules, which Python keeps one of anyway


def adapter(library: str) -> Adapter:
    """Return the adapter for an array library, given its import name; import it when first asked.

    A library with neither a built-in adapter nor a registered one gets the generic one.
    """
    found = _loaded.get(library)
    if found is None:
        found = _loaded[library] = _load(library)
    return found


def _load(library: str) -> Adapter:
    module: ModuleType
    if library in BUILT_IN:
        module = importlib.import_module(f"spikeloss_xp.backends._{library}")
    elif registered := importlib.metadata.entry_points(group=ENTRY_POINTS, name=library):
        module = next(iter(registered)).load()
    else:
        module = importlib.import_module("spikeloss_xp.backends.generic")
    return cast(Adapter, module)


@dataclass(frozen=True)
class BackendInfo:
    """What is known of one array library on this machine.

    Attributes
    ----------
    library : str
        Its import name.
    version : str or None
        Its version; None where it cannot be imported.
    devices : tuple of str
        The names of its devices, the default one first; empty where it cannot be used.
    problem : str or None
        Why it cannot be used, in the library's own words; None where it can.
    """

    library: str
    version: str | None = None
    devices: tuple[str, ...] = ()
    problem: str | None = None

    @property
    def usable(self) -> bool:
        """Whether losses can be evaluated with it."""
        return self.problem is None


def available() -> dict[str, BackendInfo]:
    """Report the array libraries with an adapter: version, devices, or why one cannot be used.

    This imports every library that is installed. Libraries without an adapter of their own work
    as well, and are not listed because nobody has named them.

    Returns
    -------
    dict of str to BackendInfo
        By import name: the built-in adapters, then the registered ones.

    Examples
    --------
    >>> import spikeloss_xp as sx
    >>> sx.backends.available()["numpy"].devices
    ('cpu',)
    """
    registered = importlib.metadata.entry_points(group=ENTRY_POINTS)
    libraries = [*BUILT_IN, *sorted(registered.names - set(BUILT_IN))]
    return {library: describe(library) for library in libraries}


def describe(library: str) -> BackendInfo:
    """Report one array library, whether or not it has an adapter of its own."""
    version = None
    try:
        importlib.import_module(library)
        found = adapter(library)
        version = found.version(library)
        devices = tuple(found.devices(found.namespace(library)))
    except Exception as error:  # whatever stops a library is what there is to report
        reason = str(error) or repr(error)
        return BackendInfo(library, version, problem=f"{type(error).__name__}: {reason}")
    return BackendInfo(library, version, devices)
