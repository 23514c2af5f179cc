from __future__ import annotations

import msgspec

from billingwatch.lab.quality.truth import Alarm, Truth, first_arrivals_of, match, slack_of, truth_of
from billingwatch.simulate.deliveries import Delivery
from billingwatch.simulate.incidents.scenes import Label

HOUR = 3600


def alarm(
    detector: str = "duplicate_charge", at: float = 1000, *, until: float | None = None, ids: tuple[str, ...] = (), **facts: bool
) -> Alarm:
    return Alarm(
        detector=detector,
        subject="cus_1",
        severity="warning",
        summary="",
        opened_at=at,
        last_seen_at=until or at,
        detected_at=at + 5,
        objects=frozenset(each for each in ids if not each.startswith("evt_")),
        events=frozenset(each for each in ids if each.startswith("evt_")),
        **facts,
    )


def truth(
    detector: str = "duplicate_charge",
    at: float = 1000,
    *,
    until: float | None = None,
    ids: tuple[str, ...] = (),
    also: tuple[str, ...] = (),
) -> Truth:
    return Truth(
        detector=detector,
        variant=detector,
        strength=0.5,
        description="",
        started_at=at,
        ended_at=until or at,
        arrived_at=at,
        objects=frozenset(each for each in ids if not each.startswith("evt_")),
        events=frozenset(each for each in ids if each.startswith("evt_")),
        also=frozenset(also),
    )


def no_slack(_: str) -> float:
    return 0


def a_minute(_: str) -> float:
    return 60


def test_an_alarm_is_about_the_incident_that_it_overlaps():
    inside, before, after = alarm(at=1500), alarm(at=900, until=999), alarm(at=2001)

    matches = match([inside, before, after], [truth(at=1000, until=2000)], no_slack)

    assert matches.verdicts == ["true", "false", "false"]
    assert matches.found_by == [[inside]]


def test_an_alarm_may_miss_the_incident_by_the_detectors_window():
    early, late = alarm(at=940), alarm(at=2061)

    matches = match([early, late], [truth(at=1000, until=2000)], a_minute)

    assert matches.verdicts == ["true", "false"]


def test_an_alarm_that_names_what_an_incident_is_about_finds_it_however_late_it_is():
    late = alarm(at=900_000, ids=("ch_1", "ch_9"))

    matches = match([late], [truth(ids=("ch_1",))], no_slack)

    assert matches.verdicts == ["true"]
    assert matches.found_by == [[late]]


def test_an_alarm_that_names_an_event_of_an_incident_finds_it():
    assert match([alarm(at=900_000, ids=("evt_1",))], [truth(ids=("evt_1",))], no_slack).verdicts == ["true"]


def test_an_alarm_that_names_other_objects_is_about_something_else_at_the_same_time():
    other = alarm(ids=("ch_2", "evt_2"))

    assert match([other], [truth(ids=("ch_1", "evt_1"))], a_minute).verdicts == ["false"]
    assert match([other], [truth(ids=("evt_1",))], a_minute).verdicts == ["true"]


def test_an_alarm_of_another_detector_finds_nothing():
    matches = match([alarm("fraud_spike")], [truth("duplicate_charge")], a_minute)

    assert matches.verdicts == ["false"]
    assert matches.found_by == [[]]


def test_an_alarm_that_names_another_detectors_incident_is_collateral():
    matches = match([alarm("fraud_spike", at=900_000, ids=("ch_1",))], [truth("duplicate_charge", ids=("ch_1",))], no_slack)

    assert matches.verdicts == ["collateral"]
    assert matches.found_by == [[]]


def test_an_alarm_that_is_said_to_come_with_an_incident_is_collateral_while_that_lasts():
    during, later = alarm("fraud_spike", at=1500), alarm("fraud_spike", at=2061)

    matches = match([during, later], [truth("duplicate_charge", at=1000, until=2000, also=("fraud_spike",))], a_minute)

    assert matches.verdicts == ["collateral", "false"]
    assert matches.found_by == [[]]


def test_one_alarm_may_cover_two_incidents_and_one_incident_have_two_alarms():
    long, short = alarm(at=1000, until=5000), alarm(at=1100)

    matches = match([long, short], [truth(at=1100), truth(at=4000)], no_slack)

    assert matches.verdicts == ["true", "true"]
    assert matches.found_by == [[long, short], [long]]


def test_what_was_found_too_late_to_tell_anybody_finds_nothing():
    matches = match([alarm(historical=True)], [truth()], no_slack)

    assert matches.verdicts == ["historical"]
    assert matches.found_by == [[]]


def test_the_slack_is_the_detectors_own_window():
    assert slack_of("charge_failure_spike") == HOUR
    assert slack_of("negative_invoice") == 0


def test_an_incident_can_be_known_from_the_first_arrival_of_any_of_its_events():
    times = ((5, "evt_0", 5), (40, "evt_before", 9), (90, "evt_2", 20), (95, "evt_1", 10), (99, "evt_2", 20))
    deliveries = [Delivery(at=at, signed_at=at, event={"id": event_id, "created": created}) for at, event_id, created in times]
    label = Label(
        incident="duplicate_charge",
        variant="duplicate_order",
        strength=0.25,
        description="twice",
        started_at=10,
        ended_at=20,
        object_ids=["ch_1"],
        also=["fraud_spike"],
        natural=True,
        event_ids=["evt_before", "evt_1", "evt_2", "evt_never_delivered"],
    )

    found = truth_of(label, first_arrivals_of(deliveries))

    assert found.arrived_at == 90
    assert found.objects == {"ch_1"}
    assert found.events == {"evt_before", "evt_1", "evt_2", "evt_never_delivered"}
    assert (found.detector, found.variant, found.strength) == ("duplicate_charge", "duplicate_order", 0.25)
    assert found.also == {"fraud_spike"}
    assert found.natural


def test_a_silence_can_be_known_from_its_beginning_and_not_only_when_it_is_over():
    late = Delivery(at=5 * HOUR, signed_at=5 * HOUR, event={"id": "evt_1", "created": HOUR})
    label = Label(
        incident="webhook_silence",
        variant="webhook_silence",
        strength=0.5,
        description="nothing arrived",
        started_at=600,
        ended_at=4 * HOUR,
        object_ids=[],
        event_ids=["evt_1"],
    )

    assert truth_of(label, first_arrivals_of([late])).arrived_at == 600


def test_an_alarm_about_what_is_arguable_counts_neither_way_unless_it_is_about_more():
    doubtful = msgspec.structs.replace(truth(ids=("re_1",)), arguable=True)
    alarms = [alarm(ids=("re_1",)), alarm(ids=("re_1", "re_2")), alarm(ids=("re_3",))]

    matches = match(alarms, [doubtful, truth(ids=("re_2",))], no_slack)

    assert matches.verdicts == ["collateral", "true", "false"]
