"""What a landing did, per dump and per table, told from the records before and after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

import polars as pl

from heap_assets.sources.heap_connect.manifest import Manifest
from heap_assets.sources.heap_connect.records import (
    Counts,
    DumpRecord,
    Failure,
    TableRecord,
    TableState,
    days_ever,
    deliveries,
)
from heap_assets.tables import SNAPSHOT_TABLES

REPORT_SCHEMA = pl.Schema(
    {
        "table": pl.String(),
        "dump_id": pl.Int64(),
        "day": pl.Date(),
        "as_of": pl.Datetime("us", "UTC"),
        "state": pl.String(),
        "incremental": pl.Boolean(),
        "files": pl.Int64(),
        "bytes": pl.Int64(),
        "rows_read": pl.Int64(),
        "rows_landed": pl.Int64(),
        "rows_new": pl.Int64(),
        "rows_updated": pl.Int64(),
        "rows_unchanged": pl.Int64(),
        "rows_rejected": pl.Int64(),
        "values_lost": pl.Int64(),
        "rows_before_start": pl.Int64(),
        "rows_ahead": pl.Int64(),
        "rows_late": pl.Int64(),
        "seconds": pl.Float64(),
        "attempts": pl.Int64(),
        "retry_at": pl.Datetime("us", "UTC"),
        "landed_at": pl.Datetime("us", "UTC"),
        "error_file": pl.String(),
        "error_block": pl.Int64(),
        "error": pl.String(),
    }
)


@dataclass(frozen=True)
class TableReport:
    """One table of one dump. `table` is `(manifest)` where the manifest itself could not be read."""

    table: str
    state: TableState
    incremental: bool = True
    files: int = 0
    bytes: int = 0
    counts: Counts = field(default_factory=Counts)
    rejected: Mapping[str, int] = field(default_factory=dict)
    rejected_keys: tuple[str, ...] = ()
    lost: Mapping[str, int] = field(default_factory=dict)
    columns_left_out: tuple[str, ...] = ()
    columns_apart: tuple[str, ...] = ()
    seconds: float = 0.0
    failure: Failure | None = None
    attempts: int = 0
    retry_at: datetime | None = None

    @classmethod
    def of(cls, record: TableRecord) -> TableReport:
        return cls(
            table=record.table,
            state=record.state,
            incremental=record.incremental,
            files=len(record.files),
            bytes=record.bytes,
            counts=record.counts,
            rejected=record.rejected,
            rejected_keys=record.rejected_keys,
            lost=record.lost,
            columns_left_out=record.left_out,
            columns_apart=tuple(
                name for name in record.schema if "__" in name and name.split("__")[0] in record.schema
            ),
            seconds=record.seconds,
            failure=record.failure,
            attempts=record.attempts,
            retry_at=record.retry_at,
        )


@dataclass(frozen=True)
class DumpReport:
    """One run of landing over one dump.

    Attributes
    ----------
    tables
        What this run landed or failed at; tables that had landed before are not among them.
    touched
        Table to the days that must be built again; after a full resync every day the table ever had. Days after today
        are among them: they wait in landing.
    new_tables, new_columns
        Seen for the first time in any dump, selected or not.
    unselected
        Tables of the dump that the selection leaves out.
    """

    dump_id: int
    as_of: datetime
    day: date
    tables: Sequence[TableReport] = ()
    touched: Mapping[str, frozenset[date]] = field(default_factory=dict)
    new_tables: tuple[str, ...] = ()
    new_columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unselected: tuple[str, ...] = ()

    @property
    def landed(self) -> list[TableReport]:
        return [table for table in self.tables if table.failure is None]

    @property
    def failed(self) -> list[TableReport]:
        """What could not be read this time; a table that had landed before keeps what it has."""
        return [table for table in self.tables if table.failure is not None]

    @property
    def full_resyncs(self) -> list[TableReport]:
        return [table for table in self.landed if not table.incremental]

    @property
    def rows(self) -> int:
        return sum(table.counts.landed for table in self.landed)


def report_rows(record: DumpRecord) -> list[dict[str, object]]:
    """Return a dump's tables as rows of :data:`REPORT_SCHEMA`."""
    rows = [_row(record, table) for table in record.tables.values()]
    if record.failure is not None:
        state = TableState.FAILED
        manifest = TableRecord(
            "(manifest)", state, failure=record.failure, attempts=record.attempts, retry_at=record.retry_at
        )
        rows.append(_row(record, manifest))
    return rows


def _row(dump: DumpRecord, table: TableRecord) -> dict[str, object]:
    counts, failure = table.counts, table.failure
    return {
        "table": table.table,
        "dump_id": dump.dump_id,
        "day": dump.day,
        "as_of": dump.as_of,
        "state": str(table.state),
        "incremental": table.incremental,
        "files": len(table.files),
        "bytes": table.bytes,
        "rows_read": counts.read,
        "rows_landed": counts.landed,
        "rows_new": counts.new,
        "rows_updated": counts.updated,
        "rows_unchanged": counts.unchanged,
        "rows_rejected": counts.rejected,
        "values_lost": sum(table.lost.values()),
        "rows_before_start": counts.before_start,
        "rows_ahead": counts.ahead,
        "rows_late": counts.late,
        "seconds": table.seconds,
        "attempts": table.attempts,
        "retry_at": table.retry_at,
        "landed_at": table.landed_at,
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
    """Put together what one run did: `before` are the records before it, `tables` what it landed or failed at."""
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
        tables=[TableReport.of(table) for table in tables],
        touched=dict(record.unannounced),
        new_tables=tuple(t.name for t in manifest.tables if t.name not in columns_before),
        new_columns=new_columns,
        unselected=tuple(n for n, t in record.tables.items() if t.state is TableState.UNSELECTED),
    )


def touched_days(records: Mapping[int, DumpRecord], record: DumpRecord, table: TableRecord) -> frozenset[date]:
    """Return the days that a landed table makes it necessary to build again."""
    standing = deliveries(records, table.table)
    stands = any(delivery.dump.dump_id == record.dump_id for delivery in standing)
    if table.table in SNAPSHOT_TABLES:
        # Its own day is how things stood then, whatever replaced them since.
        then = deliveries(records, table.table, record.day)
        own = {record.day} if any(delivery.dump.dump_id == record.dump_id for delivery in then) else set()
        return frozenset(own | ({standing[-1].dump.day} if stands else set()))
    if not stands:
        return frozenset()  # an older dump than the last full resync: it changes nothing
    if not table.incremental:
        return days_ever(records.values(), table.table)
    return table.days_ever


def columns_seen(records: Mapping[int, DumpRecord], table: str) -> set[str]:
    """Return every column that a table ever had, selected or not."""
    found = [record.tables[table] for record in records.values() if table in record.tables]
    return {column for known in found for column in (*known.schema, *known.left_out)}
