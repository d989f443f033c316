"""The stand-in for Iterable is as strict as its documents; calls as the fact sheet has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from heap_assets_tests.connectors.servers.clients import client
from heap_assets_tests.connectors.servers.core import ManualClock
from heap_assets_tests.connectors.servers.iterable import IterableServer

USERS, EVENTS = "/api/users/bulkUpdate", "/api/events/trackBulk"
NONE: dict[str, list[str]] = {
    f"{why}{kind}": []
    for why in ("conflict", "forgotten", "invalidData", "invalid", "notFound")
    for kind in ("Emails", "UserIds")
}


@pytest.fixture
def project() -> Iterator[IterableServer]:
    with IterableServer(clock=ManualClock(), limits=[]) as server:
        yield server


@pytest.fixture
def api(project: IterableServer) -> Iterator[httpx.Client]:
    with client(project, Api_Key="key-1") as one:
        yield one


def user(key: str = "u-1", **fields: Any) -> dict[str, Any]:
    return {"userId": key, "preferUserId": True, "mergeNestedObjects": True, "dataFields": fields}


def update(api: httpx.Client, *users: dict[str, Any], create: bool = True) -> Any:
    return api.post(USERS, json={"createNewFields": create, "users": users}).json()


def test_the_sheets_own_example_is_taken(project: IterableServer, api: httpx.Client) -> None:
    assert update(api, user(productStage="Onboarding", score=71)) == {
        "successCount": 1,
        "failCount": 0,
        "invalidEmails": [],
        "invalidUserIds": [],
        "failedUpdates": NONE,
        "createdFields": ["productStage", "score"],
        "filteredOutFields": [],
    }
    assert update(api, user(score=72, nope=1), create=False)["filteredOutFields"] == ["nope"]
    update(api, user(productStage=None, plan={"a": 1}), user(plan={"b": 2}))
    assert project.records["user"] == {"u-1": {"userId": "u-1", "dataFields": {"score": 72, "plan": {"a": 1, "b": 2}}}}
    assert api.get("/api/users/byUserId/u-1").json()["user"]["dataFields"]["score"] == 72
    assert api.get("/api/users/getFields").json()["fields"]["score"] == "number"
    assert project.violations == []


def test_a_type_is_fixed_and_a_mismatch_refuses_all(project: IterableServer, api: httpx.Client) -> None:
    update(api, user(score=71))
    answer = api.post(USERS, json={"users": [user("a", score=1), user("b", score="2")]})
    assert (answer.status_code, answer.json()["code"]) == (400, "RequestFieldsTypesMismatched")
    assert set(project.records["user"]) == {"u-1"}
    update(api, user("a", score=1.5))
    assert project.field_types == {"score": "number"}
    project.field_names = 2
    refused = api.post(USERS, json={"createNewFields": True, "users": [user(a=1, b=2)]})
    assert refused.json()["code"] == "UniqueFieldsLimitExceeded"


def test_failures_name_people_by_bucket_and_e_mails_in_lower_case(project: IterableServer, api: httpx.Client) -> None:
    project.forgotten = {"gone@x.io"}
    project.fail("bad_row", key="u-2", bucket="conflict")
    people = [{"email": "Gone@x.io"}, {"email": "Nobody"}, user("u-2"), {"email": "A@x.io"}]
    answer = update(api, *people)
    assert (answer["successCount"], answer["failCount"]) == (1, 3)
    assert answer["failedUpdates"] == NONE | {
        "forgottenEmails": ["gone@x.io"],
        "invalidEmails": ["nobody"],
        "conflictUserIds": ["u-2"],
    }
    assert answer["invalidEmails"] == ["nobody"]
    assert set(project.records["user"]) == {"a@x.io"}
    project.old_names = True
    assert "failedUpdates" not in update(api, *people)


@pytest.mark.parametrize(
    ("project_type", "prefer", "created"), [("email", False, 0), ("email", True, 1), ("userID", False, 1)]
)
def test_who_is_created_depends_on_the_project(project_type: str, prefer: bool, created: int) -> None:
    with IterableServer(project=project_type, limits=[]) as project, client(project, Api_Key="key-1") as api:
        answer = update(api, {"userId": "u-1", "preferUserId": prefer})
        assert answer["successCount"] == created
        assert answer["failedUpdates"]["notFoundUserIds"] == ["u-1"] * (1 - created)
        id = api.post("/api/lists", json={"name": "x"}).json()["listId"]
        body = {"listId": id, "subscribers": [{"userId": "u-9"}], "updateExistingUsersOnly": True}
        answer = api.post("/api/lists/subscribe", json=body)
        assert answer.status_code == (400 if project_type == "email" else 200)


@pytest.mark.parametrize(
    "body",
    [
        {"users": []},
        [user()],
        {"users": [user()], "more": 1},
        {"users": [user() | {"email": "a@x.io"}]},
        {"users": [{"dataFields": {}}]},
        {"users": [{"userId": 1}]},
        {"users": [user() | {"more": 1}]},
        {"users": [user(emailListIds=[1])]},
        {"users": [user(str(n)) for n in range(1001)]},
    ],
)
def test_a_malformed_call_is_refused_whole(project: IterableServer, api: httpx.Client, body: Any) -> None:
    assert api.post(USERS, json=body).status_code == 400
    assert len(project.violations) == 1
    assert project.records.get("user", {}) == {}


def test_the_key_and_the_size_of_a_call(project: IterableServer, api: httpx.Client) -> None:
    assert update(api, *(user(str(n)) for n in range(1000)))["successCount"] == 1000
    assert api.post(USERS, content=b" " * ((4 << 20) + 1)).json()["code"] == "BatchTooLarge"
    with client(project, Authorization="Bearer key-1") as other:
        assert other.post(USERS, json={"users": [user()]}).json()["code"] == "BadApiKey"
    assert len(project.violations) == 2


def event(id: str = "evt-1", **more: Any) -> dict[str, Any]:
    one = {"userId": "u-1", "eventName": "trial", "id": id, "createdAt": 1767322800, "dataFields": {"plan": "pro"}}
    return one | more


def test_an_event_id_is_an_upsert_key(project: IterableServer, api: httpx.Client) -> None:
    body = {"events": [event(), event("evt-2"), event(dataFields={"plan": "free"})]}
    answer = api.post(EVENTS, json=body).json()
    assert (answer["successCount"], answer["disallowedEventNames"]) == (3, [])
    assert [(one["id"], one["dataFields"]["plan"]) for one in project.events] == [("evt-1", "free"), ("evt-2", "pro")]
    for _ in range(2):
        api.post(EVENTS, json={"events": [{n: v for n, v in event().items() if n != "id"}]})
    assert len(project.events) == 4
    project.disallowed_events = {"click"}
    project.fail("bad_row", key="evt-5")
    answer = api.post(EVENTS, json={"events": [event("evt-5"), event("evt-6", eventName="click")]}).json()
    assert (answer["failedUpdates"]["invalidDataUserIds"], answer["disallowedEventNames"]) == (["u-1"], ["click"])
    assert len(project.events) == 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"createdAt": 1767322800000},
        {"createdAt": "2026-01-02"},
        {"id": "x" * 513},
        {"eventName": ""},
        {"email": "a@x.io"},
        {"dataFields": {"plan": 1}},
    ],
)
def test_an_event_that_is_none_refuses_all(project: IterableServer, api: httpx.Client, wrong: dict[str, Any]) -> None:
    api.post(EVENTS, json={"events": [event()]})
    assert api.post(EVENTS, json={"events": [event("evt-2"), event("evt-3") | wrong]}).status_code == 400
    assert len(project.events) == 1


def test_lists(project: IterableServer, api: httpx.Client) -> None:
    id = api.post("/api/lists", json={"name": "Trial"}).json()["listId"]
    assert api.get("/api/lists").json() == {"lists": [{"id": id, "name": "Trial", "listType": "Standard"}]}
    update(api, user("u-1"))
    body: dict[str, Any] = {"listId": id, "subscribers": [{"userId": "u-1"}, {"userId": "u-2"}]}
    answer = api.post("/api/lists/subscribe", json=body | {"updateExistingUsersOnly": True}).json()
    assert (answer["successCount"], answer["failedUpdates"]["notFoundUserIds"]) == (1, ["u-2"])
    assert api.get("/api/lists/getUsers", params={"listId": id}).text == "u-1"
    answer = api.post("/api/lists/unsubscribe", json=body | {"channelUnsubscribe": False}).json()
    assert (answer["successCount"], answer["failedUpdates"]["notFoundUserIds"]) == (1, ["u-2"])
    assert project.lists == {str(id): set()}
    assert project.violations == []
    api.post("/api/lists/unsubscribe", json=body | {"channelUnsubscribe": True})
    assert api.post("/api/lists/subscribe", json=body | {"listId": 77}).status_code == 400
    assert [violation.rule for violation in project.violations] == [
        "channelUnsubscribe takes people off everything",
        "the list exists",
    ]
    assert project.records["user"]["u-1"]["unsubscribed"]


def test_windows_of_a_second_and_faults() -> None:
    clock = ManualClock()
    with IterableServer(clock=clock) as project, client(project, Api_Key="key-1") as api:
        statuses = [api.post(USERS, json={"users": [user()]}).status_code for _ in range(6)]
        assert statuses == [200] * 5 + [429]
        assert [api.post(EVENTS, json={"events": [event()]}).status_code for _ in range(11)] == [200] * 10 + [429]
        clock.advance(1)
        project.fail("refuse_batch")
        project.fail("server_error")
        project.fail("throttle")
        answers = [api.post(USERS, json={"users": [user()]}).json() for _ in range(4)]
        assert [one.get("code") for one in answers] == [
            "RateLimitExceeded",
            "DatabaseError",
            "RequestFieldsTypesMismatched",
            None,
        ]
