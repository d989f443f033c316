"""Polars types as JSON, so that an index can tell them without opening a file."""

from __future__ import annotations

from typing import Any

import polars as pl

_SIMPLE: dict[str, pl.DataType] = {
    "boolean": pl.Boolean(),
    "long": pl.Int64(),
    "double": pl.Float64(),
    "string": pl.String(),
    "bytes": pl.Binary(),
    "date": pl.Date(),
    "time": pl.Time(),
    "null": pl.Null(),
}


KINDS = (*_SIMPLE, "timestamp", "decimal", "array", "record")
"""What :func:`kind_of` may answer."""


def to_json(dtype: pl.DataType) -> Any:
    """Spell a type, in Avro's words where there is one."""
    for name, simple in _SIMPLE.items():
        if dtype == simple:
            return name
    if isinstance(dtype, pl.Datetime):
        return {"timestamp": dtype.time_unit, "zone": dtype.time_zone}
    if isinstance(dtype, pl.Decimal):
        return {"decimal": [dtype.precision, dtype.scale]}
    if isinstance(dtype, pl.List):
        return {"array": to_json(dtype.inner)}  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        return {"record": [[field.name, to_json(field.dtype)] for field in dtype.fields]}  # type: ignore[arg-type]
    raise ValueError(f"type {dtype} is none that landing writes")


def from_json(spelled: Any) -> pl.DataType:
    """Read what :func:`to_json` wrote."""
    if isinstance(spelled, str):
        return _SIMPLE[spelled]
    if "timestamp" in spelled:
        return pl.Datetime(spelled["timestamp"], spelled["zone"])
    if "decimal" in spelled:
        precision, scale = spelled["decimal"]
        return pl.Decimal(precision, scale)
    if "array" in spelled:
        return pl.List(from_json(spelled["array"]))
    return pl.Struct({name: from_json(inner) for name, inner in spelled["record"]})


def kind_of(dtype: pl.DataType) -> str:
    """Name the kind of a type in one word, as used to tell apart columns that changed type."""
    spelled = to_json(dtype)
    return spelled if isinstance(spelled, str) else str(next(iter(spelled)))
