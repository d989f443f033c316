"""Conditions of an audience: `{"gt": 100}`, `{"in": ["pro", "growth"]}`, or a bare value, which means equal.

A column is compared with a number or a moment exactly: neither side is rounded to the type of the other. Operators on
text and lists, and those that count days back, are in :mod:`heap_assets.profiles.operators`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from functools import partial
from typing import Any

import polars as pl

from heap_assets.errors import SettingsError
from heap_assets.profiles.operators import DAYS, LISTS, TEXTS, OfListError, days_ago, of_list, of_text
from heap_assets.yaml_core import Unquoted

Scalar = str | int | float | bool
Compare = Callable[[pl.Expr, Any], pl.Expr]
"""One of the comparisons of :mod:`operator`."""

COMPARISONS: Mapping[str, Compare] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
OPERATORS = (*COMPARISONS, "in", "not_in", "between", "exists", *TEXTS, *LISTS, *DAYS)
_OF_LISTS = ("in", "not_in", "between", *LISTS)

_TRUTH = {"true": True, "false": False}
_BEYOND = 10**38
"""No column's whole number, and no decimal without its point, is larger than this."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NANOSECONDS = {"ns": 1, "us": 1_000, "ms": 1_000_000}


@dataclass(frozen=True)
class Condition:
    """One comparison; a value that is missing meets none but `exists: false`, as in SQL.

    Attributes
    ----------
    operator
        One of `OPERATORS`.
    operand
        A text, number or truth value; of `in`, `not_in`, `between`, `contains_any` and `contains_all` a list of them;
        of `exists` a truth value; of `within_days` and `older_than_days` a number of days. An `Unquoted` number that is
        not spelled as numbers usually are (`01234`, `1.10`): its text for text columns, its value for numbers.
    where
        Path of the operand in the definition, for messages.
    """

    operator: str
    operand: Scalar | tuple[Scalar, ...]
    where: str


def parse_conditions(definition: Any, where: str) -> tuple[Condition, ...]:
    """Read a bare value or a mapping of operators; several operators must all hold.

    Raises SettingsError: unknown operator or an operand that it cannot take; the message names the path.
    """
    if not isinstance(definition, Mapping):
        definition = {"eq": definition}
    if not definition:
        raise SettingsError(f"{where} has no condition; operators are {', '.join(OPERATORS)}.")
    return tuple(_condition(name, operand, f"{where}.{name}") for name, operand in definition.items())


def _condition(name: str, operand: Any, where: str) -> Condition:
    operand = _typed(operand)
    if name not in OPERATORS:
        raise SettingsError(f"{where}: unknown operator {name!r}; operators are {', '.join(OPERATORS)}.")
    if name in _OF_LISTS:
        if not isinstance(operand, list | tuple) or not operand:
            raise SettingsError(f"{where} is {operand!r}, expected a list with at least one value.")
        if name == "between" and len(operand) != 2:
            raise SettingsError(f"{where} is {operand!r}, expected a list of two: the least and the largest value.")
        return Condition(name, tuple(_scalar(value, f"{where}[{i}]") for i, value in enumerate(operand)), where)
    if name == "exists" and not isinstance(operand, bool):
        raise SettingsError(f"{where} is {operand!r}, expected true or false.")
    if name in DAYS and (isinstance(operand, bool) or not isinstance(operand, int | float) or not operand > 0):
        raise SettingsError(f"{where} is {operand!r}, expected a number of days above 0.")
    if name in TEXTS and name != "contains" and not isinstance(operand, str):
        raise SettingsError(f"{where} is {operand!r}, expected a text.")
    if name == "matches":
        try:
            pl.select(pl.lit("").str.contains(str(operand)))
        except pl.exceptions.ComputeError as error:
            raise SettingsError(f"{where} is {operand!r}, which is no regular expression.") from error
    return Condition(name, _scalar(operand, where), where)


def _typed(value: Any) -> Any:
    """Return the number or truth value that an unquoted scalar spells, if that keeps what was written."""
    return value.value if isinstance(value, Unquoted) and value.is_canonical else value


def _scalar(value: Any, where: str) -> Scalar:
    value = _typed(value)
    if isinstance(value, datetime | date):  # YAML reads a bare date as one
        return value.isoformat()
    if not isinstance(value, str | int | float | bool):
        raise SettingsError(
            f"{where} is {value!r}, expected a text, a number, true or false (`exists: false` for none)."
        )
    return value


def holds(condition: Condition, value: pl.Expr, dtype: pl.DataType, as_of: datetime | None = None) -> pl.Expr:
    """Return a Boolean expression, never null.

    Heap exports custom properties as text, so a number is compared with the number that a text spells; texts with
    leading zeros spell none. `as_of`: what `within_days` and `older_than_days` count back from.

    Raises SettingsError: the operand cannot be compared with a column of this type.
    """
    name, operand, where = condition.operator, condition.operand, condition.where
    if name == "exists":
        return value.is_not_null() if operand else value.is_null()
    operands = operand if isinstance(operand, tuple) else (operand,)
    if name in DAYS:
        if as_of is None or not (dtype == pl.Date or isinstance(dtype, pl.Datetime) or dtype == pl.String):
            raise SettingsError(f"{where}: days are counted on columns of dates and times, not on one of type {dtype}.")
        return days_ago(name, value, dtype, float(str(operand)), as_of).fill_null(value=False)
    if name in LISTS or (name == "contains" and isinstance(dtype, pl.List)):
        try:
            return of_list(name, value, dtype, operands).fill_null(value=False)
        except OfListError as error:
            raise SettingsError(f"{where} is {operand!r}: {error}") from error
    if name in TEXTS:
        if dtype != pl.String:
            raise SettingsError(f"{where} is {operand!r}, which cannot be looked for in a column of type {dtype}.")
        return of_text(name, value, str(operand)).fill_null(value=False)
    if name == "between":
        least, largest = operands
        at_least = _compared(operator.ge, value, dtype, least, where)
        return at_least & _compared(operator.le, value, dtype, largest, where)
    if name == "not_in":
        return pl.all_horizontal([_compared(operator.ne, value, dtype, each, where) for each in operands])
    compare = COMPARISONS.get(name, operator.eq)
    return pl.any_horizontal([_compared(compare, value, dtype, each, where) for each in operands])


def _compared(compare: Compare, value: pl.Expr, dtype: pl.DataType, operand: Scalar, where: str) -> pl.Expr:
    return _compare(compare, value, dtype, operand, where).fill_null(False)


def _compare(compare: Compare, value: pl.Expr, dtype: pl.DataType, operand: Scalar, where: str) -> pl.Expr:
    if isinstance(operand, Unquoted) and not (dtype == pl.String and compare in (operator.eq, operator.ne)):
        operand = operand.value
    if isinstance(operand, bool):
        if dtype == pl.String:
            value = value.str.to_lowercase().replace_strict(_TRUTH, default=None, return_dtype=pl.Boolean)
        if dtype in (pl.Boolean, pl.String):
            return compare(value, operand)
    elif isinstance(operand, int | float):
        if dtype.is_numeric() or dtype == pl.String:
            return _compare_number(compare, value, dtype, operand)
    elif dtype == pl.String:
        return compare(value, operand)
    elif dtype in (pl.Date, pl.Datetime):
        return _compare_moment(compare, value, dtype, _moment(operand, where))
    raise SettingsError(f"{where} is {operand!r}, which cannot be compared with a column of type {dtype}.")


def _moment(text: str, where: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(f"{where} is {text!r}, expected a date or a time such as 2026-11-01T09:00:00.") from error


def _compare_number(compare: Compare, value: pl.Expr, dtype: pl.DataType, number: float) -> pl.Expr:
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
        below = _nearest(number)
        if below > number:
            below = math.nextafter(below, -math.inf)
        return _with_nearest_below(compare, _double(value, dtype), pl.lit(below), is_exact=below == number)
    exact = Fraction(Decimal(repr(number)))
    if isinstance(dtype, pl.Decimal):
        return _with_floor(compare, value.to_physical(), exact * 10**dtype.scale)
    return _with_floor(compare, value.cast(pl.Int128), exact)


def _compare_moment(compare: Compare, value: pl.Expr, dtype: pl.DataType, moment: datetime) -> pl.Expr:
    """Compare a column of dates or times with a moment; without a zone, either is UTC; a date is its midnight."""
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    nanoseconds = (zoned - _EPOCH) // timedelta(microseconds=1) * 1_000
    unit = dtype.time_unit if isinstance(dtype, pl.Datetime) else "us"
    physical = value.cast(pl.Datetime("us")) if dtype == pl.Date else value
    since = physical.to_physical().cast(pl.Int128) * _NANOSECONDS[unit]
    return compare(since, pl.lit(nanoseconds, pl.Int128))


def _with_floor(compare: Compare, as_integer: pl.Expr, exact: Fraction) -> pl.Expr:
    floor = max(-_BEYOND, min(_BEYOND, math.floor(exact)))
    return _with_nearest_below(compare, as_integer, pl.lit(floor, pl.Int128), is_exact=floor == exact)


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
