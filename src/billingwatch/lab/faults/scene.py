"""The scene of a round: what a fault can reach."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from billingwatch.lab.faults.deployment import Deployment
from billingwatch.lab.faults.stream import Stream
from billingwatch.lab.fleet import Member
from billingwatch.lab.server import ServerFailed
from billingwatch.lab.stage import Stage
from billingwatch.postgres.postmaster import find_postmaster

ATTACK_WAIT = 30.0  # seconds until an attack is under way


class Pipe(msgspec.Struct, kw_only=True):
    """The service's log pipe. `reader` is None once it is closed."""

    reader: int | None
    writer: int


class AttackOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What the attacking process does until it is killed. `dsn`, `path` and `key` may be empty."""

    kind: str
    port: int
    path: str = ""
    key: str = ""
    dsn: str = ""


class Scene(msgspec.Struct, kw_only=True):
    """One round of a scenario. `notes` takes what a fault finds wrong."""

    stage: Stage
    deployment: Deployment
    members: list[Member]
    stream: Stream
    seconds: float
    directory: Path
    clock: Path  # holds the offset of the service's clock in seconds, where the scenario shifts it
    pipe: Pipe | None = None
    disk: Path | None = None
    notes: list[str] = []

    @property
    def data(self) -> Path:
        return self.stage.settings.data_dir / "postgres" / "data"

    @property
    def postmaster(self) -> int:
        """The pid of the embedded server. ServerFailed when it does not run."""
        found = find_postmaster(self.data)
        if found is None:
            raise ServerFailed(reason=f"no PostgreSQL runs in {self.data}")
        return found.pid

    @property
    def open_pipe(self) -> Pipe:
        if self.pipe is None:
            raise ServerFailed(reason="the service of this scenario does not log into a pipe")
        return self.pipe

    @asynccontextmanager
    async def attacked(self, order: AttackOrder) -> AsyncIterator[None]:
        """Run an attack in a process of its own while the block runs."""
        with (self.directory / "attacker.log").open("wb") as log:
            process = subprocess.Popen(  # noqa: ASYNC220 - takes milliseconds, between two measurements
                [sys.executable, "-P", "-m", "billingwatch.lab.faults.attacker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        try:
            if process.stdin is None or process.stdout is None:
                raise ServerFailed(reason="the attacker has no pipes")
            process.stdin.write(msgspec.json.encode(order) + b"\n")
            process.stdin.close()
            begun = await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), ATTACK_WAIT)
            if not begun:
                words = (self.directory / "attacker.log").read_text(errors="replace")
                raise ServerFailed(reason=f"the attack `{order.kind}` did not begin: {words[-500:]}")
            yield
            if process.poll() is not None:
                words = (self.directory / "attacker.log").read_text(errors="replace")
                self.notes.append(f"the attack ended early: {words.strip()[-200:]}")
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
