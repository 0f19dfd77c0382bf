"""Names for the types that no array library defines for all of them."""

from collections.abc import Callable
from typing import Any

Array = Any
Namespace = Any
Pullback = Callable[[Array], Array]
ChunkFunction = Callable[..., tuple[tuple[Any, ...], Pullback | None]]
