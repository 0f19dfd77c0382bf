"""Functions that compare array libraries, or two runs of a network, in your own tests.

The function `assert_consistent` compares array libraries. The command ``spikeloss-xp compare``
makes the same comparison and prints the results.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spikeloss_xp._arrays import adapter_of, host_values
from spikeloss_xp._runs import compare_runs
from spikeloss_xp._tolerance import PRECISION, ROUNDINGS, distances, dtype_name, largest_finite
from spikeloss_xp._typing import Array, ArrayLike, SupportsArray
from spikeloss_xp.backends._available import adapter, available, describe
from spikeloss_xp.gradients import value_and_grad

__all__ = ["assert_consistent", "compare_runs"]


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__


HEADER = "library  device      value  value err  grad err"
ROW = "{backend:7}  {device:6}  {value:9.5g}  {value_difference:9.1e}  {gradient_difference:8.1e}"


class Rows(list[dict[str, Any]]):
    """A list with a dictionary of results for each device. The list is printed as a table."""

    def __repr__(self) -> str:
        return "\n".join([HEADER, *(ROW.format(**row) for row in self)])


def assert_consistent(
    loss: Callable[..., Array],
    input: SupportsArray,
    target: ArrayLike | None = None,
    *,
    where: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    backends: Sequence[str] | None = None,
    rtol: float | None = None,
    atol: float | None = None,
) -> Rows:
    """Check that a loss has the same value and gradient with every array library.

    Each library evaluates the loss and its gradient in the dtype of `input`. If a library has a CPU
    and several GPUs, it uses the CPU and the first GPU. The results are compared with the results
    of NumPy in float64. With ``reduction="none"``, the function compares the terms, and the
    gradient of a weighted sum of the terms. The weights are random but reproducible.

    Parameters
    ----------
    loss : callable
        A loss of this library.
    input : array
        Spikes, as an array from any library.
    target, where, lengths, weight : array or sequence, optional
        The other arguments of the loss. `SparsityEnforcer` takes no target.
    backends : sequence of str, optional
        The import names of the libraries to compare, which need not have an adapter. The default is
        every library that `spikeloss_xp.backends.available` reports as usable and that has the
        dtype of `input`.
    rtol : float, optional
        The allowed difference, relative to the largest entry of NumPy's result in float64. The
        default is 100 times the machine epsilon of the dtype used for the computation. For a
        gradient in float16 or bfloat16, the machine epsilon of this dtype is added.
    atol : float, optional
        An absolute difference that is allowed in addition to the relative difference. The default
        is the smallest positive number of the result's dtype.

    Returns
    -------
    list of dict
        A dictionary for each device, with the keys `backend`, `version`, `device`, `value`,
        `value_difference` and `gradient_difference`. Both differences are relative to the largest
        entry of NumPy's result in float64. The list is printed as a table.

    Raises
    ------
    AssertionError
        If the results of a library differ. The message gives the library, the largest difference,
        and the index of the entry with this difference.
    ValueError
        If `backends` is empty, or contains a library that cannot be used or lacks the dtype of
        `input`.
    TypeError
        If `input` is not an array.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> spikes = np.asarray([[[1, 0, 1, 1], [0, 0, 1, 0]]], dtype=np.float64)
    >>> loss = sx.SpikeMax(time_axis=-1)
    >>> sx.testing.assert_consistent(loss, spikes, [0], backends=["numpy"])
    library  device      value  value err  grad err
    numpy    cpu       0.28768    0.0e+00   0.0e+00
    """
    adapter_of(input)  # `adapter_of` raises an error unless `input` is an array
    if backends is not None and (isinstance(backends, str) or not backends):
        raise ValueError(f"backends must be a sequence of one or more names; got {backends!r}")
    host_input, dtype = host_values(input, "input"), dtype_name(input)
    targets = () if target is None else (host_values(target, "target"),)
    devices, _ = select_devices(backends, dtype)
    given = {"where": where, "lengths": lengths, "weight": weight}
    options: dict[str, Any] = {k: host_values(x, k) for k, x in given.items() if x is not None}
    if getattr(loss, "reduction", None) == "none":
        terms = loss(host_input.astype(float), *targets, **options)
        options["cotangent"] = np.random.default_rng(0).uniform(0.5, 1.5, terms.shape)
    expected = reference(loss, host_input, *targets, **options)
    options |= {"expected": expected, "rtol": rtol, "atol": atol}
    rows = Rows()
    complaints: list[str] = []
    for device in devices:
        result = compare(loss, device, host_input, dtype, *targets, **options)
        rows.append({**device.row(), **vars(result)})
        if result.problem is not None:
            complaints.append(f"{device}: {result.problem}")
    if complaints:
        raise AssertionError(
            f"{loss!r} on {dtype} spikes of shape {host_input.shape} differs from NumPy in float64"
            "\n  " + "\n  ".join(complaints)
        )
    return rows


@dataclass(frozen=True)
class Device:
    """A device on which an array library computes."""

    library: str
    version: str
    name: str

    def __str__(self) -> str:
        return f"{self.library} {self.version} on {self.name}"

    def row(self) -> dict[str, str]:
        """Return the entries that identify the device in a row of results."""
        return {"backend": self.library, "version": self.version, "device": self.name}

    def put(self, values: np.ndarray, dtype: str | None = None) -> Any:
        """Copy a NumPy array to this device and convert the copy to `dtype`.

        Call this method inside the adapter's `scope` for `dtype`.
        """
        library = adapter(self.library)
        array = library.from_host(values, self.name)
        if dtype is None:
            return array
        return library.xp.astype(array, getattr(library.xp, dtype))


def select_devices(
    backends: Sequence[str] | None, dtype: str, wanted: str | None = None
) -> tuple[list[Device], dict[str, str]]:
    """Return the devices to compare and, for each library that is left out, the reason.

    For each library, the result holds its first CPU, its first GPU, and so on. If `wanted` is the
    name or the kind of a device, all other devices are left out.
    """
    infos = available() if backends is None else {name: describe(name) for name in backends}
    selected: list[Device] = []
    unused: dict[str, str] = {}
    for library, info in infos.items():
        names = _first_of_each_kind(info.devices, wanted)
        if not info.usable:
            unused[library] = str(info.problem)
        elif not names:
            present = ", ".join(info.devices)
            unused[library] = f"it has no device {wanted!r}; its devices: {present}"
        elif not hasattr(adapter(library).xp, dtype):
            unused[library] = f"it has no {dtype}"
        else:
            selected += [Device(library, str(info.version), name) for name in names]
    if not selected or (backends is not None and unused):
        reasons = "; ".join(f"{library}: {reason}" for library, reason in unused.items())
        raise ValueError(f"cannot use {reasons}")
    return selected, unused


def _first_of_each_kind(names: Iterable[str], wanted: str | None) -> list[str]:
    """Return the first device of each kind, from the devices that `wanted` allows."""
    first: dict[str, str] = {}
    for name in names:
        kind = name.rpartition(":")[0] or name  # "cuda" for "cuda:1"
        if wanted in (None, name, *kind.split(":")):
            first.setdefault(kind, name)
    return list(first.values())


@dataclass(frozen=True)
class Comparison:
    """The value of a loss on one device, and how far it and its gradient are from NumPy's results.

    The differences are relative to the largest entry of NumPy's result. `problem` describes the
    differences that exceed the tolerance. If an error was raised, `problem` contains its message.
    """

    value: float = math.nan
    value_difference: float = math.nan
    gradient_difference: float = math.nan
    problem: str | None = None


def reference(
    loss: Callable[..., Any], input: np.ndarray, *targets: np.ndarray, **options: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the value and gradient that NumPy computes in float64."""
    widened = [t.astype(np.float64) if t.dtype.kind == "f" else t for t in targets]
    value, gradient = value_and_grad(loss)(input.astype(np.float64), *widened, **options)
    return np.asarray(value), gradient


def compare(
    loss: Callable[..., Any],
    device: Device,
    input: np.ndarray,
    dtype: str,
    /,
    *targets: np.ndarray,
    expected: tuple[np.ndarray, np.ndarray],
    rtol: float | None = None,
    atol: float | None = None,
    **options: np.ndarray,
) -> Comparison:
    """Evaluate a loss on one device and compare the value and gradient with the reference.

    A 16-bit gradient is rounded once more at the end, so the tolerance includes the machine epsilon
    of its dtype. To allow for underflow, the tolerance also includes the smallest positive number
    of the dtype.
    """
    library = adapter(device.library)
    with library.scope(dtype):
        arrays = [device.put(input, dtype), *map(device.put, targets)]
        keywords = {name: device.put(option) for name, option in options.items()}
        results = library.compiled(value_and_grad(loss))(*arrays, **keywords)
        found = [library.to_host(x).astype(np.float64) for x in results]
    epsilon, _ = PRECISION[dtype_name(results[0])]
    differences: dict[str, float] = {}
    problems: list[str] = []
    for name, x, got, right in zip(("value", "gradient"), results, found, expected, strict=True):
        own_epsilon, smallest = PRECISION[dtype_name(x)]
        allowed = ROUNDINGS * epsilon + (own_epsilon if own_epsilon != epsilon else 0.0)
        tolerances = allowed if rtol is None else rtol, smallest if atol is None else atol
        differences[f"{name}_difference"], problem = _difference(got, right, *tolerances)
        if problem is not None:
            problems.append(f"the {name} {problem}")
    return Comparison(float(found[0].sum()), **differences, problem="; ".join(problems) or None)


def _difference(
    got: np.ndarray, expected: np.ndarray, rtol: float, atol: float
) -> tuple[float, str | None]:
    """Return the largest difference, relative to the largest expected entry, and a description."""
    if got.shape != expected.shape:
        return math.inf, f"has shape {got.shape} instead of {expected.shape}"
    distance = distances(got, expected)
    where = np.unravel_index(np.argmax(distance), distance.shape)
    scale = largest_finite(expected)
    largest, allowed = float(distance[where]), atol + rtol * scale
    relative, most = (x / scale if scale else x and math.inf for x in (largest, allowed))
    if largest <= allowed:
        return relative, None
    entry = f" at {[int(i) for i in where]}" if where else ""
    return relative, (
        f"is {float(got[where])!r}{entry} instead of {float(expected[where])!r}, a difference of "
        f"{relative:.2g} relative to the largest entry, of which {most:.2g} is allowed"
    )
