"""The rotation of the secret key: interrupted, repeated, with secrets that no key decrypts, and while services run."""

from __future__ import annotations

import asyncio
import signal
import stat
import subprocess
import sys

import pytest
from cryptography.fernet import Fernet
from structlog.testing import capture_logs

from billingwatch.errors import InputInvalid, RotationRunning
from billingwatch.settings import Settings
from billingwatch.tenancy import master_key
from billingwatch.tenancy.lanes import Lane
from billingwatch.tenancy.master_key import rotate_master_key
from billingwatch.tenancy.provision import add_secret, provision, remove_secret
from billingwatch.tenancy.registry import Registry
from billingwatch.tenancy.sealing import KEY_FILE, Seal, key_file, open_seal, read_key_file

SECRETS = [f"whsec_secret_of_tenant_{number}" for number in range(5)]
INTERRUPTED = """
import asyncio, os, signal, sys
from billingwatch.postgres.connections import ControlConnection, open_connection
from billingwatch.tenancy import master_key
from billingwatch.tenancy.sealing import Seal

async def main(dsn, keys):
    master_key.BATCH = 2
    control = ControlConnection(await open_connection(dsn, "interrupted"))
    await master_key.rotate_master_key(control, Seal(keys), None, on_batch=lambda _: os.kill(os.getpid(), signal.SIGKILL))

asyncio.run(main(sys.argv[1], sys.argv[2:]))
"""


@pytest.fixture
def keys(secret_key) -> tuple[str, str]:
    """The new key and the old one."""
    return Fernet.generate_key().decode(), secret_key


@pytest.fixture
async def tenants(control, seal) -> list[str]:
    return [(await provision(control, seal, f"tenant-{n}", secrets=[secret])).name for n, secret in enumerate(SECRETS)]


async def stored(control) -> list[bytes]:
    return [row["ciphertext"] for row in await control.fetch("SELECT ciphertext FROM control.signing_secrets ORDER BY secret_id")]


async def test_rotation_leaves_nothing_that_needs_the_old_key(control, tenants, keys):
    done = await rotate_master_key(control, Seal(list(keys)), None)

    assert (done.reencrypted, done.unreadable, done.complete) == (len(tenants), [], True)
    new = Seal([keys[0]])
    assert [new.decrypt(ciphertext) for ciphertext in await stored(control)] == SECRETS
    check = await control.fetchval("SELECT value FROM control.fleet_settings WHERE name = 'secret_key_check'")
    assert new.decrypt(check.encode())


async def test_killed_rotation_keeps_its_batches_and_can_be_repeated(control, database, tenants, keys):
    killed = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", INTERRUPTED, database, *keys], check=False, timeout=60)

    assert killed.returncode == -signal.SIGKILL
    seal = Seal(list(keys))
    assert [seal.is_current(ciphertext) for ciphertext in await stored(control)] == [True, True, False, False, False]
    assert [seal.decrypt(ciphertext) for ciphertext in await stored(control)] == SECRETS
    # The server releases the killed session's lock when it notices the closed connection.
    done = await eventually(control, seal)
    assert (done.reencrypted, done.current_before, done.complete) == (3, 2, True)
    assert [Seal([keys[0]]).decrypt(ciphertext) for ciphertext in await stored(control)] == SECRETS


async def eventually(control, seal) -> master_key.Rotated:
    async with asyncio.timeout(20):
        while True:
            try:
                return await rotate_master_key(control, seal, None)
            except RotationRunning:
                await asyncio.sleep(0.05)


async def test_secret_that_no_key_decrypts_is_reported_and_kept(control, tenants, keys):
    await control.execute(
        "UPDATE control.signing_secrets SET ciphertext = 'lost' WHERE tenant_id = (SELECT min(tenant_id) FROM control.tenants)"
    )

    done = await rotate_master_key(control, Seal(list(keys)), None)

    assert [each.tenant for each in done.unreadable] == [tenants[0]]
    assert (done.reencrypted, done.complete) == (len(tenants) - 1, False)
    assert (await stored(control))[0] == b"lost"


async def test_one_key_is_no_rotation(control, tenants, seal):
    with pytest.raises(InputInvalid, match="holds one key") as refused:
        await rotate_master_key(control, seal, None)

    assert "NEW,OLD" in refused.value.hint


async def test_second_rotation_at_once_is_refused(control, connect, keys):
    await (await connect()).execute(master_key.sql["begin_rotation"])

    with pytest.raises(RotationRunning):
        await rotate_master_key(control, Seal(list(keys)), None)


async def test_key_file_ends_with_the_new_key_alone(control, tmp_path):
    settings = Settings(data_dir=tmp_path)
    seal = open_seal(settings)
    path = key_file(settings)
    [old] = read_key_file(path)
    await provision(control, seal, "acme", secrets=[SECRETS[0]])

    done = await rotate_master_key(control, open_seal(settings), path)

    [new] = read_key_file(path)
    assert new != old
    assert done.complete
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == [KEY_FILE]
    assert Seal([new]).decrypt((await stored(control))[0]) == SECRETS[0]
    # A process that started before the rotation still has the old key in memory.
    assert seal.decrypt((await stored(control))[0]) == SECRETS[0]


async def test_interrupted_rotation_of_key_file_continues_with_its_key(control, tmp_path, monkeypatch):
    settings = Settings(data_dir=tmp_path)
    path = key_file(settings)
    [old] = read_key_file(path) if path.exists() else open_seal(settings)._keys
    for number, secret in enumerate(SECRETS):
        await provision(control, open_seal(settings), f"tenant-{number}", secrets=[secret])
    monkeypatch.setattr(master_key, "BATCH", 2)

    def crash(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await rotate_master_key(control, open_seal(settings), path, on_batch=crash)
    between = read_key_file(path)
    readable = [open_seal(settings).decrypt(ciphertext) for ciphertext in await stored(control)]
    done = await rotate_master_key(control, open_seal(settings), path)

    assert between[1] == old
    assert readable == SECRETS
    assert read_key_file(path) == between[:1]
    assert done.complete
    assert [Seal(between[:1]).decrypt(ciphertext) for ciphertext in await stored(control)] == SECRETS


async def test_key_file_keeps_old_key_that_something_may_need(control, tmp_path):
    settings = Settings(data_dir=tmp_path)
    path = key_file(settings)
    await provision(control, open_seal(settings), "acme", secrets=[SECRETS[0]])
    await control.execute("UPDATE control.signing_secrets SET ciphertext = 'lost'")

    done = await rotate_master_key(control, open_seal(settings), path)

    assert not done.complete
    assert len(read_key_file(path)) == 2


async def test_secret_added_during_rotation_is_not_left_behind(control, connect, tmp_path):
    settings = Settings(data_dir=tmp_path)
    path, before = key_file(settings), open_seal(settings)
    await provision(control, before, "acme", secrets=[SECRETS[0]])
    other = await connect()
    started = asyncio.Event()

    async def add_slowly() -> None:
        async with other.transaction():
            ciphertext = await master_key.encrypt_secret(other, before, SECRETS[1])
            await other.execute(
                "INSERT INTO control.signing_secrets (tenant_id, ciphertext) SELECT tenant_id, $1 FROM control.tenants", ciphertext
            )
            started.set()
            await until_waiting(control_probe, other)

    control_probe = await connect()
    adding = asyncio.create_task(add_slowly())
    await started.wait()
    await rotate_master_key(control, open_seal(settings), path)
    await adding

    new = Seal(read_key_file(path))
    assert new.key_count == 1
    assert [new.decrypt(ciphertext) for ciphertext in await stored(control)] == SECRETS[:2]


async def until_waiting(probe, _holder) -> None:
    """Wait until the rotation waits for the lock of the open transaction."""
    async with asyncio.timeout(20):
        while not await probe.fetchval(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = 1112099160 AND NOT granted)"
        ):
            await asyncio.sleep(0.02)


async def test_running_service_accepts_deliveries_after_rotation(control, database, tmp_path):
    settings = Settings(data_dir=tmp_path)
    made = await provision(control, open_seal(settings), "acme", secrets=[SECRETS[0]])
    lane = Lane(database, "tests registry")
    registry = Registry(lane, open_seal(settings), database)
    assert (await registry.by_webhook_token(made.webhook_token)).secrets == (SECRETS[0],)

    await rotate_master_key(control, open_seal(settings), key_file(settings))
    registry.forget()

    assert (await registry.by_webhook_token(made.webhook_token)).secrets == (SECRETS[0],)
    await lane.close()


async def test_undecryptable_secret_is_logged_once_and_left_out(control, database, seal, open_lane):
    made = await provision(control, seal, "acme", secrets=[SECRETS[0]])
    registry = Registry(open_lane(), Seal([Fernet.generate_key().decode()]), database)

    with capture_logs() as logs:
        by_key = await registry.by_api_key(made.api_key)
        by_id = await registry.by_tenant_id(made.tenant_id)
        for _ in range(3):
            found = await registry.by_webhook_token(made.webhook_token)

    assert (found.secrets, found.unreadable_secrets) == ((), 1)
    assert (by_key.name, by_id.name) == ("acme", "acme")
    assert [(each["event"], each["tenant"]) for each in logs] == [("registry.secrets_undecryptable", "acme")]


async def test_readable_secret_of_two_still_verifies(control, database, seal, open_lane):
    made = await provision(control, seal, "acme", secrets=[SECRETS[0]])
    added = await add_secret(control, seal, "acme", SECRETS[1])
    await control.execute("UPDATE control.signing_secrets SET ciphertext = 'lost' WHERE secret_id = $1", added.secret_id)
    registry = Registry(open_lane(), seal, database)

    found = await registry.by_webhook_token(made.webhook_token)

    assert (found.secrets, found.unreadable_secrets) == ((SECRETS[0],), 1)
    await remove_secret(control, "acme", added.secret_id)
