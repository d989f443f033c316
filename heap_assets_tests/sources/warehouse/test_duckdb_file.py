"""A DuckDB file as a source: values and types survive, mistakes are named, writers are not kept out for long."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from datetime import time as clock
from decimal import Decimal
from pathlib import Path

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.sources.warehouse import AccessError, Newer, RelationMissingError, WarehouseBusyError, WarehouseError
from heap_assets.sources.warehouse.base import ColumnMissingError
from heap_assets.sources.warehouse.duckdb.errors import reason
from heap_assets.sources.warehouse.duckdb.reader import DuckDBWarehouse

CONTACTS = """
CREATE SCHEMA crm;
CREATE TABLE crm.contacts (
    contact_id BIGINT NOT NULL, email VARCHAR, updated_at TIMESTAMP,
    addr STRUCT(email VARCHAR, geo STRUCT(lat DOUBLE)), items STRUCT(sku VARCHAR, qty INTEGER)[]
);
COMMENT ON COLUMN crm.contacts.email IS 'Work email';
INSERT INTO crm.contacts VALUES
    (1, 'ann@example.com', '2026-11-01 10:00:00', {'email': 'a@x', 'geo': {'lat': 1.5}}, [{'sku': 's', 'qty': 2}]),
    (2, NULL, '2026-11-02 00:00:00', NULL, []);
CREATE VIEW crm.emails AS SELECT email FROM crm.contacts;
"""


def warehouse(folder: Path, script: str = CONTACTS, **options: float) -> DuckDBWarehouse:
    path = folder / "w.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(script)
    return DuckDBWarehouse(path, **options)  # type: ignore[arg-type]


def read(source: DuckDBWarehouse, relation: str, *columns: str, newer: Newer | None = None) -> pl.DataFrame:
    with source.snapshot(relation, columns or None, newer=newer) as snapshot:
        return snapshot.frame.collect()


@pytest.mark.parametrize(
    "expression",
    [
        "CAST('a ''7f'' \"7f\" 7f' AS DATE)", "CAST('7f' || chr(10) || 'x' AS INTEGER)", "error('it is 7f')",
        "CAST(7171 AS UTINYINT)", "strptime('7f', '%Y')", "json_extract('{7f', '$.a')",
    ],
)  # fmt: skip
def test_no_value_is_quoted(expression: str) -> None:
    with duckdb.connect() as connection, pytest.raises(duckdb.Error) as refused:
        connection.execute(f"SELECT {expression}").fetchall()
    said = reason(refused.value)
    assert "7f" not in said
    assert "7171" not in said
    assert ":" in said


def test_tables_and_views_are_listed_with_their_rows(tmp_path: Path) -> None:
    found = {table.name: (table.kind, table.rows) for table in warehouse(tmp_path).tables()}
    assert found == {"crm.contacts": ("table", 2), "crm.emails": ("view", None)}


def test_columns_tell_types_comments_and_nested_paths(tmp_path: Path) -> None:
    columns = {column.name: column for column in warehouse(tmp_path).columns("crm.contacts")}
    assert columns["contact_id"].type == "BIGINT"
    assert not columns["contact_id"].nullable
    assert columns["email"].description == "Work email"
    assert columns["addr"].paths() == ["addr", "addr.email", "addr.geo", "addr.geo.lat"]
    assert columns["items"].paths() == ["items[]", "items[].sku", "items[].qty"]


def test_values_and_types_are_kept(tmp_path: Path) -> None:
    source = warehouse(
        tmp_path,
        """
        CREATE TABLE t AS SELECT 9223372036854775807::BIGINT AS big, 12345678901234567890.12::DECIMAL(22, 2) AS money,
            DATE '2026-02-28' AS day, TIMESTAMP '2026-01-01 10:00:00.123456' AS local,
            TIMESTAMPTZ '2026-01-01 10:00:00+02' AS instant, TIME '23:59:59.5' AS clock, '\\x00\\xFF'::BLOB AS bytes,
            '{"a": [1, null]}'::JSON AS json, 7::HUGEINT AS huge, 'a'::ENUM('a', 'b') AS choice, true AS flag,
            INTERVAL 2 DAY AS span, '00000000-0000-0000-0000-000000000001'::UUID AS id,
            {'n': {'h': 1::HUGEINT, 'z': TIMESTAMPTZ '2026-01-01 00:00:00+01', 'e': 'b'::ENUM('a', 'b')}} AS nested,
            [1.5::FLOAT, NULL] AS list, [1, 2]::INTEGER[2] AS fixed, NULL::VARCHAR AS nothing
        """,
    )
    frame = read(source, "t")
    schema = dict(frame.schema)
    assert frame.row(0, named=True) == {
        "big": 2**63 - 1,
        "money": Decimal("12345678901234567890.12"),
        "day": date(2026, 2, 28),
        "local": datetime(2026, 1, 1, 10, 0, 0, 123456),
        "instant": datetime(2026, 1, 1, 8, tzinfo=UTC),
        "clock": clock(23, 59, 59, 500000),
        "bytes": b"\x00\xff",
        "json": '{"a": [1, null]}',
        "huge": Decimal(7),
        "choice": "a",
        "flag": True,
        "span": "2 days",
        "id": "00000000-0000-0000-0000-000000000001",
        "nested": {"n": {"h": Decimal(1), "z": datetime(2025, 12, 31, 23, tzinfo=UTC), "e": "b"}},
        "list": [1.5, None],
        "fixed": [1, 2],
        "nothing": None,
    }
    assert schema["money"] == pl.Decimal(22, 2)
    assert schema["instant"] == pl.Datetime("us", "UTC")
    assert schema["local"] == pl.Datetime("us")
    assert (schema["choice"], schema["nothing"], schema["fixed"]) == (pl.String, pl.String, pl.List(pl.Int32))


def test_only_mapped_columns_are_read_and_structs_stay_structs(tmp_path: Path) -> None:
    frame = read(warehouse(tmp_path), "crm.contacts", "items[].sku", "addr.email")
    assert frame.columns == ["addr", "items"]
    assert frame.rows() == [
        ({"email": "a@x", "geo": {"lat": 1.5}}, [{"sku": "s", "qty": 2}]),
        (None, []),
    ]


def test_an_empty_table_keeps_its_schema(tmp_path: Path) -> None:
    frame = read(warehouse(tmp_path, "CREATE TABLE t (a BIGINT, b STRUCT(c VARCHAR)[])"), "t")
    assert frame.schema == {"a": pl.Int64, "b": pl.List(pl.Struct({"c": pl.String}))}
    assert frame.height == 0


def test_newer_rows_only(tmp_path: Path) -> None:
    newer = Newer("updated_at", datetime(2026, 11, 2, tzinfo=UTC))
    assert read(warehouse(tmp_path), "crm.contacts", "contact_id", newer=newer)["contact_id"].to_list() == [2]


def test_names_are_found_without_case_and_main_is_implied(tmp_path: Path) -> None:
    source = warehouse(tmp_path, 'CREATE TABLE "Odd ""Name" AS SELECT 1 AS "A b"')
    assert read(source, 'odd "name', "a B").to_dict(as_series=False) == {"A b": [1]}


def test_a_missing_table_names_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(RelationMissingError, match=r"(?s)crm\.contact'.*crm\.emails.*Did you mean 'crm\.contacts'"):
        warehouse(tmp_path).columns("crm.contact")


@pytest.mark.parametrize(("wanted", "nearest"), [("emial", "email"), ("addr.emial", "addr.email")])
def test_a_missing_column_names_the_nearest(tmp_path: Path, wanted: str, nearest: str) -> None:
    with pytest.raises(ColumnMissingError, match=rf"'{wanted}'.*Did you mean '{nearest}'"):
        read(warehouse(tmp_path), "crm.contacts", wanted)


def test_a_missing_file_and_a_file_that_is_no_database_are_named(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="does not exist"):
        DuckDBWarehouse(tmp_path / "none.duckdb").tables()
    (tmp_path / "junk.duckdb").write_text("junk" * 4096)
    with pytest.raises(AccessError, match=r"junk\.duckdb cannot be opened"):
        DuckDBWarehouse(tmp_path / "junk.duckdb").tables()


def test_a_view_that_is_broken_fails_with_its_reason_and_leaves_nothing(tmp_path: Path) -> None:
    script = """CREATE TABLE t AS SELECT CASE WHEN range < 999999 THEN '1' ELSE 'ann@x' END AS a FROM range(1000000);
        CREATE VIEW v AS SELECT a::INTEGER AS n FROM t"""
    source = warehouse(tmp_path, script)
    with pytest.raises(WarehouseError, match="Could not convert") as caught:
        source.read("v", None, tmp_path / "out.parquet")
    assert "ann@x" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["w.duckdb"]


@contextmanager
def writer(path: Path, seconds: float) -> Iterator[subprocess.Popen[str]]:
    code = (
        f"import duckdb, time; c = duckdb.connect({str(path)!r}); c.execute('create table if not exists w(a int)');"
        f"print('open', flush=True); time.sleep({seconds})"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


def test_a_writer_is_named_when_it_does_not_let_go(tmp_path: Path) -> None:
    source = warehouse(tmp_path, lock_wait=0.2)
    with writer(source.path, 60) as process, pytest.raises(WarehouseBusyError, match=f"process {process.pid}"):
        source.tables()


def test_a_short_write_is_waited_for(tmp_path: Path) -> None:
    source = warehouse(tmp_path, lock_wait=20)
    with writer(source.path, 0.5):
        assert len(source.tables()) == 3


def test_the_file_is_free_again_after_a_read(tmp_path: Path) -> None:
    source = warehouse(tmp_path)
    with source.snapshot("crm.contacts") as snapshot, duckdb.connect(str(source.path)) as connection:
        connection.execute("INSERT INTO crm.contacts (contact_id) VALUES (3)")
        assert snapshot.frame.collect().height == 2


def test_the_version_changes_with_a_write_and_only_then(tmp_path: Path) -> None:
    source = warehouse(tmp_path)
    before = source.version("crm.contacts")
    read(source, "crm.contacts")
    assert source.version("crm.contacts") == before
    time.sleep(0.01)
    with duckdb.connect(str(source.path)) as connection:
        connection.execute("INSERT INTO crm.contacts (contact_id) VALUES (3)")
    assert source.version("crm.contacts") != before
    assert source.version("crm.emails") is None


def test_preflight_tells_what_is_wrong(tmp_path: Path) -> None:
    assert all(permission.passed for permission in warehouse(tmp_path).preflight())
    missing = DuckDBWarehouse(tmp_path / "none.duckdb").preflight()
    assert [(permission.passed, "does not exist" in permission.detail) for permission in missing] == [(False, True)]


@settings(max_examples=15, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(-(2**63), 2**63 - 1) | st.none(),
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20) | st.none(),
            st.binary(max_size=20) | st.none(),
            st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)) | st.none(),
        ),
        max_size=20,
    )
)
def test_any_rows_come_back_as_they_are(
    rows: list[tuple[object, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("any") / "w.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE t (a BIGINT, b VARCHAR, c BLOB, d TIMESTAMP)")
        if rows:
            connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", rows)
    assert read(DuckDBWarehouse(path), "t").rows() == rows


@pytest.mark.slow
def test_ten_million_rows_stay_under_one_gibibyte(tmp_path: Path) -> None:
    code = f"""
import duckdb, re, sys
from pathlib import Path
from heap_assets.sources.warehouse.duckdb.reader import DuckDBWarehouse
with DuckDBWarehouse(Path({str(tmp_path / "w.duckdb")!r})).snapshot("t") as snapshot:
    snapshot.frame.sink_parquet({str(tmp_path / "out.parquet")!r}, engine="streaming")
    print(snapshot.reading.rows, int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""
    make = (
        "CREATE TABLE t AS SELECT range AS id, 'user' || range || '@example.com' AS email, {'zip': range} AS addr"
        " FROM range(10_000_000)"
    )
    warehouse(tmp_path, make)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    rows, megabytes = map(int, ran.stdout.split())
    assert rows == 10_000_000
    assert megabytes < 1024
