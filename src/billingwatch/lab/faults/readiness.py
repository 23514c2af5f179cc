"""The check of /health/ready: 503 while events are refused or not processed, 200 otherwise, within 2 s."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

import msgspec

from billingwatch.lab.faults.probe import REFUSED, UNANSWERED, Age, Poll
from billingwatch.lab.faults.scenario import READY_WITHIN, Scenario
from billingwatch.lab.faults.stream import CUT, Attempt
from billingwatch.lab.load import OK

PROMPT = 5.0  # seconds; an acknowledgement that takes longer counts as a refusal here
NOTICE = 5.0  # seconds of refusals after which ready has to be 503
LANES_BACK = 1.0  # seconds from the first 200 until every lane has reconnected
BACKLOG = 15.0  # seconds that an event may wait before ready has to be 503


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """From the start of the fault to its end, and to the end of the round."""

    began: float
    ended: float
    closed: float


def readiness_findings(
    scenario: Scenario, span: Span, *, polls: Sequence[Poll], attempts: Sequence[Attempt], ages: Sequence[Age]
) -> list[str]:
    """Return what /health/ready did wrong in a round; an empty list when it was right."""
    return [
        *_silent(scenario, span, polls),
        *([] if scenario.blind else _lies_about_recording(span, polls, attempts)),
        *_lies_about_processing(polls, ages),
        *_recovery(scenario, span, polls),
    ]


def _silent(scenario: Scenario, span: Span, polls: Sequence[Poll]) -> Iterator[str]:
    slow = [poll for poll in polls if poll.seconds > READY_WITHIN]
    if slow:
        first = slow[0].at - span.began
        yield f"ready gave no answer within {READY_WITHIN:g} s, {len(slow)} times, first at {first:+.1f} s"
    away_until = span.ended + scenario.recovery if scenario.away else span.began
    broken = [poll for poll in polls if poll.status == REFUSED]
    refused = [poll for poll in broken if not span.began <= poll.at + poll.seconds <= away_until]
    if refused:
        first = refused[0].at - span.began
        yield f"ready was refused or cut, {len(refused)} times, first at {first:+.1f} s"
    strange = sorted({poll.status for poll in polls} - {200, 503, REFUSED, UNANSWERED})
    if strange:
        yield f"ready was answered {', '.join(map(str, strange))}"


def _lies_about_recording(span: Span, polls: Sequence[Poll], attempts: Sequence[Attempt]) -> Iterator[str]:
    good = [poll for poll in polls if poll.status == 200]
    runs = [(first + NOTICE, last - LANES_BACK) for first, last in refusals(attempts)]
    lies = [poll for began, ended in runs for poll in good if began < poll.at < ended]
    if lies:
        first = lies[0].at - span.began
        yield f"ready was 200 while every event was refused, {len(lies)} times, first at {first:+.1f} s"


def _lies_about_processing(polls: Sequence[Poll], ages: Sequence[Age]) -> Iterator[str]:
    starts = [poll.at for poll in polls]
    for age in ages:
        if age.seconds <= BACKLOG:
            continue
        near = polls[bisect_left(starts, age.at - 1) : bisect_right(starts, age.at)]
        if any(poll.status == 200 for poll in near):
            yield f"ready was 200 while an event had waited {age.seconds:.0f} s to be processed"
            return


def _recovery(scenario: Scenario, span: Span, polls: Sequence[Poll]) -> Iterator[str]:
    after = [poll for poll in polls if poll.at >= span.ended]
    back = next((poll.at - span.ended for poll in after if poll.status == 200), None)
    if back is None or back > scenario.recovery:
        seconds = span.closed - span.ended if back is None else back
        yield f"ready was not 200 within {scenario.recovery:g} s after the fault; {seconds:.0f} s passed"
    elif after[-1].status != 200:
        yield f"ready ended with {after[-1].status}"


def refusals(attempts: Sequence[Attempt]) -> Iterator[tuple[float, float]]:
    """Yield the spans in which no delivery was acknowledged promptly: first and last time of sending."""
    run: list[float] = []
    for attempt in sorted(attempts, key=lambda each: each.sent_at):
        if attempt.status == CUT:
            continue
        if attempt.status == OK and attempt.seconds <= PROMPT:
            if run:
                yield run[0], run[-1]
            run = []
        else:
            run.append(attempt.sent_at)
    if run:
        yield run[0], run[-1]
