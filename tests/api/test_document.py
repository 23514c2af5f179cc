"""The OpenAPI document: every answer of a real server is one that the document lists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import negative_data_rejection, not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from billingwatch.settings import Settings
from billingwatch.tenancy.provision import Provisioned
from billingwatch.tenancy.tenants import Tenant

from .conftest import bearer, event, post, raw, running

Acme = tuple[Tenant, Provisioned]
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 20  # per operation and mode
OPEN_TO_ALL = {"/health/live", "/health/ready", "/metrics", "/webhook/{token}"}


@pytest.fixture
def url(settings: Settings) -> Iterator[str]:
    with running(raw(settings, api_share=100)) as address:  # hundreds of calls, none of which may wait for the budget
        yield address


@pytest.fixture
async def document(http: httpx.AsyncClient) -> dict[str, Any]:
    answer: dict[str, Any] = (await http.get("/docs/openapi.json")).json()
    return answer


@pytest.fixture
async def filled(http: httpx.AsyncClient, acme: Acme) -> Acme:
    """A tenant with events and a mute, so that listings are not empty."""
    for number in range(3):
        assert (await post(http, acme[1].webhook_token, event(f"evt_{number}"))).status_code == 200
    assert (await http.post("/mutes", headers=bearer(acme[1]), json={"reason": "known"})).status_code == 201
    return acme


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
def test_every_answer_is_one_that_the_document_lists(url: str, filled: Acme, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{url}/docs/openapi.json")
    checks = [*CHECKS, negative_data_rejection] if mode == GenerationMode.NEGATIVE else CHECKS
    called: set[str] = set()

    for result in schema.get_all_operations():
        operation = result.ok()
        if mode == GenerationMode.NEGATIVE and not (operation.query or operation.body or operation.path_parameters):
            continue  # nothing to invalidate

        @given(case=operation.as_strategy(mode))
        @settings(max_examples=EXAMPLES, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
        def call(case: schemathesis.Case) -> None:
            called.add(case.operation.label)
            answer = case.call(base_url=url, headers=bearer(filled[1]))
            case.validate_response(answer, checks=checks)

        call()

    assert len(called) >= (19 if mode == GenerationMode.POSITIVE else 14)


def test_document_lists_errors_as_problems_only(document: dict[str, Any]) -> None:
    wrong = {
        (path, method, status): list(answer["content"])
        for path, item in document["paths"].items()
        for method, operation in item.items()
        for status, answer in operation["responses"].items()
        if status >= "400" and list(answer["content"]) != ["application/problem+json"]
    }

    assert wrong == {}
    problem = document["components"]["schemas"]["Problem"]
    assert {"status", "title"} == set(problem["required"])
    assert {"detail", "errors"} < set(problem["properties"])


def test_document_exempts_health_metrics_and_webhook_from_keys(document: dict[str, Any]) -> None:
    exempt = {
        path
        for path, item in document["paths"].items()
        for operation in item.values()
        if operation.get("security", document["security"]) == [{}]
    }

    assert exempt == OPEN_TO_ALL
    assert all(
        ("401" in each["responses"]) == (path not in OPEN_TO_ALL) for path, item in document["paths"].items() for each in item.values()
    )


def test_document_lists_403_for_exactly_the_calls_that_change_something(document: dict[str, Any]) -> None:
    listed = {
        (path, method) for path, item in document["paths"].items() for method, operation in item.items() if "403" in operation["responses"]
    }

    assert listed == {
        (path, method) for path, item in document["paths"].items() for method in item if method != "get" and not path.startswith("/webhook")
    }


async def test_options_lists_the_methods_of_the_document(http: httpx.AsyncClient, document: dict[str, Any]) -> None:
    made_up = {"name": "fraud_spike", "event_id": "evt_1", "mute_id": "1", "anomaly_id": "0b5c1d8e-0000-4000-8000-000000000000"}
    paths = {path: item for path, item in document["paths"].items() if not path.startswith("/webhook")}

    for path, item in paths.items():
        answer = await http.options(path.format_map(made_up))
        refused = await http.request("PUT", path.format_map(made_up))
        methods = {method.upper() for method in item} | {"OPTIONS"} | ({"HEAD"} if "get" in item else set())

        assert answer.status_code == 204, path
        assert set(answer.headers["allow"].split(", ")) == methods, path
        assert refused.status_code == 405, path
        assert set(refused.headers["allow"].split(", ")) == methods, path


async def test_head_answers_as_get_without_a_body(http: httpx.AsyncClient, filled: Acme) -> None:
    for path in ("/health/live", "/health/ready", "/metrics", "/events", "/events/evt_1", "/detectors", "/anomalies"):
        got = await http.get(path, headers=bearer(filled[1]))
        head = await http.head(path, headers=bearer(filled[1]))

        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers["content-type"] == got.headers["content-type"]

    assert (await http.head("/events")).status_code == 401
    assert (await http.head("/mutes/1", headers=bearer(filled[1]))).status_code == 405
    assert (await http.get("/health/live")).json() == {"status": "ok"}  # the connection is still in step
