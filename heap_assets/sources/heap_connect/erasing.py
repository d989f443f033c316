"""Landed files that are written anew without some people: the file first, then the record that lists it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import polars as pl

from heap_assets.sources.heap_connect.landing import Landing
from heap_assets.sources.heap_connect.record_store import Records
from heap_assets.sources.heap_connect.records import DumpRecord, Part, TableRecord
from heap_assets.sources.heap_connect.staging import write_part
from heap_assets.tables import SNAPSHOT_TABLES


@dataclass(frozen=True)
class LandedPart:
    """A part of what landed of a table of a dump."""

    dump_id: int
    table: str
    part: Part


def landed_parts(landing: Landing) -> Iterator[LandedPart]:
    """Yield the parts that records list, of all versions that still count."""
    for dump_id, record in Records(landing.store).load().items():
        for name, table in record.tables.items():
            yield from (LandedPart(dump_id, name, part) for part in table.parts)


def rewrite_part(landing: Landing, landed: LandedPart, rows: pl.DataFrame, key: str) -> bool:
    """Put rows in place of a part's: as the object `key`, in the record of its dump.

    The old object stays, for builds that have read the record before; whoever calls deletes it later. The days that a
    part had stay known, with no rows: the days of tables are then as they would be built. Nothing happens to a table
    that has landed anew meanwhile: the result is then False, and the object `key` belongs to nothing.
    """
    by_time = landed.table not in SNAPSHOT_TABLES
    with landing.store.staged(key) as path:
        days = write_part(path, rows, by_time=by_time)
    part = Part(key, rows.height, dict.fromkeys(landed.part.days, 0) | days)

    def changed(record: DumpRecord | None) -> DumpRecord:
        if record is None or landed.table not in record.tables:
            raise LookupError(f"dump {landed.dump_id} has no record of {landed.table} any more")
        table: TableRecord = record.tables[landed.table]
        parts = tuple(part if old.key == landed.part.key else old for old in table.parts)
        return record.with_table(replace(table, parts=parts))

    record = Records(landing.store).update(landed.dump_id, changed)
    return any(one.key == key for one in record.tables[landed.table].parts)
