"""Every detector there is, by name. Documentation, the API and settings are made from this."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from billingwatch.detection.detector import Detector
from billingwatch.detection.detectors import (
    card_expiry,
    card_testing,
    charge_failure_spike,
    churn_spike,
    currency_mismatch,
    delivery_storm,
    dispute_opened,
    double_invoice,
    duplicate_charge,
    fraud_spike,
    invoice_mismatch,
    large_refund,
    negative_invoice,
    payment_recovery,
    plan_downgrade,
    refund_spike,
    revenue_drop,
    silent_lapse,
    webhook_lag,
    webhook_silence,
)

DETECTORS: Mapping[str, Detector[Any]] = MappingProxyType(
    {
        module.DETECTOR.name: module.DETECTOR
        for module in (
            card_expiry,
            card_testing,
            charge_failure_spike,
            churn_spike,
            currency_mismatch,
            delivery_storm,
            dispute_opened,
            double_invoice,
            duplicate_charge,
            fraud_spike,
            invoice_mismatch,
            large_refund,
            negative_invoice,
            payment_recovery,
            plan_downgrade,
            refund_spike,
            revenue_drop,
            silent_lapse,
            webhook_lag,
            webhook_silence,
        )
    }
)
