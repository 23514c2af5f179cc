"""An operator's session: commands, their exit codes, and that data is on stdout and talk on stderr."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

CREATED = {"id", "name", "schema", "mode", "webhook_url", "api_key"}


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
    ],
)
def test_a_wrong_command_is_one_clear_line_and_exit_code_2(standing: Any, arguments: tuple[str, ...], line: str) -> None:
    standing.run("tenants", "create", "taken", check=False)

    wrong = standing.run(*arguments, check=False)

    assert wrong.returncode == 2
    assert line in wrong.stderr.decode().splitlines()
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
