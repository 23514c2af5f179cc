"""One line per cause and minute, and the number of those left out."""

from __future__ import annotations

import structlog

from billingwatch.log_limit import CAUSES_LIMIT, LogLimit


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_second_line_of_a_cause_is_left_out_and_counted():
    clock = Clock()
    limit = LogLimit(seconds=60, monotonic=clock)

    with structlog.testing.capture_logs() as lines:
        for _ in range(5):
            limit.warning("ingest.delivery_refused", cause="a", reason="a")
        limit.warning("ingest.delivery_refused", cause="b", reason="b")
        clock.now += 60
        limit.warning("ingest.delivery_refused", cause="a", reason="a")

    assert [(line["reason"], line.get("suppressed")) for line in lines] == [("a", None), ("b", None), ("a", 4)]


def test_error_carries_its_traceback_once():
    limit = LogLimit()

    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            limit.error("api.webhook_failed", cause="ValueError", error=ValueError("bad"))

    assert [(line["log_level"], str(line["exc_info"])) for line in lines] == [("error", "bad")]


def test_causes_are_bounded():
    limit = LogLimit()

    with structlog.testing.capture_logs():
        for cause in range(CAUSES_LIMIT + 100):
            limit.warning("ingest.delivery_refused", cause=cause)

    assert len(limit._causes) == CAUSES_LIMIT
