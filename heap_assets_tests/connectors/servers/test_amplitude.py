"""The stand-in for Amplitude takes the documented calls and refuses the others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from heap_assets_tests.connectors.servers.amplitude import Amplitude
from heap_assets_tests.connectors.servers.clients import client
from heap_assets_tests.connectors.servers.core import ManualClock

ORDER = {
    "user_id": "user-20391",
    "event_type": "Order Completed",
    "time": 1793817970000,
    "insert_id": "order-88231",
    "event_properties": {"total": 12},
    "user_properties": {"$set": {"plan": "pro"}},
}


@pytest.fixture
def server() -> Iterator[Amplitude]:
    with Amplitude(clock=ManualClock()) as running:
        yield running


@pytest.fixture
def http(server: Amplitude) -> Iterator[httpx.Client]:
    with client(server) as opened:
        yield opened


def post(http: httpx.Client, *events: Any, path: str = "/batch", **more: Any) -> httpx.Response:
    return http.post(path, json={"api_key": "key", "events": events, **more})


def user(number: int, **more: Any) -> dict[str, Any]:
    return {**ORDER, "user_id": f"user-{number}", "insert_id": f"order-{number}", **more}


@pytest.mark.parametrize("path", ["/2/httpapi", "/batch"])
def test_events_are_taken_once(server: Amplitude, http: httpx.Client, path: str) -> None:
    answer = post(http, ORDER, path=path).json()
    assert (answer["code"], answer["events_ingested"]) == (200, 1)
    assert post(http, ORDER, path=path).json()["events_ingested"] == 1
    assert len(server.events) == 1
    assert server.records["users"]["user-20391"] == {"plan": "pro"}
    server.clock.advance(8 * 86_400)
    post(http, ORDER, path=path)
    assert len(server.events) == 2
    assert server.violations == []


def test_insert_ids_are_of_the_device(server: Amplitude, http: httpx.Client) -> None:
    post(http, {**ORDER, "device_id": "phone-1"}, {**ORDER, "device_id": "phone-2"})
    assert len(server.events) == 2


@pytest.mark.parametrize(
    ("wrong", "kind", "field"),
    [
        ({"time": "2026-11-01T10:00:00Z"}, "invalid_fields", "time"),
        ({"time": 1793817970.5}, "invalid_fields", "time"),
        ({"time": 1793817970}, "invalid_fields", "time"),
        ({"event_type": None}, "missing_fields", "event_type"),
        ({"user_id": None}, "missing_fields", "user_id"),
        ({"user_id": "abcd"}, "missing_fields", "user_id"),
        ({"user_id": 20391}, "invalid_fields", "user_id"),
        ({"user_id": "Anonymous"}, "invalid_fields", "user_id"),
        ({"user_id": "00000000-0000-0000-0000-000000000000"}, "invalid_fields", "user_id"),
        ({"user_properties": {"$set": {"a": 1}, "plan": "pro"}}, "invalid_fields", "user_properties"),
        ({"user_properties": {"$sett": {"a": 1}}}, "invalid_fields", "user_properties"),
        ({"event_properties": json.loads('{"a":' * 41 + "1" + "}" * 41)}, "invalid_fields", "event_properties"),
    ],
)
def test_a_wrong_event_is_named_and_nothing_is_taken(
    server: Amplitude, http: httpx.Client, wrong: dict[str, Any], kind: str, field: str
) -> None:
    answer = post(http, ORDER, {**ORDER, **wrong})
    assert answer.status_code == 400
    assert answer.json()[f"events_with_{kind}"] == {field: [1]}
    assert server.events == []


def test_short_ids_go_unless_told_otherwise(server: Amplitude, http: httpx.Client) -> None:
    short = {**ORDER, "user_id": "u-1", "device_id": "phone-1"}
    assert post(http, short).status_code == 200
    assert "user_id" not in server.events[0]
    assert post(http, {**short, "insert_id": "b"}, options={"min_id_length": 1}).status_code == 200
    assert server.events[1]["user_id"] == "u-1"
    server.short_ids = "refused"
    assert post(http, short).json()["events_with_invalid_id_lengths"] == {"user_id": [0]}


def test_a_key_and_events_are_needed(http: httpx.Client) -> None:
    assert http.post("/batch", json={"events": [ORDER]}).json()["missing_field"] == "api_key"
    assert http.post("/batch", json={"api_key": "other", "events": [ORDER]}).status_code == 400
    assert http.post("/batch", json={"api_key": "key"}).json()["missing_field"] == "events"
    assert http.post("/batch", content=b"{").status_code == 400


def test_payloads_have_a_size(http: httpx.Client) -> None:
    assert post(http, *[{}] * 2_001).status_code == 413
    big = {**ORDER, "event_properties": {"text": "x" * (1 << 20)}}
    assert post(http, big, path="/2/httpapi").status_code == 413
    assert post(http, big).status_code == 200


def test_texts_are_cut(server: Amplitude, http: httpx.Client) -> None:
    post(http, {**ORDER, "event_properties": {"text": "x" * 1_100}})
    assert len(server.events[0]["event_properties"]["text"]) == 1_024


def test_one_user_has_a_rate_and_their_events_are_named(server: Amplitude, http: httpx.Client) -> None:
    events = [{**ORDER, "insert_id": f"a-{number}"} for number in range(31)]
    answer = post(http, user(7), *events, path="/2/httpapi")
    told = answer.json()
    assert (answer.status_code, told["throttled_events"]) == (429, list(range(1, 32)))
    assert told["throttled_users"] == {"user-20391": 31}
    assert server.events == []
    assert post(http, *events[:30], path="/2/httpapi").status_code == 200
    assert post(http, events[30], path="/2/httpapi").status_code == 429
    server.clock.advance(30)
    assert post(http, events[30], path="/2/httpapi").status_code == 200


def test_faults_name_rows(server: Amplitude, http: httpx.Client) -> None:
    server.fail("throttle", rows=[1])
    assert post(http, user(1), user(2)).json()["throttled_events"] == [1]
    server.fail("throttle", rows=[0], daily=True)
    assert post(http, user(1), user(2)).json()["exceeded_daily_quota_users"] == {"user-1": 1_001}
    server.fail("bad_row", key="user-2")
    assert post(http, user(1), user(2)).json()["silenced_events"] == [1]
    server.fail("server_error", status=503)
    assert post(http, user(1)).status_code == 503


def test_a_starter_has_smaller_limits() -> None:
    with Amplitude(clock=ManualClock(), starter=True) as server, client(server) as http:
        assert post(http, *[user(number) for number in range(1_000)]).status_code == 200
        assert post(http, user(1)).status_code == 429


def test_profiles_are_a_form(server: Amplitude, http: httpx.Client) -> None:
    told = [{"user_id": "user-1", "user_properties": {"$set": {"plan": "pro", "city": "Kiel"}}}]
    answer = http.post("/identify", data={"api_key": "key", "identification": json.dumps(told)})
    assert (answer.status_code, answer.text) == (200, "success")
    more = {"user_id": "user-1", "user_properties": {"$set": {"country": "DE"}, "$unset": {"plan": "-"}}}
    http.post("/identify", data={"api_key": "key", "identification": json.dumps(more)})
    assert server.records["users"]["user-1"] == {"country": "DE"}
    assert http.post("/identify", json={"api_key": "key", "identification": told}).status_code == 400
    assert http.post("/identify", data={"api_key": "key"}).text == "missing_event"
    assert http.post("/identify", data={"api_key": "no", "identification": "[]"}).text == "invalid_api_key"


def test_operators_work_on_lists_and_numbers(server: Amplitude, http: httpx.Client) -> None:
    for properties in (
        {"$set": {"a": [1]}, "$setOnce": {"first": 1}, "$add": {"n": 2}},
        {"$append": {"a": 2}, "$prepend": {"a": 0}, "$setOnce": {"first": 2}, "$add": {"n": 3}},
        {"$remove": {"a": 1}},
    ):
        told = json.dumps({"user_id": "user-1", "user_properties": properties})
        http.post("/identify", data={"api_key": "key", "identification": told})
    assert server.records["users"]["user-1"] == {"a": [0, 2], "first": 1, "n": 5}


def test_cohorts_are_uploaded_and_changed(server: Amplitude, http: httpx.Client) -> None:
    http.auth = ("key", "secret")
    upload = {"name": "PQL", "app_id": 1, "id_type": "BY_USER_ID", "ids": ["a", "b"], "owner": "o", "published": True}
    cohort = http.post("/api/3/cohorts/upload", json=upload).json()["cohort_id"]
    server.known_users = {"a", "b", "c"}
    change = {"ids": ["c", "x"], "id_type": "BY_NAME", "operation": "ADD"}
    body = {"cohort_id": cohort, "memberships": [change, {**change, "ids": ["a"], "operation": "REMOVE"}]}
    told = http.post("/api/3/cohorts/membership", json=body).json()["memberships_result"]
    assert [result["skipped_ids"] for result in told] == [["x"], []]
    assert server.lists[cohort] == {"b", "c"}
    assert http.post("/api/3/cohorts/membership", json={**body, "skip_invalid_ids": False}).status_code == 400
    assert http.post("/api/3/cohorts/upload", json={**upload, "owner": ""}).status_code == 400
    assert http.post("/api/3/cohorts/upload", json=upload, auth=("key", "")).status_code == 401
