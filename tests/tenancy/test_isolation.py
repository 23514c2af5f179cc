"""No row ever crosses from one tenant to another, whatever happens to the connections they share."""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Coroutine
from typing import Any, TypeVar

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from billingwatch.errors import DatabaseUnavailable, Overloaded
from billingwatch.ingest.recorder import Recorder
from billingwatch.postgres.connections import ControlConnection, open_connection
from billingwatch.postgres.tenant_plane import metadata
from billingwatch.tenancy.lanes import Lane, Lanes
from billingwatch.tenancy.provision import provision
from billingwatch.tenancy.registry import load_tenant
from billingwatch.tenancy.scope import tenant_scope
from billingwatch.tenancy.sealing import Seal
from billingwatch.tenancy.tenants import Tenant

pytestmark = pytest.mark.both_isolations
T = TypeVar("T")

ADD = "INSERT INTO customers (customer_id, name, deleted, created_at, updated_at, event_id, version) VALUES ($1, $2, false, now(), now(), 'evt_1', '1')"
WHOSE = "SELECT customer_id, name FROM customers ORDER BY customer_id"
EVENTS = "SELECT event_id, payload::jsonb ->> 'for' AS tenant, deliveries FROM events"


def body_for(tenant: Tenant, event_id: str) -> str:
    return f'{{"id": "{event_id}", "object": "event", "type": "ping", "created": 1700000000, "livemode": true, "for": "{tenant.name}"}}'


async def test_two_tenants_on_one_connection_see_their_own_rows_by_the_same_statement(connect, provision_tenant):
    connection = await connect()
    tenants = [(await provision_tenant(name))[0] for name in ("one", "other")]

    for _ in range(3):
        for tenant in tenants:
            async with tenant_scope(connection, tenant) as scoped:
                await scoped.execute(ADD, f"cus_{uuid.uuid4().hex}", tenant.name)

    for tenant in tenants:
        async with tenant_scope(connection, tenant) as scoped:
            assert [row["name"] for row in await scoped.fetch(WHOSE)] == [tenant.name] * 3


async def test_after_an_error_in_mid_transaction_the_next_tenant_sees_its_own_rows(connect, provision_tenant):
    connection = await connect()
    one, other = [(await provision_tenant(name))[0] for name in ("one", "other")]

    with pytest.raises(asyncpg.UniqueViolationError):
        async with tenant_scope(connection, one) as scoped:
            await scoped.execute(ADD, "cus_1", "one")
            await scoped.execute(ADD, "cus_1", "one")
    async with tenant_scope(connection, other) as scoped:
        await scoped.execute(ADD, "cus_1", "other")

    async with tenant_scope(connection, one) as scoped:
        assert await scoped.fetch(WHOSE) == []
    async with tenant_scope(connection, other) as scoped:
        assert [tuple(row) for row in await scoped.fetch(WHOSE)] == [("cus_1", "other")]


async def test_no_table_is_found_outside_a_scope(control, tenant):
    for table in metadata.tables:
        with pytest.raises(asyncpg.UndefinedTableError, match=f'relation "{table}" does not exist'):
            await control.fetch(f"SELECT count(*) FROM {table}")


async def test_concurrent_tenants_on_shared_lanes_see_their_own_rows(database, provision_tenant):
    tenants = [(await provision_tenant(f"tenant-{number}"))[0] for number in range(6)]
    lanes = Lanes(lambda number: Lane(database, f"shared {number}", tenants_limit=2), 2)

    async def work(tenant: Tenant, number: int) -> None:
        async with lanes.of(tenant.tenant_id).scope(tenant) as scoped:
            await scoped.execute(ADD, f"cus_{number}", tenant.name)
            assert {row["name"] for row in await scoped.fetch(WHOSE)} == {tenant.name}
            if number % 3 == 0:
                raise LookupError

    done = await asyncio.gather(*(work(tenant, number) for number in range(12) for tenant in tenants), return_exceptions=True)

    assert {type(error) for error in done} == {type(None), LookupError}
    for tenant in tenants:
        async with lanes.of(tenant.tenant_id).scope(tenant, readonly=True) as scoped:
            kept = [tuple(row) for row in await scoped.fetch(WHOSE)]
        assert sorted(kept) == sorted((f"cus_{number}", tenant.name) for number in range(12) if number % 3)
    await lanes.close()


async def test_one_batch_writes_each_tenants_events_into_its_own_schema(connect, database, provision_tenant, make_delivery):
    tenants = [(await provision_tenant(f"tenant-{number}"))[0] for number in range(5)]
    recorder = Recorder(Lanes(lambda number: Lane(database, f"ingest {number}"), 1), queue_limit=100)

    acks = await asyncio.gather(
        *(
            recorder.record(make_delivery(tenant, f"evt_{number}", body=body_for(tenant, f"evt_{number}")))
            for number in range(3)
            for tenant in tenants
        )
    )
    await recorder.close()

    assert all(ack.is_new for ack in acks)
    connection = await connect()
    for tenant in tenants:
        async with tenant_scope(connection, tenant) as scoped:
            rows = await scoped.fetch(EVENTS)
        assert sorted(tuple(row) for row in rows) == [(f"evt_{number}", tenant.name, 1) for number in range(3)]


async def test_a_statement_prepared_before_a_migration_still_answers_after_it(connect, control, provision_tenant):
    connection = await connect()
    one, other = [(await provision_tenant(name))[0] for name in ("one", "other")]
    for tenant in (one, other):
        async with tenant_scope(connection, tenant) as scoped:
            await scoped.execute(ADD, "cus_1", tenant.name)
            await scoped.fetch(WHOSE)

    await control.execute(f"ALTER TABLE {one.schema_name}.customers ADD COLUMN nickname text")

    for tenant in (one, other):
        async with tenant_scope(connection, tenant) as scoped:
            assert [row["name"] for row in await scoped.fetch(WHOSE)] == [tenant.name]


class Tenants(RuleBasedStateMachine):
    """Provisions, records, reads, fails, cancels and kills over shared lanes, beside a plain model of what must be there."""

    server: Any
    template: str
    names = st.sampled_from(["ada", "bob", "cy", "dee"])
    event_ids = st.sampled_from([f"evt_{number}" for number in range(6)])

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.tenants: dict[str, Tenant] = {}
        self.acked: defaultdict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self.tried: defaultdict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self.customers: defaultdict[str, set[str]] = defaultdict(set)
        self.doubtful: defaultdict[str, set[str]] = defaultdict(set)
        self.shaken: set[Lane] = set()  # those of the recorder whose connections were killed, and which need not have noticed

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize(lanes=st.integers(1, 2), tenants_limit=st.integers(1, 3))
    def start(self, lanes: int, tenants_limit: int) -> None:
        self.run(self._start(lanes, tenants_limit))

    async def _start(self, lanes: int, tenants_limit: int) -> None:
        self.name = f"test_{uuid.uuid4().hex[:12]}"
        self.seal = Seal(["MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="])
        self.admin = await open_connection(self.server.dsn, "tests admin")
        await self.admin.execute(f"CREATE DATABASE {self.name} TEMPLATE {self.template} STRATEGY file_copy")
        dsn = self.server.dsn_for(self.name)
        self.control = ControlConnection(await open_connection(dsn, "tests control"))
        self.lanes = Lanes(lambda number: Lane(dsn, f"shared {number}", tenants_limit=tenants_limit), lanes)
        self.recording = Lanes(lambda number: Lane(dsn, f"ingest {number}", tenants_limit=tenants_limit), lanes)
        self.recorder = Recorder(self.recording, queue_limit=1000)

    @rule(name=names)
    def provision(self, name: str) -> None:
        if name not in self.tenants:
            self.run(provision(self.control, self.seal, name))
            self.tenants[name] = self.run(load_tenant(self.control, self.seal, name))

    @precondition(lambda self: self.tenants)
    @rule(event_ids=st.lists(event_ids, min_size=1, max_size=4), kill=st.booleans())
    def record_for_every_tenant(self, event_ids: list[str], kill: bool) -> None:
        self.run(self._record(event_ids, kill=kill))

    async def _record(self, event_ids: list[str], *, kill: bool) -> None:
        wanted = [(tenant, event_id) for event_id in event_ids for tenant in self.tenants.values()]
        calls = [self.recorder.record(self.make_delivery(tenant, event_id, body=body_for(tenant, event_id))) for tenant, event_id in wanted]
        killing = asyncio.create_task(self._kill() if kill else asyncio.sleep(0))
        done = await asyncio.gather(*calls, return_exceptions=True)
        await killing
        failed: set[Lane] = set()
        for (tenant, event_id), ack in zip(wanted, done, strict=True):
            lane = self.recording.of(tenant.tenant_id)
            self.tried[tenant.name][event_id] += 1
            if isinstance(ack, BaseException):
                assert isinstance(ack, Overloaded)
                assert lane in self.shaken, "nothing was in the way"
                failed.add(lane)
            else:
                # Of all acknowledgements of one event at most one calls it new; after a lost one, perhaps none.
                assert not (ack.is_new and self.acked[tenant.name][event_id])
                self.acked[tenant.name][event_id] += 1
        if not kill:  # which may have come when all was recorded
            self.shaken -= {self.recording.of(tenant.tenant_id) for tenant, _ in wanted} - failed

    @precondition(lambda self: self.tenants)
    @rule(end=st.sampled_from(["commit", "raise", "swallow", "cancel", "kill"]), customer=st.sampled_from(["cus_1", "cus_2", "cus_3"]))
    def write_for_every_tenant(self, end: str, customer: str) -> None:
        self.run(self._write_all(end, customer))

    async def _write_all(self, end: str, customer: str) -> None:
        tasks = {name: asyncio.create_task(self._write(tenant, end, customer)) for name, tenant in self.tenants.items()}
        if end == "cancel":
            await asyncio.sleep(0.002)
            for task in tasks.values():
                task.cancel()
        if end == "kill":
            await self._kill()
        done = dict(zip(tasks, await asyncio.gather(*tasks.values(), return_exceptions=True), strict=True))
        for name, error in done.items():
            if error is None:
                self.customers[name].add(customer)
            elif not isinstance(error, LookupError | asyncpg.UniqueViolationError | asyncpg.InFailedSQLTransactionError):
                assert isinstance(error, DatabaseUnavailable | asyncio.CancelledError), error
                self.doubtful[name].add(customer)  # the COMMIT may have been on its way

    async def _write(self, tenant: Tenant, end: str, customer: str) -> None:
        async with self.lanes.of(tenant.tenant_id).scope(tenant) as scoped:
            await scoped.execute(ADD, customer, tenant.name)
            assert {row["name"] for row in await scoped.fetch(WHOSE)} == {tenant.name}
            if end == "raise":
                raise LookupError
            if end == "swallow":
                with pytest.raises(asyncpg.UndefinedTableError):
                    await scoped.execute("SELECT FROM nowhere")

    async def _kill(self) -> None:
        self.shaken = set(self.recording.lanes)
        await self.control.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'billingwatch%'"
        )

    @precondition(lambda self: self.tenants)
    @rule()
    def kill(self) -> None:
        self.run(self._kill())

    @precondition(lambda self: self.tenants)
    @rule()
    def read_every_tenant(self) -> None:
        self.run(self._read())

    async def _read(self) -> None:
        for name, tenant in self.tenants.items():
            events, customers = await self._rows(tenant)
            stored = {row["event_id"]: row["deliveries"] for row in events}
            assert len(stored) == len(events)
            assert {row["tenant"] for row in events} <= {name}
            assert set(self.acked[name]) <= set(stored) <= set(self.tried[name])
            assert all(self.acked[name][event_id] <= count <= self.tried[name][event_id] for event_id, count in stored.items())
            waiting = await self.control.fetch("SELECT event_id FROM control.pending_events WHERE tenant_id = $1", tenant.tenant_id)
            assert sorted(row["event_id"] for row in waiting) == sorted(stored)
            assert {row["name"] for row in customers} <= {name}
            assert self.customers[name] <= {row["customer_id"] for row in customers} <= self.customers[name] | self.doubtful[name]

    async def _rows(self, tenant: Tenant) -> tuple[list[asyncpg.Record], list[asyncpg.Record]]:
        for _ in range(3):  # a killed connection may be noticed with its first use only
            try:
                async with self.lanes.of(tenant.tenant_id).scope(tenant, readonly=True) as scoped:
                    return await scoped.fetch(EVENTS), await scoped.fetch(WHOSE)
            except DatabaseUnavailable:
                await asyncio.sleep(0.01)
        pytest.fail("the lane did not recover")

    def teardown(self) -> None:
        with self.runner:
            if hasattr(self, "control"):
                self.run(self._finish())

    async def _finish(self) -> None:
        try:
            await self.recorder.close()
            await self._read()
            await self._assert_nothing_lies_outside()
        finally:
            await self.recorder.close()
            await self.lanes.close()
            await self.control.close()
            await self.admin.execute(f"DROP DATABASE {self.name} WITH (FORCE)")
            await self.admin.close()

    async def _assert_nothing_lies_outside(self) -> None:
        for lane in self.lanes.lanes:
            async with lane.hold() as connection:
                with pytest.raises(asyncpg.UndefinedTableError):
                    await connection.fetch(EVENTS)
        assert await self.control.fetch("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace") == []


def test_no_row_ever_crosses_and_what_was_acknowledged_is_there_once(server, template, make_delivery):
    machine = type("OnThisServer", (Tenants,), {"server": server, "template": template, "make_delivery": staticmethod(make_delivery)})

    run_state_machine_as_test(machine, settings=settings(max_examples=10, stateful_step_count=15, suppress_health_check=list(HealthCheck)))
