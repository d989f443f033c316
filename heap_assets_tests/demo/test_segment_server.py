"""The stand-in of Segment's tracking API keeps its documented rules, among them its silence."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from heap_assets.demo.server_process import ServerError, ServerProcess, running_server

KEY = "write-key"
TRACK = {"type": "track", "userId": "ann", "event": "Paid", "messageId": "m1", "properties": {"total": 12}}


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server("segment", tmp_path_factory.mktemp("segment"), arguments=["--write-key", KEY]) as server:
        yield server


@pytest.fixture
def segment(process: ServerProcess) -> ServerProcess:
    process.configure(limits=True, window_scale=1)
    process.reset()
    return process


def batch(server: ServerProcess, *events: Any, **more: Any) -> httpx.Response:
    body = {"writeKey": KEY, "batch": list(events), **more}
    return httpx.post(f"{server.base_url}/v1/batch", json=body, timeout=5, trust_env=False)


def test_the_write_key_comes_in_the_body_or_as_basic_auth(segment: ServerProcess) -> None:
    assert batch(segment, TRACK).json() == {"success": True}
    token = base64.b64encode(f"{KEY}:".encode()).decode()
    headers = {"Authorization": f"Basic {token}"}
    body = {"userId": "ann", "traits": {"plan": "pro"}}
    url = f"{segment.base_url}/v1/identify"
    assert httpx.post(url, json=body, headers=headers, trust_env=False).status_code == 200
    state = segment.state()
    assert (state["users"], next(iter(state["events"]))) == ({"ann": {"plan": "pro"}}, "m1")


def test_a_wrong_write_key_is_answered_and_the_data_lost(segment: ServerProcess) -> None:
    assert batch(segment, TRACK, writeKey="other").status_code == 200
    state = segment.state()
    assert (state["events"], state["rejected"][0]["reason"]) == ({}, "write key is missing or unknown")


def test_a_message_id_counts_once(segment: ServerProcess) -> None:
    batch(segment, TRACK, {**TRACK, "event": "Again"})
    batch(segment, TRACK)
    state = segment.state()
    assert (state["events"]["m1"]["event"], state["summary"]["repeated"]) == ("Paid", 2)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({"type": "track", "event": "e"}, "userId and anonymousId"),
        ({"type": "track", "event": "e", "userId": "0"}, "userId and anonymousId"),
        ({"type": "track", "userId": "a"}, "needs event"),
        ({"type": "group", "userId": "a"}, "needs groupId"),
        ({"type": "alias", "userId": "a"}, "previousId"),
        ({"type": "purchase", "userId": "a"}, "unknown"),
        ({**TRACK, "messageId": "m" * 100}, "100 characters"),
        ({**TRACK, "timestamp": "today"}, "ISO 8601"),
        ({**TRACK, "properties": []}, "not an object"),
    ],
)
def test_a_bad_event_is_answered_with_200_and_rejected_later(
    segment: ServerProcess, event: dict[str, Any], reason: str
) -> None:
    good = {**TRACK, "messageId": "good"}
    assert batch(segment, event, good).status_code == 200
    state = segment.state()
    assert list(state["events"]) == ["good"]
    assert reason in state["rejected"][0]["reason"]


def test_what_is_too_large_is_a_400(segment: ServerProcess) -> None:
    large = {**TRACK, "properties": {"text": "x" * 33_000}}
    single = httpx.post(f"{segment.base_url}/v1/track", json={**large, "writeKey": KEY}, trust_env=False)
    assert single.status_code == 400
    assert batch(segment, large).status_code == 400
    fits = {"text": "x" * 30_100}
    many = [{**TRACK, "messageId": str(number), "properties": fits} for number in range(17)]
    assert batch(segment, *many).status_code == 400
    assert batch(segment, *many[:16]).status_code == 200


def test_a_batch_of_too_many_events_is_answered_and_rejected(segment: ServerProcess) -> None:
    tiny = {"type": "track", "userId": "a", "event": "e"}
    assert batch(segment, *[tiny] * 2501).status_code == 200
    assert segment.state(only="summary")["summary"]["rejected"] == 2501
    assert batch(segment, *[tiny] * 2500).status_code == 200
    assert segment.state(only="summary")["summary"]["events"] == 2500


def test_groups_and_aliases_are_kept(segment: ServerProcess) -> None:
    batch(
        segment,
        {"type": "group", "userId": "ann", "groupId": "acme", "traits": {"name": "Acme"}},
        {"type": "alias", "previousId": "x", "userId": "ann"},
        integrations={"Heap": False},
    )
    state = segment.state()
    assert state["groups"] == {"acme": {"traits": {"name": "Acme"}, "members": ["ann"]}}
    assert state["aliases"] == {"x": "ann"}
    assert all(event["integrations"] == {"Heap": False} for event in state["events"].values())


def test_a_thousand_requests_a_second_per_workspace(segment: ServerProcess) -> None:
    segment.configure(window_scale=120)
    with httpx.Client(base_url=segment.base_url, trust_env=False) as client:
        statuses = [
            client.post("/v1/track", json={"writeKey": KEY, "userId": "a", "event": "e"}).status_code
            for _ in range(1001)
        ]
        refused = client.post("/v1/track", json={"writeKey": KEY, "userId": "a", "event": "e"})
    assert statuses == [200] * 1000 + [429]
    assert float(refused.headers["Retry-After"]) > 0
    assert "X-RateLimit-Reset" in refused.headers


def test_an_eu_workspace_loses_what_is_sent_to_the_us_host(tmp_path: Path) -> None:
    with running_server("segment", tmp_path, arguments=["--region", "eu"]) as server:
        url = f"{server.wrong_region_url}/v1/batch"
        assert httpx.post(url, json={"writeKey": KEY, "batch": [TRACK]}, trust_env=False).status_code == 200
        assert server.state()["summary"] == {
            "users": 0, "groups": 0, "events": 0, "rejected": 0, "repeated": 0, "lost": 1,
        }  # fmt: skip


def test_state_survives_a_kill(tmp_path: Path) -> None:
    with running_server("segment", tmp_path) as first:
        batch(first, TRACK, {"type": "track"})
        before = first.state()
        first.kill()
    with running_server("segment", tmp_path) as second:
        assert second.state() == before


def test_there_is_nothing_to_seed(segment: ServerProcess) -> None:
    with pytest.raises(ServerError, match="nothing to seed"):
        segment.seed(["ann"])
