"""The stand-ins for deletion take the documented calls, refuse the others, and take their days."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from heap_assets_tests.connectors.servers.clients import client
from heap_assets_tests.connectors.servers.core import ManualClock, VendorServer
from heap_assets_tests.connectors.servers.deletions import DAY, AmplitudeDeletion, MixpanelDeletion, SegmentDeletion
from heap_assets_tests.connectors.servers.shapes import basic

Http = tuple[Any, httpx.Client]
MIXPANEL = "/api/app/data-deletions/v3.0/"
AMPLITUDE = "/api/2/deletions/users"


def opened(server: VendorServer, authorization: str, **query: str) -> Iterator[Http]:
    with server, client(server, Authorization=authorization) as http:
        http.params = query
        yield server, http


@pytest.fixture
def segment() -> Iterator[Http]:
    yield from opened(SegmentDeletion(clock=ManualClock()), "Bearer token")


@pytest.fixture
def amplitude() -> Iterator[Http]:
    yield from opened(AmplitudeDeletion(clock=ManualClock(), known={"u-1", "u-2", "7"}), basic("key", "secret"))


@pytest.fixture
def mixpanel() -> Iterator[Http]:
    yield from opened(MixpanelDeletion(clock=ManualClock()), "Bearer oauth", token="token")


def regulation(*ids: Any, kind: str = "SUPPRESS_WITH_DELETE") -> dict[str, Any]:
    return {"regulationType": kind, "subjectType": "USER_ID", "subjectIds": list(ids)}


def test_segment_suppresses_at_once_and_deletes_in_a_month(segment: Http) -> None:
    server, http = segment
    number = http.post("/regulations", json=regulation("u-1")).json()["data"]["regulateId"]

    def status() -> str:
        return http.get(f"/regulations/{number}").json()["data"]["regulation"]["overallStatus"]

    assert (status(), server.suppressed, server.deleted) == ("INITIALIZED", {"u-1"}, set())
    server.clock.advance(DAY)
    assert status() == "RUNNING"
    server.clock.advance(29 * DAY)
    assert (status(), server.deleted) == ("FINISHED", {"u-1"})
    http.post("/regulations", json=regulation("u-1", kind="UNSUPPRESS"))
    http.post("/regulations", json=regulation("u-2", kind="DELETE_ONLY"))
    assert server.suppressed == set()


def test_segment_refuses_the_rest(segment: Http) -> None:
    server, http = segment
    many = [f"u-{number}" for number in range(5_001)]
    for body in (regulation(*many), regulation(), regulation(1), regulation("u", kind="DELETE"), {}, []):
        assert http.post("/regulations", json=body).status_code == 400
    assert http.get("/regulations/none").status_code == 404
    assert http.get("/regulations/none", headers={"Authorization": "Bearer x"}).status_code == 401
    server.fail("job_fails", status="PARTIAL_SUCCESS")
    number = http.post("/regulations", json=regulation("u-1")).json()["data"]["regulateId"]
    server.clock.advance(30 * DAY)
    assert http.get(f"/regulations/{number}").json()["data"]["regulation"]["overallStatus"] == "PARTIAL_SUCCESS"
    assert server.deleted == set()


def test_segment_has_a_number_of_users_a_month(segment: Http) -> None:
    _, http = segment
    bodies = [regulation(*[f"u-{batch}-{number}" for number in range(5_000)]) for batch in range(23)]
    statuses = [http.post("/regulations", json=body).status_code for body in bodies]
    assert statuses == [200] * 22 + [429]


def test_amplitude_stages_submits_and_is_done(amplitude: Http) -> None:
    server, http = amplitude
    told = http.post(AMPLITUDE, json={"user_ids": ["u-1"], "amplitude_ids": [7], "requester": "me"}).json()
    day, statuses = told[0]["day"], []
    for days in (1, 9, 3):
        server.clock.advance(days * DAY)
        statuses.append(http.get(AMPLITUDE, params={"start_day": day, "end_day": day}).json()[0]["status"])
    assert (day, statuses, server.deleted) == ("2026-01-14", ["staging", "submitted", "done"], {"u-1", "7"})


def test_amplitude_fails_a_request_for_one_unknown_id(amplitude: Http) -> None:
    server, http = amplitude
    body = {"user_ids": ["u-1", "stranger"], "requester": "me"}
    assert http.post(AMPLITUDE, json=body).status_code == 400
    for name in ("ignore_invalid_id", "ignore_invalid_ids"):
        server.clock.advance(1)
        assert http.post(AMPLITUDE, json={**body, name: "true"}).status_code == 200
    assert http.post(AMPLITUDE, json=body).status_code == 429


def test_amplitude_takes_a_request_back_while_it_is_staged(amplitude: Http) -> None:
    server, http = amplitude
    day = http.post(AMPLITUDE, json={"user_ids": ["u-1", "u-2"]}).json()[0]["day"]
    server.clock.advance(1)
    assert http.delete(f"{AMPLITUDE}/u-1/{day}").status_code == 200
    server.clock.advance(13 * DAY)
    assert http.delete(f"{AMPLITUDE}/u-2/{day}").status_code == 404
    assert server.deleted == {"u-2"}


@pytest.mark.parametrize("body", [{}, {"user_ids": [1]}, {"user_ids": ["u-1"] * 101}, {"amplitude_ids": ["7"]}, []])
def test_amplitude_refuses_the_rest(amplitude: Http, body: Any) -> None:
    assert amplitude[1].post(AMPLITUDE, json=body).status_code == 400


def test_mixpanel_goes_through_its_states(mixpanel: Http) -> None:
    server, http = mixpanel
    body = {"distinct_ids": ["u-1"], "compliance_type": "GDPR"}
    number = http.post(MIXPANEL, json=body).json()["results"][0]["tracking_id"]
    statuses = []
    for days in (1, 15, 15):
        server.clock.advance(days * DAY)
        statuses.append(http.get(MIXPANEL + number).json()["results"]["status"])
    assert (statuses, server.deleted) == (["STAGING", "STARTED", "SUCCESS"], {"u-1"})
    server.clock.advance(1)
    assert http.delete(MIXPANEL + number).status_code == 400


def test_mixpanel_cancels_before_the_start(mixpanel: Http) -> None:
    server, http = mixpanel
    body = {"distinct_ids": ["u-1"], "compliance_type": "CCPA"}
    number = http.post(MIXPANEL, json=body).json()["results"][0]["tracking_id"]
    server.clock.advance(1)
    assert http.delete(MIXPANEL + number).status_code == 204
    server.clock.advance(31 * DAY)
    assert http.get(MIXPANEL + number).json()["results"]["status"] == "REVOKED"
    assert server.deleted == set()


@pytest.mark.parametrize(
    "wrong", [{"distinct_ids": []}, {"distinct_ids": ["u"] * 2_000}, {"compliance_type": "gdpr"}, {"distinct_ids": [1]}]
)
def test_mixpanel_refuses_the_rest(mixpanel: Http, wrong: dict[str, Any]) -> None:
    _, http = mixpanel
    body = {"distinct_ids": ["u-1"], "compliance_type": "GDPR", **wrong}
    assert http.post(MIXPANEL, json=body).status_code == 400


def test_mixpanel_takes_a_call_a_second_of_a_person(mixpanel: Http) -> None:
    _, http = mixpanel
    assert http.get(MIXPANEL + "none").json()["results"]["status"] == "NOT_FOUND"
    assert http.get(MIXPANEL + "none").status_code == 429
    assert http.get(MIXPANEL + "none", headers={"Authorization": "Bearer x"}).status_code == 401
    assert http.get(MIXPANEL + "none", params={"token": "x"}).status_code == 403
