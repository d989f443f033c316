"""Small dumps, laid out as Heap Connect lays out its bucket."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import fastavro

from heap_assets.sources.heap_connect import FolderSource, Landing, LandingConfig, Selection
from heap_assets.storage import Store

START = date(2026, 1, 1)
BUCKET = "heap-rs3-acme"


def nullable(kind: Any) -> list[Any]:
    return ["null", kind]


def kind_of(values: Sequence[Any]) -> Any:
    for value in values:
        if isinstance(value, bool):
            return "boolean"
        if isinstance(value, int):
            return "long"
        if isinstance(value, float):
            return "double"
        if isinstance(value, bytes):
            return "bytes"
    return "string"


def schema_of(rows: Sequence[Mapping[str, Any]], kinds: Mapping[str, Any] | None = None) -> dict[str, Any]:
    names = dict.fromkeys(name for row in rows for name in row) or dict.fromkeys(kinds or {})
    fields = [
        {"name": name, "type": (kinds or {}).get(name) or nullable(kind_of([r[name] for r in rows if name in r]))}
        for name in names
    ]
    return {"type": "record", "name": "topLevelRecord", "fields": fields}


def write_avro(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    kinds: Mapping[str, Any] | None = None,
    codec: str = "snappy",
    sync_interval: int = 16_000,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = schema_of(rows, kinds)
    complete = [{field["name"]: row.get(field["name"]) for field in schema["fields"]} for row in rows]
    with path.open("wb") as file:
        fastavro.writer(file, schema, complete, codec=codec, sync_interval=sync_interval)


def event(event_id: int, time: str, user_id: int = 1, **more: Any) -> dict[str, Any]:
    return {"event_id": event_id, "user_id": user_id, "session_id": event_id, "time": time, **more}


def user(user_id: int, last_modified: str = "2026-03-01 00:00:00", **more: Any) -> dict[str, Any]:
    return {"user_id": user_id, "joindate": "2026-01-01 00:00:00", "last_modified": last_modified, **more}


def migration(source: int, target: int, time: str = "2026-03-01 00:00:00") -> dict[str, Any]:
    return {"from_user_id": source, "to_user_id": target, "time": time}


@dataclass
class Bucket:
    """A folder to put dumps into; `as_of` is the manifest's modification time."""

    path: Path
    names: dict[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> FolderSource:
        return FolderSource(self.path)

    def dump(self, dump_id: int, as_of: str, full: Sequence[str] = ("user_migrations",), **tables: Any) -> None:
        """Write a dump; a table's value is its rows, or a list of row lists for several files."""
        entries = []
        for name, rows in tables.items():
            files = rows if rows and isinstance(rows[0], list) else [rows]
            keys = [f"sync_{dump_id}/{name}/part-{i:05d}-c000.avro" for i in range(len(files))]
            for key, content in zip(keys, files, strict=True):
                write_avro(self.path / key, content, kinds=None if content else _keys(name))
            columns = list(dict.fromkeys(c for content in files for row in content for c in row))
            uris = [f"s3://{BUCKET}/{key}" for key in keys]
            entries.append({"name": name, "files": uris, "columns": columns, "incremental": name not in full})
        self.manifest(dump_id, as_of, {"dump_id": dump_id, "tables": entries, "property_definitions": None})

    def manifest(self, dump_id: int, as_of: str, document: Any) -> Path:
        path = self.path / f"manifests/sync_{dump_id}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        touch(path, as_of)
        return path

    def file(self, dump_id: int, table: str, part: int = 0) -> Path:
        return self.path / f"sync_{dump_id}/{table}/part-{part:05d}-c000.avro"


def touch(path: Path, moment: str) -> None:
    stamp = datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()
    os.utime(path, (stamp, stamp))


def _keys(table: str) -> dict[str, Any]:
    if table == "users":
        return {"user_id": nullable("long"), "last_modified": nullable("string")}
    if table == "user_migrations":
        return {"from_user_id": nullable("long"), "to_user_id": nullable("long"), "time": nullable("string")}
    return {"event_id": nullable("long"), "user_id": nullable("long"), "time": nullable("string")}


@dataclass
class Clock:
    """A clock that tests move."""

    moment: datetime = datetime(2026, 6, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.moment

    def forward(self, **span: float) -> None:
        self.moment += timedelta(**span)


def landing_in(
    path: Path, *, start: date = START, selection: Selection | None = None, clock: Clock | None = None, **more: Any
) -> Landing:
    config = LandingConfig(start, selection or Selection(), now=clock or Clock(), **more)
    return Landing(Store(str(path)), config)


def land_all(landing: Landing, bucket: Bucket) -> list[Any]:
    return [landing.land(bucket.source, manifest) for manifest in landing.pending(bucket.source)]
