"""What BigQuery has and Parquet or Polars has not is read as exact text, wherever in a row it is."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.sources.warehouse.arrow import write_parquet
from heap_assets.sources.warehouse.bigquery.types import decimal_text, interval_text, readable

DIGITS = st.integers(-(10**76) + 1, 10**76 - 1).map(lambda number: Decimal(f"{number}E-38"))


def written(batch: pa.RecordBatch, path: Path) -> pl.DataFrame:
    write_parquet(*readable(batch.schema, [batch]), path)
    return pl.read_parquet(path)


@settings(max_examples=60, deadline=None)
@given(DIGITS)
def test_a_bignumeric_is_text_with_all_its_digits_and_no_exponent(value: Decimal) -> None:
    text = decimal_text(value)
    assert Decimal(text) == value
    assert "E" not in text
    assert "." not in text or not text.endswith(("0", "."))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([0, 0, 0], "0-0 0 0:0:0"),
        ([-14, 3, -1_000], "-1-2 3 -0:0:0.000001"),
        ([120_000, -3_660_000, 86_400_000_000_000], "10000-0 -3660000 24:0:0"),
    ],
)
def test_an_interval_is_text_as_bigquery_casts_it(value: list[int], text: str) -> None:
    assert interval_text(pa.MonthDayNano(value)) == text


def test_they_are_text_inside_structs_and_arrays_and_nulls_stay(tmp_path: Path) -> None:
    interval, big = pa.month_day_nano_interval(), pa.decimal256(76, 38)
    inside = pa.struct([("took", interval), ("n", pa.int64())])
    schema = pa.schema(
        [("took", interval), ("sums", pa.list_(big)), ("step", inside), ("steps", pa.list_(inside)), ("id", pa.int64())]
    )
    step = {"took": pa.MonthDayNano([1, 2, 3_000]), "n": 5}
    rows = [
        {"took": pa.MonthDayNano([0, 1, 0]), "sums": [Decimal("1.50"), None], "step": step, "steps": [step], "id": 1},
        {"took": None, "sums": None, "step": None, "steps": [None, {"took": None, "n": None}], "id": 2},
    ]
    frame = written(pa.RecordBatch.from_pylist(rows, schema=schema), tmp_path / "rows.parquet")
    text = {"took": "0-1 2 0:0:0.000003", "n": 5}
    assert frame.rows(named=True) == [
        {"took": "0-0 1 0:0:0", "sums": ["1.5", None], "step": text, "steps": [text], "id": 1},
        {"took": None, "sums": None, "step": None, "steps": [None, {"took": None, "n": None}], "id": 2},
    ]


def test_an_empty_read_has_the_types_of_a_full_one(tmp_path: Path) -> None:
    schema = pa.schema([("took", pa.month_day_nano_interval()), ("sum", pa.decimal256(76, 38))])
    frame = written(pa.RecordBatch.from_pylist([], schema=schema), tmp_path / "rows.parquet")
    assert dict(frame.schema) == {"took": pl.String(), "sum": pl.String()}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.decimals(min_value=-(10**28), max_value=10**28, places=9) | st.none(), max_size=5))
def test_a_numeric_of_any_precision_stays_a_decimal(values: list[Decimal | None]) -> None:
    batch = pa.RecordBatch.from_pydict({"n": pa.array(values, pa.decimal128(38, 9))})
    schema, batches = readable(batch.schema, [batch])
    assert schema.field("n").type == pa.decimal128(38, 9)
    assert next(batches).column(0).to_pylist() == values
