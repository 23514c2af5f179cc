"""`billingwatch replay FILE`: every form of a file gives the same events, and one that cannot be read is refused as a whole."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from billingwatch.cli.event_files import read_events
from billingwatch.errors import InputInvalid


def event(number: int) -> dict[str, Any]:
    inside = {"id": f"cus_{number}", "object": "customer"}
    return {"id": f"evt_{number}", "object": "event", "type": "customer.created", "created": 1_772_000_000, "data": {"object": inside}}


EVENTS = [event(number) for number in range(3)]
LINES = b"".join(json.dumps(one).encode() + b"\n" for one in EVENTS)
FORMS = {
    "lines": LINES,
    "lines_with_gaps": LINES.replace(b"\n", b"\r\n\n"),
    "array": json.dumps(EVENTS).encode(),
    "indented_array": json.dumps(EVENTS, indent=2).encode(),
    "list_of_stripe": json.dumps({"object": "list", "data": EVENTS, "has_more": False}, indent=2).encode(),
    "indented_events": b"\n".join(json.dumps(one, indent=2).encode() for one in EVENTS),
    "gzip": gzip.compress(LINES),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_file_gives_the_same_events(form: str, tmp_path):
    path = tmp_path / "events"
    path.write_bytes(FORMS[form])

    assert [json.loads(entry.body) for entry in read_events(path)] == EVENTS


def test_one_indented_event_is_one_entry(tmp_path):
    path = tmp_path / "event.json"
    path.write_text(json.dumps(EVENTS[0], indent=2))

    assert [json.loads(entry.body) for entry in read_events(path)] == EVENTS[:1]


def test_directory_gives_the_events_of_its_files_by_name(tmp_path):
    (tmp_path / "b.json").write_text(json.dumps(EVENTS[1:]))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(json.dumps(EVENTS[0]).encode()))
    (tmp_path / "notes.txt").write_text("no events")

    assert [json.loads(entry.body) for entry in read_events(tmp_path)] == EVENTS


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (LINES + b'{"id": "evt_9"', "line 4: "),
        (LINES[:40] + b"\n" + LINES, "line 1: "),
        (json.dumps(EVENTS, indent=2).encode()[:-20], "line "),
        (json.dumps(EVENTS[0], indent=2).encode().replace(b'"cus_0"', b"cus_0"), "line 8: Expecting value"),
        (b"id,type\nevt_1,ping\n", "line 1: Expecting value"),
        (gzip.compress(LINES)[:-9], "is not complete gzip"),
    ],
)
def test_file_that_cannot_be_read_names_line_and_reason(document: bytes, reason: str, tmp_path):
    path = tmp_path / "events"
    path.write_bytes(document)

    with pytest.raises(InputInvalid, match=reason):
        read_events(path)


def test_directory_without_event_files_is_refused(tmp_path):
    with pytest.raises(InputInvalid, match="contains no file that ends in"):
        read_events(tmp_path)


@pytest.fixture
def run(settings):
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BILLINGWATCH_")}
    environ |= {
        "BILLINGWATCH_DATABASE_URL": settings.database_url,
        "BILLINGWATCH_SECRET_KEY": settings.secret_key,
        "BILLINGWATCH_DATA_DIR": str(settings.data_dir),
    }

    def run(*arguments: str, stdin: bytes = b"", seconds: int = 100, **changes: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-P", "-m", "billingwatch", *arguments]
        return subprocess.run(command, env=environ | changes, input=stdin, capture_output=True, timeout=seconds, check=False)

    return run


async def test_file_with_unreadable_line_records_nothing(run, tenant, tenant_connection, tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(LINES + b'{"id": ')

    done = run("replay", tenant.name, str(path))

    assert done.returncode != 0
    assert b"events.jsonl, line 4: " in done.stderr
    assert await tenant_connection.fetchval("SELECT count(*) FROM events") == 0


async def test_stdin_with_compressed_lines_is_replayed(run, tenant):
    done = run("replay", tenant.name, "-", "--json", stdin=gzip.compress(LINES))

    assert json.loads(done.stdout)["recorded"] == 3
    assert json.loads(done.stdout)["behind"] == {}


async def test_detector_that_is_behind_says_so_on_the_command_line(run, tenant, control):
    postpone = "INSERT INTO control.due_visits (tenant_id, kind, due_at, since) VALUES ($1, 'history', $2, $2)"
    await control.execute(postpone, tenant.tenant_id, datetime(2026, 3, 1, tzinfo=UTC))

    listed = json.loads(run("detectors", "list", tenant.name, "--json").stdout)
    page = run("detectors", "show", tenant.name, "revenue_drop").stdout

    assert {each["behind_since"] for each in listed} == {"2026-03-01T00:00:00Z"}
    assert re.search(rb"behind since +2026-03-01 00:00:00", page)


async def test_statement_timeout_of_the_settings_holds_for_replay(run, tenant, connect, tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(LINES)
    holder = await connect()
    async with holder.transaction():
        await holder.execute(f"LOCK TABLE {tenant.schema_name}.customers IN ACCESS EXCLUSIVE MODE")

        # With the default of 30 s the command would still wait when the test ends it.
        done = run("replay", tenant.name, str(path), seconds=25, BILLINGWATCH_STATEMENT_TIMEOUT="2")

    assert done.returncode != 0
    assert b"statement timeout" in done.stderr
