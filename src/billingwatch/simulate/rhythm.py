"""How often something happens in an account by its true rates, whatever chance makes of them: what the best observer could know."""

from __future__ import annotations

import math
from collections.abc import Iterator

from billingwatch.simulate.business import FIRST_HOURS, joining_per_day, purchases_per_day
from billingwatch.simulate.seasons import DAY, HOUR, day_start, moment
from billingwatch.simulate.world import World

MONTH, YEAR = 30, 365  # days


class Rhythm:
    """The true rates of an account. What follows from a purchase or a renewal (refunds, disputes, retries) is not counted."""

    def __init__(self, world: World) -> None:
        self._world = world

    def expected(self, since: int, until: int) -> float:
        """How many purchases, sign-ups and renewals there are on average between two moments."""
        return sum(self._per_hour(hour) * (end - begin) / HOUR for hour, begin, end in _hours(since, until))

    def shows(self, since: int, until: int) -> bool:
        """Whether chance makes a silence like this less than once a year, so that whoever knows the rates can tell it from chance.

        The first of the things that are due comes after a silence of as many expected ones or more with a chance of e^-expected, and each
        thing that happens begins a silence.
        """
        a_year = self.expected(self._world.start, self._world.end) * YEAR * DAY / (self._world.end - self._world.start)
        return a_year * math.exp(-self.expected(since, until)) < 1

    def _per_hour(self, hour: int) -> float:
        return (purchases_per_day(self._world, hour) + joining_per_day(self._world, hour) + self._renewals_per_day(hour)) * HOUR / DAY

    def _renewals_per_day(self, hour: int) -> float:
        profile = self._world.profile
        # An invoice that is sent is heard of again when it is paid.
        monthly = profile.customers * profile.subscribed * (1 - profile.yearly) * (1 + profile.invoiced)
        together = profile.month_start if moment(hour).day == 1 and hour - day_start(hour) < FIRST_HOURS else 0.0
        return monthly * (together * DAY / FIRST_HOURS + (1 - profile.month_start) / MONTH)


def _hours(since: int, until: int) -> Iterator[tuple[int, int, int]]:
    """Give each hour that lies between the two in part, and where that part begins and ends."""
    for hour in range(since - since % HOUR, until, HOUR):
        yield hour, max(hour, since), min(hour + HOUR, until)
