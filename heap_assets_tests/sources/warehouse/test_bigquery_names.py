"""The project is part of a table's name; tables by day are one source."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from uuid import uuid4

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.sources.heap_bigquery.export import HeapExport
from heap_assets.sources.warehouse import Newer, RelationMissingError
from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount
from heap_assets.sources.warehouse.bigquery.names import is_dataset, relation_of, shard_of, without_shards
from heap_assets.sources.warehouse.bigquery.preflight import preflight
from heap_assets.sources.warehouse.bigquery.publisher import BigQueryPublisher
from heap_assets.sources.warehouse.bigquery.reader import BigQueryWarehouse
from heap_assets.sources.warehouse.bigquery.settings import BigQuerySettings as Section
from heap_assets.sources.warehouse.browse import inspect_table
from heap_assets.sources.warehouse.publish import Publication
from heap_assets.storage import Store
from heap_assets_tests.sources.warehouse.strict_google import strict_google

PROJECTS = st.from_regex(r"([a-z]{3,8}\.(com|org):)?[a-z][a-z0-9-]{4,12}[a-z0-9]", fullmatch=True)
DATASETS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,12}", fullmatch=True)
TABLES = st.from_regex(r"[A-Za-zé_][A-Za-zé0-9_ -]{0,12}\*?", fullmatch=True)


@settings(max_examples=60, deadline=None)
@given(project=PROJECTS, dataset=DATASETS, table=TABLES, own=PROJECTS)
def test_a_full_name_is_taken_apart_and_put_together(project: str, dataset: str, table: str, own: str) -> None:
    relation = relation_of(f"{project}.{dataset}.{table}", own)
    assert (relation.dataset.project, relation.dataset.name, relation.table) == (project, dataset, table)
    assert relation_of(relation.shown(own), own) == relation
    assert relation_of(f"{dataset}.{table}", own).dataset.project == own
    assert not is_dataset(relation.path, own)


@pytest.mark.parametrize("name", ["", "contacts", "a.b.c.d", "crm.", ".contacts", "p:crm.contacts"])
def test_what_is_no_name_of_a_table_is_refused(name: str) -> None:
    with pytest.raises(RelationMissingError, match="is not dataset"):
        relation_of(name, "demo")


@pytest.mark.parametrize(
    ("name", "one"),
    [
        ("crm", True),
        ("demo.crm", True),
        ("other-project.crm", True),
        ("example.com:tools.crm", True),
        ("crm.contacts", False),
        ("demo.crm.contacts", False),
        ("example.com:tools.crm.contacts", False),
    ],
)
def test_a_dataset_of_a_project_is_not_a_table_of_a_dataset(name: str, one: bool) -> None:
    assert is_dataset(name, "demo") is one


def test_names_that_end_in_a_day_are_tables_by_day() -> None:
    assert shard_of("events_20260131") == ("events_", "20260131")
    assert shard_of("events_20260132") is None
    assert shard_of("events_2026") is None
    assert shard_of("20260131") is None
    tables = [("a_20260101", "TABLE"), ("a_20260102", "TABLE"), ("b_20260101", "TABLE"), ("c_20260101", "VIEW")]
    assert list(without_shards(tables)) == [
        ("a_*", "SHARDED", 2),
        ("b_20260101", "TABLE", 1),
        ("c_20260101", "VIEW", 1),
    ]


@pytest.fixture
def accounts(bigquery_emulator: object) -> Iterator[tuple[BigQueryAccount, BigQueryAccount, str]]:
    """One's own account, that of another project, and a dataset that the other has."""
    rest, grpc = bigquery_emulator.rest, bigquery_emulator.grpc  # type: ignore[attr-defined]
    own, other = (BigQueryAccount(name, endpoint=rest, storage_endpoint=grpc) for name in ("demo", "other-project"))
    dataset = f"crm_{uuid4().hex[:8]}"
    with other.client() as client:
        client.create_dataset(dataset)
        yield own, other, dataset
        client.delete_dataset(dataset, delete_contents=True)


def test_another_projects_table_is_read_and_its_name_keeps_the_project(
    accounts: tuple[BigQueryAccount, BigQueryAccount, str],
) -> None:
    own, other, dataset = accounts
    full = f"other-project.{dataset}"
    with other.client() as client:
        client.query(f"CREATE TABLE {dataset}.contacts AS SELECT 7 AS id").result()
        client.query(f"CREATE VIEW {dataset}.v AS SELECT id FROM `{full}.contacts`").result()
    warehouse = BigQueryWarehouse(own, (full,))
    for table in ("contacts", "v"):
        with warehouse.snapshot(f"{full}.{table}") as snapshot:
            assert snapshot.frame.collect().rows() == [(7,)]
            assert snapshot.reading.relation == f"{full}.{table}"
    assert {table.name for table in warehouse.tables()} == {f"{full}.contacts", f"{full}.v"}
    assert warehouse.locate(full) == (full, None)
    assert warehouse.resolve(f"{full}.Contacts") == f"{full}.contacts"


def test_a_table_that_another_project_lacks_is_never_ones_own(
    accounts: tuple[BigQueryAccount, BigQueryAccount, str],
) -> None:
    own, _, dataset = accounts
    with own.client() as client:
        client.create_dataset(dataset)
        client.query(f"CREATE TABLE {dataset}.contacts AS SELECT 1 AS id").result()
        try:
            for project in ("other-project", "project-that-is-not"):
                for asked in (BigQueryWarehouse(own).columns, partial(inspect_table, BigQueryWarehouse(own))):
                    with pytest.raises(RelationMissingError, match=rf"BigQuery (dataset|project) {project}"):
                        asked(f"{project}.{dataset}.contacts")
        finally:
            client.delete_dataset(dataset, delete_contents=True)


def test_heaps_export_may_lie_in_another_project_than_the_one_that_pays(
    accounts: tuple[BigQueryAccount, BigQueryAccount, str], tmp_path: Path
) -> None:
    own, other, dataset = accounts
    full = f"other-project.{dataset}"
    row = "SELECT 1 AS event_id, 2 AS user_id, TIMESTAMP '2026-11-02 10:00:00+00' AS time"
    with other.client() as client:
        client.query(f"CREATE TABLE {dataset}.signup_raw AS {row}").result()
        client.query(f"CREATE VIEW {dataset}.signup AS SELECT * FROM `{full}.signup_raw`").result()
    export = HeapExport(BigQueryWarehouse(own, (full,)), full)
    assert export.tables() == ["signup"]
    rows, reading = export.read_day("signup", date(2026, 11, 2), None, tmp_path / "rows.parquet")
    assert rows.frame.collect()["event_id"].to_list() == [1]
    assert reading.relation == f"{full}.signup"


def test_tables_by_day_are_one_source(accounts: tuple[BigQueryAccount, BigQueryAccount, str]) -> None:
    _, other, dataset = accounts
    with other.client() as client:
        for name, day in (("events_20260101", 1), ("events_20260102", 2), ("events_intraday_20260103", 3)):
            row = f"SELECT {day} AS id, TIMESTAMP '2026-01-0{day} 12:00:00+00' AS at"
            client.query(f"CREATE TABLE {dataset}.{name} AS {row}").result()
    warehouse = BigQueryWarehouse(other, (dataset,))
    assert {table.name: table.kind for table in warehouse.tables()} == {
        f"{dataset}.events_*": "sharded table",
        f"{dataset}.events_intraday_20260103": "table",
    }
    assert [column.name for column in warehouse.columns(f"{dataset}.events_*")] == ["id", "at"]
    with warehouse.snapshot(f"{dataset}.events_*") as snapshot:
        assert sorted(snapshot.frame.collect()["id"]) == [1, 2], "intraday tables repeat the newest day"
    newer = Newer("at", datetime(2026, 1, 2, tzinfo=UTC))
    with warehouse.snapshot(f"{dataset}.events_*", ["id"], newer=newer) as snapshot:
        assert snapshot.frame.collect()["id"].to_list() == [2]
    tally = warehouse.tally(f"{dataset}.events_*", "at")
    assert tally is not None
    assert tally.rows == 2
    assert warehouse.version(f"{dataset}.events_*") is None
    with pytest.raises(RelationMissingError, match=r"Did you mean 'events_\*'"):
        warehouse.columns(f"{dataset}.event_*")


@pytest.mark.parametrize("own", ["example.com:tools", "payer"])
def test_a_project_of_a_domain_is_read_browsed_and_published_to(own: str, tmp_path: Path) -> None:
    """By a server that knows that project alone, for the emulator refuses such ids; the payer may be another."""
    project = "example.com:tools"
    with strict_google(project) as google:
        google.payer = own
        google.hold("contacts", "id INT64, at TIMESTAMP", "SELECT 7 AS id, TIMESTAMPTZ '2026-11-02 00:00+00' AS at")
        google.database.execute("CREATE VIEW v AS SELECT * FROM contacts")
        google.resources["v"] = {**google.resources["contacts"], "type": "VIEW"}
        account, dataset = google.account, "d" if own == project else f"{project}.d"
        warehouse = BigQueryWarehouse(account, (dataset,))
        assert [table.name for table in warehouse.tables()] == [f"{dataset}.contacts", f"{dataset}.v"]
        for name in (f"{project}.d.contacts", f"{project}.d.v", f"{project}.d.Contacts"):
            newer = Newer("at", datetime(2026, 11, 1, tzinfo=UTC))
            with warehouse.snapshot(name, ["id"], newer=newer) as snapshot:
                assert snapshot.frame.collect()["id"].to_list() == [7]
                assert snapshot.reading.relation == name.lower().replace(f"{project}.d", dataset)
        seen = inspect_table(warehouse, f"{dataset}.v")
        assert (seen.rows["id"].to_list(), seen.sample.cost) == ([7], "1 rows queried, 10 bytes billed")
        if own != project:
            return
        publisher = BigQueryPublisher(account, "d", Store(str(tmp_path)))
        day, rows = date(2026, 11, 2), pl.LazyFrame({"id": [1]})
        assert publisher.publish(Publication("people"), day, rows, "v1").status == "loaded"
        assert publisher.publish(Publication("people"), day, rows, "v1").status == "unchanged"
        assert google.database.sql("SELECT id FROM people").fetchall() == [(1,)]
        tried = {permission.name: permission.passed for permission in preflight(warehouse, write_to="d", patience=2)}
        assert tried["write to d"]
        assert tried["read d.contacts"]


@pytest.mark.parametrize(
    ("datasets", "relation", "fits"),
    [
        ("crm", "crm.contacts", True),
        ("crm", "demo.crm.contacts", True),
        ("demo.crm", "crm.contacts", True),
        ("crm", "other-project.crm.contacts", False),
        ("other-project.crm", "other-project.crm.contacts", True),
        ("other-project.crm", "crm.contacts", False),
        ("example.com:tools.crm", "example.com:tools.crm.contacts", True),
    ],
)
def test_the_datasets_of_the_settings_are_of_a_project(datasets: str, relation: str, fits: bool) -> None:
    table = {"relation": relation, "key": "id"}
    given = {"kind": "bigquery", "project": "demo", "datasets": [datasets], "tables": {"contacts": table}}
    section = Section.model_validate(given)
    assert section.tables["contacts"].relation == relation
    mistake = section.mistake("warehouse")
    assert (mistake is None) == fits
    assert fits or "is not among warehouse.datasets" in str(mistake)
