"""The run: the cells that are missing, in the order of the grid, worlds made as they are needed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import groupby

from billingwatch.clock import utc_now
from billingwatch.errors import BillingWatchError, InputInvalid
from billingwatch.lab.isolation.arms import ARMS
from billingwatch.lab.isolation.cell import Cell, Scale
from billingwatch.lab.isolation.dimension import Dimension
from billingwatch.lab.isolation.grid import cells
from billingwatch.lab.isolation.registry import DIMENSIONS
from billingwatch.lab.isolation.results import About, Result, Results
from billingwatch.lab.isolation.world import Task, World, open_world
from billingwatch.lab.machine import this_machine
from billingwatch.lab.run import Say
from billingwatch.lab.stage import Stage, open_stage
from billingwatch.postgres.statements import load_statements
from billingwatch.release import release
from billingwatch.settings import Settings

sql = load_statements(__file__, "run.sql")

Show = Callable[[int, int], None]
"""Cells done, and all cells."""


class CellsFailed(BillingWatchError):
    """{count} measurements could not be made"""

    hint = "run it again: it goes on with those"


def run_experiment(
    settings: Settings, scale: Scale, results: Results, *, dimensions: Sequence[Dimension], arms: Sequence[str], say: Say, show: Show
) -> None:
    """Measure what `results` does not have yet; a run that was broken off goes on where it stood.

    A cell that fails is told of, and its world, which may be spoiled, is not used any more; the others go on. CellsFailed in the end.
    InputInvalid when there is nothing to measure.
    """
    wanted = list(cells(dimensions, scale, arms))
    if not wanted:
        raise _nothing_to_measure(dimensions, arms)
    missing = [cell for cell in wanted if not results.has(cell)]
    done = len(wanted) - len(missing)
    failed = 0
    show(done, len(wanted))
    with open_stage(settings) as ground:
        results.begin(asyncio.run(_about(ground, scale)))
        for (tenants, volume), group in groupby(missing, key=lambda cell: (cell.tenants, cell.volume)):
            together = list(group)
            with ExitStack() as worlds:
                made: dict[object, World] = {}
                for arm in {ARMS[cell.arm].data: ARMS[cell.arm] for cell in together}.values():
                    say(f"{arm.title}: {tenants:,} tenants")
                    made[arm.data] = worlds.enter_context(open_world(ground, arm, tenants, volume, scale, say))
                for cell in together:
                    world = made.get(ARMS[cell.arm].data)
                    if world is None:
                        failed += 1
                        continue
                    say(f"{DIMENSIONS[cell.dimension].title}: {ARMS[cell.arm].title}, {tenants:,} tenants, {cell.choice}")
                    try:
                        result = _measure(Task(cell=cell, scale=scale, world=world))
                    except Exception as error:  # noqa: BLE001 - hours of other measurements must not be lost to it
                        say(f"failed: {type(error).__name__}: {error}")
                        del made[ARMS[cell.arm].data]
                        failed += 1
                        continue
                    results.keep(result)
                    done += 1
                    show(done, len(wanted))
    if failed:
        raise CellsFailed(count=failed)


def _nothing_to_measure(dimensions: Sequence[Dimension], arms: Sequence[str]) -> InputInvalid:
    names = ", ".join(dimension.key for dimension in dimensions)
    if any(set(dimension.arms) & set(arms) for dimension in dimensions):
        return InputInvalid(reason=f"{names}: not measured with so few tenants", hint="what a tenant does to others takes more of them")
    return InputInvalid(
        reason=f"{names}: not measured for {', '.join(arms)}",
        hint=f"only {', '.join(dimension.key for dimension in DIMENSIONS.values() if set(dimension.arms) & set(arms))} is",
    )


def _measure(task: Task) -> Result:
    cell: Cell = task.cell
    began_at, began = utc_now(), time.monotonic()
    figures = dict(DIMENSIONS[cell.dimension].measure(task))
    return Result(cell=cell, figures=figures, began_at=began_at, seconds=round(time.monotonic() - began, 3))


async def _about(ground: Stage, scale: Scale) -> About:
    async with ground.control() as control:
        return About(
            machine=this_machine(),
            postgres=await control.fetchval(sql["version"]),
            settings={row["name"]: row["setting"] for row in await control.fetch(sql["settings"])},
            release=release(),
            scale=scale,
        )
