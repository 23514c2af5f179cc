from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from billingwatch.billing.rows import Charge
from billingwatch.billing.store import Change, project
from billingwatch.detection import engine
from billingwatch.detection.detectors.charge_failure_spike import ChargeFailureSpike
from billingwatch.detection.outcome import DetectionOutcome
from billingwatch.detection.store import acknowledge, mark_false_positive, resolve
from billingwatch.postgres.connections import TenantConnection

from .history import DAY, LATER, NOON, History, at, charge, dispute, failed, invoice, subscription, unpaid

QUICK = {"charge_failure_spike": ChargeFailureSpike(window_minutes=10, min_attempts=5, min_failures=3, min_strength=2)}
NOTHING = ((), (), ())


def failing(name: str, start: float, *, count: int = 6) -> list[Charge]:
    """With QUICK, anomalous from the fifth minute on."""
    return [failed(f"{name}_{i}", start + i) for i in range(count)]


def done(outcome: DetectionOutcome) -> tuple[object, object, object]:
    return outcome.opened, outcome.updated, outcome.resolved


class Counting:
    """A connection that counts what it is asked."""

    def __init__(self, tenant: TenantConnection) -> None:
        self.tenant = tenant
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        self.asked += 1
        return getattr(self.tenant, name)


def change(table: str, key: str, minutes: float, *, columns: frozenset[str] | None = None) -> Change:
    return Change(table=table, key=key, created_at=at(minutes), inserted=columns is None, columns=columns or frozenset())


async def test_a_visit_without_watched_changes_asks_nothing(tenant_connection: TenantConnection):
    counting = Counting(tenant_connection)
    changes = [change("customers", "cus_1", 0), change("charges", "ch_a", 0, columns=frozenset({"disputed"}))]

    outcome = await engine.detect(counting, changes, as_of=LATER)

    assert (done(outcome), outcome.settle_at, counting.asked) == (NOTHING, None, 0)


async def test_an_ordinary_charge_costs_one_question(history: History, tenant_connection: TenantConnection):
    await history.see(*(charge(f"s_{i}", i) for i in range(50)))
    counting = Counting(tenant_connection)

    await engine.detect(counting, [change("charges", "ch_s_49", 49)], as_of=LATER)

    assert counting.asked == 1


async def test_seeing_the_same_again_changes_nothing(history: History):
    rows = [charge("a", 0, customer_id="cus_1"), charge("b", 1, customer_id="cus_1"), invoice("a", 0, total=-100)]
    await history.see(*rows)
    before = await history.anomalies()
    repeated = [change("charges", "ch_b", 1), change("invoices", "in_a", 0)]

    outcome = await engine.detect(history.tenant, repeated, as_of=LATER + timedelta(days=1))

    assert done(outcome) == NOTHING
    assert await history.anomalies() == before


async def test_the_outcome_names_what_was_opened_updated_and_resolved(history: History):
    opened = await history.see(charge("a", 0, customer_id="cus_1"), charge("b", 1, customer_id="cus_1"))
    updated = await history.see(charge("c", 2, customer_id="cus_1"))
    resolved = await history.see(
        *(charge(key, minute, customer_id="cus_1", amount_refunded=1000, snapshot=2, updated=9) for key, minute in (("a", 0), ("b", 1)))
    )

    (first,), (second,), (third,) = opened.opened, updated.updated, resolved.resolved
    assert first.anomaly_id == second.anomaly_id == third.anomaly_id
    assert [each.severity for each in (first, second, third)] == ["warning", "critical", "critical"]
    assert [each.status for each in (first, second, third)] == ["open", "open", "resolved"]


async def test_a_spike_that_goes_on_is_one_anomaly_however_many_visits(history: History):
    history.thresholds = QUICK
    for row in failing("a", 0, count=30):
        await history.see(row, as_of=row.created_at)

    anomaly = await history.anomaly()
    assert (anomaly.opened_at, anomaly.last_seen_at, anomaly.status) == (at(4), at(29), "open")
    assert anomaly.detected_at == at(4)


async def test_an_anomaly_that_was_over_opens_again_when_late_events_continue_it(history: History):
    history.thresholds = QUICK
    await history.see(*failing("a", 0), as_of=at(6))
    await history.settle(as_of=at(15))
    over = await history.anomaly()

    outcome = await history.see(*failing("b", 6), as_of=at(16))

    anomaly = await history.anomaly()
    assert (over.status, anomaly.status, anomaly.anomaly_id) == ("resolved", "open", over.anomaly_id)
    assert [finding.anomaly_id for finding in outcome.opened] == [over.anomaly_id]
    assert outcome.settle_at == at(21)


async def test_history_replayed_much_later_is_recorded_as_over(history: History):
    history.thresholds = QUICK

    outcome = await history.see(*failing("a", 0))

    assert [(finding.status, finding.resolution) for finding in outcome.opened] == [("resolved", "automatic")]
    assert outcome.settle_at is None
    assert (await history.anomaly()).resolved_at == at(15)


async def test_an_earlier_row_arriving_late_moves_the_beginning_and_keeps_the_anomaly(history: History):
    history.thresholds = QUICK
    await history.see(*failing("a", 0))
    before = await history.anomaly()

    outcome = await history.see(failed("late", 0.5))

    after = await history.anomaly()
    assert [finding.anomaly_id for finding in outcome.updated] == [before.anomaly_id] == [after.anomaly_id]
    assert (before.opened_at, after.opened_at) == (at(4), at(3))
    assert before.fingerprint != after.fingerprint


async def test_two_spikes_that_late_events_join_become_the_earlier_one(history: History):
    history.thresholds = QUICK
    await history.see(*failing("a", 0), *failing("b", 17))
    first, second = await history.anomalies()

    outcome = await history.see(*failing("between", 8))

    assert (await history.anomaly()).anomaly_id == first.anomaly_id
    assert [(finding.anomaly_id, finding.resolution) for finding in outcome.resolved] == [(second.anomaly_id, "retracted")]


async def test_a_spike_that_late_events_split_keeps_its_first_part(history: History):
    history.thresholds = QUICK
    await history.see(*failing("a", 0), *failing("between", 8), *failing("b", 17))
    whole = await history.anomaly()

    first_attempts = [failed(f"first_{i}", -DAY - i * 15, payment_id=f"pi_between_{i}") for i in range(6)]
    await history.see(*first_attempts)

    parts = await history.anomalies()
    assert [part.anomaly_id == whole.anomaly_id for part in parts] == [True, False]


async def test_two_changes_of_one_visit_that_begin_and_continue_an_incident_make_one(history: History):
    charges = {"a": (0, "pending"), "b": (9, "succeeded"), "c": (18, "pending")}
    await history.see(*(charge(key, minute, customer_id="cus_1", status=status) for key, (minute, status) in charges.items()))

    await history.see(*(charge(key, charges[key][0], customer_id="cus_1", snapshot=2) for key in ("a", "c")))

    anomaly = await history.anomaly()
    assert (anomaly.opened_at, anomaly.last_seen_at) == (at(9), at(18))


async def test_a_retracted_anomaly_that_comes_back_is_the_same(history: History):
    await history.see(invoice("a", 0, total=-100))
    first = await history.anomaly()
    retracted = await history.see(invoice("a", 0, total=100, snapshot=2))
    back = await history.see(invoice("a", 0, total=-100, snapshot=3))

    assert [finding.resolution for finding in retracted.resolved] == ["retracted"]
    assert [finding.anomaly_id for finding in back.opened] == [first.anomaly_id]
    assert (await history.anomaly()).status == "open"


async def test_an_anomaly_takes_the_fingerprint_back_that_a_retracted_one_holds(history: History):
    history.thresholds = QUICK
    await history.see(*failing("a", 0), *failing("b", 17))
    _, second = await history.anomalies()
    await history.see(*failing("between", 8))

    # What joined the two, and the first itself, turn out to be retries.
    payments = [f"pi_{name}_{i}" for name in ("a", "between") for i in range(6)]
    await history.see(*(failed(f"first_{i}", -DAY - i * 15, payment_id=payment) for i, payment in enumerate(payments)))

    anomaly = await history.anomaly()
    assert (anomaly.anomaly_id, anomaly.fingerprint) == (second.anomaly_id, second.fingerprint)


async def test_an_acknowledged_anomaly_stays_so_while_it_grows_and_after_it_opens_again(history: History):
    history.thresholds = QUICK
    await history.see(*failing("a", 0), as_of=at(6))
    await acknowledge(history.tenant, (await history.anomaly()).anomaly_id, reason="looking", as_of=at(7))

    await history.see(*failing("b", 8), as_of=at(14))
    grown = await history.anomaly()
    await history.settle(as_of=at(23))
    over = await history.anomaly()
    await history.see(*failing("c", 15), as_of=at(24))
    again = await history.anomaly()

    assert [each.status for each in (grown, over, again)] == ["acknowledged", "resolved", "acknowledged"]
    assert {each.reason for each in (grown, over, again)} == {"looking"}


@pytest.mark.parametrize("close", [resolve, mark_false_positive])
async def test_what_a_person_closed_stays_closed_while_its_numbers_go_on(history: History, close: Any):
    history.thresholds = QUICK
    await history.see(*failing("a", 0), as_of=at(6))
    closed = await close(history.tenant, (await history.anomaly()).anomaly_id, reason="known", as_of=at(7))

    outcome = await history.see(*failing("b", 6), as_of=at(12))
    await history.settle(as_of=LATER)

    after = await history.anomaly()
    assert [finding.anomaly_id for finding in outcome.updated] == [closed.anomaly_id]
    assert (after.status, after.resolution, after.resolved_at, after.reason) == (
        closed.status,
        closed.resolution,
        closed.resolved_at,
        "known",
    )
    assert after.last_seen_at == at(11)


@pytest.mark.parametrize("close", [resolve, mark_false_positive])
async def test_what_a_person_closed_stays_even_if_history_no_longer_shows_it(history: History, close: Any):
    await history.see(invoice("a", 0, total=-100))
    closed = await close(history.tenant, (await history.anomaly()).anomaly_id, reason="known", as_of=at(7))

    outcome = await history.see(invoice("a", 0, total=100, snapshot=2))

    assert done(outcome) == NOTHING
    assert await history.anomaly() == closed


async def test_what_a_person_closed_stays_closed_when_it_is_refunded_too(history: History):
    await history.see(charge("a", 0, customer_id="cus_1"), charge("b", 1, customer_id="cus_1"))
    await mark_false_positive(history.tenant, (await history.anomaly()).anomaly_id, reason=None, as_of=at(2))

    await history.see(charge("b", 1, customer_id="cus_1", amount_refunded=1000, snapshot=2, updated=3))

    assert (await history.anomaly()).status == "false_positive"


async def test_another_incident_of_the_same_subject_is_another_anomaly(history: History):
    await history.see(charge("a", 0, customer_id="cus_1"), charge("b", 1, customer_id="cus_1"))
    await mark_false_positive(history.tenant, (await history.anomaly()).anomaly_id, reason=None, as_of=at(2))

    await history.see(charge("c", DAY, customer_id="cus_1"), charge("d", DAY + 1, customer_id="cus_1"))

    assert [anomaly.status for anomaly in await history.anomalies()] == ["false_positive", "open"]


async def test_a_change_long_ago_and_one_now_do_not_drag_in_what_lies_between(history: History, monkeypatch: pytest.MonkeyPatch):
    await history.see(*(charge(f"{day}_{i}", day * DAY + i, customer_id="cus_1") for day in range(30) for i in range(2)))
    locked: list[tuple[datetime, datetime]] = []
    lock = engine.lock_anomalies

    async def spy(*arguments: Any, since: datetime, until: datetime) -> Any:
        locked.append((since, until))
        return await lock(*arguments, since=since, until=until)

    monkeypatch.setattr(engine, "lock_anomalies", spy)
    await history.see(
        *(charge(f"{day}_1", day * DAY + 1, customer_id="cus_1", amount_refunded=1000, snapshot=2, updated=40 * DAY) for day in (0, 29))
    )

    assert [until - since < timedelta(hours=1) for since, until in locked] == [True, True]
    assert [anomaly.status for anomaly in await history.anomalies()] == ["resolved", *["open"] * 28, "resolved"]


async def test_settling_ends_only_what_time_ends(history: History):
    history.thresholds = QUICK
    await history.see(*failing("a", 0), charge("x", 0, customer_id="cus_1"), charge("y", 1, customer_id="cus_1"), as_of=at(6))

    outcome = await history.settle(as_of=LATER)

    assert [finding.detector for finding in outcome.resolved] == ["charge_failure_spike"]
    assert (await history.anomalies("duplicate_charge"))[0].status == "open"


async def test_settling_says_when_the_next_is_due(history: History):
    history.thresholds = QUICK
    await history.see(*failing("a", 0), *failing("b", 100), as_of=at(106))
    first = await history.see(*failing("c", 30), as_of=at(36))

    outcome = await history.settle(as_of=at(45))

    assert first.settle_at == at(45)
    assert outcome.settle_at == at(115)


async def test_objects_dated_at_the_end_of_time_do_no_harm(history: History):
    end_of_time = (datetime.max.replace(tzinfo=NOON.tzinfo) - NOON).total_seconds() / 60 - 1

    await history.see(
        charge("a", end_of_time),
        failed("b", end_of_time),
        dispute("a", end_of_time, evidence_due_at=at(end_of_time)),
        invoice("a", end_of_time - 60, total=-1),
        unpaid("b", end_of_time - 60),
        *(subscription("a", end_of_time - 60, snapshot=number, updated=end_of_time - 60 + number, mrr=1000 // number) for number in (1, 2)),
    )

    found = {anomaly.detector for anomaly in await history.anomalies()}
    assert found == {"dispute_opened", "negative_invoice", "payment_recovery", "plan_downgrade"}


async def test_what_was_replayed_stays_history_when_something_beside_it_is_judged(history: History):
    changes = await project(history.tenant, [charge("a", 0, customer_id="cus_1"), charge("b", 1, customer_id="cus_1")])
    await engine.detect(history.tenant, changes, as_of=at(5), replayed=True)

    beside = await history.see(charge("c", 3, customer_id="cus_2"), charge("d", 4, customer_id="cus_2"), as_of=at(6))
    apart = {anomaly.subject.split()[0]: anomaly.historical for anomaly in await history.anomalies()}
    goes_on = await history.see(charge("e", 5, customer_id="cus_1"), as_of=at(7))

    assert apart == {"cus_1": True, "cus_2": False}
    assert ([finding.historical for finding in beside.opened], beside.updated) == ([False], ())
    assert [finding.historical for finding in goes_on.updated] == [False]
