"""Purchases stop, or become fewer, because a checkout is broken."""

from __future__ import annotations

from billingwatch.simulate.incidents.scenes import Scene
from billingwatch.simulate.profiles import Profile
from billingwatch.simulate.seasons import DAY, HOUR
from billingwatch.simulate.world import Closure

DROP_LASTS = 3 * DAY  # at most
SHORTEST = 8 * HOUR
NOTICED = 60  # purchases lost; forty of an account that sells sixty a day are hardly more than chance takes
SOLD_PER_DAY = 20  # without so many purchases nobody would see their number fall


def close_checkout(scene: Scene) -> None:
    """Lose most purchases for hours, or for days where few people buy."""
    world = scene.world
    share = scene.between(0.6, 1.0)
    needed = int(NOTICED / share / max(world.profile.purchases_per_day, 1) * DAY)
    lasts = min(DROP_LASTS, int(max(SHORTEST, needed) * scene.between(1.0, 1.5)))
    world.closures.append(Closure(start=scene.at, end=scene.at + lasts, share=share))
    scene.started_at, scene.ended_at = scene.at, scene.at + lasts
    scene.description = f"{share:.0%} of purchases were lost for {lasts // HOUR} hours"


def sells_enough(profile: Profile) -> bool:
    """Tell whether purchases are many enough for their absence to show."""
    return profile.purchases_per_day >= SOLD_PER_DAY
