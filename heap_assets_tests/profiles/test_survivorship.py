from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import cmp_to_key
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.errors import SettingsError
from heap_assets.profiles.survivorship import Choose, TraitRule, survivors

TIME = pl.Datetime("us", "UTC")
SOURCES = ("first.x", "second.x", "third.x")
Row = tuple[int, int, int | None, Any]

rows_of = st.lists(
    st.tuples(
        st.sampled_from([1, 2]), st.sampled_from([0, 1, 2]), st.one_of(st.none(), st.integers(1, 3)), st.integers(0, 4)
    ),
    max_size=14,
)


def chosen(rows: list[Row], choose: Choose, value: Any = int, dtype: Any = pl.Int64) -> dict[int, tuple[Any, str]]:
    """Each row: profile, position of the source, day, value."""
    frames = [
        pl.LazyFrame(
            [(p, s, day and datetime(2026, 1, day, tzinfo=UTC), value(v)) for p, s, day, v in rows if s == rank],
            schema={"profile": pl.UInt32, "rank": pl.UInt32, "time": TIME, "value": dtype},
            orient="row",
        )
        for rank in range(3)
    ]
    result = survivors(frames, TraitRule("x", SOURCES, choose)).collect()
    assert result["profile"].is_unique().all()
    return {profile: (found, source) for profile, found, source in result.iter_rows()}


def better(a: Row, b: Row, choose: Choose) -> int:
    """Which of two rows the words of the rule prefer: below 0 the first."""
    by_source, by_value = a[1] - b[1], a[3] - b[3]
    newest = (b[2] or 0) - (a[2] or 0)
    oldest = (a[2] or 9) - (b[2] or 9)
    order = {
        Choose.FIRST_PRESENT: (by_source, newest, by_value),
        Choose.NEWEST: (newest, by_source, by_value),
        Choose.EARLIEST: (oldest, by_source, by_value),
        Choose.MAX: (-by_value, by_source),
        Choose.MIN: (by_value, by_source),
    }[choose]
    return next((step for step in order if step), 0)


@pytest.mark.parametrize("choose", [c for c in Choose if c not in (Choose.SUM, Choose.ANY)])
@settings(max_examples=40, deadline=None)
@given(rows=rows_of)
def test_the_survivor_is_the_one_that_comparing_row_by_row_prefers(choose: Choose, rows: list[Row]) -> None:
    expected = {}
    for profile in {row[0] for row in rows}:
        best = min((row for row in rows if row[0] == profile), key=cmp_to_key(lambda a, b: better(a, b, choose)))
        expected[profile] = (best[3], SOURCES[best[1]])
    assert chosen(rows, choose) == expected


@settings(max_examples=40, deadline=None)
@given(rows=rows_of)
def test_a_sum_is_of_all_rows_and_any_is_true_once_one_is(rows: list[Row]) -> None:
    sums, anys = {}, {}
    for profile in {row[0] for row in rows}:
        own = [row for row in rows if row[0] == profile]
        true = [row for row in own if row[3] > 2]
        sums[profile] = (sum(row[3] for row in own), "+".join(SOURCES[s] for s in sorted({row[1] for row in own})))
        anys[profile] = (bool(true), SOURCES[min(row[1] for row in true or own)])
    assert chosen(rows, Choose.SUM) == sums
    assert chosen(rows, Choose.ANY, value=lambda v: v > 2, dtype=pl.Boolean) == anys


def test_small_integers_do_not_overflow_in_a_sum() -> None:
    rows: list[Row] = [(1, 0, None, 2_000_000_000)] * 3
    assert chosen(rows, Choose.SUM, dtype=pl.Int32)[1] == (6_000_000_000, "first.x")


def test_decimals_that_are_spelled_as_text_add_up_exactly() -> None:
    """A warehouse's decimals are text where no type of the lake holds every digit of them."""
    numbers = pl.LazyFrame(
        {
            "profile": ["a", "a", "b"],
            "rank": [0, 0, 0],
            "time": [None] * 3,
            "value": ["33.333333333333333333", "0.1", "7"],
        },
        schema_overrides={"rank": pl.UInt32, "time": pl.Datetime("us", "UTC")},
    )
    whole = numbers.with_columns(rank=pl.lit(1, pl.UInt32), value=pl.lit(2))
    rule = TraitRule("mrr", ("billing.mrr", "crm.mrr"), Choose.SUM)
    sums = survivors([numbers, whole.filter(profile="b")], rule).collect()
    assert dict(sums.select("profile", "value").iter_rows()) == {"a": "33.433333333333333333", "b": "9"}
    with pytest.raises(SettingsError, match=r"billing.mrr is text, of which 1 values are no numbers"):
        survivors([numbers.with_columns(value=pl.Series(["1", "n/a", "2"]))], replace(rule, sources=("billing.mrr",)))


@pytest.mark.parametrize(
    ("values", "most", "least"),
    [
        (["9", "10", "-3"], "10", "-3"),
        (["99999999999999999999.5", "100000000000000000000", "7"], "100000000000000000000", "7"),
        (["pro", "10", "9"], "pro", "9"),
        (["0123", "99"], "0123", "99"),
        (["free", "pro"], "pro", "free"),
    ],
)
def test_text_that_spells_numbers_is_compared_as_numbers(values: list[str], most: str, least: str) -> None:
    frame = pl.LazyFrame({"value": values}).select(
        profile=1, rank=pl.lit(0, pl.UInt32), time=pl.lit(None, TIME), value="value"
    )
    for choose, value in ((Choose.MAX, most), (Choose.MIN, least)):
        assert survivors([frame], TraitRule("x", SOURCES[:1], choose)).collect()["value"].to_list() == [value]
