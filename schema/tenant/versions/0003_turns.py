"""pre: `states` also keeps when periods of subscriptions turn. Reads the table once under its lock, and adds a row per known period."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

KINDS = "'customer', 'first_charge', 'invoice', 'payment_method', 'subscription'"


def upgrade() -> None:
    op.drop_constraint(op.f("states_kind_known"), "states", type_="check")
    op.create_check_constraint(op.f("states_kind_known"), "states", f"kind IN ({KINDS}, 'turn')")
    op.execute(
        """
        INSERT INTO states (object_id, version, kind, account, created_at, event_id, facts)
        SELECT DISTINCT ON (subscription_id, turned_at) subscription_id || ' ' || turned_at, '1', 'turn', account, to_timestamp(turned_at),
               '', jsonb_build_object('subscription_id', subscription_id)
        FROM (
            SELECT object_id AS subscription_id, account, created_at AS told_at, facts FROM states WHERE kind = 'subscription'
        ) AS known
        CROSS JOIN LATERAL jsonb_to_recordset(facts -> 'items') AS item (usage_type text, period_start bigint, period_end bigint)
        CROSS JOIN LATERAL (
            SELECT coalesce(period_start, extract(epoch FROM (facts ->> 'period_start_at')::timestamptz)::bigint) AS began,
                   coalesce(period_end, extract(epoch FROM (facts ->> 'period_end_at')::timestamptz)::bigint) AS ends
        ) AS period
        CROSS JOIN LATERAL (
            VALUES (ends), (CASE WHEN extract(epoch FROM told_at) - began BETWEEN 0 AND 3600 THEN began END)
        ) AS turn (turned_at)
        WHERE usage_type IS DISTINCT FROM 'metered' AND turned_at IS NOT NULL
        ON CONFLICT ON CONSTRAINT states_pkey DO NOTHING
        """
    )


def downgrade() -> None:
    op.execute("DELETE FROM states WHERE kind = 'turn'")
    op.drop_constraint(op.f("states_kind_known"), "states", type_="check")
    op.create_check_constraint(op.f("states_kind_known"), "states", f"kind IN ({KINDS})")
