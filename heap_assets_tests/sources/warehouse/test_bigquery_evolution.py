"""A table whose types have changed takes newer days and older ones, by a server that refuses as BigQuery does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heap_assets.sources.warehouse.bigquery.publisher import BigQueryPublisher
from heap_assets.sources.warehouse.publish import Preview, Publication, PublishError
from heap_assets.storage import Store
from heap_assets_tests.sources.warehouse.strict_google import StrictGoogle, strict_google

MONDAY, TUESDAY = date(2026, 11, 2), date(2026, 11, 3)
PEOPLE = Publication("people")
PAID = pl.Decimal(12, 2)
TYPES: dict[str, tuple[pl.DataType, Any]] = {
    "INT64": (pl.Int64(), 7),
    "UInt64": (pl.UInt64(), 2**63),
    "NUMERIC": (PAID, Decimal("1.25")),
    "BIGNUMERIC": (pl.Decimal(38, 20), Decimal("0.00000000000000000001")),
    "FLOAT64": (pl.Float64(), 2.5),
    "STRING": (pl.String(), "x"),
}


@pytest.fixture
def google() -> Iterator[StrictGoogle]:
    with strict_google() as server:
        yield server


@pytest.fixture
def publisher(google: StrictGoogle, tmp_path: Path) -> BigQueryPublisher:
    return BigQueryPublisher(google.account, "d", Store(str(tmp_path / "lake")))


def publish(publisher: BigQueryPublisher, day: date, column: pl.Series) -> dict[str, int]:
    rows = pl.DataFrame([pl.Series("id", range(len(column))), column.alias("v")]).lazy()
    return dict(publisher.publish(PEOPLE, day, rows, "v1", force=True).lost)


def held(google: StrictGoogle) -> list[Any]:
    """Return what the file of the last load had in the column."""
    return [value for (value,) in google.database.sql("SELECT v FROM people ORDER BY id").fetchall()]


def kind(google: StrictGoogle, column: str = "v") -> str:
    [entry] = [entry for entry in google.resources["people"]["schema"]["fields"] if entry["name"] == column]
    return str(entry["type"])


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("INT64", "NUMERIC"),
        ("INT64", "UInt64"),
        ("INT64", "BIGNUMERIC"),
        ("INT64", "FLOAT64"),
        ("NUMERIC", "BIGNUMERIC"),
    ],
)
@pytest.mark.parametrize("several", [False, True])
def test_after_a_column_was_widened_older_days_are_loaded_again(
    google: StrictGoogle, publisher: BigQueryPublisher, older: str, newer: str, several: bool
) -> None:
    def column(name: str) -> pl.Series:
        dtype, value = TYPES[name]
        return pl.Series([[value]], dtype=pl.List(dtype)) if several else pl.Series([value], dtype=dtype)

    for turn, name in enumerate([older, newer, older]):
        assert publish(publisher, [MONDAY, TUESDAY, MONDAY][turn], column(name)) == {}
        assert held(google) == column(name).to_list()
    assert kind(google) == {"UInt64": "NUMERIC"}.get(newer, newer)


@pytest.mark.parametrize(
    ("dtype", "value", "text"),
    [
        (pl.Int64(), 7, "7"),
        (PAID, Decimal("1.20"), "1.2"),
        (pl.Float64(), 2.5, "2.5"),
        (pl.Float64(), 30.0, "30"),
        (pl.Boolean(), True, "true"),
        (pl.Date(), MONDAY, "2026-11-02"),
        (pl.Datetime("us", "UTC"), datetime(2026, 11, 2, 1, 2, 3, 450_000, UTC), "2026-11-02T01:02:03.450Z"),
        (pl.Datetime("us"), datetime(2026, 11, 2, 1, 2, 3), "2026-11-02T01:02:03"),
        (pl.Binary(), b"ab", "YWI="),
        (
            pl.Struct({"sku": pl.String(), "paid": PAID}),
            {"sku": "x", "paid": Decimal("1.20")},
            '{"sku":"x","paid":1.20}',
        ),
    ],
)
def test_a_text_column_takes_days_of_any_type_as_text(
    google: StrictGoogle, publisher: BigQueryPublisher, dtype: pl.DataType, value: Any, text: str
) -> None:
    publish(publisher, TUESDAY, pl.Series(["x"]))
    assert publish(publisher, MONDAY, pl.Series([value, None], dtype=dtype)) == {}
    assert held(google) == [text, None]
    assert kind(google) == "STRING"


def test_a_list_of_texts_takes_lists_of_any_type(google: StrictGoogle, publisher: BigQueryPublisher) -> None:
    publish(publisher, TUESDAY, pl.Series([["x"]]))
    assert publish(publisher, MONDAY, pl.Series([[1, 2], []], dtype=pl.List(pl.Int64))) == {}
    assert held(google) == [["1", "2"], []]
    publish(publisher, MONDAY, pl.Series([[{"sku": "x"}]]))
    assert held(google) == [['{"sku":"x"}']]


def test_structs_gain_fields_and_wider_ones_and_take_days_without_them(
    google: StrictGoogle, publisher: BigQueryPublisher
) -> None:
    older = pl.Series([{"sku": "x", "qty": 1}])
    newer = pl.Series([{"qty": Decimal("1.5"), "sku": "y", "note": "n"}])
    publish(publisher, MONDAY, older)
    rows = pl.DataFrame([pl.Series("id", [0]), newer.alias("v")]).lazy()
    assert publisher.preview(PEOPLE, rows, TUESDAY) == Preview(False, (), ("v",))
    publish(publisher, TUESDAY, newer)
    assert held(google) == [{"sku": "y", "qty": Decimal("1.5"), "note": "n"}]
    publish(publisher, MONDAY, older)
    assert held(google) == [{"sku": "x", "qty": 1, "note": None}]
    with pytest.raises(PublishError, match=r"'v' is STRUCT<.*> in BigQuery and would become REPEATED STRUCT<sku"):
        publish(publisher, MONDAY, older.implode())


def test_a_limit_on_digits_or_letters_is_lifted_before_bigquery_rounds_to_it(
    google: StrictGoogle, publisher: BigQueryPublisher
) -> None:
    publish(publisher, MONDAY, pl.Series([Decimal("1.25")], dtype=PAID))
    google.resources["people"]["schema"]["fields"][2] |= {"precision": "12", "scale": "2"}
    publish(publisher, TUESDAY, pl.Series([Decimal("1.2345")], dtype=pl.Decimal(12, 4)))
    assert "precision" not in google.resources["people"]["schema"]["fields"][2]
    assert held(google) == [Decimal("1.2345")]


@pytest.mark.parametrize(
    "dtype", [pl.Null(), pl.String(), pl.Float64(), pl.List(pl.String), pl.Struct({"a": pl.Null()})]
)
def test_a_day_without_any_value_fits_a_column_of_any_type_and_changes_none(
    google: StrictGoogle, publisher: BigQueryPublisher, dtype: pl.DataType
) -> None:
    publish(publisher, MONDAY, pl.Series([7]))
    before = list(google.resources["people"]["schema"]["fields"])
    assert publish(publisher, TUESDAY, pl.Series([None, None], dtype=dtype)) == {}
    assert held(google) == [None, None]
    assert google.resources["people"]["schema"]["fields"] == before


def test_lists_that_are_all_empty_fit_lists_of_any_type(google: StrictGoogle, publisher: BigQueryPublisher) -> None:
    publish(publisher, MONDAY, pl.Series([[7]]))
    assert publish(publisher, TUESDAY, pl.Series([[], None], dtype=pl.List(pl.String))) == {}
    publish(publisher, MONDAY, pl.Series([[{"sku": "x"}]]).alias("v").head(0))
    assert kind(google) in ("INTEGER", "INT64")


def test_a_field_without_a_type_waits_for_one(google: StrictGoogle, publisher: BigQueryPublisher) -> None:
    publish(publisher, MONDAY, pl.Series([{"sku": "x", "qty": None}]))
    publish(publisher, TUESDAY, pl.Series([{"sku": "x", "qty": 2}]))
    assert held(google) == [{"sku": "x", "qty": 2}]
    publish(publisher, MONDAY, pl.Series([{"sku": "x", "qty": None}]))
    assert held(google) == [{"sku": "x", "qty": None}]


@pytest.mark.parametrize("several", [False, True])
def test_integers_that_a_double_would_round_keep_the_column_as_it_is(
    google: StrictGoogle, publisher: BigQueryPublisher, several: bool
) -> None:
    """Asked with the filter that the table may have been made to demand."""
    whole, half = pl.Series([2**60 + 1]), pl.Series([0.5])
    publish(publisher, MONDAY, whole.implode() if several else whole)
    google.resources["people"]["requirePartitionFilter"] = True
    with pytest.raises(PublishError, match=r"'v' holds 1 integers beyond 2\^53"):
        publish(publisher, TUESDAY, half.implode() if several else half)
    assert held(google) == [[2**60 + 1] if several else 2**60 + 1]


def test_integers_inside_structs_become_no_doubles(google: StrictGoogle, publisher: BigQueryPublisher) -> None:
    publish(publisher, MONDAY, pl.Series([{"n": 1}]))
    with pytest.raises(PublishError, match="STRUCT<n INT64> in BigQuery and would become STRUCT<n FLOAT64>"):
        publish(publisher, TUESDAY, pl.Series([{"n": 0.5}]))
    assert held(google) == [{"n": 1}]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(list(TYPES)), st.booleans()), min_size=2, max_size=5))
def test_days_of_any_types_in_any_order_are_exact_or_text_or_refused_by_name(
    google: StrictGoogle, publisher: BigQueryPublisher, days: list[tuple[str, bool]]
) -> None:
    google.resources.pop("people", None)
    for name, present in days:
        dtype, value = TYPES[name]
        value = value if present else None
        lost, refused = tried(publisher, pl.Series([value], dtype=dtype))
        if refused:
            assert present, "a day without a value is never refused"
            assert re.search("column 'v' (is|holds)", refused)
            continue
        [there] = held(google)
        text = format(value, "f") if isinstance(value, Decimal) else str(value)
        assert there == (None if lost else text if kind(google) == "STRING" and present else value)


def tried(publisher: BigQueryPublisher, column: pl.Series) -> tuple[dict[str, int], str]:
    """Return what was lost, and why the day was refused."""
    try:
        return publish(publisher, MONDAY, column), ""
    except PublishError as refused:
        return {}, str(refused)
