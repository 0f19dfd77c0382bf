"""The registry of adapters, and a report on the array libraries on this machine."""

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
TRACED = ("torch",)  # PyTorch's compiler cannot trace the import of an adapter
ENTRY_POINTS = "spikeloss_xp.backends"

_loaded: dict[str, ArrayAPIAdapter] = {}  # the keys are import names


def _entry_points(**selected: Any) -> Any:
    """Return the entry points under which other packages have registered their adapters."""
    from importlib import metadata  # this import is slow

    return metadata.entry_points(group=ENTRY_POINTS, **selected)


def adapter(library: str) -> ArrayAPIAdapter:
    """Return the adapter for a library, given the import name of the library.

    The first call for a library imports both the library and its adapter.
    """
    known = _loaded.get(library)
    return known or adapter_of_namespace(adapter_class(library).namespace(library))


def adapter_of_namespace(xp: Namespace) -> ArrayAPIAdapter:
    """Return the adapter for the library that a namespace belongs to."""
    library = library_name(xp)
    if library not in _loaded:
        _loaded[library] = adapter_class(library)(xp)
    return _loaded[library]


def adapter_class(library: str) -> type[ArrayAPIAdapter]:
    """Return the adapter class for a library, given the import name of the library."""
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
    """The version and devices of an array library, or the reason why it cannot be used.

    Attributes
    ----------
    library : str
        The import name of the library.
    version : str or None
        The version of the library, or None if the library cannot be imported.
    devices : tuple of str
        The names of the devices, beginning with the default device. The tuple is empty if the
        library cannot be used.
    problem : str or None
        The library's own error message if the library cannot be used, otherwise None.

    Examples
    --------
    >>> import spikeloss_xp as sx
    >>> info = sx.backends.available()["numpy"]
    >>> info.library, info.usable, info.problem
    ('numpy', True, None)
    """

    library: str
    version: str | None = None
    devices: tuple[str, ...] = ()
    problem: str | None = None

    @property
    def usable(self) -> bool:
        """Whether losses can be computed with this library on this machine."""
        return self.problem is None


def available() -> dict[str, BackendInfo]:
    """Return a report on each array library that has an adapter.

    This function imports every installed library that has an adapter. Many libraries without an
    adapter work too, but they are not reported.

    Returns
    -------
    dict of str to BackendInfo
        The reports, keyed by the import name of the library. Libraries with a built-in adapter come
        first.

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
    """Return a report on one array library, which need not have an adapter."""
    version = None
    try:
        importlib.import_module(library)
        found = adapter(library)
        version = found.version()
        return BackendInfo(library, version, tuple(found.devices()))
    except Exception as error:
        reason = str(error) or repr(error)
        return BackendInfo(library, version, problem=f"{type(error).__name__}: {reason}")
