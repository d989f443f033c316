"""Types between Snowflake, Arrow and Polars: how columns are read, and how they are loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pyarrow as pa

from heap_assets.sources.warehouse.staged_types import TypeNames
from heap_assets.values import sql_identifier, sql_literal

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


TYPES = TypeNames(
    "Snowflake", integer="NUMBER(38,0)", decimal="NUMBER", floating="FLOAT", boolean="BOOLEAN", text="TEXT",
    binary="BINARY", json="VARIANT", timestamp="TIMESTAMP_NTZ", instant="TIMESTAMP_TZ", longest_text=16 << 20,
    longest_binary=8 << 20, values={"VARIANT": "PARSE_JSON({})"}, json_takes_scalars=True,
)  # fmt: skip


def literal(text: str) -> str:
    """Quote a text: in Snowflake a backslash in it is an escape."""
    return sql_literal(text.replace("\\", "\\\\"))
