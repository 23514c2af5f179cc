"""One round: events flow, the fault strikes, refused events are delivered again, and all is compared."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

from billingwatch.lab.faults.compare import compare
from billingwatch.lab.faults.found import await_processed, read_rows
from billingwatch.lab.faults.probe import Poll, Probe
from billingwatch.lab.faults.readiness import Span, readiness_findings
from billingwatch.lab.faults.row import ANSWERED_AIM, Pace, RoundResult
from billingwatch.lab.faults.scenario import Scenario
from billingwatch.lab.faults.scene import Scene
from billingwatch.lab.faults.stream import CUT, Stream, StreamEvent
from billingwatch.lab.fleet import Member
from billingwatch.lab.latency import percentile
from billingwatch.lab.load import OK
from billingwatch.lab.server import ServerFailed

START_WAIT = 60.0  # seconds until the service is ready for the first time
BEFORE = 0.5  # seconds of stream before the fault
BEFORE_ATTACK = 4.0  # seconds; the p50 before an attack is taken from these
BEFORE_QUICK_ATTACK = 1.5  # seconds
AFTER = 0.5  # seconds of stream after the fault
REDELIVER_WAIT = 40.0  # seconds
PROCESS_WAIT = 40.0  # seconds until everything that was acknowledged is processed

LANE_OF_READS = 4  # BILLINGWATCH_READ_LANES: tenants whose ids differ by it share a lane


async def run_round(scenario: Scenario, scene: Scene, *, quick: bool) -> RoundResult:
    """Run a scenario once against a service that runs. ServerFailed when it is not ready at the start."""
    stream = scene.stream
    key = neighbour(scene.members).api_key if scenario.measure == "reads" else None
    probe = Probe(scene.stage, scene.deployment.port, read_key=key)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(stream.close)
        stack.push_async_callback(probe.stop)
        probe.start()
        if not await probe.await_ready(START_WAIT):
            raise ServerFailed(reason=f"it is not ready before the fault\n{scene.deployment.last_lines()}")
        probe.polls.clear()
        stream.start()
        await asyncio.sleep(_before(scenario, quick=quick))
        began = time.monotonic()
        async with scenario.strike(scene):
            struck = time.monotonic()
            await asyncio.sleep(scene.seconds)
            ending = time.monotonic()
        ended = time.monotonic()
        await asyncio.sleep(AFTER)
        await probe.await_ready(scenario.recovery)
        await stream.stop()
        await stream.redeliver(REDELIVER_WAIT)
        ids = [event.event_id for event in stream.events]
        await await_processed(scene.stage, ids, PROCESS_WAIT)
        await probe.await_ready(2.0)
        await probe.stop()
        rows = await read_rows(scene.stage, scene.members, ids)
    attempts = stream.attempts
    span = Span(began=began, ended=ended, closed=time.monotonic())
    return RoundResult(
        compared=compare(scene.members, stream.events, rows),
        silence=max((attempt.seconds for attempt in attempts if attempt.status != CUT), default=0.0),
        ready=readiness_findings(scenario, span, polls=probe.polls, attempts=attempts, ages=probe.ages),
        notes=[*scene.notes, *(spared_findings(stream.events, struck, ending) if scenario.spares else [])],
        pace=pace_of(scenario, stream, probe.reads, (began, struck, ending)),
    )


def _before(scenario: Scenario, *, quick: bool) -> float:
    if scenario.measure is None:
        return BEFORE
    return BEFORE_QUICK_ATTACK if quick else BEFORE_ATTACK


def neighbour(members: Sequence[Member]) -> Member:
    """Return a tenant that shares the first one's read lane."""
    first = members[0].tenant_id
    return next(each for each in members[1:] if (each.tenant_id - first) % LANE_OF_READS == 0)


def spared_findings(events: Sequence[StreamEvent], began: float, ended: float) -> list[str]:
    """Return a finding when events of any tenant but the first were refused during the fault."""
    firsts = [event.attempts[0] for event in events if event.tenant != 0 and event.attempts]
    statuses = [attempt.status for attempt in firsts if began <= attempt.sent_at <= ended]
    refused = sum(status != OK for status in statuses)
    if not statuses or refused > len(statuses) * (1 - ANSWERED_AIM):
        return [f"{refused} of {len(statuses)} deliveries of other tenants were refused"]
    return []


def pace_of(
    scenario: Scenario,
    stream: Stream,
    reads: Sequence[Poll],
    times: tuple[float, float, float],
) -> Pace | None:
    """Return latency and success before and during an attack; None for other scenarios."""
    if scenario.measure is None:
        return None
    if scenario.measure == "reads":
        requests = [(poll.at, poll.seconds, poll.status) for poll in reads]
    else:
        firsts = [event.attempts[0] for event in stream.events if event.attempts]
        requests = [(each.sent_at, each.seconds, each.status) for each in firsts]
    began, struck, ending = times
    before = sorted(seconds for at, seconds, _ in requests if at < began)
    during = [(seconds, status) for at, seconds, status in requests if struck <= at <= ending]
    if not before or not during:
        return None
    return Pace(
        p50_before=percentile(before, 0.5),
        p50_during=percentile(sorted(seconds for seconds, _ in during), 0.5),
        answered=sum(status == OK for _, status in during) / len(during),
    )
