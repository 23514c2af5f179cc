"""The row of one scenario, summed over its rounds."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from billingwatch.lab.faults.compare import Compared
from billingwatch.lab.faults.scenario import SILENCE, Scenario

ANSWERED_AIM = 0.99  # share of signed events acknowledged at their first delivery during an attack
P50_AIM = 2.0  # × the p50 before the attack
P50_SMALL = 0.02  # seconds; below, the factor is noise of the machine


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """Latency in seconds and share of requests that were answered 200, before and during an attack."""

    p50_before: float
    p50_during: float
    answered: float

    @property
    def factor(self) -> float:
        return self.p50_during / self.p50_before

    def findings(self) -> list[str]:
        found = []
        if self.factor > P50_AIM and self.p50_during > P50_SMALL:
            found.append(f"p50 rose from {self.p50_before * 1000:.0f} to {self.p50_during * 1000:.0f} ms")
        if self.answered < ANSWERED_AIM:
            found.append(f"{self.answered:.1%} of the requests were answered 200 during the attack")
        return found


class RoundResult(msgspec.Struct, frozen=True, kw_only=True):
    """One round. `silence` is the longest wait of a delivery for an answer or an error, in seconds."""

    compared: Compared
    silence: float
    ready: list[str]  # findings about /health/ready
    notes: list[str]  # findings of the fault itself
    pace: Pace | None = None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A scenario's results. `skipped` is the reason why it did not run."""

    name: str
    family: str
    rounds: int = 0
    acked: int = 0
    stored: int = 0
    processed: int = 0
    lost: int = 0
    doubled: int = 0
    silence: float = 0.0
    ready: bool = True
    ready_expected: str = ""
    p50_before: float | None = None
    p50_factor: float | None = None
    answered: float | None = None
    findings: list[str] = []
    skipped: str | None = None

    @property
    def passed(self) -> bool:
        """A skipped row passes: it has found nothing."""
        return not self.lost and not self.doubled and self.ready and not self.findings


def row_of(scenario: Scenario, family: str, results: Sequence[RoundResult]) -> Row:
    """Sum up the rounds of a scenario; the worst silence and the worst pace count."""
    silence = max(result.silence for result in results)
    paces = [result.pace for result in results if result.pace is not None]
    worst = max(paces, key=lambda pace: pace.factor, default=None)
    ready = [finding for result in results for finding in result.ready]
    findings = [finding for result in results for finding in (*result.compared.findings, *result.notes)]
    findings += [finding for pace in paces for finding in pace.findings()]
    if silence > SILENCE:
        findings.append(f"a delivery waited {silence:.1f} s for an answer; at most {SILENCE:g} s are allowed")
    return Row(
        name=scenario.name,
        family=family,
        rounds=len(results),
        acked=sum(result.compared.acked for result in results),
        stored=sum(result.compared.stored for result in results),
        processed=sum(result.compared.processed for result in results),
        lost=sum(result.compared.lost for result in results),
        doubled=sum(result.compared.doubled for result in results),
        silence=silence,
        ready=not ready,
        ready_expected=scenario.ready,
        p50_before=worst.p50_before if worst else None,
        p50_factor=worst.factor if worst else None,
        answered=min((pace.answered for pace in paces), default=None),
        findings=list(dict.fromkeys([*ready, *findings])),
    )
