"""Ordinary renewals of a simulated business, in either shape of Stripe's objects, are as they should be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from billingwatch.billing.readers import read_event
from billingwatch.simulate.deliveries import deliver
from billingwatch.simulate.objects.shapes import Shape
from billingwatch.simulate.profiles import PROFILES
from billingwatch.simulate.stream import simulate

from .history import History

OF_RENEWALS = ("double_invoice", "invoice_mismatch", "negative_invoice", "silent_lapse")
START = datetime(2026, 1, 20, tzinfo=UTC)
DAYS = 50


def deliveries(shape: Shape, seed: int) -> list[dict[str, Any]]:
    profile = msgspec.structs.replace(PROFILES["b2b"], shape=shape, customers=60, purchases_per_day=0, changes=0.4)
    events, _ = simulate(seed=seed, start=START, days=DAYS, profile=profile)
    return [delivery.event for delivery in deliver(events, seed=seed)]


@pytest.mark.parametrize("shape", ["legacy", "current"])
async def test_upgrades_downgrades_coupons_retries_and_cancellations_are_no_anomaly(history: History, shape: Shape):
    rows = [row for event in deliveries(shape, seed=11) for row in read_event(event)]
    half = len(rows) // 2

    await history.see(*rows[:half])
    await history.tick(START + timedelta(days=DAYS / 2))
    await history.see(*rows[half:])
    await history.tick(START + timedelta(days=DAYS))

    found = [anomaly.summary for anomaly in await history.anomalies(retracted=True) if anomaly.detector in OF_RENEWALS]
    assert found == []


async def test_an_invoice_that_was_never_told_of_and_one_told_wrong_are_seen_among_them(history: History):
    events = deliveries("current", seed=12)
    renewals = [
        event["data"]["object"]
        for event in events
        if event["type"] == "invoice.created" and event["data"]["object"]["billing_reason"] == "subscription_cycle"
    ]
    soon = [renewal for renewal in renewals if renewal["created"] < START.timestamp() + 35 * 86400 and renewal["total"] > 0]
    lost, wrong = soon[0]["id"], soon[1]["id"]

    for event in events:
        inside = event["data"]["object"]
        if inside["id"] == wrong:
            inside["lines"]["data"][0]["amount"] += 5000
    await history.see(*(row for event in events if event["data"]["object"]["id"] != lost for row in read_event(event)))
    await history.tick(START + timedelta(days=DAYS))

    lapse, *others = await history.anomalies("silent_lapse")
    mismatch, *more = await history.anomalies("invoice_mismatch")
    assert (others, more) == ([], [])
    assert lapse.evidence["objects"]["subscription"] == soon[0]["parent"]["subscription_details"]["subscription"]
    assert (mismatch.subject, mismatch.amounts) == (wrong, {soon[1]["currency"]: 5000})
