"""Every PostgreSQL that we say we run on, in a container, where a container engine answers."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest
from cryptography.fernet import Fernet
from testcontainers.community.postgres import PostgresContainer


def engine_answers() -> bool:
    docker = shutil.which("docker")
    return docker is not None and subprocess.run([docker, "version"], capture_output=True, timeout=20, check=False).returncode == 0


pytestmark = [
    pytest.mark.skipif(not engine_answers(), reason="no container engine answers"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),  # of the engine's client
    pytest.mark.timeout(600),  # an image may have to be fetched
]


@pytest.mark.parametrize("image", ["postgres:15", "postgres:16", "postgres:17", "postgres:18"])
def test_a_given_postgres_serves_as_well_as_the_embedded_one(installation: Any, tmp_path: Any, image: str) -> None:
    with PostgresContainer(image, driver=None) as postgres:
        installation.environ |= {
            "BILLINGWATCH_DATABASE_URL": postgres.get_connection_url(),
            "BILLINGWATCH_SECRET_KEY": Fernet.generate_key().decode(),
        }
        installation.run("tenants", "create", "acme")
        stream = tmp_path / "events.jsonl"
        stream.write_bytes(installation.run("simulate", "--days", "7", "--seed", "3").stdout)

        done = installation.json("replay", "acme", str(stream))
        analyst = installation.json("analysts", "create", "acme")

    assert (done["recorded"], done["dead"]) == (len(stream.read_bytes().splitlines()), 0)
    assert analyst["dsn"].startswith("postgresql://analyst_")
