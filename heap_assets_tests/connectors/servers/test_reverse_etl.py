"""The stand-ins for Hightouch and Census start runs and tell of them as documented."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from heap_assets_tests.connectors.servers import census, hightouch
from heap_assets_tests.connectors.servers.clients import client
from heap_assets_tests.connectors.servers.core import ManualClock, VendorServer

Http = tuple[Any, httpx.Client]


def opened(server: VendorServer, token: str) -> Iterator[Http]:
    with server, client(server, Authorization=f"Bearer {token}") as http:
        yield server, http


@pytest.fixture
def high() -> Iterator[Http]:
    yield from opened(hightouch.Hightouch(clock=ManualClock()), "token")


@pytest.fixture
def cens() -> Iterator[Http]:
    yield from opened(census.Census(clock=ManualClock()), "personal")


def runs(http: httpx.Client, run: str) -> list[dict[str, Any]]:
    return http.get("/api/v1/syncs/11/runs", params={"runId": run}).json()["data"]


def start(http: httpx.Client, **body: Any) -> str:
    return http.post("/api/v1/syncs/11/trigger", json=body).json()["id"]


def test_hightouch_goes_through_its_states(high: Http) -> None:
    server, http = high
    server.outcomes["11"] = hightouch.Outcome(added=5, changed=3, failed=6)
    run = start(http, fullResync=False)
    told = [runs(http, run)[0] for _ in range(5)]
    assert [state["status"] for state in told] == ["queued", "querying", "processing", "reporting", "warning"]
    assert told[-1]["plannedRows"] == {"addedCount": 5, "changedCount": 3, "removedCount": 0}
    assert told[-1]["successfulRows"] == {"addedCount": 0, "changedCount": 2, "removedCount": 0}
    assert told[-1]["failedRows"] == {"addedCount": 5, "changedCount": 1, "removedCount": 0}
    assert (told[0]["finishedAt"], told[-1]["finishedAt"]) == (None, "2026-01-01T00:00:00.000Z")
    assert server.violations == []


def test_hightouch_returns_the_active_run_or_another(high: Http) -> None:
    server, http = high
    first = start(http)
    assert start(http) == first
    server.overlap = "another"
    assert start(http) != first
    server.overlap, _ = "same", [runs(http, first) for _ in range(5)]
    assert runs(http, first)[0]["status"] == "success"


def test_hightouch_takes_slugs_and_sequences(high: Http) -> None:
    _, http = high
    sync = http.get("/api/v1/syncs/11").json()
    assert sync["slug"] == "users-to-crm"
    assert http.get(f"/api/v1/destinations/{sync['destinationId']}").json()["type"] == "salesforce"
    assert http.get("/api/v1/destinations/99").status_code == 404
    by_slug = http.post("/api/v1/syncs/trigger", json={"syncSlug": "users-to-crm"}).json()["id"]
    assert runs(http, by_slug)[0]["status"] == "queued"
    announced = {"Content-Type": "application/json"}
    assert http.post("/api/v1/sync-sequences/5/trigger", headers=announced).status_code == 200
    assert http.post("/api/v1/sync-sequences/6/trigger", json={}).status_code == 404


def test_hightouch_refuses_the_rest(high: Http) -> None:
    server, http = high
    assert http.post("/api/v1/syncs/12/trigger", json={}).status_code == 404
    assert http.post("/api/v1/syncs/11/trigger", json={"fullResync": "yes"}).status_code == 422
    assert http.post("/api/v1/syncs/11/trigger", json={}, headers={"Authorization": "Bearer x"}).status_code == 401
    assert len(server.violations) == 3


def test_a_run_of_hightouch_can_be_hidden_slow_or_fail(high: Http) -> None:
    server, http = high
    server.hidden_polls = 1
    server.fail("slow_job", seconds=60)
    run = start(http)
    assert runs(http, run) == []
    assert [runs(http, run)[0]["status"] for _ in range(6)][-1] == "reporting"
    server.clock.advance(60)
    assert runs(http, run)[0]["status"] == "success"
    server.hidden_polls = 0
    server.fail("job_fails", status="interrupted", error="Warehouse is away")
    lost = start(http)
    told = [runs(http, lost)[0] for _ in range(5)][-1]
    assert (told["status"], told["error"]) == ("interrupted", "Warehouse is away")


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_census_tells_the_state_inside_an_envelope_of_success(cens: Http, version: str) -> None:
    server, http = cens
    server.outcomes[21] = census.Outcome(source=10, updated=6, failed=3, invalid=1)
    run = http.post(f"/api/{version}/syncs/21/trigger?force_full_sync=true").json()["data"]["sync_run_id"]
    told = [http.get(f"/api/{version}/sync_runs/{run}").json() for _ in range(3)]
    assert {state["status"] for state in told} == {"success"}
    assert [state["data"]["status"] for state in told] == ["working", "working", "completed"]
    data = told[-1]["data"]
    assert (data["full_sync"], data["records_processed"], data["records_failed"]) == (True, 9, 3)
    assert (data["records_updated"], data["records_invalid"]) == (6, 1)
    assert server.violations == []


def test_census_skips_a_run_beside_another(cens: Http) -> None:
    _, http = cens
    first, second = (http.post("/api/v2/syncs/21/trigger").json()["data"]["sync_run_id"] for _ in range(2))
    assert http.get(f"/api/v2/sync_runs/{second}").json()["data"]["status"] == "skipped"
    assert [http.get(f"/api/v2/sync_runs/{first}").json()["data"]["status"] for _ in range(3)][-1] == "completed"
    third = http.post("/api/v2/syncs/21/trigger", json={"force_full_sync": True}).json()["data"]["sync_run_id"]
    told = http.get(f"/api/v2/sync_runs/{third}").json()["data"]
    assert (told["status"], told["full_sync"]) == ("working", True)


def test_a_run_of_census_can_fail_or_be_cancelled(cens: Http) -> None:
    server, http = cens
    server.fail("job_fails", canceled=True)
    run = http.post("/api/v2/syncs/21/trigger").json()["data"]["sync_run_id"]
    data = [http.get(f"/api/v2/sync_runs/{run}").json()["data"] for _ in range(3)][-1]
    assert (data["status"], data["canceled"], data["error_message"]) == ("failed", True, "The query failed")


def test_census_looks_at_tokens_and_ends_version_1(cens: Http) -> None:
    server, http = cens
    key = {"Authorization": "Bearer key"}
    assert http.post("/api/v1/syncs/21/trigger", headers=key).status_code == 200
    assert http.post("/api/v2/syncs/21/trigger", headers=key).status_code == 401
    del http.headers["Authorization"]
    assert http.post("/api/v1/syncs/21/trigger", auth=("bearer", "secret-token:key")).status_code == 200
    server.clock.now = datetime(2027, 1, 15, tzinfo=UTC).timestamp()
    personal = {"Authorization": "Bearer personal"}
    assert http.post("/api/v1/syncs/21/trigger", headers=personal).status_code == 410
    assert http.post("/api/v2/syncs/21/trigger", headers=personal).status_code == 200


def test_census_refuses_the_rest(cens: Http) -> None:
    _, http = cens
    sync = http.get("/api/v2/syncs/21").json()["data"]
    source = sync["source_attributes"]["connection_id"]
    assert http.get(f"/api/v2/sources/{source}").json()["data"]["id"] == source
    assert http.post("/api/v2/syncs/22/trigger").status_code == 404
    assert http.post("/api/v2/syncs/21/trigger?force_full_sync=1").status_code == 400
    assert http.get("/api/v2/sync_runs/99").status_code == 404
