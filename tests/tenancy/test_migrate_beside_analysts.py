"""A migration waits briefly for analysts who use the tables, and then ends their sessions."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from billingwatch.tenancy.analysts import analyst_dsn, create_analyst, revoke_analyst
from billingwatch.tenancy.fleet import migrate_fleet
from billingwatch.tenancy.fleet_plan import Options
from billingwatch.tenancy.isolation import Isolation

pytestmark = pytest.mark.both_isolations

ADD = "ALTER TABLE customers ADD COLUMN nickname text"


async def test_open_transaction_of_an_analyst_is_ended_for_a_migration(
    control: Any, database: str, isolation: Isolation, release: Any, provision_tenant: Any
) -> None:
    await provision_tenant("acme")
    analyst = await create_analyst(control, "acme")
    session = await asyncpg.connect(analyst_dsn(database, analyst.role, analyst.password))
    await session.execute("SET idle_in_transaction_session_timeout = 0; BEGIN; SELECT FROM customers")
    release.add("tenant", ADD)

    with capture_logs() as logs:
        async with asyncio.timeout(30):
            outcome = await migrate_fleet(control, database, Options(isolation=isolation))

    assert [result.error for result in outcome.results] == [None]
    assert [line["reason"] for line in logs if line["event"] == "analysts.session_ended"] == ["migration"]
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)):
        await session.execute("SELECT 1")
    session.terminate()
    await revoke_analyst(control, analyst.role)
