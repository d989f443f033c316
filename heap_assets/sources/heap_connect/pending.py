"""Which dumps have something to land: what the source lists, less what landed with the same ETags. No bookmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from heap_assets.errors import SourceError
from heap_assets.sources.heap_connect.config import LandingConfig
from heap_assets.sources.heap_connect.manifest import MOST_BYTES, ManifestError, parse_manifest
from heap_assets.sources.heap_connect.record_store import Records
from heap_assets.sources.heap_connect.records import DumpRecord, DumpRecords, TableRecord, TableState
from heap_assets.sources.heap_connect.sources import DumpSource, ManifestFile, key_of
from heap_assets.sources.heap_connect.staging import FORMAT, version_of
from heap_assets.sources.heap_connect.values import was_misread

_READERS = 8


def needs_landing(
    manifest: ManifestFile,
    record: DumpRecord | None,
    source: DumpSource,
    config: LandingConfig,
    resyncs: Mapping[str, int],
    *,
    recheck: bool,
) -> bool:
    """Return whether a dump has something to land.

    `resyncs`: as :func:`full_resyncs` gives them. `recheck`: also look for files that were changed in place.
    """
    if record is None or record.manifest_etag != manifest.etag:
        return True
    now = config.now()
    if record.failure is not None:
        return record.retry_at is None or record.retry_at <= now
    if record.outstanding is None or record.unannounced:
        return True
    if any(config.tables.takes_table(name) for name in record.outstanding):
        return True
    selected = [t for name, t in record.tables.items() if config.tables.takes_table(name)]
    if any(t.state in {TableState.RESET, TableState.UNSELECTED} for t in selected):
        return True
    if any(t.state is TableState.LANDED and was_misread(t.table, t.rejected) for t in selected):
        return True
    if any(_starts_earlier(record, t, config) for t in selected if record.dump_id >= resyncs.get(t.table, 0)):
        return True
    failed = [t for t in selected if t.failure is not None]
    if any(t.retry_at is None or t.retry_at <= now for t in failed):
        return True
    return (recheck or bool(failed)) and _changed_in_place(source, record, selected)


def full_resyncs(records: Mapping[int, DumpRecord]) -> dict[str, int]:
    """Return table to the newest dump that brought it whole: what older ones brought has been replaced."""
    return {
        name: dump_id
        for dump_id, record in sorted(records.items())
        for name, table in record.tables.items()
        if table.state is TableState.LANDED and not table.incremental
    }


def _starts_earlier(record: DumpRecord, table: TableRecord, config: LandingConfig) -> bool:
    """Return whether rows were left out of a table that the start date as it is now would keep."""
    if not table.counts.before_start or table.state is not TableState.LANDED:
        return False
    if table.start is not None:
        return config.start_date < table.start
    facts = (table.table, record.dump_id, record.as_of, table.files, config.start_date)
    patterns, incremental = config.tables.patterns(table.table), table.incremental
    versions = [version_of(form, *facts, patterns, incremental=incremental) for form in (1, FORMAT)]
    return table.version not in versions  # a record of a former version does not say its start


def with_outstanding(
    store: Records,
    records: DumpRecords,
    manifests: Sequence[ManifestFile],
    source: DumpSource,
    config: LandingConfig,
) -> DumpRecords:
    """Give records of former versions their `outstanding` tables, read from the manifests, and store them."""
    incomplete = [m for m in manifests if _lacks_outstanding(records.get(m.dump_id), m)]
    if not incomplete:
        return records

    def _completed(manifest: ManifestFile) -> DumpRecord | None:
        try:
            listed = parse_manifest(source.read(manifest.key, MOST_BYTES + 1), manifest.key, manifest.dump_id).tables
        except (ManifestError, SourceError):
            return None  # the dump needs landing, and that will report what is wrong
        names = [table.name for table in listed if config.tables.takes_table(table.name)]

        def _amended(current: DumpRecord | None) -> DumpRecord:
            record = current or records[manifest.dump_id]
            if record.outstanding is not None:
                return record
            return replace(record, outstanding=tuple(name for name in names if name not in record.tables))

        return store.update(manifest.dump_id, _amended)

    with ThreadPoolExecutor(_READERS) as readers:
        completed = [record for record in readers.map(_completed, incomplete) if record is not None]
    return DumpRecords({**records, **{record.dump_id: record for record in completed}})


def _lacks_outstanding(record: DumpRecord | None, manifest: ManifestFile) -> bool:
    if record is None or record.outstanding is not None or record.failure is not None:
        return False
    return record.manifest_etag == manifest.etag


def _changed_in_place(source: DumpSource, record: DumpRecord, tables: list[TableRecord]) -> bool:
    landed = {key_of(file.uri): file.etag for t in tables for file in t.files}
    listed = {file.key: file.etag for file in source.list(f"sync_{record.dump_id}/")}
    return any(listed.get(key, etag) != etag for key, etag in landed.items())
