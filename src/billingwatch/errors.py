"""Errors that a person sees: one tree; the class docstring is the message, facts are keyword arguments and attributes.

BillingWatchError
├── SettingsInvalid
├── DatabaseUnavailable · PostgresUnusable · SchemaOutdated · MigrationRunning · ControlPlaneStays · TenantOutdated
├── IsolationMismatch · RowIsolationNotPermitted · RolesMissing
├── FleetSettingMismatch · FleetSettingInUse · NotReady
├── TenantNotFound · TenantNameTaken · TenantNameInvalid · TenantBeingRemoved · TenantPaused · RemovalUnfinished
├── SecretInvalid · SecretsFull · SecretNotFound · SecretKeyUnusable · RotationRunning
├── EventNotFound · DeadLetterNotFound · AnomalyNotFound · AnomalyClosed · AnalystNotFound · AnalystsNotPermitted · AnalystRemains · AnalystBusy
├── DetectorNotFound · ThresholdsInvalid · MuteNotFound · MutesFull · BacktestFailed
├── WebhookTokenUnknown · SignatureInvalid · SignatureOutOfTime · SignaturesLimited · EventMalformed
├── TenantUnconfigured · RateLimited · Overloaded · BodyTooLarge · BodiesFull
├── CallsExceeded · LanesBusy · QueryTooSlow
├── ApiKeyReadOnly · ApiKeyNotFound · ApiKeyNameTaken · ApiKeyNameInvalid · ApiKeysFull
├── Unauthenticated
└── InputInvalid · OutputLost
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence


class BillingWatchError(Exception):
    """Something went wrong."""

    hint: str | None = None

    def __init__(self, *, hint: str | None = None, **facts: object) -> None:
        self.facts = facts
        for name, value in facts.items():
            setattr(self, name, value)
        if hint is not None:
            self.hint = hint
        super().__init__((inspect.getdoc(type(self)) or "").format_map(facts))


class SettingsInvalid(BillingWatchError):
    """settings are invalid: {faults}"""


class DatabaseUnavailable(BillingWatchError):
    """the database is unavailable: {reason}"""


class PostgresUnusable(BillingWatchError):
    """the embedded PostgreSQL cannot run: {reason}"""


class SchemaOutdated(BillingWatchError):
    """the database is not at the revision that this release needs: {reason}"""

    hint = "run `billingwatch migrate`"


class IsolationMismatch(BillingWatchError):
    """the database keeps its tenants apart by {found}, and BILLINGWATCH_ISOLATION asks for {wanted}"""

    def __init__(self, *, found: str, wanted: str) -> None:
        super().__init__(found=found, wanted=wanted, hint=f"set BILLINGWATCH_ISOLATION={found}; a database keeps what it was set up with")


class FleetSettingMismatch(BillingWatchError):
    """{variable} is {wanted} here, and the other processes run with {found}"""

    def __init__(self, *, name: str, variable: str, wanted: str, found: str) -> None:
        command = f"billingwatch settings set {name} {wanted}"
        hint = f"set {variable}={found}, or stop every process and run `{command}`"
        super().__init__(name=name, variable=variable, wanted=wanted, found=found, hint=hint)


class FleetSettingInUse(BillingWatchError):
    """{name} cannot change while processes process events: {processors} reported in the last 30 s"""

    hint = "stop every `billingwatch serve` and `billingwatch worker`; a killed process counts for 30 s"


class NotReady(BillingWatchError):
    """the service is not ready: {reason}"""

    def __init__(self, *, conditions: Sequence[str]) -> None:
        faults = [{"message": condition} for condition in conditions]
        super().__init__(reason="; ".join(conditions), faults=faults)


class RowIsolationNotPermitted(BillingWatchError):
    """the service's database role may not set up row isolation: {reason}"""

    hint = "it needs CREATEROLE, and must own the database"


class MigrationRunning(BillingWatchError):
    """another `billingwatch migrate` is at work on this database"""

    hint = "wait until it has ended; what it does not finish, the next run does"


class ControlPlaneStays(BillingWatchError):
    """the control plane's revision {revision} cannot be taken back: {reason}"""

    hint = "nothing was changed; mend the cause, or wait until nobody uses its tables, and run it again"


class TenantOutdated(BillingWatchError):
    """the tenant's schema is at revision {revision}, too old for this release"""

    hint = "run `billingwatch migrate`"


class RolesMissing(BillingWatchError):
    """the database's roles are not on this server: {roles}"""

    hint = "restore them first (`pg_dumpall --roles-only` where it came from), then the database again"


class TenantNotFound(BillingWatchError):
    """there is no tenant `{name}`"""

    hint = "run `billingwatch tenants list`"


class TenantNameTaken(BillingWatchError):
    """a tenant `{name}` exists already"""

    def __init__(self, *, name: str) -> None:
        super().__init__(name=name, hint=f"choose another name, or see `billingwatch tenants show {name}`")


class TenantNameInvalid(BillingWatchError):
    """`{name}` cannot be a tenant's name"""

    hint = "use 1 to 63 letters, digits, `-` and `_`, beginning with a letter or a digit"


class TenantBeingRemoved(BillingWatchError):
    """the tenant of this URL is being removed"""


class TenantPaused(BillingWatchError):
    """tenant `{name}` is paused, so that none of its events may be processed"""

    def __init__(self, *, name: str) -> None:
        super().__init__(name=name, hint=f"run `billingwatch tenants resume {name}`")


class RemovalUnfinished(BillingWatchError):
    """the removal of tenant `{name}` has begun and cannot be undone"""

    def __init__(self, *, name: str) -> None:
        super().__init__(name=name, hint=f"finish it with `billingwatch tenants remove {name}`")


class ApiKeyReadOnly(BillingWatchError):
    """this API key is read-only; another comes from `billingwatch keys create TENANT --name NAME --scope write`"""


class ApiKeyNotFound(BillingWatchError):
    """tenant `{name}` has no API key `{key_id}`"""

    def __init__(self, *, name: str, key_id: int) -> None:
        super().__init__(name=name, key_id=key_id, hint=f"run `billingwatch keys list {name}`")


class ApiKeyNameTaken(BillingWatchError):
    """tenant `{name}` has an API key `{key_name}` already"""

    def __init__(self, *, name: str, key_name: str, key_id: int) -> None:
        hint = f"choose another --name, or run `billingwatch keys revoke {name} {key_id}` first"
        super().__init__(name=name, key_name=key_name, hint=hint)


class ApiKeyNameInvalid(BillingWatchError):
    """`{key_name}` cannot be the name of an API key"""

    hint = "use 1 to 63 letters, digits, spaces, `.`, `-` and `_`; `operator` and names that begin with `bw_` are taken"


class ApiKeysFull(BillingWatchError):
    """tenant `{name}` has {limit} API keys already"""

    def __init__(self, *, name: str, limit: int) -> None:
        super().__init__(name=name, limit=limit, hint=f"revoke one with `billingwatch keys revoke {name} KEY_ID`")


class RotationRunning(BillingWatchError):
    """another `billingwatch keys rotate-master` runs on this database"""

    hint = "wait until it has ended, then run it again"


class SecretInvalid(BillingWatchError):
    """the signing secret must be the whole `whsec_…` text that Stripe shows"""


class SecretsFull(BillingWatchError):
    """tenant `{name}` has two signing secrets already"""

    hint = "remove the older one with `billingwatch tenants secret remove`"


class SecretNotFound(BillingWatchError):
    """tenant `{name}` has no signing secret `{secret_id}`"""

    hint = "run `billingwatch tenants secret list`"


class SecretKeyUnusable(BillingWatchError):
    """signing secrets cannot be decrypted: {reason}"""

    hint = "set BILLINGWATCH_SECRET_KEY to the key that this database was set up with"


class SignatureInvalid(BillingWatchError):
    """the Stripe-Signature header does not match the body, this endpoint or the time"""


class SignatureOutOfTime(SignatureInvalid):
    """the Stripe-Signature header was signed {seconds} s {direction} this server's clock; {tolerance} s are accepted"""


class SignaturesLimited(BillingWatchError):
    """this endpoint receives too many deliveries whose signature is invalid"""


class BodyTooLarge(BillingWatchError):
    """the body is larger than {limit} bytes"""


class BodiesFull(BillingWatchError):
    """too many large bodies are being received"""


class EventMalformed(BillingWatchError):
    """the body is not a Stripe event: {reason}"""


class TenantUnconfigured(BillingWatchError):
    """this endpoint has no signing secret yet"""


class RateLimited(BillingWatchError):
    """this endpoint receives more events than its rate limit admits"""


class Overloaded(BillingWatchError):
    """the event cannot be stored just now: {reason}"""


class CallsExceeded(BillingWatchError):
    """the tenant's API calls take more time than one tenant may use"""

    hint = "call less often, or raise BILLINGWATCH_API_SHARE"


class LanesBusy(BillingWatchError):
    """no database connection became free within {seconds:g} seconds"""

    hint = "raise BILLINGWATCH_READ_LANES"


class QueryTooSlow(BillingWatchError):
    """the query took longer than the service allows"""

    hint = "narrow it with `since` and `until`, or raise BILLINGWATCH_STATEMENT_TIMEOUT"


class WebhookTokenUnknown(BillingWatchError):
    """no endpoint has this URL"""


class EventNotFound(BillingWatchError):
    """there is no event `{event_id}`"""


class DeadLetterNotFound(BillingWatchError):
    """no failed event `{event_id}` is waiting"""

    hint = "run `billingwatch events failed TENANT`"


class AnomalyNotFound(BillingWatchError):
    """there is no anomaly `{anomaly_id}`"""


class AnomalyClosed(BillingWatchError):
    """the anomaly is {status} and cannot become {wanted}"""


class DetectorNotFound(BillingWatchError):
    """there is no detector `{detector}`"""

    hint = "run `billingwatch detectors list TENANT`"


class ThresholdsInvalid(BillingWatchError):
    """thresholds of {detector}: {reason}"""

    def __init__(self, *, detector: str, faults: Mapping[str, str]) -> None:
        super().__init__(
            detector=detector,
            reason="; ".join(faults.values()),
            faults=[{"key": key, "message": message} for key, message in faults.items()],
            hint=f"run `billingwatch detectors show TENANT {detector}`",
        )


class MuteNotFound(BillingWatchError):
    """there is no mute `{mute_id}`"""

    hint = "run `billingwatch mutes list TENANT`"


class MutesFull(BillingWatchError):
    """there are {limit} mutes already"""

    hint = "remove one with `billingwatch mutes remove`, or mute more with one"


class BacktestFailed(BillingWatchError):
    """{detector} cannot judge this history: {reason}"""

    hint = "judge less of it, with a later `since`"


class AnalystNotFound(BillingWatchError):
    """there is no analyst `{role}`"""

    hint = "run `billingwatch analysts list`"


class AnalystsNotPermitted(BillingWatchError):
    """the service's database role may not manage analysts: {reason}"""

    hint = "it needs CREATEROLE, and must own the database or hold CONNECT on it WITH GRANT OPTION"


class AnalystRemains(BillingWatchError):
    """`{role}` can log in no more, but it cannot be dropped: {reason}"""

    def __init__(self, *, role: str, reason: str) -> None:
        super().__init__(role=role, reason=reason, hint=f"run `DROP OWNED BY {role}` there, then revoke it again")


class AnalystBusy(BillingWatchError):
    """`{role}` cannot be changed: its sessions lock the role again each time they are ended"""

    hint = "stop the program that uses its password, then run the command again"


class Unauthenticated(BillingWatchError):
    """send the tenant's API key as `Authorization: Bearer <api key>`"""


class OutputLost(BillingWatchError):
    """the command is done, but its output could not be written: {reason}"""

    hint = "revoke or rotate the key, password or URL that it was to show, or run it again if it only reads"


class InputInvalid(BillingWatchError):
    """{reason}"""
