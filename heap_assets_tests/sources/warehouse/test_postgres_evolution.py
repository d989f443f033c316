"""A table in PostgreSQL whose types have changed takes newer days and older ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from datetime import time as clock
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from adbc_driver_postgresql import dbapi
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heap_assets.sources.warehouse.postgres.publisher import PostgresPublisher
from heap_assets.sources.warehouse.publish import Publication, PublishError
from heap_assets.storage import Store

MONDAY, TUESDAY = date(2026, 11, 2), date(2026, 11, 3)
PEOPLE = Publication("people")
TYPES: dict[str, tuple[pl.DataType, Any]] = {
    "smallint": (pl.Int16(), 6),
    "bigint": (pl.Int64(), 7),
    "numeric(20,0)": (pl.UInt64(), 2**63),
    "numeric(12,2)": (pl.Decimal(12, 2), Decimal("1.25")),
    "numeric(30,20)": (pl.Decimal(30, 20), Decimal("0.00000000000000000001")),
    "double precision": (pl.Float64(), 2.5),
    "text": (pl.String(), "x"),
}


@dataclass(frozen=True)
class Target:
    publisher: PostgresPublisher
    cursor: dbapi.Cursor

    def publish(self, day: date, column: pl.Series) -> dict[str, int]:
        rows = pl.DataFrame([pl.Series("id", range(len(column))), column.alias("v")]).lazy()
        return dict(self.publisher.publish(PEOPLE, day, rows, "v1", force=True).lost)

    def values(self, day: date = MONDAY, cast: str = "") -> list[Any]:
        return self.ask(f"SELECT v{cast} FROM pub.people WHERE partition_day = '{day}' ORDER BY id")

    def kind(self) -> str:
        what = "format_type(atttypid, atttypmod)"
        where = "attrelid = to_regclass('pub.people') AND attname = 'v'"
        return str(self.ask(f"SELECT {what} FROM pg_attribute WHERE {where}")[0])

    def run(self, statement: str) -> None:
        self.cursor.execute(statement)

    def ask(self, text: str) -> list[Any]:
        self.cursor.execute(text)
        return [value for (value,) in self.cursor.fetchall()]


@pytest.fixture
def target(postgres: str, tmp_path: Path) -> Iterator[Target]:
    with dbapi.connect(postgres, autocommit=True) as connection, connection.cursor() as cursor:
        yield Target(PostgresPublisher(postgres, "pub", Store(str(tmp_path / "lake"))), cursor)


@pytest.mark.parametrize(
    ("older", "newer", "kind"),
    [
        ("smallint", "bigint", "bigint"),
        ("bigint", "numeric(20,0)", "numeric(20,0)"),
        ("bigint", "numeric(12,2)", "numeric(21,2)"),
        ("bigint", "double precision", "double precision"),
        ("numeric(12,2)", "numeric(30,20)", "numeric(30,20)"),
    ],
)
def test_after_a_column_was_widened_older_days_are_published_again(
    target: Target, older: str, newer: str, kind: str
) -> None:
    for day, name in ((MONDAY, older), (TUESDAY, newer), (MONDAY, older)):
        dtype, value = TYPES[name]
        assert target.publish(day, pl.Series([value, None], dtype=dtype)) == {}
        assert [None if text is None else Decimal(text) for text in target.values(day, "::text")] == [value, None]
    assert target.kind() == kind


@pytest.mark.parametrize(
    ("dtype", "value", "text"),
    [
        (pl.Int64(), 7, "7"),
        (pl.Decimal(12, 2), Decimal("1.20"), "1.20"),
        (pl.Float64(), 2.5, "2.5"),
        (pl.Boolean(), True, "true"),
        (pl.Datetime("us", "UTC"), datetime(2026, 11, 2, 1, 2, 3, 450_000, UTC), "2026-11-02 01:02:03.45+00"),
        (pl.Time(), clock(1, 2, 3), "01:02:03"),
        (pl.Struct({"a": pl.Int64()}), {"a": 1}, '{"a": 1}'),
    ],
)
def test_a_text_column_takes_days_of_any_type_as_text(
    target: Target, dtype: pl.DataType, value: Any, text: str
) -> None:
    target.publish(TUESDAY, pl.Series(["x"]))
    assert target.publish(MONDAY, pl.Series([value, None], dtype=dtype)) == {}
    assert target.values() == [text, None]


def test_times_of_day_and_lists_are_published_again(target: Target) -> None:
    for value, text in ((clock(1, 2, 3), "01:02:03"), ([1, 2], "{1,2}"), ([Decimal("1.50")], "{1.50}")):
        target.run("DROP TABLE IF EXISTS pub.people")
        for _ in range(2):
            target.publish(MONDAY, pl.Series([value]))
            assert target.values(cast="::text") == [text]
    target.publish(TUESDAY, pl.Series([[Decimal("1.2345")]], dtype=pl.List(pl.Decimal(12, 4))))
    assert target.values(TUESDAY, "::text") == ["{1.2345}"]
    assert target.values(MONDAY, "[1]::text") == ["1.5000"]


def test_limits_are_lifted_before_postgres_rounds_to_them_or_refuses(target: Target) -> None:
    target.publish(MONDAY, pl.Series([Decimal("1.25")], dtype=pl.Decimal(12, 2)))
    target.publish(TUESDAY, pl.Series([Decimal("1.2345")], dtype=pl.Decimal(12, 4)))
    assert target.values(TUESDAY, "::text") == ["1.2345"]
    target.run("ALTER TABLE pub.people DROP COLUMN v, ADD COLUMN v varchar(2)")
    target.publish(TUESDAY, pl.Series(["longer"]))
    assert target.values(TUESDAY) == ["longer"]


@pytest.mark.parametrize("dtype", [pl.Null(), pl.String(), pl.Float64(), pl.List(pl.String), pl.List(pl.Null)])
def test_a_day_without_any_value_fits_a_column_of_any_type_and_changes_none(target: Target, dtype: pl.DataType) -> None:
    target.publish(MONDAY, pl.Series([7]))
    assert target.publish(TUESDAY, pl.Series([None, None], dtype=dtype)) == {}
    assert target.values(TUESDAY) == [None, None]
    assert target.kind() == "bigint"


def test_lists_that_are_all_empty_stay_so_whatever_their_type(target: Target) -> None:
    target.publish(MONDAY, pl.Series([[7]]))
    target.publish(TUESDAY, pl.Series([[], None], dtype=pl.List(pl.String)))
    assert target.values(TUESDAY, "::text") == ["{}", None]
    assert target.kind() == "bigint[]"


def test_a_column_without_any_type_is_added_by_the_first_day_that_has_one(target: Target) -> None:
    target.publish(MONDAY, pl.Series([None]))
    target.publish(TUESDAY, pl.Series([5]))
    assert (target.kind(), target.values(MONDAY), target.values(TUESDAY)) == ("bigint", [None], [5])


def test_integers_that_a_double_would_round_are_not_rounded(target: Target) -> None:
    target.publish(MONDAY, pl.Series([2**60 + 1]))
    with pytest.raises(PublishError, match=r"pub\.people: column 'v' holds 1 integers beyond 2\^53"):
        target.publish(TUESDAY, pl.Series([0.5]))
    target.run("DROP TABLE pub.people")
    target.publish(TUESDAY, pl.Series([0.5]))
    assert target.publish(MONDAY, pl.Series([2**60 + 1, -(2**63), 2**53])) == {"v": 2}
    assert target.values() == [None, None, 2.0**53]


def test_a_row_without_a_required_value_is_refused_by_the_name_of_its_column(target: Target) -> None:
    target.publish(MONDAY, pl.Series(["x"]))
    target.run("ALTER TABLE pub.people ALTER COLUMN v SET NOT NULL")
    with pytest.raises(PublishError, match=r'null value in column "v" of relation "people".*DROP NOT NULL'):
        target.publish(MONDAY, pl.Series([None], dtype=pl.String))
    assert target.values() == ["x"]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(list(TYPES)), st.booleans()), min_size=2, max_size=5))
def test_days_of_any_types_in_any_order_are_exact_or_text_or_refused_by_name(
    target: Target, days: list[tuple[str, bool]]
) -> None:
    target.run("DROP TABLE IF EXISTS pub.people")
    for name, present in days:
        dtype, value = TYPES[name]
        lost, refused = tried(target, pl.Series([value if present else None], dtype=dtype))
        if refused:
            assert present, "a day without a value is never refused"
            assert re.search("column 'v' (is|holds)", refused)
            continue
        [text] = target.values(cast="::text")
        if lost or not present:
            assert text is None
        else:
            assert text == "x" if name == "text" else Decimal(text) == Decimal(value)


def tried(target: Target, column: pl.Series) -> tuple[dict[str, int], str]:
    """Return what was lost, and why the day was refused."""
    try:
        return target.publish(MONDAY, column), ""
    except PublishError as refused:
        return {}, str(refused)
