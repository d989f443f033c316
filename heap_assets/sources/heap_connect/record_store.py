"""The records of dumps in the lake: read, compared and replaced; and written while a landing goes on."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time as clock
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import date, datetime
from functools import lru_cache
from types import TracebackType
from typing import Any, cast

import orjson
import polars as pl

from heap_assets.errors import DamagedFileError
from heap_assets.sources.heap_connect.merging import from_json, to_json
from heap_assets.sources.heap_connect.records import (
    DUMPS,
    ROOT,
    Counts,
    DumpRecord,
    DumpRecords,
    Failure,
    Part,
    SourceFile,
    TableRecord,
    TableState,
)
from heap_assets.sources.heap_connect.reports import touched_days
from heap_assets.storage import Store

_LOG = logging.getLogger(__name__)
_DUMPS = f"{ROOT}/{DUMPS}/"
_KEY = re.compile(rf"{_DUMPS}\d+\.json")
_FRESH_SECONDS = 2.0


class Records:
    """The records of all dumps in a store.

    Loading again costs one listing and the records that changed; within two seconds, nothing, so that a step that
    builds hundreds of tables lists once. Changes made through this object are visible at once.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._cache: dict[str, tuple[str, DumpRecord | None]] = {}
        self._loaded = DumpRecords({})
        self._fresh_until = 0.0
        self._lock = threading.Lock()

    def load(self) -> DumpRecords:
        """Return dump id to record, in dump order."""
        with self._lock:
            if clock.monotonic() < self._fresh_until:
                return self._loaded
            cache: dict[str, tuple[str, DumpRecord | None]] = {}
            has_changed = False
            for info in self.store.list(_DUMPS):
                if _KEY.fullmatch(info.key) is None:
                    continue
                cached = self._cache.get(info.key)
                if cached is None or cached[0] != info.etag:
                    cached, has_changed = (info.etag, self._read(info.key, self.store.read(info.key))), True
                cache[info.key] = cached
            if has_changed or len(cache) != len(self._cache):
                readable = [record for _, record in cache.values() if record is not None]
                self._loaded = DumpRecords({record.dump_id: record for record in readable}, before=self._loaded)
            self._cache = cache
            self._fresh_until = clock.monotonic() + _FRESH_SECONDS
            return self._loaded

    def update(self, dump_id: int, change: Callable[[DumpRecord | None], DumpRecord]) -> DumpRecord:
        """Change a dump's stored record, and return it: the files it lists become visible at this moment.

        `change` gets None if there is no record, and may be called again if another landing was quicker.
        """
        key = f"{_DUMPS}{dump_id:020d}.json"
        changed: list[DumpRecord] = []

        def _changed(data: bytes | None) -> bytes:
            changed.append(change(None if data is None else self._read(key, data)))
            return _written(changed[-1])

        self.store.update(key, _changed)
        with self._lock:
            self._fresh_until = 0.0
        return changed[-1]

    def damaged(self) -> list[str]:
        """Return the addresses of records that cannot be read: their dumps count as never landed, and land anew."""
        self.load()
        return [self.store.uri(key) for key, (_, record) in self._cache.items() if record is None]

    def _read(self, key: str, data: bytes) -> DumpRecord | None:
        try:
            return _read(data)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            where, kind = self.store.uri(key), type(error).__name__
            _LOG.warning("%s is damaged (%s): its dump counts as never landed, and lands anew", where, kind)
            return None


def _written(record: DumpRecord) -> bytes:
    document = asdict(replace(record, tables={}))
    document["tables"] = [_table_json(table) for table in record.tables.values()]
    document["unannounced"] = {name: sorted(days) for name, days in record.unannounced.items()}
    return json.dumps(document, default=_plain, separators=(",", ":")).encode()


def _table_json(table: TableRecord) -> dict[str, Any]:
    document = {name: getattr(table, name) for name in table.__dataclass_fields__}
    document["files"] = [[f.uri, f.etag, f.bytes] for f in table.files]
    document["parts"] = [[p.key, p.rows, _days_json(p.days)] for p in table.parts]
    # As text: the same few schemas come again in every dump, and equal text is read once.
    document["schema"] = json.dumps([[name, to_json(dtype)] for name, dtype in table.schema.items()])
    document["metered"] = _days_json(table.metered)
    document["moved"] = _days_json(table.moved)
    document["days_ever"] = sorted(day.isoformat() for day in table.days_ever)
    document["counts"] = asdict(table.counts)
    document["failure"] = asdict(table.failure) if table.failure else None
    return document


def _days_json(days: Mapping[date, int]) -> dict[str, int]:
    return {day.isoformat(): rows for day, rows in sorted(days.items())}


def _plain(value: Any) -> Any:
    if isinstance(value, date | datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)


class _Tables(Mapping[str, TableRecord]):
    """A dump's tables, parsed when the first of them is looked at: years of dumps have hundreds of thousands.

    Until then they are kept as they are stored, compressed.
    """

    def __init__(self, dump_id: int, data: bytes, names: Iterable[str]) -> None:
        self._dump_id = dump_id
        self._names = dict.fromkeys(map(sys.intern, names))
        self._stored = zlib.compress(data, 1)
        self._records: dict[str, TableRecord | Exception] = {}
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> TableRecord:
        if name not in self._names:
            raise KeyError(name)
        with self._lock:
            if not self._records:
                self._records = {
                    entry["table"]: _parsed(entry) for entry in _document(zlib.decompress(self._stored))["tables"]
                }
                self._stored = b""
        record = self._records[name]
        if isinstance(record, Exception):
            raise DamagedFileError(
                f"the record of dump {self._dump_id} in {_DUMPS} is damaged at table {name} "
                f"({type(record).__name__}): delete it, and the dump lands anew"
            ) from record
        return record

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _parsed(entry: dict[str, Any]) -> TableRecord | Exception:
    try:
        return _table(entry)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        return error


def _document(data: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(data)
    except ValueError:  # half a surrogate pair in a name, or a number out of range: only the standard library reads it
        document = json.loads(data)
    return cast("dict[str, Any]", document)


def _read(data: bytes) -> DumpRecord:
    document = _document(data)
    names = [entry["table"] for entry in document.pop("tables")]
    return DumpRecord(
        **{
            **document,
            "as_of": datetime.fromisoformat(document["as_of"]),
            "retry_at": _moment(document["retry_at"]),
            "failure": Failure(**document["failure"]) if document["failure"] else None,
            "tables": _Tables(document["dump_id"], data, names),
            "outstanding": None if (left := document.get("outstanding")) is None else tuple(left),
            "unannounced": {
                name: frozenset(date.fromisoformat(day) for day in days)
                for name, days in document.get("unannounced", {}).items()
            },
        }
    )


def _table(entry: dict[str, Any]) -> TableRecord:
    shared = {name: entry[name] or _NOTHING for name in ("origins", "rejected", "lost")}
    return TableRecord(
        **{
            **entry,
            **shared,
            "table": sys.intern(entry["table"]),
            "state": TableState(entry["state"]),
            "files": tuple(SourceFile(*file) for file in entry["files"]),
            "parts": tuple(Part(key, rows, _days(days)) for key, rows, days in entry["parts"]),
            "schema": _schema(entry["schema"]),
            "left_out": tuple(entry["left_out"]),
            "rejected_keys": tuple(entry["rejected_keys"]),
            "counts": _counts(tuple(entry["counts"].items())),
            "moved": _days(entry["moved"]),
            "metered": _days(entry["metered"]),
            "start": _day(start) if (start := entry.get("start")) else None,
            "days_ever": _days_ever(tuple(entry["days_ever"])),
            "failure": Failure(**entry["failure"]) if entry["failure"] else None,
            "retry_at": _moment(entry["retry_at"]),
            "landed_at": _moment(entry["landed_at"]),
        }
    )


# Most of what table records hold is equal to what others hold: equal values are one object.
_NOTHING: dict[str, Any] = {}
_day = lru_cache(maxsize=16_384)(date.fromisoformat)


@lru_cache(maxsize=4096)
def _schema(text: str) -> Mapping[str, pl.DataType]:
    return {name: from_json(dtype) for name, dtype in json.loads(text)}


@lru_cache(maxsize=4096)
def _counts(counts: tuple[tuple[str, int | None], ...]) -> Counts:
    return Counts(**dict(counts))  # type: ignore[arg-type]


@lru_cache(maxsize=4096)
def _days_ever(days: tuple[str, ...]) -> frozenset[date]:
    return frozenset(_day(day) for day in days)


def _days(days: Mapping[str, int]) -> Mapping[date, int]:
    return _rows_by_day(tuple(days.items()))


@lru_cache(maxsize=4096)
def _rows_by_day(days: tuple[tuple[str, int], ...]) -> Mapping[date, int]:
    return {_day(day): rows for day, rows in days}


def _moment(value: str | None) -> datetime | None:
    return datetime.fromisoformat(value) if value else None


_SAVE_SECONDS = 0.5
_SHARE_OF_SAVING = 20
"""So many times as long as the last writing took passes before the next: a record of hundreds of tables is long."""


class Progress:
    """Writes the results of tables into the record of their dump. Use as a context manager.

    A record is written whole, which for each of 200 small tables would cost more than the tables: it is written now
    and then, and at the end. A table whose result is not written yet is outstanding, and lands again if the process
    dies.

    Attributes
    ----------
    record
        The record as last written.
    landed
        Tables that landed or failed, in order.
    """

    def __init__(self, records: Records, before: DumpRecords, record: DumpRecord) -> None:
        self.record = record
        self.landed: list[TableRecord] = []
        self._records = records
        self._before = before
        self._finished: set[str] = set()
        self._results: list[TableRecord] = []
        self._next = clock.monotonic() + _SAVE_SECONDS

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self._save()
            return
        with suppress(Exception):  # the first error is the one to raise
            self._save()

    def add(self, table: str, result: TableRecord | None) -> None:
        """Add the result of one table, None if there was nothing to do."""
        self._finished.add(table)
        if result is not None:
            self._results.append(result)
            self.landed.append(result)
        if clock.monotonic() > self._next:
            self._save()

    def _save(self) -> None:
        begun = clock.monotonic()
        self.record = self._records.update(self.record.dump_id, self._applied)
        self._finished, self._results = set(), []
        ended = clock.monotonic()
        self._next = ended + max(_SAVE_SECONDS, _SHARE_OF_SAVING * (ended - begun))

    def _applied(self, current: DumpRecord | None) -> DumpRecord:
        record = current or self.record
        for result in self._results:
            record = record.with_table(result)
        after = self._before.with_record(record)
        touched: dict[str, frozenset[date]] = dict(record.unannounced)
        for result in self._results:
            if result.failure is None and (days := touched_days(after, record, result)):
                touched[result.table] = touched.get(result.table, frozenset()) | days
        outstanding = tuple(name for name in record.outstanding or () if name not in self._finished)
        return replace(record, outstanding=outstanding, unannounced=touched)
