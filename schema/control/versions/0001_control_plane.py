"""pre: the control plane. Creates; locks nothing that exists."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


# The queue is inserted into and deleted from all day: vacuum by count, not by share of the table.
PENDING_EVENTS_VACUUM = """
ALTER TABLE control.pending_events SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_insert_scale_factor = 0.5,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000, autovacuum_vacuum_cost_delay = 0
)
"""

# One batch of a lane: rows of many tenants, sorted by (tenant_id, event_id), each (tenant_id, event_id) once. Each tenant's rows go in with one
# statement, in the tenant's schema. Returns for every row whether the event is new; a known one only counts its deliveries.
#
# Postgres plans whatever it evaluates under another search_path anew, expressions of plpgsql included. So the path is the tenant's for the
# tenant's statement alone, and SET, which needs no plan, takes it back at once.
RECORD_EVENTS = """
CREATE FUNCTION control.record_events(
    tenant_ids integer[], schema_names text[], event_ids text[], types text[], api_versions text[], livemodes boolean[],
    accounts text[], object_ids text[], occurred timestamptz[], signed timestamptz[], received timestamptz[],
    times integer[], dispositions text[], payloads text[]
) RETURNS boolean[]
LANGUAGE plpgsql
AS $$
DECLARE
    is_new boolean[] := array_fill(false, ARRAY[cardinality(event_ids)]);
    tenant record;
    recorded text[];
    fresh integer;
BEGIN
    -- One row per tenant: its first event, and where its events begin and end.
    FOR tenant IN
        SELECT span.low, span.high, schema_names[low] AS schema_name, event_ids[low] AS event_id, types[low] AS type,
               api_versions[low] AS api_version, livemodes[low] AS livemode, accounts[low] AS account, object_ids[low] AS object_id,
               occurred[low] AS occurred_at, signed[low] AS signed_at, received[low] AS received_at, times[low] AS deliveries,
               dispositions[low] AS disposition, payloads[low] AS payload
        FROM (
            SELECT min(position)::integer AS low, max(position)::integer AS high
            FROM unnest(tenant_ids) WITH ORDINALITY AS row (tenant_id, position)
            GROUP BY tenant_id
        ) AS span
        ORDER BY span.low
    LOOP
        IF tenant.low = tenant.high THEN
            -- The usual case with many tenants; planned anew for every schema, so the plainest statement wins.
            PERFORM pg_catalog.set_config('search_path', tenant.schema_name, true);
            INSERT INTO events (
                event_id, type, api_version, livemode, account, object_id, occurred_at, signed_at, received_at, last_received_at,
                deliveries, disposition, payload
            )
            VALUES (
                tenant.event_id, tenant.type, tenant.api_version, tenant.livemode, tenant.account, tenant.object_id, tenant.occurred_at,
                tenant.signed_at, tenant.received_at, tenant.received_at, tenant.deliveries, tenant.disposition, tenant.payload::json
            )
            ON CONFLICT DO NOTHING;
            GET DIAGNOSTICS fresh = ROW_COUNT;
            SET LOCAL search_path = pg_catalog;
            is_new[tenant.low] := fresh = 1;
        ELSE
            PERFORM pg_catalog.set_config('search_path', tenant.schema_name, true);
            WITH inserted AS (
                INSERT INTO events (
                    event_id, type, api_version, livemode, account, object_id, occurred_at, signed_at, received_at, last_received_at,
                    deliveries, disposition, payload
                )
                SELECT event_ids[i], types[i], api_versions[i], livemodes[i], accounts[i], object_ids[i], occurred[i], signed[i],
                       received[i], received[i], times[i], dispositions[i], payloads[i]::json
                FROM generate_series(tenant.low, tenant.high) AS i
                ON CONFLICT DO NOTHING
                RETURNING event_id
            )
            SELECT array_agg(event_id) INTO recorded FROM inserted;
            SET LOCAL search_path = pg_catalog;
            fresh := coalesce(cardinality(recorded), 0);
            FOR i IN tenant.low..tenant.high LOOP
                is_new[i] := coalesce(event_ids[i] = ANY (recorded), false);
            END LOOP;
        END IF;
        IF fresh <= tenant.high - tenant.low THEN
            PERFORM pg_catalog.set_config('search_path', tenant.schema_name, true);
            UPDATE events
            SET deliveries = events.deliveries + times[i],
                last_received_at = greatest(events.last_received_at, received[i])
            FROM generate_series(tenant.low, tenant.high) AS i
            WHERE events.event_id = event_ids[i] AND NOT is_new[i];
            SET LOCAL search_path = pg_catalog;
        END IF;
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
    op.execute("CREATE SCHEMA control")
    op.create_table(
        "pending_events",
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False, comment="Order of arrival"),
        sa.Column("event_id", sa.Text(collation="C"), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "position", name="pending_events_pkey"),
        schema="control",
        comment="Recorded and not yet processed, over all tenants; a visit deletes what it processed",
    )
    op.create_table(
        "tenants",
        sa.Column("tenant_id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("schema_name", sa.Text(), nullable=False, comment="Opaque: every Postgres role can read pg_namespace"),
        sa.Column("mode", sa.Text(), nullable=False, comment="Events of the other mode are recorded and ignored"),
        sa.Column("status", sa.Text(), server_default=sa.text("'active'"), nullable=False),
        sa.Column("revision", sa.Text(), nullable=False, comment="Revision of the tenant line that the schema is at"),
        sa.Column("views_digest", sa.Text(), nullable=False, comment="Digest of schema/views that the schema was given"),
        sa.Column("webhook_token_hash", sa.LargeBinary(), nullable=False, comment="SHA-256"),
        sa.Column("rate_limit", sa.Integer(), nullable=True, comment="Events per second; null: the service's default"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("mode IN ('live', 'test')", name=op.f("tenants_mode_known")),
        sa.CheckConstraint("name ~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$'", name=op.f("tenants_name_plain")),
        sa.CheckConstraint("schema_name ~ '^tenant_[a-z2-7]{10}$'", name=op.f("tenants_schema_name_opaque")),
        sa.CheckConstraint("status IN ('active', 'suspended')", name=op.f("tenants_status_known")),
        sa.PrimaryKeyConstraint("tenant_id", name="tenants_pkey"),
        sa.UniqueConstraint("name", name="tenants_name_key"),
        sa.UniqueConstraint("schema_name", name="tenants_schema_name_key"),
        sa.UniqueConstraint("webhook_token_hash", name="tenants_webhook_token_hash_key"),
        schema="control",
    )
    op.create_table(
        "analysts",
        sa.Column("role_name", sa.Text(), nullable=False, comment="Opaque: every Postgres role can read pg_roles"),
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["control.tenants.tenant_id"], name=op.f("analysts_tenant_id_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("role_name", name="analysts_pkey"),
        schema="control",
    )
    op.create_index("analysts_tenant_id_idx", "analysts", ["tenant_id"], unique=False, schema="control")
    op.create_table(
        "api_keys",
        sa.Column("key_hash", sa.LargeBinary(), nullable=False, comment="SHA-256"),
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("hint", sa.Text(), nullable=False, comment="First characters, to tell keys apart"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["control.tenants.tenant_id"], name=op.f("api_keys_tenant_id_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("key_hash", name="api_keys_pkey"),
        schema="control",
    )
    op.create_index("api_keys_tenant_id_idx", "api_keys", ["tenant_id"], unique=False, schema="control")
    op.create_table(
        "dead_letters",
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("event_id", sa.Text(collation="C"), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("failed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["control.tenants.tenant_id"], name=op.f("dead_letters_tenant_id_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("tenant_id", "event_id", name="dead_letters_pkey"),
        schema="control",
        comment="Events that could not be projected; their payloads stay in the tenant's events",
    )
    op.create_table(
        "due_visits",
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False, comment="settle: anomalies that end when time passes"),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["control.tenants.tenant_id"], name=op.f("due_visits_tenant_id_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("tenant_id", "kind", name="due_visits_pkey"),
        schema="control",
        comment="Who needs a visit, when, although no event arrives",
    )
    op.create_index("due_visits_due_at_idx", "due_visits", ["due_at"], unique=False, schema="control")
    op.create_table(
        "signing_secrets",
        sa.Column("secret_id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=False, comment="Fernet token of the whole whsec_… text"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["control.tenants.tenant_id"], name=op.f("signing_secrets_tenant_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("secret_id", name="signing_secrets_pkey"),
        schema="control",
    )
    op.create_index("signing_secrets_tenant_id_idx", "signing_secrets", ["tenant_id"], unique=False, schema="control")
    op.execute(
        "CREATE TABLE control.alembic_version (version_num varchar(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
    )
    op.execute("INSERT INTO control.alembic_version (version_num) VALUES ('0001')")
    op.execute(PENDING_EVENTS_VACUUM)
    op.execute(RECORD_EVENTS)


def downgrade() -> None:
    op.execute("DROP SCHEMA control CASCADE")
