"""Tenants as the control plane knows them: one small struct, and the rules for names, tokens and keys."""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import datetime, timedelta
from typing import Literal, NewType

import msgspec

from billingwatch.errors import SecretInvalid, TenantNameInvalid, TenantOutdated
from billingwatch.postgres.revisions import outdated

TenantId = NewType("TenantId", int)
Mode = Literal["live", "test"]
Status = Literal["active", "paused", "removing"]
Scope = Literal["read", "write"]

TOKEN_BYTES = 32  # 256 bits
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_SECRET = re.compile(r"whsec_[!-~]{8,250}")


class DetectorSetting(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant set of one detector; `thresholds` is a JSON object, because this room does not know what it means."""

    detector: str
    active: bool
    thresholds: str


class Mute(msgspec.Struct, frozen=True, kw_only=True):
    """Anomalies that nobody wants to hear about; None leaves that side open."""

    mute_id: int
    detector: str | None
    subject: str | None
    since: datetime | None
    until: datetime | None
    reason: str

    def covers(self, detector: str, subject: str, opened_at: datetime) -> bool:
        """Whether an anomaly is one of them; `until` is exclusive."""
        return (
            self.detector in {None, detector}
            and self.subject in {None, subject}
            and (self.since is None or self.since <= opened_at)
            and (self.until is None or opened_at < self.until)
        )


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """The last time in which a tenant's events waited; `resumed_at` is null while it lasts."""

    paused_at: datetime
    resumed_at: datetime | None

    def within(self, since: datetime, until: datetime) -> timedelta:
        """Return how much of a span the pause covers."""
        ended_at = until if self.resumed_at is None else min(self.resumed_at, until)
        return max(ended_at - max(self.paused_at, since), timedelta())


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """An API key, without the key."""

    key_id: int
    name: str
    hint: str
    scope: Scope

    @property
    def actor(self) -> str:
        """Return what the audit log calls the key."""
        return self.name or self.hint


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """One watched Stripe account; never log a Tenant whole.

    `secrets` are the live signing secrets, newest first. Only a look-up by webhook token decrypts them.
    `unreadable_secrets` counts those that the secret key does not decrypt.
    `api_key` is the key of a look-up by API key.
    """

    tenant_id: TenantId
    name: str
    schema_name: str
    revision: str
    mode: Mode
    status: Status
    rate_limit: int | None
    secrets: tuple[str, ...]
    detector_settings: tuple[DetectorSetting, ...] = ()
    mutes: tuple[Mute, ...] = ()
    pause: Pause | None = None
    unreadable_secrets: int = 0
    api_key: ApiKey | None = None

    def __repr__(self) -> str:
        return f"Tenant({self.tenant_id}, {self.name!r}, {self.schema_name})"


def usable(tenant: Tenant) -> Tenant:
    """The tenant, whose tables this release's code can use; TenantOutdated."""
    if outdated(tenant.revision):
        raise TenantOutdated(revision=tenant.revision)
    return tenant


def checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise TenantNameInvalid(name=name)
    return name


def checked_secret(secret: str) -> str:
    """A signing secret as Stripe shows it; an empty one would make signatures forgeable."""
    if not _SECRET.fullmatch(secret):
        raise SecretInvalid
    return secret


def new_webhook_token() -> str:
    return secrets.token_urlsafe(TOKEN_BYTES)


def new_api_key() -> str:
    return "bw_" + secrets.token_urlsafe(TOKEN_BYTES)


def token_hash(token: str) -> bytes:
    """What is stored of a token or key. They are random, so one SHA-256 is enough."""
    return hashlib.sha256(token.encode()).digest()
