"""Every detector there is, by name: each module of `detectors` is one. Documentation, the API and settings are made from this."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType
from typing import Any

from billingwatch.detection import detectors
from billingwatch.detection.detector import Detector

DETECTORS: Mapping[str, Detector[Any]] = MappingProxyType(
    {
        name: import_module(f"{detectors.__name__}.{name}").DETECTOR
        for name in sorted(module.name for module in iter_modules(detectors.__path__))
    }
)
