"""What a source has, what is selected of it, and what is new."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime

import fastavro
import polars as pl

from heap_assets.errors import SourceError
from heap_assets.sources.heap_connect.catalogue import Catalogue
from heap_assets.sources.heap_connect.manifest import ManifestError, ManifestTable, parse_manifest
from heap_assets.sources.heap_connect.preflight import header_of
from heap_assets.sources.heap_connect.selection import Selection
from heap_assets.sources.heap_connect.sources import DumpSource, ManifestFile, key_of
from heap_assets.sources.heap_connect.values import read_times
from heap_assets.tables import SNAPSHOT_TABLES

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
