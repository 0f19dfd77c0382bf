"""What an adapter module provides."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from spikeloss_xp._kernels import Exponential
from spikeloss_xp._typing import Array, Evaluate, Namespace

ValueAndGrad = Callable[[Callable[[Array], Array], Array, Array | None], tuple[Array, Array]]


class Adapter(Protocol):
    """The functions of an adapter: a module that does well what the array API leaves out.

    An adapter serves one array library. A function for which its library has nothing better is
    taken over from `spikeloss_xp.backends.generic`, which serves every library without an
    adapter. A third party's adapter is found by an entry point in the group
    ``spikeloss_xp.backends`` whose name is the import name of the array library.
    """

    value_and_grad: ValueAndGrad | None
    """Differentiate a function at a floating array; None without automatic differentiation.

    Called with the function, the array and a cotangent of the shape of the function's value (or
    None, for a one). The value is detached from the graph, and the array stays as it was.
    """

    mapped: Callable[..., tuple[list[Any], Array | None]] | None
    """Call a function with one part after the other of arrays; None where a loop does as well.

    Called with a function, a tuple of arrays that it takes, nested or None, the axis that the parts
    are along, and the parts, slices as long as the first but for the last. The function returns
    what a part sums up to, and what to divide it by, and the gradient of the first of the arrays or
    None. Returns a list of such sums, each of one part or of several, and the whole gradient.
    """

    def namespace(self, library: str) -> Namespace:
        """Import the library and return its array API namespace."""

    def version(self, library: str) -> str:
        """Return the library's version."""

    def devices(self, xp: Namespace) -> list[str]:
        """Name the devices, the default one first; raise the library's own error if none works."""

    def scope(self, dtype: str) -> AbstractContextManager[object]:
        """Return the context in which arrays of `dtype` exist, for this thread only."""

    def from_host(self, xp: Namespace, values: np.ndarray, device: Any) -> Array:
        """Copy a NumPy array to `device`: one of `devices`, or what `device` returned."""

    def to_host(self, x: Array) -> np.ndarray:
        """Copy an array to NumPy, without its gradient; bfloat16 comes as float32."""

    def device(self, x: Array) -> Any:
        """Return what the library's creation functions take as ``device=`` to be where `x` is."""

    def beside(self, x: Array, like: Array) -> Array:
        """Return `x` where `like` is: itself if it is there already, and a copy otherwise."""

    def peek(self, x: Array) -> np.ndarray | None:
        """Return the values if reading them costs nothing, and None if it would.

        It would where they lie on another device, are not computed yet, or belong to a trace.
        """

    def synchronize(self, x: Array) -> None:
        """Wait until `x` has been computed."""

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function as the library's users would run it in a loop."""

    def total(self, xp: Namespace, x: Array) -> Array:
        """Sum all of an array, so that roundings do not add up in one direction."""

    def at_a_time(self, x: Array) -> int | None:
        """Return of how many entries the terms of a loss are best computed at a time.

        As many as stay in a cache, where that matters, and assignment to a part of an array works
        or there is `mapped`; None for all.
        """

    def value_of(
        self, evaluate: Evaluate, x: Array, options: dict[str, Any], held: tuple[Any, ...]
    ) -> Array:
        """Return the first of ``evaluate(x, **options)``, a value and its pullback in closed form.

        A library that differentiates automatically may take that pullback for the derivative with
        respect to `x`. The value may depend on the arrays among the options too, and on those that
        are `held`. Without a pullback it comes of ``evaluate(x, **options, differentiate=False)``.
        """

    def causal_filter(
        self, xp: Namespace, x: Array, kernel: Array | Exponential, reverse: bool, axis: int = -1
    ) -> Array:
        """Filter along an axis as `spikeloss_xp.causal_filter` says, or run the adjoint.

        The kernel is an array of taps with the dtype of `x`, or says what exponential it is, for
        which there are faster ways. The axis is the last one, -1; or, only of an exponential, the
        first of several, 0, which need not be moved then.
        """

    def moving_sum(
        self, xp: Namespace, x: Array, window: int, reverse: bool, axis: int = -1
    ) -> Array:
        """Sum the last `window` steps at each step; the next, with `reverse`.

        The axis is the last one, -1, or the first of several, 0.
        """
