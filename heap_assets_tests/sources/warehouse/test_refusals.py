"""What goes wrong in a warehouse is one clear error that names it, and leaves nothing half published."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from heap_assets.sources.heap_bigquery.events_table import PUBLICATION, events_table
from heap_assets.sources.warehouse import AccessError, RelationMissingError, WarehouseBusyError, WarehouseError
from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount
from heap_assets.sources.warehouse.bigquery.load_jobs import NamedJob
from heap_assets.sources.warehouse.bigquery.publisher import BigQueryPublisher
from heap_assets.sources.warehouse.bigquery.reader import BigQueryWarehouse
from heap_assets.sources.warehouse.publish import Publication, PublishStatus
from heap_assets.storage import Store
from heap_assets_tests.sources.warehouse.refusing_google import ENDED, RefusingGoogle, refusing_google

MONDAY = date(2026, 11, 2)
PEOPLE = Publication("people")
ROWS = pl.LazyFrame({"id": [1, 2]})
TOO_LARGE = "Error while reading data, error message: Row size is larger than: 104857600."


@pytest.fixture
def google() -> Iterator[RefusingGoogle]:
    with refusing_google() as server:
        yield server


@pytest.fixture
def publisher(google: RefusingGoogle, tmp_path: Path) -> BigQueryPublisher:
    return BigQueryPublisher(google.account, "d", Store(str(tmp_path / "lake")))


@pytest.mark.parametrize(
    ("part", "answer", "kind", "said"),
    [
        ("/tables", (404, "notFound", "Not found: Dataset p:d"), RelationMissingError, "Not found: Dataset p:d"),
        (
            "/tables/",
            (403, "accessDenied", "Access Denied: Table p:d.people"),
            AccessError,
            "roles/bigquery.dataEditor",
        ),
        ("/tables/", (401, "authError", "Request had invalid credentials"), AccessError, "is the key revoked"),
        ("job", (200, "quotaExceeded", "Quota exceeded: load jobs per table"), WarehouseBusyError, "quota is used up"),
        ("job", (200, "accessDenied", "Access Denied: Table p:d.people"), AccessError, "roles/bigquery.dataEditor"),
        ("job", (200, "invalid", TOO_LARGE), WarehouseError, "Row size is larger than"),
        ("job", (200, "invalid", "Field plan has changed type from STRING to INTEGER"), WarehouseError, "Field plan"),
    ],
)
def test_a_refused_publication_is_one_error_and_is_not_taken_for_done(
    google: RefusingGoogle,
    publisher: BigQueryPublisher,
    part: str,
    answer: tuple[int, str, str],
    kind: type[Exception],
    said: str,
) -> None:
    google.refuses[part] = answer
    with pytest.raises(kind, match=said) as caught:
        publisher.publish(PEOPLE, MONDAY, ROWS, "v1")
    assert "people" in str(caught.value) or "p:d" in str(caught.value)
    assert not publisher.is_published("people", MONDAY, "v1")
    assert len(google.jobs()) <= 2, "the one job that failed, and its upload; nothing after it"


def test_a_value_that_an_error_quotes_is_not_repeated(google: RefusingGoogle, publisher: BigQueryPublisher) -> None:
    google.refuses["job"] = (200, "invalid", "Could not parse 'ann@acme.io' as INT64 for field id (position 0)")
    with pytest.raises(WarehouseError) as caught:
        publisher.publish(PEOPLE, MONDAY, ROWS, "v1")
    assert "ann@acme.io" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        ((404, "notFound", "Not found: Table p:d.people"), RelationMissingError, "d.people: Not found: Table"),
        ((403, "accessDenied", "Access Denied"), AccessError, "people: Access Denied: grant roles/bigquery.dataViewer"),
        ((403, "quotaExceeded", "Quota exceeded: bytes scanned"), WarehouseBusyError, "Quota exceeded"),
        ((401, "authError", "invalid"), AccessError, "is the key revoked"),
    ],
)
def test_a_refused_read_is_one_error_and_leaves_no_file(
    google: RefusingGoogle, tmp_path: Path, answer: tuple[int, str, str], kind: type[Exception], said: str
) -> None:
    google.refuses["/tables/people"] = answer
    with pytest.raises(kind, match=said):
        BigQueryWarehouse(google.account, ("d",)).read("d.people", ["id"], tmp_path / "out.parquet")
    assert not list(tmp_path.iterdir())


def test_a_revoked_key_is_told_before_anything_is_asked_and_is_not_repeated(google: RefusingGoogle) -> None:
    pem = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    key = {
        "type": "service_account",
        "project_id": "p",
        "private_key": pem.decode(),
        "private_key_id": "k1",
        "client_email": "heap-assets@p.iam.gserviceaccount.com",
        "token_uri": f"{google.url}/token",
    }
    with pytest.raises(AccessError, match=r"BigQuery refuses the credentials for d\.people.*revoked") as caught:
        BigQueryWarehouse(BigQueryAccount("p", json.dumps(key)), ("d",)).columns("d.people")
    assert pem.decode()[40:80] not in str(caught.value)


class TestWhatIsAskedOfGoogle:
    """The requests of the paths that no emulator takes."""

    def test_a_day_is_one_load_into_its_partition(self, google: RefusingGoogle, publisher: BigQueryPublisher) -> None:
        published = publisher.publish(PEOPLE, MONDAY, ROWS, "v1")
        load = google.jobs()[0]["load"]
        assert load["destinationTable"]["tableId"] == "people$20261102"
        assert (load["writeDisposition"], load["sourceFormat"]) == ("WRITE_TRUNCATE", "PARQUET")
        assert [entry["name"] for entry in load["schema"]["fields"]] == ["partition_day", "id"]
        assert published.jobs
        assert not [job for job in google.jobs() if "query" in job]

    def test_a_file_on_gs_is_loaded_by_its_address(self, google: RefusingGoogle, tmp_path: Path) -> None:
        staging = OnGoogle(str(tmp_path / "staging"))
        publisher = BigQueryPublisher(google.account, "d", Store(str(tmp_path / "lake")), staging)
        publisher.publish(PEOPLE, MONDAY, ROWS, "v1")
        [load] = [job["load"] for job in google.jobs()]
        [uri] = load["sourceUris"]
        assert uri.startswith("gs://bucket/staging/")
        assert load["destinationTable"]["tableId"] == "people$20261102"
        assert staging.list() == [], "what went through is removed"
        google.refuses["job"] = (200, "invalid", TOO_LARGE)
        with pytest.raises(WarehouseError):
            publisher.publish(PEOPLE, MONDAY, ROWS, "v2")
        assert staging.list() == []

    def test_an_empty_day_of_events_is_removed_by_its_partition(
        self, google: RefusingGoogle, publisher: BigQueryPublisher
    ) -> None:
        event = {"event_id": [1], "user_id": [1], "session_id": [1], "time": [datetime(2026, 11, 2, tzinfo=UTC)]}
        frame = events_table({"signup": pl.LazyFrame(event)}).head(0)
        google.tables["events"] = [
            {"name": name, "type": "TIMESTAMP" if name == "time" else "JSON" if "properties" in name else "STRING"}
            for name in frame.collect_schema()
        ]
        google.tables["events"].insert(0, {"name": "partition_day", "type": "DATE"})
        publisher.publish(PUBLICATION, MONDAY, frame, "v1")
        [query] = [job["query"]["query"] for job in google.jobs() if "query" in job]
        assert query == "DELETE FROM `p.d.events` WHERE partition_day = DATE '2026-11-02'"

    def test_who_is_late_is_told_so_and_changes_nothing(
        self, google: RefusingGoogle, publisher: BigQueryPublisher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        load, late = publisher._load, []

        def loading(client: Any, run: Any, *arguments: Any) -> Any:
            def overtaken(start: Any, *more: Any, **given: Any) -> Any:
                def begun(*args: Any, **named: Any) -> Any:
                    late.append(named["job_id"])
                    monkeypatch.setattr(publisher, "_load", load)
                    assert publisher.publish(PEOPLE, MONDAY, ROWS, "v2").status is PublishStatus.LOADED
                    return start(*args, **named)

                return run(begun, *more, **given)

            return load(client, overtaken, *arguments)

        monkeypatch.setattr(publisher, "_load", loading)
        with pytest.raises(WarehouseBusyError, match="another publisher loads the same day"):
            publisher.publish(PEOPLE, MONDAY, ROWS, "v1")
        [load_job] = [name for name, job in google.named.items() if "load" in job]
        assert [name for name, job in google.named.items() if job.get("query", {}).get("query") == "SELECT 1"] == late
        assert load_job not in late
        assert publisher.is_published("people", MONDAY, "v2")

    def test_a_load_whose_answer_was_lost_is_waited_for(
        self, google: RefusingGoogle, publisher: BigQueryPublisher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = NamedJob.run

        def twice(turn: NamedJob, start: Any, *arguments: Any, **more: Any) -> Any:
            def again(*given: Any, **named: Any) -> Any:
                google.named[named["job_id"]] = {"load": {}}
                return start(*given, **named)

            return run(turn, again, *arguments, **more)

        monkeypatch.setattr(NamedJob, "run", twice)
        assert publisher.publish(PEOPLE, MONDAY, ROWS, "v1").status is PublishStatus.LOADED
        assert publisher.is_published("people", MONDAY, "v1")

    def test_a_job_that_never_started_leaves_what_stood(
        self, google: RefusingGoogle, publisher: BigQueryPublisher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publisher.publish(PEOPLE, MONDAY, ROWS, "v1")
        with monkeypatch.context() as dying:
            dying.setattr("heap_assets.sources.warehouse.bigquery.load_jobs.uuid.uuid4", lambda: UUID(int=7))
            google.refuses["upload"] = (400, "invalid", "no")
            with pytest.raises(WarehouseError):
                publisher.publish(PEOPLE, MONDAY, ROWS, "v2")
        assert not publisher.is_published("people", MONDAY, "v1"), "nobody has asked yet"
        google.partitions[MONDAY] = (1, ENDED)
        assert publisher.publish(PEOPLE, MONDAY, ROWS, "v1").status is PublishStatus.UNCHANGED
        assert google.named[f"heap_assets_{UUID(int=7).hex}"]["query"]["query"] == "SELECT 1"
        assert publisher.is_published("people", MONDAY, "v1")

    @pytest.mark.parametrize(
        ("partitions", "expected"),
        [
            ({MONDAY: (1, ENDED - timedelta(seconds=1))}, PublishStatus.UNCHANGED),
            ({MONDAY: (1, ENDED + timedelta(seconds=1))}, PublishStatus.LOADED),
            ({MONDAY: (2, ENDED)}, PublishStatus.LOADED),
            ({MONDAY + timedelta(days=1): (1, ENDED)}, PublishStatus.LOADED),
            ({}, PublishStatus.LOADED),
        ],
        ids=["as it was loaded", "written to since", "other rows", "another day", "no rows"],
    )
    def test_unchanged_is_said_of_a_partition_that_is_as_it_was_loaded(
        self,
        google: RefusingGoogle,
        publisher: BigQueryPublisher,
        partitions: dict[date, tuple[int, datetime]],
        expected: PublishStatus,
    ) -> None:
        publisher.publish(PEOPLE, MONDAY, ROWS, "v1")
        google.partitions = partitions
        held = publisher.intact_days("people")
        assert publisher.publish(PEOPLE, MONDAY, ROWS, "v1").status is expected
        assert (MONDAY in held) == (expected is PublishStatus.UNCHANGED)
        assert google.queried == "" or google.queried.endswith(
            "FROM `p.d.INFORMATION_SCHEMA.PARTITIONS` WHERE table_name = 'people'"
        )


def test_what_is_held_is_asked_although_nothing_was_published(
    google: RefusingGoogle, publisher: BigQueryPublisher
) -> None:
    google.refuses["/tables/"] = (403, "accessDenied", "Access Denied: Table p:d.people")
    with pytest.raises(AccessError):
        publisher.intact_days("people")


class OnGoogle(Store):
    """A folder that says it is on gs://."""

    def uri(self, key: str) -> str:
        return f"gs://bucket/staging/{key}"
