"""The stand-in for HubSpot is as strict as its documents; calls as the fact sheet has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from heap_assets_tests.connectors.servers.clients import client
from heap_assets_tests.connectors.servers.core import ManualClock
from heap_assets_tests.connectors.servers.hubspot import HubSpotServer, Property

UPSERT = "/crm/v3/objects/contacts/batch/upsert"


@pytest.fixture
def hub() -> Iterator[HubSpotServer]:
    with HubSpotServer(clock=ManualClock()) as server:
        setup(server)
        yield server


def setup(server: HubSpotServer) -> HubSpotServer:
    server.properties["contacts"] |= {"pql_score": Property("number"), "is_pql": Property("bool")}
    server.properties["contacts"] |= {"trial_end": Property("date"), "seen_at": Property("datetime")}
    server.properties["contacts"]["plans"] = Property("enumeration", options=("pro", "free"), many=True)
    server.event_definitions["pe123_trial_started"] = {"plan"}
    return server


@pytest.fixture
def api(hub: HubSpotServer) -> Iterator[httpx.Client]:
    with client(hub, Authorization="Bearer pat-1") as one:
        yield one


def contact(key: str = "u-1", trace: int | None = 0, **values: str) -> dict[str, Any]:
    one = {"idProperty": "heap_id", "id": key, "properties": values}
    return one if trace is None else one | {"objectWriteTraceId": str(trace)}


def post(api: httpx.Client, *inputs: Any, way: str = "upsert", of: str = "contacts") -> tuple[int, Any]:
    answer = api.post(f"/crm/v3/objects/{of}/batch/{way}", json={"inputs": inputs})
    return answer.status_code, answer.json()


def test_the_sheets_own_example_is_taken(hub: HubSpotServer, api: httpx.Client) -> None:
    values = {"email": "a@x.io", "lifecyclestage": "lead", "pql_score": "71", "is_pql": "true"}
    one = {"idProperty": "email", "id": "a@x.io", "objectWriteTraceId": "0", "properties": values}
    now = "2026-01-01T00:00:00.000Z"
    record = {
        "id": "1001",
        "properties": {"createdate": now, "hs_object_id": "1001", **values, "lastmodifieddate": now},
        "createdAt": now,
        "updatedAt": now,
        "archived": False,
    }
    assert post(api, one) == (
        200,
        {
            "status": "COMPLETE",
            "results": [record | {"new": True, "objectWriteTraceId": "0"}],
            "startedAt": now,
            "completedAt": now,
        },
    )
    assert post(api, one)[1]["results"][0]["new"] is False
    assert api.post("/crm/objects/2026-03/contacts/batch/upsert", json={"inputs": [one]}).status_code == 200
    assert hub.records["contacts"] == {"1001": record}
    assert hub.violations == []


def test_a_static_token(hub: HubSpotServer) -> None:
    with client(hub) as anyone:
        answer = anyone.post(UPSERT, json={"inputs": [contact()]})
        assert (answer.status_code, answer.json()["category"]) == (401, "INVALID_AUTHENTICATION")
        assert anyone.post(f"{UPSERT}?hapikey=pat-1", json={"inputs": [contact()]}).status_code == 401
    assert len(hub.violations) == 2


BAD: list[tuple[dict[str, str], str]] = [
    ({"pql_score": "many"}, "INVALID_INTEGER"),
    ({"is_pql": "True"}, "INVALID_OPTION"),
    ({"lifecyclestage": "Lead"}, "INVALID_OPTION"),
    ({"plans": "pro, free"}, "INVALID_OPTION"),
    ({"trial_end": "2026-01-02T03:00:00Z"}, "INVALID_DATE"),
    ({"trial_end": "1767326400001"}, "INVALID_DATE"),
    ({"seen_at": "yesterday"}, "INVALID_DATE"),
    ({"email": "nobody"}, "INVALID_EMAIL"),
    ({"nope": "1"}, "PROPERTY_DOESNT_EXIST"),
    ({"createdate": "2026-01-02"}, "READ_ONLY_VALUE"),
]


@pytest.mark.parametrize(("wrong", "code"), BAD)
def test_with_trace_ids_a_bad_row_is_told_and_its_neighbours_are_written(
    hub: HubSpotServer, api: httpx.Client, wrong: dict[str, str], code: str
) -> None:
    status, body = post(api, contact("a", 0), contact("b", 1, **wrong), contact("c", 2), contact("d", 3, **wrong))
    assert (status, body["numErrors"]) == (207, 1)
    assert {row["objectWriteTraceId"] for row in body["results"]} == {"0", "2"}
    assert body["errors"][0]["category"] == code
    assert body["errors"][0]["context"] == {"objectWriteTraceId": ["1", "3"]}
    assert len(hub.records["contacts"]) == 2


@pytest.mark.parametrize(("wrong", "code"), BAD[:2])
def test_without_trace_ids_a_bad_row_refuses_all(
    hub: HubSpotServer, api: httpx.Client, wrong: dict[str, str], code: str
) -> None:
    status, body = post(api, contact("a", None), contact("b", None, **wrong))
    assert (status, body["category"]) == (400, code)
    assert hub.records.get("contacts", {}) == {}


def test_good_values(hub: HubSpotServer, api: httpx.Client) -> None:
    times = {"trial_end": "1767312000000", "seen_at": "2026-01-02T03:04:05.678Z"}
    assert post(api, contact(plans="pro;free", is_pql="false", pql_score="-1.5", **times))[0] == 200
    assert post(api, contact(trial_end="2026-01-02", seen_at="", plans=""))[0] == 200
    held = hub.records["contacts"]["1001"]["properties"]
    assert (held["trial_end"], held["seen_at"], held["plans"], held["is_pql"]) == ("2026-01-02", None, None, "false")


@pytest.mark.parametrize(
    ("inputs", "rule"),
    [
        ([], "the body has a list of `inputs`"),
        ([contact(f"u-{n}", n) for n in range(101)], "at most 100 inputs a call"),
        ([{"idProperty": "heap_id", "id": "a"}], "every input has `properties`, and only documented members"),
        ([contact() | {"email": "a@x.io"}], "every input has `properties`, and only documented members"),
        ([contact(pql_score=71)], "values of properties are texts"),  # type: ignore[arg-type]
        ([contact(firstname=None)], "values of properties are texts"),  # type: ignore[arg-type]
        ([{"id": "a", "properties": {}}], "an upsert names the `idProperty`"),
        ([contact() | {"id": 1}], "every input has an `id`, a text"),
        ([contact() | {"idProperty": "firstname"}], "the `idProperty` is unique"),
        ([contact("a", 0), contact("b", 0)], "trace ids are distinct"),
        ([contact("a", 0), contact("a", 1)], "no two inputs are one record"),
    ],
)
def test_a_malformed_batch_is_refused_whole(hub: HubSpotServer, api: httpx.Client, inputs: Any, rule: str) -> None:
    assert post(api, *inputs)[0] == 400
    assert [violation.rule for violation in hub.violations] == [rule]
    assert hub.records.get("contacts", {}) == {}


def email(value: str, trace: int) -> dict[str, Any]:
    return {"idProperty": "email", "id": value, "objectWriteTraceId": str(trace), "properties": {"email": value}}


def test_e_mails_of_one_contact_collide_by_case_and_by_being_secondary(hub: HubSpotServer, api: httpx.Client) -> None:
    assert post(api, email("a@x.io", 0), email("A@x.io", 1))[0] == 400
    hub.write("contacts", None, {"email": "b@x.io", "hs_additional_emails": "c@x.io;d@x.io"})
    assert post(api, email("b@x.io", 0), email("C@x.io", 1))[0] == 400
    assert len(hub.violations) == 2
    assert post(api, email("D@x.io", 0))[1]["results"][0]["new"] is False


def test_a_conflict_refuses_the_whole_batch(hub: HubSpotServer, api: httpx.Client) -> None:
    hub.write("contacts", None, {"email": "a@x.io", "heap_id": "theirs"})
    status, body = post(api, contact("a", 0), contact("b", 1, email="a@x.io"))
    assert (status, body["category"]) == (409, "CONFLICT")
    assert len(hub.records["contacts"]) == 1
    assert hub.violations == []


def test_update_never_creates(hub: HubSpotServer, api: httpx.Client) -> None:
    post(api, contact("a"))
    status, body = post(api, contact("a", 0, firstname="A"), contact("b", 1, firstname="B"), way="update")
    assert (status, [row["objectWriteTraceId"] for row in body["results"]]) == (207, ["0"])
    assert (body["errors"][0]["category"], body["errors"][0]["context"]) == (
        "OBJECT_NOT_FOUND",
        {"objectWriteTraceId": ["1"]},
    )
    by_id = {"id": "1001", "properties": {"firstname": "C"}}
    assert post(api, by_id, way="update")[0] == 200
    assert hub.records["contacts"]["1001"]["properties"]["firstname"] == "C"
    assert len(hub.records["contacts"]) == 1
    status, body = post(api, by_id | {"id": "a@x.io"}, way="update")
    assert (status, body["results"]) == (200, [])


def test_both_stories_of_updates_by_e_mail() -> None:
    for story, status in (("works", 200), ("refused", 400)):
        with setup(HubSpotServer(email_update=story)) as hub, client(hub, Authorization="Bearer pat-1") as api:
            hub.write("contacts", None, {"email": "a@x.io"})
            assert post(api, email("a@x.io", 0), way="update")[0] == status


def test_both_stories_of_partial_upserts_by_e_mail() -> None:
    for partial, kept in ((True, "71"), (False, None)):
        with setup(HubSpotServer(partial_by_email=partial)) as hub, client(hub, Authorization="Bearer pat-1") as api:
            hub.write("contacts", None, {"email": "a@x.io", "pql_score": "71"})
            assert post(api, email("a@x.io", 0))[0] == 200
            assert hub.records["contacts"]["1001"]["properties"].get("pql_score") == kept


def test_create_only_conflicts_if_it_is_there(hub: HubSpotServer, api: httpx.Client) -> None:
    new = {"properties": {"email": "a@x.io"}, "objectWriteTraceId": "0"}
    assert post(api, new, way="create")[0] == 201
    assert post(api, new, way="create")[0] == 409


def test_a_lifecycle_stage_never_moves_backwards(hub: HubSpotServer, api: httpx.Client) -> None:
    for stage, held in (("customer", "customer"), ("lead", "customer"), ("", None), ("lead", "lead")):
        assert post(api, contact(lifecyclestage=stage))[0] == 200
        assert hub.records["contacts"]["1001"]["properties"]["lifecyclestage"] == held


def test_faults_have_hubspots_shapes(hub: HubSpotServer, api: httpx.Client) -> None:
    hub.fail("refuse_batch")
    hub.fail("refuse_batch", code="silent")
    hub.fail("throttle", code="DAILY")
    hub.fail("server_error", status=477, wait=9)
    hub.fail("bad_row", key="b")
    answer = api.post(UPSERT, json={"inputs": [contact()]})
    assert (answer.status_code, answer.json()["policyName"]) == (429, "DAILY")
    answer = api.post(UPSERT, json={"inputs": [contact()]})
    assert (answer.status_code, answer.headers["Retry-After"]) == (477, "9")
    assert post(api, contact())[0] == 409
    assert post(api, contact())[1]["results"] == []
    assert post(api, contact("a", 0), contact("b", 1))[1]["errors"][0]["category"] == "VALIDATION_ERROR"


def test_windows_and_what_the_headers_tell() -> None:
    clock = ManualClock()
    hub = HubSpotServer(clock=clock, ten_seconds=2, a_day=5, searches=1)
    with hub, client(hub, Authorization="Bearer pat-1") as api:
        path = "/crm/v3/properties/contacts"
        assert api.get(path).headers["X-HubSpot-RateLimit-Remaining"] == "1"
        assert [api.get(path).status_code for _ in range(2)] == [200, 429]
        found = api.post("/crm/v3/objects/contacts/search", json={})
        assert (found.status_code, "X-HubSpot-RateLimit-Daily" in found.headers) == (200, False)
        over = api.post("/crm/v3/objects/contacts/search", json={})
        assert (over.status_code, over.json()["policyName"]) == (429, "SECONDLY")
        clock.advance(10)
        assert [api.get(path).status_code for _ in range(2)] == [200, 200]
        clock.advance(10)
        assert api.get(path).json()["policyName"] == "DAILY"
        assert [v.rule for v in hub.violations] == [
            f"limit: {name}" for name in ("TEN_SECONDLY_ROLLING", "SECONDLY", "DAILY")
        ]


# reading


def test_single_records_by_any_unique_property(hub: HubSpotServer, api: httpx.Client) -> None:
    path = "/crm/v3/objects/contacts"
    made = api.post(path, json={"properties": {"email": "A@x.io", "pql_score": "1"}})
    assert (made.status_code, made.json()["properties"]["email"]) == (201, "a@x.io")
    by_mail = {"idProperty": "email"}
    assert api.patch(f"{path}/b@x.io", params=by_mail, json={"properties": {"pql_score": "2"}}).status_code == 404
    assert api.patch(f"{path}/a@x.io", params=by_mail, json={"properties": {"pql_score": "2"}}).status_code == 200
    one = api.get(f"{path}/1001", params={"properties": "pql_score"}).json()
    assert one["properties"] == {
        "createdate": "2026-01-01T00:00:00.000Z",
        "hs_object_id": "1001",
        "lastmodifieddate": "2026-01-01T00:00:00.000Z",
        "pql_score": "2",
    }
    many = {"idProperty": "email", "inputs": [{"id": "a@x.io"}, {"id": "b@x.io"}], "properties": ["email"]}
    read = api.post(f"{path}/batch/read", json=many)
    assert (read.status_code, len(read.json()["results"])) == (207, 1)
    assert read.json()["errors"][0]["context"] == {"ids": ["b@x.io"]}
    assert api.post(f"{path}/batch/archive", json={"inputs": [{"id": "1001"}]}).status_code == 204
    assert api.get(f"{path}/1001").status_code == 404


def test_search_by_change_time_in_pages(hub: HubSpotServer, api: httpx.Client) -> None:
    hub.limits.clear()
    for n in range(5):
        hub.write("contacts", None, {"heap_id": f"u-{n}"})
        hub.clock.advance(60)  # type: ignore[attr-defined]
    body: dict[str, Any] = {
        "filterGroups": [
            {"filters": [{"propertyName": "lastmodifieddate", "operator": "GTE", "value": "1767225660000"}]}
        ],
        "sorts": [{"propertyName": "lastmodifieddate", "direction": "ASCENDING"}],
        "properties": ["heap_id"],
        "limit": 3,
    }
    keys = []
    for after in ("0", "3"):
        answer = api.post("/crm/v3/objects/contacts/search", json=body | {"after": after}).json()
        keys += [row["properties"]["heap_id"] for row in answer["results"]]
        assert answer["total"] == 4
        assert answer.get("paging") == ({"next": {"after": "3"}} if after == "0" else None)
    assert keys == ["u-1", "u-2", "u-3", "u-4"]
    body["filterGroups"][0]["filters"] = [{"propertyName": "heap_id", "operator": "IN", "values": ["u-0", "u-9"]}]
    assert api.post("/crm/v3/objects/contacts/search", json=body).json()["total"] == 1
    for wrong in ({"limit": 201}, {"after": "9999"}, {"sorts": [{"propertyName": "nope"}]}):
        assert api.post("/crm/v3/objects/contacts/search", json=body | wrong).status_code == 400


def test_properties_are_told_and_made(hub: HubSpotServer, api: httpx.Client) -> None:
    told = {one["name"]: one for one in api.get("/crm/v3/properties/contacts").json()["results"]}
    assert (told["heap_id"]["hasUniqueValue"], told["pql_score"]["type"]) == (True, "number")
    assert told["createdate"]["modificationMetadata"] == {"readOnlyValue": True}
    new = {"name": "tier", "label": "Tier", "type": "string", "fieldType": "text", "groupName": "contactinformation"}
    assert api.get("/crm/v3/properties/contacts/tier").status_code == 404
    assert [api.post("/crm/v3/properties/contacts", json=new).status_code for _ in range(2)] == [201, 409]
    assert api.get("/crm/v3/properties/contacts/tier").json()["type"] == "string"


# events and lists

EVENT = {
    "eventName": "pe123_trial_started",
    "email": "a@x.io",
    "occurredAt": "2026-01-02T03:04:05.000Z",
    "uuid": "evt-1",
    "properties": {"plan": "pro"},
}


@pytest.mark.parametrize("path", ["/events/v3/send", "/events/2026-03/send", "/events/custom/2026-09/send"])
def test_events_answer_with_nothing(hub: HubSpotServer, api: httpx.Client, path: str) -> None:
    answer = api.post(f"{path}/batch", json={"inputs": [EVENT, EVENT | {"uuid": "evt-2"}]})
    assert (answer.status_code, answer.content) == (204, b"")
    assert api.post(path, json=EVENT).status_code == 204
    assert [event["uuid"] for event in hub.events] == ["evt-1", "evt-2"]
    hub.fail("bad_row", key="evt-3")
    assert api.post(path, json=EVENT | {"uuid": "evt-3"}).status_code == 204
    assert len(hub.events) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"eventName": "trial_started"},
        {"email": None, "eventName": "pe123_nope"},
        {"occurredAt": "soon"},
        {"properties": {"Plan": "x"}},
        {"properties": {"other": "x"}},
        {"properties": {"plan": "x" * 1025}},
        {"name": "x"},
    ],
)
def test_an_event_that_is_none(hub: HubSpotServer, api: httpx.Client, wrong: dict[str, Any]) -> None:
    assert api.post("/events/v3/send/batch", json={"inputs": [EVENT, EVENT | wrong]}).status_code == 400
    assert (hub.events, len(hub.violations)) == ([], 1)


def test_limits_of_events(hub: HubSpotServer, api: httpx.Client) -> None:
    events = [EVENT | {"uuid": str(n)} for n in range(501)]
    assert api.post("/events/v3/send/batch", json={"inputs": events}).status_code == 400
    assert api.post("/events/v3/send/batch", json={"inputs": events[1:]}).status_code == 204
    nobody = {name: value for name, value in EVENT.items() if name != "email"}
    assert api.post("/events/v3/send", json=nobody).status_code == 400
    hub.enterprise, hub.uuid_dedupes = False, False
    assert api.post("/events/v3/send", json=EVENT).status_code == 403
    hub.enterprise = True
    for _ in range(2):
        api.post("/events/v3/send", json=EVENT)
    assert len(hub.events) == 502


def test_lists_hold_record_ids(hub: HubSpotServer, api: httpx.Client) -> None:
    hub.write("contacts", None, {"heap_id": "a"})
    new = {"name": "x", "objectTypeId": "0-1", "processingType": "MANUAL"}
    id = api.post("/crm/v3/lists", json=new).json()["list"]["listId"]
    path = f"/crm/v3/lists/{id}/memberships"
    body: dict[str, list[str]] = {"recordIdsToAdd": ["1001", "9"], "recordIdsToRemove": []}
    assert api.put(f"{path}/add-and-remove", json=body).json() == {
        "recordsIdsAdded": ["1001"],
        "recordIdsRemoved": [],
        "recordIdsMissing": ["9"],
    }
    assert api.get(path).json() == {"results": [{"recordId": "1001"}]}
    assert api.put(f"{path}/add-and-remove", json=body | {"recordIdsToAdd": ["a@x.io"]}).status_code == 400
    assert api.put("/crm/v3/lists/77/memberships/add-and-remove", json=body).status_code == 404
    assert hub.lists == {id: {"1001"}}
