"""What a warehouse's value becomes in Heap's tables: exact, or text, or null and counted; never another value."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime
from datetime import time as clock
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.sources.heap_bigquery.export import heap_columns, heap_rows, only_once
from heap_assets.sources.warehouse.content import content_digest, row_fingerprints

WHOLE = st.integers(-(2**70), 2**70).map(float)
EDGES = st.sampled_from([math.nan, math.inf, -math.inf, 1e20, 2.0**63, -(2.0**63), 2.0**53 + 2, -0.0, 5e-324])
FLOATS = st.floats() | WHOLE | EDGES


FINGERPRINTS = [7640594276859668868, 2450656495148311552, 17974853372475374175]
DIGEST = "c2-3-5cbd1bd3b1cf569875903c820cd0d9e4"


def texts(values: list[Any], dtype: pl.DataType, name: str = "plan") -> list[str | None]:
    frame = pl.LazyFrame({name: pl.Series(values, dtype=dtype)})
    return heap_columns(frame).collect()[name].to_list()


@settings(max_examples=60, deadline=None)
@given(st.lists(FLOATS | st.none()))
def test_a_number_as_text_is_that_number(values: list[float | None]) -> None:
    for value, text in zip(values, texts(values, pl.Float64()), strict=True):
        if value is None:
            assert text is None
            continue
        assert text is not None
        assert float(text) == value or (math.isnan(value) and math.isnan(float(text)))
        if math.isfinite(value) and value.is_integer() and abs(value) < 2**63:
            assert int(text) == int(value), "as dumps write whole numbers"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.decimals(allow_nan=False, allow_infinity=False, places=9, max_value=10**28, min_value=-(10**28))))
def test_a_decimal_as_text_has_all_its_digits(values: list[Decimal]) -> None:
    for value, text in zip(values, texts(values, pl.Decimal(38, 9)), strict=True):
        assert text is not None
        assert Decimal(text) == value
        assert not text.endswith(".")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.times()))
def test_a_time_of_day_keeps_its_fraction(values: list[clock]) -> None:
    assert [clock.fromisoformat(str(text)) for text in texts(values, pl.Time())] == values


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats() | EDGES | st.integers(-(2**63), 2**63 - 1).map(float)))
def test_an_id_that_is_a_float_is_that_whole_number_or_none(values: list[float]) -> None:
    found = heap_rows(pl.LazyFrame({"session_id": pl.Series(values, dtype=pl.Float64)}))
    ids = found.frame.collect()["session_id"].to_list()
    for value, read in zip(values, ids, strict=True):
        fits = math.isfinite(value) and value.is_integer() and -(2**63) <= value < 2**63
        assert read == (int(value) if fits else None)
    assert found.lost.get("session_id", 0) == ids.count(None)


@pytest.mark.parametrize(
    ("values", "dtype", "read"),
    [
        (["17", " 18 ", "-1", "9223372036854775807"], pl.String(), [17, 18, -1, 2**63 - 1]),
        (["abc", "1.5", "1e3", "9223372036854775808", ""], pl.String(), []),
        ([2**63 - 1, 2**63], pl.UInt64(), [2**63 - 1]),
        ([Decimal("12"), Decimal("12.5")], pl.Decimal(38, 9), [12]),
        ([True, False], pl.Boolean(), []),
    ],
)
def test_a_row_whose_event_id_cannot_be_read_is_set_aside_and_counted(
    values: list[Any], dtype: pl.DataType, read: list[int]
) -> None:
    found = heap_rows(pl.LazyFrame({"event_id": pl.Series(values, dtype=dtype)}))
    assert found.frame.collect()["event_id"].to_list() == read
    lost = len(values) - len(read)
    assert found.set_aside == ({"event_id is not an id": lost} if lost else {})
    assert found.notes().get("rejected", 0) == lost


def test_times_are_utc_whatever_they_are_written_as() -> None:
    noon = datetime(2026, 11, 2, 12, tzinfo=UTC)
    spelled = ["2026-11-02T12:00:00Z", "2026-11-02 13:00:00+01:00", "1793620800000", None]
    frame = heap_rows(pl.LazyFrame({"joindate": spelled}), "users").frame.collect()
    assert frame["joindate"].to_list() == [noon, noon, noon, None]
    found = heap_rows(pl.LazyFrame({"time": ["soon", "2026-11-02T12:00:00Z"], "session_id": [None, "s"]}))
    assert found.frame.collect().rows() == [(noon, None)]
    assert (found.set_aside, found.lost) == ({"time is not a time": 1}, {"session_id": 1})


def test_ids_and_times_are_those_of_the_table() -> None:
    event = {"to_user_id": ["acct-9"], "joindate": ["soon"], "last_modified": ["007"]}
    found = heap_rows(pl.LazyFrame(event), "gift")
    assert found.frame.collect().to_dict(as_series=False) == event
    assert (found.set_aside, found.lost) == ({}, {})
    found = heap_rows(pl.LazyFrame({"user_id": [1], "joindate": ["soon"], "time": ["soon"]}), "users")
    assert found.frame.collect().row(0) == (1, None, "soon")
    assert found.lost == {"joindate": 1}


def test_arrays_and_structs_are_json_with_every_digit() -> None:
    at = datetime(2026, 11, 2, 12, tzinfo=UTC)
    value = {"n": [Decimal("1.10"), None], "at": at, "day": date(2026, 1, 2), "raw": b"\x00", "x": math.inf, "t": 'ä"'}
    frame = pl.LazyFrame(
        {"plan": [value, None], "tags": [[1, None], None]}, schema_overrides={"tags": pl.List(pl.Int64)}
    )
    rows = heap_columns(frame).collect()
    assert rows["tags"].to_list() == ["[1,null]", None]
    assert rows["plan"][0].startswith('{"n":[1.10,null],"at":"2026-11-02T12:00:00Z","day":"2026-01-02"')
    assert json.loads(rows["plan"][0])["x"] == "inf"


def test_rows_that_lack_a_key_are_no_repetitions_of_one_another() -> None:
    rows = pl.LazyFrame({"event_id": [1, 1, None, None], "user_id": [2, 2, 3, 3], "n": [1, 2, 3, 4]})
    assert only_once(rows, ["event_id", "user_id"]).collect()["n"].to_list() == [1, 3, 4]


def test_fingerprints_and_digests_are_the_same_with_every_version_of_polars() -> None:
    """Written down once: another value here means that everybody's days are built once more."""
    at = datetime(2026, 11, 2, tzinfo=UTC)
    rows = pl.DataFrame({"event_id": [1, 2, None], "user_id": [7, None, 2**62], "time": [at, at, None]})
    prints = row_fingerprints(rows.to_struct("row"))
    assert prints.to_list() == FINGERPRINTS
    people = rows.with_columns(name=pl.Series(["ann", "", None]))
    assert content_digest(people) == DIGEST


NUMBERS = st.lists(st.tuples(st.integers() | st.none(), st.integers() | st.none()), max_size=4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=3) | st.none(), max_size=4), st.lists(st.text(max_size=3) | st.none(), max_size=4))
def test_other_content_has_another_digest(one: list[str | None], two: list[str | None]) -> None:
    digests = [content_digest(pl.DataFrame({"a": pl.Series(values, dtype=pl.String)})) for values in (one, two)]
    assert (digests[0] == digests[1]) is (one == two)
