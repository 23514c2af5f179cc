"""The secret key of all tenants: encrypt signing secrets with it, and replace it while services run.

Encryption of a new secret holds a shared lock until its transaction ends. The end of a rotation holds that lock exclusively, so that no
secret can be stored under the old key after the rotation has checked all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import asyncpg
import msgspec
from cryptography.fernet import Fernet

from billingwatch.errors import InputInvalid, RotationRunning, SecretKeyUnusable
from billingwatch.postgres.connections import ControlConnection
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.fleet_settings import write_key_check
from billingwatch.tenancy.sealing import Seal, read_key_file, replace_key_file

sql = load_statements(__file__, "master_key.sql")

BATCH = 200  # secrets per transaction
KEYS_IN_ROTATION = 2  # the new one and an old one


class Unreadable(msgspec.Struct, frozen=True, kw_only=True):
    """A signing secret that none of the keys decrypts."""

    tenant: str
    secret_id: int


class Rotated(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a rotation. `complete` when every secret is encrypted with the first key."""

    reencrypted: int
    current_before: int
    unreadable: list[Unreadable]
    complete: bool


async def encrypt_secret(control: ControlConnection, seal: Seal, secret: str) -> bytes:
    """Encrypt a secret that the caller's transaction stores."""
    await control.execute(sql["share_key"])
    seal.refresh()
    return seal.encrypt(secret)


async def rotate_master_key(
    control: ControlConnection, seal: Seal, key_file: Path | None, *, on_batch: Callable[[int], None] = lambda _: None
) -> Rotated:
    """Encrypt every signing secret with the first key, in batches that are committed one at a time.

    With a key file a new key is written into it first, and the old ones are deleted from it at the end. An interrupted run can be repeated.
    Raises RotationRunning, SecretKeyUnusable, InputInvalid.
    """
    if not await control.fetchval(sql["begin_rotation"]):
        raise RotationRunning
    try:
        if key_file is not None:
            _add_key(key_file)
            seal.refresh()
        elif seal.key_count < KEYS_IN_ROTATION:
            raise InputInvalid(
                reason="BILLINGWATCH_SECRET_KEY holds one key, so there is none to change to",
                hint="set it to NEW,OLD for every process, restart them, then run `billingwatch keys rotate-master` again",
            )
        done = await _reencrypt(control, seal, on_batch)
        return await _finish(control, seal, key_file, done)
    finally:
        await control.execute(sql["end_rotation"])


class _Progress:
    def __init__(self) -> None:
        self.reencrypted = 0
        self.current = 0
        self.unreadable: list[Unreadable] = []


def _add_key(path: Path) -> None:
    keys = read_key_file(path)
    # Two keys: a run was interrupted, and this one continues with its new key.
    if len(keys) < KEYS_IN_ROTATION:
        replace_key_file(path, [Fernet.generate_key().decode(), *keys])


async def _reencrypt(control: ControlConnection, seal: Seal, on_batch: Callable[[int], None]) -> _Progress:
    progress, after, more = _Progress(), 0, True
    while more:
        async with control.transaction():
            rows = await control.fetch(sql["lock_secrets"], after, BATCH)
            replaced = {row["secret_id"]: fresh for row in rows if (fresh := _fresh(seal, row, progress)) is not None}
            if replaced:
                await control.execute(sql["replace_secrets"], list(replaced), list(replaced.values()))
        progress.reencrypted += len(replaced)
        if rows:
            after = rows[-1]["secret_id"]
            on_batch(progress.reencrypted)
        more = len(rows) == BATCH
    return progress


def _fresh(seal: Seal, row: asyncpg.Record, progress: _Progress) -> bytes | None:
    """Return the secret encrypted with the first key; None when there is nothing to replace."""
    ciphertext: bytes = row["ciphertext"]
    if seal.is_current(ciphertext):
        progress.current += 1
        return None
    try:
        return seal.encrypt(seal.decrypt(ciphertext))
    except SecretKeyUnusable:
        progress.unreadable.append(Unreadable(tenant=row["tenant"], secret_id=row["secret_id"]))
        return None


async def _finish(control: ControlConnection, seal: Seal, key_file: Path | None, done: _Progress) -> Rotated:
    """Handle the secrets that were stored during the run, then let go of the old keys if nothing needs them."""
    await control.execute(sql["hold_key"])
    try:
        async with control.transaction():
            last = await _reencrypt_rest(control, seal)
            if not last.unreadable:
                await write_key_check(control, seal)
        if not last.unreadable and key_file is not None:
            replace_key_file(key_file, read_key_file(key_file)[:1])
            seal.refresh()
    finally:
        await control.execute(sql["free_key"])
    return Rotated(
        reencrypted=done.reencrypted + last.reencrypted,
        current_before=done.current,
        unreadable=last.unreadable,
        complete=not last.unreadable,
    )


async def _reencrypt_rest(control: ControlConnection, seal: Seal) -> _Progress:
    progress = _Progress()
    rows = await control.fetch(sql["lock_secrets"], 0, None)
    replaced = {row["secret_id"]: fresh for row in rows if (fresh := _fresh(seal, row, progress)) is not None}
    if replaced:
        await control.execute(sql["replace_secrets"], list(replaced), list(replaced.values()))
    progress.reencrypted = len(replaced)
    return progress
