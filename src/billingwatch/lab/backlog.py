"""Watching the backlog from outside: when it is empty, and when each event left it."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Sequence

import msgspec

from billingwatch.lab.load import Outcome
from billingwatch.lab.stage import Stage
from billingwatch.postgres.statements import load_statements

sql = load_statements(__file__, "backlog.sql")

LOOK_EVERY = 0.002  # seconds between looks; how far off an event's time can be
EMPTY_EVERY = 0.02  # seconds


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What waited at some moment between two."""

    began: float
    ended: float
    waiting: frozenset[str]


class Drained(msgspec.Struct, frozen=True, kw_only=True):
    """How a backlog ended: `ended` is when it was seen to be empty, None when it was not in time."""

    events: int
    began: float
    ended: float | None


async def drain(stage: Stage, patience: float) -> Drained:
    """Wait for the backlog to be empty."""
    async with stage.control() as control:
        began = time.monotonic()
        events: int = await control.fetchval(sql["count_waiting"])
        while time.monotonic() < began + patience:
            if not await control.fetchval(sql["any_waiting"]):
                return Drained(events=events, began=began, ended=time.monotonic())
            await asyncio.sleep(EMPTY_EVERY)
    return Drained(events=events, began=began, ended=None)


async def watch(stage: Stage, seconds: float) -> list[Look]:
    """Look for some seconds, and until nothing waits; for a low load, whose backlog is short."""
    looks: list[Look] = []
    async with stage.control() as control:
        end = time.monotonic() + seconds
        while time.monotonic() < end or (looks[-1].waiting and time.monotonic() < end + seconds):
            began = time.monotonic()
            rows = await control.fetch(sql["waiting"])
            looks.append(Look(began=began, ended=time.monotonic(), waiting=frozenset(row["event_id"] for row in rows)))
            await asyncio.sleep(LOOK_EVERY)
    return looks


def processing_times(outcome: Outcome, looks: Sequence[Look]) -> list[float]:
    """Seconds from when each event was due to the first look, begun after its acknowledgement, that finds it gone."""
    starts = [look.began for look in looks]
    times: list[float] = []
    for event_id, due, acked_at in zip(outcome.event_ids, outcome.due, outcome.acked_at, strict=True):
        gone = next((look.ended for look in looks[bisect_left(starts, acked_at) :] if event_id not in look.waiting), None)
        if gone is not None:
            times.append(gone - due)
    return times
