"""Provisioning: a new tenant, and what those notice who are there already."""

from __future__ import annotations

import asyncio
import threading
import time
from statistics import median

from billingwatch.lab.isolation.dimension import Dimension, Figures, Measure
from billingwatch.lab.isolation.online import create_online
from billingwatch.lab.isolation.rest import await_rest
from billingwatch.lab.isolation.world import Task
from billingwatch.lab.latency import summarize
from billingwatch.postgres.connections import ControlConnection
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.changes import announce_change
from billingwatch.tenancy.provision import provision
from billingwatch.tenancy.remove import remove_tenant
from billingwatch.tenancy.sealing import open_seal
from billingwatch.tenancy.tenants import new_api_key, new_webhook_token, token_hash

sql = load_statements(__file__, "provision.sql")

NEW = 10  # tenants
OFFERED = 200  # events/s of the bystanders
PAUSE = 0.1  # seconds between two tenants while others send
PATIENCE = 300  # seconds, at most, until autovacuum is at rest
MILLI = 1000


def measure(task: Task) -> Figures:
    """New tenants while nothing else goes on, some of them prepared, then while the others send events."""
    run = task.books()
    rendered, prepared = asyncio.run(_provision(task))
    with task.serve("--no-worker") as service, task.load() as load:
        run.sweep(load, service)
        quiet = summarize(run.post("quiet", load, service, run.phase(service, task.scale.seconds, rate=OFFERED)).latencies)
        load.prepare(run.phase(service, task.scale.seconds, rate=OFFERED))
        work = threading.Thread(target=lambda: asyncio.run(_come(task)))
        work.start()
        load.start()
        busy = summarize(load.finish().latencies)
        work.join()
    asyncio.run(_remove(task))
    online = asyncio.run(_online(task)) if task.arm.isolation == "schema" else []
    return {
        **({"online": median(online) * MILLI} if online else {}),
        "rendered": median(rendered) * MILLI,
        "prepared": median(prepared) * MILLI,
        **({"quiet_p99": quiet.p99} if quiet else {}),
        **({"busy_p99": busy.p99} if busy else {}),
    }


async def _provision(task: Task) -> tuple[list[float], list[float]]:
    rendered: list[float] = []
    prepared: list[float] = []
    async with task.stage.control() as control:
        await await_rest(control, patience=PATIENCE)
        for number in range(NEW):
            began = time.perf_counter()
            await _new(task, control, f"new-{number}")
            rendered.append(time.perf_counter() - began)
        for number in range(NEW):
            began = time.perf_counter()
            await _claim(control, f"new-{number}", f"claimed-{number}")
            prepared.append(time.perf_counter() - began)
    return rendered, prepared


async def _online(task: Task) -> list[float]:
    times: list[float] = []
    async with task.stage.control() as control:
        for _ in range(NEW):
            began = time.perf_counter()
            name = await create_online(task)
            times.append(time.perf_counter() - began)
            await control.execute(f"DROP SCHEMA {name} CASCADE")
    return times


async def _new(task: Task, control: ControlConnection, name: str) -> None:
    await provision(control, open_seal(task.stage.settings), name, secrets=["whsec_a_new_tenant"])


async def _claim(control: ControlConnection, spare: str, name: str) -> None:
    """Give a tenant that was provisioned in advance its name, its URL and its key."""
    key = new_api_key()
    async with control.transaction():
        tenant_id = await control.fetchval(sql["claim"], spare, name, token_hash(new_webhook_token()))
        await control.execute(sql["insert_api_key"], token_hash(key), tenant_id, key[:7])
        await announce_change(control, tenant_id)


async def _come(task: Task) -> None:
    async with task.stage.control() as control:
        end = asyncio.get_running_loop().time() + task.scale.seconds
        number = 0
        while asyncio.get_running_loop().time() < end:
            await _new(task, control, f"busy-{number}")
            number += 1
            await asyncio.sleep(PAUSE)


async def _remove(task: Task) -> None:
    async with task.stage.control() as control:
        for row in await control.fetch(sql["guests"]):
            await remove_tenant(control, row["name"])


DIMENSION = Dimension(
    key="provision",
    title="Provisioning",
    method=f"{NEW} tenants, one after the other, as the product provisions them, once autovacuum is at rest, which is waited for up to "
    f"{PATIENCE // 60} minutes: control row, secret, key, and with schemas the migrations' rendered SQL, one "
    "transaction each; median. Online means that Alembic connects and runs the revisions itself, one after the other. Prepared in advance means that the tables are there and a tenant only gets its name, its URL and its key. "
    f"Bystanders: the tenants that are there send {OFFERED} events/s, first alone, then while a tenant comes every {PAUSE * 1000:.0f} ms. The new tenants are removed.",
    measures=(
        Measure(key="rendered", title="a new tenant", unit="ms", headline=True),
        Measure(key="online", title="a new tenant's tables by Alembic, online", unit="ms", better=None),
        Measure(key="prepared", title="a new tenant, prepared in advance", unit="ms"),
        Measure(key="quiet_p99", title="bystanders' p99, nobody comes", unit="ms"),
        Measure(key="busy_p99", title="bystanders' p99 while tenants come", unit="ms", headline=True),
    ),
    measure=measure,
)
