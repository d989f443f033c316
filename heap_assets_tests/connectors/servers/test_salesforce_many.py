"""The stand-in for Salesforce: queries, what changed, and Bulk API 2.0."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from heap_assets_tests.connectors.servers.core import ManualClock
from heap_assets_tests.connectors.servers.salesforce import Field, SalesforceServer
from heap_assets_tests.connectors.servers.salesforce_calls import V, lead, query, signed_in, upsert


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


# reading


def test_soql_answers_in_pages(org: SalesforceServer, api: httpx.Client) -> None:
    org.page_rows = 2
    upsert(api, *(lead(f"u-{n}", Lead_Score__c=n) for n in range(5)), lead("o'b\\c"))
    assert [row["Heap_Id__c"] for row in query(api, "SELECT Heap_Id__c FROM Lead WHERE Lead_Score__c >= 2")] == [
        "u-2",
        "u-3",
        "u-4",
    ]
    assert query(api, r"SELECT Heap_Id__c FROM Lead WHERE Heap_Id__c = 'o\'b\\c'") == [{"Heap_Id__c": "o'b\\c"}]
    assert len(query(api, "SELECT Id FROM Lead WHERE Heap_Id__c IN ('U-0','u-9') OR Lead_Score__c = 1")) == 2
    newest = "SELECT Id FROM Lead WHERE SystemModstamp >= 2026-01-01T00:00:00Z ORDER BY SystemModstamp DESC LIMIT 3"
    assert len(query(api, newest)) == 3
    org.remove("Lead", next(iter(org.records["Lead"])))
    assert len(query(api, "SELECT Id FROM Lead")) == 5
    assert len(query(api, "SELECT Id, IsDeleted FROM Lead WHERE IsDeleted = true", all=True)) == 1


def test_queries_in_the_body_of_one_call(org: SalesforceServer, api: httpx.Client) -> None:
    upsert(api, *(lead(f"u-{n}") for n in range(3)))
    address = f"{V}/query?q=SELECT%20Heap_Id__c%20FROM%20Lead%20WHERE%20Heap_Id__c%20%3D%20%27u-"
    parts = [{"method": "GET", "url": f"{address}{n}%27", "referenceId": f"q{n}"} for n in range(6)]

    def answer(parts: list[dict[str, str]]) -> Any:
        return api.post(f"{V}/composite", json={"allOrNone": False, "compositeRequest": parts})

    pages = answer(parts[1:3]).json()["compositeResponse"]
    assert [(page["referenceId"], page["httpStatusCode"]) for page in pages] == [("q1", 200), ("q2", 200)]
    assert [page["body"]["records"][0]["Heap_Id__c"] for page in pages] == ["u-1", "u-2"]
    [wrong] = answer([{**parts[0], "url": f"{V}/query?q=SELECT%20Nope%20FROM%20Lead"}]).json()["compositeResponse"]
    assert (wrong["httpStatusCode"], wrong["body"][0]["errorCode"]) == (400, "INVALID_FIELD")
    assert answer(parts).status_code == 400
    assert answer([{**parts[0], "method": "POST"}]).status_code == 400


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("SELECT * FROM Lead", "MALFORMED_QUERY"),
        ("SELECT Nope FROM Lead", "INVALID_FIELD"),
        ("SELECT Id FROM Lead WHERE Heap_Id__c = 'it's'", "MALFORMED_QUERY"),
        ("SELECT Id FROM Lead WHERE Lead_Score__c = '3'", "INVALID_FIELD"),
        ("SELECT Id FROM Lead WHERE SystemModstamp > '2026-01-01T00:00:00Z'", "INVALID_FIELD"),
        ("SELECT Id FROM Lead WHERE Heap_Id__c = abc", "INVALID_FIELD"),
        ("SELECT Id FROM Lead WHERE Heap_Id__c IN ()", "MALFORMED_QUERY"),
    ],
)
def test_soql_that_is_none(org: SalesforceServer, api: httpx.Client, text: str, code: str) -> None:
    answer = api.get(f"{V}/query", params={"q": text})
    assert (answer.status_code, answer.json()[0]["errorCode"]) == (400, code)
    assert len(org.violations) == 1


def test_a_uri_has_an_end(org: SalesforceServer, api: httpx.Client) -> None:
    keys = ",".join(f"'{n:020d}'" for n in range(800))
    assert api.get(f"{V}/query", params={"q": f"SELECT Id FROM Lead WHERE Heap_Id__c IN ({keys})"}).status_code == 414


def test_what_was_updated_and_deleted(org: SalesforceServer, api: httpx.Client) -> None:
    ids = [row["id"] for row in upsert(api, lead("a"), lead("b"))]
    org.clock.advance(90)  # type: ignore[attr-defined]
    org.edit("Lead", ids[1], Company="Theirs")
    org.remove("Lead", ids[0])
    times = {"start": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:01:59Z"}
    assert api.get(f"{V}/sobjects/Lead/updated/", params=times).json()["ids"] == []
    times = {"start": "2026-01-01T00:01:59Z", "end": "2026-01-01T00:02:59Z"}
    assert api.get(f"{V}/sobjects/Lead/updated/", params=times).json() == {
        "ids": [ids[1]],
        "latestDateCovered": "2026-01-01T00:02:00.000+0000",
    }
    assert api.get(f"{V}/sobjects/Lead/deleted/", params=times).json()["deletedRecords"] == [
        {"id": ids[0], "deletedDate": "2026-01-01T00:01:30.000+0000"}
    ]
    for which, day in (("updated", "2025-12-01"), ("deleted", "2025-12-16")):
        times["start"] = f"{day}T00:00:00Z"
        assert api.get(f"{V}/sobjects/Lead/{which}/", params=times).json()[0]["errorCode"] == "INVALID_REPLICATION_DATE"


# Bulk API 2.0

JOB = {
    "object": "Lead",
    "operation": "upsert",
    "externalIdFieldName": "Heap_Id__c",
    "contentType": "CSV",
    "lineEnding": "LF",
}


def bulk(api: httpx.Client, text: str, job: dict[str, str] = JOB, polls: int = 2) -> tuple[str, dict[str, Any]]:
    id = api.post(f"{V}/jobs/ingest", json=job).json()["id"]
    put = api.put(f"{V}/jobs/ingest/{id}/batches", content=text.encode(), headers={"Content-Type": "text/csv"})
    assert put.status_code == 201
    assert api.patch(f"{V}/jobs/ingest/{id}", json={"state": "UploadComplete"}).json()["state"] == "UploadComplete"
    return id, [api.get(f"{V}/jobs/ingest/{id}").json() for _ in range(polls)][-1]


def results(api: httpx.Client, id: str, which: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(api.get(f"{V}/jobs/ingest/{id}/{which}").text)))


def test_a_job_applies_good_rows_and_tells_the_others(org: SalesforceServer, api: httpx.Client) -> None:
    upsert(api, lead("a", FirstName="A", Lead_Score__c=1))
    text = (
        "Heap_Id__c,LastName,Company,FirstName,Lead_Score__c\n"
        'a,Ng,"Acme, ""Inc""",#N/A,\nb,Ng,,,\nc,Ng,Acme,,7\nd,Ng, "x",,\ne,Ng,Acme,,x\n'
    )
    id, told = bulk(api, text)
    assert {name: told[name] for name in ("state", "numberRecordsProcessed", "numberRecordsFailed")} == {
        "state": "JobComplete",
        "numberRecordsProcessed": 5,
        "numberRecordsFailed": 3,
    }
    good = {row["Heap_Id__c"]: row for row in results(api, id, "successfulResults")}
    assert good["a"] == {
        "sf__Id": "00Q000000000001AAA",
        "sf__Created": "false",
        "Heap_Id__c": "a",
        "LastName": "Ng",
        "Company": 'Acme, "Inc"',
        "FirstName": "#N/A",
        "Lead_Score__c": "",
    }
    assert good["c"]["sf__Created"] == "true"
    bad = {row["Heap_Id__c"]: row["sf__Error"] for row in results(api, id, "failedResults")}
    assert bad["b"].startswith("REQUIRED_FIELD_MISSING:")
    assert bad["e"].startswith("INVALID_TYPE_ON_FIELD_IN_RECORD:")
    assert results(api, id, "unprocessedrecords") == results(api, id, "unprocessedRecords") == []
    first = org.records["Lead"]["00Q000000000001AAA"]
    assert (first["Company"], first["FirstName"], first["Lead_Score__c"]) == ('Acme, "Inc"', None, 1)
    assert [v.rule for v in org.violations] == ["a row is as long as the header, and nothing stands beside a quote"]


@pytest.mark.parametrize(
    "text", ["Nope,Heap_Id__c\n1,a\n", "LastName\nNg\n", "Heap_Id__c,LastName\r\na,b\r\n", ""], ids=repr
)
def test_a_csv_that_is_none_fails_the_job(org: SalesforceServer, api: httpx.Client, text: str) -> None:
    if not text:
        id = api.post(f"{V}/jobs/ingest", json=JOB).json()["id"]
        assert api.patch(f"{V}/jobs/ingest/{id}", json={"state": "UploadComplete"}).status_code == 400
        assert org.open_jobs == [id]
        assert api.patch(f"{V}/jobs/ingest/{id}", json={"state": "Aborted"}).json()["state"] == "Aborted"
        assert org.open_jobs == []
        return
    _, told = bulk(api, text)
    assert (told["state"], told["errorMessage"][:12]) == ("Failed", "InvalidBatch")
    assert len(org.violations) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"operation": "replace"},
        {"operation": "insert"},
        {"operation": "hardDelete"},
        {"contentType": "JSON"},
        {"lineEnding": "CR"},
        {"externalIdFieldName": "LastName"},
        {"object": "Nope"},
        {"more": 1},
    ],
)
def test_a_job_that_is_none(org: SalesforceServer, api: httpx.Client, wrong: dict[str, Any]) -> None:
    assert api.post(f"{V}/jobs/ingest", json=JOB | wrong).status_code in (400, 404)
    assert len(org.violations) == 1


def test_one_upload_a_job_of_a_limited_size(org: SalesforceServer, api: httpx.Client) -> None:
    id = api.post(f"{V}/jobs/ingest", json=JOB).json()["id"]
    put = f"{V}/jobs/ingest/{id}/batches"
    csv_type = {"Content-Type": "text/csv"}
    org.upload_bytes = 10
    assert api.put(put, content=b"x" * 11, headers=csv_type).status_code == 413
    assert api.put(put, content=b"x" * 10).status_code == 400
    assert api.put(put, content=b"x" * 10, headers=csv_type).status_code == 201
    assert api.put(put, content=b"x" * 10, headers=csv_type).status_code == 400
    assert api.get(f"{V}/jobs/ingest/{id}/failedResults").status_code == 400


def test_a_job_stopped_half_way_tells_what_it_left(org: SalesforceServer, api: httpx.Client) -> None:
    org.fail("job_fails", done=1)
    id, told = bulk(api, "Heap_Id__c,LastName,Company\na,Ng,Acme\nb,Ng,Acme\nc,Ng,Acme\n")
    assert (told["state"], told["numberRecordsProcessed"]) == ("Failed", 1)
    assert [row["Heap_Id__c"] for row in results(api, id, "successfulResults")] == ["a"]
    assert {row["Heap_Id__c"] for row in results(api, id, "unprocessedrecords")} == {"b", "c"}


def test_a_slow_job_and_an_old_one(org: SalesforceServer, api: httpx.Client) -> None:
    org.fail("slow_job", seconds=600)
    id, told = bulk(api, "Heap_Id__c,LastName,Company\na,Ng,Acme\n", polls=5)
    assert told["state"] == "InProgress"
    org.clock.advance(600)  # type: ignore[attr-defined]
    assert api.get(f"{V}/jobs/ingest/{id}").json()["state"] == "JobComplete"
    org.clock.advance(7 * 86_400)  # type: ignore[attr-defined]
    with signed_in(org) as other:
        assert other.get(f"{V}/jobs/ingest/{id}").status_code == 404


def test_bulk_update_and_delete_go_by_id(org: SalesforceServer, api: httpx.Client) -> None:
    first = upsert(api, lead("a"))[0]["id"]
    update = {"object": "Lead", "operation": "update", "contentType": "CSV"}
    id, _ = bulk(api, f"Id,Company\n{first},B\n00Q000000000099AAA,C\n", update)
    assert results(api, id, "failedResults")[0]["Id"] == "00Q000000000099AAA"
    assert org.records["Lead"][first]["Company"] == "B"
    bulk(api, f"Id\n{first}\n", update | {"operation": "delete"})
    assert org.records["Lead"][first]["IsDeleted"]
