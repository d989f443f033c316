"""Jobs of Salesforce's Bulk API 2.0: what becomes of their rows, whatever happens to the calls and to the job."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from heap_assets.activation import Status
from heap_assets_tests.connectors.servers.salesforce import SalesforceServer
from heap_assets_tests.connectors.test_salesforce import LEADS, Made, made, sent

__all__ = ["made"]  # a fixture

_JOBS = "\nbulk_from_rows: 1\npoll_seconds: 0.02\n"
_MANY = "\nbulk_from_rows: 201\npoll_seconds: 0.02\n"


def _uploads(server: SalesforceServer) -> list[list[dict[str, str]]]:
    bodies = [call.body for call in server.calls if call.method == "PUT"]
    return [list(csv.DictReader(io.StringIO(body))) for body in bodies]


@pytest.mark.parametrize("match", ["update_only", "upsert", "create_only"])
def test_many_rows_are_a_job_of_each_object_and_few_are_none(made: Made, match: str) -> None:
    deployment, server = made(f"{LEADS.settings}match: {match}{_MANY}")
    rows = LEADS.rows(420)
    LEADS.seed(server, rows[:10] if match == "create_only" else rows if match == "update_only" else [])
    report = sent(deployment, 0, *rows)
    assert (report.status, report.sent) == (Status.SUCCEEDED, 410 if match == "create_only" else 420)
    assert report.no_match == (10 if match == "create_only" else 0)
    assert [len(upload) for upload in _uploads(server)] == [420]
    assert report.requests < 12
    sent(deployment, 1, LEADS.row(0, version=1), *rows[1:])
    assert len(_uploads(server)) == 1
    assert server.open_jobs == []


def test_what_a_row_lacks_is_left_alone_and_what_is_gone_is_emptied(made: Made) -> None:
    deployment, server = made(LEADS.settings + _JOBS)
    rows = LEADS.rows(3)
    LEADS.seed(server, rows)
    strange = 'a "quoted", text\r\nof two lines '
    sparse = {**rows[1], "title": None, "pql": None}
    assert sent(deployment, 0, {**rows[0], "title": strange}, sparse, {**rows[2], "title": "#N/A"}).rejected == 1
    [upload] = _uploads(server)
    assert [row["Title"] for row in upload] == [strange.replace("\r", ""), ""]
    assert [row["Is_PQL__c"] for row in upload] == ["true", ""]
    assert sent(deployment, 1, {**rows[0], "title": None, "pql": None}, {**sparse, "score": 7.5}).sent == 2
    assert [row["Title"] for row in _uploads(server)[1]] == ["#N/A", ""]
    assert [row["Is_PQL__c"] for row in _uploads(server)[1]] == ["#N/A", ""]


@pytest.mark.parametrize("match", ["update_only", "upsert"])
def test_converted_leads_and_refused_rows_of_a_job_are_named(made: Made, match: str) -> None:
    deployment, server = made(f"{LEADS.settings}match: {match}\nconverted_fields: [Lead_Score__c]{_JOBS}")
    rows = LEADS.rows(6)
    LEADS.seed(server, rows)
    contact = server.edit("Contact", LastName="x")
    server.convert(server.find("Lead", "Heap_Id__c", rows[1]["id"])[0], contact)
    report = sent(deployment, 0, *rows[:4], {**rows[4], "title": "x" * 129}, rows[5])
    assert (report.sent, report.rejected) == (5, 1)
    assert next(iter(report.rejections)).startswith("STRING_TOO_LONG")
    assert server.records["Contact"][contact]["Lead_Score__c"] == 0.5


@pytest.mark.parametrize("step", [r"ingest$", r"batches$", r"ingest/job-\d+$", "failedResults$"])
@pytest.mark.parametrize("fault", ["accept_then_no_answer", "server_error"])
def test_a_lost_answer_at_any_step_loses_no_row(made: Made, step: str, fault: Any) -> None:
    deployment, server = made(f"{LEADS.settings}match: upsert{_JOBS}")
    rows = LEADS.rows(5)
    server.fail("bad_row", key=rows[2]["last_name"], times=1)
    server.fail(fault, path=step)
    report = sent(deployment, 0, *rows)
    assert (report.sent, report.rejected, report.unknown) == (4, 1, 0)
    kinds = {"one upload per job, while it is open", "an open job is completed, once"}
    server.violations[:] = [one for one in server.violations if one.rule not in kinds]


def test_a_job_that_fails_half_way_is_sent_again_without_what_it_did(made: Made) -> None:
    deployment, server = made(f"{LEADS.settings}match: upsert{_JOBS}")
    server.fail("job_fails", path="ingest$", done=3)
    report = sent(deployment, 0, *LEADS.rows(8))
    assert (report.status, report.sent) == (Status.SUCCEEDED, 8)
    assert [len(upload) for upload in _uploads(server)] == [8, 5]


@pytest.mark.parametrize("gone", ["complete", "open", "forgotten"])
def test_a_later_run_goes_on_with_a_job(made: Made, gone: str) -> None:
    deployment, server = made(f"{LEADS.settings}match: upsert{_JOBS}")
    rows = LEADS.rows(5)
    server.fail(
        "server_error", path="batches$" if gone == "open" else r"ingest/job-\d+$", times=9, skip=gone == "complete"
    )
    assert sent(deployment, 0, *rows).status is Status.STOPPED
    server.heal()
    if gone == "forgotten":
        server.jobs.clear()
    report = deployment.send(0, "r2")
    assert report.status is Status.SUCCEEDED, report
    assert (report.resumed, report.sent) == ((5, 0) if gone == "complete" else (0, 5))
    assert len(server.records["Lead"]) == 5
    assert server.open_jobs == []
    server.violations.clear()


def test_a_refusal_in_other_columns_is_one_nevertheless(made: Made) -> None:
    deployment, server = made(f"{LEADS.settings}match: upsert{_JOBS}")
    server.result_columns = ("SF__ID", "sf__Created", "Reason")
    rows = LEADS.rows(3)
    server.fail("bad_row", key=rows[1]["last_name"])
    report = sent(deployment, 0, *rows)
    assert (report.sent, report.rejections) == (2, {"FAILED": 1})


def test_keys_that_are_withdrawn_make_no_record(made: Made) -> None:
    deployment, server = made(f"{LEADS.settings}match: upsert{_JOBS}")
    assert sent(deployment, 0, *LEADS.rows(3)).sent == 3
    server.records["Lead"].clear()
    server._keys.clear()
    report = sent(deployment, 1, LEADS.row(0))
    assert (report.withdrawn, report.no_match) == (2, 2)
    assert server.records["Lead"] == {}
