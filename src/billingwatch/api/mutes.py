"""`/mutes`: anomalies that the tenant's people do not want to hear about."""

from datetime import datetime
from typing import Annotated

import msgspec
from litestar import delete, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, PathParameter

from billingwatch.api.access import TenantAccess
from billingwatch.api.openapi import WITH_BODY, WRITING, problems
from billingwatch.api.pages import in_utc
from billingwatch.api.reason import PLAIN, Reason
from billingwatch.detection.catalog import find_detector
from billingwatch.tenancy.detector_settings import MUTE_ID_MAX, MuteRow, MuteWanted, add_mute, list_mutes, remove_mute


class MuteList(msgspec.Struct, frozen=True, kw_only=True):
    """Oldest first."""

    mutes: list[MuteRow]


class NewMute(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be muted; what is not given is not asked."""

    detector: Annotated[str, msgspec.Meta(max_length=64, pattern=PLAIN)] | None = None
    subject: Annotated[str, msgspec.Meta(min_length=1, max_length=500, pattern=PLAIN, description="As the anomaly has it")] | None = None
    since: Annotated[datetime, msgspec.Meta(description="Anomalies opened at or after")] | None = None
    until: Annotated[datetime, msgspec.Meta(description="Anomalies opened before")] | None = None
    reason: Reason


@get("/mutes", tags=["mutes"], summary="List mutes", responses=problems())
async def list_all_mutes(access: NamedDependency[TenantAccess]) -> MuteList:
    async with access.settings() as control:
        return MuteList(mutes=await list_mutes(control, access.tenant))


@post(
    "/mutes",
    status_code=201,
    tags=["mutes"],
    summary="Mute anomalies of a detector, a subject or a time; they are recorded all the same",
    responses=problems(404, 409, *WITH_BODY),
)
async def create_mute(access: NamedDependency[TenantAccess], data: JSONBody[NewMute]) -> MuteRow:
    wanted = MuteWanted(
        detector=None if data.detector is None else find_detector(data.detector).name,
        subject=data.subject,
        since=in_utc("since", data.since),
        until=in_utc("until", data.until),
        reason=data.reason,
    )
    async with access.settings() as control:
        mute = await add_mute(control, access.tenant, wanted, actor=access.actor)
    access.changed()
    return mute


@delete(
    "/mutes/{mute_id:int}",
    status_code=200,
    tags=["mutes"],
    summary="Remove a mute; it is returned once more",
    responses=problems(404, *WRITING),
)
async def delete_mute(
    access: NamedDependency[TenantAccess], mute_id: Annotated[int, PathParameter(ge=1, le=MUTE_ID_MAX, description="Of `GET /mutes`")]
) -> MuteRow:
    async with access.settings() as control:
        mute = await remove_mute(control, access.tenant, mute_id, actor=access.actor)
    access.changed()
    return mute
