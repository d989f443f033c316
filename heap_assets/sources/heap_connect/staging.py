"""The data files of one table of one dump, as Parquet parts that can be read by day: gathered, sorted, written."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from pathlib import Path

import polars as pl

from heap_assets.errors import SourceError
from heap_assets.sources.heap_connect.avro_container import Limits
from heap_assets.sources.heap_connect.columns import built_in_columns
from heap_assets.sources.heap_connect.config import USERS, Selection, keys_of
from heap_assets.sources.heap_connect.manifest import ManifestTable
from heap_assets.sources.heap_connect.merging import Columns, fitted
from heap_assets.sources.heap_connect.prefetch import Downloads, ordered_prefetch
from heap_assets.sources.heap_connect.records import Counts, Part, SourceFile, TableRecord, table_folder
from heap_assets.sources.heap_connect.sources import DumpSource
from heap_assets.sources.heap_connect.values import Typed, typed, was_misread
from heap_assets.storage import UNSEALED, Store, seal
from heap_assets.tables import SNAPSHOT_TABLES
from heap_assets.values import PRIVATE, json_or_exact

ORDER = ("time", "event_id", "user_id")

_BYTES_PER_VIEW = 16  # of each text, which Polars does not count
GROUP_ROWS = 8_192  # a slice of a day holds a group of each of many parts


class PendingRows:
    """Rows of one table that have not been written yet."""

    def __init__(self) -> None:
        self._batches: list[pl.DataFrame] = []
        self.height = 0
        self.nbytes = 0

    def add(self, rows: pl.DataFrame) -> None:
        if rows.is_empty():
            return
        self._batches.append(rows)
        self.height += rows.height
        views = sum(dtype == pl.String for dtype in rows.dtypes) * _BYTES_PER_VIEW * rows.height
        self.nbytes += int(rows.estimated_size()) + views

    def write(self, path: Path, schema: Mapping[str, pl.DataType], *, by_time: bool) -> dict[date, int]:
        """Write all rows in the columns of `schema`, sorted if `by_time`, and forget them.

        Returns rows of each day; empty if not `by_time`.
        """
        rows = pl.concat([_fitted(batch, schema) for batch in self._batches])
        self._batches, self.height, self.nbytes = [], 0, 0
        return write_part(path, rows.sort(ORDER) if by_time else rows, by_time=by_time)


def write_part(path: Path, rows: pl.DataFrame, *, by_time: bool) -> dict[date, int]:
    """Write the rows of a part, sorted if `by_time`; returns rows of each day, empty if not `by_time`."""
    # Readers select rows by offset: they use no statistics.
    metadata = dict(UNSEALED)
    rows.write_parquet(path, compression="lz4", statistics=False, row_group_size=GROUP_ROWS, metadata=metadata)
    seal(path)
    return dict(rows["time"].dt.date().value_counts().sort("time").iter_rows()) if by_time else {}


def _fitted(rows: pl.DataFrame, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    # Beside the rows themselves: a select of literals alone would be one row high.
    fitting = [fitted(name, rows.schema.get(name), dtype) for name, dtype in schema.items()]
    return rows.with_columns(fitting).select(list(schema))


HORIZON = timedelta(hours=48)
FORMAT = 2
"""Raised when landing writes other rows for the same files; :meth:`Job.is_done_by` decides what then lands anew."""

_PLACE = f"{PRIVATE}place"
_PART_BYTES = 160 << 20
_SMALL_TABLE_BYTES = 4 << 20  # threads cost more than they gain below
_SET_ASIDE_BYTES = 32 << 20


def version_of(
    form: int,
    table: str,
    dump_id: int,
    as_of: datetime,
    files: Iterable[SourceFile],
    start: date,
    patterns: object,
    *,
    incremental: bool,
) -> str:
    """Return a hash of all inputs of a table's landed rows. `patterns`: of the columns that are kept."""
    document = {
        "format": form,
        "dump": dump_id,
        "as_of": as_of.isoformat(),
        "incremental": incremental,
        "files": sorted([file.uri, file.etag] for file in files),
        "start": None if table in SNAPSHOT_TABLES else start.isoformat(),
        "columns": patterns,
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Job:
    """One table of a dump to land, and the settings that decide which rows are kept."""

    table: ManifestTable
    dump_id: int
    as_of: datetime
    dump_day: date
    start_date: date
    selection: Selection
    files: tuple[SourceFile, ...]
    decoders: int = 2
    limits: Limits = field(default_factory=Limits)
    without_erased: Callable[[str, pl.DataFrame], pl.DataFrame] | None = None
    masked: Callable[[str, pl.DataFrame], tuple[pl.DataFrame, int]] | None = None
    kept_from: date | None = None

    @property
    def is_snapshot(self) -> bool:
        return self.table.name in SNAPSHOT_TABLES

    @property
    def required(self) -> tuple[str, ...]:
        keys = keys_of(self.table.name)
        if self.table.name == USERS:
            return keys[:1]
        return keys[:2] if self.is_snapshot else ("event_id", "user_id", "time")

    @property
    def version(self) -> str:
        """A hash of all inputs of the landed rows."""
        return self._version(FORMAT, self.start_date)

    def is_done_by(self, landed: TableRecord) -> bool:
        """Return whether a landed table has the rows that landing now would give.

        Format 1 has the same, except for rows set aside because of an id that their table does not have.
        """
        start = self.start_date
        if landed.start is not None and start < landed.start and not landed.counts.before_start:
            start = landed.start  # nothing was left out: an earlier day would bring nothing
        if landed.version == self._version(1, start):
            return not was_misread(landed.table, landed.rejected)
        return landed.version == self._version(FORMAT, start)

    def _version(self, form: int, start: date) -> str:
        t = self.table
        patterns = self.selection.patterns(t.name)
        return version_of(
            form, t.name, self.dump_id, self.as_of, self.files, start, patterns, incremental=t.incremental
        )

    @property
    def folder(self) -> str:
        return f"{table_folder(self.table.name)}/{self.dump_id}/{self.version}"


@dataclass
class Staged:
    """The result of staging: parts, types, counts, and rows set aside."""

    parts: list[Part] = field(default_factory=list)
    schema: Mapping[str, pl.DataType] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    counts: Counts = field(default_factory=Counts)
    rejected: dict[str, int] = field(default_factory=dict)
    rejected_keys: list[str] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Decoded:
    """Decoded rows of one file, with ids and times read; `rejected` is rows to set aside, if there are any."""

    read: Typed
    rejected: pl.DataFrame | None
    left_out: tuple[str, ...]
    lost: Mapping[str, int]
    erased: int = 0
    masked: int = 0


class Stager:
    """Streams one table's files into parts; memory is bounded by the size of one part."""

    def __init__(self, store: Store, source: DumpSource, job: Job) -> None:
        self.store = store
        self.source = source
        self.job = job
        self._columns = Columns()
        self._left_out: dict[str, None] = {}
        self._pending = PendingRows()
        self._set_aside: list[pl.DataFrame] = []
        self._result = Staged()
        self._totals = dict.fromkeys(
            ("read", "landed", "rejected", "before_start", "ahead", "late", "erased", "masked"), 0
        )

    def run(self) -> Staged:
        """Land all files, in the order of their addresses: file order decides nothing.

        Raises AvroError or SourceError if a file is missing, unreadable, lacks a key column, or changed while it was
        read.
        """
        files = sorted(self.job.files, key=lambda f: f.uri)
        small = sum(file.bytes for file in files) < _SMALL_TABLE_BYTES
        with (
            tempfile.TemporaryDirectory(prefix="heap-assets-") as scratch,
            Downloads(self.source, files, Path(scratch)) as downloads,
        ):
            decode = partial(self._decoded, downloads)
            sequential = (batch for file in files for batch in decode(file))
            for batch in sequential if small else ordered_prefetch(files, decode, self.job.decoders):
                self._add(batch)
        self._flush()
        self._flush_set_aside()
        self._result.schema = self._columns.dtypes
        self._result.origins = self._columns.origins
        self._result.left_out = tuple(self._left_out)
        self._result.counts = Counts(**self._totals)
        return self._result

    def _decoded(self, downloads: Downloads, file: SourceFile) -> Iterator[_Decoded]:
        """Decode one file; runs on its own thread and changes nothing shared."""
        table = self.job.table.name
        table_columns = built_in_columns(table)
        path = downloads.take(file)
        offset = 0
        for batch in self.source.decode(path, file.uri, self.job.limits):
            rows, masked = self.job.masked(table, batch.rows) if self.job.masked else (batch.rows, 0)
            selected = self.job.selection.chosen(table, rows.columns)
            if missing := [column for column in self.job.required if column not in selected]:
                raise SourceError(f"{file.uri} has no column {', '.join(missing)}: it is no file of {table}")
            read = typed(rows.select(selected), table, self.job.required, table_columns)
            read = read if self.job.is_snapshot else self._not_too_far_ahead(read)
            left_out = tuple(column for column in rows.columns if column not in selected)
            lost = {n: c for n, c in batch.lost.items() if n in selected}
            allowed, reasons = self._without_erased(read)
            rejected = None if allowed.clean else _rejected(rows, reasons, offset, file.uri)
            yield _Decoded(allowed, rejected, left_out, lost, read.rows.height - allowed.rows.height, masked)
            offset += rows.height
        # A fetched copy is what was listed; a file that was read in place may have changed meanwhile.
        if not downloads.discard(path) and self.source.stat(file.uri).etag != file.etag:
            raise SourceError(f"{file.uri} changed while it was read; it is read again next time")

    def _add(self, decoded: _Decoded) -> None:
        self._left_out.update(dict.fromkeys(decoded.left_out))
        for name, count in decoded.lost.items():
            self._result.lost[name] = self._result.lost.get(name, 0) + count
        read = decoded.read
        rows = read.rows
        self._totals["read"] += rows.height + decoded.erased
        self._totals["erased"] += decoded.erased
        self._totals["masked"] += decoded.masked
        if decoded.rejected is not None:
            self._note_rejected(decoded.rejected)
            rows = rows.filter(read.reasons.is_null())
        self._keep(rows if self.job.is_snapshot else self._since_start(rows))

    def _without_erased(self, read: Typed) -> tuple[Typed, pl.Series]:
        """Return the rows of people who were not erased, and the reasons of all rows, null where one was erased."""
        if self.job.without_erased is None:
            return read, read.reasons
        allowed = self.job.without_erased(self.job.table.name, read.rows.with_row_index(_PLACE))
        places = allowed[_PLACE]
        allowed_reasons = read.reasons.gather(places)
        reasons = pl.Series(read.reasons.name, [None], pl.String).new_from_index(0, len(read.reasons))
        return Typed(allowed.drop(_PLACE), allowed_reasons), reasons.scatter(places, allowed_reasons)

    def _not_too_far_ahead(self, read: Typed) -> Typed:
        beyond = read.rows["time"] > self.job.as_of + HORIZON
        if not beyond.any():
            return read
        reasons = read.reasons.set(beyond & read.reasons.is_null(), "time is more than 48 hours after the dump")
        return Typed(read.rows, reasons)

    def _note_rejected(self, rejected: pl.DataFrame) -> None:
        self._set_aside.append(rejected)
        if sum(rows.estimated_size() for rows in self._set_aside) > _SET_ASIDE_BYTES:
            self._flush_set_aside()
        for reason, count in rejected["reason"].value_counts().iter_rows():
            self._result.rejected[reason] = self._result.rejected.get(reason, 0) + count
        self._totals["rejected"] += rejected.height

    def _flush_set_aside(self) -> None:
        if self._set_aside:
            key = f"{self.job.folder}/rejected-{len(self._result.rejected_keys)}.parquet"
            self.store.sink(key, pl.concat(self._set_aside))
            self._result.rejected_keys.append(key)
            self._set_aside = []

    def _since_start(self, rows: pl.DataFrame) -> pl.DataFrame:
        first = max(self.job.start_date, self.job.kept_from or date.min)
        start = datetime.combine(first, time(), UTC)
        before = int((rows["time"] < start).sum())
        if before:
            self._totals["before_start"] += before
            rows = rows.filter(pl.col("time") >= start)
        days = rows["time"].dt.date()
        self._totals["ahead"] += int((days > self.job.as_of.date()).sum())
        if self.job.table.incremental:
            self._totals["late"] += int((days < self.job.dump_day).sum())
        return rows

    def _keep(self, rows: pl.DataFrame) -> None:
        self._totals["landed"] += rows.height
        names = self._columns.add(rows.schema)
        self._pending.add(rows.rename({old: new for old, new in names.items() if old != new}))
        if self._pending.nbytes >= _PART_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._pending.height:
            return
        height = self._pending.height
        key = f"{self.job.folder}/{len(self._result.parts)}.parquet"
        with self.store.staged(key) as path:
            # sorted by time: each day's rows are contiguous, and little is left to sort later
            days = self._pending.write(path, self._columns.dtypes, by_time=not self.job.is_snapshot)
        self._result.parts.append(Part(key, height, days))


def _rejected(rows: pl.DataFrame, reasons: pl.Series, offset: int, uri: str) -> pl.DataFrame:
    """Return the rows to set aside, of rows that begin at row `offset` of their file; content as the file spells it."""
    bad = reasons.is_not_null()
    content = rows.filter(bad)
    return pl.DataFrame(
        {
            "file": pl.repeat(uri, content.height, eager=True),
            "row": bad.arg_true().cast(pl.Int64) + offset,
            "reason": reasons.filter(bad),
            "content": content.select(_as_json(content)).to_series(),
        }
    )


def _as_json(batch: pl.DataFrame) -> pl.Expr:
    """Write rows as JSON text, so that people can inspect and repair what was set aside."""
    rows = pl.struct(
        pl.col(name).bin.encode("hex") if dtype == pl.Binary else pl.col(name) for name, dtype in batch.schema.items()
    )
    types = pl.Struct({name: pl.String() if dtype == pl.Binary else dtype for name, dtype in batch.schema.items()})
    return json_or_exact(rows, types).alias("content")


def files_of(source: DumpSource, table: ManifestTable, listed: Mapping[str, SourceFile]) -> tuple[SourceFile, ...]:
    """Return the current version of each of a table's files, asking the source only for those not listed.

    A file that does not exist has no ETag: when it appears, that is a change like any other.
    """
    return tuple(listed.get(uri) or _stat(source, uri) for uri in table.files)


def _stat(source: DumpSource, uri: str) -> SourceFile:
    try:
        file = source.stat(uri)
    except SourceError:
        return SourceFile(uri, "", 0)
    return SourceFile(uri, file.etag, file.size)
