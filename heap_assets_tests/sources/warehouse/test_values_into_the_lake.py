"""A value of an engine is in the lake exactly, or as text that says the same, or null and counted; never another."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from adbc_driver_postgresql import dbapi
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from heap_assets.sources.warehouse import Reading, Warehouse
from heap_assets.sources.warehouse.duckdb.reader import DuckDBWarehouse
from heap_assets.sources.warehouse.postgres.reader import PostgresWarehouse
from heap_assets.sources.warehouse.refresh import Observation, refreshed

LOST = object()
"""Of a value that no type of the lake holds."""
FEW = settings(max_examples=8, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))


@dataclass(frozen=True)
class Kind:
    """A type of an engine, and values of it: as SQL, and as the lake must have them."""

    values: st.SearchStrategy[tuple[str, Any]]

    def rows(self, width: int) -> st.SearchStrategy[list[tuple[str, Any]]]:
        return st.lists(st.one_of(st.just(("NULL", None)), self.values), min_size=width, max_size=width)


def quoted(text: str, kind: str) -> str:
    return "'" + text.replace("'", "''") + f"'::{kind}"


def of(kind: str, values: st.SearchStrategy[Any], lost: Sequence[str] = (), write: Callable[[Any], str] = str) -> Kind:
    known = values.map(lambda value: (quoted(write(value), kind), value))
    return Kind(known | st.sampled_from([(quoted(text, kind), LOST) for text in lost]) if lost else known)


MOMENTS = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999))
AWARE = MOMENTS.map(lambda moment: moment.replace(tzinfo=UTC))
TIMES = st.times()
BEYOND = ("infinity", "-infinity")


def iso(moment: Any) -> str:
    text = moment.isoformat()
    return text if not isinstance(moment, date) else text.rjust(len(text), "0")


def decimals(digits: int, scale: int) -> st.SearchStrategy[Decimal]:
    most = 10**digits - 1
    return st.integers(-most, most).map(lambda n: Decimal(f"{n}e-{scale}"))


def plain(value: Decimal) -> str:
    return format(value, "f")


TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=6)
POSTGRES: Mapping[str, Kind] = {
    "timestamptz": of("timestamptz", AWARE, (*BEYOND, "4713-01-01 BC", "20000-01-01"), iso),
    "timestamp": of("timestamp", MOMENTS, (*BEYOND, "294276-12-31"), iso),
    "date": of("date", st.dates(), (*BEYOND, "5874897-01-01", "0044-03-15 BC"), iso),
    "time": of("time", TIMES, ("24:00",), iso),
    "numeric(10,2)": of("numeric(10,2)", decimals(10, 2), ("NaN",), plain),
    "numeric(38,0)": of("numeric(38,0)", decimals(38, 0), ("NaN",), plain),
    "numeric": of("numeric", decimals(38, 9), ("NaN", "Infinity", "-Infinity"), plain),
    "bigint": of("bigint", st.integers(-(2**63), 2**63 - 1)),
    "float8": of("float8", st.floats(), (), repr),
    "boolean": of("boolean", st.booleans()),
    "text": of("text", TEXTS),
    "bytea": of("bytea", st.binary(max_size=6), (), lambda value: "\\x" + value.hex()),
}
"""Types that the lake has too, alone, in arrays and in composite types."""
AS_TEXT = ("interval", "uuid", "int4range", "inet", "varbit", "timetz", "tstzrange", "xml")
DUCKDB: Mapping[str, Kind] = {
    "TIMESTAMPTZ": of("TIMESTAMPTZ", AWARE, BEYOND, iso),
    "TIMESTAMP": of("TIMESTAMP", MOMENTS, (*BEYOND, "290000-01-01"), iso),
    "TIMESTAMP_S": of("TIMESTAMP_S", MOMENTS.map(lambda m: m.replace(microsecond=0)), BEYOND, iso),
    "TIMESTAMP_NS": of("TIMESTAMP_NS", st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)), BEYOND, iso),
    "DATE": of("DATE", st.dates(), (*BEYOND, "44-03-15 (BC)"), iso),
    "TIME": of("TIME", TIMES, ("24:00:00",), iso),
    "DECIMAL(38,10)": of("DECIMAL(38,10)", decimals(38, 10), (), plain),
    "HUGEINT": of("HUGEINT", decimals(38, 0), (), plain),
    "UBIGINT": of("UBIGINT", st.integers(0, 2**64 - 1)),
    "BIGINT": of("BIGINT", st.integers(-(2**63), 2**63 - 1)),
    "DOUBLE": of("DOUBLE", st.floats(), (), repr),
    "VARCHAR": of("VARCHAR", TEXTS),
    "BLOB": of("BLOB", st.binary(max_size=6), (), lambda value: "".join(f"\\x{byte:02X}" for byte in value)),
}


def same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, float) and isinstance(found, float):
        return (math.isnan(found) and math.isnan(wanted)) or found == wanted
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    if wanted is LOST or wanted is None:
        return found is None
    return type(found) is type(wanted) and bool(found == wanted)


def read(warehouse: Warehouse, relation: str, folder: Path) -> tuple[pl.DataFrame, Reading]:
    with warehouse.snapshot(relation) as snapshot:
        return snapshot.frame.collect(), snapshot.reading


def tables(kinds: Mapping[str, Kind]) -> st.SearchStrategy[dict[str, list[tuple[str, Any]]]]:
    return st.fixed_dictionaries({name: kind.rows(3) for name, kind in kinds.items()})


def hold(found: pl.DataFrame, reading: Reading, columns: Mapping[str, list[tuple[str, Any]]]) -> None:
    """Compare three columns of each type with what was put in: alone, in a list, in a struct."""
    lost = dict(reading.lost)
    for index, (kind, values) in enumerate(columns.items()):
        wanted = [value for _, value in values]
        gone = sum(value is LOST for value in wanted)
        assert all(map(same, found[f"a{index}"].to_list(), wanted)), kind
        if kind.startswith("numeric") and any(
            isinstance(value, Decimal) and value.copy_abs() >= 10**29 for value in wanted
        ):
            # inside arrays and composites a numeric has no precision of its own: one that does not fit makes all text
            texts = ["NaN" if value is LOST else value for value in wanted]
            assert json.loads(found[f"l{index}"][0], parse_int=Decimal) == texts, f"{kind} in a list"
            assert [json.loads(row, parse_int=Decimal)["v"] for row in found[f"s{index}"]] == texts, (
                f"{kind} in a struct"
            )
            assert [lost.pop(f"{shape}{index}", 0) for shape in "als"] == [gone, 0, 0], kind
            continue
        assert same(found[f"l{index}"].to_list()[0], wanted), f"{kind} in a list"
        assert all(same(row["v"], value) for row, value in zip(found[f"s{index}"].to_list(), wanted, strict=True)), (
            f"{kind} in a struct"
        )
        assert [lost.pop(f"{shape}{index}", 0) for shape in "als"] == [gone, gone * 3, gone], kind
    assert not lost


@FEW
@given(columns=tables(DUCKDB))
def test_duckdb(columns: dict[str, list[tuple[str, Any]]], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("duck") / "w.duckdb"
    selects = []
    for row in range(3):
        parts = []
        for index, (kind, values) in enumerate(columns.items()):
            cells = ", ".join(text for text, _ in values)
            parts += [
                f"CAST({values[row][0]} AS {kind}) AS a{index}",
                f"CAST([{cells}] AS {kind}[]) AS l{index}",
                f"CAST({{'v': {values[row][0]}}} AS STRUCT(v {kind})) AS s{index}",
            ]
        selects.append("SELECT " + ", ".join(parts))
    with duckdb.connect(str(path)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("CREATE TABLE t AS " + " UNION ALL ".join(selects))
    hold(*read(DuckDBWarehouse(path), "t", path.parent), columns)


@FEW
@given(columns=tables(POSTGRES))
def test_postgres(postgres: str, columns: dict[str, list[tuple[str, Any]]], tmp_path: Path) -> None:
    with dbapi.connect(postgres, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("SET TIME ZONE 'UTC'")
        cursor.execute("DROP SCHEMA IF EXISTS v CASCADE")
        cursor.execute("CREATE SCHEMA v")
        selects = []
        for index, kind in enumerate(columns):
            cursor.execute(f"CREATE TYPE v.s{index} AS (v {kind}, n int)")
        for row in range(3):
            parts = []
            for index, (kind, values) in enumerate(columns.items()):
                cells = ", ".join(text for text, _ in values)
                parts += [
                    f"{values[row][0]}::{kind} AS a{index}",
                    f"ARRAY[{cells}]::{kind}[] AS l{index}",
                    f"ROW({values[row][0]}, 1)::v.s{index} AS s{index}",
                    f"ARRAY[NULL, ROW({values[row][0]}, 1)]::v.s{index}[] AS n{index}",
                ]
            selects.append("SELECT " + ", ".join(parts))
        cursor.execute("CREATE TABLE v.t AS " + " UNION ALL ".join(selects))
    found, reading = read(PostgresWarehouse(postgres), "v.t", tmp_path)
    kept = {name: count for name, count in reading.lost.items() if name[0] != "n"}
    hold(found, replace(reading, lost=kept), columns)
    # a numeric in an array of composites has no precision of its own: one that does not fit makes it JSON
    lists = {f"s{index}": found[f"n{index}"] for index in range(len(columns)) if found.schema[f"n{index}"] != pl.String}
    assert len(lists) >= len(columns) - 2
    assert all(each.list.get(0).is_null().all() for each in lists.values())
    assert all(reading.lost.get(f"n{name[1:]}", 0) == kept.get(name, 0) for name in lists)
    again = found.with_columns(each.list.get(1).alias(name) for name, each in lists.items())
    hold(again, replace(reading, lost=kept), columns)


def test_composites_that_are_null_keep_no_other_back(postgres: str, tmp_path: Path) -> None:
    """The driver fails after a null one, or has all behind it null."""
    with dbapi.connect(postgres, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute('CREATE TYPE place AS (city text, "i" int[])')
        cursor.execute("CREATE TYPE home AS (street text, place place)")
        cursor.execute("CREATE TYPE flat AS (door text, size float8)")
        cursor.execute(
            "CREATE TABLE t AS SELECT n AS id, CASE WHEN n % 3 > 0 THEN ROW('s' || n, CASE WHEN n % 2 > 0 THEN "
            "ROW('c' || n, ARRAY[n, NULL])::place END)::home END AS a, ROW(NULL, NULL)::home AS b, "
            "CASE WHEN n % 5 > 0 THEN ARRAY[NULL, ROW('f' || n, 2.5)::flat, NULL] END AS c "
            "FROM generate_series(1, 20) n"
        )
    found, reading = read(PostgresWarehouse(postgres), "t", tmp_path)
    for n, row in enumerate(found.sort("id").iter_rows(named=True), start=1):
        place = {"city": f"c{n}", "i": [n, None]} if n % 2 else None
        assert row["a"] == ({"street": f"s{n}", "place": place} if n % 3 else None)
        assert row["b"] == {"street": None, "place": None}
        assert row["c"] == ([None, {"door": f"f{n}", "size": 2.5}, None] if n % 5 else None)
    assert reading.lost == {}


def test_what_postgres_alone_has_is_text_as_it_writes_it(postgres: str, tmp_path: Path) -> None:
    with dbapi.connect(postgres, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TYPE odd AS (u uuid, d interval)")
        cursor.execute(
            "CREATE TABLE t AS SELECT '1 day 25:00:00.000001'::interval a, gen_random_uuid() b, '[1,5)'::int4range c, "
            "'10.0.0.1/8'::inet d, B'101'::varbit e, '23:59:60+02'::timetz f, '<a/>'::xml g, 'a=>1'::text h, "
            "ARRAY['1 day'::interval, NULL] i, '{[1,2)}'::int4multirange j, '12.34'::money k, "
            "ROW('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '1 day')::odd l, '1234567890123456789012345678901234567890.5'"
            "::numeric(50,5) m, 4294967295::oid n"
        )
        cursor.execute("SELECT " + ", ".join(f"{name}::text" for name in "abcdefghj") + " FROM t")
        [told] = cursor.fetchall()
    found, reading = read(PostgresWarehouse(postgres), "t", tmp_path)
    row = found.row(0, named=True)
    assert tuple(row[name] for name in "abcdefghj") == told
    assert row["i"] == ["1 day", None]
    assert row["k"] == Decimal("12.34")
    assert row["l"] == '{"d": "1 day", "u": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}'
    assert row["m"] == "1234567890123456789012345678901234567890.50000"
    assert row["n"] == 4294967295
    assert reading.lost == {}


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ("(1, 0.1), (2, 1/3.0), (3, 'NaN')", ["0.1", "0.33333333333333333333", "NaN"]),
        ("(1, '{a,b}'::text[]), (2, '{{a,b},{c,d}}'), (3, NULL)", ['["a", "b"]', '[["a", "b"], ["c", "d"]]', None]),
        ("(1, ARRAY[1::numeric]), (2, ARRAY[1/3.0])", ["[1]", "[0.33333333333333333333]"]),
        ("(1, 1::numeric), (2, 2.50)", [Decimal(1), Decimal("2.5")]),
        ("(1, '[0:1]={1,2}'::int[])", [[1, 2]]),
    ],
)
def test_a_column_with_a_value_that_does_not_fit_is_text(
    postgres: str, values: str, wanted: list[Any], tmp_path: Path
) -> None:
    with dbapi.connect(postgres, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE t AS SELECT * FROM (VALUES {values}) AS v(id, score)")
    found, reading = read(PostgresWarehouse(postgres), "t", tmp_path)
    assert found.sort("id")["score"].to_list() == wanted
    assert reading.lost == {}


def test_text_that_is_not_utf8_is_null_and_counted(postgres: str, tmp_path: Path) -> None:
    with dbapi.connect(postgres, autocommit=True) as admin, admin.cursor() as cursor:
        cursor.execute("CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0")
    elsewhere = postgres.rpartition("/")[0] + "/ascii"
    with dbapi.connect(elsewhere, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(r"CREATE TABLE t AS SELECT 'ok' a UNION ALL SELECT E'\xff\xfe'")
    found, reading = read(PostgresWarehouse(elsewhere), "t", tmp_path)
    with dbapi.connect(postgres, autocommit=True) as admin, admin.cursor() as cursor:
        cursor.execute("DROP DATABASE ascii WITH (FORCE)")
    assert (found["a"].to_list(), reading.lost) == (["ok", None], {"a": 1})


def test_duckdb_whole_numbers_beyond_38_digits_make_their_column_text(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    big = 2**127 - 1
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            f"CREATE TABLE t AS SELECT {big}::HUGEINT a, [{big}::HUGEINT, 1] b, 7::HUGEINT c, {2**128 - 1}::UHUGEINT d,"
            f" {10**40}::BIGNUM e, MAP {{'k': {big}::HUGEINT}} f, MAP {{'k': TIMESTAMP 'infinity'}} g, "
            "TIME_NS '23:59:59.123456789' h, 'a' || chr(0) || 'b' i, INTERVAL '1 day' j, '101'::BIT k, "
            "'12:00:00+02'::TIMETZ l"
        )
    found, reading = read(DuckDBWarehouse(path), "t", tmp_path)
    row = found.row(0, named=True)
    assert (row["a"], row["b"], row["c"], row["d"], row["e"]) == (
        str(big), [str(big), "1"], Decimal(7), str(2**128 - 1), str(10**40),
    )  # fmt: skip
    assert (row["f"], row["g"]) == ([{"key": "k", "value": str(big)}], [{"key": "k", "value": None}])
    assert found["h"].dt.strftime("%H:%M:%S%.f").to_list() == ["23:59:59.123456789"]
    assert (row["i"], row["j"], row["k"], row["l"]) == ("a\x00b", "1 day", "101", "12:00:00+02")
    assert reading.lost == {"g": 1}


def test_a_column_that_became_text_stays_text_and_names_differ_in_case(postgres: str) -> None:
    source = PostgresWarehouse(postgres)
    spelled = {"key": "id", "updated_at": "updated_at", "spellings": ["score"]}

    def run(*statements: str) -> None:
        with dbapi.connect(postgres, autocommit=True) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    run(
        """CREATE TABLE t AS SELECT i AS "Id", 1/3.0 AS "Score", timestamptz '2026-01-01' AS "Updated_At" """
        "FROM generate_series(1, 3) i"
    )
    with refreshed(source, "t", None, **spelled) as first:  # type: ignore[arg-type]
        before = Observation(first.frame.collect().lazy(), datetime(2026, 1, 2, tzinfo=UTC), None, first.tally)
    run("""UPDATE t SET "Score" = 2.5, "Updated_At" = now() WHERE "Id" = 2""")
    with refreshed(source, "t", None, previous=before, **spelled) as second:  # type: ignore[arg-type]
        assert (second.mode, second.rows_read) == ("changes", 1)
        third = "0.33333333333333333333"
        assert second.frame.sort("id").collect()["score"].to_list() == [third, "2.5", third]
