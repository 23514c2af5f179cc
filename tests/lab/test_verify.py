from __future__ import annotations

from collections import Counter

from billingwatch.lab.bodies import Target
from billingwatch.lab.fleet import Member
from billingwatch.lab.load import Outcome
from billingwatch.lab.verify import Found, Posted, check_processing, check_recording, check_waiting, gather_posted

POSTED = Posted(acked=Counter([(1, "evt_1"), (1, "evt_2"), (2, "evt_3")]), unacked={(2, "evt_4")})


def found(*stored: tuple[int, str], deliveries: int | None = None, **more: object) -> Found:
    given = {"pending": Counter(stored), "charges": Counter(stored), "dead_letters": 0} | more
    return Found(stored=Counter(stored), deliveries=len(stored) if deliveries is None else deliveries, **given)


def failed(posted: Posted, seen: Found) -> list[str]:
    return [check.name for check in check_recording(posted, seen) if not check.passed]


def test_what_is_stored_as_acknowledged_passes():
    seen = found((1, "evt_1"), (1, "evt_2"), (2, "evt_3"))

    assert failed(POSTED, seen) == []
    assert check_waiting(seen).passed


def test_an_event_in_doubt_may_be_stored():
    assert failed(POSTED, found((1, "evt_1"), (1, "evt_2"), (2, "evt_3"), (2, "evt_4"))) == []


def test_a_lost_event_fails():
    assert failed(POSTED, found((1, "evt_1"), (2, "evt_3"))) == ["every acknowledged event is stored for its tenant"]


def test_an_event_at_another_tenant_fails():
    seen = found((1, "evt_1"), (2, "evt_2"), (2, "evt_3"))

    assert failed(POSTED, seen) == ["every acknowledged event is stored for its tenant", "no event is stored for another tenant"]


def test_an_event_at_two_tenants_fails():
    seen = found((1, "evt_1"), (1, "evt_2"), (2, "evt_3"), (2, "evt_1"))

    assert failed(POSTED, seen) == ["no event is stored for another tenant", "no event is stored twice"]


def test_an_event_that_was_delivered_once_and_counted_twice_fails():
    seen = found((1, "evt_1"), (1, "evt_2"), (2, "evt_3"), deliveries=4)

    assert failed(POSTED, seen) == ["no event is stored twice"]


def test_an_event_that_does_not_wait_fails_without_processing():
    assert not check_waiting(found((1, "evt_1"), (2, "evt_3"), pending=Counter([(1, "evt_1")]))).passed


def test_an_event_that_waits_or_is_not_projected_or_dead_fails_after_processing():
    done = found((1, "evt_1"), (2, "evt_3"), pending=Counter())
    waits = found((1, "evt_1"), pending=Counter([(1, "evt_1")]))
    lost = found((1, "evt_1"), (2, "evt_3"), pending=Counter(), charges=Counter([(1, "evt_1")]))
    dead = found((1, "evt_1"), pending=Counter(), dead_letters=1)

    verdicts = [[check.passed for check in check_processing(seen)] for seen in (done, waits, lost, dead)]

    assert verdicts == [[True, True, True], [False, True, True], [True, False, True], [True, True, False]]


def test_outcomes_are_gathered_under_their_tenants():
    members = [
        Member(tenant_id=number, schema_name=name, target=Target(token="", secret=""))
        for number, name in enumerate(["one", "two"], start=1)
    ]
    outcome = Outcome(
        began=0, ended=1, cpu_seconds=0, tenants=[0, 1], event_ids=["evt_1", "evt_2"], due=[0, 0], acked_at=[1, 1], unacked=[(1, "evt_3")],
        unposted=0, statuses={},
    )  # fmt: skip

    posted = gather_posted(members, [outcome])

    assert posted.acked == Counter([(1, "evt_1"), (2, "evt_2")])
    assert posted.unacked == {(2, "evt_3")}
