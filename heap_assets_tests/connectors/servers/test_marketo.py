"""The stand-in for Marketo is as strict as its documents; calls as the fact sheet has them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from heap_assets_tests.connectors.servers.clients import client
from heap_assets_tests.connectors.servers.core import ManualClock
from heap_assets_tests.connectors.servers.marketo import MarketoServer

LEADS = "/rest/v1/leads.json"
CREDENTIALS = {"grant_type": "client_credentials", "client_id": "client-1", "client_secret": "secret-1"}


@pytest.fixture
def instance() -> Iterator[MarketoServer]:
    with MarketoServer(clock=ManualClock()) as server:
        server.fields |= {"leadScore": "score", "productStage": "string", "bio": "text", "seenAt": "datetime"}
        server.fields |= {"trialEnd": "date"}
        yield server


@pytest.fixture
def api(instance: MarketoServer) -> Iterator[httpx.Client]:
    with signed_in(instance) as one:
        yield one


def signed_in(server: MarketoServer) -> httpx.Client:
    with client(server) as anyone:
        token = anyone.get("/identity/oauth/token", params=CREDENTIALS).json()["access_token"]
    return client(server, Authorization=f"Bearer {token}")


def sync(api: httpx.Client, *rows: dict[str, Any], **members: Any) -> Any:
    return api.post(LEADS, json={"input": rows} | members).json()


def code(answer: Any) -> str:
    assert answer["success"] is False
    return str(answer["errors"][0]["code"])


def codes(answer: Any) -> list[str | None]:
    return [row["reasons"][0]["code"] if row["status"] == "skipped" else None for row in answer["result"]]


def test_a_living_token_is_repeated_with_the_rest_of_its_life(instance: MarketoServer) -> None:
    with client(instance) as anyone:
        first = anyone.get("/identity/oauth/token", params=CREDENTIALS).json()
        assert first == {"access_token": "token-1", "token_type": "bearer", "expires_in": 3600, "scope": "sync@x.io"}
        instance.clock.advance(3599.5)  # type: ignore[attr-defined]
        second = anyone.post("/identity/oauth/token", data=CREDENTIALS).json()
        assert (second["access_token"], second["expires_in"]) == ("token-1", 0)
        instance.clock.advance(0.5)  # type: ignore[attr-defined]
        assert anyone.get("/identity/oauth/token", params=CREDENTIALS).json()["access_token"] == "token-2"
        assert anyone.get("/identity/oauth/token", params=CREDENTIALS | {"client_secret": "x"}).status_code == 401
        old = anyone.get("/rest/v1/stats/usage.json", headers={"Authorization": "Bearer token-1"})
        assert (old.status_code, code(old.json())) == (200, "602")
        assert code(anyone.get("/rest/v1/stats/usage.json", headers={"Authorization": "Bearer x"}).json()) == "601"
        assert code(anyone.get("/rest/v1/stats/usage.json?access_token=token-2").json()) == "600"
    assert len(instance.violations) == 3


def test_the_sheets_own_example_is_taken(instance: MarketoServer, api: httpx.Client) -> None:
    row = {"email": "a@x.io", "leadScore": 71, "productStage": "Onboarding"}
    assert codes(sync(api, row, action="updateOnly", lookupField="email")) == ["1004"]
    created = sync(api, row)
    assert (created["success"], created["result"]) == (True, [{"id": 2, "status": "created"}])
    assert sync(api, row | {"email": "A@x.io"}, action="updateOnly")["result"] == [{"id": 2, "status": "updated"}]
    assert sync(api, {"id": 2, "leadScore": None}, action="updateOnly", lookupField="id")["result"][0]["id"] == 2
    assert instance.records["lead"]["2"] == {
        "id": 2,
        "createdAt": "2026-01-01T00:00:00Z",
        "updatedAt": "2026-01-01T00:00:00Z",
        "partition": "Default",
        "email": "A@x.io",
        "leadScore": None,
        "productStage": "Onboarding",
    }
    assert instance.violations == []


def test_rows_are_judged_in_their_places(instance: MarketoServer, api: httpx.Client) -> None:
    bad: list[tuple[dict[str, Any], str]] = [
        ({"leadScore": "71"}, "1001"),
        ({"leadScore": True}, "1001"),
        ({"productStage": 1}, "1001"),
        ({"productStage": "x" * 256}, "1003"),
        ({"bio": "ü" * 15_001}, "1003"),
        ({"trialEnd": "02.01.2026"}, "1001"),
        ({"seenAt": "2026-01-02T03:04:05"}, "1001"),
        ({"email": "ä@x.io"}, "1003"),
        ({"nope": 1}, "1006"),
        ({"id": 1}, "1006"),
        ({"company": "Acme"}, "1021"),
    ]
    rows = [{"email": f"{n}@x.io"} | wrong for n, (wrong, _) in enumerate(bad)]
    good = {"email": "a@x.io", "productStage": "x" * 255, "bio": "ü" * 15_000, "seenAt": "2026-01-02T03:04:05+01:00"}
    answer = sync(api, *rows, good | {"trialEnd": "2026-01-02", "leadScore": -1})
    assert codes(answer) == [*(code for _, code in bad), None]
    assert len(instance.records["lead"]) == 1
    assert codes(sync(api, {"email": "a@x.io"}, {"email": "b@x.io"}, action="createOnly")) == ["1005", None]
    assert codes(sync(api, {"email": "a@x.io"}, action="createDuplicate")) == [None]
    assert codes(sync(api, {"email": "a@x.io"})) == ["1007"]
    assert codes(sync(api, {"email": "b@x.io"}, partitionName="Other")) == ["1010"]
    instance.fail("bad_row", key="b@x.io", code="1009")
    assert codes(sync(api, {"email": "b@x.io"})) == ["1009"]
    assert instance.violations == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"input": []}, "609"),
        ({"leads": [{"email": "a@x.io"}]}, "609"),
        ({"input": [{"email": f"{n}@x.io"} for n in range(301)]}, "1003"),
        ({"input": [{"email": "a@x.io"}], "action": "upsert"}, "1003"),
        ({"input": [{"id": 1}], "lookupField": "id"}, "1003"),
        ({"input": [{"email": "a@x.io"}], "action": "updateOnly", "partitionName": "P"}, "1003"),
    ],
)
def test_a_malformed_call_is_refused_whole_with_200(
    instance: MarketoServer, api: httpx.Client, body: Any, expected: str
) -> None:
    answer = api.post(LEADS, json=body)
    assert (answer.status_code, code(answer.json())) == (200, expected)
    assert len(instance.violations) == 1


def test_sizes_and_lookup_fields(instance: MarketoServer, api: httpx.Client) -> None:
    assert len(sync(api, *({"email": f"{n}@x.io"} for n in range(300)))["result"]) == 300
    assert api.post(LEADS, content=b" " * (1 << 20) + b"{}").status_code == 413
    assert code(api.post(LEADS, content=b"{", headers={"Content-Type": "application/json"}).json()) == "609"
    mails = ",".join(f"{n:030d}@x.io" for n in range(300))
    assert api.get(LEADS, params={"filterType": "email", "filterValues": mails}).status_code == 414
    assert codes(sync(api, {"email": "a@x.io"}, lookupField="firstName")) == ["1011"]
    assert codes(sync(api, {"firstName": "A"})) == ["1003"]
    assert len(instance.violations) == 5


def test_two_calls_at_once_make_a_duplicate(instance: MarketoServer, api: httpx.Client) -> None:
    instance.latency = 0.2
    threads = [threading.Thread(target=sync, args=(api, {"email": "a@x.io"})) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(instance.records["lead"]) == 2
    assert [violation.rule for violation in instance.violations] == ["one call at a time writes a lead"]


def test_windows_come_with_200_and_the_day_ends_in_chicago() -> None:
    clock = ManualClock(datetime(2026, 1, 2, 5, 59, 30, tzinfo=UTC).timestamp())
    with MarketoServer(clock=clock, a_day=101) as instance, signed_in(instance) as api:
        answers = [api.get("/rest/v1/stats/usage.json").json() for _ in range(101)]
        assert [answer["success"] for answer in answers] == [True] * 100 + [False]
        assert answers[99]["result"][0]["total"] == 100
        assert code(answers[100]) == "606"
        clock.advance(20)
        assert [api.get("/rest/v1/stats/usage.json").json()["success"] for _ in range(2)] == [True, False]
        assert code(api.get("/rest/v1/stats/usage.json").json()) == "607"
        clock.advance(10)
        assert api.get("/rest/v1/stats/usage.json").json()["success"]


def test_faults_have_marketos_shapes(instance: MarketoServer, api: httpx.Client) -> None:
    for kind, options, expected in (
        ("throttle", {}, "606"),
        ("throttle", {"code": "615"}, "615"),
        ("server_error", {"code": "713"}, "713"),
        ("refuse_batch", {"code": "610"}, "610"),
        ("token_expired", {}, "602"),
    ):
        instance.fail(kind, **options)  # type: ignore[arg-type]
        assert code(sync(api, {"email": "a@x.io"})) == expected
    assert instance.violations == []


def test_leads_are_read_and_deleted(instance: MarketoServer, api: httpx.Client) -> None:
    sync(api, {"email": "a@x.io", "heapId": "u-1"}, {"email": "b@x.io"})
    read = api.get(LEADS, params={"filterType": "email", "filterValues": "A@x.io,c@x.io", "fields": "heapId"}).json()
    assert read["result"] == [{"id": 1, "heapId": "u-1"}]
    form = {"_method": "GET", "filterType": "email", "filterValues": "a@x.io", "fields": "heapId"}
    assert api.post(LEADS, data=form).json()["result"] == read["result"]
    assert code(api.post(LEADS, data=form | {"_method": "POST"}).json()) == "612"
    assert code(api.get(LEADS, params={"filterType": "bio", "filterValues": "x"}).json()) == "1003"
    deleted = api.post("/rest/v1/leads/delete.json", json={"input": [{"id": 1}, {"id": 9}]}).json()
    assert codes(deleted) == [None, "1004"]
    assert codes(sync(api, {"email": "a@x.io"}, action="updateOnly")) == ["1004"]
    fields = api.get("/rest/v1/leads/describe2.json").json()["result"][0]["fields"]
    assert {
        "name": "leadScore",
        "displayName": "leadScore",
        "dataType": "score",
        "length": 255,
        "updateable": True,
    } in (fields)


@pytest.mark.parametrize(("words", "again", "gone"), [(True, "memberof", "notmemberof"), (False, "skipped", "skipped")])
def test_static_lists(words: bool, again: str, gone: str) -> None:
    with MarketoServer(member_words=words) as instance, signed_in(instance) as api:
        sync(api, {"email": "a@x.io"})
        new = {"name": "Trial", "folder": '{"id":1,"type":"Folder"}'}
        made = api.post("/rest/asset/v1/staticLists.json", data=new).json()["result"][0]
        assert code(api.post("/rest/asset/v1/staticLists.json", json=new).json()) == "609"
        path = f"/rest/v1/lists/{made['id']}/leads.json"

        def statuses(method: str, query: str) -> list[str]:
            return [row["status"] for row in api.request(method, f"{path}?{query}").json()["result"]]

        assert statuses("POST", "id=1&id=99") == ["added", "skipped"]
        assert statuses("POST", "id=1") == [again]
        assert api.post(path, json={"input": [{"id": 1}]}).json()["result"][0]["status"] == again
        assert api.get(path).json()["result"] == [{"id": 1, "email": "a@x.io"}]
        assert statuses("DELETE", "id=1") == ["removed"]
        assert statuses("DELETE", "id=1") == [gone]
        assert code(api.post(f"{path}?" + "&".join(f"id={n}" for n in range(301))).json()) == "1003"
        assert code(api.post("/rest/v1/lists/77/leads.json?id=1").json()) == "1013"
        assert code(api.post("/rest/asset/v1/staticLists.json", data=new).json()) == "709"
