"""The grid: which cells a run has, and in which order they are measured.

Whatever is compared is measured close together: within one number of tenants, repetition by repetition, the arms of a dimension follow
each other, each repetition beginning with another arm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from billingwatch.lab.isolation.arms import ARMS
from billingwatch.lab.isolation.cell import Cell, Scale, Volume
from billingwatch.lab.isolation.dimension import Dimension

VOLUMES: tuple[Volume, ...] = ("each", "total")


def cells(dimensions: Sequence[Dimension], scale: Scale, arms: Sequence[str] = tuple(ARMS)) -> Iterator[Cell]:
    """All cells, in the order in which they are to be measured."""
    for tenants in scale.tenants:
        for volume in VOLUMES:
            for repetition in range(scale.repetitions):
                for dimension in dimensions:
                    if volume not in dimension.volumes or tenants < dimension.fewest:
                        continue
                    if repetition and tenants >= dimension.once_from:
                        continue
                    compared = [arm for arm in dimension.arms if arm in arms]
                    turn = repetition % max(len(compared), 1)
                    for choice in dimension.choices:
                        for arm in compared[turn:] + compared[:turn]:
                            yield Cell(
                                dimension=dimension.key, arm=arm, tenants=tenants, choice=choice, volume=volume, repetition=repetition
                            )
