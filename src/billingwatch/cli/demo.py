"""`billingwatch demo`: see it work, from nothing to anomalies."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import rich_click as click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from billingwatch.billing.money import format_money
from billingwatch.cli.output import data, print_table, talk
from billingwatch.cli.signals import stop_on_sigterm
from billingwatch.clock import utc_now
from billingwatch.demo.audience import anomalies, await_processed
from billingwatch.demo.cast import CAST, Script, interleave, write_script
from billingwatch.demo.sender import Endpoint, send_all
from billingwatch.demo.stage import Stage, set_stage
from billingwatch.logs import configure_logs
from billingwatch.settings import load_settings
from billingwatch.tenancy.analysts import analyst_dsn, create_analyst

QUERY = "SELECT * FROM revenue_daily ORDER BY day DESC LIMIT 7"
LIVE_PACE = 0.02  # seconds between two events of the live stream
COLUMNS = ["detector", "severity", "status", "opened (UTC)", "at risk", "what"]


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """One tenant of the demo."""

    script: Script
    endpoint: Endpoint
    api_key: str
    schema_name: str


@click.command()
@click.option("--once", is_flag=True, help="End by itself after showing what was found.")
@click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(1, 65535), help="Port of the service; another one if it is taken."
)
def demo(port: int, *, once: bool) -> None:
    """Provision three tenants, send them weeks of signed Stripe events over HTTP, and show the anomalies found."""
    configure_logs(log_level="warning")
    stop_on_sigterm()
    with set_stage(load_settings(), port=port) as stage:
        talk.print(f"service and PostgreSQL are up: {stage.url}", markup=False)
        watched = [_provision(stage, script) for script in (write_script(part, as_of=utc_now()) for part in CAST)]
        _send(watched)
        seconds = stage.with_control(await_processed)
        talk.print(f"every event is processed ({seconds:.1f} s after the last was acknowledged)\n")
        missed = sum(_show(stage, tenant) for tenant in watched)
        _suggest(stage, watched[0])
        if missed:
            talk.print(f"{missed} incidents were not found", style="red")
        if once:
            return
        talk.print("\nThe service runs until Ctrl-C.", style="bold")
        try:
            signal.pause()
        except KeyboardInterrupt:
            talk.print("stopping")


def _provision(stage: Stage, script: Script) -> Watched:
    made, secret = stage.provision(script.part.name)
    talk.print(f"tenant {made.name}: schema {made.schema_name}", markup=False)
    url = f"{stage.url}/webhook/{made.webhook_token}"
    return Watched(script=script, endpoint=Endpoint(url=url, secret=secret), api_key=made.api_key, schema_name=made.schema_name)


def _send(watched: Sequence[Watched]) -> None:
    endpoints = [tenant.endpoint for tenant in watched]
    history = interleave([tenant.script.history for tenant in watched])
    live = interleave([tenant.script.live for tenant in watched])
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=talk) as progress:
        task = progress.add_task("three weeks of signed events over HTTP", total=len(history))
        began = time.monotonic()
        send_all(endpoints, history, on_sent=lambda: progress.advance(task))
        rate = len(history) / (time.monotonic() - began)
        task = progress.add_task("the last three hours, as a live stream", total=len(live))
        send_all(endpoints, live, on_sent=lambda: progress.advance(task), pace=LIVE_PACE)
    talk.print(f"{len(history) + len(live):,} events acknowledged, history at {rate:,.0f} a second")


def _show(stage: Stage, tenant: Watched) -> int:
    found = anomalies(stage.url, tenant.api_key)
    print_table(COLUMNS, [_row(anomaly) for anomaly in found], title=f"{tenant.script.part.name}  ({tenant.schema_name})")
    named = {str(object_id) for anomaly in found for object_id in _strings(anomaly["evidence"])}
    labels = tenant.script.labels
    missed = [label for label in labels if not any(item in named for item in [*label.event_ids, *label.object_ids])]
    data.print(f"  {len(labels) - len(missed)} of the {len(labels)} incidents that were put into the stream were found", style="dim")
    for label in missed:
        data.print(f"  not found: {label.incident}, {label.description}", markup=False)
    data.print()
    return len(missed)


def _row(anomaly: dict[str, Any]) -> tuple[object, ...]:
    opened = datetime.fromisoformat(anomaly["opened_at"]).strftime("%b %d %H:%M:%S")
    at_risk = ", ".join(format_money(amount, currency) for currency, amount in sorted(anomaly["amounts"].items()))
    return anomaly["detector"], anomaly["severity"], anomaly["status"], opened, at_risk, anomaly["summary"]


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for item in value.values() for text in _strings(item)]
    return [text for item in value for text in _strings(item)] if isinstance(value, list) else []


def _suggest(stage: Stage, tenant: Watched) -> None:
    made = stage.with_control(lambda control: create_analyst(control, tenant.script.part.name))
    dsn = analyst_dsn(stage.database.analysts_dsn, made.role, made.password)
    psql = stage.database.psql or "psql"
    data.print("Try next", style="bold")
    for line in (
        f"browse the API      {stage.url}/docs",
        f"ask it              curl -H 'Authorization: Bearer {tenant.api_key}' '{stage.url}/anomalies?status=open'",
        f"query as an analyst {psql} '{dsn}' -c '{QUERY}'",
        f"operate             BILLINGWATCH_DATA_DIR={stage.settings.data_dir} {sys.argv[0]} tenants list",
    ):
        data.print(f"  {line}", markup=False)
