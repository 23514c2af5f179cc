"""Long, wide and unordered histories: every detector evaluates all of them, and their order does not matter."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from .conftest import Json, without_event_ids

AUGUST = 1_785_751_200  # 2026-08-03T10:00:00Z
DAY = 86_400


def event(number: int, kind: str, created: int, inside: Json, **envelope: Any) -> bytes:
    made = {"id": f"evt_{number:05d}", "object": "event", "api_version": "2024-06-20", "created": created, "livemode": True, "type": kind}
    return json.dumps({**made, "data": {"object": inside}, **envelope}).encode()


def payment(number: int, created: int, **fields: Any) -> bytes:
    account = fields.pop("account", None)
    charge = {
        "id": f"ch_{number:05d}",
        "object": "charge",
        "amount": 2000,
        "amount_captured": 2000,
        "captured": True,
        "created": created,
        "currency": "usd",
        "customer": f"cus_{number}",
        "payment_intent": f"pi_{number}",
        "status": "succeeded",
        **fields,
    }
    return event(number, "charge.succeeded", created, charge, **({"account": account} if account else {}))


def dispute_after_its_charge() -> list[bytes]:
    """A dispute over 500.00, its charge and 25 usual charges days before, and 520 events that no table holds between them."""
    usual = [payment(number, AUGUST + number * 3600, amount=4000) for number in range(25)]
    charged = payment(25, AUGUST + 2 * DAY, amount=50_000, customer="cus_known")
    others = [event(100 + number, "plan.updated", AUGUST + 5 * DAY + 60 * number, {"id": "p", "object": "plan"}) for number in range(520)]
    dispute = {
        "id": "dp_1",
        "object": "dispute",
        "amount": 50_000,
        "charge": "ch_00025",
        "created": AUGUST + 12 * DAY,
        "currency": "usd",
        "evidence_details": {"due_by": AUGUST + 22 * DAY},
        "reason": "fraudulent",
        "status": "needs_response",
    }
    return [*usual, charged, *others, event(900, "charge.dispute.created", AUGUST + 12 * DAY, dispute)]


async def test_events_listed_newest_first_give_the_same_rows(replayed):
    events = dispute_after_its_charge()

    in_order = await replayed(events, name="in-order")
    newest_first = await replayed(events[::-1], name="newest-first")

    assert in_order.found() == [("dispute_opened", "critical")]
    assert in_order.anomalies()[0]["summary"].startswith("cus_known disputed")
    assert newest_first.tables == in_order.tables


async def test_newest_first_by_webhook_gives_the_same_rows(replayed, delivered):
    events = [one for one in dispute_after_its_charge() if b"plan.updated" not in one]

    assert without_event_ids(await delivered(events[::-1])) == without_event_ids(await replayed(events))


async def test_six_years_in_four_currencies_are_evaluated(replay_of):
    currencies, apart = ("usd", "eur", "gbp", "jpy"), 1_182_600
    events = [payment(number, 1_604_318_400 + number * apart, currency=currencies[number % 4]) for number in range(160)]

    done = await replay_of(events, statement_timeout=10)

    assert (done.recorded, done.behind) == (160, {})


async def test_hundred_accounts_are_evaluated(replay_of):
    events = [
        payment(100 * number + account, AUGUST + number * 151_200 + account * 60, account=f"acct_{account}")
        for number in range(40)
        for account in range(100)
    ]

    done = await replay_of(events, statement_timeout=10)

    assert (done.recorded, done.behind) == (4000, {})


async def test_detector_that_fails_is_reported_behind(replay_of, control, tenant_of):
    tenant = await tenant_of("acme")
    events = [payment(number, AUGUST + number * 3600) for number in range(12)]
    # What a detector reads is gone, so that its statement fails.
    await control.execute(f"ALTER TABLE {tenant.schema_name}.disputes RENAME COLUMN kind TO gone")

    done = await replay_of(events, tenant=tenant)

    assert "dispute_opened" in done.behind
    assert "duplicate_charge" not in done.behind
    assert done.behind["dispute_opened"] <= datetime.fromtimestamp(AUGUST, UTC) + timedelta(weeks=1)
