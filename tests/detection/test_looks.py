from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pytest

from billingwatch.billing.store import Change
from billingwatch.detection.looks import AN_INSTANT, BEGINNING, END, QUARTER, WEEK, Span, instants, looks_of, pieces, shift
from billingwatch.detection.registry import DETECTORS

from .history import DAY, at

DETECTOR = DETECTORS["duplicate_charge"]
THRESHOLDS = DETECTOR.thresholds()  # ten minutes of reach and of quiet


def changed(minutes: float, table: str = "charges", columns: frozenset[str] = frozenset({"status"})) -> Change:
    return Change(table=table, key="k", created_at=at(minutes), inserted=False, columns=columns)


def looks(*changes: Change) -> list[tuple[float, float]]:
    found = looks_of(DETECTOR, changes, THRESHOLDS)
    return [((look.since - at(0)) / timedelta(minutes=1), (look.until - at(0)) / timedelta(minutes=1)) for look in found]


def test_a_change_is_looked_at_as_far_as_it_reaches():
    assert looks(changed(5)) == [(5, 15)]


def test_what_a_detector_does_not_watch_is_not_looked_at():
    assert looks(changed(5, "invoices"), changed(5, columns=frozenset({"disputed"}))) == []


def test_an_inserted_row_is_always_looked_at():
    inserted = Change(table="charges", key="k", created_at=at(0), inserted=True, columns=frozenset())

    assert looks(inserted) == [(0, 10)]


def test_looks_that_one_incident_could_span_are_one_look():
    assert looks(changed(20), changed(0)) == [(0, 30)]
    assert looks(changed(20 + 1 / 60), changed(0)) == [(0, 10), (20 + 1 / 60, 30 + 1 / 60)]


def test_looks_far_apart_stay_apart():
    assert looks(changed(30 * DAY), changed(0)) == [(0, 10), (30 * DAY, 30 * DAY + 10)]


def test_spans_touch_at_a_shared_instant():
    span = Span(since=at(0), until=at(10))

    assert span.touches(at(10), at(20))
    assert not span.touches(at(10.1), at(20))


def test_time_stops_at_its_end():
    assert shift(END, timedelta(days=1)) == END


@pytest.mark.parametrize("name", ["duplicate_charge", "revenue_drop", "card_expiry"])
def test_pieces_of_a_long_span_are_bounded_and_leave_no_gap(name: str):
    detector = DETECTORS[name]
    longest, gap = (QUARTER, AN_INSTANT) if detector.every is None else (WEEK, detector.every)
    span = Span(since=at(0), until=at(3650 * DAY))

    found = list(pieces(detector, span, as_of=at(4000 * DAY)))

    assert (found[0].since, found[-1].until) == (span.since, span.until)
    assert max(piece.until - piece.since for piece in found) <= longest
    assert all(later.since - earlier.until == gap for earlier, later in pairwise(found))


def test_what_lies_ahead_is_one_piece():
    assert list(pieces(DETECTOR, Span(since=at(0), until=END), as_of=at(DAY))) == [Span(since=at(0), until=END)]


def test_span_at_either_end_of_time_holds_no_instant():
    second = timedelta(seconds=1)

    assert instants(Span(since=END - second, until=END), timedelta(hours=1)) is None
    assert instants(Span(since=BEGINNING, until=BEGINNING + second), timedelta(days=7)) is None
