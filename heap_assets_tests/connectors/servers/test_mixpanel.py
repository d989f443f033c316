"""The stand-in for Mixpanel takes the documented calls and refuses the others."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from heap_assets_tests.connectors.servers.clients import client
from heap_assets_tests.connectors.servers.core import ManualClock
from heap_assets_tests.connectors.servers.mixpanel import Mixpanel

NOW = 1_793_817_970


def event(number: int = 1, **properties: Any) -> dict[str, Any]:
    told = {"time": NOW * 1000, "distinct_id": f"u-{number}", "$insert_id": f"29fc2962-{number}", "ip": "0"}
    return {"event": "Signup", "properties": {**told, "plan": "pro", **properties}}


@pytest.fixture
def server() -> Iterator[Mixpanel]:
    with Mixpanel(clock=ManualClock(NOW)) as running:
        yield running


@pytest.fixture
def http(server: Mixpanel) -> Iterator[httpx.Client]:
    with client(server) as opened:
        opened.auth = ("service", "secret")
        yield opened


def post(http: httpx.Client, *events: Any, **query: str) -> httpx.Response:
    return http.post("/import", params={"strict": "1", "project_id": "1", **query}, json=events)


def engage(http: httpx.Client, *rows: Any, path: str = "/engage") -> httpx.Response:
    return http.post(path, params={"verbose": "1", "strict": "1", "ip": "0"}, json=rows, auth=None)


def profile(number: int = 1, **more: Any) -> dict[str, Any]:
    return {"$token": "token", "$distinct_id": f"u-{number}", **(more or {"$set": {"plan": "pro"}})}


def test_events_are_imported_once(server: Mixpanel, http: httpx.Client) -> None:
    for _ in range(2):
        assert post(http, event(1), event(2)).json() == {"code": 200, "num_records_imported": 2, "status": "OK"}
    assert len(server.events) == 2
    post(http, event(1, time=NOW))
    assert len(server.events) == 3
    assert (server.violations, server.located) == ([], set())


def test_lines_and_compressed_bodies_are_taken(server: Mixpanel, http: httpx.Client) -> None:
    lines = b"\n".join(json.dumps(event(number)).encode() for number in range(3))
    headers = {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}
    query = {"strict": "1", "project_id": "1"}
    answer = http.post("/import", params=query, content=gzip.compress(lines), headers=headers)
    assert answer.json()["num_records_imported"] == 3


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"time": "2026-11-01T10:00:00Z"}, "properties.time"),
        ({"time": 1}, "properties.time"),
        ({"time": NOW + 3601}, "properties.time"),
        ({"distinct_id": "anonymous"}, "properties.distinct_id"),
        ({"distinct_id": "<NIL>"}, "properties.distinct_id"),
        ({"distinct_id": 5}, "properties.distinct_id"),
        ({"$insert_id": None}, "properties.$insert_id"),
        ({"$insert_id": "a" * 37}, "properties.$insert_id"),
        ({"$insert_id": "a_b"}, "properties.$insert_id"),
        ({"a": {"b": {"c": {"d": {"e": 1}}}}}, "properties"),
        ({"a": [0] * 255}, "properties"),
        ({f"p{number}": 1 for number in range(250)}, "properties"),
    ],
)
def test_a_wrong_event_is_named_and_the_others_are_taken(
    server: Mixpanel, http: httpx.Client, wrong: dict[str, Any], field: str
) -> None:
    answer = post(http, event(1), event(2, **wrong), event(3))
    told = answer.json()
    assert (answer.status_code, told["num_records_imported"], told["status"]) == (400, 2, "Bad Request")
    assert [(record["index"], record["field"]) for record in told["failed_records"]] == [(1, field)]
    assert "$insert_id" in told["failed_records"][0]
    assert [taken["properties"]["distinct_id"] for taken in server.events] == ["u-1", "u-3"]


def test_values_at_the_limits_are_taken(server: Mixpanel, http: httpx.Client) -> None:
    most = {f"p{number}": 1 for number in range(249)} | {
        "a": [0] * 254,
        "p1": {"b": {"c": {"d": 1}}},
        "$insert_id": "a" * 36,
        "distinct_id": "",
    }
    assert post(http, event(1, **{k: v for k, v in most.items() if k != "p0"})).status_code == 200
    post(http, event(2, text="x" * 300, time=NOW + 3599))
    assert len(server.events[1]["properties"]["text"]) == 255


def test_an_import_without_strict_is_silent(server: Mixpanel, http: httpx.Client) -> None:
    answer = post(http, event(1), event(2, time="now"), strict="0")
    assert (answer.status_code, answer.json()["num_records_imported"], len(server.events)) == (200, 1, 1)
    assert server.violations[0].rule == "strict=1 is sent"


def test_who_calls_is_looked_at(http: httpx.Client) -> None:
    assert http.post("/import?strict=1", json=[event()]).status_code == 400
    assert http.post("/import?strict=1", json=[event()], auth=("token", "")).status_code == 200
    assert http.post("/import?strict=1", json=[event()], auth=("other", "")).status_code == 401
    assert http.post("/import?strict=1", json={"event": "x"}, auth=("token", "")).status_code == 400


def test_bodies_have_a_size(server: Mixpanel, http: httpx.Client) -> None:
    assert post(http, *[{}] * 2_001).status_code == 413
    server.most_bytes = 2_000
    assert post(http, event(1, text="x" * 2_000)).status_code == 413
    packed = gzip.compress(json.dumps([event(1, text="x" * 2_000)]).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert http.post("/import?strict=1&project_id=1", content=packed, headers=headers).status_code == 413


def test_refused_rows_count_towards_the_limit(server: Mixpanel, http: httpx.Client) -> None:
    server.limits[1].amount = 4
    assert post(http, event(1), {}, {}).status_code == 400
    over = post(http, event(2), event(3))
    assert (over.status_code, "Retry-After" in over.headers) == (429, False)
    assert post(http, event(2)).status_code == 200
    server.clock.advance(61)
    assert post(http, event(2), event(3)).status_code == 200


def test_a_bad_row_and_the_other_name_of_ids(server: Mixpanel, http: httpx.Client) -> None:
    server.insert_id_name = "insert_id"
    server.fail("bad_row", key="u-2")
    told = post(http, event(1), event(2)).json()
    assert told["failed_records"][0]["insert_id"] == "29fc2962-2"
    assert len(server.events) == 1


def test_an_event_without_ip_gets_the_senders_place(server: Mixpanel, http: httpx.Client) -> None:
    told = event(1)
    del told["properties"]["ip"]
    post(http, told)
    assert server.located == {"u-1"}


def test_profiles_are_set_and_deleted(server: Mixpanel, http: httpx.Client) -> None:
    assert engage(http, profile(1), profile(2)).json() == {"status": 1, "error": None}
    engage(http, profile(1, **{"$unset": ["plan"]}), profile(2, **{"$delete": ""}))
    assert server.records["users"] == {"u-1": {}}
    for row in ({"$add": {"n": 2}}, {"$append": {"a": 1}}, {"$union": {"a": [1, 2]}}, {"$set_once": {"n": 9}}):
        engage(http, profile(1, **row))
    engage(http, profile(1, **{"$remove": {"a": 1}}))
    assert server.records["users"]["u-1"] == {"n": 2, "a": [2]}
    assert server.violations == []


def test_a_form_is_taken_as_the_vendors_own_client_sends_it(server: Mixpanel, http: httpx.Client) -> None:
    form = {"data": json.dumps(profile(1)), "verbose": "1", "ip": "0"}
    assert http.post("/engage", data=form, auth=None).json() == {"status": 1, "error": None}
    assert http.post("/import?strict=1&project_id=1", data={"data": json.dumps([event(1)])}).status_code == 200
    assert http.post("/engage", data={"data": "{"}, auth=None).status_code == 400
    assert (list(server.records["users"]), len(server.events), server.located) == (["u-1"], 1, set())


@pytest.mark.parametrize(
    "wrong",
    [
        {"$token": "other", "$set": {}},
        {"$distinct_id": "anon", "$set": {}},
        {"$distinct_id": 5, "$set": {}},
        {"$set": {}, "$add": {}},
        {"$sett": {}},
        {"$set": []},
        {"$unset": {"plan": 1}},
    ],
)
def test_a_refused_profile_is_a_200(server: Mixpanel, http: httpx.Client, wrong: dict[str, Any]) -> None:
    answer = engage(http, profile(1), profile(2, **wrong))
    assert (answer.status_code, answer.json()["status"]) == (200, 0)
    assert http.post("/engage", json=[profile(2, **wrong)]).text == "0"
    assert server.records.get("users", {}) == {}
    server.refused_profiles = "rest"
    engage(http, profile(1), profile(2, **wrong))
    assert list(server.records["users"]) == ["u-1"]


def test_groups_are_200_a_call(server: Mixpanel, http: httpx.Client) -> None:
    group = {"$token": "token", "$group_key": "company", "$group_id": "acme", "$set": {"plan": "pro"}}
    assert engage(http, group, path="/groups").json()["status"] == 1
    assert server.records["groups"] == {"company/acme": {"plan": "pro"}}
    assert engage(http, *[group] * 201, path="/groups").status_code == 413
    assert engage(http, *[profile()] * 2_001).status_code == 413
