"""Detectors over HTTP: seen, set, muted, counted and tried out, by whoever has the tenant's key."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest

from billingwatch.api import detectors as detectors_api
from billingwatch.clock import utc_now
from billingwatch.detection.catalog import changed
from billingwatch.detection.registry import DETECTORS
from billingwatch.postgres.connections import ControlConnection
from billingwatch.replay import Replay
from billingwatch.settings import Settings
from billingwatch.tenancy import detector_settings
from billingwatch.tenancy.analysts import analyst_dsn, create_analyst, revoke_analyst
from billingwatch.tenancy.audit import OPERATOR
from billingwatch.tenancy.detector_settings import change_setting
from billingwatch.tenancy.provision import Provisioned
from billingwatch.tenancy.scope import tenant_scope
from billingwatch.tenancy.tenants import Tenant

from .conftest import bearer, event, post, running, signature

Acme = tuple[Tenant, Provisioned]
OTHER_SECRET = "whsec_of_the_other_tenant"
NOBODYS = "0b5c1d8e-0000-4000-8000-000000000000"


@pytest.fixture
async def other(provision_tenant: Any) -> Acme:
    return await provision_tenant("other", secrets=(OTHER_SECRET,))


async def charged_twice(
    http: httpx.AsyncClient, made: Provisioned, customer: str, *, seconds: int = 2, ago: int = 60, secret: str | None = None
) -> None:
    """Two charges that nothing tells apart, some seconds after one another."""
    first = int(time.time()) - ago
    for number, created in enumerate((first, first + seconds)):
        charge = {
            "id": f"ch_{customer}_{number}",
            "object": "charge",
            "amount": 4200,
            "captured": True,
            "created": created,
            "currency": "usd",
            "customer": customer,
            "payment_intent": f"pi_{customer}_{number}",
            "status": "succeeded",
        }
        body = event(f"evt_{customer}_{number}", created=created, data={"object": charge})
        header = signature(body, secret) if secret else None
        assert (await post(http, made.webhook_token, body, header)).status_code == 200
    await processed(http, made)


async def processed(http: httpx.AsyncClient, made: Provisioned) -> None:
    async with asyncio.timeout(20):
        while any(row["status"] == "pending" for row in (await http.get("/events", headers=bearer(made))).json()["events"]):
            await asyncio.sleep(0.02)


async def subjects(http: httpx.AsyncClient, made: Provisioned, **params: str) -> list[str]:
    page = (await http.get("/anomalies", headers=bearer(made), params=params)).json()["anomalies"]
    return sorted(anomaly["subject"].split()[0] for anomaly in page)


async def set_(http: httpx.AsyncClient, made: Provisioned, name: str, **change: Any) -> httpx.Response:
    return await http.patch(f"/detectors/{name}", headers=bearer(made), json=change)


def value(detector: dict[str, Any], key: str) -> Any:
    return next(each["value"] for each in detector["thresholds"] if each["key"] == key)


async def test_without_a_valid_key_nothing_is_shown_or_set(http: httpx.AsyncClient, acme: Acme) -> None:
    calls = [
        ("GET", "/detectors"),
        ("GET", "/detectors/duplicate_charge"),
        ("PATCH", "/detectors/duplicate_charge"),
        ("POST", "/detectors/duplicate_charge/backtest"),
        ("GET", "/stats/detectors"),
        ("GET", "/mutes"),
        ("POST", "/mutes"),
        ("DELETE", "/mutes/1"),
    ]

    answers = [await http.request(method, path, headers={"authorization": "Bearer wrong"}, json={}) for method, path in calls]

    assert [answer.status_code for answer in answers] == [401] * len(calls)


async def test_every_detector_is_listed_with_what_it_does_and_what_may_be_set(http: httpx.AsyncClient, acme: Acme) -> None:
    listed = (await http.get("/detectors", headers=bearer(acme[1]))).json()["detectors"]
    shown = (await http.get("/detectors/charge_failure_spike", headers=bearer(acme[1]))).json()

    assert [each["name"] for each in listed] == list(DETECTORS)
    assert shown == next(each for each in listed if each["name"] == "charge_failure_spike")
    assert {"title", "description", "driven_by", "state", "learning_until", "thresholds"} < set(shown)
    assert shown["thresholds"][0] == {
        "key": "window_minutes",
        "value": 60,
        "default": 60,
        "unit": "minutes",
        "minimum": 5,
        "maximum": 1440,
        "description": "Failures are counted over this long",
    }


@pytest.mark.parametrize("path", ["/detectors/no_such", "/detectors/no_such/backtest"])
async def test_an_unknown_detector_is_not_found(http: httpx.AsyncClient, acme: Acme, path: str) -> None:
    method = "POST" if path.endswith("backtest") else "PATCH"

    answer = await http.request(method, path, headers=bearer(acme[1]), json={})

    assert answer.status_code == 404
    assert answer.json()["detail"] == "there is no detector `no_such`"


async def test_thresholds_are_set_one_by_one_and_back_to_their_defaults(http: httpx.AsyncClient, acme: Acme) -> None:
    first = await set_(http, acme[1], "charge_failure_spike", thresholds={"min_rate": 1, "min_attempts": 40})
    second = await set_(http, acme[1], "charge_failure_spike", thresholds={"min_rate": 0.3, "min_attempts": None})
    third = await set_(http, acme[1], "charge_failure_spike", active=False)
    fourth = await set_(http, acme[1], "charge_failure_spike", active=True)

    assert (value(first.json(), "min_rate"), value(first.json(), "min_attempts")) == (1, 40)
    assert (value(second.json(), "min_rate"), value(second.json(), "min_attempts")) == (0.3, 20)
    assert (third.json()["state"], value(third.json(), "min_rate")) == ("off", 0.3)
    assert (fourth.json()["state"], value(fourth.json(), "min_rate")) == ("active", 0.3)
    assert (await http.get("/detectors/charge_failure_spike", headers=bearer(acme[1]))).json() == fourth.json()


@pytest.mark.parametrize(
    ("thresholds", "key", "said"),
    [
        ({"min_rate": 7.5}, "min_rate", "`min_rate` must be a number from 0.01 to 1 (fraction)"),
        ({"min_attempts": 4}, "min_attempts", "`min_attempts` must be a whole number from 5 to 100000 (payments)"),
        ({"min_attempts": 10**30}, "min_attempts", "from 5 to 100000"),
        ({"min_attempts": "20"}, "min_attempts", "`min_attempts` must be a whole number"),
        ({"min_attempts": 20.5}, "min_attempts", "`min_attempts` must be a whole number"),
        ({"min_attempts": True}, "min_attempts", "`min_attempts` must be a whole number"),
        ({"min_attempts": [20]}, "min_attempts", "`min_attempts` must be a whole number"),
        ({"min_rat": 0.2}, "min_rat", "`min_rat` is none of them; they are `window_minutes`, "),
    ],
    ids=str,
)
async def test_a_threshold_that_cannot_be_is_refused_with_its_name_and_bounds_and_nothing_is_set(
    http: httpx.AsyncClient, acme: Acme, thresholds: dict[str, Any], key: str, said: str
) -> None:
    before = (await http.get("/detectors/charge_failure_spike", headers=bearer(acme[1]))).json()

    answer = await set_(http, acme[1], "charge_failure_spike", active=False, thresholds={**thresholds, "min_failures": 9})
    tried = await http.post("/detectors/charge_failure_spike/backtest", headers=bearer(acme[1]), json={"thresholds": thresholds})

    for refused in (answer, tried):
        assert refused.status_code == 422
        assert refused.headers["content-type"] == "application/problem+json"
        assert said in refused.json()["detail"]
        assert [each["key"] for each in refused.json()["errors"]] == [key]
    assert (await http.get("/detectors/charge_failure_spike", headers=bearer(acme[1]))).json() == before


async def test_every_fault_is_named_at_once(http: httpx.AsyncClient, acme: Acme) -> None:
    answer = await set_(http, acme[1], "fraud_spike", thresholds={"min_cases": 0, "window": 3, "min_rate": "low"})

    assert {each["key"] for each in answer.json()["errors"]} == {"min_cases", "window", "min_rate"}


async def test_a_change_of_another_shape_is_refused(http: httpx.AsyncClient, acme: Acme) -> None:
    for body in ({"activ": True}, {"active": "yes"}, {"thresholds": []}, [], None):
        answer = await http.patch("/detectors/fraud_spike", headers=bearer(acme[1]), json=body)

        assert answer.status_code == 400, body

    nothing = await http.patch("/detectors/fraud_spike", headers=bearer(acme[1]))
    assert nothing.json()["errors"] == [{"message": "it is missing", "key": "data", "source": "body"}]


async def test_a_changed_threshold_counts_from_the_next_event_on(http: httpx.AsyncClient, acme: Acme) -> None:
    await charged_twice(http, acme[1], "cus_before", seconds=90, ago=40_000)
    await set_(http, acme[1], "duplicate_charge", thresholds={"window_minutes": 1})
    await charged_twice(http, acme[1], "cus_narrow", seconds=90, ago=30_000)
    await charged_twice(http, acme[1], "cus_within", seconds=30, ago=20_000)
    await set_(http, acme[1], "duplicate_charge", thresholds={"window_minutes": None})
    await charged_twice(http, acme[1], "cus_after", seconds=90, ago=10_000)

    assert await subjects(http, acme[1]) == ["cus_after", "cus_before", "cus_within"]


async def test_detector_that_is_behind_says_since_when(http: httpx.AsyncClient, acme: Acme, control: ControlConnection) -> None:
    since = datetime(2026, 3, 1, tzinfo=UTC)
    postpone = "INSERT INTO control.due_visits (tenant_id, kind, due_at, since) VALUES ($1, 'rejudge:revenue_drop', $2, $3)"
    await control.execute(postpone, acme[0].tenant_id, datetime.now(UTC) + timedelta(minutes=9), since)

    listed = (await http.get("/detectors", headers=bearer(acme[1]))).json()["detectors"]
    shown = (await http.get("/detectors/revenue_drop", headers=bearer(acme[1]))).json()

    assert {each["name"]: each["behind_since"] for each in listed if each["behind_since"]} == {"revenue_drop": "2026-03-01T00:00:00Z"}
    assert shown["behind_since"] == "2026-03-01T00:00:00Z"


async def test_a_detector_that_is_off_finds_nothing_until_it_is_on_again(http: httpx.AsyncClient, acme: Acme) -> None:
    await set_(http, acme[1], "duplicate_charge", active=False)
    await charged_twice(http, acme[1], "cus_off", ago=20_000)
    await set_(http, acme[1], "duplicate_charge", active=True)
    await charged_twice(http, acme[1], "cus_on")

    assert await subjects(http, acme[1]) == ["cus_on"]


async def test_a_change_made_elsewhere_takes_effect_without_a_restart(
    http: httpx.AsyncClient, acme: Acme, control: ControlConnection
) -> None:
    await charged_twice(http, acme[1], "cus_before")

    detector = DETECTORS["duplicate_charge"]
    await change_setting(
        control, acme[0], detector.name, lambda setting: changed(detector, setting, active=False, thresholds={}), actor=OPERATOR
    )
    await asyncio.sleep(0.3)
    await charged_twice(http, acme[1], "cus_off")

    assert (await http.get("/detectors/duplicate_charge", headers=bearer(acme[1]))).json()["state"] == "off"
    assert await subjects(http, acme[1]) == ["cus_before"]


async def test_two_who_set_one_detector_at_once_lose_nothing_of_each_other(http: httpx.AsyncClient, acme: Acme) -> None:
    keys = {"window_minutes": 90, "min_attempts": 40, "min_failures": 9, "min_rate": 0.3, "baseline_days": 9, "critical_rate": 0.9}

    answers = await asyncio.gather(*(set_(http, acme[1], "charge_failure_spike", thresholds={key: each}) for key, each in keys.items()))
    shown = (await http.get("/detectors/charge_failure_spike", headers=bearer(acme[1]))).json()

    assert {answer.status_code for answer in answers} == {200}
    assert {key: value(shown, key) for key in keys} == keys


async def test_who_changed_what_is_kept_with_what_it_was(http: httpx.AsyncClient, acme: Acme, control: ControlConnection) -> None:
    await set_(http, acme[1], "fraud_spike", thresholds={"min_cases": 7})
    await set_(http, acme[1], "fraud_spike", thresholds={"min_cases": 7})
    await set_(http, acme[1], "fraud_spike", thresholds={"min_cases": 0})
    await set_(http, acme[1], "fraud_spike", active=False, thresholds={"min_cases": 5})
    mute = (await http.post("/mutes", headers=bearer(acme[1]), json={"detector": "fraud_spike", "reason": "known"})).json()
    await http.delete(f"/mutes/{mute['mute_id']}", headers=bearer(acme[1]))

    rows = await control.fetch("SELECT tenant_id, actor, action, detail FROM control.audit_log ORDER BY audit_id")

    assert {(row["tenant_id"], row["actor"]) for row in rows} == {(acme[0].tenant_id, "default")}
    assert [row["action"] for row in rows] == ["detector.set", "detector.set", "mute.added", "mute.removed"]
    assert rows[0]["detail"] == {
        "detector": "fraud_spike",
        "before": {"active": True, "thresholds": {}},
        "after": {"active": True, "thresholds": {"min_cases": 7}},
    }
    assert rows[1]["detail"]["before"] == {"active": True, "thresholds": {"min_cases": 7}}
    assert rows[1]["detail"]["after"] == {"active": False, "thresholds": {}}
    assert (rows[2]["detail"]["before"], rows[3]["detail"]["after"]) == (None, None)
    assert rows[2]["detail"]["after"] == rows[3]["detail"]["before"]
    assert rows[2]["detail"]["after"]["reason"] == "known"


async def test_a_change_that_cannot_be_audited_is_not_made(
    http: httpx.AsyncClient, acme: Acme, control: ControlConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await control.execute("ALTER TABLE control.audit_log ADD CONSTRAINT closed CHECK (audit_id < 0)")

    answer = await set_(http, acme[1], "fraud_spike", active=False)

    assert answer.status_code == 500
    assert (await http.get("/detectors/fraud_spike", headers=bearer(acme[1]))).json()["state"] == "active"


async def test_a_tenants_settings_and_mutes_are_its_own(http: httpx.AsyncClient, acme: Acme, other: Acme) -> None:
    await set_(http, acme[1], "duplicate_charge", active=False)
    mute = (await http.post("/mutes", headers=bearer(acme[1]), json={"reason": "quiet"})).json()
    await charged_twice(http, other[1], "cus_other", secret=OTHER_SECRET)

    theirs = (await http.get("/detectors/duplicate_charge", headers=bearer(other[1]))).json()
    taken = await http.delete(f"/mutes/{mute['mute_id']}", headers=bearer(other[1]))

    assert theirs["state"] == "active"
    assert taken.status_code == 404
    assert (await http.get("/mutes", headers=bearer(other[1]))).json() == {"mutes": []}
    assert len((await http.get("/mutes", headers=bearer(acme[1]))).json()["mutes"]) == 1
    assert await subjects(http, other[1], muted="false") == ["cus_other"]


async def test_a_muted_anomaly_is_recorded_and_says_so(http: httpx.AsyncClient, acme: Acme) -> None:
    await charged_twice(http, acme[1], "cus_loud")
    await charged_twice(http, acme[1], "cus_quiet")

    made = await http.post("/mutes", headers=bearer(acme[1]), json={"subject": "cus_quiet 4200 usd", "reason": "our own test card"})
    page = (await http.get("/anomalies", headers=bearer(acme[1]))).json()["anomalies"]
    quiet = next(anomaly for anomaly in page if anomaly["subject"].startswith("cus_quiet"))
    shown = (await http.get(f"/anomalies/{quiet['anomaly_id']}", headers=bearer(acme[1]))).json()
    split = [await subjects(http, acme[1], muted=muted) for muted in ("true", "false")]
    removed = await http.delete(f"/mutes/{made.json()['mute_id']}", headers=bearer(acme[1]))
    again = await http.delete(f"/mutes/{made.json()['mute_id']}", headers=bearer(acme[1]))

    assert made.status_code == 201
    assert shown == quiet
    assert shown["muted"] == {"mute_id": made.json()["mute_id"], "reason": "our own test card"}
    assert [anomaly["muted"] for anomaly in page if anomaly is not quiet] == [None]
    assert split == [["cus_quiet"], ["cus_loud"]]
    assert (removed.status_code, again.status_code) == (200, 404)
    assert await subjects(http, acme[1], muted="true") == []


async def test_mutes_are_narrowed_by_detector_subject_and_time_and_the_list_agrees_with_each_anomaly(
    http: httpx.AsyncClient, acme: Acme
) -> None:
    await charged_twice(http, acme[1], "cus_1", ago=3600)
    await charged_twice(http, acme[1], "cus_2", ago=60)
    between = (datetime.now(UTC) - timedelta(minutes=30)).isoformat()

    for wanted, expected in [
        ({"detector": "duplicate_charge"}, ["cus_1", "cus_2"]),
        ({"detector": "fraud_spike"}, []),
        ({"until": between}, ["cus_1"]),
        ({"since": between}, ["cus_2"]),
        ({"since": between, "subject": "cus_1 4200 usd"}, []),
        ({}, ["cus_1", "cus_2"]),
    ]:
        made = await http.post("/mutes", headers=bearer(acme[1]), json={**wanted, "reason": "why not"})
        page = (await http.get("/anomalies", headers=bearer(acme[1]))).json()["anomalies"]
        assert await subjects(http, acme[1], muted="true") == expected, wanted
        assert sorted(anomaly["subject"].split()[0] for anomaly in page if anomaly["muted"]) == expected, wanted
        assert (await http.delete(f"/mutes/{made.json()['mute_id']}", headers=bearer(acme[1]))).status_code == 200


async def test_a_mute_that_makes_no_sense_is_refused(http: httpx.AsyncClient, acme: Acme) -> None:
    for body, status in (
        ({}, 400),
        ({"reason": ""}, 400),
        ({"reason": " \n"}, 400),
        ({"reason": "a\0b"}, 400),
        ({"reason": "x", "subject": ""}, 400),
        ({"reason": "x", "since": "yesterday"}, 400),
        ({"reason": "x", "since": "2026-03-02T00:00:00Z", "until": "2026-03-02T00:00:00Z"}, 400),
        ({"reason": "x", "detectors": "fraud_spike"}, 400),
        ({"reason": "x", "detector": "no_such"}, 404),
    ):
        answer = await http.post("/mutes", headers=bearer(acme[1]), json=body)
        assert answer.status_code == status, body

    assert (await http.get("/mutes", headers=bearer(acme[1]))).json() == {"mutes": []}


async def test_there_are_only_so_many_mutes(http: httpx.AsyncClient, acme: Acme, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector_settings, "MUTES_LIMIT", 2)

    statuses = [
        (await http.post("/mutes", headers=bearer(acme[1]), json={"subject": str(number), "reason": "x"})).status_code
        for number in range(3)
    ]

    assert statuses == [201, 201, 409]


async def test_a_mute_that_cannot_be_is_refused(http: httpx.AsyncClient, acme: Acme) -> None:
    for mute_id in ("0", "-1", 2**31 - 1, 2**31, 10**20, "x"):
        answer = await http.delete(f"/mutes/{mute_id}", headers=bearer(acme[1]))

        assert answer.status_code in {400, 404}, mute_id


async def test_precision_is_of_the_same_anomalies_as_its_false_positives(http: httpx.AsyncClient, acme: Acme) -> None:
    for customer, ago in (("cus_old", 86_400 * 2), ("cus_1", 60), ("cus_2", 60), ("cus_3", 60)):
        await charged_twice(http, acme[1], customer, ago=ago)
    page = (await http.get("/anomalies", headers=bearer(acme[1]))).json()["anomalies"]
    ids = {anomaly["subject"].split()[0]: anomaly["anomaly_id"] for anomaly in page}
    for customer, verb, reason in (
        ("cus_old", "false-positive", "two seats"),
        ("cus_1", "false-positive", "two seats"),
        ("cus_2", "acknowledge", "looking"),
    ):
        await http.post(f"/anomalies/{ids[customer]}/{verb}", headers=bearer(acme[1]), json={"reason": reason})

    async def stats(**params: str) -> dict[str, dict[str, Any]]:
        answer = (await http.get("/stats/detectors", headers=bearer(acme[1]), params=params)).json()
        return {each["detector"]: each for each in answer["detectors"]}

    ever, lately, never = await stats(), await stats(since="1d"), await stats(since="2999-01-01")

    assert list(ever) == list(DETECTORS)
    assert ever["duplicate_charge"] == {
        "detector": "duplicate_charge",
        "fired": 4,
        "open": 1,
        "acknowledged": 1,
        "resolved": 0,
        "false_positives": 2,
        "false_positive_reasons": [{"reason": "two seats", "times": 2}],
        "precision": 0.5,
    }
    assert (lately["duplicate_charge"]["fired"], lately["duplicate_charge"]["precision"]) == (3, 0.6667)
    assert (ever["fraud_spike"]["fired"], ever["fraud_spike"]["precision"]) == (0, None)
    assert (never["duplicate_charge"]["fired"], never["duplicate_charge"]["precision"]) == (0, None)


async def test_a_backtest_sets_what_would_have_fired_beside_what_did_and_changes_nothing(
    http: httpx.AsyncClient, acme: Acme, control: ControlConnection
) -> None:
    await charged_twice(http, acme[1], "cus_near", seconds=30)
    await charged_twice(http, acme[1], "cus_far", seconds=400, ago=500)
    await charged_twice(http, acme[1], "cus_further", seconds=3000, ago=4000)
    state = f"SELECT jsonb_agg(to_jsonb(a) ORDER BY a.anomaly_id)::text FROM {acme[0].schema_name}.anomalies AS a"
    before = await control.fetchval(state)

    async def tried(**body: Any) -> dict[str, Any]:
        answer = await http.post("/detectors/duplicate_charge/backtest", headers=bearer(acme[1]), json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    same, narrow, wide = [await tried(thresholds={"window_minutes": minutes}) for minutes in (10, 1, 60)]
    as_set = await tried()
    short = await tried(since="1h", thresholds={"window_minutes": 60})

    counts = ("fired_before", "would_fire", "in_both", "only_before", "only_then")
    assert [same[key] for key in counts] == [as_set[key] for key in counts] == [2, 2, 2, 0, 0]
    assert [narrow[key] for key in counts] == [2, 1, 1, 1, 0]
    assert [wide[key] for key in counts] == [2, 3, 2, 0, 1]
    assert {row["subject"].split()[0]: row["when"] for row in narrow["incidents"]} == {"cus_near": "both", "cus_far": "before"}
    assert {row["subject"].split()[0]: row["when"] for row in wide["incidents"]} == {
        "cus_near": "both",
        "cus_far": "both",
        "cus_further": "then",
    }
    assert [row["anomaly_id"] is None for row in wide["incidents"]].count(True) == 1
    assert short["would_fire"] == 3
    assert narrow["thresholds"] == {"window_minutes": 1}
    assert await control.fetchval(state) == before
    assert await control.fetchval("SELECT count(*) FROM control.detector_settings") == 0
    assert value((await http.get("/detectors/duplicate_charge", headers=bearer(acme[1]))).json(), "window_minutes") == 10


async def test_a_backtest_starts_from_what_the_tenant_has_set(http: httpx.AsyncClient, acme: Acme) -> None:
    await set_(http, acme[1], "charge_failure_spike", active=False, thresholds={"min_rate": 0.5})

    answer = await http.post("/detectors/charge_failure_spike/backtest", headers=bearer(acme[1]), json={"thresholds": {"min_failures": 3}})

    assert (answer.json()["thresholds"]["min_rate"], answer.json()["thresholds"]["min_failures"]) == (0.5, 3)


async def test_a_backtest_of_no_span_is_refused(http: httpx.AsyncClient, acme: Acme) -> None:
    for since in ("", "soon", "30", "-3d", "2999-01-01", "999999d", "2026-13-01", "0d", "0001-01-01T00:00:00+14:00"):
        answer = await http.post("/detectors/fraud_spike/backtest", headers=bearer(acme[1]), json={"since": since})

        assert answer.status_code == 400, since
        assert "since" in answer.text


async def test_a_backtest_of_more_than_there_is_judges_what_there_is(http: httpx.AsyncClient, acme: Acme) -> None:
    empty = await http.post("/detectors/duplicate_charge/backtest", headers=bearer(acme[1]), json={"since": "99999w"})
    await charged_twice(http, acme[1], "cus_1", ago=600)
    all_of_it = await http.post("/detectors/duplicate_charge/backtest", headers=bearer(acme[1]), json={"since": "99999w"})

    assert (empty.status_code, empty.json()["would_fire"]) == (200, 0)
    assert (all_of_it.status_code, all_of_it.json()["would_fire"]) == (200, 1)
    assert datetime.fromisoformat(all_of_it.json()["since"]) > datetime.now(UTC) - timedelta(hours=1)


async def test_a_backtest_cannot_write_even_if_a_detector_tried(
    http: httpx.AsyncClient, acme: Acme, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    async def spy(connection: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(await connection.fetchval("SELECT current_setting('transaction_read_only')"))
        return await original(connection, *arguments, **options)

    original = detectors_api.backtest
    monkeypatch.setattr(detectors_api, "backtest", spy)
    answer = await http.post("/detectors/fraud_spike/backtest", headers=bearer(acme[1]), json={})

    assert (answer.status_code, seen) == (200, ["on"])


async def test_a_backtest_that_takes_too_long_says_so_and_holds_up_no_reader(acme: Acme, settings: Settings, connect: Any) -> None:
    impatient = msgspec.structs.replace(settings, statement_timeout=2, read_lanes=1)
    with running(impatient) as address:
        async with httpx.AsyncClient(base_url=address, timeout=30) as http, tenant_scope(await connect(), acme[0]) as scoped:
            await scoped.execute("LOCK TABLE disputes")  # the backtest waits for it
            trying = asyncio.create_task(http.post("/detectors/fraud_spike/backtest", headers=bearer(acme[1]), json={}))
            await asyncio.sleep(0.2)
            began = time.monotonic()
            read = await http.get("/events", headers=bearer(acme[1]))
            waited = time.monotonic() - began
            answer = await trying

    assert (read.status_code, answer.status_code) == (200, 422)
    assert waited < 1
    assert answer.json()["detail"] == "fraud_spike cannot judge this history: it takes too long"


async def test_history_that_is_fed_again_is_marked_and_a_live_event_is_not(http: httpx.AsyncClient, acme: Acme, settings: Settings) -> None:
    created = int(time.time()) - 120
    entries = [
        event(
            f"evt_fed_{number}",
            created=created + number,
            data={
                "object": {
                    "id": f"ch_fed_{number}",
                    "object": "charge",
                    "amount": 900,
                    "captured": True,
                    "created": created + number,
                    "currency": "usd",
                    "customer": "cus_fed",
                    "payment_intent": f"pi_fed_{number}",
                    "status": "succeeded",
                }
            },
        )
        for number in (1, 2)
    ]
    await Replay(settings.database_url or "", acme[0], utc_now).run(entries)
    await charged_twice(http, acme[1], "cus_live")

    page = (await http.get("/anomalies", headers=bearer(acme[1]))).json()["anomalies"]

    assert {anomaly["subject"].split()[0]: anomaly["historical"] for anomaly in page} == {"cus_fed": True, "cus_live": False}
    assert await subjects(http, acme[1], historical="true") == ["cus_fed"]
    assert await subjects(http, acme[1], historical="false") == ["cus_live"]


async def test_an_anomaly_leads_to_the_dashboard(http: httpx.AsyncClient, acme: Acme) -> None:
    await charged_twice(http, acme[1], "cus_1")
    page = (await http.get("/anomalies", headers=bearer(acme[1]))).json()["anomalies"]

    closed = (await http.post(f"/anomalies/{page[0]['anomaly_id']}/resolve", headers=bearer(acme[1]), json={"reason": "refunded"})).json()

    assert page[0]["links"][0] == {"object_id": "ch_cus_1_0", "url": "https://dashboard.stripe.com/payments/ch_cus_1_0"}
    assert closed["links"] == page[0]["links"]
    assert closed["sql"] == page[0]["sql"]
    assert (await http.get(f"/anomalies/{NOBODYS}", headers=bearer(acme[1]))).status_code == 404


async def test_an_analyst_runs_the_sql_of_an_anomaly_as_it_is(
    http: httpx.AsyncClient, acme: Acme, control: ControlConnection, database: str
) -> None:
    await charged_twice(http, acme[1], "cus_1")
    (anomaly,) = (await http.get("/anomalies", headers=bearer(acme[1]))).json()["anomalies"]
    analyst = await create_analyst(control, "acme")

    try:
        connection = await asyncpg.connect(analyst_dsn(database, analyst.role, analyst.password))
        rows = await connection.fetch(anomaly["sql"])
        await connection.close()
    finally:
        await revoke_analyst(control, analyst.role)

    assert [(row["source"], row["id"]) for row in rows] == [
        ("charges", "ch_cus_1_0"),
        ("events", "evt_cus_1_0"),
        ("charges", "ch_cus_1_1"),
        ("events", "evt_cus_1_1"),
    ]
    assert json.loads(rows[0]["row"])["amount"] == 4200
