"""The stand-in for Pipedrive is as strict as its documents; calls as the fact sheet has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from heap_assets_tests.connectors.servers.clients import client
from heap_assets_tests.connectors.servers.core import ManualClock
from heap_assets_tests.connectors.servers.pipedrive import PipedriveServer

PERSONS = "/api/v2/persons"
EMAIL = {"value": "a@x.io", "primary": True, "label": "work"}


@pytest.fixture
def company() -> Iterator[PipedriveServer]:
    with PipedriveServer(clock=ManualClock()) as server:
        yield server


@pytest.fixture
def api(company: PipedriveServer) -> Iterator[httpx.Client]:
    with client(company, x_api_token="token-1") as one:
        yield one


def find(api: httpx.Client, term: str, fields: str = "email", exact: str = "true") -> list[int]:
    answer = api.get(f"{PERSONS}/search", params={"term": term, "fields": fields, "exact_match": exact}).json()
    return [hit["item"]["id"] for hit in answer["data"]["items"]]


def test_the_sheets_own_example_is_found_created_and_updated(company: PipedriveServer, api: httpx.Client) -> None:
    stage = company.add_field("persons", "Product stage")
    assert find(api, "a@x.io") == []
    made = api.post(PERSONS, json={"emails": [EMAIL], "name": "A. Ng", "custom_fields": {stage: "Onboarding"}})
    person = {
        "id": 2,
        "add_time": "2026-01-01T00:00:00Z",
        "update_time": "2026-01-01T00:00:00Z",
        "is_deleted": False,
        "name": "A. Ng",
        "emails": [EMAIL],
        "custom_fields": {stage: "Onboarding"},
    }
    assert (made.status_code, made.json()) == (201, {"success": True, "data": person})
    assert find(api, "A@x.io") == [2]
    assert find(api, "Onboarding", "custom_fields") == [2]
    assert api.patch(f"{PERSONS}/2", json={"custom_fields": {stage: None}}).json()["data"]["name"] == "A. Ng"
    assert company.records["persons"]["2"]["custom_fields"] == {stage: None}
    assert api.get(f"{PERSONS}/2").json()["data"]["id"] == 2
    assert api.delete(f"{PERSONS}/2").json() == {"success": True, "data": {"id": 2}}
    assert api.patch(f"{PERSONS}/2", json={"name": "B"}).status_code == 404
    assert company.violations == []


def test_organizations_are_as_persons_without_addresses(company: PipedriveServer, api: httpx.Client) -> None:
    stage = company.add_field("organizations", "Stage")
    url = "/api/v2/organizations"
    assert api.post(url, json={"name": "Acme", "custom_fields": {stage: "new"}}).status_code == 201
    hits = api.get(f"{url}/search", params={"term": "acme", "fields": "name", "exact_match": "true"}).json()
    assert [hit["item"] for hit in hits["data"]["items"]] == [{"type": "organization", "id": 2, "name": "Acme"}]
    assert api.get("/api/v2/organizationFields").json()["data"][0]["field_code"] == stage
    assert company.violations == []
    assert api.post(url, json={"name": "Acme", "emails": [EMAIL]}).status_code == 400


def test_search_lags_and_may_find_several(company: PipedriveServer, api: httpx.Client) -> None:
    company.index_seconds = 60
    for _ in range(2):
        api.post(PERSONS, json={"name": "A", "emails": [EMAIL]})
    assert find(api, "a@x.io") == []
    company.clock.advance(60)  # type: ignore[attr-defined]
    assert find(api, "a@x.io") == [1, 2]
    assert find(api, "@x.i", exact="false") == [1, 2]
    assert find(api, "@x.i") == []
    api.patch(f"{PERSONS}/1", json={"emails": [EMAIL | {"value": "b@x.io"}]})
    company.clock.advance(60)  # type: ignore[attr-defined]
    assert (find(api, "a@x.io"), find(api, "b@x.io")) == ([2], [1])
    for wrong in ({"term": "a", "fields": "email"}, {"term": "ab", "fields": "emails"}):
        assert api.get(f"{PERSONS}/search", params=wrong).status_code == 400


def test_fields_are_told_by_their_hashes(company: PipedriveServer, api: httpx.Client) -> None:
    plan = company.add_field("persons", "Plan", "enum", {7: "pro", 8: "free"})
    assert api.get("/api/v2/personFields").json()["data"] == [
        {
            "field_name": "Plan",
            "field_code": plan,
            "field_type": "enum",
            "is_custom_field": True,
            "options": [{"id": 7, "label": "pro"}, {"id": 8, "label": "free"}],
        }
    ]
    assert len(plan) == 40
    assert api.post(PERSONS, json={"name": "A", "custom_fields": {plan: 7}}).status_code == 201
    assert find(api, "7", "custom_fields") == []  # such fields are not searchable
    company.add_field("persons", "Stage")
    pages = [api.get("/api/v2/personFields", params={"limit": 1, "cursor": n}).json() for n in (0, 1)]
    assert [page["additional_data"]["next_cursor"] for page in pages] == ["1", None]


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"email": "a@x.io"},
        {"emails": ["a@x.io"]},
        {"emails": "a@x.io"},
        {"owner_id": "1"},
        {"marketing_status": "yes"},
        {"f" * 40: "x"},
        {"custom_fields": {"Plan": "pro"}},
    ],
)
def test_a_person_that_is_none(company: PipedriveServer, api: httpx.Client, wrong: dict[str, Any]) -> None:
    answer = api.post(PERSONS, json={"name": "A"} | wrong)
    assert (answer.status_code, answer.json()["success"]) == (400, False)
    assert len(company.violations) == 1
    assert company.records.get("persons", {}) == {}


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("enum", 7, "pro"),
        ("set", [7], ["x"]),
        ("double", 1.5, "1.5"),
        ("date", "2026-01-02", "2026-02-30"),
        ("varchar", "x" * 255, "x" * 256),
        ("text", "x" * 300, 3),
    ],
)
def test_types_of_custom_fields(company: PipedriveServer, api: httpx.Client, kind: str, good: Any, bad: Any) -> None:
    code = company.add_field("persons", "Field", kind, {7: "pro"})
    assert api.post(PERSONS, json={"name": "A", "custom_fields": {code: good}}).status_code == 201
    assert api.post(PERSONS, json={"name": "A", "custom_fields": {code: bad}}).status_code == 400


def test_deals_and_old_paths(company: PipedriveServer, api: httpx.Client) -> None:
    deal = {"title": "Acme", "person_id": 1, "value": 10.5, "currency": "EUR"}
    made = api.post("/api/v2/deals", json=deal).json()["data"]
    assert api.patch(f"/api/v2/deals/{made['id']}", json={"status": "won"}).json()["data"]["title"] == "Acme"
    assert api.post("/api/v2/deals", json=deal | {"value": "10"}).status_code == 400
    assert api.post("/api/v1/persons", json={"name": "A"}).status_code == 404
    assert api.put(f"{PERSONS}/1", json={"name": "A"}).status_code == 404
    company.fail("bad_row", key="Acme")
    assert api.post("/api/v2/deals", json=deal).status_code == 422
    assert len(company.violations) == 3


def test_a_token_goes_into_a_header(company: PipedriveServer) -> None:
    with client(company) as anyone:
        assert anyone.get(f"{PERSONS}/1", params={"api_token": "token-1"}).status_code == 401
        assert anyone.get(f"{PERSONS}/1").status_code == 401
        assert anyone.get(f"{PERSONS}/1", headers={"Authorization": "Bearer token-1"}).status_code == 404
    assert len(company.violations) == 2


def test_the_burst_the_day_and_the_edge() -> None:
    clock = ManualClock()
    company = PipedriveServer(clock=clock, day_tokens=43, burst=2, edge_after=2)
    with company, client(company, x_api_token="token-1") as api:

        def search() -> httpx.Response:
            return api.get(f"{PERSONS}/search", params={"term": "a@x.io", "fields": "email"})

        assert search().headers["x-daily-ratelimit-token-remaining"] == "23"
        assert [search().status_code for _ in range(4)] == [200, 429, 429, 403]
        company.edge_after = None
        clock.advance(2)
        assert [search().json().get("error") for _ in range(1)] == ["rate limit exceeded: daily token budget"]
        clock.advance(86_400)
        assert search().status_code == 200
        company.headers = False
        assert "x-ratelimit-limit" not in search().headers
