"""Fleet settings: the first process stores them, and a process with another value refuses to start."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from billingwatch.cli.session import check_database
from billingwatch.errors import FleetSettingInUse, FleetSettingMismatch, SecretKeyUnusable
from billingwatch.postgres.database import Database
from billingwatch.service import Service
from billingwatch.tenancy.fleet_settings import (
    WORK_LANES,
    agree,
    check_fleet_settings,
    check_secret_key,
    list_fleet_settings,
    set_fleet_setting,
    write_key_check,
)
from billingwatch.tenancy.processors import register_processor, report_processor, unregister_processor
from billingwatch.tenancy.sealing import Seal
from billingwatch.worker import processing

OTHER_KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
TOKENS = "SELECT count(*) FROM control.fleet_settings WHERE name = 'secret_key_check'"


async def start_service(settings, database, now) -> None:
    await Service(settings, database).start()


async def start_worker(settings, database, now) -> None:
    async with processing(settings, database, lambda: now):
        pass


async def check_before_serving(settings, database, now) -> None:
    await check_database(settings, Database(database))


STARTS = [start_service, start_worker, check_before_serving]


@pytest.mark.parametrize("start", STARTS)
async def test_process_with_another_number_of_lanes_refuses_to_start(settings, database, control, now, seal, start):
    await check_fleet_settings(control, settings, seal)

    with pytest.raises(FleetSettingMismatch, match="BILLINGWATCH_WORK_LANES is 3 here, and the other processes run with 2") as refused:
        await start(msgspec.structs.replace(settings, work_lanes=3), database, now)

    assert "billingwatch settings set work_lanes 3" in refused.value.hint
    assert await list_fleet_settings(control) == {"work_lanes": "2"}


@pytest.mark.parametrize("start", STARTS)
async def test_process_with_another_secret_key_refuses_to_start(settings, database, control, now, seal, start):
    await check_fleet_settings(control, settings, seal)

    with pytest.raises(SecretKeyUnusable) as refused:
        await start(msgspec.structs.replace(settings, secret_key=OTHER_KEY), database, now)

    assert "BILLINGWATCH_SECRET_KEY" in refused.value.hint


@pytest.mark.parametrize("start", STARTS)
async def test_key_that_decrypts_no_signing_secret_is_refused_and_not_stored(settings, database, control, now, tenant, start):
    with pytest.raises(SecretKeyUnusable):
        await start(msgspec.structs.replace(settings, secret_key=OTHER_KEY), database, now)

    assert await control.fetchval(TOKENS) == 0


async def test_several_keys_are_accepted_when_one_decrypts(settings, control, secret_key):
    await check_secret_key(control, Seal([secret_key]))

    await check_secret_key(control, Seal([OTHER_KEY, secret_key]))


async def test_written_key_check_requires_the_new_key(control, secret_key, tenant):
    await check_secret_key(control, Seal([secret_key]))

    await write_key_check(control, Seal([OTHER_KEY, secret_key]))

    await check_secret_key(control, Seal([OTHER_KEY]))
    with pytest.raises(SecretKeyUnusable):
        await check_secret_key(control, Seal([secret_key]))


async def test_two_first_processes_with_different_keys_store_one(connect, secret_key):
    one, other = await connect(), await connect()

    results = await asyncio.gather(
        check_secret_key(one, Seal([secret_key])), check_secret_key(other, Seal([OTHER_KEY])), return_exceptions=True
    )

    assert sorted(type(result).__name__ for result in results) == ["NoneType", "SecretKeyUnusable"]


async def test_setting_changes_only_while_no_processor_reports(control):
    await agree(control, WORK_LANES, "2")
    processor_id = await register_processor(control)

    with pytest.raises(FleetSettingInUse, match="1 reported"):
        await set_fleet_setting(control, WORK_LANES, "4")
    await unregister_processor(control, processor_id)
    await set_fleet_setting(control, WORK_LANES, "4")

    assert await list_fleet_settings(control) == {"work_lanes": "4"}
    await agree(control, WORK_LANES, "4")


async def test_change_waits_for_a_processor_that_registers(control, connect):
    await agree(control, WORK_LANES, "2")
    starting = await connect()
    async with starting.transaction():
        await agree(starting, WORK_LANES, "2")
        change = asyncio.create_task(set_fleet_setting(control, WORK_LANES, "4"))
        await asyncio.sleep(0.05)
        await register_processor(starting)

    with pytest.raises(FleetSettingInUse):
        await change


async def test_rows_of_yesterdays_processors_are_deleted(control):
    old = await register_processor(control)
    await control.execute("UPDATE control.processors SET reported_at = now() - interval '25 hours'")

    new = await register_processor(control)

    assert not await report_processor(control, old)
    assert await report_processor(control, new)
