"""Comparing a delivery with earlier ones: new, updated and unchanged rows, and events that moved to another day.

The index of landed keys is a cache, a handful of files per table; what it does not cover is read from the landed files.
Deleting it costs time and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import polars as pl

from heap_assets.errors import DamagedFileError
from heap_assets.sources.heap_connect.config import USER_MIGRATIONS, USERS
from heap_assets.sources.heap_connect.records import Delivery, table_folder
from heap_assets.storage import Store
from heap_assets.tables import SNAPSHOT_TABLES

DUMP, DAY = "_dump", "_day"
"""Columns of the index beside the keys; landed rows have no columns of these names."""
_COVERS = "covers"
_MANY_FILES = 8


def row_key(table: str) -> tuple[str, ...]:
    """Return the key columns of a table's rows; a newer dump replaces all rows with an equal first one."""
    if table == USERS:
        return ("user_id",)
    return ("from_user_id",) if table == USER_MIGRATIONS else ("event_id", "user_id")


@dataclass(frozen=True)
class _Run:
    key: str
    size: int
    covers: frozenset[tuple[int, str]]


class KeyIndex:
    """The keys of one table's landed rows, with their day and their dump."""

    def __init__(self, store: Store, table: str) -> None:
        self.store = store
        self.table = table
        self.folder = f"{table_folder(table)}/_seen/"

    def lookup(self, deliveries: Sequence[Delivery]) -> pl.LazyFrame:
        """Return the first column of the row key, _day and _dump of all rows of these deliveries."""
        missing = {(d.dump.dump_id, d.table.version): d for d in deliveries}
        frames: list[pl.LazyFrame] = []
        for run in self._compacted():
            if not (covered := run.covers & missing.keys()):
                continue
            rows = self.store.scan(run.key)
            if covered != run.covers:
                rows = rows.filter(pl.col(DUMP).is_in([dump for dump, _ in covered]))
            frames.append(rows)
            for pair in covered:
                del missing[pair]
        read = [frame for delivery in missing.values() for frame in self._read(delivery)]
        if len(missing) >= _MANY_FILES and read:
            frames.append(self.store.scan(self._write(set(missing), read)))
        else:
            frames += read
        empty = pl.LazyFrame(schema={row_key(self.table)[0]: pl.Int64(), DAY: pl.Date(), DUMP: pl.Int64()})
        return pl.concat([empty, *frames])

    def _compacted(self) -> list[_Run]:
        """Return the files of the index; if they are many, the smaller ones are merged first."""
        runs = self._runs()
        if len(runs) < _MANY_FILES:
            return runs
        smallest = sorted(runs, key=lambda run: run.size)[: _MANY_FILES - 1]
        covers = {pair for run in smallest for pair in run.covers}
        merged = self._write(covers, [self.store.scan(run.key) for run in smallest])
        for run in smallest:
            if run.key != merged:
                self.store.delete(run.key)
        return self._runs()

    def _write(self, covers: set[tuple[int, str]], frames: Sequence[pl.LazyFrame]) -> str:
        listed = json.dumps(sorted(covers))
        key = f"{self.folder}{hashlib.sha256(listed.encode()).hexdigest()[:16]}.parquet"
        self.store.sink(key, pl.concat(list(frames)), {_COVERS: listed})
        return key

    def _runs(self) -> list[_Run]:
        runs = []
        for info in self.store.list(self.folder):
            try:
                self.store.check(info.key)
                uri = self.store.uri(info.key)
                footer = pl.read_parquet_metadata(uri, storage_options=self.store.storage_options)
                covers = frozenset((int(dump), str(version)) for dump, version in json.loads(footer[_COVERS]))
            except (DamagedFileError, pl.exceptions.PolarsError, KeyError, TypeError, ValueError):
                # damaged: it is made anew
                self.store.delete(info.key)
                continue
            runs.append(_Run(info.key, info.size, covers))
        return runs

    def _read(self, delivery: Delivery) -> list[pl.LazyFrame]:
        first = row_key(self.table)[0]
        day = (pl.col("time").dt.date() if delivery.table.days else pl.lit(None, dtype=pl.Date)).alias(DAY)
        dump = pl.lit(delivery.dump.dump_id, dtype=pl.Int64).alias(DUMP)
        return [self.store.scan(part.key).select(first, day, dump) for part in delivery.table.parts]


OTHER, VERSION = "_other", "_version"
_MOST_ROWS = 5_000_000
"""Up to so many rows that are delivered again are compared by value; more are only counted as not new."""


@dataclass(frozen=True)
class Comparison:
    """Row counts, None where rows were too many to compare; `moved` counts rows by the day that lost them."""

    new: int | None = None
    updated: int | None = None
    unchanged: int | None = None
    moved: Mapping[date, int] = field(default_factory=dict)
    moved_key: str | None = None


def compare(store: Store, own: Delivery, siblings: Sequence[Delivery], moved_key: str) -> Comparison:
    """Compare a delivery with the other current ones of its table.

    A newer dump replaces all rows of an event_id. Rows that lose their event to another day are written to `moved_key`:
    event_id, the day and dump that lose it, the other dump and its version.
    """
    if not siblings:
        return Comparison(own.table.counts.landed, 0, 0)
    table = own.table.table
    key = row_key(table)
    parts = _parts(store, own)
    if parts is None:
        return Comparison(0, 0, 0)
    ids = parts.select(key[0]).unique()
    index = KeyIndex(store, table).lookup(siblings)
    hits = index.join(ids, on=key[0], how="semi").unique().collect(engine="streaming")
    if hits.is_empty():
        return Comparison(own.table.counts.landed, 0, 0)
    compared_rows, same = _contents(store, own, siblings, hits) if hits.height <= _MOST_ROWS else (None, None)
    moved: dict[date, int] = {}
    if table not in SNAPSHOT_TABLES:
        moved = _write_moves(store, own, siblings, hits, moved_key)
    return Comparison(
        new=None if compared_rows is None else own.table.counts.landed - compared_rows,
        updated=None if compared_rows is None or same is None else compared_rows - same,
        unchanged=same,
        moved=moved,
        moved_key=moved_key if moved else None,
    )


def _contents(store: Store, own: Delivery, siblings: Sequence[Delivery], hits: pl.DataFrame) -> tuple[int, int]:
    """Count own rows whose key other deliveries have, and those of them that are equal in all common columns."""
    key = list(row_key(own.table.table))
    latest = hits.filter(pl.col(DUMP) != own.dump.dump_id).group_by(key[0]).agg(pl.col(DUMP).max())
    pairs = []
    for other in siblings:
        ids = latest.filter(pl.col(DUMP) == other.dump.dump_id)
        parts, own_parts = _parts(store, other), _parts(store, own)
        if ids.height and parts is not None and own_parts is not None:
            common = [n for n, t in own.table.schema.items() if other.table.schema.get(n) == t]
            hashes = (_hashed(rows, key, common, ids) for rows in (own_parts, parts))
            pairs.append(next(hashes).join(next(hashes), on=key, how="inner", suffix="_before"))
    if not pairs:
        return 0, 0
    counts = pl.concat(pairs).unique(key).select(pl.len(), (pl.col("_hash") == pl.col("_hash_before")).sum())
    compared_rows, same = counts.collect(engine="streaming").row(0)
    return int(compared_rows), int(same)


def _hashed(rows: pl.LazyFrame, key: list[str], columns: list[str], ids: pl.DataFrame) -> pl.LazyFrame:
    hashed = pl.struct(columns).hash().alias("_hash")
    return rows.join(ids.lazy().select(key[0]), on=key[0], how="semi").select(*key, hashed).unique(key)


def _write_moves(
    store: Store, own: Delivery, siblings: Sequence[Delivery], hits: pl.DataFrame, moved_key: str
) -> dict[date, int]:
    dump_id = own.dump.dump_id
    parts = _parts(store, own)
    assert parts is not None
    pairs = parts.select("event_id", pl.col("time").dt.date().alias(DAY)).join(
        hits.lazy().select("event_id"), on="event_id", how="semi"
    )
    placed = pairs.unique().collect(engine="streaming")
    older = hits.filter(pl.col(DUMP) < dump_id)
    lost_by_others = (
        (older if own.table.incremental else older.clear())  # a full resync replaces all that is older anyway
        .join(placed, on=["event_id", DAY], how="anti")
        .with_columns(pl.col(DUMP).alias(OTHER))
    )
    newer = hits.filter(pl.col(DUMP) > dump_id)
    lost_here = (
        newer.select("event_id", pl.col(DUMP).alias(OTHER))
        .unique()
        .join(placed, on="event_id")
        .join(newer.rename({DUMP: OTHER}), on=["event_id", DAY, OTHER], how="anti")
        .with_columns(pl.lit(dump_id, dtype=pl.Int64).alias(DUMP))
    )
    columns = ["event_id", DAY, DUMP, OTHER]
    versions = pl.DataFrame(
        [(d.dump.dump_id, d.table.version) for d in siblings],
        schema={OTHER: pl.Int64(), VERSION: pl.String()},
        orient="row",
    )
    moves = pl.concat([lost_by_others.select(columns), lost_here.select(columns)]).join(versions, on=OTHER)
    if moves.is_empty():
        return {}
    store.sink(moved_key, moves.sort(columns))
    return dict(moves[DAY].value_counts().sort(DAY).iter_rows())


def _parts(store: Store, delivery: Delivery) -> pl.LazyFrame | None:
    frames = [store.scan(part.key) for part in delivery.table.parts]
    return pl.concat(frames, how="diagonal_relaxed") if frames else None
