"""Turn mapped columns into the values that are sent: text, whole numbers, floats, booleans."""

from __future__ import annotations

from typing import cast

import polars as pl

from heap_assets.destinations.spec import Property, SyncSpec
from heap_assets.errors import SettingsError

EXACT = 2**53
"""Whole numbers up to here survive a reader that makes them floats."""
_ISO = "%Y-%m-%dT%H:%M:%S%.3fZ"


def property_columns(spec: SyncSpec, rows: pl.LazyFrame) -> dict[str, tuple[pl.Expr, Property]]:
    """Return the property names that will be sent, each with the expression of its value.

    Structs become one property per leaf, joined with dots; lists become text joined with `||`, as Heap itself does
    (heap.md 1.2); dates and times become ISO 8601 in UTC; whole numbers that a JSON reader would round become text.

    Raises
    ------
    SettingsError
        If a mapped column does not exist, or is of a type that cannot be sent.
    """
    schema = rows.collect_schema()
    leaves: dict[str, tuple[pl.Expr, Property]] = {}
    for name, mapped in spec.mapped.items():
        column = mapped.column if mapped.column in schema else name
        if column not in schema:
            raise SettingsError(
                f"sync {spec.name}: property {name!r} comes from column {mapped.column!r}, which the rows do not have"
            )
        leaves |= {n: (e, mapped) for n, e in _leaves(spec.name, name, pl.col(column), schema[column]).items()}
    return leaves


def _leaves(sync: str, name: str, value: pl.Expr, dtype: pl.DataType) -> dict[str, pl.Expr]:
    if isinstance(dtype, pl.Struct):
        found: dict[str, pl.Expr] = {}
        for leaf in dtype.fields:
            inner = value.struct.field(leaf.name)
            found |= _leaves(sync, f"{name}.{leaf.name}", inner, cast("pl.DataType", leaf.dtype))
        return found
    return {name: sendable(value, dtype, f"sync {sync}: property {name!r}")}


def sendable(value: pl.Expr, dtype: pl.DataType, what: str) -> pl.Expr:
    """Return the expression of a value as text, Int64, Float64 or Boolean.

    Raises
    ------
    SettingsError
        For binary and other types without a JSON form.
    """
    if dtype == pl.String or dtype == pl.Boolean:
        return value
    if dtype == pl.Null:
        return value.cast(pl.String)
    if dtype.is_integer():
        return value.cast(pl.Int64) if dtype.is_signed_integer() or dtype != pl.UInt64 else value.cast(pl.String)
    if dtype.is_float() or dtype.is_decimal():
        return value.cast(pl.Float64)
    if isinstance(dtype, pl.Datetime):
        utc = value.dt.convert_time_zone("UTC") if dtype.time_zone else value
        return utc.dt.strftime(_ISO)
    if dtype == pl.Date:
        return value.dt.strftime("%Y-%m-%d")
    if isinstance(dtype, pl.List) and dtype.inner != pl.Struct and not isinstance(dtype.inner, pl.List):
        return value.cast(pl.List(pl.String)).list.join("||", ignore_nulls=True)
    if isinstance(dtype, (pl.Categorical, pl.Enum)) or dtype in (pl.Time, pl.Duration):
        return value.cast(pl.String)
    raise SettingsError(f"{what} is of type {dtype}, which has no form in JSON: map another column")


def json_value(value: object) -> object:
    """Return a value as it stands in a request: whole numbers beyond 2^53 as text, because readers round them."""
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
    counted = texts.str.len_chars() + texts.str.count_matches(r"[\x{10000}-\x{10FFFF}]")
    return (counted > units).fill_null(value=False)
