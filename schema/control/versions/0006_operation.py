"""pre: pause, URL rotation, API keys, changes of tenants, processors, fleet settings. Locks tenants and api_keys for a moment."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# For an event whose body json refuses: the bytes go to `events.body`, and `payload` is JSON null. Otherwise as `record_events`.
RECORD_BODY = """
CREATE OR REPLACE FUNCTION control.record_body(
    tenant_id integer, schema_name text, event_id text, type text, api_version text, livemode boolean,
    account text, object_id text, occurred_at timestamptz, signed_at timestamptz, received_at timestamptz,
    disposition text, body bytea
) RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    events CONSTANT text := quote_ident(schema_name) || '.events';
    count integer;
BEGIN
    IF disposition NOT IN ('process', 'ignored', 'needs_fetch') THEN
        RAISE check_violation USING MESSAGE = 'unknown disposition';
    END IF;
    EXECUTE 'INSERT INTO ' || events || ' (event_id, type, api_version, livemode, account, object_id, occurred_at, signed_at, received_at,'
        ' last_received_at, deliveries, disposition, payload, body)'
        ' VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, 1, $10, ''null'', $11) ON CONFLICT DO NOTHING'
    USING event_id, type, api_version, livemode, account, object_id, occurred_at, signed_at, received_at, disposition, body;
    GET DIAGNOSTICS count = ROW_COUNT;
    IF count = 0 THEN
        EXECUTE 'UPDATE ' || events || ' SET deliveries = deliveries + 1, last_received_at = greatest(last_received_at, $1)'
            ' WHERE event_id = $2'
        USING received_at, event_id;
    ELSIF disposition = 'process' THEN
        INSERT INTO control.pending_events (tenant_id, event_id, received_at)
        VALUES (record_body.tenant_id, record_body.event_id, record_body.received_at);
    END IF;
    RETURN count = 1;
END
$$
"""


def upgrade() -> None:
    op.execute(RECORD_BODY)
    op.create_table(
        "fleet_settings",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name="fleet_settings_pkey"),
        schema="control",
        comment="Values that every process of the fleet must agree on; a process with another value refuses to start",
    )
    op.create_table(
        "processors",
        sa.Column("processor_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("reported_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("processor_id", name="processors_pkey"),
        schema="control",
        comment="Processes that process events; each updates reported_at every few seconds",
    )
    op.create_table(
        "tenant_changes",
        sa.Column("change_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("tenant_id", sa.Integer(), nullable=True, comment="Null: every tenant"),
        sa.Column(
            "transaction_id",
            sa.BigInteger(),
            server_default=sa.text("pg_current_xact_id()::text::bigint"),
            nullable=False,
            comment="Transaction that wrote the row; a reader compares it with the oldest one that still runs",
        ),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("change_id", name="tenant_changes_pkey"),
        schema="control",
        comment="Changes of tenants in the last hours; each process polls them to drop cached tenants",
    )
    op.create_index("tenant_changes_transaction_id_idx", "tenant_changes", ["transaction_id"], unique=False, schema="control")
    op.create_table(
        "ingest_activity",
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("refused", sa.BigInteger(), server_default=sa.text("0"), nullable=False, comment="Deliveries refused so far"),
        sa.Column("last_refused_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_refusal", sa.Text(), nullable=True, comment="Reason of the last refusal"),
        sa.Column(
            "ignored",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Events recorded and ignored because of their mode",
        ),
        sa.Column("last_ignored_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["control.tenants.tenant_id"], name=op.f("ingest_activity_tenant_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", name="ingest_activity_pkey"),
        schema="control",
        comment="Refused and ignored deliveries of each tenant; processes add to it every few seconds",
    )
    op.add_column("api_keys", sa.Column("key_id", sa.Integer(), sa.Identity(always=True), nullable=False), schema="control")
    op.add_column(
        "api_keys",
        sa.Column("name", sa.Text(), server_default=sa.text("''"), nullable=False, comment="What the operator calls it"),
        schema="control",
    )
    op.add_column(
        "api_keys",
        sa.Column(
            "scope", sa.Text(), server_default=sa.text("'write'"), nullable=False, comment="read: GET and HEAD only; write: every call"
        ),
        schema="control",
    )
    op.add_column("api_keys", sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True, comment="Null: never"), schema="control")
    op.add_column(
        "api_keys",
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True, comment="To the minute; null: never used"),
        schema="control",
    )
    op.add_column(
        "analysts",
        sa.Column("verifier", sa.Text(), nullable=True, comment="SCRAM verifier of the password that was handed out; null: not kept"),
        schema="control",
    )
    op.create_unique_constraint("api_keys_key_id_key", "api_keys", ["key_id"], schema="control")
    op.add_column(
        "tenants",
        sa.Column("previous_token_hash", sa.LargeBinary(), nullable=True, comment="SHA-256 of the webhook token before the last rotation"),
        schema="control",
    )
    op.add_column(
        "tenants",
        sa.Column(
            "previous_token_until", sa.DateTime(timezone=True), nullable=True, comment="Until when the previous webhook token is accepted"
        ),
        schema="control",
    )
    op.add_column(
        "tenants", sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True, comment="Begin of the last pause"), schema="control"
    )
    op.add_column(
        "tenants",
        sa.Column("resumed_at", sa.DateTime(timezone=True), nullable=True, comment="End of the last pause; null: it lasts, or never was"),
        schema="control",
    )
    op.alter_column(
        "tenants",
        "status",
        existing_type=sa.TEXT(),
        comment="active; paused: events are recorded and wait; removing: events are refused",
        existing_nullable=False,
        existing_server_default=sa.text("'active'::text"),
        schema="control",
    )
    op.create_unique_constraint("tenants_previous_token_hash_key", "tenants", ["previous_token_hash"], schema="control")
    op.create_check_constraint(op.f("api_keys_scope_known"), "api_keys", "scope IN ('read', 'write')", schema="control")
    op.create_check_constraint(
        op.f("tenants_previous_token_is_whole"),
        "tenants",
        "num_nulls(previous_token_hash, previous_token_until) IN (0, 2)",
        schema="control",
    )
    op.create_check_constraint(
        op.f("tenants_pause_has_begun"), "tenants", "status <> 'paused' OR (paused_at IS NOT NULL AND resumed_at IS NULL)", schema="control"
    )
    op.alter_column(
        "audit_log",
        "actor",
        existing_type=sa.TEXT(),
        comment="operator, or the name or hint of an API key",
        existing_nullable=False,
        schema="control",
    )
    # `suspended` was the state of a tenant whose removal had failed.
    op.drop_constraint("tenants_status_known", "tenants", schema="control")
    op.execute("UPDATE control.tenants SET status = 'removing' WHERE status = 'suspended'")
    op.create_check_constraint(op.f("tenants_status_known"), "tenants", "status IN ('active', 'paused', 'removing')", schema="control")


def downgrade() -> None:
    op.execute("DROP FUNCTION control.record_body")
    op.drop_constraint("tenants_status_known", "tenants", schema="control")
    # The release before this one knows neither pauses nor limits of keys. It refuses a suspended tenant's events, and the next upgrade
    # reads `suspended` as a removal that cannot be undone: a paused tenant becomes active.
    op.execute("UPDATE control.tenants SET status = 'active' WHERE status = 'paused'")
    op.execute("UPDATE control.tenants SET status = 'suspended' WHERE status = 'removing'")
    # Without scope and expiry these keys would admit every call for ever.
    op.execute("DELETE FROM control.api_keys WHERE scope <> 'write' OR expires_at <= now()")
    op.create_check_constraint(op.f("tenants_status_known"), "tenants", "status IN ('active', 'suspended')", schema="control")
    op.alter_column(
        "audit_log",
        "actor",
        existing_type=sa.TEXT(),
        comment="operator, or the hint of an API key",
        existing_nullable=False,
        schema="control",
    )
    op.drop_constraint("tenants_pause_has_begun", "tenants", schema="control")
    op.drop_constraint("tenants_previous_token_is_whole", "tenants", schema="control")
    op.drop_constraint("api_keys_scope_known", "api_keys", schema="control")
    op.drop_constraint("tenants_previous_token_hash_key", "tenants", schema="control", type_="unique")
    op.alter_column(
        "tenants",
        "status",
        existing_type=sa.TEXT(),
        comment=None,
        existing_comment="active; paused: events are recorded and wait; removing: events are refused",
        existing_nullable=False,
        existing_server_default=sa.text("'active'::text"),
        schema="control",
    )
    op.drop_column("tenants", "resumed_at", schema="control")
    op.drop_column("tenants", "paused_at", schema="control")
    op.drop_column("tenants", "previous_token_until", schema="control")
    op.drop_column("tenants", "previous_token_hash", schema="control")
    op.drop_constraint("api_keys_key_id_key", "api_keys", schema="control", type_="unique")
    op.drop_column("api_keys", "last_used_at", schema="control")
    op.drop_column("api_keys", "expires_at", schema="control")
    op.drop_column("api_keys", "scope", schema="control")
    op.drop_column("api_keys", "name", schema="control")
    op.drop_column("api_keys", "key_id", schema="control")
    op.drop_column("analysts", "verifier", schema="control")
    op.drop_table("ingest_activity", schema="control")
    op.drop_index("tenant_changes_transaction_id_idx", table_name="tenant_changes", schema="control")
    op.drop_table("tenant_changes", schema="control")
    op.drop_table("processors", schema="control")
    op.drop_table("fleet_settings", schema="control")
