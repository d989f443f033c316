"""Preflight tries what a run will do, gives up in seconds, and says what mends it; runs say that they wait."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import grpc  # type: ignore[import-untyped]
import pytest

from heap_assets.sources.warehouse import AccessError, Permission, WarehouseBusyError, WarehouseError
from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount, log_retries
from heap_assets.sources.warehouse.bigquery.errors import explained
from heap_assets.sources.warehouse.bigquery.preflight import preflight
from heap_assets.sources.warehouse.bigquery.reader import BigQueryWarehouse
from heap_assets_tests.sources.warehouse.refusing_google import RefusingGoogle, refusing_google, refusing_storage

REFUSED = "Permission bigquery.tables.getData denied on table p:d.people"


@pytest.fixture
def google() -> Iterator[RefusingGoogle]:
    with refusing_google() as server:
        yield server


def by_name(permissions: list[Permission]) -> dict[str, Permission]:
    return {permission.name: permission for permission in permissions}


def test_everything_is_tried_on_a_warehouse_that_allows_it(bigquery_emulator: object) -> None:
    rest, grpc_address = bigquery_emulator.rest, bigquery_emulator.grpc  # type: ignore[attr-defined]
    account = BigQueryAccount("demo", endpoint=rest, storage_endpoint=grpc_address)
    dataset, views = f"crm_{uuid4().hex[:8]}", f"views_{uuid4().hex[:8]}"
    with account.client() as client:
        for name in (dataset, views):
            client.create_dataset(name)
        client.query(f"CREATE TABLE {dataset}.contacts AS SELECT 1 AS id").result()
        client.query(f"CREATE VIEW {views}.v AS SELECT 1 AS id").result()
        warehouse = BigQueryWarehouse(account, (dataset, views, "nowhere"), maximum_bytes=1)
        tried = by_name(preflight(warehouse, write_to=dataset, patience=60))
        assert {name: permission.passed for name, permission in tried.items()} == {
            "credentials and API": True,
            "query": True,
            f"dataset {dataset}": True,
            f"dataset {views}": True,
            "dataset nowhere": False,
            f"read {dataset}.contacts": True,
            f"read {views}.v": True,
            f"write to {dataset}": True,
        }
        assert "spelled as in BigQuery" in tried["dataset nowhere"].remedy
        assert [table.table_id for table in client.list_tables(dataset)] == ["contacts"]
        missing = by_name(preflight(warehouse, write_to="nowhere", patience=2))["write to nowhere"]
        assert (missing.passed, missing.remedy) == (False, "make the dataset: bq mk --dataset demo:nowhere")
        mapped = BigQueryWarehouse(account, (), relations=(f"{dataset}.contacts", f"{dataset}.gone"))
        read = {name: one.passed for name, one in by_name(preflight(mapped, patience=60)).items() if "read" in name}
        assert read == {f"read {dataset}.contacts": True, f"read {dataset}.gone": False}
        for name in (dataset, views):
            client.delete_dataset(name, delete_contents=True)


@pytest.mark.parametrize(
    ("part", "answer", "failed", "remedy"),
    [
        ("/tables/", (403, "accessDenied", REFUSED), "read d.people", "grant roles/bigquery.dataViewer on d,"),
        ("/datasets/d?", (404, "notFound", "Not found: Dataset p:d"), "dataset d", "is the dataset spelled"),
        ("/datasets/d?", (403, "accessDenied", "Access Denied"), "dataset d", "grant roles/bigquery.dataViewer on d"),
        ("/datasets/d?", (403, "quotaExceeded", "Quota exceeded"), "dataset d", "nothing to grant: wait"),
        ("job", (200, "quotaExceeded", "Quota exceeded: queries"), "query", "nothing to grant: wait"),
        ("job", (200, "accessDenied", "Access Denied"), "query", "grant roles/bigquery.jobUser on the project"),
        ("/datasets?", (403, "accessDenied", "BigQuery API has not been used"), "credentials and API", "enable"),
    ],
)
def test_a_refusal_has_the_remedy_of_its_own_kind(
    google: RefusingGoogle, part: str, answer: tuple[int, str, str], failed: str, remedy: str
) -> None:
    google.refuses[part] = answer
    with refusing_storage(grpc.StatusCode.PERMISSION_DENIED, REFUSED) as google.storage:
        tried = by_name(preflight(BigQueryWarehouse(google.account, ("d",)), patience=2))
    assert not tried[failed].passed
    assert tried[failed].remedy.startswith(remedy)
    assert "roles/" not in tried[failed].detail, "what to grant is said once"


@pytest.mark.parametrize(
    ("reason", "message", "remedy"),
    [
        ("billingNotEnabled", "Billing has not been enabled for this project.", "attach a billing account"),
        ("accessNotConfigured", "BigQuery API has not been used in project p before", "enable the APIs: gcloud"),
        ("vpcServiceControls", "VPC Service Controls: prohibited by policy", "have this service account"),
        ("accessDenied", "Access Denied: Table p:billing.invoices", "grant roles/bigquery.jobUser on the project"),
    ],
)
def test_what_no_role_mends_has_another_remedy(
    google: RefusingGoogle, reason: str, message: str, remedy: str, tmp_path: Path
) -> None:
    google.refuses |= dict.fromkeys(("/jobs", "/queries"), (403, reason, message))
    with refusing_storage(grpc.StatusCode.PERMISSION_DENIED, message) as google.storage:
        tried = by_name(preflight(BigQueryWarehouse(google.account, ("d",)), patience=2))
        with pytest.raises(AccessError, match=r"d\.people: ") as refused:
            BigQueryWarehouse(google.account).read("d.people", None, tmp_path / "rows.parquet")
    assert tried["query"].remedy.startswith(remedy)
    assert ("grant roles/" in str(refused.value)) is remedy.startswith("grant")


def test_a_query_that_waits_for_its_turn_is_no_crash() -> None:
    with pytest.raises(WarehouseBusyError, match=r"^p: BigQuery did not answer in time$"), explained("p"):
        raise TimeoutError


def test_tables_that_may_be_listed_and_not_read_fail(google: RefusingGoogle) -> None:
    with refusing_storage(grpc.StatusCode.PERMISSION_DENIED, REFUSED) as google.storage:
        tried = by_name(preflight(BigQueryWarehouse(google.account, ("d",)), patience=2))
    assert {name for name, permission in tried.items() if not permission.passed} == {"read d.people"}
    detail = "d.people: Permission bigquery.tables.getData denied on table p:d.people"
    assert tried["read d.people"].detail == detail, "of the table, not of the project; what to grant is said once"


@pytest.mark.parametrize("part", ["/datasets/d?", "/tables/people"])
def test_preflight_gives_up_and_says_so(google: RefusingGoogle, part: str) -> None:
    google.refuses[part] = (503, "backendError", "Backend is tired")
    with refusing_storage(grpc.StatusCode.UNAVAILABLE, "away") as google.storage:
        tried = preflight(BigQueryWarehouse(google.account, ("d",)), patience=1)
    [failed] = [permission for permission in tried if not permission.passed]
    assert "given up after retries: " in failed.detail
    assert "Backend is tired" in failed.detail
    assert failed.remedy.startswith("nothing to grant")


def test_a_storage_api_that_is_away_is_given_up_too(google: RefusingGoogle) -> None:
    with refusing_storage(grpc.StatusCode.UNAVAILABLE, "away") as google.storage:
        tried = by_name(preflight(BigQueryWarehouse(google.account, ("d",)), patience=1))
    assert "given up after retries" in tried["read d.people"].detail


def test_a_server_that_is_not_there_is_told(tmp_path: Path) -> None:
    account = BigQueryAccount("demo", endpoint="http://127.0.0.1:9", patience=0.5)
    with pytest.raises(WarehouseBusyError, match=r"given up after retries|cannot be reached"):
        BigQueryWarehouse(account).read("d.people", None, tmp_path / "rows.parquet")


@pytest.mark.parametrize(
    "babble", [b"<html>Sign in</html>", b"{}", b"[]", b'{"tableReference": 7}', b'{"schema": ', b""]
)
@pytest.mark.parametrize("part", ["/tables/people", "/datasets?", "/jobs", "/queries"])
def test_an_answer_that_cannot_be_understood_is_told_and_names_what_was_asked(
    google: RefusingGoogle, part: str, babble: bytes
) -> None:
    google.babbles[part] = babble
    with refusing_storage(grpc.StatusCode.PERMISSION_DENIED, REFUSED) as google.storage:
        tried = preflight(BigQueryWarehouse(google.account, ("d",)), patience=1)
    told = [permission.detail for permission in tried if not permission.passed]
    assert told or babble in (b"{}", b"[]"), "an empty object may pass for an empty list"
    if part == "/tables/people":
        with pytest.raises(WarehouseError, match=r"^d\.people: "):
            BigQueryWarehouse(google.account).columns("d.people")


def test_a_mistake_of_our_own_is_not_blamed_on_the_answer(google: RefusingGoogle) -> None:
    with pytest.raises(KeyError), google.account.client():
        raise KeyError("ours")


def test_a_run_says_that_it_waits_and_goes_on(google: RefusingGoogle, caplog: pytest.LogCaptureFixture) -> None:
    google.refuses["/datasets/d?"] = (503, "backendError", "Backend is tired")
    google.times["/datasets/d?"] = 2
    with caplog.at_level(logging.WARNING), google.account.client() as client:
        client.quiet = 0.0  # type: ignore[attr-defined]
        client.get_dataset("p.d")
    assert [record.getMessage() for record in caplog.records] == [
        "BigQuery: waiting, attempt 2 (503)",
        "BigQuery: waiting, attempt 3 (503)",
    ]


def test_a_job_that_failed_for_a_passing_reason_is_run_again_and_that_is_said(
    google: RefusingGoogle, caplog: pytest.LogCaptureFixture
) -> None:
    google.refuses["job"] = (200, "rateLimitExceeded", "Exceeded rate limits")
    google.times["job"] = 1
    with caplog.at_level(logging.WARNING), google.account.client() as client:
        client.quiet = 0.0  # type: ignore[attr-defined]
        assert [tuple(row) for row in client.query("SELECT 1").result()] == [(1,)]
    assert [record.getMessage() for record in caplog.records if record.name == "heap_assets.bigquery"] == [
        "BigQuery's job: waiting, attempt 2 (429)"
    ]


def test_the_first_seconds_of_waiting_are_quiet(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        log_retries("BigQuery", quiet=60)(AccessError("x"))
    assert not caplog.records
