"""Types of engines that load a Parquet file into a table beside, and put its rows into place by SQL from there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from heap_assets.sources.warehouse.file_columns import FileColumn, beyond_years
from heap_assets.sources.warehouse.publish import Publication, PublishError
from heap_assets.values import json_lost, json_text

_DECIMAL = re.compile(r"([A-Z]+)\((\d+),(\d+)\)")
_NUL = "\x00"


@dataclass(frozen=True)
class StagedColumn(FileColumn):
    """How a column is loaded; `staged` is the type in which it is staged, its own unless given."""

    staged: str = ""

    @property
    def staged_kind(self) -> str:
        return self.staged or self.kind


@dataclass(frozen=True)
class TypeNames:
    """An engine's types, and how staged values become values of them.

    Attributes
    ----------
    engine
        What messages call it.
    integer, decimal, floating, text, …
        Names of types; of decimals without digits. `json` is that of lists, structs and JSON, or `text` where there is
        none; `instant` that of times with a zone.
    longest_text, longest_binary
        In bytes; longer values are left out and counted.
    values
        Type to the expression that makes a value of it of a staged one, `{}`.
    staged
        Type to the one in which its values are staged.
    json_takes_scalars
        Whether a column of JSON takes numbers and booleans as they are.
    """

    engine: str
    integer: str
    decimal: str
    floating: str
    boolean: str
    text: str
    binary: str
    json: str
    timestamp: str
    instant: str
    longest_text: int
    longest_binary: int
    values: Mapping[str, str] = field(default_factory=dict)
    staged: Mapping[str, str] = field(default_factory=dict)
    json_takes_scalars: bool = False
    time: str = "TIME"

    def column(self, name: str, dtype: pl.DataType, publication: Publication) -> StagedColumn:
        """Return how a column is loaded; PublishError if the engine has no type for it."""
        value = pl.col(name)
        if name in publication.json_columns:
            return self._text(value, self.json)
        if isinstance(dtype, pl.List | pl.Array | pl.Struct):
            return self._text(json_text(value, dtype), self.json, json_lost(value, dtype))
        if isinstance(dtype, pl.Datetime | pl.Duration | pl.Time):
            return self._time(value, dtype)
        if isinstance(dtype, pl.Decimal):
            # of all digits, since engines take a file's decimals in a column of the same ones alone
            return StagedColumn(self._decimal(dtype.scale), value.cast(pl.Decimal(38, dtype.scale)))
        if dtype.is_integer():
            return self._integer(value, dtype)
        if dtype.is_float():
            return StagedColumn(self.floating, value.cast(pl.Float64))
        if isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
            return self._text(value.cast(pl.String), self.text)
        if isinstance(dtype, pl.Binary):
            return self._binary(value)
        if isinstance(dtype, pl.Date):
            beyond = beyond_years(value, dtype)
            return StagedColumn("DATE", pl.when(~beyond).then(value), beyond)
        if isinstance(dtype, pl.Boolean):
            return StagedColumn(self.boolean, value)
        raise PublishError(
            f"{publication.table}: column {name!r} is of type {dtype}, which {self.engine} does not have"
        )

    def inserted(self, column: str, loaded: StagedColumn, target: str) -> str:
        """Write the staged value of a quoted column as the type that the table has for it, which may be wider."""
        if target == self.text and loaded.kind == self.json:
            return column
        template = self.values.get(loaded.kind)
        value = template.format(column) if template else column
        is_fitting = target == (loaded.kind if template else loaded.staged_kind)
        return value if is_fitting or target == self.json else f"CAST({value} AS {target})"

    def joined(self, old: str, new: str) -> str | None:
        """Return the type that a column has after values of another type were loaded; None if they cannot be.

        A column that is wider takes what fits into it. Whole numbers widen to floats, and numbers to more digits after
        the point.
        """
        if old in (new, self.text):
            return old
        was, comes = self._scale(old), self._scale(new)
        if was is not None and comes is not None:
            return old if comes <= was and (old != self.integer or new == self.integer) else new
        if {old, new} == {self.integer, self.floating}:
            return self.floating
        is_scalar = comes is not None or new in (self.floating, self.boolean)
        return old if self.json_takes_scalars and old == self.json and is_scalar else None

    def becomes_float(self, old: str, new: str) -> bool:
        """Whether whole numbers become floats, which do not hold all of them."""
        return old == self.integer and new == self.floating

    def _scale(self, kind: str) -> int | None:
        """Return the digits after the point of a type of numbers, None of any other."""
        number = _DECIMAL.fullmatch(kind)
        if number:
            return int(number[3]) if number[1] == self.decimal else None
        return 0 if kind == self.integer else None

    def _decimal(self, scale: int) -> str:
        return f"{self.decimal}(38,{scale})"

    def _integer(self, value: pl.Expr, dtype: pl.DataType) -> StagedColumn:
        if not isinstance(dtype, pl.UInt64 | pl.Int128 | pl.UInt128):
            return StagedColumn(self.integer, value.cast(pl.Int64))
        integers = value.cast(pl.Decimal(38, 0), strict=False)
        return StagedColumn(self._decimal(0), integers, integers.is_null() & value.is_not_null())

    def _text(self, value: pl.Expr, kind: str, lost: pl.Expr | None = None) -> StagedColumn:
        beyond = value.str.len_bytes() > self.longest_text
        counted = beyond if lost is None else beyond.fill_null(value=False).cast(pl.UInt32) + lost
        return StagedColumn(kind, pl.when(~beyond).then(value), counted, self.text)

    def _binary(self, value: pl.Expr) -> StagedColumn:
        beyond = value.bin.size() > self.longest_binary
        fitting = pl.when(~beyond).then(value)
        staged = self.staged.get(self.binary, "")
        return StagedColumn(self.binary, fitting.bin.encode("hex") if staged else fitting, beyond, staged)

    def _time(self, value: pl.Expr, dtype: Any) -> StagedColumn:
        if isinstance(dtype, pl.Time):
            finer = value.cast(pl.Int64) % 1000 != 0
            text = pl.when(~finer).then(value.dt.strftime("%H:%M:%S%.6f"))
            return StagedColumn(self.time, text, finer, self.text)
        if isinstance(dtype, pl.Duration):
            return StagedColumn(self.text, value.dt.to_string("iso"))
        if dtype.time_unit == "ns":
            utc = value.dt.convert_time_zone("UTC") if dtype.time_zone else value
            return StagedColumn(self.text, utc.dt.strftime("%Y-%m-%dT%H:%M:%S%.9f" + ("Z" if dtype.time_zone else "")))
        beyond = beyond_years(value, dtype)
        micros = value.dt.cast_time_unit("us")
        utc = micros.dt.convert_time_zone("UTC") if dtype.time_zone else micros
        kind = self.instant if dtype.time_zone else self.timestamp
        staged = self.staged.get(kind, "")
        fitting = pl.when(~beyond).then(utc)
        if staged == self.text:
            return StagedColumn(kind, fitting.dt.strftime("%Y-%m-%dT%H:%M:%S%.6f"), beyond, staged)
        is_naive = dtype.time_zone and staged == self.timestamp
        return StagedColumn(kind, fitting.dt.replace_time_zone(None) if is_naive else fitting, beyond, staged)


def without_nul(column: StagedColumn) -> StagedColumn:
    """Return a column of text without the sign NUL, of engines that refuse it; values that had it are counted."""
    has_nul = column.value.str.contains(_NUL, literal=True)
    lost = has_nul if column.lost is None else column.lost | has_nul
    return StagedColumn(column.kind, column.value.str.replace_all(_NUL, "", literal=True), lost, column.staged)
