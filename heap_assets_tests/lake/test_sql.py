"""The SQL door shows every asset, raw and resolved, and lets nothing be written or looked at beside the lake."""

from __future__ import annotations

from pathlib import Path

import duckdb
import polars as pl
import pytest

from heap_assets.errors import SettingsError
from heap_assets.lake import Lake
from heap_assets.lake.sql import SqlDoor, SqlError, write_database


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
    with SqlDoor(str(folder)) as door:
        assert door.tables() == [
            "heap.events_signup", "heap.user_migrations", "identity.graph", "latest.heap_events_signup",
            "latest.heap_user_migrations", "latest.identity_graph", "latest.profiles", "main.profiles",
            "resolved.events_signup",
        ]  # fmt: skip


def test_an_event_table_may_begin_with_an_underscore(folder: Path) -> None:
    Lake.open(str(folder)).write(
        "heap/events/_key_event_", "2026-11-01", pl.DataFrame({"event_id": [7], "user_id": [1]})
    )
    with SqlDoor(str(folder)) as door:
        assert door.sql("SELECT event_id FROM heap.events__key_event_").rows() == [(7,)]


def test_what_syncs_did_is_there_to_be_asked(folder: Path) -> None:
    store = Lake.open(str(folder)).store
    store.write("_sync/salt", b"x")
    for sync, sent in (("heap_events", 3), ("heap_user_properties", 5)):
        store.sink(f"_sync/{sync}/runs/2026-11-02/0000000001.parquet", pl.DataFrame({"sync": [sync], "sent": [sent]}))
        store.sink(f"_sync/{sync}/ledger.parquet", pl.DataFrame({"key": ["k"], "status": ["acknowledged"]}))
    with SqlDoor(str(folder)) as door:
        told = [name for name in door.tables() if name.startswith("sync.")]
        assert told == ["sync.ledger_heap_events", "sync.ledger_heap_user_properties", "sync.runs"]
        assert door.sql("SELECT sum(sent) FROM sync.runs").item() == 8


def test_partitions_are_one_table_and_a_later_column_is_null_before(folder: Path) -> None:
    with SqlDoor(str(folder)) as door:
        rows = door.sql("SELECT partition_key, event_id, plan FROM heap.events_signup ORDER BY event_id").rows()
    assert rows == [("2026-11-01", 1, None), ("2026-11-02", 2, "pro")]


def test_latest_is_the_newest_partition(folder: Path) -> None:
    with SqlDoor(str(folder)) as door:
        assert door.sql("SELECT resolved_to FROM latest.heap_user_migrations").rows() == [(12,)]


def test_resolved_event_rows_have_todays_user_and_profile(folder: Path) -> None:
    with SqlDoor(str(folder)) as door:
        query = "SELECT event_id, resolved_user_id, profile_id FROM resolved.events_signup ORDER BY event_id"
        assert door.sql(query).rows() == [(1, 12, "a"), (2, 20, "b")]


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
    ],
)
def test_nothing_can_be_written_or_read_beside_the_lake(folder: Path, statement: str) -> None:
    before = sorted(folder.rglob("*"))
    with SqlDoor(str(folder)) as door, pytest.raises(SqlError):
        door.sql(statement.format(folder=folder))
    assert sorted(folder.rglob("*")) == before


def test_a_lake_without_assets_says_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="holds no asset"):
        SqlDoor(str(tmp_path))


def test_bi_tools_get_a_file_of_views(folder: Path, tmp_path: Path) -> None:
    write_database(str(folder), tmp_path / "views.duckdb")
    write_database(str(folder), tmp_path / "views.duckdb")
    with duckdb.connect(str(tmp_path / "views.duckdb"), read_only=True) as connection:
        assert connection.sql("SELECT count(*) FROM heap.events_signup").fetchall() == [(2,)]
