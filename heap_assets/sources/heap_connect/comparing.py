"""What a delivery changes: rows that are new, updated or the same, and events that went to another day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import polars as pl

from heap_assets.sources.heap_connect.records import Delivery
from heap_assets.sources.heap_connect.seen import DAY, DUMP, Seen, row_key
from heap_assets.storage import Store
from heap_assets.tables import SNAPSHOT_TABLES

OTHER, VERSION = "_other", "_version"
_MOST_ROWS = 5_000_000
"""Rows delivered again that are still compared value by value; more are only counted as not new."""


@dataclass(frozen=True)
class Comparison:
    """Counts, None where rows were too many to compare; `moved` is days of rows that no longer stand there."""

    new: int | None = None
    updated: int | None = None
    unchanged: int | None = None
    moved: Mapping[date, int] = field(default_factory=dict)
    moved_key: str | None = None


def compare(store: Store, own: Delivery, others: Sequence[Delivery], moved_key: str) -> Comparison:
    """Hold a delivery against those that stood before it.

    A newer dump replaces all rows of an event_id. Rows that it replaces on another day than it has itself are written
    to `moved_key`: event_id, the day and dump that lose it, the other dump and its version.
    """
    if not others:
        return Comparison(own.table.counts.landed, 0, 0)
    table = own.table.table
    key = row_key(table)
    parts = _parts(store, own)
    if parts is None:
        return Comparison(0, 0, 0)
    ids = parts.select(key[0]).unique()
    hits = Seen(store, table).of(others).join(ids, on=key[0], how="semi").unique().collect(engine="streaming")
    if hits.is_empty():
        return Comparison(own.table.counts.landed, 0, 0)
    known, same = _contents(store, own, others, hits) if hits.height <= _MOST_ROWS else (None, None)
    moved: dict[date, int] = {}
    if table not in SNAPSHOT_TABLES:
        moved = _write_moves(store, own, others, hits, moved_key)
    return Comparison(
        new=None if known is None else own.table.counts.landed - known,
        updated=None if known is None or same is None else known - same,
        unchanged=same,
        moved=moved,
        moved_key=moved_key if moved else None,
    )


def _contents(store: Store, own: Delivery, others: Sequence[Delivery], hits: pl.DataFrame) -> tuple[int, int]:
    """Count own rows whose key was there before, and those of them that are the same in all common columns."""
    key = list(row_key(own.table.table))
    latest = hits.filter(pl.col(DUMP) != own.dump.dump_id).group_by(key[0]).agg(pl.col(DUMP).max())
    before = []
    for other in others:
        ids = latest.filter(pl.col(DUMP) == other.dump.dump_id)
        parts = _parts(store, other)
        if ids.height and parts is not None:
            common = [n for n, t in own.table.schema.items() if other.table.schema.get(n) == t]
            mine = _parts(store, own)
            assert mine is not None
            before.append(
                _hashed(mine, key, common, ids).join(
                    _hashed(parts, key, common, ids), on=key, how="inner", suffix="_before"
                )
            )
    if not before:
        return 0, 0
    found = pl.concat(before).unique(key).select(pl.len(), (pl.col("_hash") == pl.col("_hash_before")).sum())
    known, same = found.collect(engine="streaming").row(0)
    return int(known), int(same)


def _hashed(rows: pl.LazyFrame, key: list[str], columns: list[str], ids: pl.DataFrame) -> pl.LazyFrame:
    hashed = pl.struct(columns).hash().alias("_hash")
    return rows.join(ids.lazy().select(key[0]), on=key[0], how="semi").select(*key, hashed).unique(key)


def _write_moves(
    store: Store, own: Delivery, others: Sequence[Delivery], hits: pl.DataFrame, moved_key: str
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
        [(d.dump.dump_id, d.table.version) for d in others],
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
