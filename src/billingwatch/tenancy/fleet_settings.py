"""Values that every process must agree on: the first process stores them, and another value is refused."""

from __future__ import annotations

from billingwatch.errors import FleetSettingInUse, FleetSettingMismatch, SecretKeyUnusable
from billingwatch.postgres.connections import ControlConnection
from billingwatch.postgres.statements import load_statements
from billingwatch.settings import PREFIX, Settings
from billingwatch.tenancy.processors import count_processors
from billingwatch.tenancy.sealing import Seal

sql = load_statements(__file__, "fleet_settings.sql")

WORK_LANES = "work_lanes"
AGREED = (WORK_LANES,)  # names of settings; the isolation has a table and a check of its own
KEY_CHECK = "billingwatch secret key check"  # the plaintext
KEY_HINT = "set BILLINGWATCH_SECRET_KEY, or secret.key in the data directory, to the key that this database was set up with"


async def check_fleet_settings(control: ControlConnection, settings: Settings, seal: Seal) -> None:
    """Compare the settings of a process that starts with the stored ones. Store what is not stored yet.

    Raises SecretKeyUnusable, FleetSettingMismatch.
    """
    async with control.transaction():
        await check_secret_key(control, seal)
        for name in AGREED:
            await agree(control, name, str(getattr(settings, name)))


async def check_secret_key(control: ControlConnection, seal: Seal) -> None:
    """Raise SecretKeyUnusable when the key does not decrypt the stored check, or the newest signing secret.

    Stores a check when there is none.
    """
    check_key_sample(seal, await key_sample(control))
    await control.execute(sql["insert_secret_key_check"], seal.encrypt(KEY_CHECK).decode())
    # Another process may have stored the check of its own key first.
    check_key_sample(seal, await key_sample(control))


async def key_sample(control: ControlConnection) -> bytes | None:
    """Return a ciphertext that the secret key must decrypt; None when nothing is encrypted yet."""
    sample: bytes | None = await control.fetchval(sql["secret_key_sample"])
    return sample


def check_key_sample(seal: Seal, sample: bytes | None) -> None:
    """Raise SecretKeyUnusable when the key does not decrypt `sample`."""
    if sample is None:
        return
    try:
        seal.decrypt(sample)
    except SecretKeyUnusable as error:
        raise SecretKeyUnusable(reason="the key is not the one of this database", hint=KEY_HINT) from error


async def write_key_check(control: ControlConnection, seal: Seal) -> None:
    """Store the check of `seal`'s first key, in the transaction that encrypts every secret with it."""
    await control.execute(sql["put_setting"], "secret_key_check", seal.encrypt(KEY_CHECK).decode())


async def agree(control: ControlConnection, name: str, value: str) -> None:
    """Store the fleet's value of a setting, or raise FleetSettingMismatch when another one is stored.

    Inside a transaction no process can change the value until the transaction has ended.
    """
    await control.execute(sql["insert_setting"], name, value)
    found: str = await control.fetchval(sql["share_setting"], name)
    if found != value:
        raise FleetSettingMismatch(name=name, variable=f"{PREFIX}{name.upper()}", wanted=value, found=found)


async def set_fleet_setting(control: ControlConnection, name: str, value: str) -> None:
    """Change the fleet's value of a setting. FleetSettingInUse while processors run."""
    async with control.transaction():
        await control.execute(sql["insert_setting"], name, value)
        await control.fetchval(sql["lock_setting"], name)
        if processors := await count_processors(control):
            raise FleetSettingInUse(name=name, processors=processors)
        await control.execute(sql["put_setting"], name, value)


async def list_fleet_settings(control: ControlConnection) -> dict[str, str]:
    return {row["name"]: row["value"] for row in await control.fetch(sql["list_settings"])}
