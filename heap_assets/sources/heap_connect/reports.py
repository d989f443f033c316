"""Results of landing: reports by dump and table, days to build again, files in quarantine and rows set aside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING

import polars as pl

from heap_assets.sources.heap_connect.manifest import Manifest
from heap_assets.sources.heap_connect.records import (
    DumpRecord,
    DumpRecords,
    TableRecord,
    TableState,
    days_ever,
    deliveries,
)
from heap_assets.tables import SNAPSHOT_TABLES

if TYPE_CHECKING:
    from heap_assets.sources.heap_connect.landing import Landing

REPORT_SCHEMA = pl.Schema({
    "table": pl.String(), "dump_id": pl.Int64(), "day": pl.Date(), "as_of": pl.Datetime("us", "UTC"),
    "state": pl.String(), "incremental": pl.Boolean(), "files": pl.Int64(), "bytes": pl.Int64(),
    "rows_read": pl.Int64(), "rows_landed": pl.Int64(), "rows_new": pl.Int64(), "rows_updated": pl.Int64(),
    "rows_unchanged": pl.Int64(), "rows_rejected": pl.Int64(), "values_lost": pl.Int64(),
    "rows_before_start": pl.Int64(), "rows_ahead": pl.Int64(), "rows_late": pl.Int64(), "rows_erased": pl.Int64(),
    "cells_masked": pl.Int64(),
    "seconds": pl.Float64(), "attempts": pl.Int64(), "retry_at": pl.Datetime("us", "UTC"),
    "landed_at": pl.Datetime("us", "UTC"), "error_file": pl.String(), "error_block": pl.Int64(), "error": pl.String(),
})  # fmt: skip
ROWS_SCHEMA = pl.Schema({
    "table": pl.String(), "dump_id": pl.Int64(), "file": pl.String(), "row": pl.Int64(), "reason": pl.String(),
    "content": pl.String(),
})  # fmt: skip
FILES_SCHEMA = pl.Schema({
    "table": pl.String(), "dump_id": pl.Int64(), "file": pl.String(), "block": pl.Int64(), "reason": pl.String(),
    "attempts": pl.Int64(), "retry_at": pl.Datetime("us", "UTC"),
})  # fmt: skip
_MANIFEST = "(manifest)"
"""Stands for a table in reports of a manifest that could not be read."""


@dataclass(frozen=True)
class DumpReport:
    """One run of landing over one dump.

    Attributes
    ----------
    tables
        Tables that this run landed or failed at; those that had landed before are not among them.
    touched
        Days that must be built again, by table; after a full resync every day the table ever had. Days in the future
        are among them: they are built on their day.
    new_tables, new_columns
        Not in any earlier dump; selected or not.
    unselected
        Tables of the dump that the selection leaves out.
    """

    dump_id: int
    as_of: datetime
    day: date
    tables: Sequence[TableRecord] = ()
    touched: Mapping[str, frozenset[date]] = field(default_factory=dict)
    new_tables: tuple[str, ...] = ()
    new_columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unselected: tuple[str, ...] = ()

    @property
    def landed(self) -> list[TableRecord]:
        return [table for table in self.tables if table.failure is None]

    @property
    def failed(self) -> list[TableRecord]:
        """Tables that could not be read this time; those that had landed before keep their rows."""
        return [table for table in self.tables if table.failure is not None]

    @property
    def full_resyncs(self) -> list[TableRecord]:
        return [table for table in self.landed if not table.incremental]

    @property
    def rows(self) -> int:
        return sum(table.counts.landed for table in self.landed)


def report_rows(record: DumpRecord) -> list[dict[str, object]]:
    """Return a dump's tables as rows of :data:`REPORT_SCHEMA`."""
    tables = [*record.tables.values(), *([failed_manifest(record)] if record.failure is not None else [])]
    return [_row(record, table) for table in tables]


def failed_manifest(record: DumpRecord) -> TableRecord:
    """Return the entry of a report for a manifest that could not be read."""
    failure, attempts, retry_at = record.failure, record.attempts, record.retry_at
    return TableRecord(_MANIFEST, TableState.FAILED, failure=failure, attempts=attempts, retry_at=retry_at)


def _row(dump: DumpRecord, table: TableRecord) -> dict[str, object]:
    failure = table.failure
    return {
        "table": table.table,
        "dump_id": dump.dump_id,
        "day": dump.day,
        "as_of": dump.as_of,
        "state": str(table.state),
        "incremental": table.incremental,
        "files": len(table.files),
        "bytes": table.bytes,
        **{f"rows_{name}": count for name, count in asdict(table.counts).items() if name != "masked"},
        "cells_masked": table.counts.masked,
        "values_lost": sum(table.lost.values()),
        **{name: getattr(table, name) for name in ("seconds", "attempts", "retry_at", "landed_at")},
        "error_file": failure.file if failure else None,
        "error_block": failure.block if failure else None,
        "error": failure.reason if failure else None,
    }


def report_of(
    before: Mapping[int, DumpRecord],
    record: DumpRecord,
    tables: list[TableRecord],
    manifest: Manifest,
    columns_before: Mapping[str, set[str]],
) -> DumpReport:
    """Report one run: `before` are the records before it, `tables` those that it landed or failed at."""
    landed = [table for table in tables if table.failure is None]
    new_columns = {
        table.table: new
        for table in landed
        if table.table in columns_before
        and (new := tuple(c for c in (*table.schema, *table.left_out) if c not in columns_before[table.table]))
    }
    return DumpReport(
        record.dump_id,
        record.as_of,
        record.day,
        tables=tables,
        touched=dict(record.unannounced),
        new_tables=tuple(t.name for t in manifest.tables if t.name not in columns_before),
        new_columns=new_columns,
        unselected=tuple(n for n, t in record.tables.items() if t.state is TableState.UNSELECTED),
    )


def touched_days(records: DumpRecords, record: DumpRecord, table: TableRecord) -> frozenset[date]:
    """Return the days that must be built again because a table of a dump landed."""
    current = deliveries(records, table.table)
    is_current = any(delivery.dump.dump_id == record.dump_id for delivery in current)
    if table.table in SNAPSHOT_TABLES:
        # The dump's own day is built from the dumps until then, whatever replaced it since.
        as_of_day = deliveries(records, table.table, record.day)
        own = {record.day} if any(delivery.dump.dump_id == record.dump_id for delivery in as_of_day) else set()
        return frozenset(own | ({current[-1].dump.day} if is_current else set()))
    if not is_current:
        return frozenset()  # an older dump than the last full resync: it changes nothing
    if not table.incremental:
        return days_ever(records, table.table)
    return table.days_ever


def columns_ever(records: DumpRecords, table: str) -> set[str]:
    """Return every column that a table ever had, selected or not."""
    recorded = (one.table for one in records.of_table(table))
    distinct = {(id(record.schema), record.left_out): record for record in recorded}.values()
    return {column for record in distinct for column in (*record.schema, *record.left_out)}


def rows_set_aside(landing: Landing, table: str | None = None) -> pl.DataFrame:
    """Return rows with an id or a time that cannot be read, of one table or all: :data:`ROWS_SCHEMA`.

    `row` counts from 0 in its file; `content` is the row as JSON and holds personal data.
    """
    parts = [pl.DataFrame(schema=ROWS_SCHEMA)]
    for record in landing.records().values():
        for name, table_record in record.tables.items():
            for key in table_record.rejected_keys if table in (None, name) else ():
                rows = landing.store.scan(key).collect()
                stored = {c: pl.col(c).cast(dtype) for c, dtype in ROWS_SCHEMA.items() if c in rows.columns}
                parts.append(rows.select(table=pl.lit(name), dump_id=pl.lit(record.dump_id, pl.Int64), **stored))
    return pl.concat(parts)


def files_in_quarantine(landing: Landing, table: str | None = None) -> pl.DataFrame:
    """Return the files that could not be read and are tried again, of one table or all: :data:`FILES_SCHEMA`."""
    failed = landing.reports().filter(pl.col("error").is_not_null())
    selected = failed if table is None else failed.filter(pl.col("table") == table)
    return selected.rename({"error_file": "file", "error_block": "block", "error": "reason"}).select(*FILES_SCHEMA)
