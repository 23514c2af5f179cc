"""Every detector there is, by name. Documentation, the API and settings are made from this."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from billingwatch.detection.detector import Detector
from billingwatch.detection.detectors import (
    charge_failure_spike,
    double_invoice,
    duplicate_charge,
    fraud_spike,
    invoice_mismatch,
    negative_invoice,
    silent_lapse,
)

DETECTORS: Mapping[str, Detector[Any]] = MappingProxyType(
    {
        module.DETECTOR.name: module.DETECTOR
        for module in (
            charge_failure_spike,
            double_invoice,
            duplicate_charge,
            fraud_spike,
            invoice_mismatch,
            negative_invoice,
            silent_lapse,
        )
    }
)
