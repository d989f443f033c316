"""Reading changes gives what reading everything gives, or everything is read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heap_assets.sources.warehouse import Column, Shape, WarehouseError
from heap_assets.sources.warehouse.base import ColumnMissingError
from heap_assets.sources.warehouse.duckdb.reader import DuckDBWarehouse
from heap_assets.sources.warehouse.refresh import Observation, Refreshed, refreshed
from heap_assets.sources.warehouse.shape import in_utc, time_kind

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
COLUMNS = ("email",)


def warehouse(folder: Path) -> DuckDBWarehouse:
    path = folder / "w.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE t (id INT, email VARCHAR, updated_at TIMESTAMPTZ)")
        connection.execute("INSERT INTO t SELECT range, 'u' || range, TIMESTAMPTZ '2026-11-01 00:00+00' FROM range(5)")
    return DuckDBWarehouse(path)


def change(source: DuckDBWarehouse, *statements: str) -> None:
    with duckdb.connect(str(source.path)) as connection:
        for statement in statements:
            connection.execute(statement)


def test_as_many_rows_with_the_same_times_are_not_read_though_the_file_changed(tmp_path: Path) -> None:
    source = warehouse(tmp_path)
    first, frame = observe(source)
    before = Observation(frame.lazy(), NOON, first.version, first.tally)
    change(source, "CREATE TABLE other (a INT)")
    second, again = observe(source, before)
    assert (second.mode, second.rows_read) == ("unchanged", 0)
    assert again.equals(frame)
    change(source, "UPDATE t SET updated_at = TIMESTAMPTZ '2026-10-01 00:00+00' WHERE id = 1")
    assert observe(source, before)[0].mode != "unchanged", "an older time is a change too"


def test_a_column_of_another_type_is_read_though_no_row_says_that_it_changed(tmp_path: Path) -> None:
    source = warehouse(tmp_path)
    change(source, "ALTER TABLE t ADD n VARCHAR", "UPDATE t SET n = '1'")
    first, frame = observe(source, columns=["n"])
    types = {column.name: column.type for column in source.columns("t")}
    before = Observation(frame.lazy(), NOON, first.version, first.tally, types)
    change(source, "ALTER TABLE t ALTER n TYPE BIGINT")
    second, again = observe(source, before, columns=["n"])
    assert (second.mode, second.reason) == ("full", "other types than before: n")
    assert again["n"].to_list() == [1] * 5
    change(source, "ALTER TABLE t ALTER email TYPE BLOB")
    third, _ = observe(source, before, columns=["id"])
    assert third.reason != "other types than before: email", "it is not read"


def observe(
    source: DuckDBWarehouse,
    before: Observation | None = None,
    columns: Sequence[str] | None = COLUMNS,
    key: str | None = "id",
    zone: str | None = None,
) -> tuple[Refreshed, pl.DataFrame]:
    with refreshed(source, "t", columns, key=key, updated_at="updated_at", previous=before, zone=zone) as found:
        return found, found.frame.collect().sort("updated_at", "email") if key is None else found.frame.collect().sort(
            key
        )


def as_observed(frame: pl.DataFrame, version: str | None = None) -> Observation:
    return Observation(frame.lazy(), NOON, version)


def test_the_first_observation_reads_everything(tmp_path: Path) -> None:
    found, frame = observe(warehouse(tmp_path))
    assert (found.mode, found.rows_read, frame.columns) == ("full", 5, ["id", "email", "updated_at"])


def test_an_unchanged_relation_is_not_read(tmp_path: Path) -> None:
    source = warehouse(tmp_path)
    first, frame = observe(source)
    second, again = observe(source, as_observed(frame, first.version))
    assert (second.mode, second.rows_read) == ("unchanged", 0)
    assert again.equals(frame)


def test_changes_and_deletions_are_folded_in(tmp_path: Path) -> None:
    source = warehouse(tmp_path)
    _, frame = observe(source)
    change(
        source,
        "UPDATE t SET email = 'new', updated_at = TIMESTAMPTZ '2026-11-01 13:00+00' WHERE id = 1",
        "INSERT INTO t VALUES (9, 'added', TIMESTAMPTZ '2026-11-01 11:30+00')",
        "DELETE FROM t WHERE id = 0",
    )
    found, now = observe(source, as_observed(frame))
    assert (found.mode, found.rows_read) == ("changes", 2)
    assert now["email"].to_list() == ["new", "u2", "u3", "u4", "added"]


def test_a_row_that_no_timestamp_tells_of_makes_it_read_everything(tmp_path: Path) -> None:
    source = warehouse(tmp_path)
    _, frame = observe(source)
    change(source, "INSERT INTO t VALUES (9, 'silent', NULL)")
    found, now = observe(source, as_observed(frame))
    assert (found.mode, found.reason) == ("full", "updated_at does not tell every change")
    assert "silent" in now["email"].to_list()


@pytest.mark.parametrize(("columns", "key"), [(("email", "id", "updated_at"), None), (("id",), "id")])
def test_without_a_key_or_with_other_columns_everything_is_read(
    tmp_path: Path, columns: Sequence[str], key: str | None
) -> None:
    source = warehouse(tmp_path)
    _, frame = observe(source)
    found, _ = observe(source, as_observed(frame), columns, key)
    assert found.mode == "full"


def test_a_row_that_arrives_late_is_read_alone(tmp_path: Path) -> None:
    source = warehouse(tmp_path)
    _, frame = observe(source)
    change(source, "UPDATE t SET email = 'late', updated_at = TIMESTAMPTZ '2026-11-01 00:00:01+00' WHERE id = 3")
    found, now = observe(source, as_observed(frame))
    assert (found.mode, found.rows_read) == ("changes", 1), "half a day before the observation, and no clock was asked"
    assert now["email"].to_list() == ["u0", "u1", "u2", "late", "u4"]


def test_a_row_that_is_gone_needs_no_other_to_be_read(tmp_path: Path) -> None:
    source = warehouse(tmp_path)
    _, frame = observe(source)
    change(source, "DELETE FROM t WHERE id = 3")
    found, now = observe(source, as_observed(frame))
    assert (found.mode, found.rows_read, now["id"].to_list()) == ("changes", 0, [0, 1, 2, 4])


def test_a_second_change_on_the_same_date_is_seen(tmp_path: Path) -> None:
    source = warehouse(tmp_path)
    change(
        source, "ALTER TABLE t ALTER updated_at TYPE DATE", "UPDATE t SET updated_at = DATE '2026-11-01' WHERE id = 1"
    )
    first, frame = observe(source)
    change(source, "UPDATE t SET email = 'evening' WHERE id = 1")
    _, now = observe(source, Observation(frame.lazy(), NOON, first.version, first.tally))
    assert now["email"].to_list()[1] == "evening", "rows and checksum are as before"


def test_a_text_is_no_time_to_compare_and_everything_is_read(tmp_path: Path) -> None:
    source = warehouse(tmp_path)
    change(source, "ALTER TABLE t ALTER updated_at TYPE VARCHAR")
    first, frame = observe(source)
    change(source, "UPDATE t SET email = 'new', updated_at = '2027' WHERE id = 1")
    found, now = observe(source, Observation(frame.lazy(), NOON, first.version, first.tally))
    assert (found.mode, found.reason) == ("full", "updated_at is text, which no engine compares as a time")
    assert now["email"].to_list()[1] == "new"


def test_a_change_that_waits_in_the_log_of_the_file_is_seen(tmp_path: Path) -> None:
    source = warehouse(tmp_path)
    first, frame = observe(source)
    script = (
        "import duckdb, os, sys; c = duckdb.connect(sys.argv[1]); c.execute(\"SET wal_autocheckpoint = '1TB'\"); "
        "c.execute(\"UPDATE t SET email = 'logged', updated_at = TIMESTAMPTZ '2026-11-02 00:00+00' WHERE id = 1\"); "
        "os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", script, str(source.path)], check=True)
    assert source.path.with_name("w.duckdb.wal").exists()
    found, now = observe(source, Observation(frame.lazy(), NOON, first.version, first.tally))
    assert (found.mode, now["email"].to_list()[1]) == ("changes", "logged")


@pytest.mark.parametrize("kind", ["TIMESTAMPTZ", "TIMESTAMP", "TIMESTAMP_S", "DATE"])
@pytest.mark.parametrize("zone", [None, "America/New_York"])
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(
        st.tuples(st.sampled_from(["put", "put", "drop", "untimed"]), st.integers(0, 7), st.integers(-6000, 3000)),
        max_size=6,
    )
)
def test_any_edits_after_the_observation_give_what_a_full_read_gives(
    kind: str, zone: str | None, edits: list[tuple[str, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    source = warehouse(tmp_path_factory.mktemp("any"))
    change(source, f"ALTER TABLE t ALTER updated_at TYPE {kind}")
    first, frame = observe(source, zone=zone)
    statements = []
    for number, (what, row, minutes) in enumerate(edits):
        statements.append(f"DELETE FROM t WHERE id = {row}")
        at = f"'{(NOON + timedelta(minutes=minutes)).isoformat()}'" if what == "put" else "NULL"
        if what != "drop":
            statements.append(f"INSERT INTO t VALUES ({row}, 'edit{number}', CAST({at} AS {kind}))")
    change(source, *statements)
    _, now = observe(source, Observation(frame.lazy(), NOON, first.version, first.tally), zone=zone)
    _, full = observe(source, zone=zone)
    assert now.equals(full)


def test_local_times_become_utc_also_in_the_hours_that_a_clock_skips_or_repeats() -> None:
    local = ["2026-03-29 01:59:59", "2026-03-29 02:30:00", "2026-03-29 03:00:00", "2026-10-25 02:30:00"]
    frame = pl.DataFrame({"at": local}).select(in_utc(pl.col("at").str.to_datetime(), "Europe/Berlin"))
    utc = [moment.strftime("%m-%d %H:%M:%S") for moment in frame["at"]]
    assert utc == ["03-29 00:59:59", "03-29 01:30:00", "03-29 01:00:00", "10-25 00:30:00"]


def test_the_settings_spelling_is_the_frames_also_inside_structs(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            """CREATE TABLE t AS SELECT 1 AS "Id", {'Mail': 'a', 'N': 1} AS "Addr", [{'SKU': 's'}, NULL] AS "Items",
            TIMESTAMPTZ '2026-11-01 00:00+00' AS "Updated_At" UNION ALL SELECT 2, NULL, NULL, NULL"""
        )
    source, mapped = DuckDBWarehouse(path), ["id", "addr.mail", "items[].sku"]
    with refreshed(source, "t", None, key="id", updated_at="updated_at", spellings=mapped) as found:
        frame = found.frame.collect().sort("id")
    assert frame.to_dicts() == [
        {"id": 1, "addr": {"mail": "a", "N": 1}, "items": [{"sku": "s"}, None], "updated_at": NOON.replace(hour=0)},
        {"id": 2, "addr": None, "items": None, "updated_at": None},
    ]
    change(source, """UPDATE t SET "Updated_At" = TIMESTAMPTZ '2026-11-02 00:00+00', "Items" = [] WHERE "Id" = 1""")
    with refreshed(
        source, "t", None, key="id", updated_at="updated_at", spellings=mapped, previous=as_observed(frame)
    ) as again:
        assert (again.mode, again.rows_read) == ("changes", 1)
        assert again.frame.collect().sort("id")["items"].to_list() == [[], None]
    with pytest.raises(ColumnMissingError, match="the settings spell the column 'Id' both 'id' and 'ID'"):
        Shape.of(source.columns("t"), ["id", "ID"], "t")


@pytest.mark.parametrize(
    ("engine_type", "kind"),
    [
        ("TIMESTAMP WITH TIME ZONE", "instant"), ("timestamp(3) with time zone", "instant"), ("DATETIME", "local"),
        ("timestamp without time zone", "local"), ("TIMESTAMP_NS", "local"), ("date", "date"), ("text", "text"),
        ("character varying(20)", "text"), ("VARCHAR", "text"), ("STRING", "text"), ("BIGINT", "other"),
        ("timestamp without time zone[]", "other"), ("ARRAY<DATE>", "other"), ("DOUBLE", "other"),
    ],
)  # fmt: skip
def test_what_the_type_of_a_column_tells_as_a_time(engine_type: str, kind: str) -> None:
    assert time_kind(engine_type) == kind
    assert time_kind("TIMESTAMP", timestamps_are_instants=True) == "instant"


def test_a_number_is_refused_as_a_time_with_table_column_and_type(tmp_path: Path) -> None:
    source = warehouse(tmp_path)
    shape = Shape.of(source.columns("t"), [], "t")
    shape.check_times("t", created_at=None, updated_at="updated_at")
    with pytest.raises(WarehouseError, match=r"t: updated_at is the column 'id' of type INTEGER, which tells no time"):
        shape.check_times("t", updated_at="id")


@pytest.mark.parametrize(
    ("engine_type", "refused"),
    [
        ("DOUBLE", True), ("double precision", True), ("real", True), ("FLOAT64", True), ("boolean", True),
        ("BLOB", True), ("time without time zone", True), ("TIME", True), ("time with time zone", False),
        ("timestamp without time zone", False), ("numeric", False), ("DECIMAL(38,9)", False), ("bigint", False),
        ("text", False), ("uuid", False), ("DATE", False),
    ],
)  # fmt: skip
def test_a_column_that_can_name_nobody_is_refused_with_its_type(engine_type: str, refused: bool) -> None:
    inside = Column("Id", engine_type)
    shape = Shape.of([inside, Column("who", "STRUCT", fields=(inside,))], [], "t")
    for path in ("id", "who.Id"):
        said = rf"t: the column '{path}' of type .* is mapped as an identifier"
        with pytest.raises(WarehouseError, match=said) if refused else nullcontext():
            shape.check_identifiers("t", [path])
