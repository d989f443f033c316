"""Heap's own dataset as a source: the views only, the columns of S3 dumps, changed days found by fingerprints."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import uuid4

import duckdb
import polars as pl
import pytest
from adbc_driver_postgresql import dbapi

from heap_assets.sources.heap_bigquery import LowerCaseWarehouse
from heap_assets.sources.heap_bigquery.export import HeapExport, changed_days
from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount
from heap_assets.sources.warehouse.bigquery.reader import BigQueryWarehouse
from heap_assets.sources.warehouse.duckdb.reader import DuckDBWarehouse
from heap_assets.sources.warehouse.postgres.reader import PostgresWarehouse
from heap_assets.sources.warehouse.redshift.connection import RedshiftDatabase
from heap_assets.sources.warehouse.redshift.reader import RedshiftWarehouse
from heap_assets.sources.warehouse.snowflake.connection import SnowflakeAccount
from heap_assets.sources.warehouse.snowflake.reader import SnowflakeWarehouse
from heap_assets_tests.sources.warehouse.strict_redshift import Redshift

SCRIPT = """
CREATE TABLE {d}.signup_raw (event_id {int}, user_id {int}, session_id {int}, time {time}, plan {text}, amount {float});
INSERT INTO {d}.signup_raw VALUES
    (1, 10, 100, TIMESTAMP '2026-11-01 10:00:00+00', 'pro', 30.0),
    (1, 10, 100, TIMESTAMP '2026-11-01 10:00:00+00', 'pro', 30.0),
    (2, 20, 200, TIMESTAMP '2026-11-02 23:59:59.999999+00', NULL, 1.5),
    (3, 30, 300, TIMESTAMP '2026-11-03 00:00:00+00', 'team', NULL);
CREATE VIEW {d}.signup AS SELECT * FROM {d}.signup_raw;
CREATE TABLE {d}.users (user_id {int}, identity {text}, joindate {time}, seats {float});
INSERT INTO {d}.users VALUES (9007199254740991, 'ann', TIMESTAMP '2026-10-01 00:00:00+00', 3);
CREATE TABLE {d}.user_migrations (from_user_id {int}, to_user_id {int});
CREATE TABLE {d}.all_events (event_id {int});
CREATE TABLE {d}._sync_info (event_table_name {text}, synced_to_time {time});
INSERT INTO {d}._sync_info VALUES
    ('signup', TIMESTAMP '2026-11-03 02:00:00+00'), ('signup', TIMESTAMP '2026-11-02 02:00:00+00')
"""
DUCKDB = {"int": "BIGINT", "time": "TIMESTAMPTZ", "text": "VARCHAR", "float": "DOUBLE"}
POSTGRES = {"int": "bigint", "time": "timestamp", "text": "varchar", "float": "double precision"}
SNOWFLAKE = {"int": "NUMBER(38,0)", "time": "TIMESTAMP_TZ", "text": "TEXT", "float": "FLOAT"}
BIGQUERY = {"int": "INT64", "time": "TIMESTAMP", "text": "STRING", "float": "FLOAT64"}


@dataclass(frozen=True)
class Source:
    export: HeapExport
    execute: Callable[[str], object]


@pytest.fixture(params=["duckdb", "bigquery", "postgres", "redshift", "snowflake"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Source]:
    dataset = f"main_production_{uuid4().hex[:6]}"
    if request.param in ("postgres", "redshift"):
        yield from _in_postgres(request, dataset)
        return
    if request.param == "snowflake":
        yield from _in_snowflake(request.getfixturevalue("snowflake_server"), dataset)
        return
    if request.param == "duckdb":
        path = str(tmp_path / "w.duckdb")

        def execute(text: str) -> None:
            with duckdb.connect(path) as connection:
                connection.execute(text.replace("TIMESTAMP '", "TIMESTAMPTZ '").replace("{d}", dataset))

        execute("CREATE SCHEMA {d}")
        execute(SCRIPT.format(d=dataset, **DUCKDB))
        yield Source(HeapExport(DuckDBWarehouse(Path(path)), dataset), execute)
        return
    emulator = request.getfixturevalue("bigquery_emulator")
    account = BigQueryAccount("demo", endpoint=emulator.rest, storage_endpoint=emulator.grpc)
    with account.client() as client:
        client.create_dataset(dataset)
        for statement in SCRIPT.format(d=dataset, **BIGQUERY).split(";\n"):
            client.query(statement).result()
        export = HeapExport(BigQueryWarehouse(account, (dataset,)), dataset)
        yield Source(export, lambda text: client.query(text.replace("{d}", dataset)).result())
        client.delete_dataset(dataset, delete_contents=True)


def _in_postgres(request: pytest.FixtureRequest, dataset: str) -> Iterator[Source]:
    """As Heap has it in Redshift: times without a zone; also where Redshift is PostgreSQL itself."""
    if request.param == "redshift":
        redshift: Redshift = request.getfixturevalue("redshift")
        uri, warehouse = redshift.postgres, RedshiftWarehouse(RedshiftDatabase(redshift.uri))
    else:
        uri = request.getfixturevalue("postgres")
        warehouse = PostgresWarehouse(uri)
    with dbapi.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:

        def execute(text: str) -> None:
            for statement in text.replace("{d}", dataset).replace("+00'", "'").split(";\n"):
                cursor.execute(statement)

        execute(f"CREATE SCHEMA {dataset};\n" + SCRIPT.format(d=dataset, **POSTGRES))
        yield Source(HeapExport(LowerCaseWarehouse(warehouse), dataset), execute)


def _in_snowflake(address: str, dataset: str) -> Iterator[Source]:
    database = f"DB{uuid4().hex[:8].upper()}"
    account = SnowflakeAccount("fakesnow", "u", database, endpoint=address, password="p-4711")
    with account.session("") as cursor:

        def execute(text: str) -> None:
            zoned = re.sub(r"TIMESTAMP ('[^']+')", r"CAST(\1 AS TIMESTAMP_TZ)", text.replace("{d}", dataset))
            for statement in zoned.split(";\n"):
                cursor.execute(re.sub(r"VALUES\s+(\(.*)", _selected, statement, flags=re.DOTALL))

        execute(f"CREATE SCHEMA {dataset};\n" + SCRIPT.format(d=dataset, **SNOWFLAKE))
        yield Source(HeapExport(LowerCaseWarehouse(SnowflakeWarehouse(account)), dataset), execute)


def _selected(values: re.Match[str]) -> str:
    """Write VALUES as SELECTs, in which casts may stand."""
    rows = re.findall(r"\(((?:[^()]|\([^()]*\))*)\)", values[1])
    return " UNION ALL ".join(f"SELECT {row}" for row in rows)


def test_event_tables_are_the_views_and_never_the_raw_tables(source: Source) -> None:
    assert source.export.tables() == ["signup"]
    assert source.export.synced_to() == {"signup": datetime(2026, 11, 3, 2, tzinfo=UTC)}


def test_a_day_has_its_own_rows_once_in_the_types_of_dumps(source: Source, tmp_path: Path) -> None:
    rows, _ = source.export.read_day("signup", date(2026, 11, 1), None, tmp_path / "1.parquet")
    frame = rows.frame.collect()
    assert frame.rows() == [(1, 10, 100, datetime(2026, 11, 1, 10, tzinfo=UTC), "pro", "30")]
    assert frame.schema["time"] == pl.Datetime("us", "UTC")
    rows, reading = source.export.read_day("signup", date(2026, 11, 2), ["amount", "gone"], tmp_path / "2.parquet")
    assert rows.frame.select("event_id", "amount").collect().rows() == [(2, "1.5")]
    assert reading.columns == ("event_id", "user_id", "session_id", "time", "amount")


def test_users_keep_their_ids_exactly(source: Source, tmp_path: Path) -> None:
    rows, _ = source.export.read_users(None, tmp_path / "users.parquet")
    assert rows.frame.collect().rows() == [(2**53 - 1, "ann", datetime(2026, 10, 1, tzinfo=UTC), "3")]
    rows, _ = source.export.read_user_migrations(tmp_path / "moves.parquet")
    assert rows.frame.collect().height == 0


def test_late_rows_and_user_ids_that_changed_show_in_the_days_they_belong_to(source: Source) -> None:
    since = date(2026, 11, 1)
    before = source.export.fingerprints("signup", since).days
    assert changed_days(before, source.export.fingerprints("signup", since).days, since) == []
    source.execute("INSERT INTO {d}.signup_raw VALUES (4, 40, 400, TIMESTAMP '2026-11-01 09:00:00+00', 'late', NULL)")
    source.execute("UPDATE {d}.signup_raw SET user_id = 31 WHERE event_id = 3")
    now = source.export.fingerprints("signup", since).days
    assert changed_days(before, now, since) == [date(2026, 11, 1), date(2026, 11, 3)]
    assert changed_days(before, source.export.fingerprints("signup", date(2026, 11, 2)).days, date(2026, 11, 2)) == [
        date(2026, 11, 3)
    ]


def test_a_dataset_without_sync_info_says_nothing_of_freshness(source: Source) -> None:
    source.execute("DROP TABLE {d}._sync_info")
    assert source.export.synced_to() == {}
