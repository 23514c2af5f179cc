"""`billingwatch simulate`: a seeded stream of Stripe events on stdout."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import BinaryIO, cast

import msgspec
import rich_click as click

from billingwatch.cli.output import talk
from billingwatch.clock import utc_now
from billingwatch.simulate.incidents.registry import INCIDENTS
from billingwatch.simulate.incidents.scenes import Incident
from billingwatch.simulate.objects.shapes import Shape
from billingwatch.simulate.profiles import PROFILES
from billingwatch.simulate.stream import simulate as simulate_stream
from billingwatch.simulate.stream import write_events, write_labels


@click.command()
@click.option("--days", default=30.0, show_default=True, type=click.FloatRange(min=0.01, max=3660), help="Length of the stream.")
@click.option("--seed", default=1, show_default=True, help="The same seed and start give the same bytes.")
@click.option(
    "--start",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    help="First moment, UTC; default: so that the stream ends last midnight.",
)
@click.option("--profile", type=click.Choice(list(PROFILES)), default="saas", show_default=True, help="Kind of business.")
@click.option(
    "--incident",
    "incidents",
    multiple=True,
    type=click.Choice(list(INCIDENTS)),
    help="Something that goes wrong; may be given several times.",
)
@click.option("--strength", default=0.7, show_default=True, type=click.FloatRange(0, 1), help="From barely an incident to unmissable.")
@click.option("--shape", type=click.Choice(["legacy", "current"]), help="Stripe API shape, instead of the profile's.")
@click.option("--test-mode", is_flag=True, help="Events with `livemode: false`.")
@click.option(
    "--labels",
    type=click.File("wb"),
    help="Write the truth here, one JSON object per line: the incidents, and as `natural` what an ordinary account is right to be told of.",
)
def simulate(
    days: float,
    seed: int,
    start: datetime | None,
    profile: str,
    incidents: tuple[str, ...],
    strength: float,
    shape: str | None,
    labels: BinaryIO | None,
    *,
    test_mode: bool,
) -> None:
    """Write a realistic stream of Stripe events to stdout, one per line, in the order in which they occurred."""
    chosen = PROFILES[profile] if shape is None else msgspec.structs.replace(PROFILES[profile], shape=cast(Shape, shape))
    midnight = utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
    begin = start.replace(tzinfo=UTC) if start else midnight - timedelta(days=days)
    events, truth = simulate_stream(
        seed=seed,
        start=begin,
        days=days,
        profile=chosen,
        incidents=[Incident(name=name, strength=strength) for name in incidents],
        livemode=not test_mode,
    )
    count = write_events(events, sys.stdout.buffer)
    if labels is not None:
        write_labels(truth, labels)
    talk.print(f"{count:,} events, {sum(not label.natural for label in truth)} incidents")
