"""Judge whether training has improved the loss or the accuracy since an earlier report.

The loss or the accuracy on the same batch predicts only after about 100 updates whether a network
will learn.
"""

import math
from typing import Any

from spikeloss_xp import _checks
from spikeloss_xp.diagnosis import _spikes
from spikeloss_xp.diagnosis._report import SINCE, Layer, Observations, Report, enough

# A constant output is the same for all samples.
LEAST = 0.2  # the loss or accuracy must have covered this fraction of the way to its goal
NEAR = 0.1  # a loss within this relative difference is near the loss of a constant output
MOVED = 0.003  # the relative fall that is enough if the loss of a constant output is unknown


def numbers_of(earlier: Report | float | None, updates: int) -> dict[str, Any]:
    """Return the earlier loss and the number of updates since then, as one entry of a dict."""
    updates = _checks.count(updates, "updates")
    if earlier is None:
        return {}
    before = earlier.numbers.get("loss") if isinstance(earlier, Report) else earlier
    return {SINCE: (None if before is None else _checks.real(before, "earlier"), updates)}


def findings_of(numbers: dict[str, Any], loss: Any, call: Any, layers: list[Layer]) -> Observations:
    """Yield findings if training has made the loss NaN or infinite, or has not improved it enough.

    `numbers` is the result of `numbers_of`.
    """
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
    """Return whether training has improved the loss or the accuracy enough.

    The docstring of `diagnose` describes the rules.
    """
    if call.progress is not None:
        return not call.progress < LEAST  # `progress` may be NaN
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
