"""The stand-in for mParticle takes the documented calls and refuses the others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from heap_assets_tests.connectors.servers.clients import client
from heap_assets_tests.connectors.servers.core import ManualClock
from heap_assets_tests.connectors.servers.mparticle import MParticle

EVENT = {
    "event_type": "custom_event",
    "data": {
        "event_name": "Order",
        "custom_event_type": "transaction",
        "timestamp_unixtime_ms": 1793817970000,
        "custom_attributes": {"total": "12"},
    },
}
BATCH = {
    "environment": "production",
    "source_request_id": "batch-1",
    "user_identities": {"customer_id": "u-1", "email": "a@x.io"},
    "user_attributes": {"plan": "pro"},
    "deleted_user_attributes": ["old"],
    "events": [EVENT],
    "consent_state": {"gdpr": {"marketing": {"consented": True, "timestamp_unixtime_ms": 1}}},
}


@pytest.fixture
def server() -> Iterator[MParticle]:
    with MParticle(clock=ManualClock()) as running:
        yield running


@pytest.fixture
def http(server: MParticle) -> Iterator[httpx.Client]:
    with client(server) as opened:
        opened.auth = ("key", "secret")
        yield opened


def post(http: httpx.Client, *batches: Any) -> httpx.Response:
    return http.post("/v2/bulkevents", json=batches)


def test_batches_are_accepted_with_an_empty_answer(server: MParticle, http: httpx.Client) -> None:
    server.table("users")["u-1"] = {"old": 1}
    answer = post(http, BATCH)
    assert (answer.status_code, answer.content) == (202, b"")
    assert answer.headers["X-mp-rate-limit-percentage-used"] == "0"
    assert server.records["users"] == {"u-1": {"plan": "pro"}}
    assert http.post("/v2/events", json={"environment": "development"}).status_code == 202
    assert server.violations == []


def test_a_batch_as_the_vendors_own_client_writes_it(server: MParticle, http: httpx.Client) -> None:
    batch = {"environment": "development", "user_identities": {"customerid": "u-1"}, "user_attributes": {"plan": "pro"}}
    assert http.post("/v2/events", json={**batch, "events": [EVENT]}).status_code == 202
    assert server.records["users"] == {"u-1": {"plan": "pro"}}


def test_a_repeat_doubles(server: MParticle, http: httpx.Client) -> None:
    post(http, BATCH)
    post(http, BATCH)
    assert len(server.events) == 2


def test_attributes_are_cleared_by_null(server: MParticle, http: httpx.Client) -> None:
    post(http, BATCH)
    post(http, {**BATCH, "user_attributes": None})
    assert server.records["users"] == {"u-1": {}}


@pytest.mark.parametrize(
    "wrong",
    [
        {"environment": None},
        {"environment": "prod"},
        {"user_identities": {"customerId": "u-1"}},
        {"user_identities": {"customer_id": 1}},
        {"user_attributes": {f"a{number}": 1 for number in range(101)}},
        {"user_attributes": {"a": "x" * 4_097}},
        {"user_attributes": {"a": {"b": 1}}},
        {"deleted_user_attributes": "old"},
        {"events": {"event_type": "custom_event"}},
        {"events": [{"event_type": "track", "data": {}}]},
        {"events": [{"event_type": "custom_event"}]},
        {"events": [{**EVENT, "data": {**EVENT["data"], "custom_event_type": "order"}}]},
        {"events": [{**EVENT, "data": {**EVENT["data"], "custom_attributes": {"total": 12}}}]},
        {"user_id": "u-1"},
        {"events": [{"event_type": "custom_event", "data": {}}]},
        {"events": [{"event_type": "custom_event", "data": {"event_name": "A", "timestamp_unixtime_ms": "1"}}]},
    ],
)
def test_a_wrong_batch_refuses_all_and_is_not_named(
    server: MParticle, http: httpx.Client, wrong: dict[str, Any]
) -> None:
    answer = post(http, BATCH, {**BATCH, **wrong})
    assert answer.status_code == 400
    assert set(answer.json()["errors"][0]) == {"code", "message"}
    assert server.events == []


def test_a_bad_row_refuses_all(server: MParticle, http: httpx.Client) -> None:
    server.fail("bad_row", key="u-2")
    other = {**BATCH, "user_identities": {"customer_id": "u-2"}}
    assert post(http, BATCH, other).status_code == 400
    assert post(http, BATCH).status_code == 202


def test_requests_have_a_size(http: httpx.Client) -> None:
    small = {"environment": "production"}
    assert post(http, *[small] * 100).status_code == 202
    assert post(http, *[small] * 101).status_code == 400
    assert http.post("/v2/bulkevents", json=small).status_code == 400
    texts = {f"a{number}": "x" * 4_000 for number in range(30)}
    assert post(http, {**small, "user_attributes": texts}).status_code == 202
    assert (
        post(
            http, {**small, "user_attributes": {**texts, "b": "x" * 4_000, "c": "x" * 4_096, "d": "x" * 4_096}}
        ).status_code
        == 413
    )
    assert post(http, *[{**small, "user_attributes": texts}] * 3).status_code == 413


def test_names_over_the_limit_are_dropped(server: MParticle, http: httpx.Client) -> None:
    server.names = {f"name-{number}" for number in range(1_000)}
    assert post(http, BATCH).status_code == 202
    assert (server.events, server.dropped) == ([], 1)


def test_the_account_has_a_rate_in_batches(server: MParticle, http: httpx.Client) -> None:
    small = {"environment": "production"}
    assert [post(http, *[small] * 90).status_code for _ in range(3)] == [202] * 3
    over = post(http, small)
    assert (over.status_code, over.headers["X-mp-rate-limit-exceeded"]) == (429, "account")
    server.clock.advance(float(over.headers["Retry-After"]))
    assert post(http, small).status_code == 202


def test_who_calls_is_looked_at(http: httpx.Client) -> None:
    http.auth = ("key", "other")
    assert post(http, BATCH).status_code == 403
    http.auth = None
    assert post(http, BATCH).status_code == 401
