"""The checks of `bench faults`, fed with doctored results."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from billingwatch.lab.bodies import Target
from billingwatch.lab.faults.compare import Compared, compare
from billingwatch.lab.faults.found import Rows
from billingwatch.lab.faults.probe import REFUSED, UNANSWERED, Age, Poll
from billingwatch.lab.faults.readiness import Span, readiness_findings
from billingwatch.lab.faults.registry import SCENARIOS
from billingwatch.lab.faults.round import spared_findings
from billingwatch.lab.faults.row import Pace, RoundResult, row_of
from billingwatch.lab.faults.scenario import Scenario
from billingwatch.lab.faults.stream import BROKEN, CUT, Attempt, StreamEvent, twin_of
from billingwatch.lab.fleet import Member
from billingwatch.simulate.payloads import charge_event_payloads

TARGET = Target(token="", secret="")
MEMBERS = [Member(tenant_id=number, schema_name=f"tenant_{number}", target=TARGET) for number in (1, 2)]
SPAN = Span(began=10.0, ended=20.0, closed=40.0)
KILLED, STOPPED = SCENARIOS["service-killed"], SCENARIOS["postgres-stopped"]


def attempt(sent_at: float, status: int, *, seconds: float = 0.01) -> Attempt:
    return Attempt(sent_at=sent_at, answered_at=sent_at + seconds, status=status)


def event(tenant: int, event_id: str, *statuses: int, twin: str | None = None) -> StreamEvent:
    attempts = [attempt(number, status) for number, status in enumerate(statuses)]
    return StreamEvent(tenant=tenant, event_id=event_id, body=b"", twin=twin, attempts=attempts)


EVENTS = [
    event(0, "evt_1", 200),
    event(0, "evt_2", 200, twin="evt_1"),
    event(1, "evt_3", 503, 200),
]
AT = [(1, "evt_1"), (1, "evt_2"), (2, "evt_3")]


def rows(**more: Counter) -> Rows:
    given = {
        "stored": Counter(AT),
        "deliveries": Counter(AT),
        "charges": Counter(AT),
        "anomalies": Counter({AT[0]: 1, AT[1]: 1}),
        "pending": Counter(),
        "dead": 0,
    }
    return Rows(**(given | more))


def compared(**more: Counter) -> Compared:
    return compare(MEMBERS, EVENTS, rows(**more))


def result(**more: object) -> RoundResult:
    given = {"compared": compared(), "silence": 1.0, "ready": [], "notes": []}
    return RoundResult(**(given | more))


def test_rows_as_acknowledged_are_neither_lost_nor_doubled():
    found = compared()

    assert (found.acked, found.stored, found.processed) == (3, 3, 3)
    assert (found.lost, found.doubled, found.findings) == (0, 0, [])


def test_acknowledged_event_without_row_is_lost():
    assert compared(stored=Counter(AT[1:]), charges=Counter(AT[1:])).lost == 1


def test_event_in_another_tenants_rows_is_lost_and_misplaced():
    found = compared(stored=Counter([*AT[:2], (1, "evt_3")]))

    assert found.lost == 1
    assert found.findings == ["1 events are stored for another tenant"]


@pytest.mark.parametrize(
    ("table", "surplus"),
    [
        ("stored", (2, "evt_1")),  # at two tenants
        ("stored", AT[0]),
        ("charges", AT[2]),
        ("anomalies", AT[1]),
    ],
)
def test_second_row_of_an_event_is_doubled(table: str, surplus: tuple[int, str]):
    held = getattr(rows(), table)

    assert compared(**{table: held + Counter([surplus])}).doubled == 1


def test_deliveries_counted_beyond_those_sent_are_doubled():
    assert compared(deliveries=Counter([*AT, AT[2]])).doubled == 0
    assert compared(deliveries=Counter([*AT, AT[2], AT[2]])).doubled == 1


def test_event_without_charge_or_still_pending_is_not_processed():
    assert compared(charges=Counter(AT[1:])).findings == ["1 acknowledged events were not processed"]
    assert compared(pending=Counter(AT[1:])).findings == ["2 acknowledged events were not processed"]


def test_refused_event_dead_letter_and_missing_anomaly_are_findings():
    refused = compare(MEMBERS, [*EVENTS, event(1, "evt_4", 503, BROKEN)], rows())

    assert refused.findings == ["1 events were never acknowledged, also after the fault"]
    assert compared(dead=1).findings == ["1 events are dead letters"]
    assert compared(anomalies=Counter()).findings == ["1 duplicate payments have no anomaly"]


def polls(*ranges: tuple[float, float, int], seconds: float = 0.01) -> list[Poll]:
    """A poll each 0.2 s in each range, answered with its status."""
    made = []
    for began, ended, status in ranges:
        count = int((ended - began) * 5)
        made += [Poll(at=began + n * 0.2, seconds=seconds, status=status) for n in range(count)]
    return made


def flow(*ranges: tuple[float, float, int]) -> list[Attempt]:
    made = []
    for began, ended, status in ranges:
        made += [attempt(began + n * 0.1, status) for n in range(int((ended - began) * 10))]
    return made


HONEST = polls((8, 12, 200), (12, 21, 503), (21, 40, 200))
REFUSED_WHILE_STOPPED = flow((8, 10, 200), (10, 20, 503), (20, 40, 200))


def findings(
    given: list[Poll],
    *,
    sent: list[Attempt] | None = None,
    ages: list[Age] | None = None,
    scenario: Scenario = STOPPED,
) -> list[str]:
    attempts = REFUSED_WHILE_STOPPED if sent is None else sent
    return readiness_findings(scenario, SPAN, polls=given, attempts=attempts, ages=ages or [])


def test_ready_that_is_503_during_refusals_is_right():
    assert findings(HONEST) == []


def test_ready_200_during_refusals_is_a_finding():
    [found] = findings(polls((8, 40, 200)))

    assert found == "ready was 200 while every event was refused, 19 times, first at +5.2 s"


def test_ready_200_while_one_tenant_is_refused_is_right():
    mixed = sorted([*REFUSED_WHILE_STOPPED, *flow((10, 20, 200))], key=lambda each: each.sent_at)

    assert findings(polls((8, 40, 200)), sent=mixed) == []


def test_ready_200_while_deliveries_hang_is_a_finding():
    hanging = [attempt(10 + n * 0.1, 200, seconds=30) for n in range(100)]

    assert len(findings(polls((8, 40, 200)), sent=hanging)) == 1


def test_ready_200_while_events_wait_too_long_is_a_finding():
    waiting = [Age(at=at, seconds=at - 10) for at in range(10, 40)]

    found = findings(polls((8, 40, 200)), sent=flow((8, 40, 200)), ages=waiting)

    assert found == ["ready was 200 while an event had waited 16 s to be processed"]


def test_ready_without_answer_within_2_seconds_is_a_finding():
    slow = [*HONEST, Poll(at=41, seconds=2.5, status=UNANSWERED), Poll(at=44, seconds=0.01, status=200)]

    assert findings(slow) == ["ready gave no answer within 2 s, 1 times, first at +31.0 s"]


def test_refused_ready_is_right_only_while_the_process_is_away():
    away = polls((8, 10, 200), (10, 20, REFUSED), (20, 40, 200))

    assert findings(away, scenario=KILLED) == []
    assert findings(away) == ["ready was refused or cut, 50 times, first at +0.0 s"]


def test_ready_that_stays_503_after_the_fault_is_a_finding():
    [found] = findings(polls((8, 12, 200), (12, 60, 503)))

    assert found == "ready was not 200 within 20 s after the fault; 20 s passed"


def test_ready_that_turns_503_at_the_end_is_a_finding():
    assert findings([*HONEST, *polls((40, 41, 503))]) == ["ready ended with 503"]


def test_row_passes_only_without_loss_doubles_and_findings():
    slow = Pace(p50_before=0.01, p50_during=0.1, answered=1.0)
    refusing = Pace(p50_before=0.01, p50_during=0.01, answered=0.9)
    lost = msgspec.structs.replace(compared(), lost=1)
    doubled = msgspec.structs.replace(compared(), doubled=1)

    good = row_of(STOPPED, "postgres", [result(), result()])
    bad = [
        row_of(STOPPED, "postgres", [result(), one])
        for one in (
            result(compared=lost),
            result(compared=doubled),
            result(silence=15.1),
            result(ready=["ready was 200"]),
            result(notes=["the service does not start"]),
            result(pace=slow),
            result(pace=refusing),
        )
    ]

    assert (good.passed, good.rounds, good.acked) == (True, 2, 6)
    assert [row.passed for row in bad] == [False] * 7
    assert [row.ready for row in bad] == [True, True, True, False, True, True, True]


def test_spared_tenants_that_are_refused_are_a_finding():
    first, other = event(0, "evt_1", 503), event(1, "evt_2", 503)

    assert spared_findings([first, event(1, "evt_2", 200)], 0, 1) == []
    assert spared_findings([first, other], 0, 1) == ["1 of 1 deliveries of other tenants were refused"]
    assert spared_findings([first], 0, 1) != []  # nothing was measured


def test_twin_keeps_customer_and_amount_and_changes_ids():
    body, other = charge_event_payloads(2, seed=1)
    old, new = (msgspec.json.decode(each) for each in (body, other))

    twin, event_id = twin_of(body, old["id"], new["id"])

    made = msgspec.json.decode(twin)
    was, now = old["data"]["object"], made["data"]["object"]
    assert made["id"] == event_id == new["id"]
    assert all(now[name] == was[name] for name in ("customer", "amount", "created"))
    assert now["id"] != was["id"]
    assert now["payment_intent"] != was["payment_intent"]


def test_reset_by_the_sender_is_no_refusal():
    cut = [attempt(10 + n * 0.1, CUT) for n in range(100)]

    assert findings(polls((8, 40, 200)), sent=cut) == []
