"""An operator's session: commands, their exit codes, and that data is on stdout and talk on stderr."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

CREATED = {"id", "name", "schema", "mode", "webhook_url", "api_key"}


@pytest.mark.both_isolations
def test_a_tenants_life_from_the_command_line(standing: Any) -> None:
    made = standing.json("tenants", "create", "alive", "--mode", "test", "--secret", "-", input=b"whsec_given_on_stdin\n")
    listed = standing.json("tenants", "list")
    shown = standing.json("tenants", "show", "alive")
    added = standing.json("tenants", "secret", "add", "alive", "whsec_the_second_secret")
    third = standing.run("tenants", "secret", "add", "alive", "whsec_the_third_secret", check=False)
    secrets = standing.json("tenants", "secret", "list", "alive")
    standing.run("tenants", "secret", "remove", "alive", str(secrets[0]["secret_id"]))
    left = standing.json("tenants", "secret", "list", "alive")

    assert set(made) == CREATED
    assert made["mode"] == "test"
    assert "alive" in {row["name"] for row in listed}
    assert shown["schema"] == made["schema"]
    assert third.returncode == 2
    assert [row["secret_id"] for row in left] == [added["secret_id"]]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("tenants", "create", "taken"), "error: a tenant `taken` exists already"),
        (("tenants", "create", "not a name"), "error: `not a name` cannot be a tenant's name"),
        (("tenants", "create", "x" * 64), f"error: `{'x' * 64}` cannot be a tenant's name"),
        (
            ("tenants", "create", "b", "--secret", "sk_live_oops"),
            "error: the signing secret must be the whole `whsec_…` text that Stripe shows",
        ),
        (("tenants", "show", "nobody"), "error: there is no tenant `nobody`"),
        (("analysts", "create", "nobody"), "error: there is no tenant `nobody`"),
        (("analysts", "revoke", "analyst_nobody"), "error: there is no analyst `analyst_nobody`"),
        (("detectors", "show", "taken", "no_such"), "error: there is no detector `no_such`"),
        (
            ("detectors", "set", "taken", "duplicate_charge", "--set", "window_minutes=low"),
            "error: thresholds of duplicate_charge: `window_minutes` must be a whole number from 1 to 1440 (minutes)",
        ),
        (("mutes", "remove", "taken", "77"), "error: there is no mute `77`"),
        (("events", "retry", "taken", "evt_nope"), "error: no failed event `evt_nope` is waiting"),
        (
            ("backtest", "taken", "--detector", "fraud_spike", "--since", "soon"),
            "error: `since` is a moment like `2026-03-01` or a span like `30d`, not `soon`",
        ),
    ],
)
def test_a_wrong_command_is_one_clear_line_and_exit_code_2(standing: Any, arguments: tuple[str, ...], line: str) -> None:
    standing.run("tenants", "create", "taken", check=False)

    wrong = standing.run(*arguments, check=False)

    assert wrong.returncode == 2
    first, *rest = wrong.stderr.decode().splitlines()
    assert first == line
    assert all(each.startswith("hint: ") for each in rest)
    assert wrong.stdout == b""


def test_settings_that_are_wrong_are_all_named_at_once(standing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(standing.environ, "BILLINGWATCH_RATE_LIMIT", "fast")
    monkeypatch.setitem(standing.environ, "BILLINGWATCH_COLOUR", "red")

    wrong = standing.run("tenants", "list", check=False)

    assert wrong.returncode == 2
    assert b"BILLINGWATCH_RATE_LIMIT" in wrong.stderr
    assert b"BILLINGWATCH_COLOUR is not a setting" in wrong.stderr


def test_a_simulated_stream_is_replayed_once_however_often_it_is_fed(standing: Any, tmp_path: Any) -> None:
    standing.run("tenants", "create", "repeated")
    stream = tmp_path / "events.jsonl"
    simulated = ("simulate", "--days", "14", "--seed", "7", "--incident", "duplicate_charge", "--labels", str(tmp_path / "labels.jsonl"))
    stream.write_bytes(standing.run(*simulated).stdout)
    count = len(stream.read_bytes().splitlines())

    first = standing.json("replay", "repeated", str(stream))
    again = standing.json("replay", "repeated", str(stream))
    dead = standing.json("events", "failed", "repeated")

    assert (first["recorded"], first["processed"], first["dead"], first["refused"]) == (count, count, 0, [])
    assert (again["recorded"], again["duplicates"], again["processed"]) == (0, count, 0)
    assert dead == []
    labels = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    assert [label["incident"] for label in labels if not label["natural"]] == ["duplicate_charge"]


def test_a_file_with_a_bad_line_is_replayed_but_for_that_line(standing: Any, tmp_path: Any) -> None:
    standing.run("tenants", "create", "mixed")
    lines = standing.run("simulate", "--days", "2", "--profile", "saas").stdout.splitlines()
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_bytes(b"\n".join([*lines[:2], b'{"no": "event"}', *lines[2:]]))

    done = standing.run("replay", "mixed", str(mixed), "--json", check=False)

    assert done.returncode == 1
    assert json.loads(done.stdout)["recorded"] == len(lines)
    assert [entry["number"] for entry in json.loads(done.stdout)["refused"]] == [3]


def test_detectors_are_set_and_anomalies_muted_from_the_command_line(standing: Any) -> None:
    standing.run("tenants", "create", "tuned")

    listed = standing.json("detectors", "list", "tuned")
    table = standing.run("detectors", "list", "tuned").stdout.decode()
    changed = standing.json("detectors", "set", "tuned", "fraud_spike", "--set", "min_cases=7", "--set", "min_rate=0.5", "--off")
    reset = standing.json("detectors", "set", "tuned", "fraud_spike", "--reset", "--set", "min_rate=0.25", "--on")
    shown = standing.json("detectors", "show", "tuned", "fraud_spike")
    page = standing.run("detectors", "show", "tuned", "fraud_spike").stdout.decode()
    added = standing.json("mutes", "add", "tuned", "--detector", "fraud_spike", "--until", "2026-03-01", "--reason", "a sale")
    mutes = standing.json("mutes", "list", "tuned")
    removed = standing.json("mutes", "remove", "tuned", str(added["mute_id"]))

    def values(row: Any) -> dict[str, Any]:
        return {each["key"]: each["value"] for each in row["thresholds"]}

    assert {"fraud_spike", "duplicate_charge"} <= {row["name"] for row in listed}
    assert all(row["name"] in table for row in listed)
    assert (changed["state"], values(changed)["min_cases"], values(changed)["min_rate"]) == ("off", 7, 0.5)
    assert (reset["state"], values(reset)["min_cases"], values(reset)["min_rate"]) == ("active", 5, 0.25)
    assert shown == reset
    assert "min_rate" in page
    assert "0.25" in page
    assert mutes == [added]
    assert (added["detector"], added["until"], added["since"]) == ("fraud_spike", "2026-03-01T00:00:00Z", None)
    assert removed == added
    assert standing.json("mutes", "list", "tuned") == []


def test_a_backtest_is_printed_as_a_table_and_as_json_and_sets_nothing(standing: Any, tmp_path: Any) -> None:
    standing.run("tenants", "create", "tried")
    stream = tmp_path / "events.jsonl"
    stream.write_bytes(standing.run("simulate", "--days", "21", "--seed", "7", "--incident", "duplicate_charge").stdout)
    standing.run("replay", "tried", str(stream))

    same = standing.json("backtest", "tried", "--detector", "duplicate_charge", "--since", "26w")
    stricter = standing.json("backtest", "tried", "--detector", "duplicate_charge", "--set", "window_minutes=1", "--since", "26w")
    table = standing.run("backtest", "tried", "--detector", "duplicate_charge", "--since", "26w").stdout.decode()
    shown = standing.json("detectors", "show", "tried", "duplicate_charge")

    assert same["fired_before"] == same["would_fire"] == same["in_both"] >= 1
    assert (same["only_before"], same["only_then"]) == (0, 0)
    assert stricter["thresholds"] == {"window_minutes": 1}
    assert stricter["would_fire"] + stricter["only_before"] == same["fired_before"]
    assert same["incidents"][0]["summary"] in " ".join(table.split())
    assert [each["value"] for each in shown["thresholds"]] == [each["default"] for each in shown["thresholds"]]


def test_the_help_of_every_command_answers(standing: Any) -> None:
    commands = [
        (),
        ("serve",),
        ("worker",),
        ("tenants", "create"),
        ("analysts", "create"),
        ("migrate",),
        ("replay",),
        ("simulate",),
        ("detectors", "set"),
        ("mutes", "add"),
        ("backtest",),
        ("bench",),
        ("demo",),
    ]

    answers: list[subprocess.CompletedProcess[bytes]] = [standing.run(*command, "--help") for command in commands]

    assert all(b"Usage" in answer.stdout for answer in answers)


def test_a_service_without_the_key_of_its_database_says_so_in_one_line(standing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(standing.environ, "BILLINGWATCH_DATABASE_URL", "postgresql://nobody:x@127.0.0.1:1/nothing")

    keyless = standing.run("serve", "--port", "0", check=False)
    monkeypatch.setitem(standing.environ, "BILLINGWATCH_SECRET_KEY", "f" * 43 + "=")
    unreachable = standing.run("serve", "--port", "0", check=False)

    assert keyless.returncode == unreachable.returncode == 2
    assert keyless.stderr.startswith(b"error: signing secrets cannot be decrypted: BILLINGWATCH_DATABASE_URL is set")
    assert unreachable.stderr.startswith(b"error: the database is unavailable: ")
    assert b"Traceback" not in keyless.stderr + unreachable.stderr


def test_tenant_is_paused_resumed_and_shown(standing: Any) -> None:
    standing.run("tenants", "create", "resting")

    paused = standing.json("tenants", "pause", "resting")
    again = standing.run("tenants", "pause", "resting")
    shown = standing.json("tenants", "show", "resting")
    listed = {row["name"]: row["status"] for row in standing.json("tenants", "list")}
    table = standing.run("tenants", "list").stdout.decode()
    resumed = standing.json("tenants", "resume", "resting")

    assert (paused["status"], paused["changed"]) == ("paused", True)
    assert b"was paused already" in again.stderr
    assert again.stdout == b""
    assert (shown["status"], shown["api_keys"], shown["last_event_at"], shown["refused"], shown["ignored"]) == ("paused", 1, None, 0, 0)
    assert listed["resting"] == "paused"
    assert "paused" in table
    assert (resumed["status"], resumed["changed"]) == ("active", True)


def test_webhook_url_and_keys_are_shown_once(standing: Any) -> None:
    made = standing.json("tenants", "create", "renewed")

    rotated = standing.json("tenants", "rotate-url", "renewed", "--grace", "12h")
    wrong = standing.run("tenants", "rotate-url", "renewed", "--grace", "soon", check=False)
    key = standing.json("keys", "create", "renewed", "--name", "viewer", "--scope", "read", "--expires", "90d")
    listed = standing.run("keys", "list", "renewed", "--json").stdout
    revoked = standing.json("keys", "revoke", "renewed", str(key["key_id"]))
    missing = standing.run("keys", "revoke", "renewed", str(key["key_id"]), check=False)
    shown = standing.run("tenants", "show", "renewed", "--json").stdout

    assert rotated["webhook_url"] != made["webhook_url"]
    assert rotated["previous_url_until"] is not None
    assert wrong.returncode == 2
    assert [(row["name"], row["scope"]) for row in json.loads(listed)] == [("default", "write"), ("viewer", "read")]
    for secret in (key["api_key"], made["api_key"], rotated["webhook_url"].rpartition("/")[2]):
        assert secret.encode() not in listed + shown
    assert revoked["name"] == "viewer"
    assert missing.returncode == 2
    assert missing.stderr.decode().splitlines()[1] == "hint: run `billingwatch keys list renewed`"


def test_key_file_is_rotated_while_the_tenant_keeps_its_secret(standing: Any) -> None:
    standing.run("tenants", "create", "sealed", "--secret", "whsec_survives_the_rotation")
    before = (standing.directory / "secret.key").read_text()

    done = standing.json("keys", "rotate-master")
    talked = standing.run("keys", "rotate-master")
    listed = standing.json("tenants", "secret", "list", "sealed")

    after = (standing.directory / "secret.key").read_text()
    assert done["complete"]
    assert done["reencrypted"] >= 1
    assert after != before
    assert "," not in after
    assert b"Backups of the database made before now still need it" in talked.stderr
    assert len(listed) == 1
    standing.run("detectors", "list", "sealed")
