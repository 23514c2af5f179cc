"""The tenant's people's part: asking the API with a key, as anyone would."""

from __future__ import annotations

import asyncio
import http.client
import time
from typing import Any
from urllib.parse import urlsplit

import msgspec

from billingwatch.postgres.connections import ControlConnection
from billingwatch.postgres.statements import load_statements

sql = load_statements(__file__, "audience.sql")

PATIENCE = 60  # seconds until a backlog that does not shrink is called an error


def get(url: str, path: str, api_key: str) -> Any:  # noqa: ANN401 - JSON
    """GET a JSON document."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    connection.request("GET", path, headers={"Authorization": f"Bearer {api_key}"})
    response = connection.getresponse()
    body = response.read()
    if response.status != http.client.OK:
        message = f"GET {path}: {response.status} {body.decode(errors='replace')}"
        raise http.client.HTTPException(message)
    return msgspec.json.decode(body)


def anomalies(url: str, api_key: str) -> list[dict[str, Any]]:
    """All anomalies of the key's tenant, oldest first."""
    found: list[dict[str, Any]] = []
    path = "/anomalies?limit=100"
    cursor: str | None = ""
    while cursor is not None:
        page = get(url, path + (f"&cursor={cursor}" if cursor else ""), api_key)
        found.extend(page["anomalies"])
        cursor = page["next_cursor"]
    return sorted(found, key=lambda anomaly: str(anomaly["opened_at"]))


async def await_processed(control: ControlConnection) -> float:
    """Wait until no event is pending; return the seconds that took."""
    began = time.monotonic()
    while await control.fetchval(sql["pending"]):
        if time.monotonic() - began > PATIENCE:
            message = "events are still pending"
            raise TimeoutError(message)
        await asyncio.sleep(0.05)
    return time.monotonic() - began
