"""The stand-in for Intercom is as strict as its documents; calls as the fact sheet has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from heap_assets_tests.connectors.servers.clients import client
from heap_assets_tests.connectors.servers.core import ManualClock
from heap_assets_tests.connectors.servers.intercom import IntercomServer

CONTACT = {
    "role": "user",
    "external_id": "u-1",
    "email": "a@x.io",
    "custom_attributes": {
        "Product_Stage": "Onboarding",
        "Features_Adopted": 3,
        "Trial_Days_Remaining": 12,
        "Has_Invited_Team": False,
    },
}
ID = f"{1:024x}"


@pytest.fixture
def workspace() -> Iterator[IntercomServer]:
    with IntercomServer(clock=ManualClock()) as server:
        server.attributes |= {
            "Product_Stage": "string",
            "Features_Adopted": "integer",
            "Trial_Days_Remaining": "integer",
        }
        server.attributes |= {"Has_Invited_Team": "boolean", "Trial_End": "date", "Score": "float"}
        yield server


@pytest.fixture
def api(workspace: IntercomServer) -> Iterator[httpx.Client]:
    with signed_in(workspace) as one:
        yield one


def signed_in(server: IntercomServer) -> httpx.Client:
    return client(server, Authorization="Bearer token-1", Intercom_Version="2.15")


def search(api: httpx.Client, field: str, operator: str, value: Any, **more: Any) -> Any:
    query = {"operator": "AND", "value": [{"field": field, "operator": operator, "value": value}]}
    return api.post("/contacts/search", json={"query": query} | more).json()


def test_the_sheets_own_example_is_created_found_and_updated(workspace: IntercomServer, api: httpx.Client) -> None:
    assert api.get("/contacts/find_by_external_id/u-1").status_code == 404
    assert search(api, "external_id", "=", "u-1")["total_count"] == 0
    workspace._numbers = iter(range(1, 99))  # type: ignore[assignment]
    contact = {
        "type": "contact",
        "id": ID,
        "created_at": 1767225600,
        "updated_at": 1767225600,
        "archived": False,
        **CONTACT,
    }
    assert api.post("/contacts", json=CONTACT).json() == contact
    assert api.get("/contacts/find_by_external_id/u-1").json() == contact
    assert search(api, "external_id", "=", "u-1") == {
        "type": "list",
        "data": [contact],
        "total_count": 1,
        "pages": {"type": "pages", "page": 1, "per_page": 50},
    }
    change = {"email": None, "custom_attributes": {"Product_Stage": None}}
    assert api.put(f"/contacts/{ID}", json=change).status_code == 200
    held = workspace.records["contact"][ID]
    assert (
        held["email"],
        held["custom_attributes"]["Product_Stage"],
        held["custom_attributes"]["Features_Adopted"],
    ) == (
        None,
        None,
        3,
    )
    assert workspace.violations == []


def test_the_index_lags_and_a_second_create_conflicts(workspace: IntercomServer, api: httpx.Client) -> None:
    workspace.index_seconds = 120
    id = api.post("/contacts", json=CONTACT).json()["id"]
    assert search(api, "external_id", "=", "u-1")["total_count"] == 0
    refused = api.post("/contacts", json=CONTACT)
    assert refused.status_code == 409
    assert refused.json()["errors"] == [
        {"code": "conflict", "message": f"A contact matching those details already exists with id={id}"}
    ]
    workspace.clock.advance(120)  # type: ignore[attr-defined]
    assert search(api, "external_id", "=", "u-1")["data"][0]["id"] == id
    assert api.post("/contacts", json={"email": "a@x.io"}).status_code == 200  # e-mails are not unique
    other = api.post("/contacts", json={"external_id": "u-2"}).json()["id"]
    assert api.put(f"/contacts/{other}", json={"external_id": "u-1"}).status_code == 409
    assert workspace.violations == []


def test_archived_merged_and_deleted_contacts(workspace: IntercomServer, api: httpx.Client) -> None:
    id = api.post("/contacts", json=CONTACT).json()["id"]
    assert api.post(f"/contacts/{id}/archive", json={}).json()["archived"]
    assert api.get("/contacts/find_by_external_id/u-1").status_code == 404
    assert "archived" in api.post("/contacts", json=CONTACT).json()["errors"][0]["message"]
    lead, user = (
        api.post("/contacts", json={"role": role, "email": "b@x.io"}).json()["id"] for role in ("lead", "user")
    )
    workspace.merge(lead, user)
    assert [api.get(f"/contacts/{one}").status_code for one in (lead, user)] == [404, 200]
    assert search(api, "email", "=", "b@x.io")["total_count"] == 1
    assert api.delete(f"/contacts/{user}").json()["deleted"]
    assert api.put(f"/contacts/{user}", json={"name": "B"}).status_code == 404


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "A", "external_id": None, "role": None, "email": None},
        {"role": "contact"},
        {"created_at": "x"},
        {"signed_up_at": "2026-01-02"},
        {"external_id": 1},
        {"custom_attributes": {"Nope": 1}},
        {"custom_attributes": {"Features_Adopted": "3"}},
        {"custom_attributes": {"Has_Invited_Team": "false"}},
        {"custom_attributes": {"Trial_End": "2026-01-02"}},
        {"custom_attributes": {"Product_Stage": "x" * 256}},
    ],
)
def test_a_contact_that_is_none(workspace: IntercomServer, api: httpx.Client, wrong: dict[str, Any]) -> None:
    answer = api.post("/contacts", json=CONTACT | wrong)
    assert (answer.status_code, answer.json()["type"]) == (400, "error.list")
    assert len(workspace.violations) == 1
    assert workspace.records.get("contact", {}) == {}


def test_attributes_are_made_first(workspace: IntercomServer, api: httpx.Client) -> None:
    made = {"name": "Tier", "model": "contact", "data_type": "string"}
    assert [api.post("/data_attributes", json=made).status_code for _ in range(2)] == [200, 400]
    values = {"Tier": "x" * 255, "Trial_End": 1767322800, "Score": 1}
    assert api.post("/contacts", json=CONTACT | {"custom_attributes": values}).status_code == 200
    assert "Tier" in {one["name"] for one in api.get("/data_attributes").json()["data"]}


def test_dates_are_searched_by_day_of_the_workspace(workspace: IntercomServer, api: httpx.Client) -> None:
    # 2026-01-01 00:00 UTC is still New Year's Eve in New York
    for n in range(3):
        api.post("/contacts", json={"external_id": f"u-{n}"})
        workspace.clock.advance(4 * 3600)  # type: ignore[attr-defined]
    evening = 1767225600
    assert [row["external_id"] for row in search(api, "updated_at", ">", evening)["data"]] == ["u-2"]
    assert search(api, "updated_at", "=", evening)["total_count"] == 2
    pages = search(api, "updated_at", ">", evening - 86_400, pagination={"per_page": 2})
    assert (len(pages["data"]), pages["pages"]["next"]) == (2, {"starting_after": "2"})
    rest = search(api, "updated_at", ">", evening - 86_400, pagination={"per_page": 2, "starting_after": "2"})
    assert (len(rest["data"]), "next" in rest["pages"]) == (1, False)


@pytest.mark.parametrize(
    "query",
    [
        {"field": "updated_at", "operator": ">=", "value": 1},
        {"field": "nope", "operator": "=", "value": 1},
        {"field": "email", "operator": "IN", "value": "a"},
        {"operator": "AND", "value": [{"field": "email", "operator": "=", "value": "a"}] * 16},
        {"operator": "AND", "value": [{"operator": "OR", "value": [{"operator": "AND", "value": []}]}]},
        None,
    ],
)
def test_a_search_that_is_none(workspace: IntercomServer, api: httpx.Client, query: Any) -> None:
    assert api.post("/contacts/search", json={"query": query}).status_code == 400
    assert len(workspace.violations) == 1


def test_operators(api: httpx.Client) -> None:
    for key in ("u-1", "u-2", "w-1"):
        api.post("/contacts", json={"external_id": key, "custom_attributes": {"Score": int(key[-1])}})
    for field, sign, value, hits in (
        ("external_id", "IN", ["u-1", "w-1"], 2),
        ("external_id", "NIN", ["u-1"], 2),
        ("external_id", "^", "u", 2),
        ("external_id", "$", "1", 2),
        ("external_id", "~", "-", 3),
        ("external_id", "!~", "u", 1),
        ("custom_attributes.Score", ">", 1, 1),
        ("email", "=", None, 3),
    ):
        assert search(api, field, sign, value)["total_count"] == hits, (field, sign, value)


EVENT = {"event_name": "trial-expiring", "created_at": 1767322800, "user_id": "u-1", "metadata": {"plan": "pro"}}


def test_an_event_of_a_person_name_and_second_is_one(workspace: IntercomServer, api: httpx.Client) -> None:
    assert api.post("/events", json=EVENT).status_code == 404
    api.post("/contacts", json=CONTACT)
    for more in ({}, {"metadata": {"plan": "free"}}, {"created_at": 1767322801}):
        answer = api.post("/events", json=EVENT | more)
        assert (answer.status_code, answer.content) == (202, b"")
    assert [(one["created_at"], one["metadata"]) for one in workspace.events] == [
        (1767322800, {"plan": "pro"}),
        (1767322801, {"plan": "pro"}),
    ]
    many = {f"k{n}": n for n in range(12)} | {"k0": {"url": "https://x.io", "value": "x"}}
    api.post("/events", json=EVENT | {"event_name": "many", "metadata": many})
    assert list(workspace.events[-1]["metadata"]) == [f"k{n}" for n in range(10)]
    lead = api.post("/contacts", json={"role": "lead", "email": "l@x.io"}).json()["id"]
    by = {name: value for name, value in EVENT.items() if name != "user_id"}
    assert api.post("/events", json=by | {"email": "l@x.io"}).status_code == 404
    assert api.post("/events", json=by | {"id": lead}).status_code == 202
    assert workspace.violations == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"created_at": None},
        {"created_at": 1767322800000},
        {"created_at": "2026-01-02"},
        {"event_name": ""},
        {"email": "a@x.io"},
        {"metadata": {"plan": {"name": "pro"}}},
        {"metadata": {"plans": ["pro"]}},
        {"properties": {}},
    ],
)
def test_an_event_that_is_none(workspace: IntercomServer, api: httpx.Client, wrong: dict[str, Any]) -> None:
    api.post("/contacts", json=CONTACT)
    assert api.post("/events", json=EVENT | wrong).status_code == 400
    assert (workspace.events, len(workspace.violations)) == ([], 1)


def test_the_token_and_the_version(workspace: IntercomServer) -> None:
    with client(workspace) as one:
        assert one.get("/data_attributes").status_code == 401
        one.headers["Authorization"] = "Bearer token-1"
        assert one.get("/data_attributes").status_code == 200
        assert one.get("/data_attributes", headers={"Intercom-Version": "9.9"}).status_code == 400
    assert len(workspace.violations) == 3


def test_windows_of_ten_seconds_tell_when_they_end() -> None:
    clock = ManualClock()
    with IntercomServer(clock=clock, app_a_minute=18, searches_a_minute=6) as workspace, signed_in(workspace) as api:
        clock.advance(4)
        first = api.get("/data_attributes")
        assert [first.headers[f"X-RateLimit-{name}"] for name in ("Limit", "Remaining", "Reset")] == [
            "3",
            "2",
            "1767225610",
        ]
        query = {"query": {"field": "email", "operator": "=", "value": "a"}}
        assert [api.post("/contacts/search", json=query).status_code for _ in range(2)] == [200, 429]
        statuses = [api.get("/data_attributes") for _ in range(2)]
        assert [answer.status_code for answer in statuses] == [200, 429]
        assert "Retry-After" not in statuses[1].headers
        clock.advance(6)
        assert api.post("/contacts/search", json=query).status_code == 200
