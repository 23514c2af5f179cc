"""Analysts of the experiment: the product makes their roles, and they come in as they would with psql."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from billingwatch.lab.fleet import Member
from billingwatch.lab.isolation.world import Task
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.analysts import AnalystCreated, analyst_dsn, create_analyst, revoke_analyst

sql = load_statements(__file__, "analysts.sql")


@asynccontextmanager
async def session_of(task: Task, analyst: AnalystCreated) -> AsyncIterator[asyncpg.Connection]:
    """Let an analyst in, with what its role brings and nothing of ours."""
    session = await asyncpg.connect(analyst_dsn(task.stage.dsn, analyst.role, analyst.password))  # noqa: TID251 - not the service
    try:
        yield session
    finally:
        await session.close()


@asynccontextmanager
async def analyst_of(task: Task, member: Member) -> AsyncIterator[asyncpg.Connection]:
    """A session of an analyst who is there for this block alone."""
    async with task.stage.control() as connection:
        analyst = await create_analyst(connection, await connection.fetchval(sql["name_of_tenant"], member.tenant_id))
        try:
            async with session_of(task, analyst) as session:
                yield session
        finally:
            await revoke_analyst(connection, analyst.role)
