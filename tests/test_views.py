"""The analysts' views: their numbers, and that each of them explains itself."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

from billingwatch.postgres import migrations
from billingwatch.postgres.connections import TenantConnection
from billingwatch.tenancy.tenants import Tenant

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SNAPSHOT = {"created_at": NOON, "updated_at": NOON, "event_id": "evt_1", "version": "1"}


async def insert(connection: TenantConnection, table: str, **values: object) -> None:
    names = ", ".join(values)
    places = ", ".join(f"${number}" for number in range(1, len(values) + 1))
    await connection.execute(f"INSERT INTO {table} ({names}) VALUES ({places})", *values.values())


async def insert_charge(connection: TenantConnection, charge_id: str, amount: int, currency: str = "usd", **others: object) -> None:
    succeeded = others.get("status", "succeeded") == "succeeded"
    charge = {
        **SNAPSHOT,
        "charge_id": charge_id,
        "payment_id": charge_id,
        "from_invoice": False,
        "amount": amount,
        "amount_captured": amount if succeeded else 0,
        "amount_refunded": 0,
        "currency": currency,
        "status": "succeeded",
        "captured": succeeded,
        "disputed": False,
    }
    await insert(connection, "charges", **{**charge, **others})


async def insert_subscription(connection: TenantConnection, subscription_id: str, status: str, **others: object) -> None:
    flags = {"items": [], "cancel_at_period_end": False, "collection_paused": False, "discounted": False}
    await insert(connection, "subscriptions", **{**SNAPSHOT, **flags, "subscription_id": subscription_id, "status": status, **others})


async def insert_anomaly(connection: TenantConnection, summary: str, status: str, **others: object) -> None:
    anomaly = {
        "anomaly_id": uuid4(),
        "detector": "duplicate_charge",
        "subject": "cus_1",
        "fingerprint": summary,
        "status": status,
        "severity": "warning",
        "summary": summary,
        "opened_at": NOON,
        "last_seen_at": NOON,
        "detected_at": NOON,
        "updated_at": NOON,
        "amounts": {"usd": 1999},
        "evidence": {"charges": ["ch_1", "ch_2"]},
    }
    await insert(connection, "anomalies", **{**anomaly, **others})


async def rows(connection: TenantConnection, query: str) -> list[dict[str, object]]:
    return [dict(row) for row in await connection.fetch(query)]


async def test_revenue_is_told_per_day_and_currency(tenant_connection: TenantConnection) -> None:
    await insert_charge(tenant_connection, "ch_1", 1000)
    await insert_charge(tenant_connection, "ch_2", 500, amount_refunded=200)
    await insert_charge(tenant_connection, "ch_3", 900, "jpy", amount_refunded=900)
    await insert_charge(tenant_connection, "ch_4", 70, created_at=NOON + timedelta(days=1))
    await insert_charge(tenant_connection, "ch_5", 40, account="acct_1")

    revenue = await rows(tenant_connection, "SELECT * FROM revenue_daily ORDER BY day, account NULLS FIRST, currency")

    first, second = date(2026, 3, 1), date(2026, 3, 2)
    assert [tuple(row.values()) for row in revenue] == [
        (first, None, "jpy", 1, 900, 900, 0),
        (first, None, "usd", 2, 1500, 200, 1300),
        (first, "acct_1", "usd", 1, 40, 0, 40),
        (second, None, "usd", 1, 70, 0, 70),
    ]


async def test_only_captured_money_is_revenue(tenant_connection: TenantConnection) -> None:
    await insert_charge(tenant_connection, "ch_failed", 1000, status="failed")
    await insert_charge(tenant_connection, "ch_pending", 1000, status="pending")
    # Stripe counted a released authorization as refunded until API version 2025-03-31.
    await insert_charge(tenant_connection, "ch_released", 1000, captured=False, amount_captured=0, amount_refunded=1000)
    await insert_charge(tenant_connection, "ch_expired", 1000, status="expired")
    await insert_charge(tenant_connection, "ch_partly", 1000, amount_captured=300, amount_refunded=700)

    revenue = await rows(tenant_connection, "SELECT charges, gross, refunded, net FROM revenue_daily")

    assert revenue == [{"charges": 1, "gross": 300, "refunded": 300, "net": 0}]


async def test_a_day_of_revenue_is_a_utc_day_whatever_the_time_zone_of_the_session(tenant_connection: TenantConnection) -> None:
    await insert_charge(tenant_connection, "ch_1", 1000, created_at=datetime(2026, 3, 1, 23, 59, 59, tzinfo=UTC))
    await insert_charge(tenant_connection, "ch_2", 1000, created_at=datetime(2026, 3, 2, tzinfo=UTC))

    await tenant_connection.execute("SET LOCAL timezone = 'Asia/Tokyo'")
    days = await rows(tenant_connection, "SELECT day, gross FROM revenue_daily ORDER BY day")

    assert days == [{"day": date(2026, 3, 1), "gross": 1000}, {"day": date(2026, 3, 2), "gross": 1000}]


async def test_blocked_charges_are_told_apart_from_failed_ones(tenant_connection: TenantConnection) -> None:
    for number in range(3):
        await insert_charge(tenant_connection, f"ch_paid_{number}", 1000)
    await insert_charge(tenant_connection, "ch_declined", 1000, status="failed", outcome_type="issuer_declined")
    await insert_charge(tenant_connection, "ch_silent", 1000, status="failed")
    await insert_charge(tenant_connection, "ch_blocked", 1000, status="failed", outcome_type="blocked")
    await insert_charge(tenant_connection, "ch_debit", 1000, status="pending")
    await insert_charge(tenant_connection, "ch_expired", 1000, status="expired", created_at=NOON + timedelta(minutes=59))
    await insert_charge(tenant_connection, "ch_euro", 1000, "eur", status="failed", outcome_type="issuer_declined")

    hours = await rows(tenant_connection, "SELECT * FROM charges_hourly ORDER BY currency")

    counts = {"hour": NOON, "account": None}
    assert hours == [
        {
            **counts,
            "currency": "eur",
            "attempts": 1,
            "succeeded": 0,
            "failed": 1,
            "blocked": 0,
            "pending": 0,
            "failure_rate": Decimal("1.0000"),
        },
        {
            **counts,
            "currency": "usd",
            "attempts": 8,
            "succeeded": 4,
            "failed": 2,
            "blocked": 1,
            "pending": 1,
            "failure_rate": Decimal("0.3333"),
        },
    ]


async def test_an_hour_in_which_nothing_was_decided_has_no_failure_rate(tenant_connection: TenantConnection) -> None:
    await insert_charge(
        tenant_connection, "ch_blocked", 1000, status="failed", outcome_type="blocked", created_at=NOON + timedelta(hours=1)
    )

    hours = await rows(tenant_connection, "SELECT hour, attempts, failure_rate FROM charges_hourly")

    assert hours == [{"hour": NOON + timedelta(hours=1), "attempts": 1, "failure_rate": None}]


async def test_disputes_stay_open_until_they_are_decided(tenant_connection: TenantConnection) -> None:
    statuses = {"needs_response": True, "under_review": False, "warning_needs_response": True, "warning_under_review": False}
    for status in (*statuses, "won", "lost", "prevented", "warning_closed"):
        kind = "inquiry" if status.startswith("warning") else "dispute"
        await insert(tenant_connection, "disputes", **SNAPSHOT, dispute_id=status, kind=kind, status=status, amount=1000, currency="usd")
    await insert(tenant_connection, "disputes", **SNAPSHOT, dispute_id="issfr_1", kind="early_fraud_warning", actionable=True)

    disputes = await tenant_connection.fetch("SELECT dispute_id, needs_response FROM disputes_open")

    assert {row["dispute_id"]: row["needs_response"] for row in disputes} == statuses


async def test_a_dispute_names_the_customer_of_its_charge_once_that_has_arrived(tenant_connection: TenantConnection) -> None:
    await insert_charge(tenant_connection, "ch_1", 1000, customer_id="cus_1")
    due = NOON + timedelta(days=7)
    facts = {**SNAPSHOT, "kind": "dispute", "status": "needs_response", "reason": "fraudulent", "evidence_due_at": due}
    await insert(tenant_connection, "disputes", **facts, dispute_id="dp_1", charge_id="ch_1", amount=900, currency="eur")
    await insert(tenant_connection, "disputes", **facts, dispute_id="dp_2", charge_id="ch_2", amount=1000, currency="usd")

    disputes = await rows(
        tenant_connection, "SELECT dispute_id, amount, currency, evidence_due_at, customer_id, charged_at FROM disputes_open ORDER BY 1"
    )

    assert [tuple(row.values()) for row in disputes] == [
        ("dp_1", 900, "eur", due, "cus_1", NOON),
        ("dp_2", 1000, "usd", due, None, None),
    ]


async def test_active_subscriptions_include_trials_and_late_payers(tenant_connection: TenantConnection) -> None:
    await insert(tenant_connection, "customers", **SNAPSHOT, customer_id="cus_1", email="ada@example.com", deleted=False)
    due = NOON + timedelta(days=20)
    await insert_subscription(tenant_connection, "sub_1", "active", customer_id="cus_1", mrr=1999, currency="usd", period_end_at=due)
    await insert_subscription(tenant_connection, "sub_2", "trialing", mrr=500, currency="eur", cancel_at_period_end=True, cancel_at=due)
    await insert_subscription(tenant_connection, "sub_3", "past_due", customer_id="cus_unseen", discounted=True)
    for status in ("incomplete", "incomplete_expired", "unpaid", "paused", "canceled"):
        await insert_subscription(tenant_connection, f"sub_{status}", status)

    active = await rows(
        tenant_connection,
        "SELECT subscription_id, customer_email, status, mrr, currency, period_end_at, cancel_at_period_end, cancel_at, discounted"
        " FROM subscriptions_active ORDER BY 1",
    )

    assert [tuple(row.values()) for row in active] == [
        ("sub_1", "ada@example.com", "active", 1999, "usd", due, False, None, False),
        ("sub_2", None, "trialing", 500, "eur", None, True, due, False),
        ("sub_3", None, "past_due", None, None, None, False, None, True),
    ]


async def test_anomalies_are_open_until_they_are_over(tenant_connection: TenantConnection) -> None:
    await insert_anomaly(tenant_connection, "seen", "acknowledged", severity="critical", acknowledged_at=NOON, reason="on it")
    await insert_anomaly(tenant_connection, "new", "open")
    await insert_anomaly(tenant_connection, "gone", "resolved", resolution="automatic", resolved_at=NOON)
    await insert_anomaly(tenant_connection, "none", "false_positive")

    anomalies = await rows(
        tenant_connection, "SELECT summary, status, severity, amounts, reason, evidence FROM anomalies_open ORDER BY summary"
    )

    evidence = {"charges": ["ch_1", "ch_2"]}
    assert [tuple(row.values()) for row in anomalies] == [
        ("new", "open", "warning", {"usd": 1999}, None, evidence),
        ("seen", "acknowledged", "critical", {"usd": 1999}, "on it", evidence),
    ]


async def test_the_views_are_these_and_each_of_their_columns_is_explained(tenant: Tenant, tenant_connection: TenantConnection) -> None:
    views = await tenant_connection.fetch(
        "SELECT relname, oid FROM pg_class WHERE relnamespace = $1::text::regnamespace AND relkind = 'v'", tenant.schema_name
    )
    silent = await tenant_connection.fetch(
        """
        SELECT a.attrelid::regclass, a.attname
        FROM pg_attribute AS a
        WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND col_description(a.attrelid, a.attnum) IS NULL
        UNION ALL
        SELECT view::regclass, NULL FROM unnest($1::oid[]) AS v (view) WHERE obj_description(view, 'pg_class') IS NULL
        """,
        [view["oid"] for view in views],
    )

    assert {view["relname"] for view in views} == set(migrations.views())
    assert set(migrations.views()) == {"anomalies_open", "charges_hourly", "disputes_open", "revenue_daily", "subscriptions_active"}
    assert silent == []
