"""A blast radius of 0 means something: what is counted would be seen."""

from __future__ import annotations

import pytest

from billingwatch.lab.isolation import fill
from billingwatch.lab.isolation.dimensions import blast

OURS, THEIRS = 7, 8  # tenants


@pytest.mark.both_isolations
async def test_a_strangers_row_would_be_counted(tenant_connection):
    await tenant_connection.execute(fill.sql["charges"], 20, 30, OURS)
    nobodys = "UPDATE charges SET customer_id = NULL WHERE charge_id = (SELECT min(charge_id) FROM charges)"
    posted = "UPDATE charges SET customer_id = NULL, charge_id = 'ch_posted' WHERE charge_id = (SELECT max(charge_id) FROM charges)"

    counts = [await tenant_connection.fetchval(blast.sql[way], f"cus_{tenant}_") for way in ("read", "write") for tenant in (OURS, THEIRS)]
    await tenant_connection.execute(nobodys)
    await tenant_connection.execute(posted)

    assert counts == [0, 20, 0, 20]
    for way in ("read", "write"):
        assert await tenant_connection.fetchval(blast.sql[way], f"cus_{OURS}_") == 1
