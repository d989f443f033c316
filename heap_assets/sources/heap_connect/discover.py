"""What a source has and whether it can be read: one result for each thing that can be wrong, before anything lands."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import fastavro
import polars as pl

from heap_assets.errors import HeapAssetsError, SourceError
from heap_assets.redaction import redact_error
from heap_assets.sources.heap_connect.avro_container import read_header
from heap_assets.sources.heap_connect.catalogue import Catalogue
from heap_assets.sources.heap_connect.config import Selection
from heap_assets.sources.heap_connect.manifest import Manifest, ManifestError, ManifestTable, parse_manifest
from heap_assets.sources.heap_connect.sources import DumpSource, ManifestFile, key_of
from heap_assets.sources.heap_connect.values import read_times
from heap_assets.tables import SNAPSHOT_TABLES

HEADER_BYTES = 256 << 10


@dataclass(frozen=True)
class Verdict:
    """One step: what was looked at, whether it is well, and what was seen or is to be done."""

    step: str
    passed: bool
    detail: str


def preflight(source: DumpSource, caller: Callable[[], str] | None = None) -> list[Verdict]:
    """Check credentials, listing, newest manifest and one file header, in this order; stop at the first failure.

    Parameters
    ----------
    caller
        Says who requests are made as; left out for sources without credentials.
    """
    verdicts: list[Verdict] = []

    def step(name: str, look: Callable[[], str]) -> bool:
        try:
            verdicts.append(Verdict(name, True, look()))
        except HeapAssetsError as error:
            verdicts.append(Verdict(name, False, str(error)))
        except Exception as error:
            verdicts.append(Verdict(name, False, f"{type(error).__name__}: {redact_error(error)}"))
        return verdicts[-1].passed

    found: list[ManifestFile] = []
    opened: list[Manifest] = []
    if caller is not None and not step("credentials", caller):
        return verdicts
    if not step("listing", lambda: _listing(source, found)) or not found:
        return verdicts
    if step("newest manifest", lambda: _manifest(source, found[-1], opened)):
        step("file header", lambda: _file_header(source, opened[0]))
    return verdicts


def _listing(source: DumpSource, found: list[ManifestFile]) -> str:
    found += source.manifests()
    if not found:
        return f"{source.describe()} can be listed and has no dumps yet: Heap writes the first within a day"
    return f"{len(found)} dumps, {found[0].dump_id} to {found[-1].dump_id}"


def _manifest(source: DumpSource, newest: ManifestFile, opened: list[Manifest]) -> str:
    opened.append(parse_manifest(source.read(newest.key), newest.key, newest.dump_id))
    files = sum(len(table.files) for table in opened[0].tables)
    written = f"{newest.last_modified:%Y-%m-%d %H:%M} UTC"
    return f"dump {newest.dump_id} of {written}: {len(opened[0].tables)} tables, {files} files"


def _file_header(source: DumpSource, manifest: Manifest) -> str:
    uri = next((file for table in manifest.tables for file in table.files), None)
    if uri is None:
        return "the newest dump has no files"
    columns, codec = header_of(source, uri)
    return f"{len(columns)} columns, codec {codec}: {uri}"


def header_of(source: DumpSource, uri: str) -> tuple[dict[str, object], str]:
    """Read a data file's header, and no more of it: columns with their Avro types, and the codec.

    Raises
    ------
    ValueError, SourceError
        If it is no Avro file, or cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="heap-assets-") as scratch:
        path = Path(scratch) / "header"
        path.write_bytes(source.read(uri, HEADER_BYTES))
        header = read_header(path)
    return {field["name"]: field["type"] for field in header.schema["fields"]}, header.codec


_LOOKED_INTO = 64 << 20

TABLES_SCHEMA = pl.Schema(
    {
        "table": pl.String(),
        "kind": pl.String(),
        "columns": pl.Int64(),
        "dumps": pl.Int64(),
        "first_dump": pl.Int64(),
        "newest_dump": pl.Int64(),
        "full_resyncs": pl.Int64(),
        "files": pl.Int64(),
        "bytes": pl.Int64(),
        "selected": pl.Boolean(),
        "new": pl.Boolean(),
    }
)
COLUMNS_SCHEMA = pl.Schema(
    {"table": pl.String(), "column": pl.String(), "type": pl.String(), "selected": pl.Boolean(), "new": pl.Boolean()}
)


@dataclass(frozen=True)
class Discovery:
    """Tables and columns of a source.

    Attributes
    ----------
    tables, columns
        :data:`TABLES_SCHEMA` and :data:`COLUMNS_SCHEMA`. `new` is what the catalogue does not know; `type` is Avro's,
        from the newest file that has rows of the table, null if none could be read.
    unreadable
        Manifests that could not be read, with the reason.
    """

    tables: pl.DataFrame
    columns: pl.DataFrame
    unreadable: dict[int, str]


def discover(source: DumpSource, selection: Selection, catalogue: Catalogue, newest: int | None = None) -> Discovery:
    """Read the manifests (the newest so many, or all) and one file header for each table."""
    manifests = source.manifests()
    found: dict[str, list[tuple[ManifestFile, ManifestTable]]] = {}
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
            found.setdefault(table.name, []).append((manifest, table))
    rows = [_table(name, dumps, sizes, selection, catalogue) for name, dumps in sorted(found.items())]
    columns = [
        row for name, dumps in sorted(found.items()) for row in _columns(source, name, dumps, selection, catalogue)
    ]
    return Discovery(
        pl.DataFrame(rows, schema=TABLES_SCHEMA, orient="row"),
        pl.DataFrame(columns, schema=COLUMNS_SCHEMA, orient="row"),
        unreadable,
    )


def first_day(source: DumpSource, selection: Selection) -> date | None:
    """Return the first day of which the source holds events, as far as the oldest readable dump tells.

    Only files of up to 64 MB are looked into, three of each table; the days before the first full sync of a large
    source may therefore be missed. None if no event could be read.
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
        if source.stat(file).size > _LOOKED_INTO:
            return None
        rows = fastavro.reader(io.BytesIO(source.read(file)))
        times = pl.Series([row.get("time") for row in rows if isinstance(row, dict)], strict=False)
    except (SourceError, ValueError, EOFError, KeyError, IndexError, pl.exceptions.PolarsError):
        return None  # its landing will say what is wrong with it
    oldest = read_times(times).values.min()
    return oldest.date() if isinstance(oldest, datetime) else None


def _table(
    name: str,
    dumps: list[tuple[ManifestFile, ManifestTable]],
    sizes: dict[str, int],
    selection: Selection,
    catalogue: Catalogue,
) -> tuple[object, ...]:
    files = [key_of(file) for _, table in dumps for file in table.files]
    return (
        name,
        "snapshot" if name in SNAPSHOT_TABLES else "event",
        len(_names(table for _, table in dumps)),
        len(dumps),
        dumps[0][0].dump_id,
        dumps[-1][0].dump_id,
        sum(not table.incremental for _, table in dumps),
        len(files),
        sum(sizes.get(file, 0) for file in files),
        selection.takes_table(name),
        name not in catalogue.tables,
    )


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
    known = set(catalogue.columns(name) or ())
    return [(name, column, types.get(column), column in chosen, column not in known) for column in names]


def _names(tables: Iterable[ManifestTable]) -> list[str]:
    return list(dict.fromkeys(column for table in tables for column in table.columns))


def _types(source: DumpSource, files: list[str]) -> dict[str, str]:
    for file in files:
        try:
            fields, _ = header_of(source, file)
        except (ValueError, SourceError):
            continue  # discover shows what can be seen; landing is where a bad file is an error
        return {name: _spelled(kind) for name, kind in fields.items()}
    return {}


def _spelled(kind: object) -> str:
    if isinstance(kind, list):
        return " | ".join(_spelled(one) for one in kind if one != "null") or "null"
    if isinstance(kind, dict):
        return str(kind.get("logicalType") or _spelled(kind["type"]))
    return str(kind)
