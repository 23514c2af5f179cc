"""One stream through the plain rules. What a rule says again of the same subject within an hour is one alarm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from billingwatch.lab.quality.rules import HOUR, RULES, Hit, Rule
from billingwatch.lab.quality.truth import Alarm
from billingwatch.simulate.deliveries import Delivery

SAYS_AGAIN = HOUR  # seconds in which the same alarm is not a new one


def plain_alarms(deliveries: Sequence[Delivery], *, until: int, rules: Sequence[type[Rule]] = RULES) -> list[Alarm]:
    """What the rules would have said about deliveries, which are in order of arrival."""
    alarms: list[Alarm] = []
    for make in rules:
        saying = _Saying(make.detector)
        rule = make()
        check = -(-deliveries[0].at // HOUR) * HOUR if deliveries else until + 1
        for delivery in deliveries:
            while check <= delivery.at:
                saying.say(check, rule.check(check))
                check += HOUR
            saying.say(delivery.at, rule.see(delivery.at, delivery.event))
        while check <= until:
            saying.say(check, rule.check(check))
            check += HOUR
        alarms += saying.alarms()
    return sorted(alarms, key=lambda alarm: alarm.detected_at)


class _Saying:
    """Makes alarms of what a rule says."""

    def __init__(self, detector: str) -> None:
        self._detector = detector
        self._said: list[tuple[str, str, int, int, set[str]]] = []
        self._latest: dict[str, int] = {}

    def say(self, at: int, hits: Iterator[Hit]) -> None:
        for subject, sentence, ids in hits:
            place = self._latest.get(subject)
            if place is not None and at - self._said[place][3] <= SAYS_AGAIN:
                said, first, opened_at, _, named = self._said[place]
                named.update(ids)
                self._said[place] = (said, first, opened_at, at, named)
            else:
                self._latest[subject] = len(self._said)
                self._said.append((subject, sentence, at, at, set(ids)))

    def alarms(self) -> Iterator[Alarm]:
        for subject, sentence, opened_at, last_seen_at, ids in self._said:
            yield Alarm(
                detector=self._detector,
                subject=subject,
                severity="warning",
                summary=sentence,
                opened_at=opened_at,
                last_seen_at=last_seen_at,
                detected_at=opened_at,
                objects=frozenset(name for name in ids if not name.startswith("evt_")),
                events=frozenset(name for name in ids if name.startswith("evt_")),
            )
