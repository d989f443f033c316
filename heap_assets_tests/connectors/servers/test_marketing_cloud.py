"""The stand-in for Marketing Cloud is as strict as its documents; calls as the fact sheet has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from heap_assets_tests.connectors.servers.clients import client
from heap_assets_tests.connectors.servers.core import ManualClock
from heap_assets_tests.connectors.servers.marketing_cloud import Column, MarketingCloudServer

QUEUED = "/data/v1/async/dataextensions/key:people/rows"
ROWSET = "/hub/v1/dataevents/key:people/rowset"
CREDENTIALS = {"grant_type": "client_credentials", "client_id": "client-1", "client_secret": "secret-1"}
ROW = {"ContactKey": "u-1", "Score": 71, "IsPQL": "true", "LastActive": "2026-01-02 03:04:05"}


@pytest.fixture
def tenant() -> Iterator[MarketingCloudServer]:
    with MarketingCloudServer(clock=ManualClock()) as server:
        yield people(server)


def people(server: MarketingCloudServer) -> MarketingCloudServer:
    server.extensions["people"] = {
        "ContactKey": Column(primary=True),
        "Score": Column("Number"),
        "IsPQL": Column("Boolean"),
        "LastActive": Column("Date"),
        "Email": Column("EmailAddress", 254),
    }
    server.extensions["entries"] = {"plan": Column(required=True), "n": Column("Number")}
    server.event_extensions["APIEvent-1"] = "entries"
    return server


@pytest.fixture
def api(tenant: MarketingCloudServer) -> Iterator[httpx.Client]:
    with signed_in(tenant) as one:
        yield one


def signed_in(server: MarketingCloudServer, **more: str) -> httpx.Client:
    with client(server) as anyone:
        token = anyone.post("/v2/token", json=CREDENTIALS | {"account_id": "100"} | more).json()["access_token"]
    return client(server, Authorization=f"Bearer {token}")


def status(api: httpx.Client, request: str) -> Any:
    return api.get(f"/data/v1/async/{request}/status").json()["status"]


def test_a_token_lives_twenty_minutes(tenant: MarketingCloudServer, api: httpx.Client) -> None:
    with client(tenant) as anyone:
        assert anyone.post("/v2/token", data=CREDENTIALS).json() == {
            "access_token": "token-2",
            "expires_in": 1079,
            "token_type": "Bearer",
            "rest_instance_url": f"{tenant.url}/",
            "soap_instance_url": f"{tenant.url}/",
        }
        assert anyone.post("/v2/token", json=CREDENTIALS | {"client_secret": "x"}).status_code == 401
        assert anyone.post("/v2/token", json=CREDENTIALS | {"grant_type": "password"}).status_code == 400
    assert len(tenant.violations) == 2
    tenant.clock.advance(1200)  # type: ignore[attr-defined]
    assert api.put(QUEUED, json={"items": [ROW]}).json() == {
        "errorcode": 0,
        "message": "Not Authorized",
        "documentation": "",
    }
    assert len(tenant.violations) == 2


def test_the_sheets_own_example_is_queued_and_told_when_it_is_done(
    tenant: MarketingCloudServer, api: httpx.Client
) -> None:
    answer = api.put(QUEUED, json={"items": [ROW]})
    assert (answer.status_code, answer.json()) == (202, {"requestId": "job-1", "resultMessages": []})
    assert api.get("/data/v1/async/job-1/results").status_code == 400
    assert [status(api, "job-1") for _ in range(2)] == [
        {"requestId": "job-1", "requestStatus": "Pending", "hasErrors": False},
        {"requestId": "job-1", "requestStatus": "Complete", "resultStatus": "OK", "hasErrors": False},
    ]
    # a date without a zone is Central time, and there is no summer in it
    assert tenant.records["people"] == {"u-1": ROW | {"LastActive": "2026-01-02T09:04:05Z"}}
    later = {"contactkey": "u-1", "LastActive": "2026-07-02T03:04:05Z", "Score": None}
    assert api.put(QUEUED, json={"items": [later]}).status_code == 202
    assert tenant.records["people"]["u-1"]["LastActive"] == "2026-07-02T03:04:05Z"
    assert tenant.records["people"]["u-1"]["Score"] is None
    assert [violation.rule for violation in tenant.violations] == ["results are there when the request is complete"]


def test_results_name_rows_by_position(tenant: MarketingCloudServer, api: httpx.Client) -> None:
    tenant.fail("bad_row", key="deadlock", message="Transaction was deadlocked on lock resources", times=1)
    bad = [
        {"ContactKey": "u-2", "Score": "many"},
        {"ContactKey": "u-3", "IsPQL": "yes"},
        {"ContactKey": "u-4", "LastActive": "02/01/2026"},
        {"ContactKey": "x" * 51},
        {"ContactKey": "u-5", "Email": "nobody"},
        {"ContactKey": "u-6", "Nope": 1},
        {"Score": 1},
        {"ContactKey": "deadlock"},
    ]
    request = api.put(QUEUED, json={"items": [ROW, *bad, {"ContactKey": "u-7"}]}).json()["requestId"]
    assert [status(api, request) for _ in range(2)][-1]["resultStatus"] == "Has Errors"
    items = api.get(f"/data/v1/async/{request}/results").json()["items"]
    assert [item["status"] for item in items] == ["OK", *["Error"] * 8, "OK"]
    assert items[8] == {"errorCode": 2, "message": "Transaction was deadlocked on lock resources", "status": "Error"}
    assert set(tenant.records["people"]) == {"u-1", "u-7"}
    insert = api.post(QUEUED, json={"items": [ROW, {"ContactKey": "u-8"}]}).json()["requestId"]
    for _ in range(2):
        status(api, insert)
    items = api.get(f"/data/v1/async/{insert}/results").json()["items"]
    assert [item["status"] for item in items] == ["Error", "OK"]


@pytest.mark.parametrize("body", [{"items": []}, [ROW], {"items": [{"keys": {}, "values": {}}]}, {"rows": [ROW]}])
def test_a_call_that_queues_nothing_has_no_request_id(
    tenant: MarketingCloudServer, api: httpx.Client, body: Any
) -> None:
    answer = api.put(QUEUED, json=body)
    assert (answer.status_code, list(answer.json())) == (400, ["resultMessages"])
    assert len(tenant.violations) == 1


def test_limits_of_a_queued_call(tenant: MarketingCloudServer, api: httpx.Client) -> None:
    tenant.async_rows = 2
    assert api.put(QUEUED, json={"items": [ROW] * 3}).status_code == 400
    assert api.put(QUEUED, json={"items": [ROW] * 2}).status_code == 202
    tenant.async_bytes = 20
    assert api.put(QUEUED, json={"items": [ROW]}).status_code == 400
    assert api.put(QUEUED.replace("people", "nobody"), json={"items": [ROW]}).json()["resultMessages"][0] == {
        "resultType": "Error",
        "resultCode": "DataExtensionNotFound",
        "message": "the extension exists",
    }


def test_requests_that_fail_are_slow_silent_or_forgotten(tenant: MarketingCloudServer, api: httpx.Client) -> None:
    tenant.fail("job_fails")
    request = api.put(QUEUED, json={"items": [ROW]}).json()["requestId"]
    assert [status(api, request) for _ in range(2)][-1]["requestStatus"] == "Error"
    assert tenant.records.get("people", {}) == {}
    tenant.fail("slow_job", seconds=60)
    tenant.empty_polls = 1
    request = api.put(QUEUED, json={"items": [ROW]}).json()["requestId"]
    assert api.get(f"/data/v1/async/{request}/status").json() == {"requestId": request, "resultMessages": []}
    assert [status(api, request)["requestStatus"] for _ in range(3)] == ["Pending", "Executing", "Executing"]
    tenant.clock.advance(60)  # type: ignore[attr-defined]
    assert status(api, request)["requestStatus"] == "Complete"
    tenant.clock.advance(86_400)  # type: ignore[attr-defined]
    with signed_in(tenant) as other:
        lost = other.get(f"/data/v1/async/{request}/status")
        assert (lost.status_code, lost.json()["resultMessages"][0]["resultCode"]) == (404, "AsyncRequestStatusNotFound")


def test_a_rowset_stops_at_its_first_bad_row_and_does_not_name_it(
    tenant: MarketingCloudServer, api: httpx.Client
) -> None:
    rows = [{"keys": {"ContactKey": f"u-{n}"}, "values": {"Score": score}} for n, score in enumerate((1, "x", 3))]
    answer = api.post(ROWSET, json=rows)
    assert answer.status_code == 400
    assert answer.json() == {
        "errorcode": 10006,
        "message": "Unable to save rows for data extension ID",
        "documentation": "",
        "additionalErrors": [{"message": "Score: no Number", "errorcode": 10000, "documentation": ""}],
    }
    assert set(tenant.records["people"]) == {"u-0"}
    assert api.post(ROWSET, json=rows[2:]).json() == rows[2:]
    one = api.put("/hub/v1/dataevents/key:people/rows/ContactKey:u-9", json={"values": {"Score": 9}})
    assert (one.status_code, tenant.records["people"]["u-9"]) == (200, {"ContactKey": "u-9", "Score": 9})
    assert tenant.violations == []
    for wrong in ([], rows * 34, [ROW], [{"keys": {"Score": 1}, "values": {}}]):
        assert api.post(ROWSET, json=wrong).status_code == 400
    assert api.post(ROWSET.replace("people", "nobody"), json=rows).status_code == 404
    assert len(tenant.violations) == 5


def test_an_upsert_needs_a_primary_key_or_appends() -> None:
    for without, rows in (("refuse", 0), ("append", 2)):
        with people(MarketingCloudServer(without_key=without)) as tenant, signed_in(tenant) as api:
            path = QUEUED.replace("people", "entries")
            for _ in range(2):
                assert api.put(path, json={"items": [{"plan": "pro"}]}).status_code == 202
            assert len(tenant.records.get("entries", {})) == rows


def test_without_the_units_id_rows_land_in_the_parent(tenant: MarketingCloudServer) -> None:
    with signed_in(tenant, account_id="7") as api:
        api.put(QUEUED, json={"items": [ROW]})
    assert set(tenant.records) == {"parent/people"}


def test_throttles(tenant: MarketingCloudServer, api: httpx.Client) -> None:
    tenant.fail("throttle", wait=9)
    tenant.fail("throttle", code=50200)
    first, second = (api.put(QUEUED, json={"items": [ROW]}) for _ in range(2))
    assert (first.status_code, first.headers["Retry-After"], first.json()["retryAfter"]) == (429, "9", 9)
    assert (second.status_code, second.json()["errorcode"], "Retry-After" in second.headers) == (429, 50200, False)
    tenant.fail("refuse_batch")
    refused = api.post(ROWSET, json=[{"keys": {"ContactKey": "a"}, "values": {}}])
    assert (refused.json()["errorcode"], "additionalErrors" in refused.json()) == (10006, False)


# journeys

ENTRY = {"ContactKey": "u-1", "EventDefinitionKey": "APIEvent-1", "Data": {"plan": "pro"}}


def test_a_repeated_entry_enters_again(tenant: MarketingCloudServer, api: httpx.Client) -> None:
    answers = [api.post("/interaction/v1/events", json=ENTRY) for _ in range(2)]
    assert [(one.status_code, one.json()) for one in answers] == [
        (201, {"eventInstanceId": "event-1"}),
        (201, {"eventInstanceId": "event-2"}),
    ]
    assert tenant.events == [{"event": "APIEvent-1", "contact": "u-1", "data": {"plan": "pro"}}] * 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"EventDefinitionKey": "API.Event"},
        {"EventDefinitionKey": "nope"},
        {"ContactKey": ""},
        {"Data": {}},
        {"Data": {"plan": "pro", "nope": 1}},
        {"Data": {"plan": "pro", "n": "x"}},
    ],
)
def test_an_entry_that_is_none(tenant: MarketingCloudServer, api: httpx.Client, wrong: dict[str, Any]) -> None:
    assert api.post("/interaction/v1/events", json=ENTRY | wrong).status_code == 400
    assert tenant.events == []


def test_entries_in_a_batch_are_told_in_order(tenant: MarketingCloudServer, api: httpx.Client) -> None:
    members = [{"contactKey": "a", "data": {"plan": "x"}}, {"contactKey": "b", "data": {}}]
    body: dict[str, Any] = {"eventDefinitionKey": "APIEvent-1", "members": members}
    answer = api.post("/interaction/v1/async/events", json=body)
    assert answer.json() == {
        "requestId": "request-1",
        "count": 1,
        "notQueuedCount": 1,
        "members": [{"contactKey": "a"}, {"contactKey": "b", "errors": ["required fields are missing: ['plan']"]}],
    }
    assert api.post("/interaction/v1/async/events", json=body | {"members": members * 51}).status_code == 400
    assert api.post("/interaction/v1/async/events", json=body | {"members": [ENTRY]}).status_code == 400
    assert len(tenant.violations) == 2
