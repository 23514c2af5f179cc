"""pre: recording costs each tenant's events less. Replaces a function that keeps its contract; safe while workers run."""

from __future__ import annotations

import runpy
from pathlib import Path

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# The contract is that of the first revision: rows sorted by (tenant_id, event_id), and for each whether it is new.
#
# A plan that is kept is made anew whenever the tenant is another, after copying what it was made from. Text that runs once, with the schema's
# name in it, is neither kept nor copied, and needs no search_path. Stepping from tenant to tenant here is cheaper than a query that tells
# where each begins. Each CHECK of a table is read anew by every INSERT: dispositions and deliveries are checked here, for all rows at once.
RECORD_EVENTS = """
CREATE OR REPLACE FUNCTION control.record_events(
    tenant_ids integer[], schema_names text[], event_ids text[], types text[], api_versions text[], livemodes boolean[],
    accounts text[], object_ids text[], occurred timestamptz[], signed timestamptz[], received timestamptz[],
    times integer[], dispositions text[], payloads text[]
) RETURNS boolean[]
LANGUAGE plpgsql
AS $$
DECLARE
    is_new boolean[] := array_fill(false, ARRAY[cardinality(event_ids)]);
    columns CONSTANT text := '(event_id, type, api_version, livemode, account, object_id, occurred_at, signed_at, received_at, last_received_at,'
        ' deliveries, disposition, payload)';
    events text;
    low integer := 1;
    high integer;
    count integer;
    recorded text[];
BEGIN
    IF NOT (dispositions <@ ARRAY['process', 'ignored', 'needs_fetch'] AND 0 < ALL (times)) THEN
        RAISE check_violation USING MESSAGE = 'a disposition that there is not, or a delivery that is none';
    END IF;
    WHILE low <= cardinality(event_ids) LOOP
        high := low;
        WHILE tenant_ids[high + 1] = tenant_ids[low] LOOP
            high := high + 1;
        END LOOP;
        events := quote_ident(schema_names[low]) || '.events';
        IF high - low < 5 THEN
            -- The usual case with many tenants. The plainest statement costs so little that five of them cost less than one for all five.
            FOR i IN low..high LOOP
                EXECUTE 'INSERT INTO ' || events || columns ||
                    ' VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10, $11, $12::json) ON CONFLICT DO NOTHING'
                USING event_ids[i], types[i], api_versions[i], livemodes[i], accounts[i], object_ids[i], occurred[i],
                      signed[i], received[i], times[i], dispositions[i], payloads[i];
                GET DIAGNOSTICS count = ROW_COUNT;
                is_new[i] := count = 1;
            END LOOP;
        ELSE
            EXECUTE 'WITH inserted AS (INSERT INTO ' || events || columns ||
                ' SELECT $1[i], $2[i], $3[i], $4[i], $5[i], $6[i], $7[i], $8[i], $9[i], $9[i], $10[i], $11[i], $12[i]::json'
                ' FROM generate_series($13, $14) AS i ON CONFLICT DO NOTHING RETURNING event_id)'
                ' SELECT array_agg(event_id) FROM inserted'
            INTO recorded
            USING event_ids, types, api_versions, livemodes, accounts, object_ids, occurred,
                  signed, received, times, dispositions, payloads, low, high;
            FOR i IN low..high LOOP
                is_new[i] := coalesce(event_ids[i] = ANY (recorded), false);
            END LOOP;
        END IF;
        IF false = ANY (is_new[low:high]) THEN
            EXECUTE 'UPDATE ' || events || ' AS e'
                ' SET deliveries = e.deliveries + $1[i], last_received_at = greatest(e.last_received_at, $2[i])'
                ' FROM generate_series($5, $6) AS i WHERE e.event_id = $3[i] AND NOT $4[i]'
            USING times, received, event_ids, is_new, low, high;
        END IF;
        low := high + 1;
    END LOOP;
    INSERT INTO control.pending_events (tenant_id, event_id, received_at)
    SELECT tenant_ids[i], event_ids[i], received[i]
    FROM generate_series(1, cardinality(event_ids)) AS i
    WHERE is_new[i] AND dispositions[i] = 'process'
    ORDER BY i;
    RETURN is_new;
END
$$
"""


def upgrade() -> None:
    op.execute(RECORD_EVENTS)


def downgrade() -> None:
    first = runpy.run_path(str(Path(__file__).with_name("0001_control_plane.py")))["RECORD_EVENTS"]
    op.execute(first.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1))
