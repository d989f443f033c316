"""Types between Redshift, Arrow and Polars: how columns are read, and how they are loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping

import polars as pl
import pyarrow as pa

from heap_assets.sources.warehouse.arrow import times_of_text
from heap_assets.sources.warehouse.postgres.types import json_without_nul
from heap_assets.sources.warehouse.publish import Publication
from heap_assets.sources.warehouse.staged_types import StagedColumn, TypeNames, without_nul
from heap_assets.values import sql_identifier

_LONGEST = 65_535
TYPES = TypeNames(
    "Redshift", integer="BIGINT", decimal="DECIMAL", floating="DOUBLE PRECISION", boolean="BOOLEAN",
    text=f"VARCHAR({_LONGEST})", binary="VARBYTE", json="SUPER", timestamp="TIMESTAMP", instant="TIMESTAMPTZ",
    longest_text=_LONGEST, longest_binary=_LONGEST // 2,
    # COPY from Parquet knows neither times with a zone nor JSON in text
    values={"SUPER": "JSON_PARSE({})", "TIMESTAMPTZ": "({} AT TIME ZONE 'UTC')", "VARBYTE": "TO_VARBYTE({}, 'hex')"},
    staged={"TIMESTAMPTZ": "TIMESTAMP", "VARBYTE": f"VARCHAR({_LONGEST})"},
)  # fmt: skip
_SPELLED: Mapping[str, str] = {
    "character varying": "VARCHAR", "character": "CHAR", "numeric": "DECIMAL", "super": "SUPER",
    "binary varying": "VARBYTE", "varbyte": "VARBYTE", "timestamp without time zone": "TIMESTAMP",
    "timestamp with time zone": "TIMESTAMPTZ", "time without time zone": "TIME", "time with time zone": "TIMETZ",
}  # fmt: skip
_ARROW: Mapping[str, pa.DataType] = {
    "SMALLINT": pa.int16(), "INTEGER": pa.int32(), "BIGINT": pa.int64(), "REAL": pa.float32(),
    "DOUBLE PRECISION": pa.float64(), "BOOLEAN": pa.bool_(), "DATE": pa.date32(), "TIME": pa.time64("us"),
    "VARBYTE": pa.binary(), "TIMESTAMP": pa.timestamp("us"), "TIMESTAMPTZ": pa.timestamp("us", "UTC"),
}  # fmt: skip
_AS_THEY_ARE = frozenset(
    {"SMALLINT", "INTEGER", "BIGINT", "REAL", "DOUBLE PRECISION", "BOOLEAN", "DATE", "TIMESTAMP", "TIMESTAMPTZ"}
)
"""Types that the driver reads in binary form; of the others their text is read."""
_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")
_ROOM = re.compile(r"\(.*\)")


def spelled(kind: str, length: int | None, precision: int | None, scale: int | None) -> str:
    """Write a type of SVV_COLUMNS as statements do."""
    name = _SPELLED.get(kind, kind.upper())
    if name in ("VARCHAR", "CHAR") and length:
        return f"{name}({length})"
    return f"{name}({precision or 18},{scale or 0})" if name == "DECIMAL" else name


def arrow_type(kind: str) -> pa.DataType:
    """Return the Arrow type in which a column is kept."""
    if number := _DECIMAL.fullmatch(kind):
        return pa.decimal128(int(number[1]), int(number[2]))
    return _ARROW.get(kind, pa.string())


def selected(name: str, kind: str, *, text: bool) -> str:
    """Write a column of a SELECT: what the driver does not read comes as text, JSON as JSON."""
    column, base = sql_identifier(name), _ROOM.sub("", kind)
    if (base in _AS_THEY_ARE and not text) or base in ("VARCHAR", "CHAR"):
        return column
    return f"{_text(column, base)} AS {column}"


def hashed(name: str, kind: str, seed: str) -> str:
    """Write the hash of a column's value as text, seeded by that of the columns before."""
    text = f"COALESCE({_text(sql_identifier(name), _ROOM.sub('', kind))}, 'null')"
    return f"FNV_HASH({text}, {seed})" if seed else f"FNV_HASH({text})"


def value_of_text(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return what :func:`selected` wrote as text in a column's type."""
    if array.type.equals(kind) or not pa.types.is_string(array.type):
        return array
    if pa.types.is_binary(kind):
        return pa.array([None if value is None else bytes.fromhex(value) for value in array.to_pylist()], kind)
    return times_of_text(array) if pa.types.is_time(kind) else array.cast(kind)


def loaded_column(name: str, dtype: pl.DataType, publication: Publication) -> StagedColumn:
    """Return how a column is loaded; PublishError if Redshift has no type for it."""
    column = TYPES.column(name, dtype, publication)
    if column.kind == TYPES.json:
        text, lost = json_without_nul(column.value, column.lost)
        return StagedColumn(column.kind, text, lost, column.staged)
    is_text = dtype == pl.String or isinstance(dtype, pl.Categorical | pl.Enum)
    return without_nul(column) if is_text else column


def _text(column: str, base: str) -> str:
    if base == "SUPER":
        return f"JSON_SERIALIZE({column})"
    if base == "VARBYTE":
        return f"FROM_VARBYTE({column}, 'hex')"
    if base in ("GEOMETRY", "GEOGRAPHY"):
        return f"ST_AsEWKT({column})"
    if base == "BOOLEAN":  # which no cast makes text
        return f"CASE WHEN {column} THEN 'true' WHEN NOT {column} THEN 'false' END"
    return column if base in ("VARCHAR", "CHAR") else f"CAST({column} AS VARCHAR)"
