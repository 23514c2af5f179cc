"""Signing secrets: encrypted at rest, two at most, rolled without a gap; and the key they are sealed with."""

from __future__ import annotations

import asyncio
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC

import pytest
from cryptography.fernet import Fernet

from billingwatch.cli.session import Session
from billingwatch.errors import SecretInvalid, SecretKeyUnusable, SecretNotFound, SecretsFull, TenantNotFound
from billingwatch.postgres.connections import ControlConnection
from billingwatch.postgres.database import Database
from billingwatch.settings import Settings
from billingwatch.tenancy import sealing
from billingwatch.tenancy.provision import add_secret, list_secrets, remove_secret
from billingwatch.tenancy.registry import load_tenant
from billingwatch.tenancy.sealing import KEY_FILE, Seal, open_seal

FIRST = "whsec_the_first_secret"
SECOND = "whsec_the_second_secret"
THIRD = "whsec_the_third_secret"


@pytest.fixture
async def acme(provision_tenant):
    return (await provision_tenant("acme", secrets=(FIRST,)))[0]


async def test_a_secret_is_rolled_with_both_alive_meanwhile_newest_first(control, seal, acme):
    await add_secret(control, seal, "acme", SECOND)
    during = (await load_tenant(control, seal, "acme")).secrets
    await remove_secret(control, "acme", (await list_secrets(control, "acme"))[0].secret_id)
    after = (await load_tenant(control, seal, "acme")).secrets

    assert (acme.secrets, during, after) == ((FIRST,), (SECOND, FIRST), (SECOND,))


async def test_a_third_secret_is_refused(control, seal, acme):
    await add_secret(control, seal, "acme", SECOND)

    with pytest.raises(SecretsFull, match="`acme` has two") as refused:
        await add_secret(control, seal, "acme", THIRD)

    assert "tenants secret remove" in refused.value.hint
    assert (await load_tenant(control, seal, "acme")).secrets == (SECOND, FIRST)


async def test_of_two_operators_who_add_a_second_secret_at_once_one_is_refused(control, seal, connect, acme):
    connections = [ControlConnection(await connect()) for _ in range(4)]

    done = await asyncio.gather(*(add_secret(connection, seal, "acme", SECOND) for connection in connections), return_exceptions=True)

    assert sum(isinstance(error, SecretsFull) for error in done) == 3
    assert len(await list_secrets(control, "acme")) == 2


async def test_what_is_no_signing_secret_is_refused(control, seal, acme):
    for secret in ("", " ", "whsec_", "pk_live_0123456789", "whsec_two words", "whsec_12345678\n", "WHSEC_12345678"):
        with pytest.raises(SecretInvalid):
            await add_secret(control, seal, "acme", secret)

    assert len(await list_secrets(control, "acme")) == 1


async def test_secrets_are_listed_without_the_secret(control, seal, acme):
    added = await add_secret(control, seal, "acme", SECOND)

    listed = await list_secrets(control, "acme")

    assert listed[1] == added
    assert listed[0].created_at.tzinfo is UTC
    assert FIRST not in repr(listed)


async def test_the_last_secret_can_be_removed(control, seal, acme):
    await remove_secret(control, "acme", (await list_secrets(control, "acme"))[0].secret_id)

    assert (await load_tenant(control, seal, "acme")).secrets == ()


async def test_a_tenant_cannot_remove_anothers_secret(control, seal, acme, provision_tenant):
    other, _ = await provision_tenant("other", secrets=(SECOND,))
    (secret,) = await list_secrets(control, "other")

    with pytest.raises(SecretNotFound, match=f"`acme` has no signing secret `{secret.secret_id}`"):
        await remove_secret(control, "acme", secret.secret_id)

    assert (await load_tenant(control, seal, "other")).secrets == other.secrets == (SECOND,)


async def test_a_tenant_that_does_not_exist_has_no_secrets(control, seal):
    with pytest.raises(TenantNotFound):
        await add_secret(control, seal, "nobody", FIRST)
    with pytest.raises(TenantNotFound):
        await list_secrets(control, "nobody")
    with pytest.raises(TenantNotFound):
        await remove_secret(control, "nobody", 1)


async def test_a_secret_is_stored_encrypted_and_differently_each_time(control, seal, acme, provision_tenant):
    await provision_tenant("other", secrets=(FIRST,))

    one, other = [row["ciphertext"] for row in await control.fetch("SELECT ciphertext FROM control.signing_secrets")]

    assert one != other
    assert FIRST.encode() not in one
    assert seal.decrypt(one) == seal.decrypt(other) == FIRST


def test_of_several_keys_the_first_encrypts_and_each_decrypts():
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    before = Seal([old]).encrypt(FIRST)

    rolled = Seal([new, old])

    assert rolled.decrypt(before) == FIRST
    assert Seal([new]).decrypt(rolled.encrypt(SECOND)) == SECOND
    with pytest.raises(SecretKeyUnusable, match="does not fit"):
        Seal([new]).decrypt(before)


@pytest.mark.parametrize("keys", [[], [""], [" "], ["nonsense"], ["a" * 44], ["é"]])
def test_what_is_no_key_is_refused_without_showing_it(keys):
    with pytest.raises(SecretKeyUnusable, match="not a list of Fernet keys") as refused:
        Seal(keys)

    assert "Fernet.generate_key" in refused.value.hint
    assert "nonsense" not in str(refused.value)


def test_the_key_is_taken_from_the_settings(tmp_path, secret_key):
    settings = Settings(data_dir=tmp_path, secret_key=f" {secret_key} , {Fernet.generate_key().decode()},")

    assert Seal([secret_key]).decrypt(open_seal(settings).encrypt(FIRST)) == FIRST
    assert list(tmp_path.iterdir()) == []


def test_a_database_of_ones_own_needs_a_key_of_ones_own(tmp_path):
    settings = Settings(data_dir=tmp_path, database_url="postgresql://somewhere/else")

    with pytest.raises(SecretKeyUnusable, match="BILLINGWATCH_SECRET_KEY must be set") as refused:
        open_seal(settings)

    assert "Fernet.generate_key" in refused.value.hint
    assert list(tmp_path.iterdir()) == []


def test_the_embedded_database_gets_a_key_file_that_only_its_owner_reads(tmp_path):
    settings = Settings(data_dir=tmp_path / "data")

    ciphertext = open_seal(settings).encrypt(FIRST)

    assert open_seal(settings).decrypt(ciphertext) == FIRST
    assert [path.name for path in (tmp_path / "data").iterdir()] == [KEY_FILE]
    assert stat.S_IMODE((tmp_path / "data" / KEY_FILE).stat().st_mode) == 0o600


def test_processes_that_start_together_share_one_key(tmp_path, monkeypatch):
    monkeypatch.setattr(sealing.os, "getpid", threading.get_ident)  # each thread plays a process
    together = threading.Barrier(8)

    def start(_: int) -> bytes:
        together.wait()
        return open_seal(Settings(data_dir=tmp_path)).encrypt(FIRST)

    with ThreadPoolExecutor(8) as processes:
        sealed = list(processes.map(start, range(8)))

    seal = open_seal(Settings(data_dir=tmp_path))
    assert {seal.decrypt(ciphertext) for ciphertext in sealed} == {FIRST}
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


@pytest.mark.parametrize("content", ["", "garbage", "garbage,garbage"])
def test_unusable_key_file_is_named_and_to_be_restored(tmp_path, content):
    settings = Settings(data_dir=tmp_path)
    (tmp_path / KEY_FILE).write_text(content, encoding="ascii")

    with pytest.raises(SecretKeyUnusable, match=KEY_FILE) as caught:
        open_seal(settings)

    assert caught.value.hint == "restore the file from a backup"


async def test_missing_key_file_is_not_replaced_while_secrets_need_it(tmp_path, settings, control, seal, acme):
    database = Database(settings.database_url)
    session = Session(settings=Settings(data_dir=tmp_path), database=database, control=control, key_sample=seal.encrypt(FIRST))

    with pytest.raises(SecretKeyUnusable, match="is missing") as caught:
        _ = session.seal

    assert caught.value.hint == "restore the file from a backup"
    assert list(tmp_path.iterdir()) == []
