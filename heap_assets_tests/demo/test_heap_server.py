"""The stand-in of Heap's HTTP API keeps Heap's documented rules, its state, and its orders to fail."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heap_assets.demo.server_heap_rules import Refused, check_properties, check_user_id
from heap_assets.demo.server_process import ServerError, ServerProcess, running_server

USER = {"identity": "ann@example.com", "properties": {"Plan": "pro", "seats": 3}}
EVENT = {"identity": "ann@example.com", "event": "Paid", "properties": {"total": 12.5}}


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server("heap", tmp_path_factory.mktemp("heap")) as server:
        yield server


@pytest.fixture
def heap(process: ServerProcess) -> ServerProcess:
    process.configure(limits=True, window="sliding", window_scale=1, retry_after=True, bulk_invalid="reject")
    process.reset()
    return process


def post(server: ServerProcess, path: str, body: Any, timeout: float = 5.0) -> httpx.Response:
    return httpx.post(server.base_url + path, json=body, timeout=timeout, trust_env=False)


def users(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"app_id": "11", "users": list(rows)}


def events(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"app_id": "11", "events": list(rows)}


def test_single_and_bulk_user_properties_overwrite_and_add(heap: ServerProcess) -> None:
    answer = post(heap, "/api/add_user_properties", {"app_id": "11", **USER})
    assert (answer.status_code, answer.text) == (200, "{}")
    post(heap, "/api/add_user_properties", users({"identity": "ann@example.com", "properties": {"Plan": "team"}}))
    assert heap.state()["users"]["ann@example.com"]["properties"] == {"Plan": "team", "seats": 3}


def test_an_unknown_identity_becomes_a_ghost_until_an_event_comes(heap: ServerProcess) -> None:
    heap.seed(["bob@example.com"])
    post(heap, "/api/add_user_properties", users(USER, {"identity": "bob@example.com", "properties": {}}))
    assert heap.state()["ghost_users"] == ["ann@example.com"]
    post(heap, "/api/track", {"app_id": "11", **EVENT})
    assert heap.state()["ghost_users"] == []


def test_identities_are_case_sensitive(heap: ServerProcess) -> None:
    post(heap, "/api/add_user_properties", users(USER, {"identity": "Ann@example.com", "properties": {}}))
    assert set(heap.state()["users"]) == {"ann@example.com", "Ann@example.com"}


def test_a_repeated_idempotency_key_is_answered_and_ignored(heap: ServerProcess) -> None:
    for total in (1, 2):
        row = {**EVENT, "idempotency_key": "order-1", "properties": {"total": total}}
        assert post(heap, "/api/track", events(row)).status_code == 200
    state = heap.state()
    assert state["events"]["order-1"]["properties"] == {"total": 1}
    assert state["summary"]["repeated_keys"] == 1


def test_accounts_answer_in_plain_text(heap: ServerProcess) -> None:
    good = post(heap, "/api/add_account_properties", {"app_id": "11", "account_id": "Acme", "properties": {"arr": 1}})
    assert (good.status_code, good.text, good.headers["content-type"]) == (200, "OK", "text/plain")
    bad = post(heap, "/api/add_account_properties", {"app_id": "11", "account_id": "", "properties": {}})
    assert (bad.status_code, bad.headers["content-type"]) == (400, "text/plain")
    assert heap.state()["accounts"] == {"Acme": {"arr": 1}}


def test_a_user_id_takes_one_identity_and_an_identity_ten_user_ids_a_month(heap: ServerProcess) -> None:
    for number in range(12):
        body = {"app_id": "11", "user_id": str(number), "identity": "ann@example.com"}
        assert post(heap, "/api/v1/identify", body).status_code == 200
    assert post(heap, "/api/v1/identify", {"app_id": "11", "user_id": "0", "identity": "bob"}).status_code == 200
    state = heap.state()
    assert state["identify"] == {str(number): "ann@example.com" for number in range(10)}
    assert (state["summary"]["identify_ignored"], state["summary"]["identify_dropped"]) == (2, 1)


def test_identify_brings_anonymous_events_along(heap: ServerProcess) -> None:
    post(heap, "/api/track", events({"user_id": "77", "event": "Seen"}))
    post(heap, "/api/v1/identify", {"app_id": "11", "user_id": "77", "identity": "ann"})
    assert heap.state(identity="ann")["user"]["events"] == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/track", {"event": "e", "identity": "a"}),
        ("/api/track", {"app_id": "", "event": "e", "identity": "a"}),
        ("/api/track", {"app_id": 11, "event": "e", "identity": "a"}),
        ("/api/track", {"app_id": "11", "identity": "a"}),
        ("/api/track", {"app_id": "11", "event": "", "identity": "a"}),
        ("/api/track", {"app_id": "11", "event": "e" * 1025, "identity": "a"}),
        ("/api/track", {"app_id": "11", "event": "e"}),
        ("/api/track", {"app_id": "11", "event": "e", "identity": "a", "user_id": "1"}),
        ("/api/track", {"app_id": "11", "event": "e", "identity": ""}),
        ("/api/track", {"app_id": "11", "event": "e", "identity": "a" * 256}),
        ("/api/track", {"app_id": "11", "event": "e", "user_id": 1}),
        ("/api/track", {"app_id": "11", "event": "e", "user_id": "-1"}),
        ("/api/track", {"app_id": "11", "event": "e", "user_id": str(2**53)}),
        ("/api/track", {"app_id": "11", "event": "e", "identity": "a", "timestamp": "yesterday"}),
        ("/api/track", {"app_id": "11", "event": "e", "identity": "a", "properties": {"k": "v" * 1024}}),
        ("/api/track", {"app_id": "11", "event": "e", "identity": "a", "properties": {"k" * 1024: "v"}}),
        ("/api/track", {"app_id": "11", "event": "e", "identity": "a", "properties": {"k": None}}),
        ("/api/track", {"app_id": "11", "events": {"event": "e"}}),
        ("/api/track", {"app_id": "11", "events": [EVENT] * 1001}),
        ("/api/track", {"app_id": "11", "events": [EVENT, {"identity": "a"}]}),
        ("/api/add_user_properties", {"app_id": "11", "user_id": "1", "properties": {}}),
        ("/api/add_user_properties", {"app_id": "11", "identity": "a", "properties": {"iD": "1"}}),
        ("/api/add_user_properties", {"app_id": "11", "identity": "a", "properties": {"b": True}}),
        ("/api/add_user_properties", {"app_id": "11", "identity": "a", "properties": {"b": {"c": 1}}}),
        ("/api/add_user_properties", {"app_id": "11", "users": [USER] * 1001}),
        ("/api/add_account_properties", {"app_id": "11", "accounts": [{"properties": {}}]}),
        ("/api/v1/identify", {"app_id": "11", "user_id": "1"}),
        ("/api/v1/identify", {"app_id": "11", "user_id": "x", "identity": "a"}),
        ("/api/v1/identify", ["no object"]),
    ],
)
def test_what_the_documents_forbid_is_a_400_and_changes_nothing(heap: ServerProcess, path: str, body: Any) -> None:
    assert post(heap, path, body).status_code == 400
    summary = heap.state(only="summary")["summary"]
    assert (summary["users"], summary["events"], summary["accounts"]) == (0, 0, 0)


def test_a_body_that_is_no_json_or_not_declared_as_json_is_a_400(heap: ServerProcess) -> None:
    url = heap.base_url + "/api/track"
    headers = {"Content-Type": "application/json"}
    for content in (b"{", b'{"app_id":"11","event":"e","identity":"a","properties":{"x":NaN}}'):
        assert httpx.post(url, content=content, headers=headers, trust_env=False).status_code == 400
    assert httpx.post(url, content=b'{"app_id":"11"}', trust_env=False).status_code == 400


@given(st.text(max_size=1100))
def test_text_lengths_count_utf16_units(text: str) -> None:
    units = len(text.encode("utf-16-le", "surrogatepass")) // 2
    if units > 1023:
        with pytest.raises(Refused):
            check_properties({"k": text})
    else:
        assert check_properties({"k": text}) == {"k": text}


@given(st.integers(min_value=-5, max_value=2**60))
def test_user_ids_are_the_numbers_up_to_2_to_the_53(number: int) -> None:
    if 0 <= number < 2**53:
        check_user_id(str(number))
    else:
        with pytest.raises(Refused):
            check_user_id(str(number))


def test_bad_rows_of_a_bulk_call_may_also_vanish_in_silence(heap: ServerProcess) -> None:
    heap.configure(bulk_invalid="drop")
    assert post(heap, "/api/add_user_properties", users(USER, {"identity": ""})).status_code == 200
    assert list(heap.state()["users"]) == ["ann@example.com"]


def test_a_person_gets_thirty_single_calls_in_thirty_seconds(heap: ServerProcess) -> None:
    with httpx.Client(base_url=heap.base_url, trust_env=False) as client:
        statuses = [client.post("/api/track", json={"app_id": "11", **EVENT}).status_code for _ in range(31)]
        other = client.post("/api/track", json={"app_id": "12", **EVENT})
    assert statuses == [200] * 30 + [429]
    assert other.status_code == 200
    assert heap.state(app_id="11")["summary"]["events"] == 30


@pytest.mark.parametrize("window", ["sliding", "fixed"])
def test_an_app_gets_fifteen_thousand_bulk_events_a_minute(heap: ServerProcess, window: str) -> None:
    heap.configure(window=window, window_scale=0.02)
    started = time.monotonic()
    for batch in range(15):
        rows = [{"identity": f"{batch}-{row}", "event": "e"} for row in range(1000)]
        assert post(heap, "/api/track", events(*rows)).status_code == 200
    refused = post(heap, "/api/track", events({"identity": "one-more", "event": "e"}))
    if time.monotonic() - started < 1.2:
        assert refused.status_code == 429
    if refused.status_code == 429:
        assert 0 < float(refused.headers["Retry-After"]) <= 1.2
        time.sleep(float(refused.headers["Retry-After"]) + 0.05)
    assert post(heap, "/api/track", events({"identity": "one-more", "event": "e"})).status_code == 200


def test_an_identity_gets_a_thousand_bulk_events_a_minute_and_retry_after_may_be_missing(heap: ServerProcess) -> None:
    heap.configure(retry_after=False)
    assert post(heap, "/api/track", events(*[EVENT] * 1000)).status_code == 200
    refused = post(heap, "/api/track", events(EVENT))
    assert refused.status_code == 429
    assert "Retry-After" not in refused.headers
    assert heap.state()["summary"]["events"] == 1000


def test_killed_between_requests_it_forgets_nothing_it_answered(tmp_path: Path) -> None:
    with running_server("heap", tmp_path, arguments=["--app-id", "11"]) as first:
        first.seed(["bob@example.com"])
        post(first, "/api/add_user_properties", users(USER))
        post(first, "/api/track", events({**EVENT, "idempotency_key": "k"}))
        before, port = first.state(), int(first.base_url.rpartition(":")[2])
        first.kill()
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"at":1,"path":"/api/track","sta')
    with running_server("heap", tmp_path, port=port, arguments=["--app-id", "11"]) as second:
        assert second.base_url == first.base_url
        assert second.state() == before
        assert second.requests()["rows"] == {"/api/add_user_properties": 1, "/api/track": 1}
        post(second, "/api/track", events({**EVENT, "idempotency_key": "k2"}))
    with running_server("heap", tmp_path, arguments=["--app-id", "11"]) as third:
        assert set(third.state()["events"]) == {"k", "k2"}


def test_an_unknown_environment_is_refused(tmp_path: Path) -> None:
    with running_server("heap", tmp_path, arguments=["--app-id", "11"]) as server:
        assert post(server, "/api/track", {**EVENT, "app_id": "12"}).status_code == 400


def test_the_us_host_fails_calls_for_an_eu_environment(tmp_path: Path) -> None:
    with running_server("heap", tmp_path, arguments=["--region", "eu"]) as server:
        assert server.wrong_region_url is not None
        wrong = httpx.post(server.wrong_region_url + "/api/track", json={"app_id": "11", **EVENT}, trust_env=False)
        assert wrong.status_code == 400
        assert post(server, "/api/track", {"app_id": "11", **EVENT}).status_code == 200
        assert server.state()["summary"]["events"] == 1


def test_deletion_needs_a_token_and_forgets_the_user(heap: ServerProcess) -> None:
    post(heap, "/api/add_user_properties", users(USER))
    url, body = heap.base_url + "/api/public/v0", {"users": [{"identity": "ann@example.com"}]}
    assert httpx.post(f"{url}/user_deletion", json=body, trust_env=False).status_code == 401
    token = httpx.post(f"{url}/auth_token", auth=("11", "key"), trust_env=False).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    made = httpx.post(f"{url}/user_deletion", json=body, headers=headers, trust_env=False)
    assert made.status_code == 201
    status = httpx.get(made.json()["deletion_request_location"], headers=headers, trust_env=False)
    assert status.json()["status"] == "complete"
    assert heap.state()["users"] == {}


class TestFaults:
    def test_every_fifth_request_is_refused_with_retry_after(self, heap: ServerProcess) -> None:
        heap.fail({"status": 429, "retry_after": 1, "every": 5})
        answers = [post(heap, "/api/add_user_properties", users(USER)) for _ in range(10)]
        assert [a.status_code for a in answers] == ([200] * 4 + [429]) * 2
        assert answers[4].headers["Retry-After"] == "1"

    def test_the_next_n_requests_fail_after_skipping_some(self, heap: ServerProcess) -> None:
        heap.fail({"status": 500, "skip": 1, "next": 2, "path": "/api/track"})
        assert [post(heap, "/api/track", events(EVENT)).status_code for _ in range(4)] == [200, 500, 500, 200]
        assert heap.state()["summary"]["events"] == 2

    @pytest.mark.parametrize(("kind", "applied"), [("reset", 0), ("drop", 1), ("half", 1)])
    def test_connections_break_before_or_after_the_request_is_applied(
        self, heap: ServerProcess, kind: str, applied: int
    ) -> None:
        heap.fail({"kind": kind, "next": 1})
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            post(heap, "/api/add_user_properties", users(USER))
        assert heap.state()["summary"]["users"] == applied

    def test_a_hanging_server_times_clients_out(self, heap: ServerProcess) -> None:
        heap.fail({"kind": "hang", "next": 1, "apply": True})
        with pytest.raises(httpx.ReadTimeout):
            post(heap, "/api/add_user_properties", users(USER), timeout=0.3)
        assert heap.state()["summary"]["users"] == 1

    def test_a_slow_answer_comes_late(self, heap: ServerProcess) -> None:
        heap.fail({"kind": "slow", "seconds": 0.3})
        started = time.monotonic()
        assert post(heap, "/api/add_user_properties", users(USER)).status_code == 200
        assert time.monotonic() - started >= 0.3

    def test_a_batch_with_a_refused_row_is_refused_whole(self, heap: ServerProcess) -> None:
        heap.fail({"kind": "refuse_rows", "match": "^bad"})
        bad = {"identity": "bad@example.com", "properties": {}}
        refused = post(heap, "/api/add_user_properties", users(USER, bad))
        assert (refused.status_code, refused.text) == (400, "{}")
        heap.fail({"kind": "refuse_rows", "match": "^bad", "say_which": True})
        assert post(heap, "/api/add_user_properties", users(USER, bad)).json() == {"errors": [{"index": 1}]}
        assert post(heap, "/api/add_user_properties", users(USER)).status_code == 200

    def test_a_batch_can_be_refused_for_its_size(self, heap: ServerProcess) -> None:
        heap.fail({"kind": "refuse_batch", "larger_than": 1, "status": 413})
        assert post(heap, "/api/add_user_properties", users(USER, USER)).status_code == 413
        assert post(heap, "/api/add_user_properties", users(USER)).status_code == 200

    def test_a_dead_host_comes_back_when_the_order_is_taken_back(self, heap: ServerProcess) -> None:
        heap.fail({"kind": "dead"})
        with pytest.raises(httpx.ReadError):
            post(heap, "/api/add_user_properties", users(USER))
        heap.fail()
        assert post(heap, "/api/add_user_properties", users(USER)).status_code == 200

    def test_a_server_that_dies_after_applying_has_applied(self, tmp_path: Path) -> None:
        with running_server("heap", tmp_path) as server:
            server.fail({"kind": "exit", "next": 1})
            with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
                post(server, "/api/add_user_properties", users(USER))
            server.process.wait(5)
        with running_server("heap", tmp_path) as again:
            assert again.state()["summary"]["users"] == 1

    def test_requests_can_be_read_back_with_what_went_wrong(self, heap: ServerProcess) -> None:
        heap.fail({"status": 503, "next": 1})
        post(heap, "/api/track", events(EVENT))
        log = heap.requests(1, bodies=True)
        assert log["statuses"] == {"503": 1}
        assert (log["last"][0]["fault"], log["last"][0]["applied"]) == ("status", False)
        assert '"event":"Paid"' in log["last"][0]["body"]

    def test_an_order_that_makes_no_sense_is_named(self, heap: ServerProcess) -> None:
        with pytest.raises(ServerError, match="explode"):
            heap.fail({"kind": "explode"})
        with pytest.raises(ServerError, match="evry"):
            heap.fail({"status": 500, "evry": 2})


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="--no-such-option"):
        running_server("heap", tmp_path, arguments=["--no-such-option"]).__enter__()
