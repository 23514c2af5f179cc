"""Log lines that a stranger can cause: one per cause and minute, with the number of lines left out before it."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

import structlog

log = structlog.get_logger()

SECONDS = 60.0  # between two lines with the same cause
CAUSES_LIMIT = 10_000  # causes remembered; the one whose last line is oldest is dropped first


class LogLimit:
    """Write the first `lines` of each cause, then count the others until `seconds` have passed since the first."""

    def __init__(self, *, lines: int = 1, seconds: float = SECONDS, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._lines = lines
        self._seconds = seconds
        self._monotonic = monotonic
        self._causes: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()

    def warning(self, event: str, *, cause: Hashable, **facts: object) -> None:
        """Log `event` as a warning with `facts`, unless a line of the same cause is less than `seconds` old."""
        suppressed = self._suppressed(cause)
        if suppressed is not None:
            log.warning(event, **facts, **({"suppressed": suppressed} if suppressed else {}))

    def error(self, event: str, *, cause: Hashable, error: BaseException, **facts: object) -> None:
        """Log `event` as an error with the traceback of `error`, under the same limit."""
        suppressed = self._suppressed(cause)
        if suppressed is not None:
            log.error(event, exc_info=error, **facts, **({"suppressed": suppressed} if suppressed else {}))

    def _suppressed(self, cause: Hashable) -> int | None:
        """Return how many lines were left out since the last one, or None when this one is left out too."""
        now = self._monotonic()
        began, count = self._causes.get(cause, (float("-inf"), 0))
        if now - began < self._seconds:
            self._causes[cause] = (began, count + 1)
            return 0 if count < self._lines else None
        count = max(0, count - self._lines)
        self._causes[cause] = (now, 1)
        self._causes.move_to_end(cause)
        if len(self._causes) > CAUSES_LIMIT:
            self._causes.popitem(last=False)
        return count
