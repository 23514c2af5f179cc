"""The account that runs the server: PostgreSQL refuses root, so root lends it an account that owns nothing else."""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
from pathlib import Path

import msgspec

from billingwatch.errors import PostgresUnusable

LENT = ("postgres", "nobody")
COMMAND_TIMEOUT = 120  # seconds; bounds one run of initdb, the slowest command
PASSWORD_GUARD = {"PGCONNECT_TIMEOUT": "10", "PGREQUIREAUTH": "scram-sha-256"}
NO_ACCOUNT_HINT = "run billingwatch as an ordinary user, or set BILLINGWATCH_DATABASE_URL"


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to become for the server and its tools; `user` is None when we are an ordinary user and stay ourselves."""

    home: Path
    name: str = ""
    user: int | None = None
    group: int | None = None

    @property
    def groups(self) -> tuple[int, ...] | None:
        return None if self.user is None else ()

    @property
    def environment(self) -> dict[str, str]:
        """All that the server sees of ours: no PG* variables to mislead it, no secrets of the service."""
        return {"PATH": os.defpath, "HOME": str(self.home), "LC_ALL": "C", "TZ": "UTC"}

    def run(
        self, *command: str | Path, stdin: str = "", password: str = "", inherit: tuple[int, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=self.environment | ({"PGPASSWORD": password, **PASSWORD_GUARD} if password else {}),
            cwd="/",
            pass_fds=inherit,
            timeout=COMMAND_TIMEOUT,
            check=False,
            user=self.user,
            group=self.group,
            extra_groups=self.groups,
        )

    def own(self, path: Path) -> None:
        if self.user is not None and self.group is not None:
            os.chown(path, self.user, self.group, follow_symlinks=False)

    def require_entry(self, directory: Path) -> None:
        """Raise PostgresUnusable that names the first directory on the way which the account cannot enter."""
        try:
            if self.user is None or self._enters(directory):
                return
        except PermissionError as error:
            reason = f"root may not run it, and this root may not become user `{self.name}`"
            raise PostgresUnusable(reason=reason, hint=NO_ACCOUNT_HINT) from error
        closed = next((path for path in reversed(directory.parents) if not self._enters(path)), directory)
        raise PostgresUnusable(
            reason=f"root may not run it, and user `{self.name}`, who runs it for root, cannot enter {closed}",
            hint="set BILLINGWATCH_DATA_DIR to a directory that every user can enter (chmod o+x), such as /var/lib/billingwatch",
        )

    def _enters(self, directory: Path) -> bool:
        return self.run("/bin/sh", "-c", 'cd "$1"', "sh", directory).returncode == 0


def server_account(home: Path) -> Account:
    """The account for the server in `home`: our own, but for root the owner of the data, or an unprivileged user that exists."""
    if os.geteuid() != 0:
        return Account(home=home)
    data = home / "data"
    owner = data.stat().st_uid if data.exists() else 0
    if owner:
        with contextlib.suppress(KeyError):
            return _lent(home, pwd.getpwuid(owner))
    for name in LENT:
        with contextlib.suppress(KeyError):
            return _lent(home, pwd.getpwnam(name))
    raise PostgresUnusable(
        reason=f"root may not run it, and there is no user {' or '.join(LENT)} to run it for root",
        hint=NO_ACCOUNT_HINT,
    )


def _lent(home: Path, entry: pwd.struct_passwd) -> Account:
    return Account(home=home, name=entry.pw_name, user=entry.pw_uid, group=entry.pw_gid)
