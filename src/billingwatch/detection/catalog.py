"""The detectors as people see and set them: what each does, with which thresholds, and whether it is at work."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import msgspec

from billingwatch.detection.detector import Detector, Thresholds
from billingwatch.detection.looks import shift
from billingwatch.detection.registry import DETECTORS
from billingwatch.detection.tuning import Tuning, thresholds_of
from billingwatch.errors import DetectorNotFound, ThresholdsInvalid
from billingwatch.tenancy.tenants import DetectorSetting

UP_TO_DATE: Mapping[str, datetime] = MappingProxyType({})

State: TypeAlias = Literal["learning", "active", "off", "paused"]
Driver: TypeAlias = Literal["events", "time"]
Number: TypeAlias = int | float


class ThresholdRow(msgspec.Struct, frozen=True, kw_only=True):
    """A threshold: what it is now, what it is unless set, and what it may be."""

    key: str
    value: Number
    default: Number
    unit: str
    minimum: Number
    maximum: Number
    description: str


class DetectorRow(msgspec.Struct, frozen=True, kw_only=True):
    """A detector and how a tenant has set it."""

    name: str
    title: str
    description: str
    driven_by: Driver
    """events: judges what arrives, as it arrives; time: judges every hour or day, although nothing may arrive."""
    state: State
    """paused: the tenant is; learning: it needs more history; off: switched off."""
    learning_until: datetime | None
    """When it will have seen enough history; null once it has, and while there is no history at all."""
    behind_since: datetime | None
    """Event time from which on it has yet to evaluate what is stored; null when it is up to date or off."""
    thresholds: list[ThresholdRow]


def find_detector(name: str) -> Detector[Any]:
    """The detector of that name; DetectorNotFound."""
    if name not in DETECTORS:
        raise DetectorNotFound(detector=name)
    return DETECTORS[name]


def describe(
    detector: Detector[Any], tuning: Tuning, *, beginning: datetime | None, as_of: datetime, behind: Mapping[str, datetime] = UP_TO_DATE
) -> DetectorRow:
    """Show a detector to people; `beginning` is when the tenant's history begins, `behind` what detectors have yet to evaluate."""
    thresholds = tuning.of(detector)
    warm_up = detector.warm_up(thresholds)
    learned_at = None if beginning is None else shift(beginning, warm_up)
    learning = bool(warm_up) and (learned_at is None or learned_at > as_of)
    return DetectorRow(
        name=detector.name,
        title=detector.title,
        description=detector.description,
        driven_by="events" if detector.every is None else "time",
        state=_state(detector, tuning, learning=learning),
        learning_until=learned_at if learning else None,
        behind_since=None if detector.name in tuning.off else behind.get(detector.name),
        thresholds=[
            ThresholdRow(
                key=key,
                value=getattr(thresholds, key),
                default=field.default,
                unit=field.unit,
                minimum=field.minimum,
                maximum=field.maximum,
                description=field.description,
            )
            for key, field in _fields(detector).items()
        ],
    )


def _state(detector: Detector[Any], tuning: Tuning, *, learning: bool) -> State:
    if detector.name in tuning.off:
        return "off"
    if tuning.paused:
        return "paused"
    return "learning" if learning else "active"


def changed(
    detector: Detector[Any], setting: DetectorSetting, *, active: bool | None = None, thresholds: Mapping[str, object | None]
) -> DetectorSetting:
    """A setting with some thresholds replaced, or back at their defaults where None is given. ThresholdsInvalid."""
    made = override(detector, thresholds_of(detector, setting), thresholds)
    own = {key: getattr(made, key) for key, field in _fields(detector).items() if getattr(made, key) != field.default}
    return DetectorSetting(
        detector=detector.name,
        active=setting.active if active is None else active,
        thresholds=msgspec.json.encode(own, order="sorted").decode(),
    )


def override(detector: Detector[Any], thresholds: Thresholds, changes: Mapping[str, object | None]) -> Thresholds:
    """Thresholds with some replaced, or back at their defaults where None is given; ThresholdsInvalid names every fault and its bounds."""
    fields = _fields(detector)
    faults = {key: fault for key, value in changes.items() if (fault := _fault(fields, key, value)) is not None}
    if faults:
        raise ThresholdsInvalid(detector=detector.name, faults=faults)
    wanted = {key: fields[key].default if value is None else value for key, value in changes.items()}
    try:
        made: Thresholds = msgspec.convert({**msgspec.structs.asdict(thresholds), **wanted}, detector.thresholds)
    except msgspec.ValidationError as error:  # each is within its bounds, but they do not go together
        raise ThresholdsInvalid(detector=detector.name, faults={", ".join(sorted(changes)): str(error)}) from error
    return made


class _Field(msgspec.Struct, frozen=True, kw_only=True, rename={"unit": "x-unit"}):
    """A field of Thresholds as its JSON schema tells it."""

    type: str
    default: Number
    minimum: Number
    maximum: Number
    unit: str
    description: str
    kind: Any = None
    """Its annotated type, bounds included."""


def _fields(detector: Detector[Any]) -> Mapping[str, _Field]:
    thresholds: Any = detector.thresholds  # mypy does not take `type[Any]` for hashable
    return _fields_of(thresholds)


@cache
def _fields_of(thresholds: type[Thresholds]) -> Mapping[str, _Field]:
    schema = msgspec.json.schema(thresholds)
    told = schema["$defs"][thresholds.__name__]["properties"]
    kinds = {field.name: field.type for field in msgspec.structs.fields(thresholds)}
    return {key: msgspec.structs.replace(msgspec.convert(field, _Field), kind=kinds[key]) for key, field in told.items()}


def _fault(fields: Mapping[str, _Field], key: str, value: object) -> str | None:
    if key not in fields:
        return f"`{key}` is none of them; they are {', '.join(f'`{each}`' for each in fields)}"
    field = fields[key]
    if value is not None:
        try:
            msgspec.convert(value, field.kind)
        except msgspec.ValidationError:
            kind = "a whole number" if field.type == "integer" else "a number"
            return f"`{key}` must be {kind} from {field.minimum} to {field.maximum} ({field.unit})"
    return None
