"""Which rows of a table landed where: what a new dump is compared with, without opening every dump before it.

A cache: it lies in a handful of sorted files per table, covers what it says it covers, and is filled from the landed
files themselves for the rest. Deleting it costs time and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from heap_assets.sources.heap_connect.records import Delivery, table_folder
from heap_assets.sources.heap_connect.selection import USER_MIGRATIONS, USERS
from heap_assets.storage import Store

DUMP, DAY = "_dump", "_day"
"""Columns beside the keys of rows; rows themselves have them under no such name."""
_COVERS = "covers"
_MANY_FILES = 8


def row_key(table: str) -> tuple[str, ...]:
    """Return the columns that tell the rows of a table apart, the one that a newer dump replaces first."""
    if table == USERS:
        return ("user_id",)
    return ("from_user_id",) if table == USER_MIGRATIONS else ("event_id", "user_id")


@dataclass(frozen=True)
class _Run:
    key: str
    size: int
    covers: frozenset[tuple[int, str]]


class Seen:
    """The keys of one table's landed rows, with their day and their dump."""

    def __init__(self, store: Store, table: str) -> None:
        self.store = store
        self.table = table
        self.folder = f"{table_folder(table)}/_seen/"

    def of(self, wanted: Sequence[Delivery]) -> pl.LazyFrame:
        """Return the first column of the row key, _day and _dump of all rows of these deliveries."""
        missing = {(d.dump.dump_id, d.table.version): d for d in wanted}
        frames: list[pl.LazyFrame] = []
        for run in self._few_runs():
            if not (found := run.covers & missing.keys()):
                continue
            rows = self.store.scan(run.key)
            if found != run.covers:
                rows = rows.filter(pl.col(DUMP).is_in([dump for dump, _ in found]))
            frames.append(rows)
            for pair in found:
                del missing[pair]
        read = [frame for delivery in missing.values() for frame in self._read(delivery)]
        if len(missing) >= _MANY_FILES and read:
            frames.append(self.store.scan(self._write(set(missing), read)))
        else:
            frames += read
        empty = pl.LazyFrame(schema={row_key(self.table)[0]: pl.Int64(), DAY: pl.Date(), DUMP: pl.Int64()})
        return pl.concat([empty, *frames])

    def _few_runs(self) -> list[_Run]:
        """Return the files there are, the smaller ones put together first if they are many."""
        runs = self._runs()
        if len(runs) < _MANY_FILES:
            return runs
        smallest = sorted(runs, key=lambda run: run.size)[: _MANY_FILES - 1]
        covers = {pair for run in smallest for pair in run.covers}
        kept = self._write(covers, [self.store.scan(run.key) for run in smallest])
        for run in smallest:
            if run.key != kept:
                self.store.delete(run.key)
        return self._runs()

    def _write(self, covers: set[tuple[int, str]], frames: Sequence[pl.LazyFrame]) -> str:
        told = json.dumps(sorted(covers))
        key = f"{self.folder}{hashlib.sha256(told.encode()).hexdigest()[:16]}.parquet"
        self.store.sink(key, pl.concat(list(frames)), {_COVERS: told})
        return key

    def _runs(self) -> list[_Run]:
        runs = []
        for info in self.store.list(self.folder):
            try:
                covers = self._covers(info.key)
            except (pl.exceptions.ComputeError, KeyError, TypeError, ValueError):  # damaged: it is made anew
                self.store.delete(info.key)
                continue
            runs.append(_Run(info.key, info.size, covers))
        return runs

    def _covers(self, key: str) -> frozenset[tuple[int, str]]:
        footer = pl.read_parquet_metadata(self.store.uri(key), storage_options=self.store.storage_options)
        return frozenset((int(dump), str(version)) for dump, version in json.loads(footer[_COVERS]))

    def _read(self, delivery: Delivery) -> list[pl.LazyFrame]:
        first = row_key(self.table)[0]
        day = (pl.col("time").dt.date() if delivery.table.days else pl.lit(None, dtype=pl.Date)).alias(DAY)
        dump = pl.lit(delivery.dump.dump_id, dtype=pl.Int64).alias(DUMP)
        return [self.store.scan(part.key).select(first, day, dump) for part in delivery.table.parts]
