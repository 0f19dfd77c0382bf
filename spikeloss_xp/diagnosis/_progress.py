"""What some training has changed since an earlier report.

Before training, nothing in a report separates networks that will learn from those that will fail.
After about 100 updates, the batch itself does. The limits were chosen in training experiments.
"""

import math
from typing import Any

from spikeloss_xp import _checks
from spikeloss_xp.diagnosis import _spikes
from spikeloss_xp.diagnosis._report import SINCE, Layer, Observations, Report, enough

LEAST = 0.2  # the share of the way that a batch must have covered
NEAR = 0.1  # a loss is near that of a constant answer if it differs by at most this share
MOVED = 0.003  # if no constant answer is known, the loss must have fallen by at least this share


def numbers_of(earlier: Report | float | None, updates: int) -> dict[str, Any]:
    """Return the earlier loss and the number of updates, if there is an earlier report."""
    updates = _checks.count(updates, "updates")
    if earlier is None:
        return {}
    before = earlier.numbers.get("loss") if isinstance(earlier, Report) else earlier
    return {SINCE: (None if before is None else _checks.real(before, "earlier"), updates)}


def findings_of(numbers: dict[str, Any], loss: Any, call: Any, layers: list[Layer]) -> Observations:
    """Yield the findings about a batch that some training should have changed."""
    now, (before, updates) = call.value, numbers.get(SINCE, (None, 0))
    if before is None or now is None:
        return
    if not math.isfinite(now):
        yield "diverged", f"the loss is {now:.4g}, and was {before:.4g} {updates} updates before"
    elif enough(numbers) and not call.learned:
        if call.has_labels and getattr(loss, "readout", "") != "latency":
            yield from _spikes.quiet_outputs(layers)
        if not _has_moved(before, call):
            yield "not-moved", _in_words(before, updates, call)


def _has_moved(before: float, call: Any) -> bool:
    """Return whether the predictions or the loss have covered enough of the way.

    For classes, this is the way from chance to an accuracy of 1. Otherwise, a loss that is near the
    loss of a constant answer has not moved. A larger loss must have covered a part of the way from
    the earlier loss to the loss of the constant answer.
    """
    if call.progress is not None:
        return not call.progress < LEAST  # NaN is no verdict
    fallen, constant = before - call.value, call.constant
    if constant is None or not math.isfinite(before):
        return not fallen < MOVED * abs(before)
    if abs(call.value - constant) <= NEAR * abs(constant):
        return False
    return bool(call.value < constant or fallen >= LEAST * (before - constant))


def _in_words(before: float, updates: int, call: Any) -> str:
    if call.progress is not None:
        way = f"{max(call.progress, 0):.0%} of the way from chance to 100%"
        return f"after {updates} updates, the accuracy has covered {way}"
    constant = "" if call.constant is None else f"; a constant answer has {call.constant:.4g}"
    return f"after {updates} updates, the loss is {call.value:.4g}, and was {before:.4g}{constant}"
