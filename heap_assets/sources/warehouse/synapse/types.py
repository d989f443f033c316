"""Types between T-SQL, Arrow and Polars: how columns are read, and how they are loaded.

Sources: Microsoft's pages "Data types" of Synapse's dedicated pools and of Fabric's warehouses, and "COPY INTO". Times
are staged as text: what COPY makes of Parquet's times is documented for neither.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import pyarrow as pa

from heap_assets.sources.warehouse.staged_types import TypeNames
from heap_assets.values import sql_identifier, sql_literal

_TIME, _MOMENT = "TIME(6)", "DATETIME2(6)"


def _types(engine: str, text: str, longest: int) -> TypeNames:
    return TypeNames(
        engine, integer="BIGINT", decimal="DECIMAL", floating="FLOAT", boolean="BIT", text=text,
        binary="VARBINARY(8000)", json=text, timestamp=_MOMENT, instant=_MOMENT, time=_TIME, longest_text=longest,
        longest_binary=8_000, staged={_MOMENT: text},
    )  # fmt: skip


SYNAPSE = _types("Synapse", "NVARCHAR(4000)", 4_000)
"""Of dedicated pools, whose VARCHAR is of one code page; no text of so many bytes has more UTF-16 units."""
FABRIC = _types("Fabric", "VARCHAR(8000)", 8_000)
"""Of Fabric, whose VARCHAR is UTF-8 and counts bytes."""

_ARROW: Mapping[str, pa.DataType] = {
    "TINYINT": pa.int16(), "SMALLINT": pa.int16(), "INT": pa.int32(), "BIGINT": pa.int64(), "BIT": pa.bool_(),
    "REAL": pa.float32(), "FLOAT": pa.float64(), "DATE": pa.date32(), "TIME": pa.time64("us"),
    "DATETIME2": pa.timestamp("us"), "DATETIME": pa.timestamp("us"), "SMALLDATETIME": pa.timestamp("us"),
    "DATETIMEOFFSET": pa.timestamp("us", "UTC"), "BINARY": pa.binary(), "VARBINARY": pa.binary(),
    "MONEY": pa.decimal128(19, 4), "SMALLMONEY": pa.decimal128(10, 4),
}  # fmt: skip
_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")
_ROOM = re.compile(r"\(.*\)")
_TEXTS = frozenset({"CHAR", "VARCHAR", "NCHAR", "NVARCHAR"})


def spelled(kind: str, length: int | None, precision: int | None, scale: int | None, digits: int | None) -> str:
    """Write a type of INFORMATION_SCHEMA.COLUMNS as statements do."""
    name = {"NUMERIC": "DECIMAL"}.get(kind.upper(), kind.upper())
    if name == "DECIMAL":
        return f"DECIMAL({precision or 18},{scale or 0})"
    if name in ("DATETIME2", "TIME", "DATETIMEOFFSET"):
        return f"{name}({7 if digits is None else digits})"
    if length is not None and name in (*_TEXTS, "BINARY", "VARBINARY"):
        return f"{name}({'MAX' if length < 0 else length})"
    return name


def arrow_type(kind: str) -> pa.DataType:
    """Return the Arrow type in which a column is kept."""
    if number := _DECIMAL.fullmatch(kind):
        return pa.decimal128(int(number[1]), int(number[2]))
    return _ARROW.get(_ROOM.sub("", kind), pa.string())


def selected(name: str, kind: str, *, text: bool) -> str:
    """Write a column of a SELECT: zones in UTC, all times to the microsecond, what has no type in Arrow as text."""
    column, base = sql_identifier(name), _ROOM.sub("", kind)
    if base == "DATETIMEOFFSET" and not text:
        return f"CAST(SWITCHOFFSET({column}, '+00:00') AS {_MOMENT}) AS {column}"
    if base == "DATETIME2" and not text:
        return f"CAST({column} AS {_MOMENT}) AS {column}"
    if text or base == "TIME" or (base not in _ARROW and base not in _TEXTS and not _DECIMAL.fullmatch(kind)):
        return f"{as_text(column, kind)} AS {column}"
    return column


def as_text(column: str, kind: str) -> str:
    """Write a value as text with all its digits."""
    base = _ROOM.sub("", kind)
    if base in _TEXTS:
        return column
    style = {"FLOAT": 3, "REAL": 3, "DATETIME2": 126, "DATETIME": 126, "VARBINARY": 2, "BINARY": 2}.get(base)
    return f"CONVERT(VARCHAR(8000), {column}, {style})" if style else f"CAST({column} AS VARCHAR(8000))"


def summed_hash(columns: Mapping[str, str]) -> str:
    """Write a checksum over rows: 56 bits of the SHA-256 of each, summed up. HASHBYTES and SUM are in both engines."""
    parts = [f"COALESCE({as_text(sql_identifier(name), kind)}, 'null')" for name, kind in columns.items()]
    row = f"CAST('' AS NVARCHAR(MAX)) + {' + CHAR(31) + '.join(parts)}"
    number = f"CAST(SUBSTRING(HASHBYTES('SHA2_256', {row}), 1, 7) AS BIGINT)"
    return f"CAST(SUM(CAST({number} AS DECIMAL(38,0))) AS VARCHAR(40))"


def literal(text: str) -> str:
    """Quote a text of any letters."""
    return f"N{sql_literal(text)}"
