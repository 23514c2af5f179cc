"""A backtest judges history as visits did: with the same thresholds it finds what fired, whichever the detector."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
import pytest

from billingwatch.detection.backtest import backtest, read_since
from billingwatch.detection.registry import DETECTORS
from billingwatch.errors import InputInvalid
from billingwatch.replay import Replay
from billingwatch.simulate.incidents.registry import INCIDENTS
from billingwatch.simulate.profiles import PROFILES
from billingwatch.simulate.stream import simulate
from billingwatch.tenancy.scope import tenant_scope

DAYS = 35
WISHES = ("charge_failure_spike", "card_testing", "duplicate_charge", "negative_invoice", "fraud_spike")


async def test_the_same_thresholds_find_what_fired(database, tenant, connect, now: datetime):
    events, _ = simulate(
        seed=11,
        start=now - timedelta(days=DAYS),
        days=DAYS,
        profile=PROFILES["saas"],
        incidents=[name for name in WISHES if name in INCIDENTS],
    )
    await Replay(database, tenant, lambda: now).run([msgspec.json.encode(event) for event in events])
    connection = await connect()

    done = {}
    async with tenant_scope(connection, tenant, readonly=True) as scoped:
        for name, detector in DETECTORS.items():
            done[name] = await backtest(scoped, detector, detector.thresholds(), since=now - timedelta(days=3 * DAYS), until=now)

    differing = {name: (each.only_before, each.only_then) for name, each in done.items() if each.only_before or each.only_then}
    assert differing == {}
    assert sum(each.in_both for each in done.values()) >= len(WISHES)


@pytest.mark.parametrize(
    ("text", "ago"),
    [("30d", timedelta(days=30)), ("12h", timedelta(hours=12)), ("2w", timedelta(days=14)), ("2026-02-28T12:00:00Z", timedelta(days=1))],
)
def test_a_beginning_is_a_moment_or_how_long_ago(text: str, ago: timedelta, now: datetime):
    assert read_since(text, as_of=now) == now - ago


def test_a_moment_without_an_offset_is_utc(now: datetime):
    assert read_since("2026-02-28", as_of=now) == now.replace(hour=0) - timedelta(days=1)
    assert read_since("2026-03-01T13:00:00+01:00", as_of=now) == now


@pytest.mark.parametrize(
    "text", ["", "30", "d", "1.5d", "30 d", "٣d", "-1d", "999999w", "2026-02-30", "9999-12-31T23:59:59-14:00", "2026-03-01T00:00:00Z\0"]
)
def test_what_is_neither_is_refused(text: str, now: datetime):
    with pytest.raises(InputInvalid, match="`since` is a moment like"):
        read_since(text, as_of=now)
