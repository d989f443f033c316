"""The stand-in for Salesforce is as strict as its documents; calls as the fact sheet has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from heap_assets_tests.connectors.servers.clients import client
from heap_assets_tests.connectors.servers.core import ManualClock
from heap_assets_tests.connectors.servers.salesforce import Field, SalesforceServer
from heap_assets_tests.connectors.servers.salesforce_calls import LEADS, NOW, SECRET, V, lead, query, signed_in, upsert


@pytest.fixture
def org() -> Iterator[SalesforceServer]:
    with SalesforceServer(clock=ManualClock()) as server:
        server.fields["Lead"] |= {"Lead_Score__c": Field("double"), "Is_PQL__c": Field("boolean")}
        server.fields["Lead"] |= {"Trial_End__c": Field("date"), "Seen_At__c": Field("datetime")}
        yield server


@pytest.fixture
def api(org: SalesforceServer) -> Iterator[httpx.Client]:
    with signed_in(org) as one:
        yield one


# tokens


def test_client_credentials_give_a_token_without_a_lifetime(org: SalesforceServer) -> None:
    with client(org) as anyone:
        form = anyone.post("/services/oauth2/token", data=SECRET).json()
        basic = anyone.post(
            "/services/oauth2/token", data={"grant_type": "client_credentials"}, auth=("client-1", "secret-1")
        ).json()
    assert form == {"access_token": "token-1", "instance_url": org.url, "token_type": "Bearer", "id": f"{org.url}/id/1"}
    assert basic["access_token"] == "token-2"


@pytest.mark.parametrize("wrong", [{"client_secret": "x"}, {"grant_type": "password"}, {"grant_type": "refresh_token"}])
def test_other_grants_are_refused(org: SalesforceServer, wrong: dict[str, str]) -> None:
    with client(org) as anyone:
        answer = anyone.post("/services/oauth2/token", data=SECRET | wrong)
        assert answer.status_code == 400
        assert anyone.post("/services/oauth2/token", json=SECRET).status_code == 400
    assert len(org.violations) == 2


def test_the_login_host_grants_no_client_credentials() -> None:
    with SalesforceServer(login_host=True) as org, client(org) as anyone:
        assert anyone.post("/services/oauth2/token", data=SECRET).json()["error"] == "invalid_grant"


def test_a_jwt_is_granted_for_minutes_only() -> None:
    key = rsa.generate_private_key(65537, 2048)
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    good = {"iss": "client-1", "sub": "sync@example.com", "aud": "https://login.salesforce.com", "exp": NOW + 180}
    grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
    with SalesforceServer(clock=ManualClock(), public_key=pem.decode()) as org, client(org) as anyone:

        def status(claims: dict[str, Any], signer: Any = key) -> int:
            form = {"grant_type": grant, "assertion": jwt.encode(claims, signer, "RS256")}
            return anyone.post("/services/oauth2/token", data=form).status_code

        assert status(good) == 200
        assert org.violations == []
        wrong = [{"exp": NOW + 3600}, {"exp": NOW}, {"iss": "x"}, {"sub": "x"}, {"aud": "https://example.com"}]
        assert [status(good | one) for one in wrong] == [400] * len(wrong)
        assert status(good, rsa.generate_private_key(65537, 2048)) == 400


def test_an_old_session_is_401_and_a_new_one_goes_on(org: SalesforceServer, api: httpx.Client) -> None:
    org.fail("token_expired")
    assert api.patch(LEADS, json={"records": [lead()]}).status_code == 401
    answer = api.patch(LEADS, json={"records": [lead()]})
    assert answer.json() == [{"errorCode": "INVALID_SESSION_ID", "message": "Session expired or invalid"}]
    with signed_in(org) as other:
        assert upsert(other, lead())[0]["success"]
    assert org.violations == []


# collections


def test_the_sheets_own_example_is_taken_and_repeated_without_harm(org: SalesforceServer, api: httpx.Client) -> None:
    row = lead(Lead_Score__c=71, Is_PQL__c=True)
    assert upsert(api, row) == [{"id": "00Q000000000001AAA", "success": True, "errors": [], "created": True}]
    assert upsert(api, row) == [{"id": "00Q000000000001AAA", "success": True, "errors": [], "created": False}]
    assert org.records["Lead"]["00Q000000000001AAA"] == {
        "Id": "00Q000000000001AAA",
        "IsDeleted": False,
        "IsConverted": False,
        "ConvertedContactId": None,
        "CreatedDate": "2026-01-01T00:00:00.000+0000",
        "SystemModstamp": "2026-01-01T00:00:00.000+0000",
        "LastModifiedDate": "2026-01-01T00:00:00.000+0000",
        "LastModifiedById": "005000000000001AAA",
        "Heap_Id__c": "u-1",
        "LastName": "Ng",
        "Company": "Acme",
        "Lead_Score__c": 71,
        "Is_PQL__c": True,
    }
    assert org.violations == []


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"LastName": None}, "REQUIRED_FIELD_MISSING"),
        ({"Email": "nobody"}, "INVALID_EMAIL_ADDRESS"),
        ({"FirstName": "x" * 41}, "STRING_TOO_LONG"),
        ({"Nope__c": 1}, "INVALID_FIELD"),
        ({"IsConverted": True}, "INVALID_FIELD_FOR_INSERT_UPDATE"),
        ({"Lead_Score__c": "71"}, "INVALID_TYPE_ON_FIELD_IN_RECORD"),
        ({"Lead_Score__c": True}, "INVALID_TYPE_ON_FIELD_IN_RECORD"),
        ({"Is_PQL__c": "true"}, "INVALID_TYPE_ON_FIELD_IN_RECORD"),
        ({"Trial_End__c": "2026-02-30"}, "INVALID_TYPE_ON_FIELD_IN_RECORD"),
        ({"Trial_End__c": "2026-02-01T00:00:00Z"}, "INVALID_TYPE_ON_FIELD_IN_RECORD"),
        ({"Seen_At__c": "2026-02-01T00:00:00"}, "INVALID_TYPE_ON_FIELD_IN_RECORD"),
        ({"FirstName": 1}, "INVALID_TYPE_ON_FIELD_IN_RECORD"),
        ({"Status": "Nope"}, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"),
        ({"OwnerId": "x"}, "MALFORMED_ID"),
    ],
)
def test_a_bad_row_is_told_in_its_place_and_its_neighbours_are_written(
    org: SalesforceServer, api: httpx.Client, wrong: dict[str, Any], code: str
) -> None:
    answer = upsert(api, lead("a"), lead("b", **wrong), lead("c"))
    assert [row["success"] for row in answer] == [True, False, True]
    assert "id" not in answer[1]
    assert answer[1]["errors"][0]["statusCode"] == code
    assert [row["Heap_Id__c"] for row in org.records["Lead"].values()] == ["a", "c"]


def test_good_values_at_every_limit(org: SalesforceServer, api: httpx.Client) -> None:
    row = lead("k" * 64, FirstName="x" * 40, Trial_End__c="2024-02-29", Seen_At__c="2026-02-01T00:00:00.123+01:00")
    assert upsert(api, row, lead("b", FirstName=None, Email="a@x.io"))[0]["success"]
    assert upsert(api, lead("k" * 65))[0]["errors"][0]["statusCode"] == "STRING_TOO_LONG"


def test_a_wrong_type_may_refuse_the_batch() -> None:
    with SalesforceServer(type_errors="batch", created_member=False) as org, signed_in(org) as api:
        answer = api.patch(LEADS, json={"records": [lead("a"), lead("b", FirstName=1)]})
        assert (answer.status_code, answer.json()[0]["errorCode"]) == (400, "JSON_PARSER_ERROR")
        assert upsert(api, lead("a")) == [{"id": "00Q000000000001AAA", "success": True, "errors": []}]


def test_two_hundred_rows_are_taken_and_one_more_is_not(org: SalesforceServer, api: httpx.Client) -> None:
    rows = [lead(f"u-{n}") for n in range(201)]
    answer = api.patch(LEADS, json={"records": rows})
    assert (answer.status_code, answer.json()[0]["errorCode"]) == (400, "EXCEEDED_ID_LIMIT")
    assert org.records == {}
    assert len(upsert(api, *rows[:200])) == 200
    assert [violation.rule for violation in org.violations] == ["at most 200 records a call"]


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ({"records": []}, "the body has a list of `records`"),
        ([lead()], "the body has a list of `records`"),
        ({"records": [{"Heap_Id__c": "a"}]}, "every record has `attributes.type`"),
        ({"records": [lead() | {"attributes": {"type": "Contact"}}]}, "all records are of the URI's type"),
        ({"records": [lead()], "allOrNone": "false"}, "beside `records` there is `allOrNone`, a bool"),
    ],
)
def test_a_malformed_body_is_400(org: SalesforceServer, api: httpx.Client, body: Any, rule: str) -> None:
    assert api.patch(LEADS, json=body).status_code == 400
    assert [violation.rule for violation in org.violations] == [rule]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{V}/composite/sobjects/Lead/LastName", 400),
        (f"{V}/composite/sobjects/Nope/Heap_Id__c", 404),
        ("/services/data/v45.0/composite/sobjects/Lead/Heap_Id__c", 404),
        ("/services/data/v69.0/composite/sobjects/Lead/Heap_Id__c", 404),
    ],
)
def test_the_path_names_an_object_an_external_id_and_a_living_version(
    org: SalesforceServer, api: httpx.Client, path: str, status: int
) -> None:
    assert api.patch(path, json={"records": [lead()]}).status_code == status
    assert len(org.violations) == 1


def test_rules_of_keys(org: SalesforceServer, api: httpx.Client) -> None:
    codes = [row["errors"][0]["statusCode"] for row in upsert(api, lead("A"), lead("a"), lead(""), lead("i", Id="x"))]
    assert codes == ["DUPLICATE_VALUE", "DUPLICATE_VALUE", "MISSING_ARGUMENT", "INVALID_FIELD"]
    org.fields["Lead"]["Crm__c"] = Field(external_id=True)
    assert api.patch(f"{V}/composite/sobjects/Lead/Crm__c", json={"records": [lead()]}).status_code == 400
    org.view_all_data = True
    for key in ("x", "y"):
        org.edit("Lead", Crm__c="twice", Heap_Id__c=key)
    row = {"attributes": {"type": "Lead"}, "Crm__c": "twice", "Company": "B"}
    answer = api.patch(f"{V}/composite/sobjects/Lead/Crm__c", json={"records": [row]}).json()
    assert answer[0]["errors"][0]["statusCode"] == "DUPLICATE_EXTERNAL_ID"
    assert api.patch(f"{V}/sobjects/Lead/Crm__c/twice", json={"Company": "B"}).status_code == 300


def test_all_or_none_rolls_neighbours_back(org: SalesforceServer, api: httpx.Client) -> None:
    answer = upsert(api, lead("a"), lead("b", Email="nobody"), allOrNone=True)
    assert [row["errors"][0]["statusCode"] for row in answer] == [
        "ALL_OR_NONE_OPERATION_ROLLED_BACK",
        "INVALID_EMAIL_ADDRESS",
    ]
    assert org.records.get("Lead", {}) == {}


def test_update_by_id_never_creates_and_null_clears(org: SalesforceServer, api: httpx.Client) -> None:
    first = upsert(api, lead("a", FirstName="A"))[0]["id"]
    rows = [
        {"attributes": {"type": "Lead"}, "id": first, "FirstName": None},
        {"attributes": {"type": "Lead"}, "id": "00Q000000000009AAA", "FirstName": "B"},
        {"attributes": {"type": "Lead"}, "FirstName": "B"},
    ]
    answer = api.patch(f"{V}/composite/sobjects", json={"records": rows}).json()
    assert [row["errors"][0]["statusCode"] if row["errors"] else None for row in answer] == [
        None,
        "INVALID_CROSS_REFERENCE_KEY",
        "MISSING_ARGUMENT",
    ]
    assert list(org.records["Lead"]) == [first]
    assert (org.records["Lead"][first]["FirstName"], org.records["Lead"][first]["LastName"]) == (None, "Ng")


def test_a_converted_lead_is_not_updated(org: SalesforceServer, api: httpx.Client) -> None:
    first = upsert(api, lead("a"))[0]["id"]
    org.convert(first, org.edit("Contact", LastName="Ng"))
    assert upsert(api, lead("a"))[0]["errors"][0]["statusCode"] == "CANNOT_UPDATE_CONVERTED_LEAD"
    found = query(api, "SELECT Id, IsConverted, ConvertedContactId FROM Lead WHERE Heap_Id__c IN ('a', 'b')")
    assert found == [{"Id": first, "IsConverted": True, "ConvertedContactId": "003000000000002AAA"}]


def test_a_row_can_be_made_bad_with_any_code(org: SalesforceServer, api: httpx.Client) -> None:
    org.fail("bad_row", key="b", code="UNABLE_TO_LOCK_ROW", times=1)
    answer = upsert(api, lead("a"), lead("b"))
    assert answer[1] == {
        "success": False,
        "errors": [{"statusCode": "UNABLE_TO_LOCK_ROW", "message": "refused by a rule of the org", "fields": []}],
    }
    assert upsert(api, lead("b"))[0]["success"]


# single records


def test_a_single_upsert_creates_updates_and_with_update_only_never_creates(
    org: SalesforceServer, api: httpx.Client
) -> None:
    one = f"{V}/sobjects/Lead/Heap_Id__c/u-1"
    values = {"LastName": "Ng", "Company": "Acme"}
    assert api.patch(one, params={"updateOnly": "true"}, json=values).status_code == 404
    assert org.records.get("Lead", {}) == {}
    created = api.patch(one, json=values)
    assert (created.status_code, created.json()["created"]) == (201, True)
    updated = api.patch(one, params={"updateOnly": "true"}, json=values)
    assert (updated.status_code, updated.json()["created"]) == (200, False)
    assert org.violations == []
    assert api.patch(one, json=values | {"Heap_Id__c": "u-1"}).status_code == 400
    org.fields["Lead"]["Email"] = Field("email", 80, external_id=True, unique=True)
    assert api.patch(f"{V}/sobjects/Lead/Email/a@acme.inc", json=values).status_code == 404
    assert api.patch(f"{V}/sobjects/Lead/Email/a@acme.io", json=values).status_code == 201
    assert len(org.violations) == 2


def test_records_by_id(org: SalesforceServer, api: httpx.Client) -> None:
    made = api.post(f"{V}/sobjects/Lead", json={"LastName": "Ng", "Company": "Acme"})
    assert (made.status_code, made.json()["success"]) == (201, True)
    assert api.get(f"{V}/sobjects/Lead/describe/").status_code == 200  # simple-salesforce ends paths so
    one = f"{V}/sobjects/Lead/{made.json()['id']}"
    assert api.patch(one, json={"Company": "B"}).status_code == 204
    assert api.get(one).json()["Company"] == "B"
    assert api.delete(one).status_code == 204
    assert api.get(one).json()[0]["errorCode"] == "NOT_FOUND"
    assert api.post(f"{V}/sobjects/Lead", json={"LastName": "Ng"}).json()[0]["fields"] == ["Company"]


def test_describe_tells_what_a_preflight_asks(api: httpx.Client) -> None:
    fields = {field["name"]: field for field in api.get(f"{V}/sobjects/Lead/describe").json()["fields"]}
    assert (fields["Heap_Id__c"]["externalId"], fields["Heap_Id__c"]["unique"]) == (True, True)
    assert (fields["Lead_Score__c"]["type"], fields["LastName"]["nillable"]) == ("double", False)
    assert not fields["IsConverted"]["updateable"]


# limits


def test_the_daily_allotment_is_403_and_every_answer_tells_what_is_used() -> None:
    clock = ManualClock()
    with SalesforceServer(clock=clock, daily_calls=2) as org, signed_in(org) as api:
        assert [api.get(f"{V}/limits").headers["Sforce-Limit-Info"] for _ in range(2)] == [
            "api-usage=1/2",
            "api-usage=2/2",
        ]
        refused = api.get(f"{V}/limits")
        assert (refused.status_code, refused.json()[0]["errorCode"]) == (403, "REQUEST_LIMIT_EXCEEDED")
        assert [violation.rule for violation in org.violations] == ["limit: 2 calls in 24 h"]
        clock.advance(86_400)
        with signed_in(org) as other:
            assert other.get(f"{V}/limits").json() == {"DailyApiRequests": {"Max": 2, "Remaining": 1}}
