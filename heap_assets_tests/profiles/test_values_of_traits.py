"""Values of sources of different types in one trait: each exactly, or null and counted; never another value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from itertools import combinations_with_replacement
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from number_types import NUMBERS, TIMES

from heap_assets.profiles.survivorship import Choose, TraitRule, survivors

SOURCES = ("first.x", "second.x")
Both = tuple[list[Any], list[Any]]
"""What a profile has in the first source (at least one value) and in the second."""


def chosen(
    dtype: pl.DataType, types: tuple[pl.DataType, pl.DataType], profiles: Sequence[Both], choose: Choose
) -> list[Any]:
    """Return each profile's value, of its values in two sources; the trait must be of the type `dtype`."""
    frames = []
    for rank, own in enumerate(types):
        rows = [(profile, value) for profile, both in enumerate(profiles) for value in both[rank]]
        values = pl.Series([value for _, value in rows], dtype=own)
        frames.append(
            pl.LazyFrame({"profile": pl.Series([profile for profile, _ in rows], dtype=pl.UInt32), "value": values})
            .with_columns(rank=pl.lit(rank, pl.UInt32), time=pl.lit(None, pl.Datetime("us", "UTC")))
            .select("profile", "rank", "time", "value")
        )
    result = survivors(frames, TraitRule("x", SOURCES, choose)).sort("profile").collect()
    assert result.schema["value"] == dtype, "the type follows from the types of the sources alone"
    assert result["profile"].to_list() == list(range(len(profiles)))
    assert result["source"].is_null().to_list() == result["value"].is_null().to_list()
    return (result["value"].to_physical() if dtype.is_temporal() else result["value"]).to_list()


def profiles_of(first: st.SearchStrategy[Any], second: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Both]]:
    return st.lists(
        st.tuples(st.lists(first, min_size=1, max_size=3), st.lists(second, max_size=2)), min_size=1, max_size=15
    )


def says(shown: Any, value: Any) -> bool:
    """Whether a value of the trait is the same as one of a source, or its digits are."""
    if isinstance(shown, float) and not math.isfinite(shown):
        return bool(shown == value)
    return bool(Fraction(shown) == size(value)) or (isinstance(shown, float) and Decimal(repr(shown)) == value)


def size(value: Any) -> Any:
    return value if isinstance(value, float) and math.isinf(value) else Fraction(value)


def fits(value: Any, dtype: pl.DataType) -> bool:
    """Whether a number has the same value in the type."""
    if dtype == pl.Int64:
        return -(2**63) <= value < 2**63
    if isinstance(dtype, pl.Decimal):
        return abs(Fraction(value) * 10**dtype.scale) < 10 ** (dtype.precision or 38)
    if isinstance(value, float):
        return True
    return (
        Fraction(float(value)) == Fraction(value) or len(format(Decimal(value), "f").replace(".", "").strip("-0")) <= 15
    )


def type_of(first: pl.DataType, second: pl.DataType) -> pl.DataType:
    """What traits of two types have always been: whole numbers Int64, beside decimals these, beside floats Float64."""
    if first.is_integer() and second.is_integer():
        return pl.Int64()
    if first == second:
        return first
    if first.is_float() or second.is_float():
        return pl.Float64()
    scales = [dtype.scale for dtype in (first, second) if isinstance(dtype, pl.Decimal)]
    return pl.Decimal(38, max(scales))


PAIRS = list(combinations_with_replacement(NUMBERS, 2))


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=[f"{a}-{b}" for a, b in PAIRS])
@settings(max_examples=10, deadline=None)
@given(data=st.data(), choose=st.sampled_from([Choose.MAX, Choose.MIN, Choose.SUM, Choose.FIRST_PRESENT]))
def test_numbers_of_two_types(data: st.DataObject, first: pl.DataType, second: pl.DataType, choose: Choose) -> None:
    profiles = data.draw(profiles_of(NUMBERS[first], NUMBERS[second]))
    dtype = type_of(first, second)
    for shown, values in zip(chosen(dtype, (first, second), profiles, choose), profiles, strict=True):
        every = [*values[0], *values[1]]
        if choose is Choose.SUM:
            _check_sum(shown, every, dtype)
        elif shown is None:
            assert not all(fits(value, dtype) for value in every)
        else:
            expected = {Choose.MAX: max(every, key=size), Choose.MIN: min(every, key=size)}
            assert says(shown, expected.get(choose, min(values[0], key=size)))


def _check_sum(shown: Any, every: list[Any], dtype: pl.DataType) -> None:
    if not all(math.isfinite(value) for value in every):
        endless = {value for value in every if isinstance(value, float) and math.isinf(value)}
        lost = len(endless) > 1 or not all(fits(value, dtype) for value in every)
        assert shown in endless or (shown is None and lost) or _exact_part_is_lost(every, dtype)
        return
    exact = sum(map(Fraction, every), Fraction(0))
    floats = [value for value in every if isinstance(value, float)]
    if shown is None:
        beyond = 2**128 - 2**103 if dtype == pl.Float32 else 2**1024 - 2**970
        overflows = bool(floats) and sum(abs(value) for value in map(Fraction, floats)) >= beyond / 2
        assert overflows or _exact_part_is_lost(every, dtype)
    elif floats:
        rounding = Fraction(2) ** (-23 if dtype == pl.Float32 else -52) * len(every)
        most = sum(abs(Fraction(value)) for value in every) + Fraction(2) ** -149
        assert abs(Fraction(shown) - exact) <= rounding * most
    else:
        assert says(shown, _decimal(exact))


def _exact_part_is_lost(every: list[Any], dtype: pl.DataType) -> bool:
    exact = [value for value in every if not isinstance(value, float)]
    parts = exact if isinstance(dtype, pl.Decimal) else []
    return not all(fits(value, dtype) for value in [*parts, _decimal(sum(map(Fraction, exact), Fraction(0)))])


def _decimal(number: Fraction) -> Any:
    return int(number) if number.denominator == 1 else Decimal(f"{int(number * 10**9)}e-9")


TIME_PAIRS = list(combinations_with_replacement(TIMES, 2))


@pytest.mark.parametrize(("first", "second"), TIME_PAIRS, ids=[f"{a}-{b}" for a, b in TIME_PAIRS])
@settings(max_examples=8, deadline=None)
@given(data=st.data(), choose=st.sampled_from([Choose.MAX, Choose.MIN, Choose.FIRST_PRESENT]))
def test_times_of_two_types(data: st.DataObject, first: pl.DataType, second: pl.DataType, choose: Choose) -> None:
    profiles = data.draw(profiles_of(TIMES[first], TIMES[second]))
    moments = [dtype for dtype in (first, second) if isinstance(dtype, pl.Datetime)]
    unit = "ns" if any(dtype.time_unit == "ns" for dtype in moments) else "us"
    zone = "UTC" if any(dtype.time_zone for dtype in moments) else None
    dtype = pl.Datetime(unit, zone) if moments else pl.Date()  # type: ignore[arg-type]
    step = {"us": 1_000, "ns": 1}[unit] if moments else 86_400 * 10**9
    for shown, values in zip(chosen(dtype, (first, second), profiles, choose), profiles, strict=True):
        own, others = ([_nanoseconds(value) for value in part] for part in values)
        if shown is None:
            assert unit == "ns"
            assert any(not -(2**63) < value < 2**63 for value in [*own, *others])
        else:
            expected = {Choose.MAX: max(*own, *others, own[0]), Choose.MIN: min(*own, *others, own[0])}
            assert shown * step == expected.get(choose, min(own))


def _nanoseconds(value: Any) -> int:
    if isinstance(value, int):
        return value
    if not isinstance(value, datetime):
        return (value - date(1970, 1, 1)).days * 86_400 * 10**9
    since = value.replace(tzinfo=None) - datetime(1970, 1, 1)
    return ((since.days * 86_400 + since.seconds) * 10**6 + since.microseconds) * 1_000


BIG = 2**53 + 1


@pytest.mark.parametrize(
    ("choose", "sources", "value"),
    [
        (Choose.SUM, [(pl.Int64(), [2**62, -5]), (pl.Int64(), [7])], 2**62 + 2),
        (Choose.SUM, [(pl.Int64(), [2**63 - 1, 1]), (pl.Int64(), [])], None),
        (Choose.SUM, [(pl.Int64(), [2**63 - 1, 1]), (pl.Int64(), [-1])], 2**63 - 1),
        (Choose.SUM, [(pl.UInt64(), [2**64 - 1]), (pl.Int64(), [-(2**63)])], 2**63 - 1),
        (Choose.SUM, [(pl.Decimal(38, 0), [Decimal(10**38 - 1), Decimal(1)]), (pl.Decimal(38, 0), [])], None),
        (Choose.SUM, [(pl.Int64(), [BIG]), (pl.Float64(), [0.5])], None),
        (Choose.SUM, [(pl.Int64(), [BIG, 1]), (pl.Float64(), [])], float(BIG + 1)),
        (Choose.SUM, [(pl.Int64(), [4]), (pl.Float64(), [0.5])], 4.5),
        (Choose.SUM, [(pl.Float64(), [1e308, 1e308]), (pl.Float64(), [])], None),
        (Choose.SUM, [(pl.String(), []), (pl.Float64(), [1e308, 1e-300])], f"{'1' + '0' * 308}.{'0' * 299}1"),
        (Choose.FIRST_PRESENT, [(pl.UInt64(), [2**64 - 1]), (pl.Int64(), [3])], None),
        (Choose.FIRST_PRESENT, [(pl.Int64(), [BIG]), (pl.Float64(), [0.5])], None),
        (Choose.FIRST_PRESENT, [(pl.Int64(), [2**60]), (pl.Float64(), [0.5])], float(2**60)),
        (Choose.FIRST_PRESENT, [(pl.Decimal(38, 9), [Decimal("0.1")]), (pl.Float64(), [0.5])], 0.1),
        (Choose.MAX, [(pl.Int64(), [9, BIG]), (pl.Float64(), [float(BIG - 1)])], None),
        (Choose.MIN, [(pl.Int64(), [9, BIG]), (pl.Float64(), [10.5])], 9.0),
    ],
)  # fmt: skip
def test_at_the_edge(choose: Choose, sources: list[tuple[pl.DataType, list[Any]]], value: Any) -> None:
    (first, values), (second, others) = sources
    dtype = pl.String() if first == pl.String else type_of(first, second)
    assert chosen(dtype, (first, second), [(values, others)], choose) == [value]
