"""The stand-in for Meta takes the documented calls and refuses the others."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from heap_assets_tests.connectors.servers.clients import client
from heap_assets_tests.connectors.servers.core import ManualClock
from heap_assets_tests.connectors.servers.meta import Meta


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


US = digest("us")
PAYLOAD = {
    "schema": ["EXTERN_ID", "EMAIL", "PHONE", "COUNTRY"],
    "data": [["u-1", digest("a@x.io"), digest("18005550100"), US], ["u-2", digest("b@x.io"), "", ""]],
}


@pytest.fixture
def server() -> Iterator[Meta]:
    with Meta(clock=ManualClock()) as running:
        yield running


@pytest.fixture
def http(server: Meta) -> Iterator[httpx.Client]:
    with client(server, Authorization="Bearer token") as opened:
        yield opened


def post(http: httpx.Client, payload: Any, edge: str = "users", **more: Any) -> httpx.Response:
    return http.post(f"/v25.0/1001/{edge}", json={"payload": payload, **more})


def one(name: str) -> dict[str, Any]:
    return {"schema": ["EXTERN_ID"], "data": [[name]]}


def session(number: int, last: bool = False, name: int = 778899) -> dict[str, Any]:
    return {"session_id": name, "batch_seq": number, "last_batch_flag": last, "estimated_num_total": 3}


def code(answer: httpx.Response) -> tuple[int, int | None]:
    error = answer.json()["error"]
    return error["code"], error.get("error_subcode")


def test_members_enter_and_leave(server: Meta, http: httpx.Client) -> None:
    answer = post(http, PAYLOAD).json()
    assert (answer["audience_id"], answer["num_received"], answer["num_invalid_entries"]) == ("1001", 2, 0)
    assert server.lists["1001"] == {"u-1", "u-2"}
    gone = http.request("DELETE", "/v25.0/1001/users", json={"payload": one("u-1")})
    assert (gone.status_code, server.lists["1001"]) == (200, {"u-2"})
    query = {"payload": json.dumps(one("u-2"))}
    assert http.delete("/v25.0/1001/users", params=query).status_code == 200
    assert server.lists["1001"] == set()
    assert server.violations == []


def test_a_form_is_taken_as_well_with_its_token(server: Meta, http: httpx.Client) -> None:
    del http.headers["Authorization"]
    form = {"access_token": "token", "payload": json.dumps(PAYLOAD)}
    assert http.post("/v25.0/1001/users", data=form).json()["num_received"] == 2
    single = {"schema": "EMAIL_SHA256", "data": [digest("c@x.io")]}
    form = {"access_token": "token", "payload": json.dumps(single)}
    assert http.post("/v25.0/1001/users", data=form).json()["num_invalid_entries"] == 0
    assert digest("c@x.io") in server.lists["1001"]


@pytest.mark.parametrize(
    "value", [digest("a").upper(), digest("a")[:-1], "a@x.io", 5, None, "", f" {digest('a')}"], ids=str
)
def test_values_of_another_form_are_counted_and_not_named(server: Meta, http: httpx.Client, value: Any) -> None:
    payload = {"schema": ["EMAIL", "COUNTRY"], "data": [[value, ""], [digest("b@x.io"), ""]]}
    answer = post(http, payload).json()
    assert (answer["num_received"], answer["num_invalid_entries"], answer["invalid_entry_samples"]) == (2, 1, {})
    assert server.lists["1001"] == {digest("b@x.io")}


def test_ids_of_devices_are_lower_case_and_plain(http: httpx.Client) -> None:
    ids = ["aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "AAAAAAAA-BBBB-CCCC-DDDD-EEEEEEEEEEEE", digest("a")]
    assert post(http, {"schema": ["MADID"], "data": [[i] for i in ids]}).json()["num_invalid_entries"] == 2


@pytest.mark.parametrize(
    "payload",
    [
        {"schema": ["EMAIL"], "data": []},
        {"schema": ["EMAIL"], "data": [[""]] * 10_001},
        {"schema": ["EMAIL", "PHONE"], "data": [[digest("a")]]},
        {"schema": ["email"], "data": [[digest("a")]]},
        {"schema": ["EMAIL", "EMAIL"], "data": [[digest("a"), digest("a")]]},
        {"schema": ["EMAIL", "LOOKALIKE_VALUE"], "data": [[digest("a"), -1]]},
        {"schema": ["EMAIL", "LOOKALIKE_VALUE"], "data": [[digest("a"), "44.5"]]},
        None,
    ],
)
def test_a_payload_of_another_form_is_refused_whole(server: Meta, http: httpx.Client, payload: Any) -> None:
    assert code(post(http, payload)) == (100, None)
    assert server.lists["1001"] == set()


def test_a_replacement_takes_effect_with_its_last_batch(server: Meta, http: httpx.Client) -> None:
    post(http, one("old"))
    post(http, one("a"), "usersreplace", session=session(1))
    assert server.lists["1001"] == {"old"}
    assert post(http, one("b"), "usersreplace", session=session(2)).json()["session_id"] == "778899"
    assert post(http, one("b"), "usersreplace", session=session(2)).status_code == 200
    post(http, one("c"), "usersreplace", session=session(3, last=True))
    assert server.lists["1001"] == {"a", "b", "c"}


def test_a_replacement_is_one_session_without_gaps_that_ends_in_time(server: Meta, http: httpx.Client) -> None:
    post(http, one("old"))
    assert post(http, one("a"), "usersreplace").status_code == 400
    assert post(http, one("a"), "usersreplace", session=session(2)).status_code == 400
    assert post(http, one("a"), "usersreplace", session={**session(1), "last_batch_flag": "false"}).status_code == 400
    assert post(http, one("a"), "usersreplace", session=session(1)).status_code == 200
    assert post(http, one("c"), "usersreplace", session=session(3)).status_code == 400
    assert post(http, one("c"), "usersreplace", session=session(1, name=5)).status_code == 400
    server.clock.advance(5401)
    assert post(http, one("b"), "usersreplace", session=session(2, last=True)).status_code == 400
    assert server.lists["1001"] == {"old"}


def test_audiences_are_made_flagged_and_deleted(server: Meta, http: httpx.Client) -> None:
    body = {"name": "PQL", "subtype": "CUSTOM", "customer_file_source": "USER_PROVIDED_ONLY"}
    made = http.post("/v25.0/act_7/customaudiences", json=body).json()["id"]
    assert http.post("/v25.0/act_7/customaudiences", json={"name": "PQL"}).status_code == 400
    assert http.post(f"/v25.0/{made}/users", json={"payload": one("a")}).status_code == 200
    assert code(http.post("/v25.0/999/users", json={"payload": one("a")})) == (100, 33)
    server.flagged.add("1001")
    assert code(post(http, one("a"))) == (100, 1713230)
    server.gone.add("1001")
    assert code(post(http, one("a"))) == (100, 1487366)


def test_tokens_versions_and_proofs_are_looked_at(server: Meta, http: httpx.Client) -> None:
    assert http.post("/v3.0/1001/users", json={"payload": one("a")}).status_code == 400
    http.headers["Authorization"] = "Bearer other"
    assert code(post(http, one("a"))) == (190, 463)


@pytest.mark.parametrize(("proof", "signed"), [("token", "token"), ("time", "token|1700000000")])
def test_with_a_secret_each_call_carries_its_proof(proof: Any, signed: str) -> None:
    made = hmac.new(b"secret", signed.encode(), hashlib.sha256).hexdigest()
    more = {"appsecret_proof": made, "appsecret_time": "1700000000"}
    with Meta(secret="secret", proof=proof) as server, client(server, Authorization="Bearer token") as http:
        assert post(http, one("a"), **more).status_code == 200
        assert post(http, one("a")).status_code == 400
        assert http.post("/v25.0/1001/users", params=more, json={"payload": one("a")}).status_code == 200


def test_usage_is_told_and_a_throttle_is_a_400_with_a_time(server: Meta, http: httpx.Client) -> None:
    def usage(answer: httpx.Response) -> dict[str, Any]:
        return json.loads(answer.headers["X-Business-Use-Case-Usage"])["900"][0]

    assert usage(post(http, one("a")))["call_count"] == 0
    server.fail("throttle", wait=300, code=80003)
    throttled = post(http, one("a"))
    assert (throttled.status_code, code(throttled)) == (400, (80003, None))
    assert (usage(throttled)["call_count"], usage(throttled)["estimated_time_to_regain_access"]) == (100, 5)


def test_errors_are_told_by_codes(server: Meta, http: httpx.Client) -> None:
    server.fail("refuse_batch", code=2655)
    assert code(post(http, one("a"))) == (2655, None)
    server.fail("server_error", code=2)
    assert post(http, one("a")).json()["error"]["is_transient"] is True
    server.fail("token_expired")
    assert code(post(http, one("a"))) == (190, 463)
    server.fail("bad_row", key="a")
    assert post(http, {"schema": ["EXTERN_ID"], "data": [["a"], ["b"]]}).json()["num_invalid_entries"] == 1
    assert server.lists["1001"] == {"b"}


def order(server: Meta, **more: Any) -> dict[str, Any]:
    event = {"event_name": "Purchase", "event_time": int(server.clock()), "event_id": "e-1", "action_source": "website"}
    return {**event, "user_data": {"em": [digest("a@x.io")]}, "custom_data": {"value": 12.5}, **more}


def test_events_are_taken_once_in_48_hours(server: Meta, http: httpx.Client) -> None:
    for _ in range(2):
        assert http.post("/v25.0/55/events", json={"data": [order(server)]}).json()["events_received"] == 1
    assert len(server.events) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"event_time": "now"},
        {"event_time": 1_767_225_600 - 8 * 86_400},
        {"user_data": {"em": ["a@x.io"]}},
        {"user_data": {}},
        {"action_source": "web"},
        {"event_name": None},
    ],
)
def test_one_bad_event_refuses_all(server: Meta, http: httpx.Client, wrong: dict[str, Any]) -> None:
    data = [order(server), order(server, event_id="e-2", **wrong)]
    assert code(http.post("/v25.0/55/events", json={"data": data}))[0] == 100
    assert server.events == []
