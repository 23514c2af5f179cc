"""`/detectors`: what they do, how the tenant has set them, and what other settings would have found; `/stats/detectors`: how well they do."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import get, patch, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, PathParameter, QueryParameter

from billingwatch.api.access import TenantAccess
from billingwatch.api.openapi import WITH_BODY, problems
from billingwatch.detection.backtest import Backtest, backtest, read_since
from billingwatch.detection.catalog import DetectorRow, changed, describe, find_detector, override
from billingwatch.detection.engine import beginning
from billingwatch.detection.registry import DETECTORS
from billingwatch.detection.stats import DetectorStats, count_by_detector
from billingwatch.detection.tuning import Tuning, tuning_of
from billingwatch.judgement import behind_of
from billingwatch.postgres.connections import TenantConnection
from billingwatch.tenancy.detector_settings import change_setting, list_settings
from billingwatch.tenancy.tenants import Tenant

Name = Annotated[str, PathParameter(pattern=r"^[a-z_]{1,64}$")]
Overrides = Annotated[dict[str, Any], msgspec.Meta(description="Key and value; null is the default again")]
Since = Annotated[str, msgspec.Meta(min_length=1, max_length=64, description="A moment like `2026-03-01`, or how long ago, like `30d`")]


class DetectorList(msgspec.Struct, frozen=True, kw_only=True):
    """All detectors."""

    detectors: list[DetectorRow]


class DetectorChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What of a detector is to be set; what is not given stays."""

    active: bool | None = None
    thresholds: Overrides = {}


class BacktestWanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Thresholds to try instead of the tenant's own, and on how much history."""

    thresholds: Overrides = {}
    since: Since = "30d"


class StatsList(msgspec.Struct, frozen=True, kw_only=True):
    """All detectors, and those that only earlier releases had."""

    detectors: list[DetectorStats]


@get(
    "/detectors",
    tags=["detectors"],
    summary="List detectors, with their thresholds and whether they are at work",
    responses=problems(),
)
async def list_detectors(access: NamedDependency[TenantAccess]) -> DetectorList:
    tuning = await _tuning(access)
    async with access.reading() as connection:
        begun, behind = await _progress(access, connection)
        rows = [describe(each, tuning, beginning=begun, behind=behind, as_of=access.as_of()) for each in DETECTORS.values()]
    return DetectorList(detectors=rows)


@get("/detectors/{name:str}", tags=["detectors"], summary="One detector", responses=problems(404))
async def show_detector(access: NamedDependency[TenantAccess], name: Name) -> DetectorRow:
    detector, tuning = find_detector(name), await _tuning(access)
    async with access.reading() as connection:
        begun, behind = await _progress(access, connection)
        return describe(detector, tuning, beginning=begun, behind=behind, as_of=access.as_of())


@patch(
    "/detectors/{name:str}",
    tags=["detectors"],
    summary="Turn a detector on or off, or set thresholds; effective at once",
    responses=problems(404, 422, *WITH_BODY),
)
async def set_detector(access: NamedDependency[TenantAccess], name: Name, data: JSONBody[DetectorChange]) -> DetectorRow:
    detector = find_detector(name)
    async with access.reading() as connection:  # first, so that who is told that the tenant's tables cannot be read has changed nothing
        begun, behind = await _progress(access, connection)
    async with access.settings() as control:
        await change_setting(
            control,
            access.tenant,
            name,
            lambda setting: changed(detector, setting, active=data.active, thresholds=data.thresholds),
            actor=access.actor,
        )
    access.changed()
    return describe(detector, await _tuning(access), beginning=begun, behind=behind, as_of=access.as_of())


@post(
    "/detectors/{name:str}/backtest",
    status_code=200,
    tags=["detectors"],
    summary="What other thresholds would have found; changes nothing",
    responses=problems(404, 422, *WITH_BODY),
)
async def backtest_detector(access: NamedDependency[TenantAccess], name: Name, data: JSONBody[BacktestWanted]) -> Backtest:
    detector, until = find_detector(name), access.as_of()
    thresholds = override(detector, (await _tuning(access)).of(detector), data.thresholds)
    since = read_since(data.since, as_of=until)
    async with access.backtesting() as connection:
        return await backtest(connection, detector, thresholds, since=since, until=until)


@get(
    "/stats/detectors",
    tags=["detectors"],
    summary="What became of each detector's anomalies, and how often it was right",
    responses=problems(),
)
async def show_stats(
    access: NamedDependency[TenantAccess],
    since: Annotated[str | None, QueryParameter(min_length=1, max_length=64, description="Opened since then: a moment, or `30d`")] = None,
) -> StatsList:
    opened = None if since is None else read_since(since, as_of=access.as_of())
    async with access.reading() as connection:
        return StatsList(detectors=await count_by_detector(connection, since=opened))


async def _progress(access: TenantAccess, connection: TenantConnection) -> tuple[datetime | None, dict[str, datetime]]:
    """Return when the tenant's history begins, and which detectors are behind since when."""
    return await beginning(connection), await behind_of(connection, access.tenant.tenant_id, as_of=access.as_of())


async def _tuning(access: TenantAccess) -> Tuning:
    """As it is stored: another process of the service may have changed it a moment ago."""
    async with access.settings() as control:
        settings = await list_settings(control, access.tenant)
    tenant: Tenant = msgspec.structs.replace(access.tenant, detector_settings=settings)
    return tuning_of(tenant)
