"""Parts: the messages of one segment for one table and day, as Parquet below `_inbox/days/<table>/<day>/`.

They are the record of what was posted, and stay. A day's table is built from its parts; many small ones are put
together while it is built. Messages that cannot be taken are parts of `refused`, by the day on which they came.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import orjson
import polars as pl

from heap_assets.storage import ObjectInfo, Store, state_keys, to_parquet
from heap_assets.tables import INBOX_COLUMNS
from heap_assets.values import TIME

DAYS: Final = f"{state_keys.INBOX}/days"
SPOOL: Final = f"{state_keys.INBOX}/spool"
"""Where open segments lie, in a lake that is a folder."""
REFUSED: Final = "refused"
"""The table of messages that could not be taken."""

PART_SCHEMA: Final = pl.Schema(
    {name: TIME if name in ("time", "received_at") else pl.String() for name in INBOX_COLUMNS}
)
REFUSED_SCHEMA: Final = pl.Schema(
    {"message_id": pl.String(), "received_at": TIME, "source": pl.String(), "reason": pl.String(), "body": pl.String()}
)
_MANY: Final = 16
"""So many small parts of a day are put together."""
_LARGE: Final = 32 << 20
"""Bytes of a part that is left alone."""
_MERGED: Final = "merged-"
_FOOTER: Final = "heap_assets_parts"


@dataclass(frozen=True)
class Part:
    """One stored part."""

    table: str
    day: date
    info: ObjectInfo

    @property
    def name(self) -> str:
        return self.info.key.rpartition("/")[2]

    @property
    def is_merged(self) -> bool:
        """Whether it was put together of others."""
        return self.name.startswith(_MERGED)


def land_parts(store: Store, segment: str, records: Iterable[Mapping[str, Any]]) -> int:
    """Write what a segment holds, one part a table and day; returns how many messages it has.

    Written again, the parts are the same under the same names.
    """
    rows = _rows_by_table_and_day(records)
    for (table, day), part_rows in sorted(rows.items()):
        schema = REFUSED_SCHEMA if table == REFUSED else PART_SCHEMA
        write_part(store, f"{DAYS}/{table}/{day}/{segment}.parquet", pl.DataFrame(part_rows, schema, orient="row"))
    return sum(map(len, rows.values()))


def _rows_by_table_and_day(records: Iterable[Mapping[str, Any]]) -> dict[tuple[str, date], list[tuple[Any, ...]]]:
    rows: dict[tuple[str, date], list[tuple[Any, ...]]] = {}
    for record in records:
        received = datetime.fromisoformat(record["received_at"])
        for message in record["messages"]:
            body = orjson.dumps(message["body"]).decode()
            if (fault := message.get("fault")) is not None:
                refused = (message["message_id"], received, record["source"], fault, body)
                rows.setdefault((REFUSED, received.date()), []).append(refused)
                continue
            time = _EPOCH + timedelta(microseconds=message["time"])
            own = {**message, "time": time, "received_at": received, "source": record["source"], "body": body}
            row = tuple(own.get(name) for name in INBOX_COLUMNS)
            rows.setdefault((message["table"], time.date()), []).append(row)
    return rows


def message_frames(records: Iterable[Mapping[str, Any]]) -> dict[str, pl.DataFrame]:
    """Return messages by their table, as parts have them; those that could not be taken are left out."""
    by_table: dict[str, list[tuple[Any, ...]]] = {}
    for (table, _), rows in _rows_by_table_and_day(records).items():
        if table != REFUSED:
            by_table.setdefault(table, []).extend(rows)
    return {table: pl.DataFrame(rows, PART_SCHEMA, orient="row") for table, rows in by_table.items()}


def stored_parts(store: Store, table: str, day: date | None = None) -> list[Part]:
    """Return the parts of a table, of one day or of all."""
    root = f"{DAYS}/{table}"
    listed = store.list(f"{root}/{day}" if day else root)
    return [Part(table, date.fromisoformat(info.key.split("/")[-2]), info) for info in listed]


def stored_tables(store: Store) -> list[str]:
    """Return the names of all tables that parts are stored of."""
    return sorted({info.key.removeprefix(f"{DAYS}/").split("/")[0] for info in store.list(DAYS)})


def parts_by_day(store: Store, table: str) -> dict[date, list[Part]]:
    """Return the parts of a table by their day."""
    by_day: dict[date, list[Part]] = {}
    for part in stored_parts(store, table):
        by_day.setdefault(part.day, []).append(part)
    return by_day


def parts_version(parts: Sequence[Part]) -> str:
    """Return a version of parts, which tells whether there are others; "none" of no parts."""
    if not parts:
        return "none"
    return hashlib.sha256("\n".join(sorted(f"{p.name}:{p.info.size}" for p in parts)).encode()).hexdigest()[:32]


def read_parts(store: Store, parts: Sequence[Part], schema: pl.Schema = PART_SCHEMA) -> pl.LazyFrame:
    """Scan parts as one frame."""
    frames = [store.scan_stored(part.info.key) for part in parts]
    return pl.concat(frames) if frames else pl.LazyFrame(schema=schema)


def put_together(store: Store, parts: Sequence[Part]) -> list[Part]:
    """Replace small parts of a day by one, if there are many; returns the parts that there are then.

    The new part is named after those it replaces, and lists them: killed before they are deleted, the next call deletes
    them. Whoever reads both sees messages twice, and a table takes each once.
    """
    parts = _without_replaced(store, parts)
    small = [part for part in parts if part.info.size < _LARGE]
    if len(small) < _MANY:
        return list(parts)
    schema = REFUSED_SCHEMA if small[0].table == REFUSED else PART_SCHEMA
    names = sorted(part.name for part in small)
    key = f"{DAYS}/{small[0].table}/{small[0].day}/{_MERGED}{hashlib.sha256(repr(names).encode()).hexdigest()[:16]}"
    rows = read_parts(store, small, schema).collect().unique(maintain_order=True)
    write_part(store, f"{key}.parquet", rows, {_FOOTER: json.dumps(names)})
    for part in small:
        store.delete(part.info.key)
    return stored_parts(store, small[0].table, small[0].day)


def _without_replaced(store: Store, parts: Sequence[Part]) -> list[Part]:
    names = {part.name for part in parts}
    replaced: set[str] = set()
    for part in parts:
        if part.name.startswith(_MERGED):
            metadata = pl.read_parquet_metadata(store.uri(part.info.key), storage_options=store.storage_options)
            replaced |= names & set(json.loads(metadata[_FOOTER]))
    for part in parts:
        if part.name in replaced:
            store.delete(part.info.key)
    return [part for part in parts if part.name not in replaced]


def write_part(store: Store, key: str, rows: pl.DataFrame, metadata: Mapping[str, str] | None = None) -> None:
    """Write a part, and wait until it is on disk: the segment that it comes from is deleted then."""
    store.write(key, to_parquet(rows, metadata, compression="zstd", compression_level=1))
    if (path := store.local_path(key)) is not None:
        for each in (path, path.parent, path.parent.parent):
            descriptor = os.open(each, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
