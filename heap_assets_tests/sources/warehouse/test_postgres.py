"""PostgreSQL as a source, against a real server."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime
from datetime import time as clock
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from adbc_driver_postgresql import dbapi

from heap_assets.sources.warehouse import AccessError, Newer, RelationMissingError, WarehouseError
from heap_assets.sources.warehouse.base import ColumnMissingError
from heap_assets.sources.warehouse.postgres.reader import PostgresWarehouse

CONTACTS = """
CREATE SCHEMA crm;
CREATE TYPE geo AS (lat float8, zip text);
CREATE TYPE addr AS (email text, geo geo);
CREATE TABLE crm.contacts (contact_id bigint NOT NULL, email text, updated_at timestamptz, addr addr, others addr[]);
COMMENT ON COLUMN crm.contacts.email IS 'Work email';
INSERT INTO crm.contacts VALUES
    (1, 'ann@example.com', '2026-11-01 10:00+00', ROW('a@x', ROW(1.5, '10')), ARRAY[ROW('o@x', NULL)::addr]),
    (2, NULL, '2026-11-02 00:00+00', NULL, '{}');
CREATE VIEW crm.emails AS SELECT email FROM crm.contacts;
ANALYZE crm.contacts;
"""


def execute(uri: str, script: str) -> None:
    with dbapi.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
        for statement in script.split(";\n"):
            if statement.strip():
                cursor.execute(statement)


def warehouse(uri: str, script: str = CONTACTS) -> PostgresWarehouse:
    execute(uri, script)
    return PostgresWarehouse(uri)


def read(source: PostgresWarehouse, relation: str, *columns: str, newer: Newer | None = None) -> pl.DataFrame:
    with source.snapshot(relation, columns or None, newer=newer) as snapshot:
        return snapshot.frame.collect()


def test_tables_and_columns_are_described(postgres: str) -> None:
    source = warehouse(postgres)
    found = {table.name: (table.kind, table.rows) for table in source.tables()}
    assert found == {"crm.contacts": ("table", 2), "crm.emails": ("view", None)}
    columns = {column.name: column for column in source.columns("crm.contacts")}
    assert (columns["contact_id"].type, columns["contact_id"].nullable) == ("bigint", False)
    assert columns["email"].description == "Work email"
    assert columns["others"].paths() == [
        "others[]", "others[].email", "others[].geo", "others[].geo.lat", "others[].geo.zip",
    ]  # fmt: skip


def test_values_and_types_are_kept(postgres: str) -> None:
    source = warehouse(
        postgres,
        r"""
        CREATE TYPE mood AS ENUM ('a', 'b');
        CREATE DOMAIN code AS varchar(9);
        CREATE TYPE deep AS (n numeric, m mood, ts timestamptz);
        CREATE TABLE t AS SELECT 9223372036854775807::bigint AS big, 1.50::numeric(12,2) AS money,
            12345678901234567890.123456789::numeric AS free, DATE '2026-02-28' AS day,
            TIMESTAMP '2026-01-01 10:00:00.123456' AS local, TIMESTAMPTZ '2026-01-01 10:00+02' AS instant,
            TIME '23:59:59.5' AS clock, '\x00ff'::bytea AS bytes, '{"a": 1}'::json AS json, '{"a":1}'::jsonb AS jsonb,
            '00000000-0000-0000-0000-000000000001'::uuid AS id, interval '1 day' AS span, 'a'::mood AS choice,
            ARRAY['x', NULL] AS list, ARRAY[1.5, NULL]::numeric(10,2)[] AS numbers,
            ARRAY['00000000-0000-0000-0000-000000000001'::uuid] AS ids, '10.0.0.1'::inet AS ip,
            true AS flag, 1.5::real AS small, 'ab'::code AS code, 3.25::money AS cash,
            ROW(1.5, 'b', '2026-01-01 00:00+01')::deep AS nested,
            ARRAY[ROW(2.5, NULL, NULL)::deep, NULL] AS structs, NULL::text AS nothing;
        """,
    )
    frame = read(source, "t")
    assert frame.row(0, named=True) == {
        "big": 2**63 - 1,
        "money": Decimal("1.50"),
        "free": Decimal("12345678901234567890.123456789"),
        "day": date(2026, 2, 28),
        "local": datetime(2026, 1, 1, 10, 0, 0, 123456),
        "instant": datetime(2026, 1, 1, 8, tzinfo=UTC),
        "clock": clock(23, 59, 59, 500000),
        "bytes": b"\x00\xff",
        "json": '{"a": 1}',
        "jsonb": '{"a": 1}',
        "id": "00000000-0000-0000-0000-000000000001",
        "span": "1 day",
        "choice": "a",
        "list": ["x", None],
        "numbers": [Decimal("1.5"), None],
        "ids": ["00000000-0000-0000-0000-000000000001"],
        "ip": "10.0.0.1/32",
        "flag": True,
        "small": 1.5,
        "code": "ab",
        "cash": Decimal("3.25"),
        "nested": {"n": Decimal("1.5"), "m": "b", "ts": datetime(2025, 12, 31, 23, tzinfo=UTC)},
        "structs": [{"n": Decimal("2.5"), "m": None, "ts": None}, None],
        "nothing": None,
    }
    assert frame.schema["money"] == pl.Decimal(12, 2)


def test_structs_stay_structs_and_an_empty_array_keeps_its_row(postgres: str) -> None:
    frame = read(warehouse(postgres), "crm.contacts", "others[].email", "addr.email")
    assert frame.rows() == [
        ({"email": "a@x", "geo": {"lat": 1.5, "zip": "10"}}, [{"email": "o@x", "geo": None}]),
        (None, []),
    ]


def test_an_empty_table_keeps_its_schema(postgres: str) -> None:
    frame = read(warehouse(postgres, "CREATE TABLE t (a bigint, b numeric(5,1), c text[])"), "t")
    assert frame.schema == {"a": pl.Int64, "b": pl.Decimal(5, 1), "c": pl.List(pl.String)}


def test_newer_rows_only(postgres: str) -> None:
    newer = Newer("updated_at", datetime(2026, 11, 2, tzinfo=UTC))
    assert read(warehouse(postgres), "crm.contacts", "contact_id", newer=newer)["contact_id"].to_list() == [2]


def test_odd_names_are_quoted(postgres: str) -> None:
    source = warehouse(postgres, 'CREATE TABLE "Odd ""N\'ame" AS SELECT 1 AS "A b"')
    assert read(source, "Odd \"N'ame", "A b").to_dict(as_series=False) == {"A b": [1]}


def test_missing_tables_and_columns_name_the_nearest(postgres: str) -> None:
    source = warehouse(postgres)
    with pytest.raises(RelationMissingError, match=r"Did you mean 'crm\.contacts'"):
        source.columns("crm.contact")
    with pytest.raises(ColumnMissingError, match=r"Did you mean 'addr\.geo\.lat'"):
        read(source, "crm.contacts", "addr.geo.lon")


def test_a_missing_permission_is_named_with_what_to_grant(postgres: str) -> None:
    user = f"u{postgres.rpartition('/')[2]}"
    execute(postgres, CONTACTS + f";\nCREATE ROLE {user} LOGIN;\nGRANT USAGE ON SCHEMA crm TO {user}")
    source = PostgresWarehouse(postgres.replace("heap@", f"{user}@"))
    with pytest.raises(AccessError, match=r"permission denied for table contacts.*GRANT"):
        read(source, "crm.contacts")
    assert [permission.passed for permission in source.preflight()] == [True, True, False]
    execute(postgres, f"DROP OWNED BY {user};\nDROP ROLE {user}")


def test_an_unreachable_server_or_a_wrong_database_is_named_without_the_password(postgres: str) -> None:
    with pytest.raises(AccessError, match=r"127\.0\.0\.1:1/db cannot be reached.*refused") as caught:
        PostgresWarehouse("postgresql://heap:s3cret@127.0.0.1:1/db").tables()
    assert "s3cret" not in str(caught.value) + repr(PostgresWarehouse("postgresql://heap:s3cret@127.0.0.1:1/db"))
    with pytest.raises(AccessError, match='database "nodb" does not exist'):
        PostgresWarehouse(postgres.rpartition("/")[0] + "/nodb").tables()


def test_bad_values_are_not_quoted_in_errors_and_nothing_is_left(postgres: str, tmp_path: Path) -> None:
    source = warehouse(
        postgres, "CREATE TABLE t AS SELECT 'ann@example.com' AS a;\nCREATE VIEW v AS SELECT a::int AS n FROM t"
    )
    with pytest.raises(WarehouseError, match="invalid input syntax") as caught:
        source.read("v", None, tmp_path / "out.parquet")
    assert "ann@" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_the_version_stands_still_while_nothing_is_written(postgres: str) -> None:
    source = warehouse(postgres, CONTACTS + ";\nCREATE UNLOGGED TABLE fast (a int)")
    before = source.version("crm.contacts")
    read(source, "crm.contacts")
    execute(postgres, "UPDATE crm.contacts SET email = 'b@x' WHERE contact_id = 2")
    assert before is not None
    assert source.version("crm.contacts") != before
    assert source.version("crm.emails") is source.version("fast") is None


def test_reading_cannot_write(postgres: str) -> None:
    source = warehouse(
        postgres,
        "CREATE TABLE t (a int);\n"
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'INSERT INTO t VALUES (1) RETURNING a';\n"
        "CREATE VIEW v AS SELECT f() AS a",
    )
    with pytest.raises(WarehouseError, match="read-only transaction"):
        read(source, "v")


@pytest.mark.slow
def test_two_million_rows_stay_in_bounds(postgres: str, tmp_path: Path) -> None:
    make = (
        "CREATE TABLE t AS SELECT i AS id, 'user' || i || '@example.com' AS email, (i / 7.0)::numeric(12,2) AS amount"
    )
    execute(postgres, f"{make} FROM generate_series(1, 2000000) i")
    code = f"""
import re
from pathlib import Path
from heap_assets.sources.warehouse.postgres.reader import PostgresWarehouse
reading = PostgresWarehouse({postgres!r}).read("t", None, Path({str(tmp_path / "t.parquet")!r}))
print(reading.rows, int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    rows, megabytes = map(int, ran.stdout.split())
    assert rows == 2_000_000
    assert megabytes < 512
