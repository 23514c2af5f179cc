"""Labels and alarms, and which of them belong together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from billingwatch.detection.detector import Detector, Thresholds
from billingwatch.detection.registry import DETECTORS
from billingwatch.detection.store import Anomaly
from billingwatch.simulate.deliveries import Delivery
from billingwatch.simulate.incidents.scenes import Label

SILENCE = "webhook_silence"
PLAIN_SLACK = 3600.0  # seconds; a plain rule looks back an hour, or says the same for an hour

Verdict = Literal["true", "collateral", "false", "historical"]


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody was told; times in Unix seconds."""

    detector: str
    subject: str
    severity: str
    summary: str
    opened_at: float
    last_seen_at: float
    detected_at: float
    objects: frozenset[str]
    """Ids of objects that it names; none if it is about the account as a whole."""
    events: frozenset[str] = frozenset()
    """Ids of events that it names."""
    retracted: bool = False
    """Taken back later, when more was known. Whoever was told was told."""
    historical: bool = False
    """Found too late to tell anybody."""


class Truth(msgspec.Struct, frozen=True, kw_only=True):
    """What really happened; times in Unix seconds."""

    detector: str
    variant: str
    strength: float
    description: str
    started_at: float
    ended_at: float
    arrived_at: float
    """When the service could first have known."""
    objects: frozenset[str]
    events: frozenset[str] = frozenset()
    also: frozenset[str] = frozenset()
    """Other detectors that are right to report it, too."""
    natural: bool = False
    """It was not put into the stream: chance made it."""
    arguable: bool = False
    """As right to be silent about as to report: an alarm about nothing else counts neither way, and nobody has to find it."""


class Matches(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict on each alarm, and for each truth the alarms about it."""

    verdicts: list[Verdict]
    found_by: list[list[Alarm]]


Slack = Callable[[str], float]
"""By how many seconds an alarm of a detector may miss an incident and still be about it."""


def match(alarms: Sequence[Alarm], truths: Sequence[Truth], slack: Slack) -> Matches:
    """Bring alarms and truths together.

    An alarm is about an incident of its own detector if it names an object or event of it. Where one of the two names no objects (revenue
    fell, nothing arrives), it is about the incident that it overlaps in time, give or take the slack. One incident may cause several
    alarms, and one alarm may cover several incidents. An alarm about another detector's incident (it names what that is about, or is said
    to come with it) is collateral: no false alarm, and nothing found.
    """
    verdicts: list[Verdict] = []
    found_by: list[list[Alarm]] = [[] for _ in truths]
    for alarm in alarms:
        about = [place for place, truth in enumerate(truths) if truth.detector == alarm.detector and _about(alarm, truth, slack)]
        if alarm.historical:
            verdicts.append("historical")
            continue
        for place in about:
            found_by[place].append(alarm)
        if any(not truths[place].arguable for place in about):
            verdicts.append("true")
        elif about:
            verdicts.append("collateral")
        else:
            verdicts.append("collateral" if any(_comes_with(alarm, truth, slack) for truth in truths) else "false")
    return Matches(verdicts=verdicts, found_by=found_by)


def _about(alarm: Alarm, truth: Truth, slack: Slack) -> bool:
    if _shares(alarm, truth):
        return True
    if alarm.objects and truth.objects:
        return False
    near = slack(alarm.detector)
    return alarm.opened_at - near <= truth.ended_at and truth.started_at <= alarm.last_seen_at + near


def _comes_with(alarm: Alarm, truth: Truth, slack: Slack) -> bool:
    return _shares(alarm, truth) or (alarm.detector in truth.also and _about(alarm, truth, slack))


def _shares(alarm: Alarm, truth: Truth) -> bool:
    return bool(alarm.objects & truth.objects or alarm.events & truth.events)


def slack_of(name: str) -> float:
    """The time within which a detector of ours takes two anomalous rows for one incident, its grid included."""
    detector: Detector[Thresholds] = DETECTORS[name]
    quiet = detector.quiet(detector.thresholds()).total_seconds()
    return quiet + (detector.every.total_seconds() if detector.every else 0.0)


def plain_slack_of(_: str) -> float:
    return PLAIN_SLACK


def truth_of(label: Label, first_arrivals: Mapping[str, Delivery]) -> Truth:
    """A label, with the arrival of the first of its events; those from before it began are its history."""
    known = [first_arrivals[event_id] for event_id in label.event_ids if event_id in first_arrivals]
    arrivals = [delivery.at for delivery in known if delivery.event["created"] >= label.started_at]
    return Truth(
        detector=label.incident,
        variant=label.variant,
        strength=label.strength,
        description=label.description,
        started_at=label.started_at,
        ended_at=label.ended_at,
        # What a silence held back arrives when it is over; nothing tells of it but the time.
        arrived_at=label.started_at if label.incident == SILENCE else min(arrivals, default=label.started_at),
        objects=frozenset(label.object_ids),
        events=frozenset(label.event_ids),
        also=frozenset(label.also),
        natural=label.natural,
        arguable=label.arguable,
    )


def first_arrivals_of(deliveries: Sequence[Delivery]) -> dict[str, Delivery]:
    """The first delivery of each event."""
    arrivals: dict[str, Delivery] = {}
    for delivery in deliveries:
        arrivals.setdefault(delivery.event["id"], delivery)
    return arrivals


def alarm_of(anomaly: Anomaly) -> Alarm:
    """A stored anomaly as what somebody was told."""
    return Alarm(
        detector=anomaly.detector,
        subject=anomaly.subject,
        severity=anomaly.severity,
        summary=anomaly.summary,
        opened_at=anomaly.opened_at.timestamp(),
        last_seen_at=anomaly.last_seen_at.timestamp(),
        detected_at=anomaly.detected_at.timestamp(),
        objects=frozenset(_strings(anomaly.evidence["objects"])),
        events=frozenset(anomaly.evidence["event_ids"]),
        retracted=anomaly.retracted,
        historical=anomaly.historical,
    )


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for item in value.values() for text in _strings(item)]
    return [text for item in value for text in _strings(item)] if isinstance(value, list) else []
