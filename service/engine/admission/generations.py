"""Whether texts may wait until those of other requests have ended, or are refused at once."""

import time
from collections.abc import Sequence
from statistics import median

from service.engine.context import RequestContext
from service.engine.limits import Limits
from service.errors import EkibenError


def check_room(
    num_rows: int, num_ahead: int, durations_s: Sequence[float], limits: Limits, context: RequestContext
) -> None:
    """Raise EkibenError overloaded if rows with so many ahead of them would hardly end before their deadline.

    `durations_s` are those of recent rows, from start to end. Rows that find no others are always admitted.
    """
    num_over = num_rows + num_ahead - limits.max_generations
    if not num_ahead or num_over <= 0:
        return
    median_s = median(durations_s) if durations_s else 0.0
    # Places become free one after the other, all of them in the time of one row.
    wait_s = median_s * num_over / limits.max_generations
    if num_over > limits.max_queue_items or wait_s + median_s > context.deadline - time.monotonic():
        detail = f"{num_ahead} texts are being generated or wait; the maximum at a time is {limits.max_generations}"
        raise EkibenError("overloaded", detail, retry_after_s=max(wait_s, 1.0))
