"""Tuning: what a tenant made of the detectors' defaults, and what its people do not want to hear about."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Any

import msgspec

from billingwatch.detection.detector import Detector, Thresholds
from billingwatch.detection.registry import DETECTORS
from billingwatch.tenancy.tenants import DetectorSetting, Mute, Pause, Tenant


class Tuning(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One tenant's settings of all detectors."""

    thresholds: Mapping[str, Thresholds] = MappingProxyType({})
    """By detector; those not here are the defaults."""
    off: frozenset[str] = frozenset()
    mutes: tuple[Mute, ...] = ()
    pause: Pause | None = None
    """The last one of the tenant."""

    def of(self, detector: Detector[Any]) -> Thresholds:
        """The thresholds that a detector works with."""
        return self.thresholds.get(detector.name) or detector.thresholds()

    def mute_of(self, detector: str, subject: str, opened_at: datetime) -> Mute | None:
        """The mute that keeps an anomaly quiet, if there is one."""
        sides = ((detector, subject), (detector, None), (None, subject), (None, None))
        candidates = [mute for side in sides for mute in self._by_side.get(side, ())]
        covering = [mute for mute in candidates if mute.covers(detector, subject, opened_at)]
        return min(covering, key=lambda mute: mute.mute_id, default=None)

    @cached_property
    def _by_side(self) -> Mapping[tuple[str | None, str | None], list[Mute]]:
        """Mutes by detector and subject, so that an anomaly is not compared with each of 500 mutes."""
        by_side: dict[tuple[str | None, str | None], list[Mute]] = {}
        for mute in self.mutes:
            by_side.setdefault((mute.detector, mute.subject), []).append(mute)
        return by_side

    @property
    def paused(self) -> bool:
        return self.pause is not None and self.pause.resumed_at is None

    def age(self, instant: datetime, *, as_of: datetime) -> timedelta:
        """Return how long ago `instant` was. The last pause does not count, so that it makes no anomaly historical."""
        passed = as_of - instant
        return passed if self.pause is None else passed - self.pause.within(instant, as_of)


UNTUNED = Tuning()


def tuning_of(tenant: Tenant) -> Tuning:
    """Read what is stored with the tenant. A threshold that this release no longer knows or admits is the default again."""
    if not tenant.detector_settings and not tenant.mutes and tenant.pause is None:
        return UNTUNED
    return _tuning(tenant.detector_settings, tenant.mutes, tenant.pause)


def thresholds_of(detector: Detector[Any], setting: DetectorSetting) -> Thresholds:
    """The thresholds that a setting asks for."""
    return _admitted(detector, msgspec.json.decode(setting.thresholds))


@lru_cache(maxsize=4096)
def _tuning(settings: tuple[DetectorSetting, ...], mutes: tuple[Mute, ...], pause: Pause | None) -> Tuning:
    known = [(setting, DETECTORS[setting.detector]) for setting in settings if setting.detector in DETECTORS]
    return Tuning(
        thresholds={setting.detector: thresholds_of(detector, setting) for setting, detector in known},
        off=frozenset(setting.detector for setting, _ in known if not setting.active),
        mutes=mutes,
        pause=pause,
    )


def _admitted(detector: Detector[Any], overrides: Mapping[str, object]) -> Thresholds:
    kinds = {field.name: field.type for field in msgspec.structs.fields(detector.thresholds)}
    admitted: dict[str, object] = {}
    for name, value in overrides.items():
        try:
            admitted[name] = msgspec.convert(value, kinds[name])
        except (KeyError, msgspec.ValidationError):
            continue
    try:
        thresholds: Thresholds = msgspec.convert(admitted, detector.thresholds)
    except msgspec.ValidationError:  # each is admitted, but not beside the others
        thresholds = detector.thresholds()
    return thresholds
