"""Operators of conditions beside comparisons: on text, on lists, and on how long ago a moment is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from heap_assets.values import as_moment

TEXTS = ("contains", "starts_with", "ends_with", "matches")
"""`contains` also looks for a member of a list. All of them go by case; `matches` is a regular expression, anywhere."""
LISTS = ("contains_any", "contains_all")
DAYS = ("within_days", "older_than_days")


class OfListError(ValueError):
    """A column is no list, or its members are of another kind than the operand."""


def of_text(name: str, value: pl.Expr, operand: str) -> pl.Expr:
    """Return whether texts contain, start with, end with or match the operand; null for null."""
    if name == "contains":
        return value.str.contains(operand, literal=True)
    if name == "starts_with":
        return value.str.starts_with(operand)
    if name == "ends_with":
        return value.str.ends_with(operand)
    return value.str.contains(operand)


def of_list(name: str, value: pl.Expr, dtype: pl.DataType, operands: Sequence[Any]) -> pl.Expr:
    """Return whether lists contain one (or, of `contains_all`, each) of the operands; null for null.

    Raises OfListError.
    """
    if not isinstance(dtype, pl.List):
        raise OfListError(f"lists alone can contain several values, and the column is of type {dtype}.")
    inner = dtype.inner
    for operand in operands:
        is_text, is_truth = isinstance(operand, str), isinstance(operand, bool)
        if is_text != (inner == pl.String) or is_truth != (inner == pl.Boolean):
            raise OfListError(f"{operand!r} can be no member of a list of type {dtype}.")
    each = [value.list.contains(pl.lit(str(one) if isinstance(one, str) else one)) for one in operands]
    return pl.all_horizontal(each) if name == "contains_all" else pl.any_horizontal(each)


def days_ago(name: str, value: pl.Expr, dtype: pl.DataType, days: float, as_of: datetime) -> pl.Expr:
    """Return whether moments lie within the last `days` × 24 hours before `as_of`, or before those; null for none.

    A moment at or after `as_of` is neither. Dates are their midnight, text is read as times are.
    """
    moment, begin = as_moment(value, dtype), as_of - timedelta(days=days)
    return (moment >= begin) & (moment < as_of) if name == "within_days" else moment < begin
