"""Replay: feed given events through record, project and detect as if Stripe had delivered them; what is there already stays as it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime

import msgspec

from billingwatch.errors import EventMalformed, InputInvalid, RemovalUnfinished, TenantPaused
from billingwatch.ingest.envelope import read_envelope
from billingwatch.ingest.record import Delivery, record_all, signed_text
from billingwatch.judgement import behind_of
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.lanes import Lane, control_plane
from billingwatch.tenancy.tenants import Tenant
from billingwatch.visit import Visited, list_dead_letters, visit

sql = load_statements(__file__, "replay.sql")

BATCH = 500  # events recorded at once
BATCH_BYTES = 16 * 1024 * 1024  # of events recorded at once, unless a single one is larger
AHEAD = 4  # batches that recording may be ahead of processing, so that memory and the backlog stay bounded
_BOM = b"\xef\xbb\xbf"
WAIT_SECONDS = 0.05  # while a running service visits the same tenant


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the file that is not an event."""

    number: int
    reason: str


class Replayed(msgspec.Struct, kw_only=True):
    """What became of the entries so far.

    `processed` are events that this replay's own visits took: some that the tenant had waiting before, none that a running service took.
    `dead` are in the end all entries that are set aside, whoever visited them.
    """

    recorded: int = 0
    duplicates: int = 0
    ignored: int = 0
    processed: int = 0
    dead: int = 0
    refused: list[Refused] = msgspec.field(default_factory=list)
    behind: dict[str, datetime] = msgspec.field(default_factory=dict)
    """Detectors that failed, with the event time from which on they have evaluated nothing; a running service tries again."""

    @property
    def read(self) -> int:
        return self.recorded + self.duplicates + len(self.refused)


class _List(msgspec.Struct):
    data: list[msgspec.Raw]


def split_events(document: bytes) -> list[bytes]:
    """Events of a file: one per line, or the list of an export (a JSON array, or Stripe's `{"object": "list", "data": […]}`).

    A single event may extend over several lines, also when it is not JSON.
    """
    text = document.strip()
    is_list = text.startswith(b"[")
    lines = [] if is_list else [line for line in text.splitlines() if line.strip()]
    if not is_list and len(lines) != 1 and all(line.rstrip().endswith(b"}") and line.lstrip().startswith(b"{") for line in lines[:2]):
        return lines
    try:
        if is_list:
            return [bytes(raw) for raw in msgspec.json.decode(text, type=list[msgspec.Raw])]
        return [bytes(raw) for raw in msgspec.json.decode(text, type=_List).data]
    except (msgspec.DecodeError, RecursionError, ValueError):
        by_line = len(lines) > 1 and (lines[0].rstrip().endswith(b"}") or lines[1].lstrip().startswith(b"{"))
        if not by_line and _is_event(text):
            return [text]
        if text.startswith((b"{", _BOM)):
            return lines
        raise InputInvalid(reason="the file holds neither one event per line nor a list of events") from None


def _is_event(body: bytes) -> bool:
    try:
        read_envelope(body)
    except EventMalformed:
        return False
    return True


def _take(numbered: Iterator[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Take the entries of the next batch."""
    chunk: list[tuple[int, bytes]] = []
    size = 0
    while len(chunk) < BATCH and size < BATCH_BYTES and (entry := next(numbered, None)):
        chunk.append(entry)
        size += len(entry[1])
    return chunk


class Replay:
    """One replay into one tenant."""

    def __init__(self, dsn: str, tenant: Tenant, clock: Callable[[], datetime], *, statement_timeout: int = 30) -> None:
        self.progress = Replayed()
        self._tenant = tenant
        self._clock = clock
        self._event_ids: set[str] = set()
        self._recording = Lane(dsn, "replay record", statement_timeout=statement_timeout)
        self._visiting = Lane(dsn, "replay visit", statement_timeout=statement_timeout)

    async def run(self, events: Iterable[bytes], on_progress: Callable[[Replayed], None] = lambda _: None) -> Replayed:
        """Record and process every event, in the order given. After an error it can be run again.

        Raises DatabaseUnavailable, RemovalUnfinished, and TenantPaused, also when the tenant is paused during the replay.
        """
        if self._tenant.status == "removing":
            raise RemovalUnfinished(name=self._tenant.name)
        if self._tenant.status == "paused":
            raise TenantPaused(name=self._tenant.name)
        batches: asyncio.Queue[int | None] = asyncio.Queue(maxsize=AHEAD)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._record(events, batches))
                group.create_task(self._process(batches, on_progress))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        finally:
            await self._recording.close()
            await self._visiting.close()
        return self.progress

    async def _record(self, events: Iterable[bytes], batches: asyncio.Queue[int | None]) -> None:
        numbered = iter(enumerate(events, start=1))
        while chunk := _take(numbered):
            deliveries = list(self._deliveries(chunk))
            async with control_plane(self._recording) as connection:
                flags = await record_all(connection, deliveries) if deliveries else []
            self.progress.recorded += sum(flags)
            self.progress.duplicates += len(flags) - sum(flags)
            self.progress.ignored += sum(
                is_new and delivery.disposition != "process" for is_new, delivery in zip(flags, deliveries, strict=True)
            )
            await batches.put(sum(flags))
        await batches.put(None)

    def _deliveries(self, chunk: Sequence[tuple[int, bytes]]) -> Iterator[Delivery]:
        received_at = self._clock()
        for number, body in chunk:
            try:
                envelope = read_envelope(body)
            except EventMalformed as error:
                self.progress.refused.append(Refused(number=number, reason=str(error)))
                continue
            self._event_ids.add(envelope.event_id)
            yield Delivery(
                tenant=self._tenant,
                envelope=envelope,
                disposition=envelope.disposition(self._tenant.mode),
                payload=signed_text(body),
                received_at=received_at,
                signed_at=None,
            )

    async def _process(self, batches: asyncio.Queue[int | None], on_progress: Callable[[Replayed], None]) -> None:
        while await batches.get() is not None:
            await self._visit()
            on_progress(self.progress)
        while await self._pending():
            if not (await self._visit()).events:
                await asyncio.sleep(WAIT_SECONDS)
            on_progress(self.progress)
        while (await self._visit(judge_now=True)).behind:
            on_progress(self.progress)
        self.progress.dead = await self._dead()
        async with self._visiting.scope(self._tenant, readonly=True) as connection:
            self.progress.behind = await behind_of(connection, self._tenant.tenant_id, as_of=self._clock())

    async def _visit(self, *, judge_now: bool = False) -> Visited:
        await self._check_state()
        done = await visit(self._visiting, self._tenant, as_of=self._clock(), limit=BATCH, judge_now=judge_now)
        self.progress.processed += done.events
        self.progress.dead += done.dead
        return done

    async def _check_state(self) -> None:
        async with control_plane(self._visiting) as connection:
            if await connection.fetchval(sql["is_paused"], self._tenant.tenant_id):
                raise TenantPaused(name=self._tenant.name)

    async def _pending(self) -> bool:
        async with control_plane(self._visiting) as connection:
            waiting: bool = await connection.fetchval(sql["has_pending"], self._tenant.tenant_id)
        return waiting

    async def _dead(self) -> int:
        async with control_plane(self._visiting) as connection:
            return sum(letter.event_id in self._event_ids for letter in await list_dead_letters(connection, self._tenant.tenant_id))
