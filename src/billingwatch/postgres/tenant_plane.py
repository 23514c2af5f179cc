"""Tables of the tenant plane: every tenant schema holds exactly these, addressed by unqualified names.

Projected tables (charges … payment_methods) hold the newest known snapshot of each Stripe object. `version` orders the
snapshots of one object (see billing.versions); `event_id` names the event that the row was read from; `updated_at` is
that event's `created`. `states` remembers what those objects were before, so that a detector can judge any instant of the past. Amounts are integers in the currency's minor unit. Money columns may be null where Stripe sends none.
"""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB

# Holds every tenant schema to the relation budget; a test counts.
TABLES_MAX = 12
INDEXES_MAX = 22  # primary keys included

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s",
    }
)

Instant = DateTime(timezone=True)
# Byte order, so that Python and every server locale agree on which of two versions is newer.
Key = Text(collation="C")


def _snapshot_columns() -> tuple[Column[object], ...]:
    return (
        Column("account", Text, doc="Connected account (acct_…) the object lives on; null: the tenant's own"),
        Column("created_at", Instant, nullable=False, doc="When Stripe created the object"),
        Column("updated_at", Instant, nullable=False, doc="When the event behind this row occurred"),
        Column("event_id", Key, nullable=False, doc="Event this row was read from"),
        Column("version", Key, nullable=False, doc="Orders the snapshots of one object; the greatest wins"),
    )


events = Table(
    "events",
    metadata,
    Column("event_id", Key, nullable=False, doc="evt_…"),
    Column("type", Text, nullable=False, doc="Stripe's event type"),
    Column("api_version", Text, doc="Stripe API version that shaped the payload"),
    Column("livemode", Boolean, nullable=False, doc="False for Stripe's test mode"),
    Column("account", Text, doc="Connected account (acct_…) the event belongs to"),
    Column("object_id", Text, doc="Id of the object inside"),
    Column("occurred_at", Instant, nullable=False, doc="Stripe's created"),
    Column("signed_at", Instant, doc="Time in the Stripe-Signature header of the first delivery; null for replayed events"),
    Column("received_at", Instant, nullable=False, doc="When the first delivery arrived here"),
    Column("last_received_at", Instant, nullable=False, doc="When the latest delivery arrived here"),
    Column("deliveries", Integer, nullable=False, server_default=text("1"), doc="How often Stripe delivered it"),
    Column("disposition", Text, nullable=False, doc="process: projected and looked at; ignored: wrong mode; needs_fetch: thin"),
    Column("payload", JSON, nullable=False, doc="The body exactly as it was signed; null (JSON) when it is in `body`"),
    Column("body", LargeBinary, doc="The body of an event that PostgreSQL's json refuses"),
    PrimaryKeyConstraint("event_id", name="events_pkey"),
    Index("events_received_at_event_id_idx", "received_at", "event_id"),
)

charges = Table(
    "charges",
    metadata,
    Column("charge_id", Key, nullable=False, doc="ch_… or py_…"),
    Column("payment_id", Text, nullable=False, doc="What retries share: payment intent, else invoice, else the charge itself"),
    Column("payment_intent_id", Text),
    Column("invoice_id", Text, doc="Only in payloads before Stripe API 2025-03-31"),
    Column("from_invoice", Boolean, nullable=False, doc="The charge paid some invoice, as far as the payload tells"),
    Column("customer_id", Text),
    Column("payer", Text, doc="Who pays: the customer, else the card fingerprint; null when neither is known"),
    Column("amount", BigInteger, nullable=False, doc="Minor units"),
    Column("amount_captured", BigInteger, nullable=False, doc="Minor units"),
    Column("amount_refunded", BigInteger, nullable=False, doc="Minor units, cumulative, of the captured amount"),
    Column("currency", Text, nullable=False, doc="ISO 4217, lower case"),
    Column("status", Text, nullable=False, doc="succeeded, pending, failed, expired"),
    Column("captured", Boolean, nullable=False),
    Column("disputed", Boolean, nullable=False),
    Column("failure_code", Text),
    Column("decline_code", Text, doc="The issuer's or network's reason, where Stripe tells it"),
    Column("outcome_type", Text, doc="authorized, manual_review, issuer_declined, blocked, invalid"),
    Column("risk_level", Text),
    Column("payment_method_type", Text),
    Column("card_fingerprint", Text),
    Column("card_country", Text),
    Column("order_reference", Text, doc="The order a charge names in its metadata or transfer group"),
    *_snapshot_columns(),
    Column("destination", Text, doc="Connected account (acct_…) that receives the money of a charge on the platform"),
    Column(
        "amount_released",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        doc="Minor units that were authorized, never captured, and refunded on paper (before Stripe API 2025-03-31)",
    ),
    Column(
        "refunds_failed",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        doc="Minor units of amount_refunded whose refund failed or was canceled after this snapshot",
    ),
    PrimaryKeyConstraint("charge_id", name="charges_pkey"),
    Index("charges_created_at_idx", "created_at"),
    # First attempts are told from retries by looking for an earlier row of the payment; only failed payments are asked about.
    Index("charges_payment_id_created_at_idx", "payment_id", "created_at"),
)

invoices = Table(
    "invoices",
    metadata,
    Column("invoice_id", Key, nullable=False, doc="in_…"),
    Column("customer_id", Text),
    Column("subscription_id", Text),
    Column("number", Text),
    Column(
        "status", Text, nullable=False, doc="draft, open, paid, uncollectible, void, deleted; unknown while only a payment of it was seen"
    ),
    Column("billing_reason", Text),
    Column("collection_method", Text),
    Column("currency", Text, doc="ISO 4217, lower case"),
    Column("total", BigInteger, doc="Minor units; negative for a credit"),
    Column("subtotal", BigInteger),
    Column("amount_due", BigInteger),
    Column("amount_paid", BigInteger),
    Column("amount_remaining", BigInteger),
    Column("starting_balance", BigInteger),
    Column("ending_balance", BigInteger),
    Column("attempt_count", Integer),
    Column("next_payment_attempt_at", Instant),
    Column("period_start_at", Instant),
    Column("period_end_at", Instant),
    Column("due_at", Instant),
    Column("finalized_at", Instant),
    Column("paid_at", Instant),
    Column("voided_at", Instant),
    Column("payment_ids", ARRAY(Text), nullable=False, doc="Payment intents and charges known to have paid it"),
    Column(
        "lines",
        JSONB,
        doc="[{price_id, amount, quantity, proration, subscription_item_id, period_start, period_end, discounted, listed_all}]",
    ),
    *_snapshot_columns(),
    Column("discount_amount", BigInteger, doc="Minor units taken off by discounts and credit grants"),
    Column("tax_amount", BigInteger, doc="Minor units of tax added to the subtotal; what the prices include is not in it"),
    PrimaryKeyConstraint("invoice_id", name="invoices_pkey"),
    Index("invoices_created_at_idx", "created_at"),
    Index("invoices_subscription_id_created_at_idx", "subscription_id", "created_at"),
)

subscriptions = Table(
    "subscriptions",
    metadata,
    Column("subscription_id", Key, nullable=False, doc="sub_…"),
    Column("customer_id", Text),
    Column("status", Text, nullable=False, doc="Stripe's status"),
    Column("collection_method", Text),
    Column("currency", Text, doc="ISO 4217, lower case"),
    Column(
        "items",
        JSONB,
        nullable=False,
        doc="[{item_id, price_id, unit_amount, quantity, interval, interval_count, usage_type, period_start, period_end, amount}]",
    ),
    Column("mrr", BigInteger, doc="Minor units per month, before discounts; null when the items do not tell"),
    Column("period_start_at", Instant, doc="Earliest over the items"),
    Column("period_end_at", Instant, doc="Earliest over the items"),
    Column("billing_cycle_anchor_at", Instant),
    Column("trial_end_at", Instant),
    Column("cancel_at_period_end", Boolean, nullable=False),
    Column("cancel_at", Instant),
    Column("canceled_at", Instant),
    Column("ended_at", Instant),
    Column("collection_paused", Boolean, nullable=False, doc="pause_collection is set"),
    Column("discounted", Boolean, nullable=False),
    Column("default_payment_method_id", Text),
    *_snapshot_columns(),
    PrimaryKeyConstraint("subscription_id", name="subscriptions_pkey"),
)

disputes = Table(
    "disputes",
    metadata,
    Column("dispute_id", Key, nullable=False, doc="dp_… (du_…), or issfr_… for an early fraud warning"),
    Column("kind", Text, nullable=False, doc="dispute, inquiry or early_fraud_warning"),
    Column("charge_id", Text),
    Column("payment_intent_id", Text),
    Column("amount", BigInteger, doc="Minor units; null for an early fraud warning"),
    Column("currency", Text, doc="ISO 4217, lower case; null for an early fraud warning"),
    Column("reason", Text, doc="Dispute reason, or fraud type of a warning"),
    Column("status", Text, doc="Stripe's status; null for an early fraud warning"),
    Column("actionable", Boolean, doc="Early fraud warnings only"),
    Column("evidence_due_at", Instant),
    *_snapshot_columns(),
    PrimaryKeyConstraint("dispute_id", name="disputes_pkey"),
    CheckConstraint("kind IN ('dispute', 'inquiry', 'early_fraud_warning')", name="kind_known"),
    Index("disputes_created_at_idx", "created_at"),
    Index("disputes_charge_id_idx", "charge_id"),
)

refunds = Table(
    "refunds",
    metadata,
    Column("refund_id", Key, nullable=False, doc="re_… or pyr_…"),
    Column("charge_id", Text),
    Column("payment_intent_id", Text),
    Column("amount", BigInteger, nullable=False, doc="Minor units"),
    Column("currency", Text, nullable=False, doc="ISO 4217, lower case"),
    Column("status", Text, doc="pending, requires_action, succeeded, failed, canceled"),
    Column("reason", Text),
    Column("failure_reason", Text),
    *_snapshot_columns(),
    Column(
        "released",
        Boolean,
        nullable=False,
        server_default=text("false"),
        doc="It returns no money: its charge is not captured, or it is the part that was not captured",
    ),
    PrimaryKeyConstraint("refund_id", name="refunds_pkey"),
    Index("refunds_created_at_idx", "created_at"),
)

customers = Table(
    "customers",
    metadata,
    Column("customer_id", Key, nullable=False, doc="cus_…"),
    Column("email", Text),
    Column("name", Text),
    Column("currency", Text, doc="ISO 4217, lower case"),
    Column("delinquent", Boolean),
    Column("default_payment_method_id", Text),
    Column("deleted", Boolean, nullable=False),
    *_snapshot_columns(),
    PrimaryKeyConstraint("customer_id", name="customers_pkey"),
)

payment_methods = Table(
    "payment_methods",
    metadata,
    Column("payment_method_id", Key, nullable=False, doc="pm_…, card_… or src_…"),
    Column("customer_id", Text, doc="Null once detached"),
    Column("type", Text),
    Column("card_brand", Text),
    Column("card_last4", Text),
    Column("card_fingerprint", Text),
    Column("card_exp_month", SmallInteger),
    Column("card_exp_year", SmallInteger),
    *_snapshot_columns(),
    PrimaryKeyConstraint("payment_method_id", name="payment_methods_pkey"),
)

states = Table(
    "states",
    metadata,
    Column(
        "object_id",
        Key,
        nullable=False,
        doc="sub_…, pm_…, cus_… or in_…; of a charge the customer and the currency, of a turn the subscription and the second",
    ),
    Column("version", Key, nullable=False, doc="Orders the states of one object, as in the object's own table"),
    Column(
        "kind",
        Text,
        nullable=False,
        doc="subscription, payment_method, customer; invoice: one that an attempt to collect left unpaid; "
        "first_charge: one of the first by which a customer paid in a currency; turn: when a period of a subscription ends, or began",
    ),
    Column("account", Text, doc="Connected account (acct_…) the object lives on; null: the tenant's own"),
    Column("created_at", Instant, nullable=False, doc="When the event occurred that told of this state; of a turn when it is"),
    Column("event_id", Key, nullable=False, doc="Empty for a turn and a first charge, of which many events tell"),
    Column("facts", JSONB, nullable=False, doc="The columns of the object's table as they were then"),
    PrimaryKeyConstraint("object_id", "version", name="states_pkey"),
    CheckConstraint("kind IN ('customer', 'first_charge', 'invoice', 'payment_method', 'subscription', 'turn')", name="kind_known"),
    Index("states_kind_created_at_idx", "kind", "created_at"),
)

anomalies = Table(
    "anomalies",
    metadata,
    Column("anomaly_id", Uuid, nullable=False),
    Column("detector", Text, nullable=False),
    Column("subject", Text, nullable=False, doc="What it is about, in the detector's terms: a charge, a customer, a currency"),
    Column("fingerprint", Text, nullable=False, doc="Detector, subject and incident: the same history gives the same fingerprint"),
    Column("status", Text, nullable=False, doc="open, acknowledged, resolved, false_positive"),
    Column("severity", Text, nullable=False, doc="info, warning, critical"),
    Column("summary", Text, nullable=False, doc="One sentence for people"),
    Column("opened_at", Instant, nullable=False, doc="Event time of the first anomalous event"),
    Column("last_seen_at", Instant, nullable=False, doc="Event time of the latest anomalous event"),
    Column("resolved_at", Instant, doc="When the cause was gone, or a person resolved it"),
    Column("resolution", Text, doc="automatic: the cause is gone; manual: a person; retracted: later events explain it"),
    Column("detected_at", Instant, nullable=False, doc="When it was first found here"),
    Column("updated_at", Instant, nullable=False, doc="When its evidence or status last changed here"),
    Column("acknowledged_at", Instant),
    Column("reason", Text, doc="What the person said who acknowledged or closed it"),
    Column("amounts", JSONB, nullable=False, doc="Amount at risk in minor units per currency"),
    Column("evidence", JSONB, nullable=False, doc="Events, objects and numbers that reproduce it"),
    Column("historical", Boolean, nullable=False, server_default=text("false"), doc="Found in replayed or long past events: no alert"),
    PrimaryKeyConstraint("anomaly_id", name="anomalies_pkey"),
    UniqueConstraint("detector", "fingerprint", name="anomalies_detector_fingerprint_key"),
    CheckConstraint("status IN ('open', 'acknowledged', 'resolved', 'false_positive')", name="status_known"),
    CheckConstraint("severity IN ('info', 'warning', 'critical')", name="severity_known"),
    CheckConstraint("resolution IN ('automatic', 'manual', 'retracted')", name="resolution_known"),
    CheckConstraint("(status = 'resolved') = (resolution IS NOT NULL)", name="resolved_has_resolution"),
    CheckConstraint("resolved_at >= opened_at", name="resolved_after_opened"),
    Index("anomalies_opened_at_anomaly_id_idx", "opened_at", "anomaly_id"),
    Index("anomalies_detector_last_seen_at_idx", "detector", "last_seen_at"),
)
