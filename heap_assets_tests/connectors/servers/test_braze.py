"""The stand-in for Braze is as strict as its documents; calls as the fact sheet has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from heap_assets_tests.connectors.servers.braze import BrazeServer
from heap_assets_tests.connectors.servers.clients import client
from heap_assets_tests.connectors.servers.core import ManualClock

TRACK = "/users/track"
ATTRIBUTES = {
    "external_id": "u-1",
    "_update_existing_only": True,
    "product_stage": "Onboarding",
    "has_invited_team": False,
}
EVENT = {
    "external_id": "u-1",
    "name": "Trial Expiring Soon",
    "time": "2026-01-02T03:04:05Z",
    "properties": {"plan": "pro"},
}


@pytest.fixture
def workspace() -> Iterator[BrazeServer]:
    with BrazeServer(clock=ManualClock()) as server:
        yield server


@pytest.fixture
def api(workspace: BrazeServer) -> Iterator[httpx.Client]:
    with client(workspace, Authorization="Bearer key-1") as one:
        yield one


def person(key: str, **values: Any) -> dict[str, Any]:
    return {"external_id": key, **values}


def track(api: httpx.Client, **arrays: Any) -> tuple[int, Any]:
    answer = api.post(TRACK, json=arrays)
    return answer.status_code, answer.json()


def test_the_sheets_own_example_is_taken(workspace: BrazeServer, api: httpx.Client) -> None:
    track(api, attributes=[person("u-1", email="a@x.io")])
    told = {"message": "success", "attributes_processed": 1, "events_processed": 1}
    assert track(api, attributes=[ATTRIBUTES], events=[EVENT]) == (201, told)
    assert workspace.records["user"] == {
        "braze-1": {
            "braze_id": "braze-1",
            "external_id": "u-1",
            "email": "a@x.io",
            "product_stage": "Onboarding",
            "has_invited_team": False,
        }
    }
    assert workspace.events == [EVENT | {"of": "braze-1", "array": "events"}]
    assert workspace.violations == []


def test_an_index_counts_within_its_array_and_neighbours_are_taken(workspace: BrazeServer, api: httpx.Client) -> None:
    workspace.fail("bad_row", key="u-2", message="blacklisted")
    attributes = [person("u-1", a=1), person("u-2", a=1), {"a": 1}]
    events = [EVENT, {**EVENT, "time": "yesterday"}]
    status, told = track(api, attributes=attributes, events=events)
    assert (status, told["attributes_processed"], told["events_processed"]) == (201, 1, 1)
    assert [(one["input_array"], one["index"]) for one in told["errors"]] == [
        ("attributes", 1),
        ("attributes", 2),
        ("events", 1),
    ]
    assert told["errors"][0] == {"type": "blacklisted", "input_array": "attributes", "index": 1}
    assert [violation.row for violation in workspace.violations] == [True, True]
    assert track(api, attributes=attributes[1:])[0] == 400


@pytest.mark.parametrize(
    "row",
    [
        {"a": 1},
        {"external_id": "u", "braze_id": "b"},
        {"external_id": ""},
        {"external_id": 7},
        {"user_alias": "x"},
        person("u", **{"$a": 1}),
        person("u", a="x" * 256),
        person("u", **{"k" * 256: 1}),
        person("u", logins={"inc": 1}),
        person("u", _update_existing_only="true"),
    ],
)
def test_an_object_that_is_none(workspace: BrazeServer, api: httpx.Client, row: dict[str, Any]) -> None:
    status, told = track(api, attributes=[person("good"), row])
    assert (status, [one["index"] for one in told["errors"]]) == (201, [1])
    assert [one["external_id"] for one in workspace.records["user"].values()] == ["good"]


def test_update_only_drops_in_silence_and_is_the_default_of_aliases(workspace: BrazeServer, api: httpx.Client) -> None:
    alias = {"user_alias": {"alias_name": "a", "alias_label": "b"}, "x": 1}
    assert track(api, attributes=[ATTRIBUTES, alias]) == (201, {"message": "success", "attributes_processed": 2})
    assert workspace.records.get("user", {}) == {}
    track(api, attributes=[alias | {"_update_existing_only": False}, {"email": "a@x.io", "y": 1}])
    assert len(workspace.records["user"]) == 2


def test_by_e_mail_the_newest_with_an_external_id_wins(workspace: BrazeServer, api: httpx.Client) -> None:
    track(api, attributes=[person("u-1", email="a@x.io"), person("u-2", email="a@x.io"), {"email": "b@x.io"}])
    track(api, attributes=[{"email": "a@x.io", "n": 1}])
    assert {user.get("external_id") for user in workspace.records["user"].values() if "n" in user} == {"u-2"}
    track(api, attributes=[person("u-2", email="c@x.io"), person("u-1", email=None)])
    track(api, attributes=[{"email": "c@x.io", "n": 2}, {"email": "a@x.io", "m": 1}])
    assert [user.get("n") for user in workspace.records["user"].values()] == [None, 2, None, None]


def test_events_are_never_deduplicated_and_attributes_are_always_billed(
    workspace: BrazeServer, api: httpx.Client
) -> None:
    track(api, attributes=[person("u-1")])
    for _ in range(2):
        track(api, attributes=[person("u-1", a=1, b=2)], events=[EVENT])
    assert (len(workspace.events), workspace.data_points) == (2, 6)


def test_values(workspace: BrazeServer, api: httpx.Client) -> None:
    track(api, attributes=[person("u-1", a="x", tags={"add": ["p", "q"]}, n={"b": 1}, at={"$time": "2026-01-01"})])
    track(api, attributes=[person("u-1", a=None, tags={"remove": ["p"]})])
    held = workspace.records["user"]["braze-1"]
    assert ("a" in held, held["tags"], held["n"]) == (False, ["q"], {"b": 1})
    track(api, attributes=[person("u-1", n={"b": 2}), person("u-2", n={"b": None}, c=1)])
    assert workspace.records["user"]["braze-1"]["n"] == {"b": 1}
    assert workspace.records["user"]["braze-2"] == {"braze_id": "braze-2", "external_id": "u-2", "c": 1}


def test_both_stories_of_the_batch() -> None:
    rows = [person(f"u-{n}") for n in range(76)]
    for batch, most, attributes, events, status in (
        ("together", 75, 75, 0, 201),
        ("together", 75, 74, 2, 400),
        ("together", 50, 51, 0, 400),
        ("each", 75, 75, 75, 201),
        ("each", 75, 76, 0, 400),
    ):
        with BrazeServer(batch=batch, most=most) as workspace, client(workspace, Authorization="Bearer key-1") as api:
            answer = track(api, attributes=rows[:attributes], events=[EVENT] * events)
            assert answer[0] == status
            assert len(workspace.violations) == (status == 400)
            if status == 400:
                assert answer[1] == {"message": "Max Input Length Exceeded"}


@pytest.mark.parametrize("body", [{}, {"attributes": []}, {"users": [{}]}, [ATTRIBUTES], {"attributes": ATTRIBUTES}])
def test_a_malformed_body(workspace: BrazeServer, api: httpx.Client, body: Any) -> None:
    assert api.post(TRACK, json=body).status_code == 400
    assert len(workspace.violations) == 1


def test_bulk_is_a_closed_beta(workspace: BrazeServer, api: httpx.Client) -> None:
    rows = [person(f"u-{n}") for n in range(1001)]
    assert api.post(f"{TRACK}/bulk", json={"attributes": rows[:1]}).status_code == 404
    workspace.bulk = True
    assert api.post(f"{TRACK}/bulk", json={"attributes": rows[1:]}).status_code == 201
    assert api.post(f"{TRACK}/bulk", json={"attributes": rows}).status_code == 400
    assert api.post(f"{TRACK}/bulk", json={"attributes": rows[:1] * 101}).status_code == 400
    assert api.post(f"{TRACK}/sync", json={"attributes": rows[:2]}).status_code == 400
    assert api.post(f"{TRACK}/sync", json={"attributes": rows[:1]}).status_code == 201


def test_the_key_and_its_permissions(workspace: BrazeServer, api: httpx.Client) -> None:
    with client(workspace, Authorization="Bearer x") as other:
        assert other.post(TRACK, json={"attributes": [ATTRIBUTES]}).status_code == 401
    workspace.permissions.clear()
    assert track(api, attributes=[ATTRIBUTES])[0] == 403


def test_maintenance_queues_what_it_takes() -> None:
    with BrazeServer(queued=True) as workspace, client(workspace, Authorization="Bearer key-1") as api:
        assert track(api, attributes=[person("u-1")], events=[EVENT]) == (202, {"message": "queued"})
        assert len(workspace.events) == 1


def test_a_throttle_tells_when_to_come_back_in_another_header() -> None:
    clock = ManualClock()
    workspace = BrazeServer(clock=clock, calls_in_three_seconds=2)
    with workspace, client(workspace, Authorization="Bearer key-1") as api:
        first = api.post(TRACK, json={"attributes": [person("u-1")]})
        assert [first.headers[f"X-RateLimit-{name}"] for name in ("Limit", "Remaining", "Reset")] == [
            "2",
            "1",
            "1767225603",
        ]
        api.post(TRACK, json={"attributes": [person("u-1")]})
        refused = api.post(TRACK, json={"attributes": [person("u-1")]})
        assert (refused.status_code, refused.headers["X-Ratelimit-Retry-After"]) == (429, "3")
        assert "X-RateLimit-Reset" not in refused.headers
        clock.advance(3)
        assert track(api, attributes=[person("u-1")])[0] == 201


def test_profiles_are_exported(api: httpx.Client) -> None:
    track(api, attributes=[person("u-1", a=1)])
    exported = api.post("/users/export/ids", json={"external_ids": ["u-1", "u-2"]}).json()
    assert (exported["users"][0]["a"], exported["invalid_user_ids"]) == (1, ["u-2"])
