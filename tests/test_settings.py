"""Settings come from the environment alone; every fault is told at once, and no secret has a default."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_type_hints

import msgspec
import pytest

from billingwatch.errors import SettingsInvalid
from billingwatch.settings import PREFIX, Settings, default_data_dir, load_settings

FIELDS = msgspec.structs.fields(Settings)


def load(**given: str) -> Settings:
    return load_settings({"HOME": "/home/somebody", **{f"{PREFIX}{name}": text for name, text in given.items()}})


def test_an_empty_environment_is_enough():
    settings = load()

    assert (settings.database_url, settings.postgres_bin, settings.secret_key) == (None, None, None)
    assert (settings.rate_limit, settings.public_url, settings.log_format, settings.log_level) == (
        100,
        "http://127.0.0.1:8000",
        "console",
        "info",
    )
    assert settings.data_dir.is_absolute()


def test_every_setting_is_read_from_its_variable():
    given = {
        "DATA_DIR": "/srv/billingwatch",
        "DATABASE_URL": "postgresql://user:pass@db.example:5432/billing",
        "ISOLATION": "row",
        "PARTITIONS": "16",
        "POSTGRES_BIN": "/usr/lib/postgresql/17/bin",
        "SECRET_KEY": "key",
        "PUBLIC_URL": "https://billing.example",
        "RATE_LIMIT": "50",
        "RATE_BURST_SECONDS": "20",
        "CONNECTIONS_LIMIT": "100",
        "INGEST_LANES": "3",
        "WORK_LANES": "4",
        "READ_LANES": "5",
        "API_SHARE": "9",
        "LANE_TENANTS": "6",
        "QUEUE_LIMIT": "7",
        "STATEMENT_TIMEOUT": "8",
        "ANALYST_TRANSACTION_MINUTES": "9",
        "ANALYST_IDLE_HOURS": "10",
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "debug",
    }

    settings = load(**given)

    assert {name.lower(): str(getattr(settings, name.lower())) for name in given} == {name.lower(): text for name, text in given.items()}
    assert {field.name.upper() for field in FIELDS} == set(given)


def test_the_process_environment_is_the_default(monkeypatch, tmp_path):
    for variable in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("BILLINGWATCH_DATA_DIR", str(tmp_path))

    assert load_settings().data_dir == tmp_path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("DATABASE_URL", "mysql://localhost/x"),
        ("DATABASE_URL", "localhost:5432"),
        ("PUBLIC_URL", "billing.example"),
        ("RATE_LIMIT", "0"),
        ("RATE_LIMIT", "-1"),
        ("RATE_LIMIT", "ten"),
        ("RATE_LIMIT", "1.5"),
        ("RATE_BURST_SECONDS", "3601"),
        ("INGEST_LANES", "0"),
        ("INGEST_LANES", "65"),
        ("WORK_LANES", "0"),
        ("READ_LANES", "0"),
        ("LANE_TENANTS", "0"),
        ("QUEUE_LIMIT", "0"),
        ("STATEMENT_TIMEOUT", "0"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "INFO"),
        ("LOG_LEVEL", "notset"),
    ],
)
def test_a_bad_value_names_its_variable(name, text):
    with pytest.raises(SettingsInvalid, match=f"BILLINGWATCH_{name}: "):
        load(**{name: text})


def test_every_fault_is_told_at_once():
    with pytest.raises(SettingsInvalid) as refused:
        load(RATE_LIMIT="0", LOG_LEVEL="loud", DATBASE_URL="postgresql://typo", DATABASE_URL="mysql://x")

    told = str(refused.value)
    assert told.startswith("settings are invalid: ")
    assert all(name in told for name in ("BILLINGWATCH_RATE_LIMIT: ", "BILLINGWATCH_LOG_LEVEL: ", "BILLINGWATCH_DATABASE_URL: "))
    assert "BILLINGWATCH_DATBASE_URL is not a setting" in told


@pytest.mark.parametrize("name", ["DATBASE_URL", "RATE__LIMIT", "DATABASE_URL_", "TENANT"])
def test_an_unknown_variable_of_ours_is_refused_lest_a_typo_goes_unseen(name):
    with pytest.raises(SettingsInvalid, match=f"BILLINGWATCH_{name} is not a setting"):
        load(**{name: "1"})


def test_variables_of_others_and_empty_ones_are_none_of_our_business():
    assert (
        load_settings({"HOME": "/x", "BILLINGWATCHER": "1", "DATABASE_URL": "mysql://x", "BILLINGWATCH_RATE_LIMIT": ""}).rate_limit == 100
    )


def test_a_fault_does_not_repeat_a_secret():
    with pytest.raises(SettingsInvalid) as refused:
        load(DATABASE_URL="mysql://user:hunter2@db/x", SECRET_KEY="topsecret", RATE_LIMIT="0")

    assert "hunter2" not in str(refused.value)
    assert "topsecret" not in str(refused.value)


def test_settings_cannot_be_changed():
    with pytest.raises(AttributeError):
        load().rate_limit = 1


def test_no_secret_has_a_default():
    secret = {field.name: field.default for field in FIELDS if field.name in {"secret_key", "database_url"}}

    assert secret == {"secret_key": None, "database_url": None}


def test_paths_are_absolute_and_know_the_home(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")

    assert load(DATA_DIR="here").data_dir == tmp_path / "here"
    assert load(DATA_DIR="~/there").data_dir == Path("/home/ada/there")
    assert load(POSTGRES_BIN="~/bin").postgres_bin == Path("/home/ada/bin")


@pytest.mark.parametrize(
    ("uid", "environ", "expected"),
    [
        (0, {"HOME": "/root"}, "/var/lib/billingwatch"),
        (0, {"HOME": "/root", "XDG_DATA_HOME": "/root/data"}, "/var/lib/billingwatch"),  # the server's user cannot enter /root
        (1000, {"HOME": "/home/ada"}, "/home/ada/.local/share/billingwatch"),
        (1000, {"HOME": "/home/ada", "XDG_DATA_HOME": "/data/ada"}, "/data/ada/billingwatch"),
        (1000, {"HOME": "/home/ada", "XDG_DATA_HOME": ""}, "/home/ada/.local/share/billingwatch"),
    ],
)
def test_data_goes_where_the_system_expects_it(monkeypatch, uid, environ, expected):
    monkeypatch.setattr(os, "geteuid", lambda: uid)

    assert default_data_dir(environ) == Path(expected)
    assert load_settings(environ).data_dir == Path(expected)
    assert load_settings(environ | {"BILLINGWATCH_DATA_DIR": "/elsewhere"}).data_dir == Path("/elsewhere")


def test_every_setting_is_described():
    hints = get_type_hints(Settings, include_extras=True)

    assert {field.name: any(meta.description for meta in hints[field.name].__metadata__) for field in FIELDS} == {
        field.name: True for field in FIELDS
    }


@pytest.mark.parametrize("isolation", [{}, {"ISOLATION": "schema"}])
def test_partitions_of_what_is_not_shared_are_refused(isolation: dict[str, str]):
    with pytest.raises(SettingsInvalid, match="BILLINGWATCH_PARTITIONS is for BILLINGWATCH_ISOLATION=row"):
        load(PARTITIONS="16", **isolation)

    assert load(PARTITIONS="0", **isolation).partitions == 0
