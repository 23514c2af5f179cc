"""Every detector there is, by name. Documentation, the API and settings are made from this."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from billingwatch.detection.detector import Detector
from billingwatch.detection.detectors import (
    card_expiry,
    charge_failure_spike,
    delivery_storm,
    duplicate_charge,
    fraud_spike,
    negative_invoice,
    revenue_drop,
    webhook_lag,
    webhook_silence,
)

DETECTORS: Mapping[str, Detector[Any]] = MappingProxyType(
    {
        module.DETECTOR.name: module.DETECTOR
        for module in (
            card_expiry,
            charge_failure_spike,
            delivery_storm,
            duplicate_charge,
            fraud_spike,
            negative_invoice,
            revenue_drop,
            webhook_lag,
            webhook_silence,
        )
    }
)
