"""Signing secrets at rest: encrypted with Fernet; the first of several keys encrypts, each of them decrypts."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from billingwatch.errors import SecretKeyUnusable
from billingwatch.settings import Settings

KEY_FILE = "secret.key"


class Seal:
    """Encrypts and decrypts signing secrets."""

    def __init__(self, keys: list[str]) -> None:
        try:
            self._fernet = MultiFernet([Fernet(key.strip()) for key in keys if key.strip()])
        except ValueError as error:
            raise SecretKeyUnusable(reason="BILLINGWATCH_SECRET_KEY is not a list of Fernet keys", hint=GENERATE) from error

    def encrypt(self, secret: str) -> bytes:
        return self._fernet.encrypt(secret.encode())

    def decrypt(self, ciphertext: bytes) -> str:
        try:
            return self._fernet.decrypt(ciphertext).decode()
        except InvalidToken as error:
            raise SecretKeyUnusable(reason="the key does not fit") from error


GENERATE = "make one with `python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'`"


def open_seal(settings: Settings) -> Seal:
    """The key from BILLINGWATCH_SECRET_KEY; with the embedded database also from a 0600 file, made the first time."""
    if settings.secret_key:
        return Seal(settings.secret_key.split(","))
    if settings.database_url is not None:
        raise SecretKeyUnusable(reason="BILLINGWATCH_DATABASE_URL is set, so BILLINGWATCH_SECRET_KEY must be set too", hint=GENERATE)
    return Seal([_key_from_file(settings.data_dir / KEY_FILE)])


def _key_from_file(path: Path) -> str:
    if not path.exists():
        _make_key_file(path)
    return path.read_text(encoding="ascii")


def _make_key_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(Fernet.generate_key())
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)  # Of two processes that start together one wins, and both read the winner's whole key.
    except FileExistsError:
        pass
    finally:
        draft.unlink()
