"""The stand-in for Google's older Ads endpoints takes the documented calls and refuses the others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from heap_assets_tests.connectors.servers.clients import client
from heap_assets_tests.connectors.servers.core import ManualClock
from heap_assets_tests.connectors.servers.google_ads import GoogleAds

LIST = "customers/1/userLists/2"
GRANTED = {"adUserData": "GRANTED", "adPersonalization": "GRANTED"}
METADATA = {"userList": LIST, "consent": GRANTED}
JOB = {"job": {"type": "CUSTOMER_MATCH_USER_LIST", "customerMatchUserListMetadata": METADATA}}
CLICK = {
    "conversionAction": "customers/1/conversionActions/2",
    "gclid": "Cj0K",
    "conversionDateTime": "2026-11-01 10:00:00+00:00",
    "conversionValue": 12.5,
    "currencyCode": "USD",
    "orderId": "order-1",
    "consent": {"adUserData": "GRANTED"},
}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def member(email: str, verb: str = "create") -> dict[str, Any]:
    return {verb: {"userIdentifiers": [{"hashedEmail": digest(email)}, {"hashedPhoneNumber": digest(f"+{email}")}]}}


@pytest.fixture
def server() -> Iterator[GoogleAds]:
    with GoogleAds(clock=ManualClock()) as running:
        yield running


@pytest.fixture
def http(server: GoogleAds) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {server.grant()}", "developer_token": "developer", "login_customer_id": "9"}
    with client(server, **headers) as opened:
        yield opened


def post(http: httpx.Client, path: str, body: Any) -> httpx.Response:
    return http.post(f"/v25/customers/1{path}", json=body)


def add(http: httpx.Client, name: str, *operations: Any, partial: bool = True) -> httpx.Response:
    body = {"enablePartialFailure": partial, "enableWarnings": True, "operations": operations}
    return http.post(f"/v25/{name}:addOperations", json=body)


def poll(http: httpx.Client, name: str) -> dict[str, Any]:
    query = f"SELECT offline_user_data_job.status FROM offline_user_data_job WHERE offline_user_data_job.resource_name = '{name}'"  # noqa: E501
    return post(http, "/googleAds:search", {"query": query}).json()["results"][0]["offlineUserDataJob"]


def code(answer: httpx.Response) -> str:
    return next(iter(answer.json()["error"]["details"][0]["errors"][0]["errorCode"].values()))


def clicks(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"conversions": list(rows), "partialFailure": True, **more}


def test_a_job_is_created_filled_run_and_polled(server: GoogleAds, http: httpx.Client) -> None:
    name = post(http, "/offlineUserDataJobs:create", JOB).json()["resourceName"]
    assert add(http, name, member("a@x.io"), member("b@x.io")).json() == {}
    assert add(http, name, member("c@x.io")).status_code == 200
    assert poll(http, name)["status"] == "PENDING"
    assert server.lists == {}
    assert http.post(f"/v25/{name}:run").status_code == 200
    assert [poll(http, name)["status"] for _ in range(3)] == ["RUNNING", "RUNNING", "SUCCESS"]
    assert digest("c@x.io") in server.lists[LIST]
    assert server.violations == []


def test_a_job_takes_nothing_after_its_run(http: httpx.Client) -> None:
    name = post(http, "/offlineUserDataJobs:create", JOB).json()["resourceName"]
    http.post(f"/v25/{name}:run")
    assert code(add(http, name, member("a@x.io"))) == "JOB_ALREADY_STARTED"
    assert code(http.post(f"/v25/{name}:run")) == "JOB_ALREADY_STARTED"


def test_a_job_does_not_mix_creates_and_removes(server: GoogleAds, http: httpx.Client) -> None:
    name = post(http, "/offlineUserDataJobs:create", JOB).json()["resourceName"]
    assert code(add(http, name, member("a@x.io"), member("b@x.io", "remove"))) == "CONFLICTING_OPERATION"
    assert add(http, name, member("a@x.io")).status_code == 200
    assert code(add(http, name, member("b@x.io", "remove"))) == "CONFLICTING_OPERATION"
    assert add(http, name, {"removeAll": True}).status_code == 400


def test_remove_all_comes_first(server: GoogleAds, http: httpx.Client) -> None:
    server.lists[LIST] = {"old"}
    name = post(http, "/offlineUserDataJobs:create", JOB).json()["resourceName"]
    assert add(http, name, {"removeAll": True}, member("a@x.io")).status_code == 200
    http.post(f"/v25/{name}:run")
    assert "old" not in server.lists[LIST]
    assert digest("a@x.io") in server.lists[LIST]


def test_partial_failure_names_the_operation(server: GoogleAds, http: httpx.Client) -> None:
    plain = {"create": {"userIdentifiers": [{"hashedEmail": "a@x.io"}]}}
    upper = {"create": {"userIdentifiers": [{"hashedEmail": digest("a").upper()}]}}
    many = {"create": {"userIdentifiers": [{"hashedEmail": digest(str(n))} for n in range(21)]}}
    name = post(http, "/offlineUserDataJobs:create", JOB).json()["resourceName"]
    told = add(http, name, member("a@x.io"), plain, upper, many).json()["partialFailureError"]
    elements = [error["location"]["fieldPathElements"][0] for error in told["details"][0]["errors"]]
    assert told["code"] == 3
    assert elements == [{"fieldName": "operations", "index": index} for index in (1, 2, 3)]
    whole = add(http, name, member("z@x.io"), plain, partial=False)
    assert whole.status_code == 400
    http.post(f"/v25/{name}:run")
    assert server.lists[LIST] == {digest("a@x.io"), digest("+a@x.io")}


def test_consent_of_an_operation_is_ignored_with_a_warning(http: httpx.Client) -> None:
    name = post(http, "/offlineUserDataJobs:create", JOB).json()["resourceName"]
    told = add(http, name, {"create": {**member("a@x.io")["create"], "consent": GRANTED}}).json()
    assert "OPERATION_LEVEL_CONSENT_PROVIDED" in str(told["warning"])


def test_a_request_has_100_000_identifiers_at_most(http: httpx.Client) -> None:
    name = post(http, "/offlineUserDataJobs:create", JOB).json()["resourceName"]
    many = [{"create": {"userIdentifiers": [{}] * 20}}] * 5_001
    assert code(add(http, name, *many)) == "TOO_MANY_USER_IDENTIFIERS"


def test_a_job_can_fail(server: GoogleAds, http: httpx.Client) -> None:
    server.fail("job_fails")
    name = post(http, "/offlineUserDataJobs:create", JOB).json()["resourceName"]
    add(http, name, member("a@x.io"))
    http.post(f"/v25/{name}:run")
    assert [poll(http, name)["status"] for _ in range(3)][-1] == "FAILED"
    assert server.lists == {}


def test_direct_user_data_is_ten_operations(server: GoogleAds, http: httpx.Client) -> None:
    body = {"customerMatchUserListMetadata": METADATA, "operations": [member(str(n)) for n in range(10)]}
    assert post(http, ":uploadUserData", body).json() == {"receivedOperationsCount": 10}
    body["operations"].append(member("eleven"))
    assert post(http, ":uploadUserData", body).status_code == 400


def test_clicks_are_taken_and_a_repeat_is_told_by_row(server: GoogleAds, http: httpx.Client) -> None:
    assert post(http, ":uploadClickConversions", clicks(CLICK)).json()["results"][0]["gclid"] == "Cj0K"
    other = {**CLICK, "gclid": "other", "orderId": "order-2"}
    told = post(http, ":uploadClickConversions", clicks(CLICK, other)).json()
    error = told["partialFailureError"]["details"][0]["errors"][0]
    assert error["errorCode"] == {"conversionUploadError": "ORDER_ID_ALREADY_IN_USE"}
    assert error["location"]["fieldPathElements"][0] == {"fieldName": "conversions", "index": 0}
    assert (told["results"][0], told["results"][1]["gclid"]) == ({}, "other")
    assert len(server.events) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"conversionDateTime": "2026-11-01T10:00:00+00:00"},
        {"conversionDateTime": "2026-11-01 10:00:00"},
        {"gbraid": "two"},
        {"gclid": None},
        {"conversionAction": "customers/2/conversionActions/2"},
        {"consent": GRANTED},
        {"conversionValue": "12.5"},
        {"userIdentifiers": [{"hashedEmail": digest(str(n))} for n in range(6)]},
        {"userIdentifiers": [{"addressInfo": {}}]},
        {"userIdentifiers": [{"hashedEmail": "a@x.io"}]},
    ],
)
def test_a_click_of_another_form_is_refused_alone(server: GoogleAds, http: httpx.Client, wrong: dict[str, Any]) -> None:
    told = post(http, ":uploadClickConversions", clicks({**CLICK, **wrong}, CLICK)).json()
    assert (told["results"][0], len(server.events)) == ({}, 1)


def test_a_call_is_2_000_conversions_with_partial_failure(http: httpx.Client) -> None:
    assert post(http, ":uploadClickConversions", clicks(*[CLICK] * 2_001)).status_code == 400
    assert post(http, ":uploadClickConversions", clicks(CLICK, partialFailure=False)).status_code == 400


def test_rows_are_refused_for_what_only_google_knows(server: GoogleAds, http: httpx.Client) -> None:
    server.row_errors["Cj0K"] = "conversionUploadError.TOO_RECENT_EVENT"
    told = post(http, ":uploadClickConversions", clicks(CLICK)).json()
    assert "TOO_RECENT_EVENT" in str(told["partialFailureError"])


def test_a_400_that_may_be_sent_again(server: GoogleAds, http: httpx.Client) -> None:
    server.fail("refuse_batch", code="databaseError.CONCURRENT_MODIFICATION")
    assert code(post(http, "/offlineUserDataJobs:create", JOB)) == "CONCURRENT_MODIFICATION"
    assert post(http, "/offlineUserDataJobs:create", JOB).status_code == 200


def test_operations_have_a_daily_quota_with_a_delay(server: GoogleAds, http: httpx.Client) -> None:
    for _ in range(5):
        assert post(http, ":uploadUserData", {"operations": [{}] * 3_000}).status_code == 400
    over = post(http, ":uploadUserData", {"operations": [{}]})
    details = over.json()["error"]["details"][0]["errors"][0]["details"]["quotaErrorDetails"]
    assert (over.status_code, details["retryDelay"][-1]) == (429, "s")
    server.clock.advance(86_400)
    http.headers["Authorization"] = f"Bearer {server.grant()}"
    assert post(http, ":uploadUserData", {"operations": [{}]}).status_code == 400


def test_headers_and_version_are_looked_at(http: httpx.Client, server: GoogleAds) -> None:
    path = "/offlineUserDataJobs:create"
    assert http.post(f"/v20/customers/1{path}", json=JOB).status_code == 400
    assert http.post(f"/v25/customers/1{path}", json=JOB, headers={"developer-token": "x"}).status_code == 401
    assert http.post(f"/v25/customers/1{path}", json=JOB, headers={"login-customer-id": "1-2"}).status_code == 400
    assert http.post(f"/v25/customers/1-2{path}", json=JOB).status_code == 404
    assert http.post(f"/v25/customers/1{path}", json=[]).status_code == 400
    assert len(server.violations) == 5


def test_a_developer_token_that_is_not_on_the_list_uploads_nothing() -> None:
    with GoogleAds(allowlisted=False) as server:
        with client(server, Authorization=f"Bearer {server.grant()}", developer_token="developer") as http:
            answers = (
                post(http, "/offlineUserDataJobs:create", JOB),
                post(http, ":uploadClickConversions", clicks(CLICK)),
            )
        assert [code(answer) for answer in answers] == ["CUSTOMER_NOT_ALLOWLISTED_FOR_THIS_FEATURE"] * 2
