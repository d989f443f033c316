"""Inspecting a source before anything lands: whether it can be read, and which tables and columns it has."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import polars as pl

from heap_assets.errors import HeapAssetsError, SourceError
from heap_assets.redaction import redact_error
from heap_assets.sources.heap_connect.avro_container import Limits
from heap_assets.sources.heap_connect.catalogue import Catalogue
from heap_assets.sources.heap_connect.config import Selection
from heap_assets.sources.heap_connect.manifest import Manifest, ManifestError, ManifestTable, parse_manifest
from heap_assets.sources.heap_connect.sources import DumpSource, ManifestFile, key_of
from heap_assets.sources.heap_connect.values import read_times
from heap_assets.tables import SNAPSHOT_TABLES


@dataclass(frozen=True)
class PreflightCheck:
    """The result of one step of :func:`preflight`; `detail` is what was read, or what is wrong and what to do."""

    step: str
    passed: bool
    detail: str


def preflight(source: DumpSource, caller: Callable[[], str] | None = None) -> list[PreflightCheck]:
    """Check credentials, listing, newest manifest and one file header, in this order; stop at the first failure.

    `caller`: returns the principal that requests are made as; left out for sources without credentials.
    """
    checks: list[PreflightCheck] = []

    def step(name: str, look: Callable[[], str]) -> bool:
        try:
            checks.append(PreflightCheck(name, True, look()))
        except HeapAssetsError as error:
            checks.append(PreflightCheck(name, False, str(error)))
        except Exception as error:
            checks.append(PreflightCheck(name, False, f"{type(error).__name__}: {redact_error(error)}"))
        return checks[-1].passed

    manifests: list[ManifestFile] = []
    opened: list[Manifest] = []
    if caller is not None and not step("credentials", caller):
        return checks
    if not step("listing", lambda: _listing(source, manifests)) or not manifests:
        return checks
    if step("newest manifest", lambda: _manifest(source, manifests[-1], opened)):
        step("file header", lambda: _file_header(source, opened[0]))
    return checks


def _listing(source: DumpSource, manifests: list[ManifestFile]) -> str:
    manifests += source.manifests()
    if not manifests:
        return f"{source.describe()} can be listed and has no dumps yet: Heap writes the first within a day"
    return f"{len(manifests)} dumps, {manifests[0].dump_id} to {manifests[-1].dump_id}"


def _manifest(source: DumpSource, newest: ManifestFile, opened: list[Manifest]) -> str:
    opened.append(parse_manifest(source.read(newest.key), newest.key, newest.dump_id))
    files = sum(len(table.files) for table in opened[0].tables)
    written = f"{newest.last_modified:%Y-%m-%d %H:%M} UTC"
    return f"dump {newest.dump_id} of {written}: {len(opened[0].tables)} tables, {files} files"


def _file_header(source: DumpSource, manifest: Manifest) -> str:
    uri = next((file for table in manifest.tables for file in table.files), None)
    if uri is None:
        return "the newest dump has no files"
    columns, codec = source.header(uri)
    return f"{len(columns)} columns, codec {codec}: {uri}"


_MOST_SCANNED_BYTES = 64 << 20

TABLES_SCHEMA = pl.Schema({
    "table": pl.String(), "kind": pl.String(), "columns": pl.Int64(), "dumps": pl.Int64(), "first_dump": pl.Int64(),
    "newest_dump": pl.Int64(), "full_resyncs": pl.Int64(), "files": pl.Int64(), "bytes": pl.Int64(),
    "selected": pl.Boolean(), "new": pl.Boolean(),
})  # fmt: skip
COLUMNS_SCHEMA = pl.Schema(
    {"table": pl.String(), "column": pl.String(), "type": pl.String(), "selected": pl.Boolean(), "new": pl.Boolean()}
)


@dataclass(frozen=True)
class Discovery:
    """Tables and columns of a source.

    Attributes
    ----------
    tables, columns
        :data:`TABLES_SCHEMA` and :data:`COLUMNS_SCHEMA`. `new`: not in the catalogue; `type` is Avro's, from the newest
        file of the table, null if none could be read.
    unreadable
        Manifests that could not be read, with the reason.
    """

    tables: pl.DataFrame
    columns: pl.DataFrame
    unreadable: dict[int, str]


def discover(source: DumpSource, selection: Selection, catalogue: Catalogue, newest: int | None = None) -> Discovery:
    """Read the manifests (the newest so many, or all) and one file header for each table."""
    manifests = source.manifests()
    dumps: dict[str, list[tuple[ManifestFile, ManifestTable]]] = {}
    unreadable: dict[int, str] = {}
    sizes: dict[str, int] = {}
    for manifest in manifests if newest is None else manifests[-newest:]:
        try:
            tables = parse_manifest(source.read(manifest.key), manifest.key, manifest.dump_id).tables
        except (ManifestError, SourceError) as error:
            unreadable[manifest.dump_id] = str(error)
            continue
        sizes |= {o.key: o.size for o in source.list(f"sync_{manifest.dump_id}/")}
        for table in tables:
            dumps.setdefault(table.name, []).append((manifest, table))
    rows = [
        (*_table(name, of_table, sizes), selection.takes_table(name), name not in catalogue.tables)
        for name, of_table in sorted(dumps.items())
    ]
    columns = [
        row
        for name, of_table in sorted(dumps.items())
        for row in _columns(source, name, of_table, selection, catalogue)
    ]
    return Discovery(
        pl.DataFrame(rows, schema=TABLES_SCHEMA, orient="row"),
        pl.DataFrame(columns, schema=COLUMNS_SCHEMA, orient="row"),
        unreadable,
    )


def first_day(source: DumpSource, selection: Selection) -> date | None:
    """Return the first day with events in the oldest readable dump; None if no event could be read.

    Only files of up to 64 MB are read, three of each table; the days before the first full sync of a large source may
    therefore be missed.
    """
    for manifest in source.manifests():
        try:
            tables = parse_manifest(source.read(manifest.key), manifest.key, manifest.dump_id).tables
        except (ManifestError, SourceError):
            continue
        names = [t for t in tables if t.name not in SNAPSHOT_TABLES and selection.takes_table(t.name)]
        days = [day for table in names for file in table.files[:3] if (day := _first_day_of(source, file))]
        if days:
            return min(days)
    return None


def _first_day_of(source: DumpSource, file: str) -> date | None:
    try:
        stored = source.stat(file)
        if stored.size > _MOST_SCANNED_BYTES:
            return None
        with tempfile.TemporaryDirectory(prefix="heap-assets-") as scratch:
            path = source.fetch(file, Path(scratch) / "file", stored.etag)
            batches = source.decode(path, file, Limits())
            times = [read_times(batch.rows["time"]).values.min() for batch in batches if "time" in batch.rows.columns]
    except (SourceError, ValueError):
        return None  # landing it will report what is wrong
    days = [moment.date() for moment in times if isinstance(moment, datetime)]
    return min(days, default=None)


def _table(name: str, dumps: list[tuple[ManifestFile, ManifestTable]], sizes: dict[str, int]) -> tuple[object, ...]:
    kind = "snapshot" if name in SNAPSHOT_TABLES else "event"
    files = [key_of(file) for _, table in dumps for file in table.files]
    full, size = sum(not table.incremental for _, table in dumps), sum(sizes.get(file, 0) for file in files)
    columns, first, newest = len(_names(table for _, table in dumps)), dumps[0][0].dump_id, dumps[-1][0].dump_id
    return name, kind, columns, len(dumps), first, newest, full, len(files), size


def _columns(
    source: DumpSource,
    name: str,
    dumps: list[tuple[ManifestFile, ManifestTable]],
    selection: Selection,
    catalogue: Catalogue,
) -> list[tuple[object, ...]]:
    types = _types(source, [file for _, table in reversed(dumps) for file in table.files][:3])
    names = list(dict.fromkeys([*_names(table for _, table in dumps), *types]))
    chosen = set(selection.chosen(name, names)) if selection.takes_table(name) else set()
    catalogued = set(catalogue.columns(name) or ())
    return [(name, column, types.get(column), column in chosen, column not in catalogued) for column in names]


def _names(tables: Iterable[ManifestTable]) -> list[str]:
    return list(dict.fromkeys(column for table in tables for column in table.columns))


def _types(source: DumpSource, files: list[str]) -> dict[str, str]:
    for file in files:
        try:
            fields, _ = source.header(file)
        except (ValueError, SourceError):
            continue  # landing is where a bad file is an error
        return {name: _spelled(kind) for name, kind in fields.items()}
    return {}


def _spelled(kind: object) -> str:
    if isinstance(kind, list):
        return " | ".join(_spelled(branch) for branch in kind if branch != "null") or "null"
    if isinstance(kind, dict):
        return str(kind.get("logicalType") or _spelled(kind["type"]))
    return str(kind)
