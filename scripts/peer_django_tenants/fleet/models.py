"""The tables of a tenant, as Django has them: the same columns and indexes as BillingWatch's tenant plane, without its check constraints.

Django adds an index of its own to each text primary key (for LIKE).
"""

from django.contrib.postgres.fields import ArrayField
from django.db import models


class Anomaly(models.Model):
    anomaly_id = models.UUIDField(primary_key=True)
    detector = models.TextField()
    subject = models.TextField()
    fingerprint = models.TextField()
    status = models.TextField()
    severity = models.TextField()
    summary = models.TextField()
    opened_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()
    resolved_at = models.DateTimeField(null=True)
    resolution = models.TextField(null=True)
    detected_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    acknowledged_at = models.DateTimeField(null=True)
    reason = models.TextField(null=True)
    amounts = models.JSONField()
    evidence = models.JSONField()
    historical = models.BooleanField(db_default=False)

    class Meta:
        db_table = "anomalies"
        indexes = (
            models.Index(fields=["detector", "last_seen_at"], name="anomalies_detector_last_seen_a"),
            models.Index(fields=["opened_at", "anomaly_id"], name="anomalies_opened_at_anomaly_id"),
        )
        constraints = (models.UniqueConstraint(fields=["detector", "fingerprint"], name="anomalies_detector_fingerprint_key"),)


class Charge(models.Model):
    charge_id = models.TextField(primary_key=True)
    payment_id = models.TextField()
    payment_intent_id = models.TextField(null=True)
    invoice_id = models.TextField(null=True)
    from_invoice = models.BooleanField()
    customer_id = models.TextField(null=True)
    payer = models.TextField(null=True)
    amount = models.BigIntegerField()
    amount_captured = models.BigIntegerField()
    amount_refunded = models.BigIntegerField()
    currency = models.TextField()
    status = models.TextField()
    captured = models.BooleanField()
    disputed = models.BooleanField()
    failure_code = models.TextField(null=True)
    decline_code = models.TextField(null=True)
    outcome_type = models.TextField(null=True)
    risk_level = models.TextField(null=True)
    payment_method_type = models.TextField(null=True)
    card_fingerprint = models.TextField(null=True)
    card_country = models.TextField(null=True)
    order_reference = models.TextField(null=True)
    destination = models.TextField(null=True)
    amount_released = models.BigIntegerField(default=0)
    refunds_failed = models.BigIntegerField(default=0)
    account = models.TextField(null=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    event_id = models.TextField()
    version = models.TextField()

    class Meta:
        db_table = "charges"
        indexes = (
            models.Index(fields=["created_at"], name="charges_created_at_idx"),
            models.Index(fields=["payment_id", "created_at"], name="charges_payment_id_created_at_"),
        )


class Customer(models.Model):
    customer_id = models.TextField(primary_key=True)
    email = models.TextField(null=True)
    name = models.TextField(null=True)
    currency = models.TextField(null=True)
    delinquent = models.BooleanField(null=True)
    default_payment_method_id = models.TextField(null=True)
    deleted = models.BooleanField()
    account = models.TextField(null=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    event_id = models.TextField()
    version = models.TextField()

    class Meta:
        db_table = "customers"


class Dispute(models.Model):
    dispute_id = models.TextField(primary_key=True)
    kind = models.TextField()
    charge_id = models.TextField(null=True)
    payment_intent_id = models.TextField(null=True)
    amount = models.BigIntegerField(null=True)
    currency = models.TextField(null=True)
    reason = models.TextField(null=True)
    status = models.TextField(null=True)
    actionable = models.BooleanField(null=True)
    evidence_due_at = models.DateTimeField(null=True)
    account = models.TextField(null=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    event_id = models.TextField()
    version = models.TextField()

    class Meta:
        db_table = "disputes"
        indexes = (
            models.Index(fields=["charge_id"], name="disputes_charge_id_idx"),
            models.Index(fields=["created_at"], name="disputes_created_at_idx"),
        )


class Event(models.Model):
    event_id = models.TextField(primary_key=True)
    type = models.TextField()
    api_version = models.TextField(null=True)
    livemode = models.BooleanField()
    account = models.TextField(null=True)
    object_id = models.TextField(null=True)
    occurred_at = models.DateTimeField()
    signed_at = models.DateTimeField(null=True)
    received_at = models.DateTimeField()
    last_received_at = models.DateTimeField()
    deliveries = models.IntegerField(db_default=1)
    disposition = models.TextField()
    payload = models.JSONField()
    body = models.BinaryField(null=True)

    class Meta:
        db_table = "events"
        indexes = (models.Index(fields=["received_at", "event_id"], name="events_received_at_event_id_id"),)


class Invoice(models.Model):
    invoice_id = models.TextField(primary_key=True)
    customer_id = models.TextField(null=True)
    subscription_id = models.TextField(null=True)
    number = models.TextField(null=True)
    status = models.TextField()
    billing_reason = models.TextField(null=True)
    collection_method = models.TextField(null=True)
    currency = models.TextField(null=True)
    total = models.BigIntegerField(null=True)
    subtotal = models.BigIntegerField(null=True)
    amount_due = models.BigIntegerField(null=True)
    amount_paid = models.BigIntegerField(null=True)
    amount_remaining = models.BigIntegerField(null=True)
    starting_balance = models.BigIntegerField(null=True)
    ending_balance = models.BigIntegerField(null=True)
    attempt_count = models.IntegerField(null=True)
    next_payment_attempt_at = models.DateTimeField(null=True)
    period_start_at = models.DateTimeField(null=True)
    period_end_at = models.DateTimeField(null=True)
    due_at = models.DateTimeField(null=True)
    finalized_at = models.DateTimeField(null=True)
    paid_at = models.DateTimeField(null=True)
    voided_at = models.DateTimeField(null=True)
    payment_ids = ArrayField(models.TextField())
    lines = models.JSONField(null=True)
    account = models.TextField(null=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    event_id = models.TextField()
    version = models.TextField()
    discount_amount = models.BigIntegerField(null=True)
    tax_amount = models.BigIntegerField(null=True)

    class Meta:
        db_table = "invoices"
        indexes = (
            models.Index(fields=["created_at"], name="invoices_created_at_idx"),
            models.Index(fields=["subscription_id", "created_at"], name="invoices_subscription_id_creat"),
        )


class PaymentMethod(models.Model):
    payment_method_id = models.TextField(primary_key=True)
    customer_id = models.TextField(null=True)
    type = models.TextField(null=True)
    card_brand = models.TextField(null=True)
    card_last4 = models.TextField(null=True)
    card_fingerprint = models.TextField(null=True)
    card_exp_month = models.SmallIntegerField(null=True)
    card_exp_year = models.SmallIntegerField(null=True)
    account = models.TextField(null=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    event_id = models.TextField()
    version = models.TextField()

    class Meta:
        db_table = "payment_methods"


class Refund(models.Model):
    refund_id = models.TextField(primary_key=True)
    charge_id = models.TextField(null=True)
    payment_intent_id = models.TextField(null=True)
    amount = models.BigIntegerField()
    currency = models.TextField()
    status = models.TextField(null=True)
    reason = models.TextField(null=True)
    failure_reason = models.TextField(null=True)
    released = models.BooleanField(default=False)
    account = models.TextField(null=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    event_id = models.TextField()
    version = models.TextField()

    class Meta:
        db_table = "refunds"
        indexes = (models.Index(fields=["created_at"], name="refunds_created_at_idx"),)


class State(models.Model):
    object_id = models.TextField()
    version = models.TextField()
    kind = models.TextField()
    account = models.TextField(null=True)
    created_at = models.DateTimeField()
    event_id = models.TextField()
    facts = models.JSONField()
    pk = models.CompositePrimaryKey("object_id", "version")

    class Meta:
        db_table = "states"
        indexes = (models.Index(fields=["kind", "created_at"], name="states_kind_created_at_idx"),)


class Subscription(models.Model):
    subscription_id = models.TextField(primary_key=True)
    customer_id = models.TextField(null=True)
    status = models.TextField()
    collection_method = models.TextField(null=True)
    currency = models.TextField(null=True)
    items = models.JSONField()
    mrr = models.BigIntegerField(null=True)
    period_start_at = models.DateTimeField(null=True)
    period_end_at = models.DateTimeField(null=True)
    billing_cycle_anchor_at = models.DateTimeField(null=True)
    trial_end_at = models.DateTimeField(null=True)
    cancel_at_period_end = models.BooleanField()
    cancel_at = models.DateTimeField(null=True)
    canceled_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    collection_paused = models.BooleanField()
    discounted = models.BooleanField()
    default_payment_method_id = models.TextField(null=True)
    account = models.TextField(null=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    event_id = models.TextField()
    version = models.TextField()

    class Meta:
        db_table = "subscriptions"
