"""Conditions compare a column with a number or a moment as they are, whatever the types of both."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from number_types import NUMBERS, TIMES

from heap_assets.profiles.conditions import COMPARISONS, Condition, holds

OPERANDS = (
    st.integers(-(2**66), 2**66)
    | st.integers(-(10**40), 10**40)
    | st.integers(-(2**54), 2**54)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(2**54), 2**54).map(float)
    | st.sampled_from([0, 0.1, 1.5, 2**53 + 1, 2.0**53, 2**63, 10**309, -(10**309)])
)


def judged(values: list[Any], dtype: pl.DataType, name: str, operand: Any) -> list[bool]:
    column = pl.Series("v", values, dtype)
    return column.to_frame().select(holds(Condition(name, operand, "x"), pl.col("v"), dtype).alias("v"))["v"].to_list()


def number(value: Any, dtype: pl.DataType) -> Fraction | float:
    """The number that a value or an operand is, or is written as: 0.1 in the settings is a tenth to a decimal."""
    if value in (float("inf"), float("-inf")):
        return float(value)
    if isinstance(value, float) and dtype != pl.Float64:
        text = pl.Series([value], dtype=dtype).cast(pl.String).item() if dtype == pl.Float32 else repr(value)
        return Fraction(Decimal(text))
    return Fraction(value)


@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
@settings(max_examples=30, deadline=None)
@given(data=st.data(), operand=OPERANDS, name=st.sampled_from(list(COMPARISONS)))
def test_numbers(data: st.DataObject, dtype: pl.DataType, operand: float, name: str) -> None:
    values = data.draw(st.lists(st.none() | NUMBERS[dtype], min_size=1, max_size=8))
    if dtype.is_float():
        values.append(float("nan"))
    compare = COMPARISONS[name]
    right = Fraction(Decimal(repr(operand))) if dtype != pl.Float64 else Fraction(operand)
    expected = [value is not None and value == value and bool(compare(number(value, dtype), right)) for value in values]
    assert judged(values, dtype, name, operand) == expected


@settings(max_examples=80, deadline=None)
@given(
    values=st.lists(st.decimals(allow_nan=False) | st.integers(-(2**66), 2**66).map(Decimal), min_size=1),
    operand=OPERANDS,
    name=st.sampled_from(list(COMPARISONS)),
)
def test_numbers_that_are_text(values: list[Decimal], operand: float, name: str) -> None:
    right = Decimal(repr(operand))
    expected = [bool(COMPARISONS[name](value, right)) for value in values]
    assert judged([f" {value} " for value in values], pl.String(), name, operand) == expected


@pytest.mark.parametrize("dtype", TIMES, ids=str)
@settings(max_examples=20, deadline=None)
@given(
    data=st.data(),
    moment=st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)) | st.just(datetime(1970, 1, 1)),
    hours=st.none() | st.integers(-12, 12),
    name=st.sampled_from(list(COMPARISONS)),
)
def test_times(data: st.DataObject, dtype: pl.DataType, moment: datetime, hours: int | None, name: str) -> None:
    values = data.draw(st.lists(st.none() | TIMES[dtype] | st.just(moment.date() if dtype == pl.Date else None)))
    operand = moment.isoformat() + ("" if hours is None else f"{hours:+03d}:00")
    right = _nanoseconds(moment) - (hours or 0) * 3_600 * 10**9
    compare = COMPARISONS[name]
    expected = [value is not None and bool(compare(_nanoseconds(value), right)) for value in values]
    assert judged(values, dtype, name, operand) == expected


def _nanoseconds(value: Any) -> int:
    if isinstance(value, int):
        return value
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    return (value.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1_000


@pytest.mark.parametrize(
    ("values", "dtype", "operand", "equal"),
    [
        ([2**53 + 1, 2**53], pl.Int64(), 2.0**53, [False, True]),
        ([2**64 - 1], pl.UInt64(), 2**64, [False]),
        ([Decimal("0.10"), Decimal("0.11")], pl.Decimal(38, 2), 0.1, [True, False]),
        ([0.1], pl.Float32(), 0.1, [True]),
        (["9007199254740993", "9007199254740992.0", "0123", "nan"], pl.String(), 2**53, [False, True, False, False]),
        ([date(2026, 1, 1)], pl.Date(), "2026-01-01T10:00:00", [False]),
        ([date(2026, 1, 1)], pl.Date(), "2026-01-01", [True]),
    ],
)  # fmt: skip
def test_at_the_edge(values: list[Any], dtype: pl.DataType, operand: Any, equal: list[bool]) -> None:
    assert judged(values, dtype, "eq", operand) == equal
