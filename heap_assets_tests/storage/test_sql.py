"""The SQL lake_sql shows every asset, raw and resolved, and lets nothing be written or looked at beside the lake."""

from __future__ import annotations

import tempfile
from pathlib import Path

import duckdb
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heap_assets.errors import SettingsError
from heap_assets.storage import Lake
from heap_assets.storage.sql import LakeSql, SqlError, write_database
from heap_assets.values import set_apart


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lake = Lake.open(str(tmp_path / "lake"))
    lake.write("heap/events/signup", "2026-11-01", pl.DataFrame({"event_id": [1], "user_id": [10]}))
    lake.write("heap/events/signup", "2026-11-02", pl.DataFrame({"event_id": [2], "user_id": [20], "plan": ["pro"]}))
    lake.write("heap/user_migrations", "2026-11-01", pl.DataFrame({"from_user_id": [10], "resolved_to": [11]}))
    lake.write("heap/user_migrations", "2026-11-02", pl.DataFrame({"from_user_id": [10], "resolved_to": [12]}))
    graph = pl.DataFrame(
        {"identifier_type": ["heap_user_id"] * 2, "identifier": ["12", "20"], "profile_id": ["a", "b"]}
    )
    lake.write("identity/graph", "2026-11-02", graph)
    lake.write("profiles", "2026-11-02", pl.DataFrame({"profile_id": ["a", "b"]}))
    lake.store.write("_landing/x/1.parquet", b"not an asset")
    return tmp_path / "lake"


def test_every_asset_is_a_view_and_internal_storage_is_not(folder: Path) -> None:
    with LakeSql(str(folder)) as lake_sql:
        assert lake_sql.tables() == [
            "heap.events_signup", "heap.user_migrations", "identity.graph", "latest.heap_events_signup",
            "latest.heap_user_migrations", "latest.identity_graph", "latest.profiles", "main.profiles",
            "resolved.events_signup",
        ]  # fmt: skip


def test_an_event_table_may_begin_with_an_underscore(folder: Path) -> None:
    Lake.open(str(folder)).write(
        "heap/events/_key_event_", "2026-11-01", pl.DataFrame({"event_id": [7], "user_id": [1]})
    )
    with LakeSql(str(folder)) as lake_sql:
        assert lake_sql.sql("SELECT event_id FROM heap.events__key_event_").rows() == [(7,)]


def test_what_syncs_did_is_there_to_be_asked(folder: Path) -> None:
    store = Lake.open(str(folder)).store
    store.write("_sync/salt", b"x")
    for sync, sent in (("heap_events", 3), ("heap_user_properties", 5)):
        store.sink(f"_sync/{sync}/runs/2026-11-02/0000000001.parquet", pl.DataFrame({"sync": [sync], "sent": [sent]}))
        store.sink(f"_sync/{sync}/ledger.parquet", pl.DataFrame({"key": ["k"], "status": ["acknowledged"]}))
    with LakeSql(str(folder)) as lake_sql:
        told = [name for name in lake_sql.tables() if name.startswith("sync.")]
        assert told == ["sync.ledger_heap_events", "sync.ledger_heap_user_properties", "sync.runs"]
        assert lake_sql.sql("SELECT sum(sent) FROM sync.runs").item() == 8


def test_partitions_are_one_table_and_a_later_column_is_null_before(folder: Path) -> None:
    with LakeSql(str(folder)) as lake_sql:
        rows = lake_sql.sql("SELECT partition_key, event_id, plan FROM heap.events_signup ORDER BY event_id").rows()
    assert rows == [("2026-11-01", 1, None), ("2026-11-02", 2, "pro")]


def test_latest_is_the_newest_partition(folder: Path) -> None:
    with LakeSql(str(folder)) as lake_sql:
        assert lake_sql.sql("SELECT resolved_to FROM latest.heap_user_migrations").rows() == [(12,)]


def test_resolved_event_rows_have_todays_user_and_profile(folder: Path) -> None:
    with LakeSql(str(folder)) as lake_sql:
        query = "SELECT event_id, resolved_user_id, profile_id FROM resolved.events_signup ORDER BY event_id"
        assert lake_sql.sql(query).rows() == [(1, 12, "a"), (2, 20, "b")]


@pytest.mark.parametrize(
    "statement",
    [
        "COPY (SELECT 1) TO '{folder}/heap/users/2026-11-01.parquet' (FORMAT parquet)",
        "CREATE TABLE main.t (a INT)",
        "DROP VIEW main.profiles",
        "SET enable_external_access = true",
        "ATTACH '/tmp/other.duckdb'",
        "SELECT 1; DROP VIEW main.profiles",
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT nothing FROM main.profiles",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{folder}/profiles/2026-11-03.parquet' (FORMAT parquet)",
        "EXPLAIN (ANALYZE) COPY (SELECT 1) TO '{folder}/profiles/2026-11-03.parquet' (FORMAT parquet)",
        "/* */ EXPLAIN ANALYZE COPY (SELECT 1) TO '{folder}/profiles/2026-11-03.parquet' (FORMAT parquet)",
        "WITH x AS (COPY (SELECT 1) TO '{folder}/profiles/x.parquet') SELECT * FROM x",
        "EXPLAIN ANALYZE WITH x AS (COPY (SELECT 1) TO '{folder}/profiles/x.parquet') SELECT * FROM x",
        "SELECT * FROM (WITH x AS (COPY (SELECT 1) TO '{folder}/profiles/x.parquet') SELECT * FROM x)",
        "SELECT 1) TO '{folder}/profiles/x.parquet'; COPY (SELECT 1",
        "SELECT * FROM query($$COPY (SELECT 1) TO '{folder}/profiles/x.parquet'$$)",
        "EXPORT DATABASE '{folder}/profiles'",
        "PRAGMA database_list",
        "CALL enable_logging(storage = 'file', storage_path = '{folder}/profiles')",
        "SELECT * FROM enable_logging(storage = 'file', storage_path = '{folder}/profiles')",
        "INSTALL httpfs",
        "LOAD httpfs",
        "RESET lock_configuration",
        "SET allowed_directories = ['/']",
        "PREPARE p AS SELECT 1",
        "SELECT * FROM read_text('{folder}/_sync/salt')",
        "SELECT * FROM read_blob('{folder}/profiles/../_sync/salt')",
        "SELECT * FROM read_text('file://{folder}/_sync/salt')",
        "SELECT * FROM read_csv('{folder}/_sync/salt')",
        "SELECT * FROM '{folder}/_landing/x/1.parquet'",
        "SELECT * FROM read_parquet('{folder}/_landing/*/*.parquet')",
        "SELECT * FROM parquet_metadata('{folder}/_landing/x/1.parquet')",
        "SELECT * FROM glob('{folder}/**')",
        "SELECT * FROM glob('{folder}/_*/*')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM read_text('https://localhost/x')",
        "SELECT * FROM read_parquet('s3://bucket/x.parquet')",
        "SELECT * FROM duckdb_secrets()",
        "SELECT * FROM statement",
        "SELECT * FROM folder",
    ],
)
def test_nothing_can_be_written_or_read_beside_the_tables(folder: Path, statement: str) -> None:
    Lake.open(str(folder)).store.write("_sync/salt", b"the-salt")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    with LakeSql(str(folder)) as lake_sql, pytest.raises(SqlError) as caught:
        lake_sql.sql(statement.format(folder=folder))
    assert "the-salt" not in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


def test_only_the_tables_that_are_shown_can_be_read(folder: Path) -> None:
    with LakeSql(str(folder), assets=["profiles"]) as lake_sql:
        assert lake_sql.sql(f"SELECT count(*) FROM read_parquet('{folder}/profiles/*.parquet')").item() == 2
        with pytest.raises(SqlError):
            lake_sql.sql(f"SELECT * FROM read_parquet('{folder}/identity/graph/*.parquet')")


@pytest.mark.parametrize(
    "statement",
    [
        "EXPLAIN ANALYZE SELECT * FROM main.profiles", "DESCRIBE main.profiles", "SUMMARIZE main.profiles",
        "SHOW TABLES",
        "FROM main.profiles;", "SELECT profile_id, profile_id FROM main.profiles -- twice", "VALUES (1)",
        "WITH a AS (SELECT * FROM main.profiles) SELECT * FROM a ORDER BY 1 DESC",
    ],
)  # fmt: skip
def test_whatever_reads_is_answered(folder: Path, statement: str) -> None:
    with LakeSql(str(folder)) as lake_sql:
        assert lake_sql.sql(statement).height


def test_nothing_is_left_beside_the_caller(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with LakeSql(str(folder)) as lake_sql:
        lake_sql.sql("SELECT * FROM main.profiles ORDER BY profile_id")
    assert not list((tmp_path / "here").iterdir())


def test_a_table_that_cannot_be_shown_stops_no_other(folder: Path) -> None:
    Lake.open(str(folder)).store.write("heap/events/torn/2026-11-01.parquet", b"no Parquet at all")
    with LakeSql(str(folder)) as lake_sql:
        assert list(lake_sql.unreadable) == ["heap/events/torn"]
        assert lake_sql.sql("SELECT count(*) FROM heap.events_signup").item() == 2
        with pytest.raises(SqlError, match="cannot be shown: heap/events/torn"):
            lake_sql.sql("SELECT * FROM heap.events_torn")


def test_two_tables_whose_views_would_have_one_name_are_both_there(folder: Path) -> None:
    lake = Lake.open(str(folder))
    for number, name in enumerate(("sign up", "sign-up", "Sign_Up")):
        lake.write(f"heap/events/{name}", "2026-11-01", pl.DataFrame({"event_id": [number], "user_id": [1]}))
    with LakeSql(str(folder)) as lake_sql:
        views = [name for name in lake_sql.tables() if name.casefold().startswith("heap.events_sign_up")]
        assert sorted(lake_sql.sql(f'SELECT event_id FROM heap."{v.partition(".")[2]}"').item() for v in views) == [
            0,
            1,
            2,
        ]


OURS = ("partition_key", "filename", "file_row_number", "profile_id", "resolved_user_id", "resolved_to", "file_index")
PROPERTIES = st.sampled_from(OURS).flatmap(lambda name: st.sampled_from([name, name.upper(), f"property_{name}"])) | (
    st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=12)
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PROPERTIES, min_size=1, max_size=6, unique_by=str.casefold))
def test_a_property_may_be_called_like_anything_of_ours(tmp_path: Path, names: list[str]) -> None:
    names = [name for name in names if name.casefold() not in ("event_id", "user_id")]
    with tempfile.TemporaryDirectory(dir=tmp_path) as url:
        lake = Lake.open(url)
        values = {name: [f"value of {name}"] for name in names}
        lake.write("heap/events/look", "2026-11-01", pl.DataFrame({"event_id": [1], "user_id": [10], **values}))
        lake.write("heap/user_migrations", "2026-11-01", pl.DataFrame({"from_user_id": [10], "resolved_to": [12]}))
        graph = pl.DataFrame({"identifier_type": ["heap_user_id"], "identifier": ["12"], "profile_id": ["p"]})
        lake.write("identity/graph", "2026-11-01", graph)
        with LakeSql(url) as lake_sql:
            assert not lake_sql.unreadable
            for view, ours in (
                ("heap.events_look", {"partition_key": "2026-11-01"}),
                ("resolved.events_look", {"partition_key": "2026-11-01", "resolved_user_id": 12, "profile_id": "p"}),
            ):
                row = lake_sql.sql(f"SELECT * FROM {view}").row(0, named=True)
                assert row.items() >= ours.items()
                moved = set_apart(names, ["partition_key"])
                shown = [moved.get(name, name) for name in names]
                if view.startswith("resolved"):
                    again = set_apart(["event_id", "user_id", *shown], ["resolved_user_id", "profile_id"])
                    shown = [again.get(name, name) for name in shown]
                assert {name: row[under] for name, under in zip(names, shown, strict=True)} == {
                    name: f"value of {name}" for name in names
                }


def test_a_lake_without_assets_says_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="holds no asset"):
        LakeSql(str(tmp_path))


def test_bi_tools_get_a_file_of_views(folder: Path, tmp_path: Path) -> None:
    write_database(str(folder), tmp_path / "views.duckdb")
    write_database(str(folder), tmp_path / "views.duckdb")
    with duckdb.connect(str(tmp_path / "views.duckdb"), read_only=True) as connection:
        assert connection.sql("SELECT count(*) FROM heap.events_signup").fetchall() == [(2,)]
