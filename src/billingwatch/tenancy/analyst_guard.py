"""Limits on analysts that their sessions cannot lift, because the service enforces them from outside.

A session may set `statement_timeout` to 0, and a role may change its own password and defaults. The guard ends
transactions and idle sessions by their age, and restores passwords and defaults.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import asyncpg
import structlog

from billingwatch.errors import DatabaseUnavailable
from billingwatch.postgres.connections import UNAVAILABLE, ControlConnection, discard, open_connection
from billingwatch.postgres.statements import load_statements
from billingwatch.settings import Settings
from billingwatch.supervision import SupervisedTask
from billingwatch.tenancy.analysts import defaults, secure_database, set_defaults
from billingwatch.tenancy.analysts import sql as analysts_sql

log = structlog.get_logger()
sql = load_statements(__file__, "analyst_guard.sql")

CHECK_SECONDS = 30.0
PASSWORD_SECONDS = 300.0  # between two restorations by a role that may not compare passwords
SUPERUSERS_ALONE = "temp_file_limit"  # of an analyst's defaults; the role cannot change it


class AnalystGuard:
    """Checks all analysts every `CHECK_SECONDS`. Each processing process runs one; one of them checks at a time."""

    def __init__(self, dsn: str, *, transaction_limit: timedelta, idle_limit: timedelta, statement_timeout: int = 30) -> None:
        self.task = SupervisedTask("analyst guard", self._run)
        self._dsn = dsn
        self._transaction_limit = transaction_limit
        self._idle_limit = idle_limit
        self._statement_timeout = statement_timeout
        self._passwords_restored = float("-inf")
        self._secured = False

    def start(self) -> None:
        self.task.start()

    async def close(self) -> None:
        await self.task.stop()

    async def check(self) -> bool:
        """End overdue sessions and restore roles. Return False if another process is doing so.

        Raises DatabaseUnavailable.
        """
        connection = await open_connection(self._dsn, "billingwatch analysts", statement_timeout=self._statement_timeout)
        try:
            control = ControlConnection(connection)
            async with control.transaction():
                if not await control.fetchval(sql["claim"]):
                    return False
                analysts = await control.fetch(sql["analysts"])
                if analysts and analysts[0]["is_superuser"]:
                    await self._secure(control)
                blind = self._may_restore_blindly()
                for analyst in analysts:
                    await self._guard(control, analyst, restore_password=blind)
            for row in await control.fetch(sql["render_rollbacks"], self._transaction_limit):
                await control.execute(row["statement"])
                log.warning("analysts.prepared_transaction_ended", gid=row["gid"])
        finally:
            await discard(connection)
        return True

    async def _secure(self, control: ControlConnection) -> None:
        """Revoke once what `analysts create` revokes, because analysts of earlier releases still have those privileges."""
        if self._secured:
            return
        try:
            async with control.transaction():
                await secure_database(control)
        except asyncpg.PostgresError as error:
            log.warning("analysts.database_not_secured", error=str(error))
        else:
            self._secured = True

    async def _guard(self, control: ControlConnection, analyst: asyncpg.Record, *, restore_password: bool) -> None:
        """Check one analyst in a savepoint, so that a failure leaves the others checked."""
        role = analyst["role_name"]
        known = log.bind(role=role, tenant_id=analyst["tenant_id"])
        try:
            async with control.transaction():
                if not analyst["is_member"]:
                    await control.execute(await control.fetchval(sql["render_join"], role))
                for ended in await control.fetch(sql["end_overdue_sessions"], role, self._transaction_limit, self._idle_limit):
                    known.warning(
                        "analysts.session_ended",
                        pid=ended["pid"],
                        reason=ended["reason"],
                        seconds=ended["seconds"],
                    )
                if self._settings_differ(control, analyst):
                    await set_defaults(control, role, analyst["schema_name"])
                    known.warning("analysts.settings_restored", found=analyst["settings"])
                await self._restore_password(control, analyst, blind=restore_password)
        except asyncpg.PostgresError as error:
            known.warning("analysts.not_checked", error=str(error))

    def _settings_differ(self, control: ControlConnection, analyst: asyncpg.Record) -> bool:
        wanted = defaults(analyst["schema_name"], major=control.get_server_version().major)
        wanted.pop(SUPERUSERS_ALONE)
        return analyst["set_elsewhere"] or set(analyst["settings"]) != {f"{name}={value}" for name, value in wanted.items()}

    async def _restore_password(self, control: ControlConnection, analyst: asyncpg.Record, *, blind: bool) -> None:
        role, verifier = analyst["role_name"], analyst["verifier"]
        if verifier is None:
            return
        if analyst["is_superuser"]:
            if not await control.fetchval(sql["password_differs"], role, verifier):
                return
            log.warning("analysts.password_restored", role=role, tenant_id=analyst["tenant_id"])
        elif not blind:
            return
        await control.execute(await control.fetchval(analysts_sql["render_password"], role, verifier))

    def _may_restore_blindly(self) -> bool:
        now = asyncio.get_running_loop().time()
        if now - self._passwords_restored < PASSWORD_SECONDS:
            return False
        self._passwords_restored = now
        return True

    async def _run(self) -> None:
        failing = False
        while True:
            try:
                await self.check()
                failing = False
            except (DatabaseUnavailable, *UNAVAILABLE, asyncpg.PostgresError) as error:
                if not failing:  # one line per outage
                    log.warning("analysts.check_failed", error=str(error))
                failing = True
            await asyncio.sleep(CHECK_SECONDS)


def make_guard(settings: Settings, dsn: str) -> AnalystGuard:
    return AnalystGuard(
        dsn,
        transaction_limit=timedelta(minutes=settings.analyst_transaction_minutes),
        idle_limit=timedelta(hours=settings.analyst_idle_hours),
        statement_timeout=settings.statement_timeout,
    )
