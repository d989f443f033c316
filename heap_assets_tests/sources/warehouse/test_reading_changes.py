"""Warehouse assets read what has changed: nothing, the changes, or everything, whatever the engine."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import duckdb
import polars as pl
import pytest
from adbc_driver_postgresql import dbapi

from heap_assets.errors import SettingsError
from heap_assets.identity import extract, resolve
from heap_assets.pipelines.snapshots import snapshot_of_day
from heap_assets.pipelines.table import Task
from heap_assets.project import parse_settings
from heap_assets.project.project import Project
from heap_assets.sources.heap_connect import Catalogue
from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount
from heap_assets.sources.warehouse.snowflake.connection import SnowflakeAccount
from heap_assets.storage import Lake, Written
from heap_assets.tables import warehouse_asset

YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)
TABLE = "{{relation: {d}.t, key: id, updated_at: updated_at, identifiers: {{email: email}}, full_read_days: 7}}"
STATEMENTS = (
    "CREATE TABLE {d}.t (id {int}, email {text}, updated_at {time})",
    "INSERT INTO {d}.t SELECT n, CAST(n AS {text}), TIMESTAMP '2026-01-01 00:00:00+00' FROM {series}",
)


@dataclass(frozen=True)
class Source:
    project: Project
    execute: Callable[[str], object]

    def build(self, scratch: Path, day: object = YESTERDAY, *, force: bool = False) -> Written:
        """Read the table as its asset does; the notes of what was done are the stored ones' or the newest."""
        folder = scratch / uuid4().hex
        folder.mkdir()
        made = snapshot_of_day(Task(self.project, day, folder, force), name="t")  # type: ignore[arg-type]
        assert made is not None
        written = self.project.lake.write(warehouse_asset("t"), str(day), made.frame, made.inputs, notes=made.notes)
        return replace(written, partition=replace(written.partition, notes=made.notes))

    def rows(self, day: object = YESTERDAY) -> list[tuple[object, ...]]:
        return self.project.lake.scan(warehouse_asset("t"), str(day)).sort("id").select("id", "email").collect().rows()


@pytest.fixture(params=["duckdb", "postgres", "bigquery", "redshift", "snowflake"])
def source(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    if request.param == "duckdb":
        path = tmp_path / "w.duckdb"

        def execute(text: str) -> None:
            with duckdb.connect(str(path)) as connection:
                connection.execute(text.replace("TIMESTAMP '", "TIMESTAMPTZ '").replace("{d}", "crm"))

        execute("CREATE SCHEMA crm")
        kinds = {"int": "BIGINT", "text": "VARCHAR", "time": "TIMESTAMPTZ", "series": "range(5) AS r(n)"}
        yield prepared(tmp_path, f"kind: duckdb, path: '{path}'", "crm", execute, kinds)
    elif request.param in ("postgres", "redshift"):
        uri = request.getfixturevalue("postgres")
        read = uri if request.param == "postgres" else request.getfixturevalue("redshift").uri
        with dbapi.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:

            def execute_postgres(text: str) -> None:
                cursor.execute(text.replace("TIMESTAMP '", "TIMESTAMPTZ '").replace("{d}", "crm"))

            execute_postgres("CREATE SCHEMA crm")
            kinds = {"int": "bigint", "text": "text", "time": "timestamptz", "series": "generate_series(0, 4) AS n"}
            yield prepared(tmp_path, f"kind: {request.param}, dsn: '{read}'", "crm", execute_postgres, kinds)
    elif request.param == "snowflake":
        address, database = request.getfixturevalue("snowflake_server"), f"DB{uuid4().hex[:8].upper()}"
        with SnowflakeAccount("fakesnow", "u", database, endpoint=address, password="p-4711").session("") as shell:

            def execute_snowflake(text: str) -> None:
                zoned = re.sub(r"TIMESTAMP ('[^']+')", r"CAST(\1 AS TIMESTAMP_TZ)", text)
                shell.execute(zoned.replace("{d}", "CRM"))

            execute_snowflake("CREATE SCHEMA CRM")
            kinds = {"int": "NUMBER(38,0)", "text": "TEXT", "time": "TIMESTAMP_TZ"}
            kinds["series"] = "(SELECT column1 AS n FROM VALUES (0), (1), (2), (3), (4))"
            monkeypatch.setenv("SNOWFLAKE_PASSWORD", "p-4711")
            login = "account: fakesnow, user: u, password: '${SNOWFLAKE_PASSWORD}', "
            login += f"database: {database}, endpoint: '{address}'"
            yield prepared(tmp_path, f"kind: snowflake, {login}", "CRM", execute_snowflake, kinds)
    else:
        emulator = request.getfixturevalue("bigquery_emulator")
        dataset = f"crm_{uuid4().hex[:6]}"
        with BigQueryAccount("demo", endpoint=emulator.rest).client() as client:
            client.create_dataset(dataset)
            kinds = {"int": "INT64", "text": "STRING", "time": "TIMESTAMP", "series": "UNNEST([0, 1, 2, 3, 4]) AS n"}
            where = f"endpoint: '{emulator.rest}', storage_endpoint: '{emulator.grpc}'"
            yield prepared(
                tmp_path,
                f"kind: bigquery, project: demo, {where}",
                dataset,
                lambda text: client.query(text.replace("{d}", dataset)).result(),
                kinds,
            )
            client.delete_dataset(dataset, delete_contents=True)


def prepared(
    folder: Path, warehouse: str, dataset: str, execute: Callable[[str], object], kinds: dict[str, str]
) -> Source:
    for statement in STATEMENTS:
        execute(statement.format(d="{d}", **kinds))
    return Source(platform_of(folder, f"{{{warehouse}, tables: {{t: {TABLE.format(d=dataset)}}}}}"), execute)


def platform_of(folder: Path, warehouse: str, types: str = "{type: email, max_per_profile: 3}") -> Project:
    text = f"""
start_date: 2026-01-01
lake: ./lake
heap: {{app_id: "1", source: {{kind: folder, path: ./bucket}}}}
identity: {{identifiers: [{types}]}}
warehouse: {warehouse}
"""
    settings = parse_settings(text, folder / "heap_assets.yaml")
    return Project(settings, Catalogue(), Lake.open(settings.lake.url))


def test_a_second_run_with_nothing_changed_reads_and_writes_nothing(source: Source, tmp_path: Path) -> None:
    first = source.build(tmp_path)
    assert (first.partition.notes["read"], first.partition.notes["rows_read"]) == ("full", 5)
    again = source.build(tmp_path)
    assert (again.partition.notes["read"], again.partition.notes["rows_read"]) == ("unchanged", 0)
    assert again.status == "unchanged"
    tomorrow = source.build(tmp_path, YESTERDAY + timedelta(days=1))
    assert (tomorrow.status, tomorrow.partition.notes["read"]) == ("written", "unchanged")
    assert source.rows(YESTERDAY + timedelta(days=1)) == source.rows()
    lake = source.project.lake
    path = Path(lake.uri(warehouse_asset("t"), str(YESTERDAY + timedelta(days=1))))
    whole = path.read_bytes()
    path.write_bytes(whole[:20] + bytes([whole[20] ^ 1]) + whole[21:])
    later = source.build(tmp_path, YESTERDAY + timedelta(days=2))
    assert (later.status, later.partition.notes["read"]) == ("written", "full")
    assert source.rows(YESTERDAY + timedelta(days=2)) == source.rows()


def test_changes_and_deletions_alone_are_read(source: Source, tmp_path: Path) -> None:
    source.build(tmp_path)
    moment = (datetime.now(UTC) + timedelta(minutes=1)).strftime("%Y-%m-%d %H:%M:%S+00")
    source.execute(f"UPDATE {{d}}.t SET email = 'new', updated_at = TIMESTAMP '{moment}' WHERE id = 1")
    source.execute("DELETE FROM {d}.t WHERE id = 0")
    built = source.build(tmp_path)
    assert (built.partition.notes["read"], built.partition.notes["rows_read"]) == ("changes", 1)
    assert source.rows() == [(1, "new"), (2, "2"), (3, "3"), (4, "4")]


def test_everything_is_read_when_it_was_forced_or_the_partition_is_not_the_one_observed(
    source: Source, tmp_path: Path
) -> None:
    source.build(tmp_path)
    assert source.build(tmp_path, force=True).partition.notes["read"] == "full"
    source.project.lake.delete(warehouse_asset("t"), str(YESTERDAY))
    assert source.build(tmp_path).partition.notes["read"] == "full"


def test_a_week_later_everything_is_read_for_times_may_not_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE main.t (id INT, email VARCHAR, updated_at TIMESTAMPTZ)")
        connection.execute("INSERT INTO main.t VALUES (1, 'a', TIMESTAMPTZ '2026-01-01 00:00+00')")
    project = platform_of(tmp_path, f"{{kind: duckdb, path: '{path}', tables: {{t: {TABLE.format(d='main')}}}}}")
    source = Source(project, lambda _: None)
    source.build(tmp_path)
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE main.t SET email = 'silently'")
    assert source.build(tmp_path).partition.notes["read"] == "unchanged", "no time tells of it"
    with duckdb.connect(str(path)) as connection:
        connection.execute("ALTER TABLE main.t ALTER id TYPE BIGINT")
    retyped = source.build(tmp_path).partition.notes
    assert (retyped["read"], retyped["why"]) == ("full", "other types than before: id"), "its type does"
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE main.t SET email = 'in silence'")
    assert source.build(tmp_path).partition.notes["read"] == "unchanged"
    later = datetime.now(UTC) + timedelta(days=7)
    monkeypatch.setenv("HEAP_ASSETS_NOW", later.isoformat())
    assert source.build(tmp_path, later.date() - timedelta(days=1)).partition.notes["read"] == "full"
    assert source.rows(later.date() - timedelta(days=1)) == [(1, "in silence")]


def test_nested_paths_and_array_elements_identify_people_from_the_settings_to_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK", "http://a.example")
    path = tmp_path / "w.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "CREATE TABLE t (id VARCHAR, addr STRUCT(email VARCHAR, geo STRUCT(lat DOUBLE)), "
            "devices STRUCT(serial VARCHAR, n INT)[], tags VARCHAR[], plan VARCHAR DEFAULT 'pro', note VARCHAR)"
        )
        connection.execute(
            "INSERT INTO t (id, addr, devices, tags) VALUES "
            "('c1', {'email': 'Ann@Acme.io', 'geo': {'lat': 1.5}}, [{'serial': 'd1', 'n': 1}, "
            "{'serial': 'd2', 'n': 2}], ['t1']), "
            "('c2', {'email': NULL, 'geo': NULL}, [], []), "
            "('c3', NULL, NULL, ['t3', 't4'])"
        )
    mapping = '{id: crm_id, addr.email: email, "devices[].serial": device_id, "tags[]": tag}'
    table = f"{{relation: main.t, key: id, columns: [], identifiers: {mapping}}}"
    types = "{type: crm_id}, {type: email, normalise: email}, {type: device_id}, {type: tag}"
    sync = "{webhook: {url: '${HOOK}', source: t, properties: {Plan: plan, Gone: gone}}}"
    warehouse = f"{{kind: duckdb, path: '{path}', tables: {{t: {table}}}}}\nsync: {sync}"
    project = platform_of(tmp_path, warehouse, types)
    project.check_columns()
    Source(project, lambda _: None).build(tmp_path)

    stored = project.lake.scan(warehouse_asset("t"), str(YESTERDAY))
    assert stored.collect().height == 3, "an empty array keeps its row"
    found = extract(stored, project.snapshot_sources[warehouse_asset("t")], project.rules, YESTERDAY)
    graph = resolve(found.links, project.rules).graph.collect()

    people = graph.group_by("profile_id").agg(pl.concat_str("identifier_type", pl.lit(":"), "identifier").sort())
    assert "note" not in stored.collect_schema(), "what is neither mapped nor asked for is not read"
    assert "plan" in stored.collect_schema(), "a sync sends it"
    assert sorted(people["identifier_type"].to_list()) == [
        ["crm_id:c1", "device_id:d1", "device_id:d2", "email:ann@acme.io", "tag:t1"],
        ["crm_id:c2"],
        ["crm_id:c3", "tag:t3", "tag:t4"],
    ]


def test_a_path_that_is_not_there_is_named_before_anything_runs(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE t (id INT, addr STRUCT(email VARCHAR))")
    table = "{relation: main.t, key: id, identifiers: {addr.mail: email}}"
    project = platform_of(tmp_path, f"{{kind: duckdb, path: '{path}', tables: {{t: {table}}}}}")
    with pytest.raises(SettingsError, match=r"warehouse.tables.t: main.t has no column 'addr.mail'.*'addr.email'"):
        project.check_columns()


def test_only_the_datasets_of_the_settings_may_be_mapped(tmp_path: Path) -> None:
    table = "{relation: hr.salaries, key: id}"
    with pytest.raises(SettingsError, match=r"warehouse.tables.t.relation is 'hr.salaries', but hr is not among"):
        platform_of(tmp_path, f"{{kind: duckdb, path: w.duckdb, datasets: [crm, billing], tables: {{t: {table}}}}}")
