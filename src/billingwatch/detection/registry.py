"""Every detector there is, by name. Documentation, the API and settings are made from this."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from billingwatch.detection.detector import Detector
from billingwatch.detection.detectors import (
    card_testing,
    charge_failure_spike,
    currency_mismatch,
    duplicate_charge,
    fraud_spike,
    large_refund,
    negative_invoice,
    refund_spike,
)

MODULES = (
    card_testing,
    charge_failure_spike,
    currency_mismatch,
    duplicate_charge,
    fraud_spike,
    large_refund,
    negative_invoice,
    refund_spike,
)
DETECTORS: Mapping[str, Detector[Any]] = MappingProxyType({module.DETECTOR.name: module.DETECTOR for module in MODULES})
