"""The stand-in for Google's Data Manager and its token endpoint takes the documented calls and refuses the others."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import google.auth.exceptions
import google.auth.transport.requests
import httpx
import pytest
from google.oauth2 import credentials as refreshed
from google.oauth2 import service_account

from heap_assets_tests.connectors.servers.clients import client
from heap_assets_tests.connectors.servers.core import ManualClock
from heap_assets_tests.connectors.servers.google_accounts import CLIENT
from heap_assets_tests.connectors.servers.google_data_manager import GoogleDataManager

SCOPE = GoogleDataManager.scope


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


DESTINATION = {
    "reference": "a",
    "operatingAccount": {"accountType": "GOOGLE_ADS", "accountId": "1234567890"},
    "loginAccount": {"accountType": "GOOGLE_ADS", "accountId": "9876543210"},
    "productDestinationId": "77",
}
GRANTED = {"adUserData": "CONSENT_GRANTED", "adPersonalization": "CONSENT_GRANTED"}
ANN = {
    "userData": {
        "userIdentifiers": [
            {"emailAddress": digest("alexz@example.com")},
            {"phoneNumber": digest("+18005550100")},
            {
                "address": {
                    "givenName": digest("ann"),
                    "familyName": digest("ng"),
                    "regionCode": "US",
                    "postalCode": "94045",
                }
            },
        ]
    },
    "consent": GRANTED,
}
AUDIENCE = {
    "destinations": [DESTINATION],
    "audienceMembers": [ANN],
    "consent": GRANTED,
    "encoding": "HEX",
    "termsOfService": {"customerMatchTermsOfServiceStatus": "ACCEPTED"},
    "validateOnly": False,
}
ORDER = {
    "transactionId": "order-1",
    "eventTimestamp": "2026-11-01T10:00:00Z",
    "eventSource": "WEB",
    "adIdentifiers": {"gclid": "Cj0K"},
    "currency": "USD",
    "conversionValue": 12.5,
    "consent": GRANTED,
}
EVENTS = {"destinations": [DESTINATION], "events": [ORDER]}
ROW = "audience_members.audienceMembers[0]"
NOVEMBER = datetime(2026, 11, 2, tzinfo=UTC).timestamp()


@pytest.fixture
def server() -> Iterator[GoogleDataManager]:
    with GoogleDataManager(clock=ManualClock(NOVEMBER)) as running:
        yield running


def post(server: GoogleDataManager, path: str, body: Any, token: str | None = None) -> httpx.Response:
    with client(server, Authorization=f"Bearer {token or server.grant()}") as http:
        return http.post(f"/v1/{path}", json=body)


def status(server: GoogleDataManager, request: str) -> dict[str, Any]:
    with client(server, Authorization=f"Bearer {server.grant()}") as http:
        answer = http.get("/v1/requestStatus:retrieve", params={"requestId": request})
    return answer.json()["requestStatusPerDestination"][0]


def changed(body: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy with another value at a dotted path; None takes the field out."""
    new = copy.deepcopy(body)
    *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
    place: Any = new
    for part in parents:
        place = place[part]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return new


def test_members_are_queued_and_their_status_comes_later(server: GoogleDataManager) -> None:
    answer = post(server, "audienceMembers:ingest", AUDIENCE)
    assert answer.status_code == 200
    request = answer.json()["requestId"]
    assert status(server, request)["requestStatus"] == "PROCESSING"
    assert status(server, request) == {
        "destination": DESTINATION,
        "requestStatus": "SUCCESS",
        "audienceMembersIngestionStatus": {"userDataIngestionStatus": {"recordCount": "1", "userIdentifierCount": "3"}},
    }
    assert digest("alexz@example.com") in server.lists["77"]
    assert server.violations == []


def test_members_leave_one_by_one_or_all(server: GoogleDataManager) -> None:
    bob = {"userData": {"userIdentifiers": [{"emailAddress": digest("bob@x.io")}]}}
    post(server, "audienceMembers:ingest", {**AUDIENCE, "audienceMembers": [ANN, bob]})
    leaving = {"destinations": [DESTINATION], "encoding": "HEX", "audienceMembers": [{"userData": ANN["userData"]}]}
    assert post(server, "audienceMembers:remove", leaving).status_code == 200
    assert server.lists["77"] == {digest("bob@x.io")}
    assert post(server, "audienceMembers:removeAll", {"destinations": [DESTINATION]}).status_code == 200
    assert server.lists == {}


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("encoding", None, "encoding"),
        ("encoding", "hex", "encoding"),
        ("termsOfService", None, "termsOfService"),
        ("destinations", [], "destinations"),
        ("destinations.0.productDestinationId", None, "destinations[0].productDestinationId"),
        ("destinations.0.operatingAccount.accountId", "123-456", "destinations[0].operatingAccount.accountId"),
        ("audienceMembers", [{}] * 10_001, "audience_members.audienceMembers"),
        (
            "audienceMembers.0.consent",
            {"adUserData": "GRANTED"},
            f"{ROW}.consent.adUserData",
        ),
        ("audienceMembers.0.mobileData", {"mobileIds": ["m"]}, ROW),
    ],
)
def test_a_member_call_of_another_form_is_refused_whole(
    server: GoogleDataManager, path: str, value: Any, field: str
) -> None:
    answer = post(server, "audienceMembers:ingest", changed(AUDIENCE, path, value))
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["status"] == "INVALID_ARGUMENT"
    assert error["details"][0]["fieldViolations"][0]["field"] == field
    assert server.lists == {}


@pytest.mark.parametrize(
    "identifier",
    [
        {"emailAddress": digest("a@x.io").upper()},
        {"emailAddress": digest("a@x.io")[:-1]},
        {"emailAddress": "a@x.io"},
        {"emailAddress": digest("a@x.io"), "phoneNumber": digest("+1")},
        {"addressInfo": ANN["userData"]["userIdentifiers"][2]["address"]},
        {"address": {"givenName": digest("ann"), "familyName": digest("ng"), "regionCode": "US"}},
        {"address": {"givenName": digest("a"), "familyName": digest("b"), "regionCode": "us", "postalCode": "1"}},
        {"address": {"givenName": "ann", "familyName": digest("b"), "regionCode": "US", "postalCode": "1"}},
    ],
)
def test_identifiers_are_digests_one_each(server: GoogleDataManager, identifier: dict[str, Any]) -> None:
    body = changed(AUDIENCE, "audienceMembers.0.userData.userIdentifiers.1", identifier)
    answer = post(server, "audienceMembers:ingest", body)
    assert answer.status_code == 400
    field = answer.json()["error"]["details"][0]["fieldViolations"][0]["field"]
    assert field.startswith(f"{ROW}.userData.userIdentifiers[1]")


def test_a_user_has_ten_identifiers_at_most(server: GoogleDataManager) -> None:
    many = [{"emailAddress": digest(str(number))} for number in range(11)]
    path = "audienceMembers.0.userData.userIdentifiers"
    assert post(server, "audienceMembers:ingest", changed(AUDIENCE, path, many[:10])).status_code == 200
    assert post(server, "audienceMembers:ingest", changed(AUDIENCE, path, many)).status_code == 400


def test_a_removal_has_neither_consent_nor_terms(server: GoogleDataManager) -> None:
    assert post(server, "audienceMembers:remove", AUDIENCE).status_code == 400


def test_events_are_deduplicated_by_transaction(server: GoogleDataManager) -> None:
    answer = post(server, "events:ingest", EVENTS)
    again = post(server, "events:ingest", {**EVENTS, "events": [ORDER, {**ORDER, "transactionId": "order-2"}]})
    assert [event["transactionId"] for event in server.events] == ["order-1", "order-2"]
    status(server, again.json()["requestId"])
    told = status(server, again.json()["requestId"])
    assert told["requestStatus"] == "PARTIAL_SUCCESS"
    assert told["eventsIngestionStatus"] == {"recordCount": "2"}
    assert told["errorInfo"]["errorCounts"] == [
        {"recordCount": "1", "reason": "PROCESSING_ERROR_REASON_DUPLICATE_TRANSACTION_ID"}
    ]
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("events.0.eventTimestamp", None),
        ("events.0.eventTimestamp", "2026-11-01 10:00:00"),
        ("events.0.eventTimestamp", "2026-11-01T10:00:00"),
        ("events.0.eventTimestamp", 1793817970000),
        ("events.0.conversionValue", "12.5"),
        ("events.0.currency", "usd"),
        ("events.0.eventSource", "web"),
        ("events.0.adIdentifiers", {"gclid": "a", "gbraid": "b"}),
        ("events", [{}] * 2_001),
    ],
)
def test_an_event_of_another_form_is_refused(server: GoogleDataManager, path: str, value: Any) -> None:
    assert post(server, "events:ingest", changed(EVENTS, path, value)).status_code == 400
    assert server.events == []


def test_what_is_wrong_with_an_event_is_counted_later(server: GoogleDataManager) -> None:
    server.late_errors["bad-click"] = "INVALID_GCLID"
    denied = {"adUserData": "CONSENT_DENIED", "adPersonalization": "CONSENT_DENIED"}
    events = [
        {**ORDER, "transactionId": "a", "eventTimestamp": "2026-01-01T00:00:00Z"},
        {**ORDER, "transactionId": "b", "adIdentifiers": {"gclid": "bad-click"}},
        {**ORDER, "transactionId": "c", "consent": denied},
    ]
    request = post(server, "events:ingest", {**EVENTS, "events": events}).json()["requestId"]
    status(server, request)
    told = status(server, request)
    reasons = {count["reason"].removeprefix("PROCESSING_ERROR_REASON_") for count in told["errorInfo"]["errorCounts"]}
    assert (told["requestStatus"], reasons) == ("FAILED", {"EVENT_TOO_OLD", "INVALID_GCLID", "DENIED_CONSENT"})


def test_a_preview_runs_the_checks_and_writes_nothing(server: GoogleDataManager) -> None:
    assert post(server, "events:ingest", {**EVENTS, "validateOnly": True}).json() == {}
    assert post(server, "events:ingest", {"destinations": [], "events": [], "validateOnly": True}).status_code == 400
    assert server.events == []


def test_a_bad_row_is_named_and_the_rest_is_not_taken(server: GoogleDataManager) -> None:
    server.fail("bad_row", key="order-2")
    events = [{**ORDER, "transactionId": f"order-{number}"} for number in (1, 2, 3)]
    answer = post(server, "events:ingest", {**EVENTS, "events": events})
    fields = [told["field"] for told in answer.json()["error"]["details"][0]["fieldViolations"]]
    assert (answer.status_code, fields, server.events) == (400, ["events.events[1]"], [])


def test_a_request_can_be_slow_or_fail(server: GoogleDataManager) -> None:
    server.fail("slow_job", seconds=600)
    slow = post(server, "audienceMembers:ingest", AUDIENCE).json()["requestId"]
    assert [status(server, slow)["requestStatus"] for _ in range(3)] == ["PROCESSING"] * 3
    server.clock.advance(600)
    assert status(server, slow)["requestStatus"] == "SUCCESS"
    server.fail("job_fails", reason="INTERNAL_ERROR")
    lost = post(server, "events:ingest", EVENTS).json()["requestId"]
    status(server, lost)
    assert status(server, lost)["requestStatus"] == "FAILED"
    assert server.events == []


def test_ingestion_has_a_quota_a_minute_that_reading_does_not_share(server: GoogleDataManager) -> None:
    assert [limit.amount for limit in server.limits] == [300, 100_000, 300, 50_000]
    server.limits[0].amount = 3
    with client(server, Authorization=f"Bearer {server.grant()}") as http:
        codes = [http.post("/v1/events:ingest", json=EVENTS).status_code for _ in range(3)]
        over = http.post("/v1/events:ingest", json=EVENTS)
        assert (codes, over.status_code) == ([200] * 3, 429)
        assert "Retry-After" not in over.headers
        assert over.json()["error"]["details"][0]["metadata"]["quota_limit"] == "IngestionRequestsPerMinutePerProject"
        assert http.get("/v1/requestStatus:retrieve").status_code == 404
        server.clock.advance(61)
        assert http.post("/v1/events:ingest", json=EVENTS).status_code == 200


def test_a_service_account_of_google_auth_is_let_in(server: GoogleDataManager) -> None:
    account = service_account.Credentials.from_service_account_info(server.service_account(), scopes=[SCOPE])
    account.refresh(google.auth.transport.requests.Request())
    assert post(server, "events:ingest", EVENTS, account.token).status_code == 200
    server.fail("token_expired")
    assert post(server, "events:ingest", EVENTS, account.token).status_code == 401
    account.refresh(google.auth.transport.requests.Request())
    assert post(server, "events:ingest", EVENTS, account.token).status_code == 200
    assert server.violations == []


def test_a_refresh_token_of_google_auth_is_let_in(server: GoogleDataManager) -> None:
    user = refreshed.Credentials(token=None, token_uri=f"{server.url}/token", **CLIENT)
    user.refresh(google.auth.transport.requests.Request())
    assert post(server, "events:ingest", EVENTS, user.token).status_code == 200
    server.clock.advance(3600)
    assert post(server, "events:ingest", EVENTS, user.token).json()["error"]["status"] == "UNAUTHENTICATED"
    stranger = refreshed.Credentials(token=None, token_uri=f"{server.url}/token", **{**CLIENT, "client_secret": "no"})
    with pytest.raises(google.auth.exceptions.RefreshError, match="invalid_grant"):
        stranger.refresh(google.auth.transport.requests.Request())


def test_a_token_of_another_scope_or_key_is_refused(server: GoogleDataManager) -> None:
    other = server.grant("https://www.googleapis.com/auth/adwords")
    assert post(server, "events:ingest", EVENTS, other).status_code == 403
    assert post(server, "events:ingest", EVENTS, "made-up").status_code == 401
    stranger = {**server.service_account(), "client_email": "other@project.iam.gserviceaccount.com"}
    account = service_account.Credentials.from_service_account_info(stranger, scopes=[SCOPE])
    with pytest.raises(google.auth.exceptions.RefreshError, match="invalid_grant"):
        account.refresh(google.auth.transport.requests.Request())
    assert len(server.violations) == 3


def test_accounts_and_products_that_are_not_there_are_refused() -> None:
    with GoogleDataManager(clock=ManualClock(NOVEMBER), products={"77"}, accounts={"1234567890"}) as server:
        assert post(server, "events:ingest", EVENTS).status_code == 200
        assert (
            post(server, "events:ingest", changed(EVENTS, "destinations.0.productDestinationId", "78")).status_code
            == 400
        )
        path = "destinations.0.operatingAccount.accountId"
        assert post(server, "events:ingest", changed(EVENTS, path, "1")).status_code == 403
