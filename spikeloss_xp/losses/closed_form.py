"""Functions of spikes whose gradient is known in closed form."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from spikeloss_xp._typing import Array, Pullback


class ClosedForm(ABC):
    """A function of spikes whose gradient is known in closed form.

    A subclass that overrides `value` or ``__call__`` without `value_and_pullback` has no closed
    form: it is treated like any other function of arrays.
    """

    # Whether `value_and_pullback` belongs to the function that a call evaluates.
    has_closed_form: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        overridden = vars(cls)
        if "value_and_pullback" in overridden:
            cls.has_closed_form = True
        elif "value" in overridden or "__call__" in overridden:
            cls.has_closed_form = False

    @abstractmethod
    def value(self, input: Array, *targets: Any, **options: Any) -> Array:
        """Return the value, with operations that a library can differentiate."""

    @abstractmethod
    def value_and_pullback(
        self, input: Array, *targets: Any, **options: Any
    ) -> tuple[Array, Pullback]:
        """Return the value, and the pullback from it to `input`."""
