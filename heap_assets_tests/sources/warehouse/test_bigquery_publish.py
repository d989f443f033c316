"""Tables in BigQuery that have a history: wider columns, REQUIRED ones, days without values; and values at the edge."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
import pytest
from google.cloud import bigquery as gcp
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount
from heap_assets.sources.warehouse.bigquery.evolution import evolved
from heap_assets.sources.warehouse.bigquery.fit import write_fitted
from heap_assets.sources.warehouse.bigquery.publisher import BigQueryPublisher
from heap_assets.sources.warehouse.bigquery.types import in_table_order, schema_of, unsupported_as_text
from heap_assets.sources.warehouse.publish import Publication, PublishError
from heap_assets.storage import Store

MONDAY, TUESDAY = date(2026, 11, 2), date(2026, 11, 3)
PEOPLE = Publication("people")


@dataclass(frozen=True)
class Target:
    publisher: BigQueryPublisher
    ask: Callable[[str], list[tuple[Any, ...]]]

    def publish(self, day: date, version: str = "v1", /, **columns: Any) -> dict[str, int]:
        rows = pl.LazyFrame(columns)
        return dict(self.publisher.publish(PEOPLE, day, rows, version).lost)

    def rows(self, columns: str) -> list[tuple[Any, ...]]:
        return self.ask(f"SELECT {columns} FROM {self.publisher.dataset}.people ORDER BY id")


@pytest.fixture
def target(bigquery_emulator: object, tmp_path: Path) -> Iterator[Target]:
    rest, grpc = bigquery_emulator.rest, bigquery_emulator.grpc  # type: ignore[attr-defined]
    account, dataset = BigQueryAccount("demo", endpoint=rest, storage_endpoint=grpc), f"pub_{uuid4().hex[:8]}"
    with account.client() as client:
        client.create_dataset(dataset)
        publisher = BigQueryPublisher(account, dataset, Store(str(tmp_path / "lake")))
        yield Target(publisher, lambda text: [tuple(row.values()) for row in client.query(text).result()])
        client.delete_dataset(dataset, delete_contents=True)


def test_after_a_column_was_widened_older_days_are_published_again(target: Target) -> None:
    target.publish(MONDAY, id=[1], score=[7])
    target.publish(TUESDAY, id=[2], score=[2.5])
    assert target.publish(MONDAY, "v2", id=[1], score=[8]) == {}
    assert target.rows("id, score") == [(1, 8.0), (2, 2.5)]


def test_integers_that_a_double_would_round_are_not_rounded(target: Target) -> None:
    target.publish(MONDAY, id=[1], score=[2**60 + 1])
    with pytest.raises(PublishError, match=r"column 'score' holds 1 integers beyond 2\^53"):
        target.publish(TUESDAY, id=[2], score=[2.5])
    assert target.rows("id, score") == [(1, 2**60 + 1)]


def test_a_wider_column_takes_older_days_and_counts_what_it_would_round(tmp_path: Path) -> None:
    """The emulator's description of a table stays as it was when a column is widened."""
    table = [gcp.SchemaField("score", "FLOAT"), gcp.SchemaField("paid", "BIGNUMERIC"), gcp.SchemaField("n", "NUMERIC")]
    rows = pl.LazyFrame(
        {"score": [2**60 + 1, 2**53, -(2**53) - 2], "paid": [Decimal("1.5")] * 3, "n": [2**62, 1, None]}
    )
    rows = rows.with_columns(pl.col("paid").cast(pl.Decimal(12, 2)))
    change = evolved("t", table, schema_of(PEOPLE, rows.collect_schema()))
    assert (change.added, change.grown, change.widened) == ([], [], [])
    in_table_order(rows, table).sink_parquet(tmp_path / "raw")
    assert write_fitted(tmp_path / "raw", tmp_path / "rows", "t", table) == {"score": 2}
    read = pl.read_parquet(tmp_path / "rows")
    assert read["score"].to_list() == [None, 2.0**53, None]
    assert read["n"].to_list() == [2**62, 1, None]
    assert read["paid"].to_list() == [Decimal("1.5")] * 3


def test_a_day_whose_column_is_null_throughout_is_published(target: Target) -> None:
    target.publish(MONDAY, id=[1], seats=[7], tags=[["a"]], plan=[{"name": "pro"}])
    untyped = {"seats": pl.Series([None], dtype=pl.Null()), "tags": pl.Series([[]], dtype=pl.List(pl.Null()))}
    target.publish(TUESDAY, id=[2], **untyped, plan=[None])
    assert target.publish(TUESDAY, "v2", id=[2], seats=pl.Series([None], dtype=pl.String)) == {}
    assert target.rows("id, seats, COALESCE(ARRAY_LENGTH(tags), 0), plan.name") == [
        (1, 7, 1, "pro"),
        (2, None, 0, None),
    ]
    with pytest.raises(PublishError, match=r"'seats' is INT64 in BigQuery and would become STRING"):
        target.publish(TUESDAY, "v3", id=[2], seats=["x"])


def test_a_column_without_any_type_is_added_by_the_first_day_that_has_one(target: Target) -> None:
    target.publish(MONDAY, id=[1], seats=pl.Series([None], dtype=pl.Null()))
    target.publish(TUESDAY, id=[2], seats=[5])
    assert target.rows("id, seats") == [(1, None), (2, 5)]


def test_required_columns_stay_and_a_row_without_a_value_is_refused(target: Target) -> None:
    dataset = target.publisher.dataset
    target.ask(f"CREATE TABLE {dataset}.people (partition_day DATE NOT NULL, id INT64 NOT NULL, plan STRING NOT NULL)")
    target.publish(MONDAY, id=[1], plan=["pro"])
    assert target.rows("id, plan") == [(1, "pro")]
    with pytest.raises(PublishError, match=r"column 'plan' is REQUIRED in BigQuery, and 1 rows or more.*DROP NOT NULL"):
        target.publish(TUESDAY, id=[2, 3], plan=["team", None])
    with pytest.raises(PublishError, match=r"column 'plan' is REQUIRED"):
        target.publish(TUESDAY, id=[2])
    assert target.rows("id, plan") == [(1, "pro")]


@pytest.mark.parametrize(
    ("rows", "lacking"),
    [
        ([{"s": {"a": 1}, "l": [{"a": 1}]}, {"s": None, "l": []}], None),
        ([{"s": None, "l": None}], None),
        ([{"s": {"a": None}, "l": []}, {"s": None, "l": []}], r"s\.a"),
        ([{"s": None, "l": [{"a": 1}, {"a": None}]}], r"l\.a"),
    ],
)
def test_required_fields_inside_structs_are_refused_by_name_and_only_where_the_struct_is_there(
    rows: list[dict[str, Any]], lacking: str | None, tmp_path: Path
) -> None:
    field = gcp.SchemaField("a", "INTEGER", "REQUIRED")
    table = [gcp.SchemaField("s", "RECORD", fields=[field]), gcp.SchemaField("l", "RECORD", "REPEATED", fields=[field])]
    frame = pl.DataFrame(rows)
    frame.write_parquet(tmp_path / "raw")
    if lacking:
        with pytest.raises(PublishError, match=rf"p\.d\.t: column '{lacking}' is REQUIRED in BigQuery, and 1 rows"):
            write_fitted(tmp_path / "raw", tmp_path / "rows", "p.d.t", table)
        return
    assert write_fitted(tmp_path / "raw", tmp_path / "rows", "p.d.t", table) == {}
    assert pl.read_parquet(tmp_path / "rows").rows() == frame.rows()


def test_values_at_the_edge_arrive_exactly_or_as_text_or_are_counted(target: Target) -> None:
    at = datetime(2026, 11, 2, 10, 0, 0, 123456, tzinfo=UTC)
    lost = target.publish(
        MONDAY,
        id=[1, 2],
        big=pl.Series([2**64 - 1, 0], dtype=pl.UInt64),
        clock=pl.Series([86_399_999_999_000, 1], dtype=pl.Int64).cast(pl.Time),
        took=[timedelta(days=1, seconds=1.5), None],
        fine=pl.Series([1_762_077_600_123_456_789, None], dtype=pl.Int64).cast(pl.Datetime("ns", "UTC")),
        moment=pl.Series([int(at.timestamp() * 1e6), 9_000_000_000_000_000_000]).cast(pl.Datetime("us", "UTC")),
        grid=[[[1, 2], [3]], None],
        tags=[["a", None, "b"], []],
        small=pl.Series([0.1, None], dtype=pl.Float32),
    )
    assert lost == {"clock": 1, "moment": 1, "tags": 1}
    texts = "took, fine, grid, tags"
    [first, second] = target.rows(f"CAST(big AS STRING), clock, moment, small, {texts}")
    assert Decimal(first[0]) == 2**64 - 1
    assert first[1:3] == (clock(23, 59, 59, 999999), at)
    assert first[3] == pl.Series([0.1], dtype=pl.Float32)[0]
    assert first[4:] == ("P1DT1.5S", "2025-11-02T10:00:00.123456789Z", "[[1,2],[3]]", ["a", "b"])
    assert second[1:7] == (None, None, None, None, None, None)


KINDS: dict[str, tuple[pl.DataType, st.SearchStrategy[Any]]] = {
    "i": (pl.Int64(), st.integers(-(2**63), 2**63 - 1)),
    "u": (pl.UInt64(), st.integers(0, 2**64 - 1)),
    "f": (pl.Float64(), st.floats(allow_nan=False)),
    "d": (pl.Decimal(38, 9), st.decimals(-(10**28), 10**28, places=9)),
    "s": (pl.String(), st.text(st.characters(exclude_categories=["Cs"]), max_size=5)),
    "b": (pl.Binary(), st.binary(max_size=5)),
    "day": (pl.Date(), st.dates()),
    "at": (pl.Datetime("us", "UTC"), st.datetimes(timezones=st.just(UTC))),
    "local": (pl.Datetime("us"), st.datetimes()),
    "clock": (pl.Time(), st.times()),
    "list": (pl.List(pl.Int64()), st.lists(st.integers(-5, 5) | st.none(), max_size=3)),
    "struct": (
        pl.Struct({"n": pl.Int64(), "t": pl.Time()}),
        st.fixed_dictionaries({"n": st.integers(0, 9), "t": st.times()}),
    ),
}
ROWS = st.lists(st.fixed_dictionaries({name: values | st.none() for name, (_, values) in KINDS.items()}), max_size=4)


@settings(max_examples=40, deadline=None)
@given(ROWS)
def test_what_is_loaded_is_what_the_lake_holds(rows: list[dict[str, Any]]) -> None:
    schema = pl.Schema({name: dtype for name, (dtype, _) in KINDS.items()})
    read, lost = loaded(pl.DataFrame(rows, schema=schema, orient="row"))
    expected = pl.DataFrame(rows, schema=schema, orient="row").with_columns(pl.col("list").list.drop_nulls())
    inside = sum(value is None for row in rows for value in row["list"] or ())
    assert lost == ({"list": inside} if inside else {})
    assert read.with_columns(u=pl.col("u").cast(pl.UInt64)).rows() == expected.rows()


def loaded(frame: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return rows as the file of the load job has them."""
    rows = unsupported_as_text(frame.lazy())
    fields = schema_of(PEOPLE, rows.collect_schema())
    with tempfile.TemporaryDirectory() as folder:
        raw, path = Path(folder) / "raw", Path(folder) / "rows"
        in_table_order(rows, fields).sink_parquet(raw)
        lost = write_fitted(raw, path, "p.d.people", fields)
        return pl.read_parquet(path), lost


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4), st.sampled_from(["us", "ms", "ns"]))
def test_times_of_any_unit_are_exact_or_counted(numbers: list[int], unit: Any) -> None:
    column = pl.Series("at", numbers, dtype=pl.Int64).cast(pl.Datetime(unit))
    frame, fields = pl.DataFrame({"at": column}), [gcp.SchemaField("at", "DATETIME")]
    with tempfile.TemporaryDirectory() as folder:
        raw, path = Path(folder) / "raw", Path(folder) / "rows"
        frame.write_parquet(raw)
        lost = write_fitted(raw, path, "p.d.t", fields)
        read = pl.read_parquet(path)["at"]
    per_second = {"ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    for number, found in zip(numbers, read.to_physical().to_list(), strict=True):
        fits = -62_135_596_800 * per_second <= number < 253_402_300_800 * per_second
        exact = number * 10**6 % per_second == 0
        assert found == (number * 10**6 // per_second if fits and exact else None)
    assert lost.get("at", 0) == read.null_count()


def test_json_text_keeps_nanoseconds_and_durations_of_any_depth() -> None:
    nanos = pl.Series("n", [1, 4_681_893_313_888_648_195], pl.Int64)
    rows = pl.DataFrame(
        [nanos.cast(pl.Datetime("ns", "UTC")).alias("at"), nanos.cast(pl.Duration("ns")).alias("span")]
    ).with_columns(
        clock=pl.Series([999, 86_399_999_999_999]).cast(pl.Time),
        paid=Decimal("1.50"),
        ratio=pl.Series([0.5, float("inf")]),
    )
    whole = rows.select(s=pl.struct(pl.all()), pair=pl.concat_list("at", "at"))
    told = unsupported_as_text(whole.lazy()).collect()
    assert told.row(0) == (
        '{"at":"1970-01-01T00:00:00.000000001Z","span":"PT0.000000001S","clock":"00:00:00.000000999",'
        '"paid":1.50,"ratio":0.5}',
        '["1970-01-01T00:00:00.000000001Z","1970-01-01T00:00:00.000000001Z"]',
    )
    last = json.loads(told["s"][1], parse_float=Decimal)
    assert (last["at"], last["ratio"]) == ("2118-05-13T13:55:13.888648195Z", "inf")


def test_structs_that_bigquery_has_no_type_for_are_json_text(target: Target) -> None:
    whole = [{"sku": "x", "qty": 2}]
    blank, own, none = [{"cart value": 1}], [{"_TABLE_a": 1}], pl.Series([{}], dtype=pl.Struct({}))
    target.publish(MONDAY, id=[1], whole=whole, blank=blank, own=own, none=none, several=[own])
    assert target.rows("whole.qty, blank, own, none, several") == [
        (2, '{"cart value":1}', '{"_TABLE_a":1}', "{}", '[{"_TABLE_a":1}]')
    ]


def test_a_table_without_any_typed_column_is_refused_by_name(target: Target) -> None:
    nothing = Publication("nothing", by_day=False)
    with pytest.raises(PublishError, match=r"nothing: no column has a value yet that tells its type"):
        target.publisher.publish(nothing, None, pl.LazyFrame({"note": [None]}), "v1")
