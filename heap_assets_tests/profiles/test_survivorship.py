from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
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


BIG = 2**53 + 1


@pytest.mark.parametrize(
    ("choose", "sources", "value"),
    [
        (Choose.SUM, [(pl.Int64, [2**63 - 1, 1])], Decimal(2**63)),
        (Choose.SUM, [(pl.Int64, [2**62, -5])], 2**62 - 5),
        (Choose.SUM, [(pl.UInt64, [2**64 - 1, 1])], Decimal(2**64)),
        (Choose.SUM, [(pl.Decimal(38, 0), [Decimal(10**38 - 1), Decimal(1)])], str(10**38)),
        (Choose.SUM, [(pl.Int64, [BIG]), (pl.Float64, [0.5])], f"{BIG}.5"),
        (Choose.SUM, [(pl.Int64, [4]), (pl.Float64, [0.5])], 4.5),
        (Choose.FIRST_PRESENT, [(pl.UInt64, [2**64 - 1])], Decimal(2**64 - 1)),
        (Choose.FIRST_PRESENT, [(pl.Int64, [BIG]), (pl.Float64, [0.5])], str(BIG)),
        (Choose.FIRST_PRESENT, [(pl.Decimal(38, 9), [Decimal("12345678901234567890.123456789")]), (pl.Float64, [0.5])],
         "12345678901234567890.123456789"),
        (Choose.FIRST_PRESENT, [(pl.Decimal(38, 9), [Decimal("0.1")]), (pl.Float64, [0.5])], 0.1),
        (Choose.FIRST_PRESENT, [(pl.Decimal(38, 0), [Decimal(10**37)]), (pl.Decimal(38, 30), [Decimal("0.1")])],
         str(10**37)),
        (Choose.MAX, [(pl.Int64, [9, BIG]), (pl.Float64, [10.5])], str(BIG)),
        (Choose.MIN, [(pl.Int64, [9, BIG]), (pl.Float64, [10.5])], "9"),
        (Choose.FIRST_PRESENT, [(pl.Datetime("us"), [datetime(2026, 1, 1)]), (pl.Date, [date(2027, 1, 1)])],
         datetime(2026, 1, 1, tzinfo=UTC)),
        (Choose.MIN, [(pl.Datetime("us"), [datetime(2026, 1, 1)]), (TIME, [datetime(2027, 1, 1, tzinfo=UTC)])],
         datetime(2026, 1, 1, tzinfo=UTC)),
        (Choose.MAX, [(pl.Date, [date(2026, 1, 1)]), (pl.Datetime("ns"), [datetime(2025, 1, 1)])],
         datetime(2026, 1, 1, tzinfo=UTC)),
        (Choose.MIN, [(TIME, [datetime(9999, 1, 1, tzinfo=UTC)]), (pl.Datetime("ns"), [datetime(2025, 1, 1)])],
         "2025-01-01T00:00:00.000000000Z"),
    ],
)  # fmt: skip
def test_sources_of_several_types_give_a_value_exactly_or_as_text(
    choose: Choose, sources: list[tuple[Any, list[Any]]], value: Any
) -> None:
    frames = [
        pl.LazyFrame({"value": pl.Series(values, dtype=dtype)}).select(
            profile=1, rank=pl.lit(rank, pl.UInt32), time=pl.lit(None, TIME), value="value"
        )
        for rank, (dtype, values) in enumerate(sources)
    ]
    found = survivors(frames, TraitRule("x", SOURCES[: len(frames)], choose)).collect()["value"].item()
    assert (type(found), found) == (type(value), value)


@settings(max_examples=60, deadline=None)
@given(
    whole=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=3),
    decimals=st.lists(st.integers(-(10**38) + 1, 10**38 - 1).map(lambda n: Decimal(f"{n}e-9")), max_size=3),
    floats=st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), max_size=3),
    choose=st.sampled_from([Choose.MAX, Choose.MIN, Choose.SUM]),
)
def test_numbers_of_any_types_are_compared_and_added_exactly(
    whole: list[int], decimals: list[Decimal], floats: list[float], choose: Choose
) -> None:
    columns = [pl.Series(whole, dtype=pl.Int64), pl.Series(decimals, dtype=pl.Decimal(38, 9))]
    columns += [pl.Series(floats, dtype=pl.Float64)] if floats else []
    frames = [
        column.alias("value").to_frame().lazy().select(
            profile=1, rank=pl.lit(rank, pl.UInt32), time=pl.lit(None, TIME), value="value"
        )
        for rank, column in enumerate(columns)
    ]  # fmt: skip
    found = survivors(frames, TraitRule("x", SOURCES[: len(frames)], choose)).collect()["value"].item()
    exact = [Fraction(n) for n in (*whole, *decimals)] + [Fraction(str(x)) for x in floats]
    wanted = {Choose.MAX: max, Choose.MIN: min, Choose.SUM: sum}[choose](exact)
    if isinstance(found, float):
        assert found == pytest.approx(float(wanted), rel=1e-12, abs=1e-12 * max(map(abs, map(float, exact))))
    else:
        assert Fraction(found) == wanted
