"""Conversion of Polars columns to PostgreSQL: type, the expression for COPY, and values that do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from heap_assets.sources.warehouse.file_columns import FileColumn, beyond_years
from heap_assets.sources.warehouse.publish import Publication, PublishError
from heap_assets.values import json_lost, json_text

_SCALARS: Mapping[type[pl.DataType], str] = {
    pl.Int8: "smallint", pl.Int16: "smallint", pl.Int32: "integer", pl.Int64: "bigint",
    pl.UInt8: "smallint", pl.UInt16: "integer", pl.UInt32: "bigint", pl.UInt64: "numeric(20,0)",
    pl.Int128: "numeric(39,0)", pl.UInt128: "numeric(39,0)",
    pl.Float32: "real", pl.Float64: "double precision", pl.Boolean: "boolean", pl.String: "text",
    pl.Categorical: "text", pl.Enum: "text", pl.Null: "text", pl.Binary: "bytea", pl.Date: "date", pl.Time: "time",
    pl.Struct: "jsonb",
}  # fmt: skip
_NUL = "\x00"
_NUL_IN_JSON = r"((?:^|[^\\])(?:\\\\)*)(?:\\u0000)+"


def copy_column(name: str, dtype: pl.DataType, publication: Publication) -> FileColumn:
    """Return how a column is loaded; PublishError if PostgreSQL has no type for it."""
    if name in publication.json_columns:
        return _json(pl.col(name), None)
    column = _copy_column(pl.col(name), dtype)
    if column is None:
        raise PublishError(f"{publication.table}: column {name!r} is of type {dtype}, which PostgreSQL does not have")
    return column


def _copy_column(value: pl.Expr, dtype: Any) -> FileColumn | None:
    if isinstance(dtype, pl.Array):
        return _copy_column(value.arr.to_list(), pl.List(dtype.inner))
    if isinstance(dtype, pl.List):
        inner = _copy_column(pl.element(), _instance(dtype.inner))
        if inner is None:
            return None
        if isinstance(dtype.inner, pl.Struct | pl.List | pl.Array):
            return _json(json_text(value, dtype), json_lost(value, dtype))
        lost = None if inner.lost is None else value.list.eval(inner.lost.cast(pl.UInt32)).list.sum().fill_null(0)
        return FileColumn(f"{inner.kind}[]", value.list.eval(inner.value), lost)
    if isinstance(dtype, pl.Struct):
        return _json(json_text(value, dtype), json_lost(value, dtype))
    if isinstance(dtype, pl.Datetime | pl.Date | pl.Time | pl.Duration):
        return _time(value, dtype)
    if isinstance(dtype, pl.Decimal):
        return FileColumn(f"numeric({dtype.precision or 38},{dtype.scale})", value.cast(pl.String))
    kind = next((kind for polars_type, kind in _SCALARS.items() if isinstance(dtype, polars_type)), None)
    if kind is None:
        return None
    if kind == "text":
        text = value.cast(pl.String)
        return FileColumn(kind, text.str.replace_all(_NUL, "", literal=True), text.str.contains(_NUL, literal=True))
    return FileColumn(kind, value.cast(pl.String) if kind.startswith("numeric") else value)


def _time(value: pl.Expr, dtype: Any) -> FileColumn:
    if isinstance(dtype, pl.Time):
        finer = value.cast(pl.Int64) % 1000 != 0
        return FileColumn("time", pl.when(~finer).then(value.dt.strftime("%H:%M:%S%.6f")), finer)
    if isinstance(dtype, pl.Duration):
        if dtype.time_unit == "ns":
            return FileColumn("text", value.dt.to_string("iso"))
        return FileColumn("interval", pl.format("{} microseconds", value.dt.total_microseconds()))
    if isinstance(dtype, pl.Date):
        beyond = beyond_years(value, dtype)
        return FileColumn("date", pl.when(~beyond).then(value), beyond)
    zone = " with time zone" if dtype.time_zone else " without time zone"
    if dtype.time_unit == "ns":
        utc = value.dt.convert_time_zone("UTC") if dtype.time_zone else value
        return FileColumn("text", utc.dt.strftime("%Y-%m-%d %H:%M:%S%.f" + ("+00" if dtype.time_zone else "")))
    beyond = beyond_years(value, dtype)
    return FileColumn(f"timestamp{zone}", pl.when(~beyond).then(value).dt.cast_time_unit("us"), beyond)


def _json(text: pl.Expr, lost: pl.Expr | None) -> FileColumn:
    return FileColumn("jsonb", *json_without_nul(text, lost))


def json_without_nul(text: pl.Expr, lost: pl.Expr | None) -> tuple[pl.Expr, pl.Expr]:
    """Return JSON without NUL, which jsonb rejects, and how many values of a row are lost.

    Replaced twice because matches of the pattern may overlap.
    """
    without_nul = text.str.replace_all(_NUL_IN_JSON, "${1}").str.replace_all(_NUL_IN_JSON, "${1}")
    nul = (without_nul != text).cast(pl.UInt32)
    return without_nul, nul if lost is None else nul.fill_null(0) + lost


def _instance(dtype: Any) -> pl.DataType:
    instance: pl.DataType = dtype() if isinstance(dtype, type) else dtype
    return instance
