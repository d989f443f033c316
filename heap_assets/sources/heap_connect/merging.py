"""One column set out of many files: types that widen without loss are one column, others are kept side by side."""

from __future__ import annotations

import re
from collections.abc import Collection, Container, Mapping
from typing import Any

import polars as pl

from heap_assets.values import PREFIX, apart

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


_APART = re.compile(rf"(?P<origin>.+)__(?:{'|'.join(KINDS)})_*\Z", re.DOTALL)


class Columns:
    """The columns of a table as its files tell them, one after the other.

    The first type seen of a column keeps the plain name. A type that fits without loss joins it; any other goes to
    `<column>__<type>` (`plan__long` beside `plan`), so that neither old nor new values change their meaning. A column
    that is called like one of the table's `own` goes under another name (:mod:`heap_assets.values`).

    A column holds the values of one property only. A property that is itself called `plan__long` keeps that name if it
    came first, and whole numbers of `plan` then go to `plan__long_`; if they came first, it goes to
    `property_plan__long`.
    """

    def __init__(self, own: Collection[str] = ()) -> None:
        self.dtypes: dict[str, pl.DataType] = {}
        self._own = own
        self._property: dict[str, str] = {}

    @property
    def origins(self) -> dict[str, str]:
        """Column to the property whose values it holds, for those that are called otherwise."""
        return {column: name for column, name in self._property.items() if column != name}

    def take(self, schema: Mapping[str, pl.DataType], origins: Mapping[str, str] | None = None) -> dict[str, str]:
        """Add a file's columns; return for each the name that its values go under, no two under one.

        Parameters
        ----------
        origins
            As :attr:`origins` of what `schema` was put together with, if it was.
        """
        known = origins or {}
        named = {name: apart(known.get(name, name), self._own) for name in schema}
        placed: dict[str, str] = {}
        for name in sorted(schema, key=lambda name: name in known):  # a column that keeps its name comes first
            column = self._plain(named[name])
            if column not in placed.values() and self._fits(column, named[name], schema[name]):
                placed[name] = self._join(column, named[name], schema[name])
        for name in (name for name in schema if name not in placed):
            free = f"{self._plain(named[name])}__{kind_of(schema[name])}"
            while free in placed.values() or not self._fits(free, named[name], schema[name]):
                free += "_"
            placed[name] = self._join(free, named[name], schema[name])
        return {name: placed[name] for name in schema}

    def _plain(self, name: str) -> str:
        """Return the column of a property's first type."""
        column = name
        while self._property.get(column, name) != name:
            column = PREFIX + column
        return column

    def _fits(self, column: str, name: str, dtype: pl.DataType) -> bool:
        return self._property.get(column, name) == name and self._joined(column, dtype) is not None

    def _joined(self, column: str, dtype: pl.DataType) -> pl.DataType | None:
        known = self.dtypes.get(column)
        return dtype if known is None else widened(known, dtype)

    def _join(self, column: str, name: str, dtype: pl.DataType) -> str:
        self.dtypes[column] = self._joined(column, dtype) or dtype
        self._property[column] = name
        return column


def origin_of(name: str, known: Container[str]) -> str | None:
    """Return the known column whose values of another type `name` holds (`plan` for `plan__long`), or None."""
    match = _APART.match(name)
    return match["origin"] if match and match["origin"] in known and name not in known else None


def widened(one: pl.DataType, other: pl.DataType) -> pl.DataType | None:
    """Return the type that holds both without loss, or None.

    Integers and floats were widened to 64 bits before; an Int64 does not fit a Float64.
    """
    if one == other or other == pl.Null:
        return one
    if one == pl.Null:
        return other
    if isinstance(one, pl.List) and isinstance(other, pl.List):
        inner = widened(_dtype(one.inner), _dtype(other.inner))
        return None if inner is None else pl.List(inner)
    if isinstance(one, pl.Struct) and isinstance(other, pl.Struct):
        return _widened_struct(one, other)
    if isinstance(one, pl.Decimal) and isinstance(other, pl.Decimal) and one.scale == other.scale:
        return pl.Decimal(max(one.precision or 38, other.precision or 38), one.scale)
    return None


def _widened_struct(one: pl.Struct, other: pl.Struct) -> pl.DataType | None:
    fields = {field.name: _dtype(field.dtype) for field in one.fields}
    for field in other.fields:
        joined = widened(fields[field.name], _dtype(field.dtype)) if field.name in fields else _dtype(field.dtype)
        if joined is None:
            return None
        fields[field.name] = joined
    return pl.Struct(fields)


def fitted(name: str, present: pl.DataType | None, wanted: pl.DataType) -> pl.Expr:
    """Return a column in its widened type; a column that is not there is null."""
    if present is None or present == pl.Null:
        return pl.lit(None, dtype=wanted).alias(name)
    column = pl.col(name)
    return (column if present == wanted else _fit(column, present, wanted)).alias(name)


def _fit(value: pl.Expr, present: pl.DataType, wanted: pl.DataType) -> pl.Expr:
    if isinstance(present, pl.Struct) and isinstance(wanted, pl.Struct):
        inner = {field.name: _dtype(field.dtype) for field in present.fields}
        fields = [
            (
                _fit(value.struct.field(field.name), inner[field.name], _dtype(field.dtype))
                if field.name in inner
                else pl.lit(None, dtype=_dtype(field.dtype))
            ).alias(field.name)
            for field in wanted.fields
        ]
        return pl.when(value.is_not_null()).then(pl.struct(fields))
    if isinstance(present, pl.List) and isinstance(wanted, pl.List):
        return value.list.eval(_fit(pl.element(), _dtype(present.inner), _dtype(wanted.inner)))
    return value.cast(wanted)


def _dtype(dtype: object) -> pl.DataType:
    return dtype if isinstance(dtype, pl.DataType) else dtype()  # type: ignore[operator]
