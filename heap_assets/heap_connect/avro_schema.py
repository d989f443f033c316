"""Avro schemas in Polars' types."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import polars as pl

from heap_assets.heap_connect.avro_compiled import FlatField
from heap_assets.heap_connect.avro_kernel import BOOLEAN, DOUBLE, ENUM, FIXED, NEVER_NULL, NUMBER, TEXT

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
_FLAT = {
    "boolean": BOOLEAN,
    "int": NUMBER,
    "long": NUMBER,
    "double": DOUBLE,
    "string": TEXT,
    "bytes": TEXT,
    "fixed": FIXED,
}


def _scaled(factor: int, dtype: pl.DataType) -> Callable[[pl.Series], pl.Series]:
    return lambda numbers: (numbers if factor == 1 else numbers * factor).cast(dtype)


_SCALES: Mapping[tuple[str, str | None], Callable[[pl.Series], pl.Series]] = {
    spelling: _scaled(
        1_000_000 if spelling[1] == "time-millis" else 1_000 if spelling[1].endswith(("millis", "time-micros")) else 1,
        dtype,
    )
    for spelling, dtype in _LOGICAL.items()
}


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
        self._named: dict[str, Any] = {}
        self._open: set[str] = set()
        self.fields: dict[str, Any] = {field["name"]: field["type"] for field in schema["fields"]}
        self._open.add(_name(schema))
        self._named[_name(schema)] = schema
        self.dtypes: dict[str, pl.DataType] = {name: self._dtype(kind) for name, kind in self.fields.items()}

    @property
    def flat(self) -> list[FlatField] | None:
        """The fields as the compiled reader takes them; None if it does not."""
        fields = [self._flat(name) for name in self.fields]
        found = [field for field in fields if field is not None]
        return found if found and len(found) == len(fields) else None

    def _flat(self, name: str) -> FlatField | None:
        kind, null_branch = self.fields[name], NEVER_NULL
        if isinstance(kind, list):
            if len(kind) != 2 or kind.count("null") != 1:
                return None
            null_branch = kind.index("null")
            kind = kind[1 - null_branch]
        while isinstance(kind, str) and kind not in _PRIMITIVES:
            kind = self._named.get(kind.rpartition(".")[2])
        inner = kind["type"] if isinstance(kind, Mapping) else kind
        logical = kind.get("logicalType") if isinstance(kind, Mapping) else None
        dtype = self.dtypes[name]
        if inner == "enum":
            return FlatField(name, ENUM, null_branch, dtype, symbols=tuple(kind["symbols"]))
        if isinstance(dtype, pl.Decimal) or inner not in _FLAT:
            return None
        size = int(kind["size"]) if inner == "fixed" else int(inner == "bytes")
        return FlatField(name, _FLAT[inner], null_branch, dtype, size=size, scale=_SCALES.get((inner, logical)))

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
            return self._dtype(inner[0])
        if not inner:
            return pl.Null()
        for kind in inner:
            self._dtype(kind)  # registers the names that later fields may refer to
        return pl.String()

    def _reference(self, name: str) -> pl.DataType:
        short = name.rpartition(".")[2]
        if short in self._open:
            return pl.String()  # a type within itself has no Polars type: it is kept as JSON
        if short not in self._named:
            raise ValueError(f"the schema uses type {name!r}, which it does not define")
        return self._dtype(self._named[short])


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
