"""Tables of the control plane: schema `control`, small and shared, always addressed by qualified name."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    schema="control",
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    },
)

Instant = DateTime(timezone=True)
now = text("now()")


def _tenant_id() -> Column[int]:
    return Column("tenant_id", Integer, ForeignKey("control.tenants.tenant_id", ondelete="CASCADE"), nullable=False)


tenants = Table(
    "tenants",
    metadata,
    Column("tenant_id", Integer, Identity(always=True), nullable=False),
    Column("name", Text, nullable=False),
    Column("schema_name", Text, nullable=False, comment="Opaque: every Postgres role can read pg_namespace. tenants_…: shared by all"),
    Column("mode", Text, nullable=False, comment="Events of the other mode are recorded and ignored"),
    Column(
        "status",
        Text,
        nullable=False,
        server_default=text("'active'"),
        comment="active; paused: events are recorded and wait; removing: events are refused",
    ),
    Column("revision", Text, nullable=False, comment="Revision of the tenant line that the schema is at"),
    Column("views_digest", Text, nullable=False, comment="Digest of schema/views that the schema was given"),
    Column("webhook_token_hash", LargeBinary, nullable=False, comment="SHA-256"),
    Column("rate_limit", Integer, comment="Events per second; null: the service's default"),
    Column("created_at", Instant, nullable=False, server_default=now),
    Column("previous_token_hash", LargeBinary, comment="SHA-256 of the webhook token before the last rotation"),
    Column("previous_token_until", Instant, comment="Until when the previous webhook token is accepted"),
    Column("paused_at", Instant, comment="Begin of the last pause"),
    Column("resumed_at", Instant, comment="End of the last pause; null: it lasts, or never was"),
    PrimaryKeyConstraint("tenant_id", name="tenants_pkey"),
    UniqueConstraint("name", name="tenants_name_key"),
    UniqueConstraint("webhook_token_hash", name="tenants_webhook_token_hash_key"),
    UniqueConstraint("previous_token_hash", name="tenants_previous_token_hash_key"),
    CheckConstraint("mode IN ('live', 'test')", name="mode_known"),
    CheckConstraint("status IN ('active', 'paused', 'removing')", name="status_known"),
    CheckConstraint("num_nulls(previous_token_hash, previous_token_until) IN (0, 2)", name="previous_token_is_whole"),
    CheckConstraint("status <> 'paused' OR (paused_at IS NOT NULL AND resumed_at IS NULL)", name="pause_has_begun"),
    CheckConstraint("schema_name ~ '^tenants?_[a-z2-7]{10}$'", name="schema_name_opaque"),
    CheckConstraint("name ~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$'", name="name_plain"),
    Index("tenants_schema_name_idx", "schema_name", unique=True, postgresql_where=text("starts_with(schema_name, 'tenant_')")),
)

isolation = Table(
    "isolation",
    metadata,
    Column("kind", Text, nullable=False, comment="schema: one for each tenant; row: one for all, with row-level security"),
    Column("schema_name", Text, comment="The one of all tenants, and the role that their scopes run as"),
    Column("partitions", Integer, comment="Hash partitions of each table in it; 0: not partitioned"),
    Column("revision", Text, comment="Revision of the tenant line that it is at"),
    Column("views_digest", Text, comment="Digest of schema/views that it was given"),
    PrimaryKeyConstraint("kind", name="isolation_pkey"),
    CheckConstraint("kind IN ('schema', 'row')", name="kind_known"),
    CheckConstraint(
        "CASE kind WHEN 'row' THEN num_nulls(schema_name, partitions, revision, views_digest) = 0"
        " ELSE num_nonnulls(schema_name, partitions, revision, views_digest) = 0 END",
        name="shared_is_whole",
    ),
    CheckConstraint("schema_name ~ '^tenants_[a-z2-7]{10}$'", name="schema_name_opaque"),
    CheckConstraint("partitions >= 0", name="partitions_not_negative"),
    Index("isolation_single_idx", text("(true)"), unique=True),
    comment="How this database keeps its tenants apart, since it was set up: one row",
)

signing_secrets = Table(
    "signing_secrets",
    metadata,
    Column("secret_id", Integer, Identity(always=True), nullable=False),
    _tenant_id(),
    Column("ciphertext", LargeBinary, nullable=False, comment="Fernet token of the whole whsec_… text"),
    Column("created_at", Instant, nullable=False, server_default=now),
    PrimaryKeyConstraint("secret_id", name="signing_secrets_pkey"),
    Index("signing_secrets_tenant_id_idx", "tenant_id"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_hash", LargeBinary, nullable=False, comment="SHA-256"),
    _tenant_id(),
    Column("hint", Text, nullable=False, comment="First characters, to tell keys apart"),
    Column("created_at", Instant, nullable=False, server_default=now),
    Column("key_id", Integer, Identity(always=True), nullable=False),
    Column("name", Text, nullable=False, server_default=text("''"), comment="What the operator calls it"),
    Column("scope", Text, nullable=False, server_default=text("'write'"), comment="read: GET and HEAD only; write: every call"),
    Column("expires_at", Instant, comment="Null: never"),
    Column("last_used_at", Instant, comment="To the minute; null: never used"),
    PrimaryKeyConstraint("key_hash", name="api_keys_pkey"),
    UniqueConstraint("key_id", name="api_keys_key_id_key"),
    CheckConstraint("scope IN ('read', 'write')", name="scope_known"),
    Index("api_keys_tenant_id_idx", "tenant_id"),
)

analysts = Table(
    "analysts",
    metadata,
    Column("role_name", Text, nullable=False, comment="Opaque: every Postgres role can read pg_roles"),
    _tenant_id(),
    Column("created_at", Instant, nullable=False, server_default=now),
    Column("verifier", Text, comment="SCRAM verifier of the password that was handed out; null: not kept"),
    PrimaryKeyConstraint("role_name", name="analysts_pkey"),
    Index("analysts_tenant_id_idx", "tenant_id"),
)

pending_events = Table(
    "pending_events",
    metadata,
    # No foreign key: its check would lock the tenant's row for every event.
    Column("tenant_id", Integer, nullable=False),
    Column("position", BigInteger, Identity(always=True), nullable=False, comment="Order of arrival"),
    Column("event_id", Text(collation="C"), nullable=False),
    Column("received_at", Instant, nullable=False),
    PrimaryKeyConstraint("tenant_id", "position", name="pending_events_pkey"),
    comment="Recorded and not yet processed, over all tenants; a visit deletes what it processed",
)

due_visits = Table(
    "due_visits",
    metadata,
    _tenant_id(),
    Column(
        "kind",
        Text,
        nullable=False,
        comment="settle: anomalies that end when time passes; evaluate: detectors that judge time itself; rejudge:<detector>: one that failed; "
        "history: all, because rows arrived late",
    ),
    Column("due_at", Instant, nullable=False),
    Column(
        "since",
        Instant,
        comment="evaluate: up to when the detectors of time have judged; rejudge and history: from when on detectors evaluate again",
    ),
    PrimaryKeyConstraint("tenant_id", "kind", name="due_visits_pkey"),
    Index("due_visits_due_at_idx", "due_at"),
    comment="Who needs a visit, when, although no event arrives",
)

dead_letters = Table(
    "dead_letters",
    metadata,
    _tenant_id(),
    Column("event_id", Text(collation="C"), nullable=False),
    Column("error", Text, nullable=False),
    Column("failed_at", Instant, nullable=False, server_default=now),
    PrimaryKeyConstraint("tenant_id", "event_id", name="dead_letters_pkey"),
    comment="Events that could not be projected; their payloads stay in the tenant's events",
)

detector_settings = Table(
    "detector_settings",
    metadata,
    _tenant_id(),
    Column("detector", Text, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("thresholds", JSONB, nullable=False, comment="Those that differ from the detector's defaults"),
    Column("updated_at", Instant, nullable=False, server_default=now),
    PrimaryKeyConstraint("tenant_id", "detector", name="detector_settings_pkey"),
)

mutes = Table(
    "mutes",
    metadata,
    Column("mute_id", Integer, Identity(always=True), nullable=False),
    _tenant_id(),
    Column("detector", Text, comment="Null: all"),
    Column("subject", Text, comment="Null: all"),
    Column("since", Instant, comment="Bounds of opened_at; null: open"),
    Column("until", Instant),
    Column("reason", Text, nullable=False),
    Column("created_at", Instant, nullable=False, server_default=now),
    PrimaryKeyConstraint("mute_id", name="mutes_pkey"),
    CheckConstraint("until > since", name="until_after_since"),
    Index("mutes_tenant_id_idx", "tenant_id"),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("audit_id", BigInteger, Identity(always=True), nullable=False),
    _tenant_id(),
    Column("actor", Text, nullable=False, comment="operator, or the name or hint of an API key"),
    Column("action", Text, nullable=False),
    Column("detail", JSONB, nullable=False, comment="What it was, and what it is"),
    Column("occurred_at", Instant, nullable=False, server_default=now),
    PrimaryKeyConstraint("audit_id", name="audit_log_pkey"),
    Index("audit_log_tenant_id_audit_id_idx", "tenant_id", "audit_id"),
    comment="Who changed what; only ever added to",
)

migration_failures = Table(
    "migration_failures",
    metadata,
    _tenant_id(),
    Column("wanted", Text, nullable=False, comment="The revision that the tenant did not reach"),
    Column("error", Text, nullable=False),
    Column("failed_at", Instant, nullable=False, server_default=now),
    PrimaryKeyConstraint("tenant_id", name="migration_failures_pkey"),
    comment="Tenants whose last migration failed; gone once one succeeds",
)

tenant_changes = Table(
    "tenant_changes",
    metadata,
    Column("change_id", BigInteger, Identity(always=True), nullable=False),
    # No foreign key: the removal of a tenant is a change, too.
    Column("tenant_id", Integer, comment="Null: every tenant"),
    Column(
        "transaction_id",
        BigInteger,
        nullable=False,
        server_default=text("pg_current_xact_id()::text::bigint"),
        comment="Transaction that wrote the row; a reader compares it with the oldest one that still runs",
    ),
    Column("changed_at", Instant, nullable=False, server_default=now),
    PrimaryKeyConstraint("change_id", name="tenant_changes_pkey"),
    Index("tenant_changes_transaction_id_idx", "transaction_id"),
    comment="Changes of tenants in the last hours; each process polls them to drop cached tenants",
)

processors = Table(
    "processors",
    metadata,
    Column("processor_id", BigInteger, Identity(always=True), nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_at", Instant, nullable=False, server_default=now),
    Column("reported_at", Instant, nullable=False, server_default=now),
    PrimaryKeyConstraint("processor_id", name="processors_pkey"),
    comment="Processes that process events; each updates reported_at every few seconds",
)

fleet_settings = Table(
    "fleet_settings",
    metadata,
    Column("name", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("updated_at", Instant, nullable=False, server_default=now),
    PrimaryKeyConstraint("name", name="fleet_settings_pkey"),
    comment="Values that every process of the fleet must agree on; a process with another value refuses to start",
)

ingest_activity = Table(
    "ingest_activity",
    metadata,
    _tenant_id(),
    Column("refused", BigInteger, nullable=False, server_default=text("0"), comment="Deliveries refused so far"),
    Column("last_refused_at", Instant),
    Column("last_refusal", Text, comment="Reason of the last refusal"),
    Column("ignored", BigInteger, nullable=False, server_default=text("0"), comment="Events recorded and ignored because of their mode"),
    Column("last_ignored_at", Instant),
    PrimaryKeyConstraint("tenant_id", name="ingest_activity_pkey"),
    comment="Refused and ignored deliveries of each tenant; processes add to it every few seconds",
)
