"""Heap Connect's dataset in a warehouse as the source of Heap's tables, with the columns that S3 dumps have.

Read are the views, never `<view>_raw`: only they apply user migrations and drop duplicates (heap.md 3.1). They carry
no time of arrival, so what a sync has changed is found by fingerprints per day: late events and user_ids that changed
in place show in them alike (heap.md 3.3).

Values come in the types that they have in dumps: exact, or text, or null and counted. Warehouses infer types, dumps do
not: ids are Int64, Heap's times are UTC, everything else is String.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from pathlib import Path

import polars as pl

from heap_assets.sources.heap_connect import key_dtype, read_times
from heap_assets.sources.warehouse import (
    Newer,
    Permission,
    Reading,
    RelationMissingError,
    Table,
    Warehouse,
    row_fingerprints,
)
from heap_assets.values import TIME, as_text

OVERLAP = timedelta(days=3)
"""How many days before the last sync are checked for late rows in every run; `since` asks for more."""

_ABOUT_SYNCS = frozenset({"_sync_info", "_sync_history", "_event_metadata", "_dropped_tables"})
_NOT_EVENTS = frozenset({"users", "user_migrations", "all_events"})
_FINGERPRINT = ("event_id", "user_id", "time")
_REQUIRED = {"users": ("user_id",), "user_migrations": ("from_user_id", "to_user_id")}
_EVENT_REQUIRED = ("event_id", "user_id", "time")
_ANY_EVENT = "events"
_DIGITS = r"^\s*-?\d{1,19}\s*$"


@dataclass(frozen=True)
class Fingerprints:
    """A fingerprint of each day of a table, and the query that read them.

    `days`: day: Date; rows: UInt32; fingerprint: UInt64, the same for the same (event_id, user_id, time) in any order.
    """

    days: pl.DataFrame
    reading: Reading


@dataclass(frozen=True)
class HeapRows:
    """Rows in Heap's types.

    Attributes
    ----------
    set_aside
        Number of rows left out because of an id or a time that cannot be read, by reason.
    lost
        Number of values that are null because they cannot be read, in columns that a row may lack, by column.
    """

    frame: pl.LazyFrame
    set_aside: Mapping[str, int] = field(default_factory=dict)
    lost: Mapping[str, int] = field(default_factory=dict)

    def notes(self) -> dict[str, object]:
        """Return what a partition's footer keeps, as for rows of dumps; empty if everything could be read."""
        notes: dict[str, object] = {}
        if self.set_aside:
            notes |= {"rejected": sum(self.set_aside.values()), "rejected_reasons": dict(self.set_aside)}
        if self.lost:
            notes |= {"values_lost": sum(self.lost.values()), "values_lost_in": dict(self.lost)}
        return notes


@dataclass(frozen=True)
class HeapExport:
    """One environment's dataset or schema, such as `main_production`: a view for each event table."""

    warehouse: Warehouse
    dataset: str

    def tables(self) -> list[str]:
        """Return the names of the event tables; a table whose first sync runs is absent until it is complete."""
        return sorted(name for name in self._relations() if name not in _NOT_EVENTS)

    def columns(self, table: str) -> list[str]:
        """Return the columns of a view in its order."""
        return [column.name for column in self.warehouse.columns(f"{self.dataset}.{table}")]

    def version(self) -> str | None:
        """Return text that changes with every sync: from metadata, else from `_sync_info`; None without that table."""
        try:
            version = self.warehouse.version(f"{self.dataset}._sync_info")
        except RelationMissingError:
            return None
        return version or " ".join(f"{name} {moment.isoformat()}" for name, moment in sorted(self.synced_to().items()))

    def synced_to(self) -> dict[str, datetime]:
        """Return up to when each table is complete, by `_sync_info`; empty where Heap has not written that table."""
        try:
            columns = ["event_table_name", "synced_to_time"]
            with self.warehouse.snapshot(f"{self.dataset}._sync_info", columns) as snapshot:
                rows = heap_columns(snapshot.frame.select("event_table_name", time="synced_to_time"))
                latest = rows.drop_nulls().group_by("event_table_name").agg(pl.col("time").max()).collect()
        except RelationMissingError:
            return {}
        return {name: _utc(moment) for name, moment in latest.rows()}

    def fingerprints(self, table: str, since: date) -> Fingerprints:
        """Fingerprint the days of a table from `since` on, reading three columns behind a filter on time."""
        newer = Newer("time", midnight(since))
        with self.warehouse.snapshot(f"{self.dataset}.{table}", _FINGERPRINT, newer=newer) as snapshot:
            return Fingerprints(fingerprints_of(snapshot.frame), snapshot.reading)

    def read_day(self, table: str, day: date, columns: Sequence[str] | None, path: Path) -> tuple[HeapRows, Reading]:
        """Read one day of an event table into a file, in the columns of S3 dumps, distinct on (event_id, user_id).

        `columns`: those of the result besides the keys; one that the view lacks is left out. None takes all.
        """
        within = Newer("time", midnight(day), midnight(day + timedelta(days=1)))
        reading = self.warehouse.read(f"{self.dataset}.{table}", self._existing(table, columns), path, newer=within)
        rows = heap_rows(pl.scan_parquet(path))
        return replace(rows, frame=only_once(rows.frame, ["event_id", "user_id"])), reading

    def read_users(self, columns: Sequence[str] | None, path: Path) -> tuple[HeapRows, Reading]:
        """Read the current users: a live source has no past."""
        reading = self.warehouse.read(f"{self.dataset}.users", self._existing("users", columns), path)
        return heap_rows(pl.scan_parquet(path), "users"), reading

    def read_user_migrations(self, path: Path) -> tuple[HeapRows, Reading]:
        """Read all migrations; the views have applied them already, ids exported elsewhere have not."""
        reading = self.warehouse.read(f"{self.dataset}.user_migrations", None, path)
        return heap_rows(pl.scan_parquet(path), "user_migrations"), reading

    def preflight(self) -> list[Permission]:
        """Try the connection, and whether the dataset looks like Heap's."""
        permissions = self.warehouse.preflight()
        if not all(permission.passed for permission in permissions):
            return permissions
        relations = self._relations()
        lacking = ", ".join(sorted({"users", "user_migrations"} - set(relations)))
        detail = f"{len(relations)} views in {self.dataset}" + (f", without {lacking}" if lacking else "")
        remedy = (
            "is heap.source.dataset the one that Heap Connect writes? A table is absent until its first sync is done"
        )
        return [*permissions, Permission("Heap's views", not lacking, detail, remedy)]

    def _existing(self, table: str, columns: Sequence[str] | None) -> list[str] | None:
        if columns is None:
            return None
        existing = self.columns(table)
        keys = [name for name in existing if key_dtype(table, name) is not None]
        return list(dict.fromkeys([*keys, *(name for name in columns if name in existing)]))

    def _relations(self) -> dict[str, Table]:
        """Return what may be an event: the views; of a dataset of tables, the tables.

        `<view>_raw` holds what a view reads, and stays when its view goes or has not come yet. An event's own name may
        end so as well, for Heap makes names of whatever people call events: then that is the view.
        """
        dataset, _ = self.warehouse.locate(self.dataset)
        relations: dict[str, Table] = {}
        for table in self.warehouse.tables():
            schema, _, name = table.name.rpartition(".")
            is_raw = "view" not in table.kind and name.casefold().endswith("_raw")
            if schema.casefold() == dataset.casefold() and name not in _ABOUT_SYNCS and not is_raw:
                relations[name] = table
        return relations


def fingerprints_of(rows: pl.LazyFrame) -> pl.DataFrame:
    """Fingerprint rows by day; see :class:`Fingerprints`."""
    fields = pl.struct(_FINGERPRINT).map_batches(row_fingerprints, return_dtype=pl.UInt64, is_elementwise=True)
    hashed = heap_rows(rows).frame.select(pl.col("time").dt.date().alias("day"), fields.alias("hash"))
    days = hashed.group_by("day").agg(pl.len().alias("rows"), pl.col("hash").sum().alias("fingerprint"))
    return days.sort("day").collect(engine="streaming")


def changed_days(previous: pl.DataFrame, now: pl.DataFrame, since: date) -> list[date]:
    """Return the days whose fingerprints differ, appeared or vanished, from `since` on.

    `previous`, `now`: in the shape of :attr:`Fingerprints.days`; `previous` may reach further back.
    """
    joined = previous.filter(pl.col("day") >= since).join(now, on="day", how="full", coalesce=True, suffix="_now")
    same = (pl.col("fingerprint").eq_missing(pl.col("fingerprint_now"))) & pl.col("rows").eq_missing(pl.col("rows_now"))
    return joined.filter(~same)["day"].sort().to_list()


def midnight(day: date) -> datetime:
    """Return the beginning of a day in UTC."""
    return datetime.combine(day, clock.min, UTC)


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def heap_rows(rows: pl.LazyFrame, table: str = _ANY_EVENT) -> HeapRows:
    """Give rows their types; a row whose key or time cannot be read is set aside. Types alone never raise.

    `table`: decides which columns are ids and times: the same names elsewhere are custom properties.
    """
    schema = rows.collect_schema()
    doubtful = [name for name, dtype in schema.items() if not _always_fits(key_dtype(table, name), dtype)]
    if not doubtful:
        return HeapRows(heap_columns(rows, table))
    broken = {name: pl.col(name).is_not_null() & _heap_type(table, name, schema[name]).is_null() for name in doubtful}
    counts = rows.select(expression.sum().alias(name) for name, expression in broken.items()).collect(
        engine="streaming"
    )
    unreadable = {name: int(count) for name, count in counts.row(0, named=True).items() if count}
    required = [name for name in unreadable if name in _REQUIRED.get(table, _EVENT_REQUIRED)]
    if required:
        rows = rows.filter(~pl.any_horizontal(broken[name] for name in required))
    reasons = {
        f"{name} is not {'a time' if key_dtype(table, name) == TIME else 'an id'}": unreadable[name]
        for name in required
    }
    lost = {name: count for name, count in unreadable.items() if name not in required}
    return HeapRows(heap_columns(rows, table), reasons, lost)


def heap_columns(rows: pl.LazyFrame, table: str = _ANY_EVENT) -> pl.LazyFrame:
    """Give rows the types they have when they come from S3 dumps; ids and times that cannot be read become null."""
    return rows.select(_heap_type(table, name, dtype).alias(name) for name, dtype in rows.collect_schema().items())


def _always_fits(key: pl.DataType | None, dtype: pl.DataType) -> bool:
    if key is None:
        return True
    if key == TIME:
        return isinstance(dtype, pl.Datetime | pl.Date)
    return dtype in (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32)


def _heap_type(table: str, name: str, dtype: pl.DataType) -> pl.Expr:
    column, key = pl.col(name), key_dtype(table, name)
    if key is None:
        if isinstance(dtype, pl.Datetime) and dtype.time_zone is None:
            return as_text(column.dt.replace_time_zone("UTC"), pl.Datetime(dtype.time_unit, "UTC"))
        return as_text(column, dtype)
    return _time(column, dtype) if key == TIME else _id(column, dtype)


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
    return column.map_batches(lambda values: read_times(values).values, return_dtype=TIME, is_elementwise=True)


def only_once(rows: pl.LazyFrame, keys: Sequence[str]) -> pl.LazyFrame:
    """Keep the first of rows with equal keys; rows that lack one are all kept."""
    complete = pl.all_horizontal(pl.col(key).is_not_null() for key in keys)
    once = rows.filter(complete).unique(list(keys), keep="first", maintain_order=True)
    return pl.concat([once, rows.filter(~complete)])
