"""Values of Heap's export in the types that they have in dumps: exact, or text, or null and counted; never another.

Warehouses infer types, dumps do not: ids are Int64, Heap's times are UTC, everything else is String.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from heap_assets.sources.heap_connect import key_dtype, read_times
from heap_assets.values import as_text

_REQUIRED = {"users": ("user_id",), "user_migrations": ("from_user_id", "to_user_id")}
_EVENT_REQUIRED = ("event_id", "user_id", "time")
ANY_EVENT = "events"
_TIME = pl.Datetime("us", "UTC")
_DIGITS = r"^\s*-?\d{1,19}\s*$"


@dataclass(frozen=True)
class HeapRows:
    """Rows in Heap's types, and what could not be read.

    Attributes
    ----------
    set_aside
        Rows left out for an id or a time that is there and cannot be read, by reason.
    lost
        Values that are null for the same cause in columns that a row may lack, by column.
    """

    frame: pl.LazyFrame
    set_aside: Mapping[str, int] = field(default_factory=dict)
    lost: Mapping[str, int] = field(default_factory=dict)

    def notes(self) -> dict[str, object]:
        """Return what a partition's footer keeps, as for rows of dumps; empty if everything could be read."""
        found: dict[str, object] = {}
        if self.set_aside:
            found |= {"rejected": sum(self.set_aside.values()), "rejected_reasons": dict(self.set_aside)}
        if self.lost:
            found |= {"values_lost": sum(self.lost.values()), "values_lost_in": dict(self.lost)}
        return found


def heap_rows(rows: pl.LazyFrame, table: str = ANY_EVENT) -> HeapRows:
    """Give rows their types; a row whose key or time cannot be read is set aside. Types alone never raise.

    Parameters
    ----------
    table
        Decides which columns are ids and times: the same names elsewhere are custom properties.
    """
    schema = rows.collect_schema()
    doubtful = [name for name, dtype in schema.items() if not _always_fits(key_dtype(table, name), dtype)]
    if not doubtful:
        return HeapRows(heap_columns(rows, table))
    broken = {name: pl.col(name).is_not_null() & _heap_type(table, name, schema[name]).is_null() for name in doubtful}
    counts = rows.select(expression.sum().alias(name) for name, expression in broken.items()).collect(
        engine="streaming"
    )
    found = {name: int(count) for name, count in counts.row(0, named=True).items() if count}
    out = [name for name in found if name in _REQUIRED.get(table, _EVENT_REQUIRED)]
    kept = rows.filter(~pl.any_horizontal(broken[name] for name in out)) if out else rows
    reasons = {f"{name} is not {'a time' if key_dtype(table, name) == _TIME else 'an id'}": found[name] for name in out}
    return HeapRows(heap_columns(kept, table), reasons, {name: n for name, n in found.items() if name not in out})


def heap_columns(rows: pl.LazyFrame, table: str = ANY_EVENT) -> pl.LazyFrame:
    """Give rows the types they have when they come from S3 dumps; ids and times that cannot be read become null."""
    return rows.select(_heap_type(table, name, dtype).alias(name) for name, dtype in rows.collect_schema().items())


def _always_fits(key: pl.DataType | None, dtype: pl.DataType) -> bool:
    if key is None:
        return True
    if key == _TIME:
        return isinstance(dtype, pl.Datetime | pl.Date)
    return dtype in (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32)


def _heap_type(table: str, name: str, dtype: pl.DataType) -> pl.Expr:
    column, key = pl.col(name), key_dtype(table, name)
    if key is None:
        if isinstance(dtype, pl.Datetime) and dtype.time_zone is None:
            return as_text(column.dt.replace_time_zone("UTC"), pl.Datetime(dtype.time_unit, "UTC"))
        return as_text(column, dtype)
    return _time(column, dtype) if key == _TIME else _id(column, dtype)


def _id(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Read whole numbers of any type, and digits; what has a fraction or passes 64 bits is no id."""
    if isinstance(dtype, pl.String):
        return pl.when(column.str.contains(_DIGITS)).then(column.str.strip_chars()).cast(pl.Int64, strict=False)
    if dtype.is_integer():
        return column.cast(pl.Int64, strict=False)
    if dtype.is_numeric():
        return pl.when(column == column.floor()).then(column.cast(pl.Int64, strict=False))
    return pl.when(column.is_null()).then(None).otherwise(None).cast(pl.Int64)


def _time(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.Datetime) and dtype.time_unit == "us":
        return column.dt.convert_time_zone("UTC") if dtype.time_zone else column.dt.replace_time_zone("UTC")
    return column.map_batches(lambda values: read_times(values).values, return_dtype=_TIME, is_elementwise=True)


def only_once(rows: pl.LazyFrame, keys: Sequence[str]) -> pl.LazyFrame:
    """Keep the first of rows with equal keys; rows that lack one are all kept."""
    complete = pl.all_horizontal(pl.col(key).is_not_null() for key in keys)
    once = rows.filter(complete).unique(list(keys), keep="first", maintain_order=True)
    return pl.concat([once, rows.filter(~complete)])
