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

    own = await tenant_connection.fetchval(blast.sql["read"], f"cus_{OURS}_")
    strange = await tenant_connection.fetchval(blast.sql["read"], f"cus_{THEIRS}_")
    await tenant_connection.execute(nobodys)
    written = await tenant_connection.fetch(blast.sql["write"])

    assert (own, strange) == (0, 20)
    assert await tenant_connection.fetchval(blast.sql["read"], f"cus_{OURS}_") == 1
    assert len([row for row in written if not row["customer_id"].startswith(f"cus_{OURS}_")]) == 1
