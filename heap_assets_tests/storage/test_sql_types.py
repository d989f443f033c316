"""A view shows a column whose type differs by day exactly, or as text that says the same."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import combinations
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from heap_assets.storage import Lake
from heap_assets.storage.sql import LakeSql, write_database
from heap_assets.values import as_text

VALUES = {
    "i8": pl.Series([-1], dtype=pl.Int8),
    "i32": pl.Series([2**31 - 1], dtype=pl.Int32),
    "i64": pl.Series([2**53 + 1]),
    "u32": pl.Series([2**32 - 1], dtype=pl.UInt32),
    "u64": pl.Series([2**64 - 1], dtype=pl.UInt64),
    "f32": pl.Series([0.1], dtype=pl.Float32),
    "f64": pl.Series([1 / 3]),
    "whole": pl.Series([30.0]),
    "huge": pl.Series([1e300]),
    "decimal": pl.Series([Decimal("12345678901234567.89")], dtype=pl.Decimal(20, 2)),
    "digits": pl.Series([Decimal("0.123456789")], dtype=pl.Decimal(38, 9)),
    "account": pl.Series([Decimal("9" * 38)], dtype=pl.Decimal(38, 0)),
    "text": pl.Series(["01234"]),
    "flag": pl.Series([True]),
    "nothing": pl.Series([None]),
    "date": pl.Series([date(9999, 12, 31)]),
    "naive": pl.Series([datetime(1, 1, 1, 0, 0, 0, 500_000)]),
    "zoned": pl.Series([datetime(2026, 7, 1, 12, 0, 0, 1, tzinfo=UTC)]),
    "nanos": pl.Series([1_767_225_600_123_456_789], dtype=pl.Int64).cast(pl.Datetime("ns")),
    "clock": pl.Series([time(23, 59, 59, 999_999)]),
    "bytes": pl.Series([b"\xff\x00"]),
    "struct": pl.Series([{"n": 2**53 + 1, "s": "é"}]),
    "wider": pl.Series([{"n": 1, "more": [1.5]}]),
    "floats_in": pl.Series([{"n": 0.5}]),
    "list": pl.Series([[2**53 + 1]]),
    "floats": pl.Series([[0.5]]),
}
"""A column of each type, with a value that another type would change."""


def test_every_pair_of_types_is_kept(tmp_path: Path) -> None:
    pairs = list(combinations(VALUES, 2))
    lake = Lake.open(str(tmp_path / "lake"))
    for day, side in (("2026-11-01", 0), ("2026-11-02", 1)):
        columns = {f"{pair[0]}_{pair[1]}": VALUES[pair[side]] for pair in pairs}
        lake.write("heap/events/many", day, pl.DataFrame(columns))
    with LakeSql(str(tmp_path / "lake")) as lake_sql:
        assert not lake_sql.unreadable
        shown = lake_sql.sql("SELECT * FROM heap.events_many ORDER BY partition_key")
    wrong = {
        f"{name} as {shown.schema[f'{first}_{second}']}": shown[f"{first}_{second}"][row]
        for first, second in pairs
        for row, name in enumerate((first, second))
        if not _is_kept(VALUES[name], shown[f"{first}_{second}"].slice(row, 1))
    }
    assert not wrong


def _is_kept(value: pl.Series, shown: pl.Series) -> bool:
    if shown.dtype == pl.String:
        return _text(value) == shown[0]
    if value.dtype.is_numeric() and shown.dtype.is_numeric():
        return bool(value[0] == shown[0])  # Python compares numbers of different types exactly
    if value.dtype.is_temporal() and shown.dtype.is_temporal():
        return _moment(value) == _moment(shown)
    if isinstance(value.dtype, pl.Struct | pl.List) or value.dtype == shown.dtype:
        return _without_nulls(value[0]) == _without_nulls(shown[0])
    return value[0] is None and shown[0] is None


def _text(value: pl.Series) -> Any:
    return value.to_frame("v").select(as_text(pl.col("v"), value.dtype)).item()


def _moment(value: pl.Series) -> str:
    text = str(_text(value)).removesuffix("Z")
    return text if "T" in text or value.dtype == pl.Time else f"{text}T00:00:00"


def _without_nulls(value: Any) -> Any:
    if isinstance(value, pl.Series):
        return value.to_list()
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_a_time_without_zone_is_utc_whatever_the_zone_of_the_tool(tmp_path: Path, zone: str) -> None:
    lake = Lake.open(str(tmp_path / "lake"))
    noon = datetime(2026, 7, 1, 12)
    lake.write("warehouse/deals", "2026-11-01", pl.DataFrame({"Closed": [noon]}))
    lake.write("warehouse/deals", "2026-11-02", pl.DataFrame({"closed": [noon.replace(tzinfo=UTC)]}))
    write_database(str(tmp_path / "lake"), tmp_path / "views.duckdb")
    with duckdb.connect(str(tmp_path / "views.duckdb"), read_only=True) as connection:
        connection.execute(f"SET TimeZone = '{zone}'")
        rows = connection.sql("SELECT closed FROM warehouse.deals").fetchall()
    assert [row[0].astimezone(UTC) for row in rows] == [noon.replace(tzinfo=UTC)] * 2
