"""Avro schemas in Polars' types."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import polars as pl

_PRIMITIVES: Mapping[str, pl.DataType] = {
    "null": pl.Null(),
    "boolean": pl.Boolean(),
    "int": pl.Int64(),
    "long": pl.Int64(),
    "float": pl.Float64(),
    "double": pl.Float64(),
    "bytes": pl.Binary(),
    "string": pl.String(),
}
_LOGICAL: Mapping[tuple[str, str], pl.DataType] = {
    ("int", "date"): pl.Date(),
    ("int", "time-millis"): pl.Time(),
    ("long", "time-micros"): pl.Time(),
    ("long", "timestamp-millis"): pl.Datetime("us", "UTC"),
    ("long", "timestamp-micros"): pl.Datetime("us", "UTC"),
    ("long", "timestamp-nanos"): pl.Datetime("ns", "UTC"),
    ("long", "local-timestamp-millis"): pl.Datetime("us"),
    ("long", "local-timestamp-micros"): pl.Datetime("us"),
    ("long", "local-timestamp-nanos"): pl.Datetime("ns"),
}
_READ_BY_FASTAVRO_AS_INTEGER = frozenset({"timestamp-nanos", "local-timestamp-nanos"})


class AvroSchema:
    """A record schema: its columns in Polars' types, and whether the compiled reader takes it.

    Raises
    ------
    ValueError
        If the top of the schema is no record.
    """

    def __init__(self, schema: Any) -> None:
        if not isinstance(schema, Mapping) or schema.get("type") != "record":
            raise ValueError("the rows of the file are no records")
        self.is_plain = True
        self._named: dict[str, Any] = {}
        self._open: set[str] = set()
        self.fields: dict[str, Any] = {field["name"]: field["type"] for field in schema["fields"]}
        self._open.add(_name(schema))
        self._named[_name(schema)] = schema
        self.dtypes: dict[str, pl.DataType] = {name: self._dtype(kind) for name, kind in self.fields.items()}

    def frame(self, rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
        """Put decoded records into typed columns."""
        return pl.DataFrame(
            {
                name: pl.Series(name, [_plain(row[name], dtype) for row in rows], dtype=dtype, strict=True)
                for name, dtype in self.dtypes.items()
            }
        )

    def _dtype(self, kind: Any) -> pl.DataType:
        if isinstance(kind, list):
            return self._union(kind)
        if isinstance(kind, str):
            return _PRIMITIVES[kind] if kind in _PRIMITIVES else self._reference(kind)
        inner = kind["type"]
        if isinstance(inner, Mapping | list):
            return self._dtype(inner)
        logical = kind.get("logicalType")
        if (inner, logical) in _LOGICAL:
            return _LOGICAL[inner, logical]
        if logical == "decimal" and inner in {"bytes", "fixed"} and int(kind.get("precision", 99)) <= 38:
            self._named[_name(kind)] = kind
            return pl.Decimal(int(kind["precision"]), int(kind.get("scale", 0)))
        if logical is not None and (inner, logical) != ("string", "uuid"):
            self.is_plain = self.is_plain and inner in {"int", "long", "string"}
        return self._complex(kind, inner)

    def _complex(self, kind: Mapping[str, Any], inner: str) -> pl.DataType:
        if inner == "array":
            return pl.List(self._dtype(kind["items"]))
        if inner == "map":
            return pl.List(pl.Struct({"key": pl.String(), "value": self._dtype(kind["values"])}))
        if inner in {"record", "enum", "fixed"}:
            self._named[_name(kind)] = kind
        if inner == "enum":
            return pl.String()
        if inner == "fixed":
            return pl.Binary()
        if inner == "record":
            self._open.add(_name(kind))
            fields = {field["name"]: self._dtype(field["type"]) for field in kind["fields"]}
            self._open.discard(_name(kind))
            return pl.Struct(fields)
        return self._dtype(inner)

    def _union(self, kinds: list[Any]) -> pl.DataType:
        inner = [kind for kind in kinds if kind != "null"]
        if len(inner) == 1:
            self.is_plain = self.is_plain and len(kinds) == 2
            return self._dtype(inner[0])
        if not inner:
            return pl.Null()
        self.is_plain = False
        for kind in inner:
            self._dtype(kind)  # registers the names that later fields may refer to
        return pl.String()

    def _reference(self, name: str) -> pl.DataType:
        short = name.rpartition(".")[2]
        if short in self._open:
            self.is_plain = False  # a type within itself has no Polars type: it is kept as JSON
            return pl.String()
        if short not in self._named:
            raise ValueError(f"the schema uses type {name!r}, which it does not define")
        return self._dtype(self._named[short])


def canonical(dtype: pl.DataType) -> pl.DataType:
    """Return the type that a column of any source is kept in; every widening here is lossless."""
    if dtype.is_signed_integer():
        return pl.Int64()
    if dtype.is_unsigned_integer() and not isinstance(dtype, pl.UInt64):
        return pl.Int64()
    if isinstance(dtype, pl.Float32):
        return pl.Float64()
    if isinstance(dtype, pl.Enum | pl.Categorical):
        return pl.String()
    if isinstance(dtype, pl.Datetime) and dtype.time_unit == "ms":
        return pl.Datetime("us", dtype.time_zone)
    return dtype


def _name(kind: Mapping[str, Any]) -> str:
    return str(kind.get("name", "")).rpartition(".")[2]


def _plain(value: Any, dtype: pl.DataType) -> Any:
    if value is None:
        return None
    if isinstance(dtype, pl.String):
        if isinstance(value, str | UUID | date | time | Decimal):
            return str(value)
        return json.dumps(value, default=_text, ensure_ascii=False)
    if isinstance(dtype, pl.List):
        if isinstance(value, Mapping):
            value = [{"key": key, "value": item} for key, item in value.items()]
        return [_plain(item, dtype.inner) for item in value]  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        return {field.name: _plain(value[field.name], field.dtype) for field in dtype.fields}  # type: ignore[arg-type]
    return value


def _text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
