"""The report: what a run's results say, as Markdown. Every number in it comes from the results."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from billingwatch.errors import InputInvalid
from billingwatch.lab.isolation.arms import ARMS
from billingwatch.lab.isolation.cell import Volume
from billingwatch.lab.isolation.dimension import Dimension, Measure
from billingwatch.lab.isolation.plots import plot
from billingwatch.lab.isolation.registry import DIMENSIONS
from billingwatch.lab.isolation.results import About, Results
from billingwatch.lab.isolation.summary import Spot, Summary, Value, Verdict, compare, crossovers, summarize
from billingwatch.lab.isolation.words import number, spread, table, times

OURS, THEIRS = "schema", "row"  # the arms whose comparison answers the question
PLOTS = "plots"
TEXT = Path(__file__).with_name("report.md")

REFERENCE = 1000  # tenants: the text speaks of as many, or of the most that were measured up to it

_FIGURE = re.compile(r"\[\[([a-z_]+)\.([a-z0-9_]+)\.([a-z]+)(?:/([a-z]+))?\]\]")
_VOLUMES: Mapping[Volume, str] = {"each": "the same rows for each tenant", "total": "the same rows in all"}


def write_report(results: Results, directory: Path) -> Path:
    """Write report.md and its plots into `directory`. InputInvalid when there are no results."""
    about, summary = results.about, summarize(results.read())
    if about is None or not summary:
        raise InputInvalid(reason="there are no results", hint="measure some first: billingwatch lab run --out …")
    plots = directory / PLOTS
    plots.mkdir(parents=True, exist_ok=True)
    parts = {
        "answer": _answer(summary),
        "crossovers": _crossovers(summary),
        "setting": _setting(about, summary),
        "arms": _arms(),
        "dimensions": "\n\n".join(_dimensions(summary, _hours(results), plots)),
    }
    text = TEXT.read_text(encoding="utf-8")
    for name, part in parts.items():
        text = text.replace(f"<!-- {name} -->", part)
    path = directory / "report.md"
    tenants = _reference(summary)
    text = _FIGURE.sub(lambda found: _figure(summary, tenants, *found.groups()), text).replace("[[tenants]]", f"{tenants:,}")
    path.write_text(text, encoding="utf-8")
    return path


def _reference(summary: Summary) -> int:
    counts = {spot.tenants for spot in summary}
    return max((count for count in counts if count <= REFERENCE), default=min(counts))


def _figure(summary: Summary, tenants: int, dimension: str, measure: str, arm: str, other: str | None) -> str:
    """What stands for [[dimension.measure.arm]], or for the ratio [[dimension.measure.arm/other]]."""
    values = summary.get(Spot(dimension=dimension, measure=measure, volume="each", choice="uniform", tenants=tenants), {})
    if arm not in values or (other is not None and other not in values):
        return "(not measured)"
    return number(values[arm].median) if other is None else times(values[arm].median / values[other].median)


def _answer(summary: Summary) -> str:
    counts = sorted({spot.tenants for spot in summary})
    rows: list[list[str]] = []
    for dimension, measure in _headlines():
        verdicts = {verdict.tenants: verdict for verdict in _verdicts(summary, dimension, measure)}
        if verdicts:
            said = (_verdict(verdicts[count], measure) if count in verdicts else "" for count in counts)
            rows.append([f"{dimension.title}: {measure.title}", *said])
    return table(["what matters to you", *(f"{count:,}" for count in counts)], rows)


def _headlines() -> Iterator[tuple[Dimension, Measure]]:
    return ((dimension, measure) for dimension in DIMENSIONS.values() for measure in dimension.measures if measure.headline)


def _verdicts(summary: Summary, dimension: Dimension, measure: Measure) -> Iterator[Verdict]:
    for tenants, values in _by_tenants(summary, dimension, measure.key).items():
        verdict = compare(measure, tenants, values, OURS, THEIRS)
        if verdict is not None:
            yield verdict


def _verdict(verdict: Verdict, measure: Measure) -> str:
    if verdict.winner is None:
        return "even"
    who = "schemas" if verdict.winner == OURS else "rows"
    if math.isinf(verdict.ratio):
        return f"{who}: {number(verdict.good)}, not {number(verdict.bad)} {measure.unit}"
    return f"{who} {times(verdict.ratio)}"


def _crossovers(summary: Summary) -> str:
    lines = [
        f"- {dimension.title}, {measure.title}: at about {number(point)} tenants."
        for dimension, measure in _headlines()
        for point in crossovers(measure, _by_tenants(summary, dimension, measure.key), OURS, THEIRS)
    ]
    if len({spot.tenants for spot in summary}) == 1:
        return "- Only one number of tenants was measured."
    return "\n".join(lines) or "- Nowhere: who wins at one number of tenants loses at none."


def _setting(about: About, summary: Summary) -> str:
    machine, scale = about.machine, about.scale
    repetitions: dict[int, set[int]] = defaultdict(set)
    for spot, values in summary.items():
        repetitions[spot.tenants].update(value.times for value in values.values())
    repeated = ", ".join(f"{_span(counts)} at {tenants:,} tenants" for tenants, counts in sorted(repetitions.items()))
    settings = ", ".join(f"`{name} = {value}`" for name, value in about.settings.items()) or "its defaults"
    return (
        f"{machine.cores} cores, {machine.system}, Python {machine.python}, PostgreSQL {about.postgres} with {settings}; "
        f"BillingWatch {about.release}. Repetitions: {repeated}. {number(scale.seconds)} s for each phase of load, "
        f"{scale.rows_each:,} charges and events for each tenant, or {scale.rows_total:,} shared out over all."
    )


def _span(numbers: set[int]) -> str:
    return " to ".join(str(number) for number in sorted({min(numbers), max(numbers)}))


def _arms() -> str:
    return "\n".join(f"- **{arm.title}** (`{arm.key}`): {arm.description}" for arm in ARMS.values())


def _hours(results: Results) -> Mapping[str, str]:
    """When each dimension was measured."""
    began: dict[str, list[datetime]] = defaultdict(list)
    for result in results.read():
        began[result.cell.dimension].append(result.began_at)
    return {key: f"{min(instants):%Y-%m-%d %H:%M} to {max(instants):%Y-%m-%d %H:%M} UTC" for key, instants in began.items()}


def _dimensions(summary: Summary, hours: Mapping[str, str], plots: Path) -> Iterator[str]:
    for dimension in DIMENSIONS.values():
        spots = [spot for spot in summary if spot.dimension == dimension.key]
        if not spots:
            continue
        parts = [f"### {dimension.title}", f"{dimension.method} Measured from {hours[dimension.key]}."]
        for volume in dimension.volumes:
            for choice in dimension.choices:
                found = [spot for spot in spots if (spot.volume, spot.choice) == (volume, choice)]
                if found:
                    parts += [_caption(dimension, volume, choice), _figures(summary, dimension, found)]
        for measure in dimension.measures:
            values = _by_tenants(summary, dimension, measure.key)
            if measure.headline and values:
                name = f"{dimension.key}-{measure.key}.svg"
                plot(plots / name, f"{dimension.title}: {measure.title}", measure, values)
                parts.append(f"![{dimension.title}: {measure.title}]({PLOTS}/{name})")
        yield "\n\n".join(parts)


def _caption(dimension: Dimension, volume: Volume, choice: str) -> str:
    said = [_VOLUMES[volume]] if len(dimension.volumes) > 1 else []
    if len(dimension.choices) > 1:
        said.append("tenants drawn by Zipf's law, exponent 1.1" if choice == "zipf" else "tenants drawn uniformly")
    return f"*{'; '.join(said).capitalize()}.*" if said else ""


def _figures(summary: Summary, dimension: Dimension, spots: Sequence[Spot]) -> str:
    arms = [arm for arm in ARMS if any(arm in summary[spot] for spot in spots)]
    rows: list[list[str]] = []
    for measure in dimension.measures:
        for spot in sorted(spot for spot in spots if spot.measure == measure.key):
            values = summary[spot]
            rows.append(
                [
                    f"{measure.title}, {measure.unit}",
                    f"{spot.tenants:,}",
                    *(spread(values[arm]) if arm in values else "" for arm in arms),
                ]
            )
    return table(["", "tenants", *(ARMS[arm].title for arm in arms)], rows)


def _by_tenants(summary: Summary, dimension: Dimension, measure: str) -> Mapping[int, Mapping[str, Value]]:
    found: dict[int, Mapping[str, Value]] = defaultdict(dict)
    for spot, values in sorted(summary.items(), key=lambda item: item[0].tenants):
        if (spot.dimension, spot.measure, spot.volume, spot.choice) == (
            dimension.key,
            measure,
            dimension.volumes[0],
            dimension.choices[0],
        ):
            found[spot.tenants] = values
    return found
