"""The registry of adapters, and a report of the array libraries on this machine."""

import importlib
from dataclasses import dataclass
from typing import Any, cast

from spikeloss_xp._typing import Namespace
from spikeloss_xp.backends.base import ArrayAPIAdapter, library_name

BUILT_IN = {
    "numpy": "NumPyAdapter",
    "cupy": "CuPyAdapter",
    "torch": "TorchAdapter",
    "jax": "JAXAdapter",
    "dask": "DaskAdapter",
    "dpnp": "DpnpAdapter",
    "mlx": "MLXAdapter",
    "ndonnx": "NdonnxAdapter",
}
INSTALLED_BY = {  # what to install for a library
    "cupy": "extra cuda12 or cuda13",
    "torch": "extra torch",
    "jax": "extra jax",
    "dask": "package dask[array]",
    "dpnp": "extra dpnp",
    "mlx": "extra mlx",
    "ndonnx": "package ndonnx",
}
TRACED = ("torch",)  # their compilers trace the look-up of an adapter, and cannot trace an import
ENTRY_POINTS = "spikeloss_xp.backends"

_loaded: dict[str, ArrayAPIAdapter] = {}  # by the import name of the library


def _entry_points(**selected: Any) -> Any:
    """Return the registered entry points."""
    from importlib import metadata  # imports 50 modules, which few programs need

    return metadata.entry_points(group=ENTRY_POINTS, **selected)


def adapter(library: str) -> ArrayAPIAdapter:
    """Return the adapter for an array library, given its import name; import it on first use."""
    known = _loaded.get(library)
    return known or adapter_of_namespace(adapter_class(library).namespace(library))


def adapter_of_namespace(xp: Namespace) -> ArrayAPIAdapter:
    """Return the adapter for the library of a namespace."""
    library = library_name(xp)
    if library not in _loaded:
        _loaded[library] = adapter_class(library)(xp)
    return _loaded[library]


def adapter_class(library: str) -> type[ArrayAPIAdapter]:
    """Return the built-in adapter class of a library, the registered one, or the base class."""
    if library in BUILT_IN:
        module = importlib.import_module(f"spikeloss_xp.backends._{library}")
        return cast(type[ArrayAPIAdapter], getattr(module, BUILT_IN[library]))
    for registered in _entry_points(name=library):
        kind = registered.load()
        if not (isinstance(kind, type) and issubclass(kind, ArrayAPIAdapter)):
            raise TypeError(
                f"entry point {registered.value!r} of group {ENTRY_POINTS} must be a subclass of "
                f"spikeloss_xp.backends.ArrayAPIAdapter; got {kind!r}"
            )
        return kind
    return ArrayAPIAdapter


@dataclass(frozen=True)
class BackendInfo:
    """An array library on this machine: its version and devices, or why it cannot be used.

    Attributes
    ----------
    library : str
        Its import name.
    version : str or None
        Its version; None if it cannot be imported.
    devices : tuple of str
        The names of its devices, the default one first; empty if it cannot be used.
    problem : str or None
        The library's own error message if it cannot be used, else None.
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

    This imports every library that is installed. Libraries without an adapter work as well; they
    are not listed because their names are not known.

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
    registered = _entry_points()
    libraries = [*BUILT_IN, *sorted(registered.names - set(BUILT_IN))]
    return {library: describe(library) for library in libraries}


def describe(library: str) -> BackendInfo:
    """Report one array library, whether or not it has an adapter of its own."""
    version = None
    try:
        importlib.import_module(library)
        found = adapter(library)
        version = found.version()
        return BackendInfo(library, version, tuple(found.devices()))
    except Exception as error:  # the report is the error, of any kind
        reason = str(error) or repr(error)
        return BackendInfo(library, version, problem=f"{type(error).__name__}: {reason}")


def problem_in_words(info: BackendInfo) -> str:
    """Return why a library cannot be used, and what to install if it is missing."""
    if info.problem != f"ModuleNotFoundError: No module named {info.library!r}":
        return str(info.problem)
    remedy = INSTALLED_BY.get(info.library)
    return "not installed" + (f"; {remedy}" if remedy else "")
