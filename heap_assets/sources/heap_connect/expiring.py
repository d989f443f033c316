"""Landed rows of days that are no longer kept: written out of the parts that have them, also of later days."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Final

import polars as pl

from heap_assets.sources.heap_connect.erasing import LandedPart, landed_parts, rewrite_part
from heap_assets.sources.heap_connect.landing import Landing
from heap_assets.storage import Store
from heap_assets.tables import SNAPSHOT_TABLES

_MARK: Final = "~from-"
"""Between a part's former name and the first day of what is left of it."""


@dataclass(frozen=True)
class ExpiredRows:
    """What of one table's landed files is no longer kept: `rows` in `parts` of them, and files of rows set aside."""

    table: str
    parts: int
    rows: int
    set_aside: int


def expired_rows(landing: Landing, first: date) -> list[ExpiredRows]:
    """Return what landed of days before `first`, by table; of rows set aside, whose day nobody knows, by their dump."""
    parts: dict[str, list[LandedPart]] = {}
    for landed in _expired_parts(landing, first):
        parts.setdefault(landed.table, []).append(landed)
    aside = list(_set_aside(landing, first))
    return [
        ExpiredRows(
            table,
            len(parts.get(table, ())),
            sum(rows for landed in parts.get(table, ()) for day, rows in landed.part.days.items() if day < first),
            sum(name == table for name, _ in aside),
        )
        for table in sorted({*parts, *(name for name, _ in aside)})
    ]


def forget_before(landing: Landing, first: date) -> int:
    """Write rows of days before `first` out of what landed; returns how many went.

    A file that other builds may be reading is deleted by the next call, one without any later row at once.
    """
    start, forgotten_rows = datetime.combine(first, time(), UTC), 0
    for key in list(_replaced(landing)):
        landing.store.delete(key)
    for landed in list(_expired_parts(landing, first)):
        key = landed.part.key
        new = f"{key.rpartition('.')[0].split(_MARK)[0]}{_MARK}{first}.parquet"
        left = landing.store.scan_stored(key).filter(pl.col("time") >= start).collect(engine="streaming")
        if not rewrite_part(landing, landed, left, new):
            landing.store.delete(new)  # the table has landed anew, or was erased from, meanwhile: the next call tells
            continue
        forgotten_rows += landed.part.rows - left.height
        if left.is_empty():
            landing.store.delete(key)
    for _, key in list(_set_aside(landing, first)):
        landing.store.sink(key, landing.store.scan(key).head(0))
    return forgotten_rows


def _expired_parts(landing: Landing, first: date) -> Iterator[LandedPart]:
    for landed in landed_parts(landing):
        if landed.table not in SNAPSHOT_TABLES and any(rows for day, rows in landed.part.days.items() if day < first):
            yield landed


def _replaced(landing: Landing) -> Iterator[str]:
    """Yield the files in whose place others without old days stand."""
    stems = {key.split(_MARK)[0]: key for key in (one.part.key for one in landed_parts(landing)) if _MARK in key}
    for stem, current in stems.items():
        for info in landing.store.list(stem.rpartition("/")[0]):
            if info.key != current and info.key.removesuffix(".parquet").split(_MARK)[0] == stem:
                yield info.key


def _set_aside(landing: Landing, first: date) -> Iterator[tuple[str, str]]:
    for record in landing.records().values():
        for name, table in record.tables.items():
            if name not in SNAPSHOT_TABLES and record.day < first:
                yield from ((name, key) for key in table.rejected_keys if _has_rows(landing.store, key))


def _has_rows(store: Store, key: str) -> bool:
    return store.exists(key) and bool(store.scan(key).select(pl.len()).collect().item())
