"""From an anomaly to Stripe's dashboard and to the rows behind it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import asyncpg
import pytest

from billingwatch.detection.links import DASHBOARD, LINKS_LIMIT, links_of, statement_of
from billingwatch.detection.store import Anomaly

from .history import History, at, charge, dispute, invoice, refund


def anomaly(*, subject: str = "in_1", event_ids: list[str] | None = None, **objects: Any) -> Anomaly:
    return Anomaly(
        anomaly_id=UUID(int=1),
        detector="negative_invoice",
        subject=subject,
        fingerprint="f",
        status="open",
        severity="warning",
        summary="It is.",
        opened_at=at(0),
        last_seen_at=at(5),
        resolved_at=None,
        resolution=None,
        detected_at=at(0),
        updated_at=at(0),
        acknowledged_at=None,
        reason=None,
        amounts={},
        evidence={
            "window": {"since": at(0).isoformat(), "until": at(5).isoformat()},
            "numbers": {},
            "objects": objects,
            "event_ids": event_ids or [],
            "events": len(event_ids or []),
        },
    )


def urls(of: Anomaly, mode: Any = "live") -> list[str]:
    return [link.url.removeprefix(DASHBOARD) for link in links_of(of, mode)]


@pytest.mark.parametrize(
    ("noun", "key", "page"),
    [
        ("charge", "ch_1", "payments"),
        ("invoice", "in_1", "invoices"),
        ("subscription", "sub_1", "subscriptions"),
        ("customer", "cus_1", "customers"),
        ("dispute", "dp_1", "disputes"),
    ],
)
def test_an_object_named_alone_or_in_a_list_has_its_page(noun: str, key: str, page: str):
    assert urls(anomaly(**{noun: key})) == urls(anomaly(**{f"{noun}s": [key]})) == [f"/{page}/{key}"]


def test_the_object_that_it_is_about_comes_first():
    assert urls(anomaly(subject="in_7", customer="cus_1", invoice="in_7")) == ["/invoices/in_7", "/customers/cus_1"]


def test_test_mode_and_connected_accounts_have_paths_of_their_own():
    ours, theirs = anomaly(invoice="in_1"), anomaly(subject="in_1 acct_1Ab2", invoice="in_1")

    assert urls(ours, "test") == ["/test/invoices/in_1"]
    assert urls(theirs, "live") == ["/acct_1Ab2/invoices/in_1"]
    assert urls(theirs, "test") == ["/acct_1Ab2/test/invoices/in_1"]


def test_what_has_no_page_is_left_out_and_events_stand_in_where_nothing_is_named():
    assert urls(anomaly(refunds=["re_1"], charges=["ch_1"], disputes=["issfr_1"])) == ["/payments/ch_1"]
    assert urls(anomaly(payer="fp_1", invoice=None, event_ids=["evt_1", "evt_2"])) == ["/events/evt_1", "/events/evt_2"]
    assert urls(anomaly()) == []


def test_there_are_only_so_many_links():
    assert len(urls(anomaly(charges=[f"ch_{number}" for number in range(50)]))) == LINKS_LIMIT


def test_an_id_cannot_leave_its_place_in_an_address():
    assert urls(anomaly(charge="../x?y=#z", subject="d acct_1/../x")) == ["/payments/..%2Fx%3Fy%3D%23z"]


async def shown(history: History, of: Anomaly) -> list[tuple[str, str]]:
    return [(row["source"], row["id"]) for row in await history.tenant.fetch(statement_of(of))]


async def test_the_statement_shows_the_rows_that_the_evidence_names_and_no_others(history: History):
    paid = charge("a", 1)
    await history.see(paid, charge("b", 2), invoice("a", 3), dispute("a", 4), refund("a", 5, of=paid))

    found = await shown(history, anomaly(charge="ch_a", invoices=["in_a"], disputes=["dp_a"], refund="re_a", customer="cus_x"))

    assert found == [("charges", "ch_a"), ("invoices", "in_a"), ("disputes", "dp_a"), ("refunds", "re_a")]


@pytest.mark.parametrize("noun", ["charge", "invoice", "subscription", "dispute", "refund", "customer", "payment_method"])
async def test_every_noun_of_an_evidence_is_a_table(history: History, noun: str):
    assert await shown(history, anomaly(**{noun: "x", f"{noun}s": ["y", "z"]}, event_ids=["evt_1"])) == []


async def test_without_objects_and_events_the_events_of_the_window_are_shown(history: History):
    for number, minutes in enumerate((-1, 0, 5, 6)):
        await history.tenant.execute(
            "INSERT INTO events (event_id, type, occurred_at, received_at, last_received_at, livemode, disposition, payload)"
            " VALUES ($1, 'ping', $2, $2, $2, true, 'process', '{}')",
            f"evt_{number}",
            at(minutes),
        )

    assert await shown(history, anomaly(subject="all")) == [("events", "evt_1"), ("events", "evt_2")]


@pytest.mark.parametrize("key", ["'", "''; DROP TABLE charges; --", "\\'; SELECT 1; --", "\\", "%s {table}"])
@pytest.mark.parametrize("conforming", ["on", "off"])
async def test_a_hostile_id_is_data(history: History, key: str, conforming: str):
    await history.see(charge("a", 1))
    await history.tenant.execute("UPDATE charges SET charge_id = $1", key)
    await history.tenant.execute(f"SET LOCAL standard_conforming_strings = {conforming}; SET LOCAL escape_string_warning = off")

    assert await shown(history, anomaly(charge=key)) == [("charges", key)]


async def test_a_payload_that_jsonb_would_refuse_is_shown(history: History, tenant_connection: asyncpg.Connection):
    await tenant_connection.execute(
        "INSERT INTO events (event_id, type, occurred_at, received_at, last_received_at, livemode, disposition, payload)"
        " VALUES ('evt_1', 'ping', $1, $1, $1, true, 'process', $2)",
        at(0),
        '{"name": "\\u0000"}',
    )

    assert await shown(history, anomaly(event_ids=["evt_1"])) == [("events", "evt_1")]
