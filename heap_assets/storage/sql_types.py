"""One type for a view's column whose partitions have several types: one that holds every value exactly, else text.

Left to itself, DuckDB takes whole numbers beside floats for doubles, which rounds those beyond 2^53, and ends every
query of a table whose column was a number on one day and a date on another.
"""

from __future__ import annotations

from collections.abc import Sequence

from duckdb.sqltypes import DuckDBPyType

_INTEGER_DIGITS = {
    "tinyint": 3, "smallint": 5, "integer": 10, "bigint": 19, "utinyint": 3, "usmallint": 5, "uinteger": 10,
    "ubigint": 20,
}  # fmt: skip
"""Whole numbers, with their most digits."""
_EXACT_AS_DOUBLE = {"float", "double", "tinyint", "smallint", "integer", "utinyint", "usmallint", "uinteger"}
_DECIMAL_DIGITS = 38
_ZONED = "timestamp with time zone"
_MOMENTS = {"date", "timestamp", _ZONED}
_STRIPPED = r"regexp_replace(regexp_replace({text}, '(000)+$', ''), '\.$', '')"
_FRACTIONS = {"timestamp": "%f", _ZONED: "%f", "timestamp_ns": "%n", "timestamptz_ns": "%n"}


def rewritten(column: str, types: Sequence[DuckDBPyType]) -> dict[str, str]:
    """Return the SQL cast for each of a column's types, so that a union of its partitions keeps every value.

    Parameters
    ----------
    column
        Its name, quoted for SQL.
    types
        DuckDB's types of its days.

    Returns the SQL expression for each type, by name; days of other types keep the column as it is. Dates and times of
    which some have a zone are all UTC, other types that no type holds together are text, as
    :func:`heap_assets.values.as_text` writes it.
    """
    if _is_lossless(types):
        return {}
    by_name = {str(dtype): dtype for dtype in types if dtype.id not in ("null", "varchar")}
    if {dtype.id for dtype in types} <= _MOMENTS | {"null"}:
        utc = f"CAST({column} AS TIMESTAMP) AT TIME ZONE 'UTC'"
        return {name: utc for name, dtype in by_name.items() if dtype.id != _ZONED}
    return {name: _text(column, dtype) for name, dtype in by_name.items()}


def _is_lossless(types: Sequence[DuckDBPyType]) -> bool:
    """Return whether the type that DuckDB finds for all of them holds each value exactly."""
    typed = list({str(dtype): dtype for dtype in types if dtype.id != "null"}.values())
    kinds = {dtype.id for dtype in typed}
    if kinds == {"struct"}:
        fields: dict[str, list[DuckDBPyType]] = {}
        for name, dtype in (field for struct in typed for field in struct.children):
            fields.setdefault(name.casefold(), []).append(dtype)
        return all(map(_is_lossless, fields.values()))
    if kinds == {"list"}:
        return _is_lossless([dtype.children[0][1] for dtype in typed])
    if "decimal" in kinds and kinds <= {"decimal", *_INTEGER_DIGITS}:
        digits = [_digits(dtype) for dtype in typed]
        return max(integer_part for integer_part, _ in digits) + max(scale for _, scale in digits) <= _DECIMAL_DIGITS
    return (
        len(typed) < 2
        or kinds <= _INTEGER_DIGITS.keys()
        or (kinds <= _EXACT_AS_DOUBLE and "double" in kinds)
        or kinds <= {"date", "timestamp"}
    )


def _digits(dtype: DuckDBPyType) -> tuple[int, int]:
    """Return the digits before and after the point."""
    if dtype.id != "decimal":
        return _INTEGER_DIGITS[dtype.id], 0
    precision, scale = (number for _, number in dtype.children)
    return precision - scale, scale


def _text(column: str, dtype: DuckDBPyType) -> str:
    plain = f"CAST({column} AS VARCHAR)"
    if dtype.id in ("float", "double"):
        is_integer = f"{column} = floor({column}) AND abs({column}) < 9223372036854775808"
        return f"CASE WHEN {is_integer} THEN CAST(CAST({column} AS BIGINT) AS VARCHAR) ELSE {plain} END"
    if dtype.id == "decimal":
        return f"rtrim(rtrim({plain}, '0'), '.')" if _digits(dtype)[1] else plain
    if dtype.id in _FRACTIONS:
        zoned = dtype.id in (_ZONED, "timestamptz_ns")
        moment = f"{column} AT TIME ZONE 'UTC'" if zoned else column
        text = _STRIPPED.format(text=f"strftime({moment}, '%Y-%m-%dT%H:%M:%S.{_FRACTIONS[dtype.id]}')")
        return f"{text} || 'Z'" if zoned else text
    if dtype.id == "blob":
        return f"base64({column})"
    return f"CAST(to_json({column}) AS VARCHAR)" if dtype.id in ("struct", "list", "map", "array") else plain
