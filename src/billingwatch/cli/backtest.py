"""`billingwatch backtest`: what other thresholds would have found."""

from __future__ import annotations

import rich_click as click

from billingwatch.cli.detectors import read_pairs
from billingwatch.cli.output import as_json, print_facts, print_json, print_table
from billingwatch.cli.session import Session, run_session
from billingwatch.clock import utc_now
from billingwatch.detection.backtest import Backtest, read_since
from billingwatch.detection.backtest import backtest as run_backtest
from billingwatch.detection.catalog import find_detector, override
from billingwatch.detection.detector import say_amounts
from billingwatch.detection.tuning import tuning_of
from billingwatch.tenancy.scope import tenant_scope
from billingwatch.tenancy.tenants import usable

WHEN = {"both": "both", "before": "only before", "then": "only then"}


@click.command()
@click.argument("tenant")
@click.option("--detector", "name", required=True, help="Which detector is to judge.")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="A threshold to try; may be given several times.")
@click.option("--since", default="30d", show_default=True, help="From when on: `2026-03-01`, or how long ago: `12h`, `30d`, `8w`.")
@as_json
def backtest(tenant: str, name: str, pairs: tuple[str, ...], since: str, *, as_json: bool) -> None:
    """Let a detector judge TENANT's history with other thresholds, and set what it finds beside what fired. Changes nothing."""
    detector, wanted, until = find_detector(name), read_pairs(pairs), utc_now()
    begin = read_since(since, as_of=until)

    async def work(session: Session) -> Backtest:
        found = await session.tenant(tenant)
        thresholds = override(detector, tuning_of(found).of(detector), wanted)
        async with tenant_scope(session.control, usable(found), readonly=True) as scoped:
            return await run_backtest(scoped, detector, thresholds, since=begin, until=until)

    done = run_session(work)
    if as_json:
        print_json(done)
        return
    print_facts(
        [
            ("detector", done.detector),
            ("from", done.since),
            ("to", done.until),
            ("thresholds", ", ".join(f"{key}={value}" for key, value in done.thresholds.items())),
            ("fired before", done.fired_before),
            ("would fire", done.would_fire),
            ("in both", done.in_both),
            ("only before", done.only_before),
            ("only then", done.only_then),
        ]
    )
    if done.incidents:
        print_table(
            ["fires", "opened (UTC)", "severity", "status", "at risk", "what"],
            [(WHEN[row.when], row.opened_at, row.severity, row.status, say_amounts(row.amounts), row.summary) for row in done.incidents],
        )
