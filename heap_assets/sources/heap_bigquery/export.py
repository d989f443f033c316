"""Heap Connect's dataset in a warehouse as the source of Heap's tables, with the columns that S3 dumps have.

Read are the views, never `<view>_raw`: only they apply user migrations and drop duplicates (heap.md 3.1). They carry
no time of arrival, so what a sync has changed is found by fingerprints per day: late events and user_ids that changed
in place show in them alike (heap.md 3.3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from pathlib import Path

import polars as pl

from heap_assets.sources.heap_bigquery.values import HeapRows, heap_columns, heap_rows, only_once
from heap_assets.sources.heap_connect import key_dtype
from heap_assets.sources.warehouse import (
    Newer,
    Permission,
    Reading,
    RelationMissingError,
    Snapshot,
    Table,
    Warehouse,
    row_fingerprints,
)

OVERLAP = timedelta(days=3)
"""How far behind the last sync late rows are looked for in every run; a full look-back is asked for by `since`."""

_ABOUT_SYNCS = frozenset({"_sync_info", "_sync_history", "_event_metadata", "_dropped_tables"})
_NOT_EVENTS = frozenset({"users", "user_migrations", "all_events"})
_FINGERPRINT = ("event_id", "user_id", "time")


@dataclass(frozen=True)
class Fingerprints:
    """How the days of a table look, and what it took to look.

    Attributes
    ----------
    days
        day: Date; rows: UInt32; fingerprint: UInt64, the same for the same (event_id, user_id, time) in any order.
    """

    days: pl.DataFrame
    reading: Reading


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
        """Return what changes with every sync: from metadata, else from the few rows of `_sync_info`; None without."""
        try:
            known = self.warehouse.version(f"{self.dataset}._sync_info")
        except RelationMissingError:
            return None
        return known or " ".join(f"{name} {moment.isoformat()}" for name, moment in sorted(self.synced_to().items()))

    def synced_to(self) -> dict[str, datetime]:
        """Return up to when each table is complete, by `_sync_info`; empty where Heap has not written that table."""
        try:
            with self._read("_sync_info", ["event_table_name", "synced_to_time"]) as found:
                rows = heap_columns(found.frame.select("event_table_name", time="synced_to_time"))
                latest = rows.drop_nulls().group_by("event_table_name").agg(pl.col("time").max()).collect()
        except RelationMissingError:
            return {}
        return {name: _utc(moment) for name, moment in latest.rows()}

    def fingerprints(self, table: str, since: date) -> Fingerprints:
        """Fingerprint the days of a table from `since` on, reading three columns behind a filter on time."""
        with self._read(table, _FINGERPRINT, Newer("time", midnight(since))) as found:
            return Fingerprints(fingerprints_of(found.frame), found.reading)

    def read_day(self, table: str, day: date, columns: Sequence[str] | None, path: Path) -> tuple[HeapRows, Reading]:
        """Read one day of an event table into a file, in the columns of S3 dumps, distinct on (event_id, user_id).

        Parameters
        ----------
        columns
            Those of the result besides the keys; one that the view lacks is left out. None takes all.
        """
        within = Newer("time", midnight(day), midnight(day + timedelta(days=1)))
        reading = self.warehouse.read(f"{self.dataset}.{table}", self._there(table, columns), path, newer=within)
        rows = heap_rows(pl.scan_parquet(path))
        return replace(rows, frame=only_once(rows.frame, ["event_id", "user_id"])), reading

    def read_users(self, columns: Sequence[str] | None, path: Path) -> tuple[HeapRows, Reading]:
        """Read users as they stand now: a live source has no past."""
        reading = self.warehouse.read(f"{self.dataset}.users", self._there("users", columns), path)
        return heap_rows(pl.scan_parquet(path), "users"), reading

    def read_user_migrations(self, path: Path) -> tuple[HeapRows, Reading]:
        """Read all migrations; the views have applied them already, ids exported elsewhere have not."""
        reading = self.warehouse.read(f"{self.dataset}.user_migrations", None, path)
        return heap_rows(pl.scan_parquet(path), "user_migrations"), reading

    def preflight(self) -> list[Permission]:
        """Try the connection, and whether the dataset looks like Heap's."""
        tried = self.warehouse.preflight()
        if not all(permission.passed for permission in tried):
            return tried
        found, wanted = self._relations(), {"users", "user_migrations"}
        lacking = ", ".join(sorted(wanted - set(found)))
        detail = f"{len(found)} views in {self.dataset}" + (f", without {lacking}" if lacking else "")
        remedy = (
            "is heap.source.dataset the one that Heap Connect writes? A table is absent until its first sync is done"
        )
        return [*tried, Permission("Heap's views", not lacking, detail, remedy)]

    def _there(self, table: str, columns: Sequence[str] | None) -> list[str] | None:
        if columns is None:
            return None
        own = self.columns(table)
        keys = [name for name in own if key_dtype(table, name) is not None]
        return list(dict.fromkeys([*keys, *(name for name in columns if name in own)]))

    def _relations(self) -> dict[str, Table]:
        """Return what may be an event: the views; of a dataset of tables, the tables.

        `<view>_raw` holds what a view reads, and stays when its view goes or has not come yet. An event's own name may
        end so as well, for Heap makes names of whatever people call events: then that is the view.
        """
        dataset, _ = self.warehouse.locate(self.dataset)
        found = {
            table.name.rpartition(".")[2]: table
            for table in self.warehouse.tables()
            if table.name.rpartition(".")[0].casefold() == dataset.casefold()
        }
        return {
            name: table
            for name, table in found.items()
            if name not in _ABOUT_SYNCS and ("view" in table.kind or not name.casefold().endswith("_raw"))
        }

    @contextmanager
    def _read(self, table: str, columns: Sequence[str] | None, newer: Newer | None = None) -> Iterator[Snapshot]:
        with self.warehouse.snapshot(f"{self.dataset}.{table}", columns, newer=newer) as snapshot:
            yield snapshot


def fingerprints_of(rows: pl.LazyFrame) -> pl.DataFrame:
    """Fingerprint rows by day; see :class:`Fingerprints`."""
    fields = pl.struct(_FINGERPRINT).map_batches(row_fingerprints, return_dtype=pl.UInt64, is_elementwise=True)
    hashed = heap_rows(rows).frame.select(pl.col("time").dt.date().alias("day"), fields.alias("hash"))
    days = hashed.group_by("day").agg(pl.len().alias("rows"), pl.col("hash").sum().alias("fingerprint"))
    return days.sort("day").collect(engine="streaming")


def changed_days(before: pl.DataFrame, now: pl.DataFrame, since: date) -> list[date]:
    """Return the days whose fingerprints differ, appeared or vanished, from `since` on.

    Parameters
    ----------
    before, now
        In the shape of :attr:`Fingerprints.days`; `before` may reach further back.
    """
    both = before.filter(pl.col("day") >= since).join(now, on="day", how="full", coalesce=True, suffix="_now")
    same = (pl.col("fingerprint").eq_missing(pl.col("fingerprint_now"))) & pl.col("rows").eq_missing(pl.col("rows_now"))
    return both.filter(~same)["day"].sort().to_list()


def midnight(day: date) -> datetime:
    """Return the beginning of a day in UTC."""
    return datetime.combine(day, clock.min, UTC)


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
