"""Records as JSON objects in a store: one a dump, replaced whole."""

from __future__ import annotations

import json
import threading
import time as clock
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from datetime import date, datetime
from functools import lru_cache
from typing import Any

import polars as pl

from heap_assets.heap_connect.dtypes import from_json, to_json
from heap_assets.heap_connect.records import (
    ROOT,
    Counts,
    DumpRecord,
    Failure,
    Part,
    SourceFile,
    TableRecord,
    TableState,
)
from heap_assets.lake import Store

_DUMPS = f"{ROOT}/_dumps/"
_FRESH_SECONDS = 2.0


class Records:
    """The records of all dumps in a store.

    Reading again costs one listing and the records that changed; within two seconds, nothing, so that a step that
    builds hundreds of tables lists once. What this object saves it sees at once.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known: dict[str, tuple[str, DumpRecord]] = {}
        self._loaded: dict[int, DumpRecord] = {}
        self._fresh_until = 0.0
        self._lock = threading.Lock()

    def load(self) -> Mapping[int, DumpRecord]:
        """Return dump id to record, in dump order."""
        with self._lock:
            if clock.monotonic() < self._fresh_until:
                return self._loaded
            known: dict[str, tuple[str, DumpRecord]] = {}
            for info in self.store.list(_DUMPS):
                cached = self._known.get(info.key)
                if cached is None or cached[0] != info.etag:
                    cached = info.etag, _read(self.store.read(info.key))
                known[info.key] = cached
            self._known = known
            records = sorted((record for _, record in known.values()), key=lambda record: record.dump_id)
            self._loaded = {record.dump_id: record for record in records}
            self._fresh_until = clock.monotonic() + _FRESH_SECONDS
            return self._loaded

    def save(self, record: DumpRecord) -> None:
        """Replace a dump's record: this is the moment at which what it names becomes visible."""
        self.store.write(f"{_DUMPS}{record.dump_id:020d}.json", _written(record))
        with self._lock:
            self._fresh_until = 0.0


def _written(record: DumpRecord) -> bytes:
    document = asdict(replace(record, tables={}))
    document["tables"] = [_table_json(table) for table in record.tables.values()]
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
    """A dump's tables, each understood when it is asked for: a year of dumps has tens of thousands."""

    def __init__(self, entries: dict[str, dict[str, Any]]) -> None:
        self._entries = entries
        self._read: dict[str, TableRecord] = {}

    def __getitem__(self, name: str) -> TableRecord:
        known = self._read.get(name)
        if known is None:
            known = self._read[name] = _table(self._entries[name])
        return known

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _read(data: bytes) -> DumpRecord:
    document = json.loads(data)
    tables = document.pop("tables")
    return DumpRecord(
        **{
            **document,
            "as_of": datetime.fromisoformat(document["as_of"]),
            "retry_at": _moment(document["retry_at"]),
            "failure": Failure(**document["failure"]) if document["failure"] else None,
            "tables": _Tables({entry["table"]: entry for entry in tables}),
        }
    )


def _table(entry: dict[str, Any]) -> TableRecord:
    return TableRecord(
        **{
            **entry,
            "state": TableState(entry["state"]),
            "files": tuple(SourceFile(*file) for file in entry["files"]),
            "parts": tuple(Part(key, rows, _days(days)) for key, rows, days in entry["parts"]),
            "schema": _schema(entry["schema"]),
            "left_out": tuple(entry["left_out"]),
            "rejected_keys": tuple(entry["rejected_keys"]),
            "counts": Counts(**entry["counts"]),
            "moved": _days(entry["moved"]),
            "metered": _days(entry["metered"]),
            "days_ever": frozenset(date.fromisoformat(day) for day in entry["days_ever"]),
            "failure": Failure(**entry["failure"]) if entry["failure"] else None,
            "retry_at": _moment(entry["retry_at"]),
            "landed_at": _moment(entry["landed_at"]),
        }
    )


@lru_cache(maxsize=4096)
def _schema(text: str) -> Mapping[str, pl.DataType]:
    return {name: from_json(dtype) for name, dtype in json.loads(text)}


def _days(days: Mapping[str, int]) -> dict[date, int]:
    return {date.fromisoformat(day): rows for day, rows in days.items()}


def _moment(value: str | None) -> datetime | None:
    return datetime.fromisoformat(value) if value else None
