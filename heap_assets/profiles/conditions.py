"""Conditions of an audience: `{"gt": 100}`, `{"in": ["pro", "growth"]}`, or a bare value, which means equal."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import polars as pl

from heap_assets.errors import SettingsError
from heap_assets.profiles.exact_comparison import Compare, compare_moment, compare_number
from heap_assets.yaml_core import Unquoted

Scalar = str | int | float | bool

COMPARISONS: Mapping[str, Compare] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
OPERATORS = (*COMPARISONS, "in", "exists")


@dataclass(frozen=True)
class Condition:
    """One comparison; a value that is missing meets none but `exists: false`, as in SQL.

    Attributes
    ----------
    operator
        One of `OPERATORS`.
    operand
        A text, number or truth value; of `in` a list of them; of `exists` a truth value. An `Unquoted` number that is
        not spelled as numbers usually are (`01234`, `1.10`): its text for text columns, its value for numbers.
    where
        Path of the operand in the definition, for messages.
    """

    operator: str
    operand: Scalar | tuple[Scalar, ...]
    where: str


def parse_conditions(definition: Any, where: str) -> tuple[Condition, ...]:
    """Read a bare value or a mapping of operators; several operators must all hold.

    Raises
    ------
    SettingsError
        Unknown operator or an operand that it cannot take; the message names the path.
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
    if name == "in":
        if not isinstance(operand, list | tuple) or not operand:
            raise SettingsError(f"{where} is {operand!r}, expected a list with at least one value.")
        return Condition(name, tuple(_scalar(value, f"{where}[{i}]") for i, value in enumerate(operand)), where)
    if name == "exists" and not isinstance(operand, bool):
        raise SettingsError(f"{where} is {operand!r}, expected true or false.")
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


def holds(condition: Condition, value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Return a Boolean expression, never null.

    Heap exports custom properties as text, so a number is compared with the number that a text spells; texts with
    leading zeros spell none.

    Raises
    ------
    SettingsError
        The operand cannot be compared with a column of this type.
    """
    if condition.operator == "exists":
        return value.is_not_null() if condition.operand else value.is_null()
    if isinstance(condition.operand, tuple):
        return pl.any_horizontal(
            [_compare(operator.eq, value, dtype, operand, condition.where) for operand in condition.operand]
        )
    return _compare(COMPARISONS[condition.operator], value, dtype, condition.operand, condition.where)


def _compare(compare: Compare, value: pl.Expr, dtype: pl.DataType, operand: Scalar, where: str) -> pl.Expr:
    return _unsafe(compare, value, dtype, operand, where).fill_null(False)


def _unsafe(compare: Compare, value: pl.Expr, dtype: pl.DataType, operand: Scalar, where: str) -> pl.Expr:
    if isinstance(operand, Unquoted) and not (dtype == pl.String and compare in (operator.eq, operator.ne)):
        operand = operand.value
    if isinstance(operand, bool):
        if dtype == pl.Boolean:
            return compare(value, operand)
        if dtype == pl.String:
            return compare(
                value.str.to_lowercase().replace_strict(_TRUTH, default=None, return_dtype=pl.Boolean), operand
            )
    elif isinstance(operand, int | float):
        if dtype.is_numeric() or dtype == pl.String:
            return compare_number(compare, value, dtype, operand)
    elif dtype == pl.String:
        return compare(value, operand)
    elif dtype in (pl.Date, pl.Datetime):
        return compare_moment(compare, value, dtype, _moment(operand, where))
    raise SettingsError(f"{where} is {operand!r}, which cannot be compared with a column of type {dtype}.")


_TRUTH = {"true": True, "false": False}


def _moment(text: str, where: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(f"{where} is {text!r}, expected a date or a time such as 2026-11-01T09:00:00.") from error
