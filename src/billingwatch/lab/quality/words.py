"""The report for people: tables for a terminal, and a section for the README."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from billingwatch.lab.quality.plan import STRENGTHS
from billingwatch.lab.quality.report import PRECISION_AIM, QUIET_AIM, RECALL_AIM, Report, Side
from billingwatch.lab.quality.scores import Point, Quiet, Score, Share

Table = tuple[str, list[str], list[list[str]]]
"""A title, columns, rows."""

MINUTE, HOUR, DAY = 60, 3600, 86_400


def headline(report: Report) -> str:
    """What was run, in a sentence."""
    wish = report.wish
    kinds = ", ".join(wish.kinds)
    return (
        f"{len(report.streams)} streams of {wish.weeks} weeks, {report.events:,} events, {report.tenant_months:,.1f} tenant-months; {kinds}; "
        f"{'tuning' if wish.tuning else 'report'} seeds {report.seeds[0]} to {report.seeds[-1]}; {report.seconds / MINUTE:.1f} minutes on "
        f"{report.machine.cores} cores"
    )


def tables(report: Report) -> Iterator[Table]:
    """All tables of the report."""
    plain = {score.detector: score for score in report.plain.scores}
    yield (
        "detectors (plain: the rule with fixed numbers on the same streams)",
        ["detector", "incidents", "recall", "precision", "false/month", "delay p50", "p90", "plain: recall", "precision", "false/month"],
        [_both(ours, plain.get(ours.detector)) for ours in report.ours.scores],
    )
    yield (
        "what the alarms were",
        ["detector", "about an incident", "of these repeats", "false", "of these taken back", "collateral", "historical", "missed"],
        [_fate(ours) for ours in report.ours.scores],
    )
    yield (
        "recall over strength",
        ["detector", "incident", "found", *(f"{strength:g}" for strength in STRENGTHS), "curve"],
        [[each.detector, each.variant, _share(each.found), *_cells(each.curve), _sparks(each.curve)] for each in report.ours.variants],
    )
    yield (
        "false alarms on streams without incidents",
        ["kind of business", "tenant-months", "false alarms", "per month", "above info", "plain: false alarms", "per month"],
        list(_quiet(report.ours, report.plain)),
    )


def verdicts(report: Report) -> Iterator[str]:
    """What is not as it should be."""
    for score in report.ours.scores:
        recall, precision = score.recall.value, score.precision.value
        if recall is not None and recall < RECALL_AIM:
            yield f"{score.detector}: recall {recall:.1%}, the aim is {RECALL_AIM:.0%}"
        if precision is not None and precision < PRECISION_AIM:
            yield f"{score.detector}: precision {precision:.1%}, the aim is {PRECISION_AIM:.0%}"
        if recall is None:
            yield f"{score.detector}: no stream had an incident for it"
    quiet = report.ours.quiet_together
    if quiet is not None and quiet.per_month >= QUIET_AIM:
        yield f"{quiet.per_month:.2f} false alarms per tenant and month on streams without incidents, the aim is < {QUIET_AIM:g}"
    if report.dead:
        yield f"{report.dead:,} events could not be projected"


def markdown(report: Report) -> str:
    """The README's section."""
    plain = {score.detector: score for score in report.plain.scores}
    columns = [
        "detector",
        "incidents",
        "recall",
        "precision",
        "false alarms a month",
        "delay, median",
        "plain rule: recall",
        "precision",
        "false alarms a month",
    ]
    rows = []
    for ours in report.ours.scores:
        cells = _both(ours, plain.get(ours.detector))
        rows.append([f"`{cells[0]}`", *cells[1:6], *cells[7:]])
    quiet, beside = report.ours.quiet_together, report.plain.quiet_together
    if quiet is not None and beside is not None:
        rows.append(["all together", "", "", "", f"{quiet.per_month:.2f}", "", "", "", f"{beside.per_month:.2f}"])
    lines = [_line(columns), "|".join(["", "---", *["---:"] * (len(columns) - 1), ""]), *(_line(row) for row in rows)]
    return "\n".join([*lines, "", f"From {headline(report)}."])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _both(ours: Score, plain: Score | None) -> list[str]:
    row = [
        ours.detector,
        str(ours.recall.whole),
        _percent(ours.recall),
        _percent(ours.precision),
        _rate(ours.quiet_per_month),
        _time(ours.delay_median),
        _time(ours.delay_p90),
    ]
    if plain is None:
        return [*row, "–", "–", "–"]
    return [*row, _percent(plain.recall), _percent(plain.precision), _rate(plain.quiet_per_month)]


def _fate(ours: Score) -> list[str]:
    false = ours.precision.whole - ours.precision.part
    missed = ours.recall.whole - ours.recall.part
    numbers = (ours.precision.part, ours.repeats, false, ours.retracted, ours.collateral, ours.historical, missed)
    return [ours.detector, *map(str, numbers)]


def _quiet(ours: Side, plain: Side) -> Iterator[list[str]]:
    for row, beside in zip(_with_all(ours), _with_all(plain), strict=True):
        yield [
            row.kind,
            f"{row.months:.1f}",
            str(row.false_alarms),
            f"{row.per_month:.2f}",
            str(row.loud),
            str(beside.false_alarms),
            f"{beside.per_month:.2f}",
        ]


def _with_all(side: Side) -> Iterable[Quiet]:
    return [*side.quiet, *([side.quiet_together] if side.quiet_together else [])]


def _cells(curve: Sequence[Point]) -> list[str]:
    by_strength = {point.strength: point.found for point in curve}
    return [_share(by_strength[strength]) if strength in by_strength else "–" for strength in STRENGTHS]


def _sparks(curve: Sequence[Point]) -> str:
    """Recall at each strength as a bar."""
    by_strength = {point.strength: point.found.value for point in curve}
    return "".join(" " if (value := by_strength.get(strength)) is None else "▁▂▃▄▅▆▇█"[round(value * 7)] for strength in STRENGTHS)


def _share(share: Share) -> str:
    return f"{share.part}/{share.whole}"


def _percent(share: Share) -> str:
    return "–" if share.value is None else f"{share.value:.0%}" if share.part == share.whole else f"{min(share.value, 0.999):.1%}"


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 2 * MINUTE:
        return f"{seconds:.0f} s"
    if seconds < 2 * HOUR:
        return f"{seconds / MINUTE:.0f} min"
    return f"{seconds / HOUR:.1f} h" if seconds < 2 * DAY else f"{seconds / DAY:.1f} d"
