"""What one run of landing did, told from the records before and after it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from heap_assets.sources.heap_connect.manifest import Manifest
from heap_assets.sources.heap_connect.records import DumpRecord, TableRecord, TableState, days_ever, deliveries
from heap_assets.sources.heap_connect.reports import DumpReport, TableReport
from heap_assets.tables import SNAPSHOT_TABLES


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
