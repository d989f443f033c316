"""Types between Snowflake, Arrow and Polars: how columns are read, and how they are loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa

from heap_assets.sources.warehouse.file_columns import FileColumn, beyond_years
from heap_assets.sources.warehouse.publish import Publication, PublishError
from heap_assets.values import json_lost, json_text, sql_identifier, sql_literal

_NUMBER = re.compile(r"NUMBER\((\d+),(\d+)\)")
_UTC = pa.timestamp("us", "UTC")
_ARROW: Mapping[str, pa.DataType] = {
    "FLOAT": pa.float64(), "BOOLEAN": pa.bool_(), "DATE": pa.date32(), "TIME": pa.time64("us"), "BINARY": pa.binary(),
    "TIMESTAMP_NTZ": pa.timestamp("us"), "TIMESTAMP_LTZ": _UTC, "TIMESTAMP_TZ": _UTC,
}  # fmt: skip
_JSON = frozenset({"VARIANT", "OBJECT", "ARRAY", "MAP"})


def arrow_type(kind: str) -> pa.DataType:
    """Return the Arrow type in which a column is kept: whole numbers are 64 bits wide, or text beyond that."""
    if number := _NUMBER.fullmatch(kind):
        precision, scale = map(int, number.groups())
        return pa.int64() if scale == 0 else pa.decimal128(precision, scale)
    return _ARROW.get(kind, pa.string())


def selected(name: str, kind: str, *, text: bool) -> str:
    """Write a column of a SELECT; JSON comes as text, times in UTC and to the microsecond."""
    column = sql_identifier(name)
    if kind in _JSON:
        value = f"TO_JSON({column})"
    elif text or (kind not in _ARROW and kind != "TEXT" and not _NUMBER.fullmatch(kind)):
        value = f"TO_VARCHAR({column})"
    elif kind in ("TIMESTAMP_LTZ", "TIMESTAMP_TZ"):
        value = f"CAST({column} AS TIMESTAMP_LTZ(6))"
    elif kind in ("TIMESTAMP_NTZ", "TIME"):
        value = f"CAST({column} AS {kind}(6))"
    else:
        return column
    return f"{value} AS {column}"


_INTEGER, _TEXT, _VARIANT, _FLOAT = "NUMBER(38,0)", "TEXT", "VARIANT", "FLOAT"
_SCALARS: Mapping[type[pl.DataType], str] = {
    pl.Float32: _FLOAT, pl.Float64: _FLOAT, pl.Boolean: "BOOLEAN", pl.String: _TEXT, pl.Categorical: _TEXT,
    pl.Enum: _TEXT, pl.Binary: "BINARY", pl.Date: "DATE",
}  # fmt: skip
_LONGEST = 16 << 20
"""Bytes of a text."""


@dataclass(frozen=True)
class LoadedColumn(FileColumn):
    """How a column is loaded; `staged` is the type in which it is staged, its own unless given."""

    staged: str = ""

    @property
    def staged_kind(self) -> str:
        return self.staged or self.kind

    def inserted(self, column: str, target: str) -> str:
        """Write the staged value of a quoted column as the type that the table has for it, which may be wider."""
        if target == _TEXT and self.kind == _VARIANT:
            return column
        value = f"PARSE_JSON({column})" if self.kind == _VARIANT else column
        return value if target in (self.staged_kind, _VARIANT) else f"CAST({value} AS {target})"


def loaded_column(name: str, dtype: pl.DataType, publication: Publication) -> LoadedColumn:
    """Return how a column is loaded; PublishError if Snowflake has no type for it."""
    value = pl.col(name)
    if name in publication.json_columns:
        return LoadedColumn(_VARIANT, value, staged=_TEXT)
    if isinstance(dtype, pl.List | pl.Array | pl.Struct):
        return LoadedColumn(_VARIANT, json_text(value, dtype), json_lost(value, dtype), _TEXT)
    if isinstance(dtype, pl.Datetime | pl.Duration | pl.Time):
        return _time(value, dtype)
    if isinstance(dtype, pl.Decimal):
        precision, scale = dtype.precision or 38, dtype.scale
        kind = f"NUMBER(38,{scale})"
        return LoadedColumn(kind, value.cast(pl.Decimal(max(precision, scale), scale)))
    if dtype.is_integer():
        wide = isinstance(dtype, pl.UInt64 | pl.Int128 | pl.UInt128)
        if not wide:
            return LoadedColumn(_INTEGER, value.cast(pl.Int64))
        integers = value.cast(pl.Decimal(38, 0), strict=False)
        return LoadedColumn(_INTEGER, integers, integers.is_null() & value.is_not_null())
    kind = next((kind for polars_type, kind in _SCALARS.items() if isinstance(dtype, polars_type)), "")
    if kind == _TEXT:
        text = value.cast(pl.String)
        beyond = text.str.len_bytes() > _LONGEST
        return LoadedColumn(kind, pl.when(~beyond).then(text), beyond)
    if isinstance(dtype, pl.Date):
        beyond = beyond_years(value, dtype)
        return LoadedColumn(kind, pl.when(~beyond).then(value), beyond)
    if not kind:
        raise PublishError(f"{publication.table}: column {name!r} is of type {dtype}, which Snowflake does not have")
    return LoadedColumn(kind, value.cast(pl.Float64) if kind == _FLOAT else value)


def _time(value: pl.Expr, dtype: Any) -> LoadedColumn:
    if isinstance(dtype, pl.Time):
        finer = value.cast(pl.Int64) % 1000 != 0
        text = pl.when(~finer).then(value.dt.strftime("%H:%M:%S%.6f"))
        return LoadedColumn("TIME", text, finer, _TEXT)
    if isinstance(dtype, pl.Duration):
        return LoadedColumn(_TEXT, value.dt.to_string("iso"))
    if dtype.time_unit == "ns":
        utc = value.dt.convert_time_zone("UTC") if dtype.time_zone else value
        return LoadedColumn(_TEXT, utc.dt.strftime("%Y-%m-%dT%H:%M:%S%.9f" + ("Z" if dtype.time_zone else "")))
    beyond = beyond_years(value, dtype)
    micros = value.dt.cast_time_unit("us")
    utc = micros.dt.convert_time_zone("UTC") if dtype.time_zone else micros
    kind = "TIMESTAMP_TZ" if dtype.time_zone else "TIMESTAMP_NTZ"
    return LoadedColumn(kind, pl.when(~beyond).then(utc), beyond)


def joined(old: str, new: str) -> str | None:
    """Return the type that a column has after values of another type were loaded; None if they cannot be.

    A column that is wider takes what fits into it. Whole numbers widen to floats, and numbers to more digits after the
    point.
    """
    if old in (new, _TEXT):
        return old
    (was, fraction), (comes, coming) = _parts(old), _parts(new)
    if was == comes == "NUMBER":
        return old if coming <= fraction else new
    if {old, new} == {_INTEGER, _FLOAT}:
        return _FLOAT
    return old if old == _VARIANT and comes in ("NUMBER", "FLOAT", "BOOLEAN") else None


def becomes_float(old: str, new: str) -> bool:
    """Whether whole numbers become floats, which do not hold all of them."""
    return old == _INTEGER and new == _FLOAT


def literal(text: str) -> str:
    """Quote a text: in Snowflake a backslash in it is an escape."""
    return sql_literal(text.replace("\\", "\\\\"))


def _parts(kind: str) -> tuple[str, int]:
    number = _NUMBER.fullmatch(kind)
    return ("NUMBER", int(number[2])) if number else (kind, 0)
