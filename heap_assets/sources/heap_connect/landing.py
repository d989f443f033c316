"""Landing: dumps become Parquet that can be read by day, table by table, each whole or not at all (design.md).

There are no bookmarks: what has to land is what the source lists, less what the records say has landed with the same
ETags. A process may be killed between any two steps: the next run does what is missing.
"""

from __future__ import annotations

import threading
import time as clock
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import partial

import polars as pl

from heap_assets.errors import SourceError
from heap_assets.sources.heap_connect.avro import AvroError
from heap_assets.sources.heap_connect.comparing import compare
from heap_assets.sources.heap_connect.config import USER_MIGRATIONS, LandingConfig
from heap_assets.sources.heap_connect.manifest import (
    MOST_BYTES,
    Manifest,
    ManifestError,
    ManifestTable,
    parse_manifest,
    printable,
)
from heap_assets.sources.heap_connect.pending import full_resyncs, needs_landing, with_outstanding
from heap_assets.sources.heap_connect.record_store import Progress, Records
from heap_assets.sources.heap_connect.records import (
    UNEXPECTED,
    Delivery,
    DumpRecord,
    DumpRecords,
    Failure,
    SourceFile,
    TableRecord,
    TableState,
    days_ever,
    deliveries,
    failure_of,
)
from heap_assets.sources.heap_connect.reports import (
    REPORT_SCHEMA,
    DumpReport,
    columns_ever,
    failed_manifest,
    report_of,
    report_rows,
)
from heap_assets.sources.heap_connect.sources import UNKNOWN_TIME, DumpSource, ManifestFile, key_of
from heap_assets.sources.heap_connect.staging import Job, Stager, files_of
from heap_assets.storage import Store
from heap_assets.tables import SNAPSHOT_TABLES

INDEX_SCHEMA = pl.Schema({
    "table": pl.String(), "dump_id": pl.Int64(), "day": pl.Date(), "rows": pl.Int64(), "incremental": pl.Boolean(),
    "standing": pl.Boolean(), "dump_day": pl.Date(), "as_of": pl.Datetime("us", "UTC"), "version": pl.String(),
})  # fmt: skip

_LARGE_TABLE_BYTES = 32 << 20
_MOST_REASON = 500


class Landing:
    """The landing area of a store."""

    def __init__(self, store: Store, config: LandingConfig) -> None:
        self.store = store
        self.config = config
        self._records = Records(store)
        self._large_tables = threading.Lock()

    def records(self) -> DumpRecords:
        """Return the records of all dumps, by id."""
        return self._records.load()

    def pending(self, source: DumpSource) -> list[ManifestFile]:
        """Return the dumps that have something to land, in dump order.

        A dump is pending if it is unknown, the ETag of its manifest or a data file has changed, a landing of it stopped
        before its last table, a table failed and is due to be tried again, a table is selected that was not, rows were
        left out that are not before the start date any more, or the days that it touched were not confirmed. Of dumps
        with a record of a former version, the manifests are read once to complete it.

        Raises SourceError if the source cannot be listed, or has no dump at all although some have landed.
        """
        manifests, records = self._listed(source)
        records = with_outstanding(self._records, records, manifests, source, self.config)
        newest = manifests if self.config.recheck_dumps is None else manifests[-self.config.recheck_dumps :]
        recheck = {manifest.dump_id for manifest in newest}
        return self._needing(manifests, records, source, recheck)

    def waiting(self, source: DumpSource) -> list[ManifestFile]:
        """Return the dumps that are pending without writing anything or listing data files.

        Only :meth:`pending` finds files that were changed in place. A dump with a record of a former version counts as
        pending until :meth:`pending` has completed that.
        """
        manifests, records = self._listed(source)
        return self._needing(manifests, records, source, recheck=())

    def _needing(
        self,
        manifests: Sequence[ManifestFile],
        records: DumpRecords,
        source: DumpSource,
        recheck: Collection[int],
    ) -> list[ManifestFile]:
        config, resyncs = self.config, full_resyncs(records)
        return [
            m
            for m in manifests
            if needs_landing(m, records.get(m.dump_id), source, config, resyncs, recheck=m.dump_id in recheck)
        ]

    def _listed(self, source: DumpSource) -> tuple[list[ManifestFile], DumpRecords]:
        """List manifests, and read records after that: a place that had some and now has none is another place."""
        manifests, records = source.manifests(), self.records()
        if records and not manifests:
            raise SourceError(
                f"{source.describe()} has no dump any more, though {len(records)} landed from it: is it mounted, and "
                "is it the one that heap.source means?"
            )
        return manifests, records

    def land(self, source: DumpSource, dump_id: int | ManifestFile, *, confirm_later: bool = False) -> DumpReport:
        """Land what a dump still has to land. A table that fails is recorded and does not stop the others.

        `confirm_later`: the touched days of the report are reported again by the next landing of this dump, and the
        dump stays pending, until :meth:`confirm` is called with them.

        Raises SourceError if the source does not have the dump, or cannot be listed.
        """
        file = dump_id if isinstance(dump_id, ManifestFile) else _manifest(source, dump_id)
        records = self.records()
        try:
            manifest = parse_manifest(source.read(file.key, MOST_BYTES + 1), file.key, file.dump_id)
        except (ManifestError, SourceError) as error:
            return self._refused(file, Failure(str(error), file=file.key))
        record = self._records.update(file.dump_id, lambda current: self._outstanding(current, file, manifest))
        tables_before = {table for earlier in records.values() for table in earlier.tables}
        columns_before = {table: columns_ever(records, table) for table in tables_before}
        # one listing rather than a request for each file
        objects = {o.key: o for o in source.list(f"sync_{file.dump_id}/")}
        addresses = {uri: key_of(uri) for table in manifest.tables for uri in table.files}
        listed = {u: SourceFile(u, objects[k].etag, objects[k].size) for u, k in addresses.items() if k in objects}
        progress = Progress(self._records, records, record)
        land_table = partial(self._table, source, records, record, listed)
        with progress, ThreadPoolExecutor(self.config.workers) as pool:
            for table, result in zip(manifest.tables, pool.map(land_table, manifest.tables), strict=True):
                progress.add(table.name, result)
        if not confirm_later:
            self.confirm(file.dump_id, progress.record.unannounced)
        return report_of(records, progress.record, progress.landed, manifest, columns_before)

    def lacks(self, snapshot_table: str) -> bool:
        """Return whether the source has no such table, so that it is built without rows.

        A source of files says so itself. A bucket lacks migrations if something landed from it and no manifest lists
        them (another exporter's, or one of a company that never calls identify); users it must have.
        """
        if snapshot_table in self.config.not_in_source:
            return True
        records = self.records().values()
        if snapshot_table != USER_MIGRATIONS or any(_may_list(record, snapshot_table) for record in records):
            return False
        return any(table.landed_at is not None for record in records for table in record.tables.values())

    def confirm(self, dump_id: int, days: Mapping[str, Collection[date]]) -> None:
        """Record that these days, by table, were reported for rebuilding: they are not reported again."""
        if not days:
            return

        def _confirmed(record: DumpRecord | None) -> DumpRecord:
            if record is None:
                raise SourceError(f"dump {dump_id} has no record: it never landed")
            remaining = {table: touched - {*days.get(table, ())} for table, touched in record.unannounced.items()}
            return replace(record, unannounced={table: touched for table, touched in remaining.items() if touched})

        self._records.update(dump_id, _confirmed)

    def damaged_records(self) -> list[str]:
        """Return the addresses of records that cannot be read; their dumps are pending."""
        return self._records.damaged()

    def index(self) -> pl.DataFrame:
        """Return rows by table, dump and day. `standing` is false for rows that a full resync has replaced."""
        records = self.records()
        names = sorted({name for record in records.values() for name in record.tables})
        current = {(t, d.dump.dump_id) for t in names for d in deliveries(records, t)}
        rows = [
            (name, r.dump_id, day, count, t.incremental, (name, r.dump_id) in current, r.day, r.as_of, t.version)
            for r in records.values()
            for name, t in r.tables.items()
            if t.state is TableState.LANDED
            for day, count in (t.days if name not in SNAPSHOT_TABLES else {r.day: t.counts.landed}).items()
        ]
        return pl.DataFrame(rows, schema=INDEX_SCHEMA, orient="row").sort("table", "dump_id", "day")

    def reports(self, dump_id: int | None = None) -> pl.DataFrame:
        """Return the newest report of every table of every dump, or of one: files, bytes, rows, seconds, failures."""
        records = [record for id_of_dump, record in self.records().items() if dump_id in (None, id_of_dump)]
        rows = [row for record in records for row in report_rows(record)]
        return pl.DataFrame(rows, schema=REPORT_SCHEMA, orient="row").sort("dump_id", "table")

    def tables(self) -> list[str]:
        """Return the tables that ever landed, sorted."""
        landed = {n for r in self.records().values() for n, t in r.tables.items() if t.state is TableState.LANDED}
        return sorted(landed)

    def days(self, table: str) -> list[date]:
        """Return every day that a table ever had rows of, sorted."""
        return sorted(days_ever(self.records(), table))

    def deliveries(self, table: str, until: date | None = None) -> list[Delivery]:
        """Return the current deliveries of a table, see :func:`deliveries`."""
        return deliveries(self.records(), table, until)

    def reset(self, table: str) -> int:
        """Forget what landed of a table: its dumps are pending again. Days it had are remembered.

        Returns the number of dumps that will land again.
        """
        count = 0
        for record in self.records().values():
            landed = record.tables.get(table)
            if landed is None or landed.state in {TableState.RESET, TableState.UNSELECTED}:
                continue
            forgotten = TableRecord(
                table,
                TableState.RESET,
                incremental=landed.incremental,
                days_ever=landed.days_ever,
                metered=landed.metered,
            )
            self._records.update(record.dump_id, partial(_with_table, record, forgotten))
            for key in (*(part.key for part in landed.parts), *landed.rejected_keys, landed.moved_key):
                if key:
                    self.store.delete(key)
            count += 1
        return count

    def _outstanding(self, record: DumpRecord | None, file: ManifestFile, manifest: Manifest) -> DumpRecord:
        """Return the record with all tables still outstanding: it is saved before the first lands."""
        record = self._unselect(_with_manifest(record, file), manifest)
        names = tuple(table.name for table in manifest.tables if self.config.tables.takes_table(table.name))
        return replace(record, failure=None, attempts=0, retry_at=None, outstanding=names)

    def _refused(self, file: ManifestFile, failure: Failure) -> DumpReport:
        def _failed(record: DumpRecord | None) -> DumpRecord:
            record = _with_manifest(record, file)
            attempts = record.attempts + 1
            return replace(
                record,
                failure=failure,
                attempts=attempts,
                retry_at=self.config.retry_at(attempts),
                outstanding=record.outstanding or (),
            )

        record = self._records.update(file.dump_id, _failed)
        return DumpReport(record.dump_id, record.as_of, record.day, tables=[failed_manifest(record)])

    def _unselect(self, record: DumpRecord, manifest: Manifest) -> DumpRecord:
        for table in manifest.tables:
            landed = record.tables.get(table.name)
            if self.config.tables.takes_table(table.name) or (landed and landed.state is TableState.LANDED):
                continue
            left_out = TableRecord(table.name, TableState.UNSELECTED, left_out=table.columns)
            record = record.with_table(left_out)
        return record

    def _table(
        self,
        source: DumpSource,
        records: DumpRecords,
        record: DumpRecord,
        listed: Mapping[str, SourceFile],
        table: ManifestTable,
    ) -> TableRecord | None:
        """Land one table; None if there is nothing to do."""
        if not self.config.tables.takes_table(table.name):
            return None
        earlier = record.tables.get(table.name)
        files: tuple[SourceFile, ...] = ()
        try:
            if table.problem is not None:
                raise SourceError(table.problem)
            files = files_of(source, table, listed)
            return self._landed(source, records, record, table, files)
        except AvroError as error:
            return self._failed(earlier, table, files, Failure(error.reason, error.file, error.block))
        except SourceError as error:
            return self._failed(earlier, table, files, Failure(str(error)))
        except UNEXPECTED as error:
            return self._failed(earlier, table, files, failure_of(error))

    def _landed(
        self,
        source: DumpSource,
        records: DumpRecords,
        record: DumpRecord,
        table: ManifestTable,
        files: tuple[SourceFile, ...],
    ) -> TableRecord | None:
        began = clock.perf_counter()
        earlier = record.tables.get(table.name)
        job = Job(
            table,
            record.dump_id,
            record.as_of,
            record.day,
            self.config.start_date,
            self.config.tables,
            files,
            limits=self.config.limits,
            without_erased=self.config.without_erased,
            masked=self.config.masked,
            kept_from=self.config.kept_from,
        )
        if earlier and earlier.state is TableState.LANDED and job.is_done_by(earlier):
            return replace(earlier, failure=None, attempts=0, retry_at=None) if earlier.failure else None
        # large tables land one at a time: each is decoded on all cores, and memory is that of one
        is_large = sum(file.bytes for file in files) >= _LARGE_TABLE_BYTES
        with self._large_tables if is_large else nullcontext():
            staged = Stager(self.store, source, job).run()
        landed = TableRecord(
            table=table.name,
            state=TableState.LANDED,
            version=job.version,
            incremental=table.incremental,
            files=files,
            parts=tuple(staged.parts),
            schema=staged.schema,
            origins=staged.origins,
            left_out=staged.left_out,
            counts=staged.counts,
            rejected=staged.rejected,
            rejected_keys=tuple(staged.rejected_keys),
            lost=staged.lost,
            start=None if job.is_snapshot else job.start_date,
        )
        landed = self._compared(records, record, landed, job)
        metered, today = dict(earlier.metered) if earlier else {}, self.config.now().date()
        return replace(
            landed,
            metered=metered | {today: metered.get(today, 0) + staged.counts.read},
            days_ever=frozenset(landed.days)
            | frozenset(landed.moved)
            | (earlier.days_ever if earlier else frozenset()),
            # the real clock, which dates the lake's objects too: builds are compared with it, also in simulated time
            landed_at=datetime.now(UTC),
            seconds=clock.perf_counter() - began,
        )

    def _compared(self, records: DumpRecords, record: DumpRecord, landed: TableRecord, job: Job) -> TableRecord:
        earlier = [d for d in deliveries(records, landed.table) if d.dump.dump_id != record.dump_id]
        if any(not d.table.incremental and d.dump.dump_id > record.dump_id for d in earlier):
            return landed  # a full resync has replaced it already
        comparison = compare(self.store, Delivery(record, landed), earlier, f"{job.folder}/moved.parquet")
        new, updated, unchanged = comparison.new, comparison.updated, comparison.unchanged
        counts = replace(landed.counts, new=new, updated=updated, unchanged=unchanged)
        return replace(landed, counts=counts, moved=comparison.moved, moved_key=comparison.moved_key)

    def _failed(
        self, earlier: TableRecord | None, table: ManifestTable, files: tuple[SourceFile, ...], failure: Failure
    ) -> TableRecord:
        attempts = (earlier.attempts if earlier else 0) + 1
        # Rows that landed before stay: a file that was damaged later removes nothing.
        base = earlier if earlier and earlier.state is TableState.LANDED else TableRecord(table.name, TableState.FAILED)
        return replace(
            base,
            incremental=base.incremental if base is earlier else table.incremental,
            files=files,
            failure=replace(failure, reason=printable(failure.reason)[:_MOST_REASON]),
            attempts=attempts,
            retry_at=self.config.retry_at(attempts),
            days_ever=earlier.days_ever if earlier else frozenset(),
            metered=earlier.metered if earlier else {},
        )


def _may_list(record: DumpRecord, table: str) -> bool:
    """Whether the manifest of a dump lists a table, or is not known; one that could not be read lists nothing yet."""
    if record.outstanding is None:
        return record.failure is None or table in record.tables
    return table in record.outstanding or table in record.tables


def _with_manifest(record: DumpRecord | None, file: ManifestFile) -> DumpRecord:
    if record is None:
        return DumpRecord(file.dump_id, file.key, file.etag, file.last_modified)
    # as_of stays that of the first listing: rewriting a manifest does not move the dump to another day.
    as_of = file.last_modified if record.as_of == UNKNOWN_TIME else record.as_of
    return replace(record, manifest_key=file.key, manifest_etag=file.etag, as_of=as_of)


def _with_table(record: DumpRecord, table: TableRecord, current: DumpRecord | None) -> DumpRecord:
    return (current or record).with_table(table)


def _manifest(source: DumpSource, dump_id: int) -> ManifestFile:
    for manifest in source.manifests():
        if manifest.dump_id == dump_id:
            return manifest
    raise SourceError(f"dump {dump_id} has no manifest in {source.describe()}: list them with `heap-assets discover`")
