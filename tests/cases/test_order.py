"""Any order and any batching of a history give the same rows in every table."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

import msgspec
import pytest

from billingwatch.clock import utc_now
from billingwatch.replay import Replay
from billingwatch.simulate.incidents.registry import INCIDENTS
from billingwatch.simulate.profiles import PROFILES
from billingwatch.simulate.stream import body, simulate

from .conftest import INPUTS, Json, read_case

START = datetime(2026, 8, 3, tzinfo=UTC)
DAYS = 10
DETECTORS_MIN = 12  # that find something in the history
BATCHES_MAX = 6  # each ends with an evaluation of all detectors


@pytest.fixture(scope="module")
def history() -> list[bytes]:
    """Ten days of a shop with incidents, and all cases: they share no object."""
    profile = msgspec.structs.replace(PROFILES["shop"], customers=40, purchases_per_day=10, disputes=0.03, refunds=0.1, subscribed=0.5)
    events, _ = simulate(seed=3, start=START, days=DAYS, profile=profile, incidents=sorted(INCIDENTS))
    return [*map(body, events), *(one for path in sorted(INPUTS.glob("*.jsonl")) for one in read_case(path.stem))]


@pytest.mark.parametrize("seed", range(3))
async def test_any_order_and_batching_give_the_same_rows(database, provision_tenant, outcome_of, history, seed):
    random = Random(seed)
    now = utc_now()

    async def rows_after(name: str, batches: list[list[bytes]]) -> dict[str, list[Json]]:
        tenant, _ = await provision_tenant(name)
        for batch in batches:
            await Replay(database, tenant, lambda: now).run(batch)
        tables: dict[str, list[Json]] = (await outcome_of(tenant)).tables
        return tables

    shuffled = random.sample(history, len(history))
    cuts = sorted(random.sample(range(1, len(history)), random.randrange(1, BATCHES_MAX)))
    batches = [shuffled[start:end] for start, end in zip([0, *cuts], [*cuts, len(history)], strict=True)]

    in_one_go = await rows_after("in-one-go", [history])
    in_pieces = await rows_after("in-pieces", batches)

    assert len({row["detector"] for row in in_one_go["anomalies"]}) >= DETECTORS_MIN
    for table, rows in in_one_go.items():
        assert in_pieces[table] == rows, table
