"""A world: a database in one isolation, with tenants that have a history, for the arms that share it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import msgspec

from billingwatch.lab.figures import Options
from billingwatch.lab.fleet import Fleet, Member
from billingwatch.lab.isolation.arms import ARMS, Arm
from billingwatch.lab.isolation.cell import Cell, Scale, Volume
from billingwatch.lab.isolation.fill import fill
from billingwatch.lab.load_process import LoadProcess
from billingwatch.lab.run import Run, Say
from billingwatch.lab.server import ServerProcess
from billingwatch.lab.stage import Stage, open_stage

CONNECTIONS = 64  # of the load process


class World:
    """A database and its tenants. The first tenant is the huge one, where a dimension asks for one."""

    def __init__(self, ground: Stage, stage: Stage, fleet: Fleet, run: Run) -> None:
        self.ground = ground
        self.stage = stage
        self.fleet = fleet
        self.run = run

    @property
    def members(self) -> list[Member]:
        return self.fleet.members


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One cell to be measured in its world."""

    cell: Cell
    scale: Scale
    world: World

    @property
    def arm(self) -> Arm:
        return ARMS[self.cell.arm]

    @property
    def members(self) -> list[Member]:
        return self.world.members

    @property
    def stage(self) -> Stage:
        return self.world.stage

    def random(self) -> Random:
        """The same numbers for every arm."""
        return Random(self.cell.seed)

    def serve(self, *arguments: str) -> ServerProcess:
        """The service of the arm: the product's, or the pooled one."""
        if not self.arm.pooled:
            return self.stage.serve(*arguments)
        return ServerProcess(["billingwatch.lab.isolation.pooled"], self.stage.environ, self.stage.directory / "pooled.log")

    def load(self) -> LoadProcess:
        """A process that posts to the tenants."""
        return LoadProcess([member.target for member in self.members])

    def books(self) -> Run:
        """A run of phases of its own, with the cell's draw and seed, whose costs are the cell's."""
        options = Options(
            tenants=self.cell.tenants,
            seconds=self.scale.seconds,
            rate=1,
            zipf=self.cell.choice == "zipf",
            connections=CONNECTIONS,
            seed=self.cell.seed,
        )
        return self.world.run.again(options)


@contextmanager
def open_world(ground: Stage, arm: Arm, tenants: int, volume: Volume, scale: Scale, say: Say) -> Iterator[World]:
    """Make a database on the server of `ground`, provision its tenants as every tenant is, and give them their history."""
    settings = msgspec.structs.replace(ground.settings, database_url=ground.dsn, isolation=arm.isolation, partitions=arm.partitions)
    with open_stage(settings) as stage:
        run = Run(stage, Options(tenants=tenants, seconds=1, rate=1, zipf=False, connections=CONNECTIONS, seed=0), say)
        fleet = run.provision(tenants)
        rows = scale.rows_each if volume == "each" else max(scale.rows_total // tenants, 1)
        say(f"{rows:,} charges for each of {tenants:,} tenants")
        asyncio.run(fill(stage, fleet.members, rows, huge=scale.rows_huge))
        yield World(ground, stage, fleet, run)
