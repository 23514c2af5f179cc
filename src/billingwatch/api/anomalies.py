"""`/anomalies`: what was found, and what the tenant's people say to it."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from billingwatch.api.access import TenantAccess
from billingwatch.api.openapi import WITH_BODY, problems
from billingwatch.api.pages import INSTANT, LIMIT_DEFAULT, LIMIT_MAX, decode_cursor, encode_cursor, read_instant
from billingwatch.api.reason import Reason
from billingwatch.detection import store
from billingwatch.detection.catalog import find_detector
from billingwatch.detection.detector import Severity
from billingwatch.detection.links import Link, links_of, statement_of
from billingwatch.detection.store import Anomaly, AnomalyFilter, Status
from billingwatch.detection.tuning import Tuning, tuning_of
from billingwatch.errors import InputInvalid


class Muted(msgspec.Struct, frozen=True, kw_only=True):
    """The mute that keeps an anomaly quiet."""

    mute_id: int
    reason: str


class AnomalyShown(Anomaly, frozen=True, kw_only=True):
    """An anomaly, and the ways to what is behind it."""

    muted: Muted | None
    links: list[Link]
    """Pages of Stripe's dashboard, that of the main object first."""
    sql: str
    """Shows the rows behind it, to an analyst of the tenant."""


class AnomalyPage(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first. Send `next_cursor` as `cursor` for the next page; it is null on the last.

    A page reads at most 2,000 anomalies, or 200 if it filters by `muted` and there are 500 mutes. It can be short or
    empty and not be the last.
    """

    anomalies: list[AnomalyShown]
    next_cursor: str | None


class Verdict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person says to an anomaly."""

    reason: Reason


@get("/anomalies", tags=["anomalies"], summary="List anomalies, newest first", responses=problems(404))
async def list_anomalies_page(
    access: NamedDependency[TenantAccess],
    status: FromQuery[Status | None] = None,
    severity: FromQuery[Severity | None] = None,
    detector: Annotated[str | None, QueryParameter(pattern=r"^[a-z_]{1,64}$")] = None,
    since: Annotated[str | None, QueryParameter(description="Opened at or after", schema_extra=INSTANT)] = None,
    until: Annotated[str | None, QueryParameter(description="Opened before", schema_extra=INSTANT)] = None,
    muted: Annotated[bool | None, QueryParameter(description="Whether a mute covers it")] = None,
    historical: Annotated[bool | None, QueryParameter(description="Whether it was found in replayed or long past events")] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=LIMIT_MAX)] = LIMIT_DEFAULT,
    cursor: FromQuery[str | None] = None,
) -> AnomalyPage:
    wanted = AnomalyFilter(
        status=status,
        severity=severity,
        detector=None if detector is None else find_detector(detector).name,
        since=read_instant("since", since),
        until=read_instant("until", until),
        historical=historical,
        muted=muted,
        mutes=access.tenant.mutes,
        after=_after(decode_cursor(cursor)),
    )
    async with access.reading() as connection:
        anomalies, after = await store.page_anomalies(connection, wanted, limit=limit)
        tuning = tuning_of(access.tenant)
        shown = [_shown(access, tuning, anomaly) for anomaly in anomalies]
    return AnomalyPage(anomalies=shown, next_cursor=encode_cursor(after[0], str(after[1])) if after else None)


@get("/anomalies/{anomaly_id:uuid}", tags=["anomalies"], summary="One anomaly, with its evidence", responses=problems(404))
async def show_anomaly(access: NamedDependency[TenantAccess], anomaly_id: FromPath[UUID]) -> AnomalyShown:
    async with access.reading() as connection:
        return _shown(access, tuning_of(access.tenant), await store.get_anomaly(connection, anomaly_id))


@post(
    "/anomalies/{anomaly_id:uuid}/acknowledge",
    status_code=200,
    tags=["anomalies"],
    summary="Acknowledge an anomaly: somebody works on it",
    responses=problems(404, 409, *WITH_BODY),
)
async def acknowledge_anomaly(access: NamedDependency[TenantAccess], anomaly_id: FromPath[UUID], data: JSONBody[Verdict]) -> AnomalyShown:
    async with access.writing() as connection:
        anomaly = await store.acknowledge(connection, anomaly_id, reason=data.reason, as_of=access.as_of())
        return _shown(access, tuning_of(access.tenant), anomaly)


@post(
    "/anomalies/{anomaly_id:uuid}/resolve",
    status_code=200,
    tags=["anomalies"],
    summary="Resolve an anomaly",
    responses=problems(404, 409, *WITH_BODY),
)
async def resolve_anomaly(access: NamedDependency[TenantAccess], anomaly_id: FromPath[UUID], data: JSONBody[Verdict]) -> AnomalyShown:
    async with access.writing() as connection:
        anomaly = await store.resolve(connection, anomaly_id, reason=data.reason, as_of=access.as_of())
        return _shown(access, tuning_of(access.tenant), anomaly)


@post(
    "/anomalies/{anomaly_id:uuid}/false-positive",
    status_code=200,
    tags=["anomalies"],
    summary="Mark an anomaly as a false positive",
    responses=problems(404, 409, *WITH_BODY),
)
async def mark_false_positive(access: NamedDependency[TenantAccess], anomaly_id: FromPath[UUID], data: JSONBody[Verdict]) -> AnomalyShown:
    async with access.writing() as connection:
        anomaly = await store.mark_false_positive(connection, anomaly_id, reason=data.reason, as_of=access.as_of())
        return _shown(access, tuning_of(access.tenant), anomaly)


def _shown(access: TenantAccess, tuning: Tuning, anomaly: Anomaly) -> AnomalyShown:
    mute = tuning.mute_of(anomaly.detector, anomaly.subject, anomaly.opened_at)
    return AnomalyShown(
        **msgspec.structs.asdict(anomaly),
        muted=Muted(mute_id=mute.mute_id, reason=mute.reason) if mute else None,
        links=links_of(anomaly, access.tenant.mode),
        sql=statement_of(anomaly),
    )


def _after(cursor: tuple[datetime, str] | None) -> tuple[datetime, UUID] | None:
    if cursor is None:
        return None
    try:
        return cursor[0], UUID(cursor[1])
    except ValueError as error:
        raise InputInvalid(reason="`cursor` is not one that this API gave out") from error
