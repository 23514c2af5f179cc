"""`billingwatch settings`: values, origins, and what every process must agree on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from billingwatch.settings import Settings
from billingwatch.tenancy.fleet_settings import WORK_LANES, agree
from billingwatch.tenancy.processors import register_processor, unregister_processor


@pytest.fixture
def run(settings) -> Any:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BILLINGWATCH_")}
    environ |= {
        "BILLINGWATCH_DATABASE_URL": settings.database_url,
        "BILLINGWATCH_SECRET_KEY": settings.secret_key,
        "BILLINGWATCH_DATA_DIR": str(settings.data_dir),
        "BILLINGWATCH_ISOLATION": settings.isolation,
    }

    def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "billingwatch", *arguments]
        return subprocess.run(command, env=environ | changes, capture_output=True, text=True, timeout=100, check=False)

    return run


async def test_list_shows_every_setting_and_hides_secrets(run, settings, control):
    await agree(control, WORK_LANES, "2")

    done = run("settings", "list", "--json", BILLINGWATCH_WORK_LANES="3")

    listed = {one["name"]: one for one in json.loads(done.stdout)}
    assert list(listed) == list(Settings.__struct_fields__)
    assert listed["work_lanes"] == {"name": "work_lanes", "value": 3, "origin": "environment", "fleet": "2"}
    assert listed["read_lanes"] == {"name": "read_lanes", "value": 4, "origin": "default", "fleet": None}
    assert listed["secret_key"]["value"] == "(hidden)"
    assert settings.secret_key not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "url", ["postgresql://me:hunter2@127.0.0.1:1/none", "postgresql://127.0.0.1:1/none?user=me&password=hunter2"], ids=["netloc", "query"]
)
def test_list_works_without_a_database(run, url):
    done = run("settings", "list", BILLINGWATCH_DATABASE_URL=url)

    assert done.returncode == 0
    assert "BILLINGWATCH_WORK_LANES" in done.stdout
    assert "(hidden)" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


async def test_set_is_refused_while_a_processor_reports(run, control):
    await agree(control, WORK_LANES, "2")
    processor_id = await register_processor(control)

    refused = run("settings", "set", "work_lanes", "4")
    await unregister_processor(control, processor_id)
    accepted = run("settings", "set", "work_lanes", "4", "--json")

    assert refused.returncode == 2
    assert "stop every `billingwatch serve`" in refused.stderr
    assert (accepted.returncode, json.loads(accepted.stdout)) == (0, {"name": "work_lanes", "value": "4"})
    assert await control.fetchval("SELECT value FROM control.fleet_settings WHERE name = 'work_lanes'") == "4"


@pytest.mark.parametrize(("name", "value"), [("work_lanes", "0"), ("work_lanes", "many"), ("work_lanes", "65"), ("read_lanes", "2")])
def test_set_refuses_what_no_process_could_use(run, name, value):
    assert run("settings", "set", name, value).returncode == 2


@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("serve", "--port", "0", "--workers", "2"), ("worker",)], ids=" ".join)
async def test_process_with_another_value_exits_with_both_values(run, control, command):
    await agree(control, WORK_LANES, "2")

    done = run(*command, BILLINGWATCH_WORK_LANES="3")

    assert done.returncode == 2
    assert "BILLINGWATCH_WORK_LANES is 3 here, and the other processes run with 2" in done.stderr
    assert "billingwatch settings set work_lanes 3" in done.stderr


@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("worker",), ("tenants", "create", "beta")], ids=" ".join)
async def test_process_with_another_key_exits_with_a_hint(run, provision_tenant, command):
    await provision_tenant("acme")

    done = run(*command, BILLINGWATCH_SECRET_KEY="MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")

    assert done.returncode == 2
    assert "signing secrets cannot be decrypted" in done.stderr
    assert "hint: set BILLINGWATCH_SECRET_KEY" in done.stderr
