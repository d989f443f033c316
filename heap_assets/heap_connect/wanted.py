"""What is wanted: what the source lists, less what landed with the same ETags. No bookmark, no high-water mark."""

from __future__ import annotations

from heap_assets.heap_connect.config import LandingConfig
from heap_assets.heap_connect.records import DumpRecord, TableRecord, TableState
from heap_assets.heap_connect.sources import DumpSource, ManifestFile, key_of


def is_wanted(
    manifest: ManifestFile, record: DumpRecord | None, source: DumpSource, config: LandingConfig, recheck: bool
) -> bool:
    """Say whether a dump has something to land; `recheck`: also look for files that were changed in place."""
    if record is None or record.manifest_etag != manifest.etag:
        return True
    now = config.now()
    if record.failure is not None:
        return record.retry_at is None or record.retry_at <= now
    selected = [t for name, t in record.tables.items() if config.tables.takes_table(name)]
    if any(t.state in {TableState.RESET, TableState.UNSELECTED} for t in selected):
        return True
    failed = [t for t in selected if t.failure is not None]
    if any(t.retry_at is None or t.retry_at <= now for t in failed):
        return True
    return (recheck or bool(failed)) and _changed_in_place(source, record, selected)


def _changed_in_place(source: DumpSource, record: DumpRecord, tables: list[TableRecord]) -> bool:
    known = {key_of(file.uri): file.etag for t in tables for file in t.files}
    listed = {found.key: found.etag for found in source.list(f"sync_{record.dump_id}/")}
    return any(listed.get(key, etag) != etag for key, etag in known.items())
