from __future__ import annotations

import pytest

from billingwatch.lab.backlog import Look, processing_times
from billingwatch.lab.load import Outcome


def look(began: float, *waiting: str) -> Look:
    return Look(began=began, ended=began + 0.1, waiting=frozenset(waiting))


def acked(*events: tuple[str, float, float]) -> Outcome:
    ids, due, acked_at = zip(*events, strict=True)
    return Outcome(
        began=0, ended=9, cpu_seconds=0, tenants=[0] * len(ids), event_ids=list(ids), due=list(due), acked_at=list(acked_at), unacked=[],
        unposted=0, statuses={},
    )  # fmt: skip


def test_an_event_is_processed_when_a_look_after_its_acknowledgement_finds_it_gone():
    looks = [look(1.0), look(2.0, "evt_1"), look(3.0, "evt_1"), look(4.0)]

    times = processing_times(acked(("evt_1", 1.4, 1.5)), looks)

    assert times == pytest.approx([4.1 - 1.4])


def test_a_look_that_began_before_the_acknowledgement_says_nothing():
    # The event may not have been recorded yet when this look was taken.
    looks = [look(1.0), look(2.0, "evt_1"), look(3.0)]

    times = processing_times(acked(("evt_1", 0.5, 1.05)), looks)

    assert times == pytest.approx([3.1 - 0.5])


def test_an_event_that_no_look_finds_gone_has_no_time():
    assert processing_times(acked(("evt_1", 0.0, 0.5), ("evt_2", 0.0, 0.5)), [look(1.0, "evt_1")]) == pytest.approx([1.1])
