"""The stand-ins for Optimizely take the documented calls and refuse the others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from heap_assets_tests.connectors.servers.clients import client
from heap_assets_tests.connectors.servers.core import ManualClock
from heap_assets_tests.connectors.servers.optimizely import OptimizelyDataPlatform, OptimizelyEvents

ANN = {"attributes": {"email": "ann@x.io", "first_name": "Ann"}}
ORDER = {"type": "order", "action": "purchase", "identifiers": {"email": "ann@x.io"}, "data": {"ts": 1793817970}}


@pytest.fixture
def server() -> Iterator[OptimizelyDataPlatform]:
    with OptimizelyDataPlatform(clock=ManualClock()) as running:
        yield running


@pytest.fixture
def http(server: OptimizelyDataPlatform) -> Iterator[httpx.Client]:
    with client(server, x_api_key="key") as opened:
        yield opened


def test_profiles_are_accepted_and_repeats_change_nothing(server: OptimizelyDataPlatform, http: httpx.Client) -> None:
    for _ in range(2):
        answer = http.post("/v3/profiles", json=[ANN])
        assert (answer.status_code, answer.json()["title"]) == (202, "Accepted")
    assert server.records["profiles"] == {"ann@x.io": {"email": "ann@x.io", "first_name": "Ann"}}
    assert server.violations == []


def test_events_are_accepted_and_repeats_double(server: OptimizelyDataPlatform, http: httpx.Client) -> None:
    for _ in range(2):
        assert http.post("/v3/events", json=[ORDER]).status_code == 202
    assert len(server.events) == 2


def test_members_of_lists_come_and_go(server: OptimizelyDataPlatform, http: httpx.Client) -> None:
    row = {"list_id": "pql", "email": "ann@x.io", "subscribed": True}
    assert http.post("/v3/lists/subscriptions", json=[row, {**row, "email": "bob@x.io"}]).status_code == 202
    http.post("/v3/lists/subscriptions", json=[{**row, "subscribed": False}])
    assert server.lists == {"pql": {"bob@x.io"}}
    assert http.post("/v3/lists/subscriptions", json=[{"email": "ann@x.io"}]).status_code == 400


@pytest.mark.parametrize(
    ("path", "wrong", "field"),
    [
        ("profiles", {"attributes": {"first_name": "Ann"}}, "attributes"),
        ("profiles", {"attributes": {"email": "a@x.io", "score": 1}}, "attributes.score"),
        ("profiles", {"email": "a@x.io"}, "attributes"),
        ("events", {"identifiers": {"email": "a@x.io"}}, "type"),
        ("events", {"type": "order"}, "identifiers"),
        ("events", {"type": "order", "identifiers": {"email": "a@x.io"}, "data": []}, "data"),
    ],
)
def test_one_wrong_object_refuses_all(
    server: OptimizelyDataPlatform, http: httpx.Client, path: str, wrong: Any, field: str
) -> None:
    answer = http.post(f"/v3/{path}", json=[ANN if path == "profiles" else ORDER, wrong])
    assert (answer.status_code, answer.json()["detail"]["invalids"][0]["field"]) == (400, field)
    assert (server.records, server.events) == ({}, [])


def test_calls_have_500_objects_and_a_rate(server: OptimizelyDataPlatform, http: httpx.Client) -> None:
    assert http.post("/v3/events", json=[ORDER] * 500).status_code == 202
    assert http.post("/v3/events", json=[ORDER] * 501).status_code == 400
    codes = [http.post("/v3/profiles", json=[ANN]).status_code for _ in range(11)]
    assert codes == [202] * 10 + [429]
    assert http.post("/v3/events", json=[ORDER]).status_code == 202
    server.clock.advance(1)
    assert http.post("/v3/profiles", json=[ANN]).status_code == 202


def test_a_field_is_made_before_it_is_written(http: httpx.Client) -> None:
    row = {"attributes": {"email": "a@x.io", "score": 1}}
    assert http.post("/v3/profiles", json=[row]).status_code == 400
    field = {"name": "score", "type": "number", "display_name": "Score"}
    assert http.post("/v3/schema/objects/customers/fields", json=field).status_code == 201
    assert "score" in {told["name"] for told in http.get("/v3/schema/objects/customers/fields").json()}
    assert http.post("/v3/profiles", json=[row]).status_code == 202


def test_deletion_is_a_request_with_a_status(server: OptimizelyDataPlatform, http: httpx.Client) -> None:
    http.post("/v3/profiles", json=[ANN])
    request = http.post("/v3/compliance/gdpr/delete", json=[{"email": "ann@x.io"}])
    assert (request.status_code, server.records["profiles"]) == (202, {})
    path = f"/v3/compliance/gdpr/status/{request.json()['request_id']}"
    assert [http.get(path).json()["status"] for _ in range(2)] == ["processing", "completed"]
    assert http.post("/v3/compliance/other/delete", json=[{"email": "a@x.io"}]).status_code == 400


def test_another_key_is_forbidden(http: httpx.Client) -> None:
    assert http.post("/v3/events", json=[ORDER], headers={"x-api-key": "other"}).status_code == 403


def impression(**more: Any) -> dict[str, Any]:
    event = {"entity_id": "9", "key": "signup", "type": "signup", "timestamp": 1793817970000, "uuid": "e-1", **more}
    attribute = {"entity_id": "3", "key": "plan", "type": "custom", "value": "pro"}
    visitor = {"visitor_id": "u-1", "attributes": [attribute], "snapshots": [{"decisions": [], "events": [event]}]}
    return {"account_id": "1", "visitors": [visitor], "anonymize_ip": True, "enrich_decisions": True}


def test_the_event_endpoint_dedupes_and_tells_nothing() -> None:
    with OptimizelyEvents() as server, client(server) as http:
        for _ in range(2):
            answer = http.post("/v1/events", json=impression())
            assert (answer.status_code, answer.content) == (204, b"")
        assert (len(server.events), server.violations) == (1, [])
        bad = [impression(timestamp=1793817970), impression(uuid=None), {**impression(), "account_id": "2"}]
        assert [http.post("/v1/events", json=body).status_code for body in bad] == [204] * 3
        assert (len(server.events), len(server.violations)) == (1, 3)
        server.tells = True
        assert http.post("/v1/events", json=bad[0]).status_code == 400
