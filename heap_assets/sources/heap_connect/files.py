"""Files of events, users and user_migrations that no Heap Connect wrote, read as dumps: one file is one dump.

What a dump is to landing, a file is here: its time of modification is the dump's, and orders dumps; a file that changes
lands again whole. The names of its columns become Heap's by the settings. Rules of rows, late, repeated and rejected
ones, are those of dumps, since the same code lands them.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from heap_assets.errors import SourceError
from heap_assets.siphash import siphash_texts
from heap_assets.sources.heap_connect.avro import AvroBatch
from heap_assets.sources.heap_connect.avro_container import Limits
from heap_assets.sources.heap_connect.file_formats import FORMATS, format_of
from heap_assets.sources.heap_connect.sources import DumpSource, ManifestFile, SourceObject, key_of
from heap_assets.sources.heap_connect.values import key_dtype, read_times
from heap_assets.values import TIME

_HASH_KEY = np.array([0x68656170, 0x66696C65], dtype=np.uint64)
_SEPARATOR = "\x1f"
_UNNAMED = "unnamed_event"
_NOT_WORDS = re.compile(r"[^a-z0-9]+")
_TRUE, _FALSE = ("true", "t", "1", "yes", "y"), ("false", "f", "0", "no", "n")
_EXACT = 2**53
_SECONDS_BITS: Final = 32
"""Of a dump's number: its upper half is the second of a file's time, its lower half of a hash of the file's name."""


@dataclass(frozen=True)
class FileTable:
    """Which files a table comes from, and how their columns are called and typed.

    Attributes
    ----------
    name
        Heap's table; with `event_column`, no more than a label.
    pattern
        Of the files' paths below the folder or prefix, as in a shell; `*` takes `/` too.
    columns
        Heap's column to the file's; of an id also several, whose texts are hashed to a number, as those of `hashed`.
    types
        Heap's column to `text`, `integer`, `number`, `boolean`, `time` or `date`.
    event_column
        The file's column that names the event: each name is a table.
    full
        Whether a file holds all rows there are, so that they replace those of earlier files.
    """

    name: str
    pattern: str
    form: str | None = None
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    hashed: frozenset[str] = frozenset()
    types: Mapping[str, str] = field(default_factory=dict)
    event_column: str | None = None
    full: bool = False

    @cached_property
    def version(self) -> str:
        """Changes with whatever changes the rows that a file gives."""
        described: list[Any] = [self.name, self.form, {k: list(v) for k, v in self.columns.items()}, dict(self.types)]
        described += [sorted(self.hashed), self.event_column, self.full]
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:8]

    def table_of(self, event: str | None) -> str:
        """Return the table of an event's name: `Signed Up` is `signed_up`."""
        return _NOT_WORDS.sub("_", (event or "").strip().lower()).strip("_") or _UNNAMED


class FilesSource:
    """The files of a folder or a bucket as dumps.

    Parameters
    ----------
    files
        The folder or bucket; its manifests are not asked for.
    tables
        A file belongs to the first table whose pattern it matches.
    landed_numbers
        Returns the numbers of files that landed, by path: they keep them when they change.
    """

    def __init__(
        self, files: DumpSource, tables: Sequence[FileTable], landed_numbers: Callable[[], Mapping[str, int]] = dict
    ) -> None:
        self._files, self._tables, self._landed_numbers = files, tables, landed_numbers

    def describe(self) -> str:
        return f"files in {self._files.describe()}"

    def manifests(self) -> list[ManifestFile]:
        """Return a manifest for each file, which is written when it is read."""
        landed = self._landed_numbers()
        manifests: dict[int, ManifestFile] = {}
        for file in self._files.list(""):
            table = self._table_of(file.key)
            if table is None:
                continue
            number = landed.get(file.key) or _number_of(file)
            while number in manifests:
                number += 1
            manifests[number] = ManifestFile(file.key, number, _etag(file, table), file.last_modified)
        return [manifests[number] for number in sorted(manifests)]

    def list(self, prefix: str) -> list[SourceObject]:
        """Return nothing: a file of a dump is asked for by its own name."""
        del prefix
        return []

    def stat(self, uri: str) -> SourceObject:
        key, table, _ = self._address(uri)
        file = self._files.stat(key)
        return replace(file, key=key_of(uri), etag=_etag(file, table))

    def read(self, uri: str, limit: int | None = None) -> bytes:
        """Return the manifest of a file: its table, or one for each event that it names."""
        del limit
        key, table, _ = self._address(uri)
        names = self._events(key, table) if table.event_column else {table.name: key}
        tables = [
            {"name": name, "files": [address], "columns": [], "incremental": not table.full}
            for name, address in sorted(names.items())
        ]
        return json.dumps({"tables": tables}).encode()

    def fetch(self, uri: str, target: Path, etag: str) -> Path:
        key, table, _ = self._address(uri)
        own_etag = etag.removesuffix(f"-{table.version}")
        return self._files.fetch(key, target, own_etag)

    def decode(self, path: Path, uri: str, limits: Limits) -> Iterator[AvroBatch]:
        """Yield the rows of a file in Heap's columns, or those of one event."""
        key, table, event_table = self._address(uri)
        for batch in FORMATS[self._form(key, table)].batches(path, uri, limits):
            rows = batch.rows
            if table.event_column:
                names = _required(rows, [table.event_column], key, table, "event_column")[0]
                tables = names.cast(pl.String).map_elements(table.table_of, pl.String, skip_nulls=False)
                rows = rows.filter(tables == event_table)
            name = event_table if table.event_column else table.name
            mapped, lost = _mapped(rows, key, name, table, self._form(key, table))
            yield AvroBatch(mapped, {**batch.lost, **lost})

    def header(self, uri: str) -> tuple[dict[str, object], str]:
        """Return the columns of a file's first rows with their types, and its format."""
        key, table, _ = self._address(uri)
        with self._local(key) as path:
            batch = next(self.decode(path, uri, Limits()), AvroBatch(pl.DataFrame()))
        types: dict[str, object] = {name: str(dtype) for name, dtype in batch.rows.schema.items()}
        return types, self._form(key, table)

    def _events(self, key: str, table: FileTable) -> dict[str, str]:
        names: set[str] = set()
        with self._local(key) as path:
            for batch in FORMATS[self._form(key, table)].batches(path, key, Limits()):
                [events] = _required(batch.rows, [str(table.event_column)], key, table, "event_column")
                names |= {table.table_of(event) for event in events.cast(pl.String).unique()}
        return {name: f"{key}#{name}" for name in names}

    def _local(self, key: str) -> _LocalFile:
        return _LocalFile(self._files, key)

    def _form(self, key: str, table: FileTable) -> str:
        return table.form or format_of(key)

    def _address(self, uri: str) -> tuple[str, FileTable, str]:
        """Return the file of an address, its table, and the event's table of which the address is."""
        address = key_of(uri)
        key, _, event_table = address.rpartition("#") if "#" in address else (address, "", "")
        table = self._table_of(key) or self._table_of(address)
        if table is None:
            raise SourceError(f"{key} matches no pattern of heap.source.tables any more")
        return (key, table, event_table) if table.event_column else (address, table, "")

    def _table_of(self, key: str) -> FileTable | None:
        if any(part.startswith((".", "_")) for part in key.split("/")):
            return None  # what writers leave beside their files: _SUCCESS, .crc, .tmp
        return next((table for table in self._tables if fnmatchcase(key, table.pattern)), None)


class _LocalFile:
    """A file as a path for the time of a `with` block."""

    def __init__(self, files: DumpSource, key: str) -> None:
        self._files, self._key = files, key
        self._folder = tempfile.TemporaryDirectory(prefix="heap-assets-")

    def __enter__(self) -> Path:
        etag = self._files.stat(self._key).etag
        return self._files.fetch(self._key, Path(self._folder.name) / "file", etag)

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


def _number_of(file: SourceObject) -> int:
    digest = hashlib.sha256(file.key.encode()).digest()
    return (max(0, int(file.last_modified.timestamp())) << _SECONDS_BITS) | int.from_bytes(digest[:4], "big")


def _etag(file: SourceObject, table: FileTable) -> str:
    return f"{file.etag}-{table.version}"


def _required(rows: pl.DataFrame, names: Sequence[str], key: str, table: FileTable, setting: str) -> list[pl.Series]:
    if missing := [name for name in names if name not in rows.columns]:
        raise SourceError(
            f"{key} has no column {', '.join(missing)}, which heap.source.tables.{table.name}.{setting} names; "
            f"it has: {', '.join(rows.columns[:30])}"
        )
    return [rows[name] for name in names]


def _mapped(
    rows: pl.DataFrame, key: str, name: str, table: FileTable, form: str
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return rows in Heap's columns and the types of the settings, and how many values have no such type."""
    mapped: dict[str, pl.Series] = {}
    sources = {**{column: [column] for column in table.hashed}, **table.columns}
    used = {source for own in sources.values() for source in own}
    for column, own in sources.items():
        values = _required(rows, own, key, table, f"columns.{column}")
        mapped[column] = _hashed(values) if column in table.hashed or len(values) > 1 else values[0]
    for column in rows.columns:
        if column not in used and column != table.event_column:
            mapped[column if column not in mapped else f"property_{column}"] = rows[column]
    lost: dict[str, int] = {}
    for column, kind in table.types.items():
        if column in mapped:
            typed = _cast(mapped[column], kind)
            if count := typed.null_count() - mapped[column].null_count():
                lost[column] = count
            mapped[column] = typed
    for column, values_of_key in mapped.items():
        if form == "jsonl" and column not in table.types and key_dtype(name, column) is None:
            mapped[column] = _number(values_of_key)
        dtype = key_dtype(name, column)
        if dtype is not None and dtype != TIME and values_of_key.dtype.is_float():
            numbers = values_of_key.drop_nulls()
            if (numbers == numbers.round()).all():  # of a column of numbers with gaps, as pandas writes them
                mapped[column] = values_of_key.cast(pl.Int64, strict=False)
    return pl.DataFrame([values.alias(column) for column, values in mapped.items()]), lost


def _number(values: pl.Series) -> pl.Series:
    """Return whole numbers of JSON as floats, which they may be in the next file, unless one is too large."""
    if values.dtype != pl.Int64 or (values.abs() > _EXACT).any():
        return values
    return values.cast(pl.Float64)


def _hashed(values: Sequence[pl.Series]) -> pl.Series:
    """Return a number of 63 bits of several texts; null where all are null."""
    texts = pl.DataFrame([v.cast(pl.String).alias(str(i)) for i, v in enumerate(values)])
    joined = texts.select(pl.concat_str(pl.all().fill_null(""), separator=_SEPARATOR)).to_series()
    hashes = pl.Series(siphash_texts(joined, _HASH_KEY) >> np.uint64(1), dtype=pl.UInt64).cast(pl.Int64)
    return hashes.set(texts.select(pl.all_horizontal(pl.all().is_null())).to_series(), None)


def _cast(values: pl.Series, kind: str) -> pl.Series:
    if kind == "time":
        return read_times(values).values
    if kind == "date":
        return read_times(values).values.dt.date()
    if kind == "boolean":
        return values if values.dtype == pl.Boolean else _booleans(values)
    dtypes: dict[str, Any] = {"integer": pl.Int64, "number": pl.Float64, "text": pl.String}
    text = values.str.strip_chars() if values.dtype == pl.String and kind != "text" else values
    return text.cast(dtypes[kind], strict=False)


def _booleans(values: pl.Series) -> pl.Series:
    words = values.cast(pl.String).str.to_lowercase().str.strip_suffix(".0").to_frame("v")
    is_true, is_false = pl.col("v").is_in(_TRUE), pl.col("v").is_in(_FALSE)
    return words.select(pl.when(is_true).then(True).when(is_false).then(False)).to_series()
