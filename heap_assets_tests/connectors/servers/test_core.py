"""The core of the stand-in servers, by a toy vendor: limits on a set clock, tokens, jobs, every fault."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from heap_assets_tests.connectors.servers.clients import client
from heap_assets_tests.connectors.servers.core import (
    Answer,
    AtOnce,
    Call,
    Fixed,
    ManualClock,
    Sliding,
    VendorServer,
    Violation,
    route,
)


class Toy(VendorServer):
    def authorise(self, call: Call) -> None:
        if not self.tokens.lives(self.bearer(call), self.clock()):
            raise self.refuse(self.unauthorised(call), None if self.tokens.knows(self.bearer(call)) else "a token")

    def throttled(self, call: Call, wait: float, limit: Any, **options: Any) -> Answer:
        return Answer(429, options, {"Retry-After": f"{wait:g}"})

    @route("POST", "/token", "token", takes="application/x-www-form-urlencoded")
    def token(self, call: Call) -> Any:
        return {"access_token": self.tokens.issue(60, self.clock()), "asked": call.body}

    @route("PUT", "/rows/{key}.json")
    def put(self, call: Call, key: str) -> Any:
        if self.bad_row([key], call) is not None:
            return Answer(422, {"key": key})
        self.table("row")[key] = call.body
        return None

    @route("GET", "/rows/{key}.json")
    def get(self, call: Call, key: str) -> Any:
        return self.table("row")[key]

    @route("POST", "/rows/search.json", "read")
    def search(self, call: Call) -> Any:
        return len(self.table("row"))

    @route("POST", "/jobs")
    def start(self, call: Call) -> Any:
        return {"id": self.start_job(call, rows=call.body).id}

    @route("GET", "/jobs/{job}")
    def poll(self, call: Call, job: str) -> Any:
        one = self.jobs[job]
        return {"done": self.is_done(one), "fails": one.fails}


def session(server: VendorServer) -> httpx.Client:
    with client(server) as anyone:
        token = anyone.post("/token", data={"grant_type": "x"}).json()["access_token"]
    return client(server, Authorization=f"Bearer {token}")


def test_a_call_is_kept_with_its_decoded_body_and_what_was_answered() -> None:
    with Toy(clock=ManualClock(5.0)) as server, session(server) as api:
        assert api.put("/rows/a%20b.json?x=1&x=2", json={"n": 1}).status_code == 204
        assert api.get("/rows/a b.json").json() == {"n": 1}
        put = server.calls[1]
        assert (put.method, put.path, put.body, put.at, put.status) == ("PUT", "/rows/a b.json", {"n": 1}, 5.0, 204)
        assert put.query.getlist("x") == ["1", "2"]
        assert server.records == {"row": {"a b": {"n": 1}}}
        assert api.post("/rows/search.json", json={}).json() == 1  # and not a row of that name
        assert server.violations == []


def test_what_no_document_allows_is_refused_and_told() -> None:
    with Toy() as server, session(server) as api:
        assert api.put("/rows/1.json", content=b"{", headers={"Content-Type": "application/json"}).status_code == 400
        assert api.put("/rows/1.json", data={"a": "b"}).status_code == 400
        assert api.delete("/rows/1.json").status_code == 404
        assert api.get("/nowhere").status_code == 404
        assert api.get("/rows/1.json", headers={"Authorization": "Bearer made-up"}).status_code == 401
        assert api.put("/rows/1.json", json={}, headers={"Content-Encoding": "gzip"}).status_code == 415
        assert [violation.rule for violation in server.violations] == [
            "the body is JSON",
            "Content-Type is one of ['application/json']",
            "DELETE is documented for the path",
            "GET is documented for the path",
            "a token",
            "bodies are not compressed",
        ]
        assert server.records == {}


def test_an_old_token_is_refused_without_being_a_violation() -> None:
    clock = ManualClock()
    with Toy(clock=clock) as server, session(server) as api:
        clock.advance(59)
        assert api.put("/rows/1.json", json={}).status_code == 204
        clock.advance(1)
        assert api.put("/rows/1.json", json={}).status_code == 401
        with session(server) as other:
            assert other.put("/rows/1.json", json={}).status_code == 204
        assert server.violations == []


def test_a_sliding_window_frees_what_is_old_enough() -> None:
    limit = Sliding("3 in 10 s", 3, 10)
    assert [_take(limit, at) for at in (0, 4, 8, 9)] == [0, 0, 0, 1]
    assert _take(limit, 10) == 0
    assert (limit.left(10), limit.resets(10)) == (0, 14)


def test_a_fixed_window_frees_all_at_its_end() -> None:
    limit = Fixed("3 in 10 s", 3, 10)
    assert [_take(limit, at) for at in (8, 8, 9, 9, 10, 19, 19, 19)] == [0, 0, 0, 1, 0, 0, 0, 1]


def test_a_daily_quota_ends_at_midnight_of_its_zone() -> None:
    limit = Fixed("2 a day", 2, zone="America/Chicago")
    now = datetime(2026, 3, 8, 5, 30, tzinfo=UTC).timestamp()  # 23:30 there, on the eve of a day of 23 hours
    assert [_take(limit, now) for _ in range(3)] == [0, 0, 1800]
    assert [_take(limit, now + 1800) for _ in range(3)] == [0, 0, 23 * 3600]


def _take(limit: Sliding | Fixed, at: float) -> float:
    wait = limit.wait(None, at)
    if not wait:
        limit.take(None, at)
    return wait


def test_a_server_holds_its_limits_and_a_refused_call_takes_nothing_of_them() -> None:
    clock = ManualClock(100.0)
    limits = [Sliding("3 in 10 s", 3, 10), Sliding("2 puts", 2, 10, cost=lambda call: call.method == "PUT")]
    with Toy(clock=clock, limits=limits) as server, session(server) as api:
        assert [api.put("/rows/1.json", json={}).status_code for _ in range(4)] == [204, 204, 429, 429]
        assert api.get("/rows/1.json").status_code == 200
        refused = api.get("/rows/1.json")
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "10")
        clock.advance(10)
        assert api.get("/rows/1.json").status_code == 200
        assert [v.rule for v in server.violations] == ["limit: 2 puts"] * 2 + ["limit: 3 in 10 s"]


def test_calls_at_once_are_counted_while_they_run() -> None:
    with Toy(limits=[AtOnce("2 at once", 2)], latency=0.2) as server, session(server) as api:
        statuses: list[int] = []

        def put() -> None:
            statuses.append(api.put("/rows/1.json", json={}).status_code)

        for _ in range(2):
            threads = [threading.Thread(target=put) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert sorted(statuses) == [204] * 4 + [429] * 2
        assert server.violations == [Violation("limit: 2 at once", "/rows/1.json")] * 2


@pytest.mark.parametrize(("kind", "status"), [("throttle", 429), ("server_error", 500), ("refuse_batch", 400)])
def test_a_fault_answers_as_often_as_asked_and_changes_nothing(kind: Any, status: int) -> None:
    with Toy() as server, session(server) as api:
        server.fail(kind, times=2, skip=1)
        assert [api.put(f"/rows/{n}.json", json={}).status_code for n in range(4)] == [204, status, status, 204]
        assert set(server.records["row"]) == {"0", "3"}
        assert server.violations == []


def test_options_of_a_fault_go_to_the_vendors_answer() -> None:
    with Toy() as server, session(server) as api:
        server.fail("throttle", path="rows/2", wait=7, code="daily", times=2)
        server.fail("server_error", status=503)
        assert api.put("/rows/1.json", json={}).status_code == 503
        for _ in range(2):
            refused = api.put("/rows/2.json", json={})
            assert (refused.status_code, refused.json()) == (429, {"code": "daily"})
            assert refused.headers["Retry-After"] == "7"


def test_token_expired_ends_all_tokens() -> None:
    with Toy() as server, session(server) as api:
        server.fail("token_expired", skip=1)
        assert [api.put("/rows/1.json", json={}).status_code for _ in range(3)] == [204, 401, 401]
        with session(server) as other:
            assert other.put("/rows/1.json", json={}).status_code == 204


def test_accepted_and_never_answered() -> None:
    with Toy() as server, session(server) as api:
        server.fail("accept_then_no_answer")
        server.fail("accept_then_no_answer", seconds=60, path="2")
        with pytest.raises(httpx.TransportError):
            api.put("/rows/1.json", json={"n": 1})
        start = time.monotonic()
        with pytest.raises(httpx.ReadTimeout):
            api.put("/rows/2.json", json={"n": 2}, timeout=0.1)
        assert time.monotonic() - start < 5
        assert server.records["row"] == {"1": {"n": 1}, "2": {"n": 2}}
        assert [call.status for call in server.calls[1:]] == [None, None]


def test_cut_before_reading() -> None:
    with Toy() as server, session(server) as api:
        server.fail("cut_before")
        with pytest.raises(httpx.TransportError):
            api.put("/rows/1.json", json={"n": 1})
        assert server.records == {}
        assert api.put("/rows/1.json", json={"n": 1}).status_code == 204


def test_a_bad_row_stays_bad_until_healed() -> None:
    with Toy() as server, session(server) as api:
        server.fail("bad_row", key="2")
        assert [api.put(f"/rows/{n}.json", json={}).status_code for n in (1, 2, 3, 2)] == [204, 422, 204, 422]
        server.heal()
        assert api.put("/rows/2.json", json={}).status_code == 204


def test_jobs_take_polls_and_time_and_can_fail() -> None:
    clock = ManualClock()
    with Toy(clock=clock) as server, session(server) as api:
        server.fail("slow_job", seconds=30, skip=1)
        server.fail("job_fails", skip=2, done=1)
        quick, slow, failing = (api.post("/jobs", json=[]).json()["id"] for _ in range(3))
        assert [api.get(f"/jobs/{quick}").json()["done"] for _ in range(2)] == [False, True]
        assert [api.get(f"/jobs/{slow}").json()["done"] for _ in range(3)] == [False, False, False]
        clock.advance(30)
        assert api.get(f"/jobs/{slow}").json()["done"]
        assert [api.get(f"/jobs/{failing}").json() for _ in range(2)][-1] == {"done": True, "fails": {"done": 1}}


def test_a_server_that_fails_itself_fails_the_test() -> None:
    with pytest.raises(AssertionError, match="Toy itself failed"), Toy() as server, session(server) as api:
        assert api.get("/rows/none.json").status_code == 500
