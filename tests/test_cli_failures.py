"""Commands whose database or output fails: one line with the reason, one with the next step, exit code 2."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

COMMANDS = [("tenants", "pause", "acme"), ("keys", "create", "acme", "--name", "k"), ("tenants", "rotate-url", "acme")]
FULL = Path("/dev/full")


@pytest.fixture
def start(settings: Any) -> Callable[..., subprocess.Popen[str]]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BILLINGWATCH_")}
    environ |= {
        "BILLINGWATCH_DATABASE_URL": settings.database_url,
        "BILLINGWATCH_SECRET_KEY": settings.secret_key,
        "BILLINGWATCH_ISOLATION": settings.isolation,
    }

    def start(*arguments: str, stdout: Any = subprocess.PIPE, **changes: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-P", "-m", "billingwatch", *arguments]
        return subprocess.Popen(command, env=environ | changes, stdout=stdout, stderr=subprocess.PIPE, text=True)

    return start


async def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = await asyncio.to_thread(process.communicate, timeout=60)
    return process.returncode, said


@pytest.mark.parametrize("arguments", COMMANDS)
async def test_command_whose_session_is_ended_names_reason_and_next_step(
    arguments: tuple[str, ...], start: Any, control: Any, connect: Any, provision_tenant: Any
) -> None:
    await provision_tenant("acme")
    holder = await connect()
    await holder.execute("BEGIN; LOCK control.tenants")
    process = start(*arguments)
    waiting = "SELECT pid FROM pg_stat_activity WHERE application_name = 'billingwatch cli' AND wait_event_type = 'Lock'"
    async with asyncio.timeout(30):
        while (pid := await control.fetchval(f"{waiting} AND datname = current_database()")) is None:
            await asyncio.sleep(0.05)

    await control.execute("SELECT pg_terminate_backend($1)", pid)
    code, said = await finish(process)

    assert (code, "Traceback" in said) == (2, False)
    assert "error: the database is unavailable: " in said
    assert "hint: the command may have taken effect" in said


@pytest.mark.parametrize("arguments", COMMANDS)
async def test_command_on_a_read_only_database_names_the_reason(
    arguments: tuple[str, ...], start: Any, control: Any, provision_tenant: Any
) -> None:
    await provision_tenant("acme")
    name = await control.fetchval("SELECT current_database()")
    await control.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")

    code, said = await finish(start(*arguments))

    assert (code, "Traceback" in said) == (2, False)
    assert "in a read-only transaction" in said


async def test_command_without_a_database_names_the_setting(start: Any) -> None:
    code, said = await finish(start("tenants", "list", BILLINGWATCH_DATABASE_URL="postgresql://127.0.0.1:1/none"))

    assert code == 2
    assert "hint: start the server that BILLINGWATCH_DATABASE_URL names" in said


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [("tenants", "list"), ("keys", "create", "acme", "--name", "k"), ("keys", "list", "acme", "--json")])
async def test_command_whose_output_is_refused_reports_it(arguments: tuple[str, ...], start: Any, provision_tenant: Any) -> None:
    await provision_tenant("acme")
    full = os.open(FULL, os.O_WRONLY)
    code, said = await finish(start(*arguments, stdout=full))
    os.close(full)

    assert (code, "Traceback" in said) == (2, False)
    assert "error: the command is done, but its output could not be written: No space left on device" in said
