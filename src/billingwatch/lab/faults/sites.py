"""Where scenarios run: a stage with its tenants, and the service on it. Scenarios that fit share both."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import msgspec

from billingwatch.lab.faults.deployment import Deployment
from billingwatch.lab.faults.disk import small_disk
from billingwatch.lab.faults.logs import drain
from billingwatch.lab.faults.postgres import end_postgres
from billingwatch.lab.faults.round import run_round
from billingwatch.lab.faults.row import RoundResult
from billingwatch.lab.faults.scenario import Scenario
from billingwatch.lab.faults.scene import Pipe, Scene
from billingwatch.lab.faults.shifted import OFFSET_FILE
from billingwatch.lab.faults.stream import Stream
from billingwatch.lab.fleet import Member, provision_fleet
from billingwatch.lab.stage import Stage, open_stage
from billingwatch.settings import Settings
from billingwatch.tenancy.sealing import open_seal

TENANTS = 6
RATE = 40.0  # events/s in all; the service is to be struck, not to be loaded
SERVICE_RATE_LIMIT = "100"  # BILLINGWATCH_RATE_LIMIT's default: attacks must not use up a tenant's rate


class FaultOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`seconds` replaces the length of each fault; None keeps the scenario's own."""

    rounds: int = 1
    seconds: float | None = None
    quick: bool = False
    seed: int = 1


class Site(msgspec.Struct, kw_only=True):
    """A stage with its tenants, and the service that runs there. Scenarios with the same key may use it."""

    key: object
    stack: ExitStack
    stage: Stage
    members: list[Member]
    logs: Path
    disk: Path | None
    deployment: Deployment | None = None
    deployment_key: object = None
    pipe: Pipe | None = None

    def stop(self) -> None:
        if self.deployment is not None:
            self.deployment.stop()
        self.deployment = None
        if self.pipe is not None:
            drain(self.pipe.reader)
            for end in (self.pipe.reader, self.pipe.writer):
                if end is not None:
                    os.close(end)
        self.pipe = None


class Sites:
    """Keeps one site at a time; `clear` ends it, and the next scenario gets a new one."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._site: Site | None = None
        self._used = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def clear(self) -> None:
        """End the service, then the database, then remove the directories."""
        current, self._site = self._site, None
        if current is not None:
            current.stack.close()

    def run(self, scenario: Scenario, options: FaultOptions, *, seed: int) -> RoundResult:
        """Run one round at a site that fits."""
        key = (scenario.small_disk, scenario.log_on_disk)
        if self._site is None or self._site.key != key:
            self.clear()
            self._site = self._open(scenario, key)
        current = self._site
        deployment = self._deploy(current, scenario)
        self._used += 1
        seconds = scenario.seconds if options.seconds is None else options.seconds
        if options.quick and options.seconds is None and scenario.quick is not None:
            seconds = scenario.quick
        scene = Scene(
            stage=current.stage,
            deployment=deployment,
            members=current.members,
            stream=Stream(
                [member.target for member in current.members],
                deployment.port,
                RATE,
                seed=seed * 1000 + self._used,
            ),
            seconds=seconds,
            directory=current.logs,
            clock=current.logs / "clock",
            pipe=current.pipe,
            disk=current.disk,
        )
        return asyncio.run(run_round(scenario, scene, quick=options.quick))

    def _open(self, scenario: Scenario, key: object) -> Site:
        with ExitStack() as stack:
            disk = stack.enter_context(small_disk()) if scenario.small_disk else None
            ending = stack.enter_context(ExitStack())
            stage = stack.enter_context(open_stage(self.settings, within=disk))
            ending.callback(end_postgres, stage.settings.data_dir)
            on_stage = scenario.log_on_disk or disk is None
            logs = stage.directory if on_stage else stack.enter_context(_directory())
            members = asyncio.run(_provision(stage))
            made = Site(key=key, stack=stack.pop_all(), stage=stage, members=members, logs=logs, disk=disk)
        made.stack.callback(made.stop)
        return made

    def _deploy(self, current: Site, scenario: Scenario) -> Deployment:
        key = (scenario.layout, dict(scenario.environ), scenario.output, scenario.shifted_clock)
        fits = current.deployment_key == key and scenario.output == "file"
        if current.deployment is not None and fits and current.deployment.running:
            return current.deployment
        current.stop()
        environ = {
            **current.stage.environ,
            "BILLINGWATCH_RATE_LIMIT": SERVICE_RATE_LIMIT,
            "TMPDIR": str(current.logs),  # a killed process leaves its temporary files there
            **scenario.environ,
        }
        if scenario.shifted_clock:
            clock = current.logs / "clock"
            clock.write_text("0", encoding="ascii")
            environ[OFFSET_FILE] = str(clock)
        if scenario.output == "pipe":
            reader, writer = os.pipe()
            os.set_blocking(reader, False)
            current.pipe = Pipe(reader=reader, writer=writer)
        current.deployment_key = key
        current.deployment = Deployment(
            scenario.layout,
            environ,
            current.logs / "service.log",
            launcher="billingwatch.lab.faults.shifted" if scenario.shifted_clock else "billingwatch",
            output=current.pipe.writer if current.pipe is not None else None,
        )
        current.deployment.await_listening()
        return current.deployment


@contextmanager
def _directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="billingwatch-faults-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def _provision(stage: Stage) -> list[Member]:
    async with stage.control() as control:
        fleet = await provision_fleet([control], open_seal(stage.settings), TENANTS, lambda _: None)
    return fleet.members
