"""Purchases stop, or become fewer, because a checkout is broken."""

from __future__ import annotations

from billingwatch.simulate.incidents.scenes import Scene
from billingwatch.simulate.profiles import Profile
from billingwatch.simulate.seasons import DAY, HOUR, day_start, intensity
from billingwatch.simulate.world import Closure

DROP_LASTS = 3 * DAY  # at most
SHORTEST = 8 * HOUR
NOTICED = 60  # purchases lost; forty of an account that sells sixty a day are hardly more than chance takes
MADE_UP = 0.5  # of what is bought on days without a sale
SOLD_PER_DAY = 20  # without so many purchases nobody would see their number fall


def close_checkout(scene: Scene) -> None:
    """Lose most purchases for hours, or for days where few people buy."""
    world = scene.world
    share = scene.between(0.6, 1.0)
    needed = int(NOTICED / share / max(world.profile.purchases_per_day, 1) * DAY)
    lasts = min(DROP_LASTS, int(max(SHORTEST, needed) * scene.between(1.0, 1.5)))
    world.closures.append(Closure(start=scene.at, end=scene.at + lasts, share=share))
    scene.started_at, scene.ended_at = scene.at, scene.at + lasts
    # A sale may bring in as much as the checkout loses: then less money came in than could have, but not much less than ever.
    scene.arguable = (1 - share) * _raised(scene, scene.at + lasts) > MADE_UP
    scene.description = f"{share:.0%} of purchases were lost for {lasts // HOUR} hours"


def _raised(scene: Scene, end: int) -> float:
    """Tell how many times as many people as on ordinary days would buy while the checkout is broken."""
    world = scene.world
    hours = [(hour, intensity(hour, world.profile.weekend)) for hour in range(scene.at, end, HOUR)]
    return sum(usual * world.sales.get(day_start(hour), 1.0) for hour, usual in hours) / sum(usual for _, usual in hours)


def sells_enough(profile: Profile) -> bool:
    """Tell whether purchases are many enough for their absence to show."""
    return profile.purchases_per_day >= SOLD_PER_DAY
