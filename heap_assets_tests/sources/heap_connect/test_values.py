"""Ids and times are read exactly, in every spelling that was seen, or the row is set aside."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heap_assets.sources.heap_connect.values import _exported, read_ids, read_times

MOMENT = datetime(2026, 3, 1, 10, 11, 12, tzinfo=UTC)
SECONDS = int(MOMENT.timestamp())
LONGS = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(LONGS | st.none(), min_size=1))
def test_longs_and_digit_strings_are_the_same_ids(values: list[int | None]) -> None:
    text = [None if v is None else str(v) for v in values]
    for spelled in (pl.Series("x", values, dtype=pl.Int64), pl.Series("x", text, dtype=pl.String)):
        read = read_ids(spelled)
        assert read.values.to_list() == values
        assert not read.unreadable.any()


@pytest.mark.parametrize("wrong", ["", "abc", "1.0", "1e3", "9223372036854775808", "١", "0x1", "1 2"])
def test_what_is_no_id_is_not_guessed(wrong: str) -> None:
    read = read_ids(pl.Series("x", [wrong]))
    assert read.values.to_list() == [None]
    assert read.unreadable.to_list() == [True]


def test_an_id_never_goes_through_a_float() -> None:
    assert read_ids(pl.Series("x", [9007199254740993.0, None])).unreadable.to_list() == [True, False]


@pytest.mark.parametrize(
    "spelled",
    [
        "2026-03-01 10:11:12",
        "2026-03-01T10:11:12",
        "2026-03-01T10:11:12Z",
        "2026-03-01 10:11:12.000000",
        "2026-03-01 10:11:12 UTC",
        "2026-03-01T12:11:12+02:00",
        "2026-03-01 05:11:12-0500",
        " 2026-03-01 10:11:12 ",
        str(SECONDS),
        str(SECONDS * 1_000),
        str(SECONDS * 1_000_000),
        str(SECONDS * 1_000_000_000),
    ],
)
def test_every_spelling_of_a_moment_is_the_same_moment(spelled: str) -> None:
    assert read_times(pl.Series("x", [spelled])).values.to_list() == [MOMENT]
    mixed = read_times(pl.Series("x", ["2026-03-01 10:11:12", None, spelled, "nonsense"]))
    assert mixed.values.to_list() == [MOMENT, None, MOMENT, None]
    assert mixed.unreadable.to_list() == [False, False, False, True]


@pytest.mark.parametrize("factor", [1, 1_000, 1_000_000, 1_000_000_000])
def test_epoch_numbers_are_told_apart_by_size(factor: int) -> None:
    assert read_times(pl.Series("x", [SECONDS * factor])).values.to_list() == [MOMENT]


def test_typed_times_are_taken_as_they_are() -> None:
    naive = MOMENT.replace(tzinfo=None)
    assert read_times(pl.Series("x", [naive], dtype=pl.Datetime("ms"))).values.to_list() == [MOMENT]
    berlin = pl.Series("x", [naive], dtype=pl.Datetime("us")).dt.replace_time_zone("Europe/Berlin")
    assert read_times(berlin).values.to_list() == [MOMENT - timedelta(hours=1)]
    assert read_times(pl.Series("x", [MOMENT.date()])).values.to_list() == [MOMENT.replace(hour=0, minute=0, second=0)]


@given(st.lists(st.text(max_size=12) | st.none(), min_size=1))
def test_any_text_is_a_time_or_unreadable(values: list[str | None]) -> None:
    read = read_times(pl.Series("x", values, dtype=pl.String))
    for value, moment, unreadable in zip(values, read.values, read.unreadable, strict=True):
        assert unreadable == (value is not None and moment is None)


@given(LONGS)
def test_any_number_is_a_time_or_unreadable(value: int) -> None:
    read = read_times(pl.Series("x", [value], dtype=pl.Int64))
    assert len(read.values.to_list()) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        "--026-10-01 00:00:00.000001",
        "-026-10-01 00:00:00.000001",
        "2026-02-30 00:00:00.000001",
        "2026-10-01 24:00:00.000000",
    ],
)
def test_what_has_the_width_of_an_exported_time_and_is_none_is_not_guessed(wrong: str) -> None:
    assert read_times(pl.Series("x", ["2026-10-01 00:00:00.000001", wrong])).unreadable.to_list() == [False, True]


EXPORTED = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)).map(lambda t: t.isoformat(" ", "microseconds"))
MARKS = st.tuples(st.integers(0, 25), st.sampled_from("0123456789-+:. TZ"))


@given(st.lists(st.tuples(EXPORTED, st.lists(MARKS, max_size=2)), min_size=1))
def test_the_quick_way_to_read_exported_times_gives_what_the_careful_one_does(
    spelled: list[tuple[str, list[tuple[int, str]]]],
) -> None:
    values = []
    for text, marks in spelled:
        letters = list(text)
        for place, mark in marks:
            letters[place] = mark
        values.append("".join(letters))
    column = pl.Series("x", values)
    expected = column.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False)
    quick = _exported(column)
    assert quick.is_null().all() or quick.drop_nulls().equals(expected.filter(quick.is_not_null()))
