"""Signing secrets at rest: encrypted with Fernet; the first of several keys encrypts, each of them decrypts.

The keys come from BILLINGWATCH_SECRET_KEY or, with the embedded database, from a file. `billingwatch keys rotate-master` replaces the
file while services run, so a ciphertext that no known key decrypts makes the process read the file again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from billingwatch.errors import SecretKeyUnusable
from billingwatch.settings import Settings

KEY_FILE = "secret.key"


class Seal:
    """Encrypts and decrypts signing secrets; `reread` returns the present keys, where they can change."""

    def __init__(self, keys: list[str], reread: Callable[[], list[str]] | None = None) -> None:
        self._reread = reread
        self._use(keys)

    def _use(self, keys: list[str]) -> None:
        self._keys = [key.strip() for key in keys if key.strip()]
        try:
            self._newest = Fernet(self._keys[0]) if self._keys else None
            self._fernet = MultiFernet([Fernet(key) for key in self._keys])
        except ValueError as error:
            raise SecretKeyUnusable(reason="BILLINGWATCH_SECRET_KEY is not a list of Fernet keys", hint=GENERATE) from error

    @property
    def key_count(self) -> int:
        return len(self._keys)

    def refresh(self) -> bool:
        """Read the keys again, where they can change; return whether they have changed."""
        keys = self._keys if self._reread is None else self._reread()
        if keys == self._keys:
            return False
        self._use(keys)
        return True

    def is_current(self, ciphertext: bytes) -> bool:
        """Return whether the first key encrypted this."""
        try:
            return self._newest is not None and bool(self._newest.decrypt(ciphertext))
        except InvalidToken:
            return False

    def encrypt(self, secret: str) -> bytes:
        return self._fernet.encrypt(secret.encode())

    def decrypt(self, ciphertext: bytes) -> str:
        try:
            return self._fernet.decrypt(ciphertext).decode()
        except InvalidToken as error:
            if not self.refresh():
                raise SecretKeyUnusable(reason="the key does not fit") from error
        try:
            return self._fernet.decrypt(ciphertext).decode()
        except InvalidToken as error:
            raise SecretKeyUnusable(reason="the key does not fit") from error


RESTORE = "restore the file from a backup"
GENERATE = "make one with `python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'`"


def open_seal(settings: Settings, *, may_create: bool = True) -> Seal:
    """The key from BILLINGWATCH_SECRET_KEY; with the embedded database also from a 0600 file, made the first time.

    Without `may_create` a missing file is SecretKeyUnusable, because a new key decrypts nothing.
    """
    if settings.secret_key:
        return Seal(settings.secret_key.split(","))
    if settings.database_url is not None:
        raise SecretKeyUnusable(reason="BILLINGWATCH_DATABASE_URL is set, so BILLINGWATCH_SECRET_KEY must be set too", hint=GENERATE)
    path = settings.data_dir / KEY_FILE
    if not path.exists():
        if not may_create:
            raise SecretKeyUnusable(reason=f"{path} is missing, and this database was set up with its key", hint=RESTORE)
        _make_key_file(path)
    return Seal(read_key_file(path), reread=lambda: read_key_file(path))


def key_file(settings: Settings) -> Path | None:
    """Return the file that holds the keys; None when BILLINGWATCH_SECRET_KEY does."""
    return None if settings.secret_key or settings.database_url is not None else settings.data_dir / KEY_FILE


def read_key_file(path: Path) -> list[str]:
    """Return the keys of the file, the first of which encrypts. Raises SecretKeyUnusable."""
    try:
        keys = [key.strip() for key in path.read_text(encoding="ascii").split(",") if key.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise SecretKeyUnusable(reason=f"{path} cannot be read: {error}", hint=RESTORE) from error
    try:
        MultiFernet([Fernet(key) for key in keys])
    except ValueError as error:
        raise SecretKeyUnusable(reason=f"{path} does not hold Fernet keys", hint=RESTORE) from error
    return keys


def replace_key_file(path: Path, keys: list[str]) -> None:
    """Write the keys so that after a crash the file holds either all of the old ones or all of the new ones."""
    draft = _write_draft(path, ",".join(keys))
    draft.rename(path)
    _sync_directory(path)


def _make_key_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _write_draft(path, Fernet.generate_key().decode())
    try:
        os.link(draft, path)  # Of two processes that start together one wins, and both read the winner's whole key.
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    _sync_directory(path)


def _write_draft(path: Path, text: str) -> Path:
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        if path.exists():
            # A command of root must not take the file from the account that runs the service.
            owner = path.stat()
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        os.fsync(file.fileno())
    return draft


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
