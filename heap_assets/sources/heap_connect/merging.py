"""Merging the schemas of many files: types that widen without loss are one column, others get columns of their own."""

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
"""The results of :func:`kind_of`."""


def to_json(dtype: pl.DataType) -> Any:
    """Spell a type as JSON, by Avro's names where there are any."""
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


def from_json(stored: Any) -> pl.DataType:
    """Read the result of :func:`to_json`."""
    if isinstance(stored, str):
        return _SIMPLE[stored]
    if "timestamp" in stored:
        return pl.Datetime(stored["timestamp"], stored["zone"])
    if "decimal" in stored:
        precision, scale = stored["decimal"]
        return pl.Decimal(precision, scale)
    if "array" in stored:
        return pl.List(from_json(stored["array"]))
    return pl.Struct({name: from_json(inner) for name, inner in stored["record"]})


def kind_of(dtype: pl.DataType) -> str:
    """Name the kind of a type in one word, as in names of columns that changed type."""
    stored = to_json(dtype)
    return stored if isinstance(stored, str) else str(next(iter(stored)))


_APART = re.compile(rf"(?P<origin>.+)__(?:{'|'.join(KINDS)})_*\Z", re.DOTALL)


class Columns:
    """The columns of a table, merged from the schemas of its files in their order.

    The first type of a column keeps the plain name. A type that fits without loss joins it; values of any other go to
    `<column>__<type>` (`plan__long` beside `plan`), so that neither old nor new values change their meaning. A column
    that is called like one of the table's `own` gets another name (:mod:`heap_assets.values`).

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
        """The property whose values a column holds, by column, where the two names differ."""
        return {column: name for column, name in self._property.items() if column != name}

    def add(self, schema: Mapping[str, pl.DataType], origins: Mapping[str, str] | None = None) -> dict[str, str]:
        """Add a file's columns; return for each the name that its values go under, no two under one.

        `origins`: :attr:`origins` of `schema`, if that is itself merged from several.
        """
        origins_by_column = origins or {}
        properties = {name: apart(origins_by_column.get(name, name), self._own) for name in schema}
        placed: dict[str, str] = {}
        for name in sorted(
            schema, key=lambda name: name in origins_by_column
        ):  # a column that keeps its name comes first
            column = self._plain(properties[name])
            if column not in placed.values() and self._fits(column, properties[name], schema[name]):
                placed[name] = self._join(column, properties[name], schema[name])
        for name in (name for name in schema if name not in placed):
            free = f"{self._plain(properties[name])}__{kind_of(schema[name])}"
            while free in placed.values() or not self._fits(free, properties[name], schema[name]):
                free += "_"
            placed[name] = self._join(free, properties[name], schema[name])
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
        current = self.dtypes.get(column)
        return dtype if current is None else widened(current, dtype)

    def _join(self, column: str, name: str, dtype: pl.DataType) -> str:
        self.dtypes[column] = self._joined(column, dtype) or dtype
        self._property[column] = name
        return column


def origin_of(name: str, columns: Container[str]) -> str | None:
    """Return the known column whose values of another type `name` holds (`plan` for `plan__long`), or None."""
    match = _APART.match(name)
    return match["origin"] if match and match["origin"] in columns and name not in columns else None


def widened(left: pl.DataType, right: pl.DataType) -> pl.DataType | None:
    """Return the type that holds both without loss, or None.

    Integers and floats were widened to 64 bits before; an Int64 does not fit a Float64.
    """
    if left == right or right == pl.Null:
        return left
    if left == pl.Null:
        return right
    if isinstance(left, pl.List) and isinstance(right, pl.List):
        inner = widened(_dtype(left.inner), _dtype(right.inner))
        return None if inner is None else pl.List(inner)
    if isinstance(left, pl.Struct) and isinstance(right, pl.Struct):
        fields = {field.name: _dtype(field.dtype) for field in left.fields}
        for field in right.fields:
            dtype = _dtype(field.dtype)
            joined = widened(fields[field.name], dtype) if field.name in fields else dtype
            if joined is None:
                return None
            fields[field.name] = joined
        return pl.Struct(fields)
    if isinstance(left, pl.Decimal) and isinstance(right, pl.Decimal) and left.scale == right.scale:
        return pl.Decimal(max(left.precision or 38, right.precision or 38), left.scale)
    return None


def fitted(name: str, present: pl.DataType | None, target: pl.DataType) -> pl.Expr:
    """Return a column in its widened type; null if `present`, its type in the file, is None."""
    if present is None or present == pl.Null:
        return pl.lit(None, dtype=target).alias(name)
    column = pl.col(name)
    return (column if present == target else _fit(column, present, target)).alias(name)


def _fit(value: pl.Expr, present: pl.DataType, target: pl.DataType) -> pl.Expr:
    if isinstance(present, pl.Struct) and isinstance(target, pl.Struct):
        inner = {field.name: _dtype(field.dtype) for field in present.fields}
        fields = [
            (
                _fit(value.struct.field(field.name), inner[field.name], _dtype(field.dtype))
                if field.name in inner
                else pl.lit(None, dtype=_dtype(field.dtype))
            ).alias(field.name)
            for field in target.fields
        ]
        return pl.when(value.is_not_null()).then(pl.struct(fields))
    if isinstance(present, pl.List) and isinstance(target, pl.List):
        return value.list.eval(_fit(pl.element(), _dtype(present.inner), _dtype(target.inner)))
    return value.cast(target)


def _dtype(dtype: object) -> pl.DataType:
    return dtype if isinstance(dtype, pl.DataType) else dtype()  # type: ignore[operator]
