"""Turn mapped columns into the values that are sent: text, whole numbers, floats, booleans."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import cast

import polars as pl

from heap_assets.activation.engine.spec import Property, SyncSpec
from heap_assets.activation.engine.value_rules import Recipe, ValueRules
from heap_assets.errors import SettingsError
from heap_assets.values import json_or_exact

PLAIN = ValueRules()
NO_RECIPES: Mapping[str, Recipe] = {}
EXACT = 2**53
"""Whole numbers up to here survive a reader that makes them floats."""
_ISO = "%Y-%m-%dT%H:%M:%S%.{}fZ"
_DIGITS = 15
"""Every decimal of so many digits is the one that a double is written with."""


def property_columns(
    spec: SyncSpec, rows: pl.LazyFrame, rules: ValueRules = PLAIN, recipes: Mapping[str, Recipe] = NO_RECIPES
) -> dict[str, tuple[pl.Expr, Property]]:
    """Return the property names that will be sent, each with the expression of its value.

    Structs become one property per leaf, joined with dots; lists become text joined with `||`, as Heap itself does
    (heap.md 1.2), and lists of structs or lists JSON text; dates and times become ISO 8601 in UTC with every fraction
    that they have; numbers that a JSON reader would round become text (docs/values.md). What `rules` say comes before
    that; `recipes` make the identifiers of the properties that they name.

    Raises SettingsError if a mapped column does not exist, or is of a type that cannot be sent.
    """
    schema = rows.collect_schema()
    leaves: dict[str, tuple[pl.Expr, Property]] = {}
    for name, mapped in spec.mapped.items():
        column = mapped.column if mapped.column in schema else name
        if column not in schema:
            raise SettingsError(
                f"sync {spec.name}: property {name!r} comes from column {mapped.column!r}, which the rows do not have"
            )
        if name in recipes:
            leaves[name] = (recipes[name].applied(pl.col(column), already=name in spec.hashed), mapped)
            continue
        own_leaves = _leaves(spec.name, name, pl.col(column), schema[column], rules)
        leaves |= {n: (e, mapped) for n, e in own_leaves.items()}
    return leaves


def _leaves(sync: str, name: str, value: pl.Expr, dtype: pl.DataType, rules: ValueRules) -> dict[str, pl.Expr]:
    if isinstance(dtype, pl.Struct):
        leaves: dict[str, pl.Expr] = {}
        for leaf in dtype.fields:
            inner = value.struct.field(leaf.name)
            leaves |= _leaves(sync, f"{name}.{leaf.name}", inner, cast("pl.DataType", leaf.dtype), rules)
        return leaves
    return {name: rules.applied(value, dtype, lambda: sendable(value, dtype, f"sync {sync}: property {name!r}"))}


def sendable(value: pl.Expr, dtype: pl.DataType, column: str) -> pl.Expr:
    """Return the expression of a value as text, Int64, Float64, Boolean or Decimal, which :func:`json_value` finishes.

    Raises SettingsError for types without a JSON form.
    """
    if dtype == pl.String or dtype == pl.Boolean or isinstance(dtype, pl.Decimal):
        return value
    if dtype == pl.Null:
        return value.cast(pl.String)
    if dtype.is_integer():
        return value.cast(pl.String if dtype in (pl.UInt64, pl.Int128, pl.UInt128) else pl.Int64)
    if dtype == pl.Float32:
        return value.cast(pl.String).cast(
            pl.Float64
        )  # the digits that a Float32 is written with, not those of its bits
    if dtype == pl.Float64:
        return value
    if isinstance(dtype, pl.Array):
        return sendable(value.arr.to_list(), pl.List(dtype.inner), column)
    if isinstance(dtype, pl.List):
        if isinstance(dtype.inner, pl.Struct | pl.List | pl.Array):
            return json_or_exact(value, dtype)
        element, inner = pl.element(), cast("pl.DataType", dtype.inner)
        is_plain = inner.is_numeric() or inner == pl.Boolean
        parts = element.cast(pl.String) if is_plain else sendable(element, inner, column)
        return value.list.eval(parts).list.join("||", ignore_nulls=True)
    text = _text(value, dtype)
    if text is None:
        raise SettingsError(f"{column} is of type {dtype}, which has no form in JSON: map another column")
    return text


def _text(value: pl.Expr, dtype: pl.DataType) -> pl.Expr | None:
    if isinstance(dtype, pl.Datetime):
        return iso_text(value, dtype)
    if dtype == pl.Date:
        return value.dt.strftime("%Y-%m-%d")
    if dtype == pl.Time:
        return value.dt.strftime("%H:%M:%S%.f")
    if isinstance(dtype, pl.Duration):
        return value.dt.to_string("iso")
    if dtype == pl.Binary:
        return value.bin.encode("base64")
    return value.cast(pl.String) if isinstance(dtype, pl.Categorical | pl.Enum) else None


def iso_text(value: pl.Expr, dtype: pl.Datetime) -> pl.Expr:
    """Write times as ISO 8601 in UTC: with milliseconds, or with six or nine digits where there are more."""
    utc = value.dt.convert_time_zone("UTC") if dtype.time_zone else value
    if dtype.time_unit == "ms":
        return utc.dt.strftime(_ISO.format(3))
    number = utc.to_physical()
    finest = utc.dt.strftime(_ISO.format(6))
    if dtype.time_unit == "ns":
        finest = pl.when(number % 1_000 == 0).then(finest).otherwise(utc.dt.strftime(_ISO.format(9)))
    millisecond = {"us": 1_000, "ns": 1_000_000}[dtype.time_unit]
    return pl.when(number % millisecond == 0).then(utc.dt.strftime(_ISO.format(3))).otherwise(finest)


def decimal_is_number(value: pl.Expr, scale: int) -> pl.Expr:
    """Whether a decimal goes as a number: whole ones up to 2^53, others with as many digits as every double keeps."""
    if scale == 0:
        return value.abs() <= EXACT
    digits = value.cast(pl.String).str.replace_all(r"[-.]", "").str.strip_chars("0")
    return digits.str.len_chars() <= _DIGITS


def json_values(values: pl.Series) -> list[object]:
    """Return a column's values as they are sent: numbers that a reader would round are text."""
    listed: list[object] = values.to_list()
    if isinstance(values.dtype, pl.Decimal):
        scale = values.dtype.scale
        number = values.to_frame("v").select(decimal_is_number(pl.col("v"), scale))["v"].to_list()
        return [_decimal(value, as_number, scale) for value, as_number in zip(listed, number, strict=True)]
    if values.dtype == pl.Int64:
        return [json_value(value) for value in listed]
    return listed


def _decimal(value: object, as_number: bool, scale: int) -> object:
    if not isinstance(value, Decimal):
        return None
    if as_number:
        return float(value) if scale else int(value)
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if scale else text


def json_value(value: object) -> object:
    """Return a value as it is sent: whole numbers beyond 2^53 as text, because readers round them."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > EXACT:
        return str(value)
    return value


def utf16_units(text: pl.Expr) -> pl.Expr:
    """Count the UTF-16 code units of a text; null for null."""
    return text.str.len_chars() + text.str.count_matches(r"[\x{10000}-\x{10FFFF}]")


def utf16_longer_than(texts: pl.Series, units: int) -> pl.Series:
    """Tell which texts have more than `units` UTF-16 code units (heap.md 1.9 counts those); null is never too long."""
    suspects = texts.str.len_bytes() > units  # UTF-16 never takes more units than UTF-8 takes bytes
    if not suspects.any():
        return suspects.fill_null(value=False)
    units_of_each = texts.str.len_chars() + texts.str.count_matches(r"[\x{10000}-\x{10FFFF}]")
    return (units_of_each > units).fill_null(value=False)
