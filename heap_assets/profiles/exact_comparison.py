"""A column compared with one number or moment as they are: neither side is rounded to the type of the other."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from functools import partial
from typing import Any

import polars as pl

Compare = Callable[[pl.Expr, Any], pl.Expr]
"""One of the comparisons of :mod:`operator`."""

_BEYOND = 10**38
"""No column's whole number, and no decimal without its point, is larger than this."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NANOSECONDS = {"ns": 1, "us": 1_000, "ms": 1_000_000}


def compare_number(compare: Compare, value: pl.Expr, dtype: pl.DataType, number: float) -> pl.Expr:
    """Compare a column of numbers, or of text that may spell some, with a number; null where the column has none.

    A float is the decimal that it is written with, of a column (`Float32`) as of the operand. NaN is no number, and
    neither is text with leading zeros (a postal code).
    """
    if isinstance(number, float) and not math.isfinite(number):
        no_number = pl.lit(None, pl.Boolean)
        return no_number if math.isnan(number) else compare(_double(value, dtype), number)
    if dtype == pl.String:
        return compare(_order(value, number), 0)
    if dtype.is_float():
        return _with_double(compare, _double(value, dtype), number)
    exact = Fraction(Decimal(repr(number)))
    if isinstance(dtype, pl.Decimal):
        return _with_floor(compare, value.to_physical(), exact * 10**dtype.scale)
    return _with_floor(compare, value.cast(pl.Int128), exact)


def compare_moment(compare: Compare, value: pl.Expr, dtype: pl.DataType, moment: datetime) -> pl.Expr:
    """Compare a column of dates or times with a moment; without a zone, either is UTC; a date is its midnight."""
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    nanoseconds = (zoned - _EPOCH) // timedelta(microseconds=1) * 1_000
    unit = dtype.time_unit if isinstance(dtype, pl.Datetime) else "us"
    physical = value.cast(pl.Datetime("us")) if dtype == pl.Date else value
    since = physical.to_physical().cast(pl.Int128) * _NANOSECONDS[unit]
    return compare(since, pl.lit(nanoseconds, pl.Int128))


def _with_floor(compare: Compare, whole: pl.Expr, exact: Fraction) -> pl.Expr:
    floor = max(-_BEYOND, min(_BEYOND, math.floor(exact)))
    return _with_nearest_below(compare, whole, pl.lit(floor, pl.Int128), is_exact=floor == exact)


def _with_double(compare: Compare, value: pl.Expr, number: float) -> pl.Expr:
    below = _nearest(number)
    if below > number:
        below = math.nextafter(below, -math.inf)
    return _with_nearest_below(compare, value, pl.lit(below), is_exact=below == number)


def _with_nearest_below(compare: Compare, value: pl.Expr, below: pl.Expr, *, is_exact: bool) -> pl.Expr:
    """Compare with a number by the largest one of the column's type that is not above it."""
    if is_exact:
        return compare(value, below)
    if compare == operator.eq or compare == operator.ne:
        return pl.when(value.is_not_null()).then(pl.lit(compare == operator.ne))
    return value > below if compare in (operator.gt, operator.ge) else value <= below


def _double(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype == pl.String:
        return _spelled(value).fill_nan(None)
    if dtype == pl.Float32:
        value = value.cast(pl.String)
    return value.cast(pl.Float64).fill_nan(None)


def _spelled(text: pl.Expr) -> pl.Expr:
    stripped = text.str.strip_chars()
    return pl.when(~stripped.str.contains(r"^[-+]?0[0-9]")).then(stripped.cast(pl.Float64, strict=False))


def _order(text: pl.Expr, number: float) -> pl.Expr:
    """Return -1, 0 or 1 for the numbers that texts spell, smaller, equal or larger; null for those that spell none."""
    return pl.struct(text=text.str.strip_chars(), near=_double(text, pl.String())).map_batches(
        partial(_orders, number=number), return_dtype=pl.Int8
    )


def _orders(spelled: pl.Series, *, number: float) -> pl.Series:
    texts, near = spelled.struct.field("text"), spelled.struct.field("near")
    double, exact = _nearest(number), Decimal(repr(number))
    order = (near > double).cast(pl.Int8) - (near < double).cast(pl.Int8)
    # doubles that are equal may stand for numbers that are not; few texts are that near, and they repeat
    tied = texts.filter(near == double).unique()
    with localcontext(Context(traps=[])):  # an exponent beyond all bounds is no error
        orders = [(Decimal(text) > exact) - (Decimal(text) < exact) for text in tied]
    return order.zip_with(near.ne_missing(double), texts.replace_strict(tied, orders, default=0, return_dtype=pl.Int8))


def _nearest(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf
