"""The one wide `events` table of Heap's BigQuery guides as the source of Heap's tables (16 columns, rest as JSON).

It has no user_migrations and no users: users are the newest `user_properties` that each user's events carry. Event
properties become columns again by name; page_url is taken apart into domain, path, query and hash.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from heap_assets.sources.heap_bigquery.export import (
    Fingerprints,
    HeapExport,
    HeapRows,
    fingerprints_of,
    heap_rows,
    midnight,
    only_once,
)
from heap_assets.sources.warehouse import Newer, Permission, Reading
from heap_assets.values import PRIVATE, TIME, value_as_json

_KEYS = ("event_id", "user_id", "session_id", "time")
_OWN = ("referrer", "device_type", "browser", "platform", "country", "region", "city")
_PAGE = {"domain": r"^([^/?#]*)", "path": r"^[^/?#]*(/[^?#]*)", "query": r"(\?[^#]*)", "hash": r"(#.*)$"}
_MEMBERS = f"{PRIVATE}members"
_EVER = datetime(1970, 1, 1, tzinfo=UTC)
_RECENT = timedelta(days=90)
_SAMPLE = 1000


@dataclass(frozen=True)
class WideExport(HeapExport):
    """A dataset with one table of all events.

    `table`: what it is called.
    """

    table: str = "events"

    def tables(self) -> list[str]:
        """Return the event types of the last 90 days."""
        kind, newer = self._kind(), Newer("time", datetime.now(UTC) - _RECENT)
        with self.warehouse.snapshot(self._relation, [kind], newer=newer) as snapshot:
            return sorted(snapshot.frame.select(pl.col(kind).drop_nulls().unique()).collect()[kind])

    def columns(self, table: str) -> list[str]:
        """Return a type's columns: the common ones, and the properties of a sample of its events."""
        if table == "user_migrations":
            return []
        column = "user_properties" if table == "users" else "event_properties"
        newer = Newer("time", _EVER, equals=None if table == "users" else (self._kind(), table))
        with self.warehouse.snapshot(self._relation, [column], newer=newer, limit=_SAMPLE) as snapshot:
            objects = snapshot.frame.collect()[column].drop_nulls().to_list()
        properties = dict.fromkeys(name for text in objects for name in _object(text))
        common = ("user_id",) if table == "users" else (*_KEYS, *_PAGE, "title", *_OWN)
        return list(dict.fromkeys([*common, *properties]))

    def version(self) -> str | None:
        return self.warehouse.version(self._relation)

    def synced_to(self) -> dict[str, datetime]:
        """Return nothing: the table does not tell up to when it is complete."""
        return {}

    def fingerprints(self, table: str, since: date) -> Fingerprints:
        newer = Newer("time", midnight(since), equals=(self._kind(), table))
        with self.warehouse.snapshot(self._relation, ["event_id", "user_id", "time"], newer=newer) as snapshot:
            return Fingerprints(fingerprints_of(snapshot.frame), snapshot.reading)

    def read_day(self, table: str, day: date, columns: Sequence[str] | None, path: Path) -> tuple[HeapRows, Reading]:
        within = Newer("time", midnight(day), midnight(day + timedelta(days=1)), (self._kind(), table))
        reading = self.warehouse.read(self._relation, None, path, newer=within)
        rows = pl.scan_parquet(path)
        names = self.columns(table) if columns is None else columns
        properties = [name for name in dict.fromkeys(names) if name not in _KEYS]
        members = _with_members(rows, "event_properties", properties)
        typed = heap_rows(members.select(_event_columns(rows, properties)))
        return replace(typed, frame=only_once(typed.frame, ["event_id", "user_id"])), reading

    def read_users(self, columns: Sequence[str] | None, path: Path) -> tuple[HeapRows, Reading]:
        """Read the newest properties of every user that any event has."""
        needed = ["user_id", "time", "user_properties"]
        reading = self.warehouse.read(self._relation, needed, path, newer=Newer("time", _EVER))
        rows = pl.scan_parquet(path).drop_nulls(["user_id", "user_properties"])
        newest = rows.sort("time").unique("user_id", keep="last")
        names = [name for name in (self.columns("users") if columns is None else columns) if name != "user_id"]
        people = _with_members(newest, "user_properties", names)
        return heap_rows(people.select("user_id", *map(_member, names)), "users"), reading

    def read_user_migrations(self, path: Path) -> tuple[HeapRows, Reading]:
        """Return none: whoever writes this table has applied them."""
        empty = pl.LazyFrame(schema={"from_user_id": pl.Int64, "to_user_id": pl.Int64, "time": TIME})
        return HeapRows(empty), Reading(self._relation, (), 0, datetime.now(UTC), 0.0)

    def preflight(self) -> list[Permission]:
        permissions = self.warehouse.preflight()
        if not all(permission.passed for permission in permissions):
            return permissions
        own = {column.name for column in self.warehouse.columns(self._relation)}
        lacking = sorted({*_KEYS, "event_type", "event_properties", "user_properties"} - own)
        detail = self._relation + (f" without {', '.join(lacking)}" if lacking else "")
        return [
            *permissions,
            Permission("events table", not lacking, detail, "is heap.source.events_table the wide table?"),
        ]

    def _kind(self) -> str:
        """Return the column that tells events apart: the table's name where there is one, as in what we publish."""
        columns = {column.name for column in self.warehouse.columns(self._relation)}
        return "event_table" if "event_table" in columns else "event_type"

    @property
    def _relation(self) -> str:
        return f"{self.dataset}.{self.table}"


def _event_columns(rows: pl.LazyFrame, names: Iterable[str]) -> list[pl.Expr]:
    has = set(rows.collect_schema().names())
    page = pl.col("page_url") if "page_url" in has else pl.lit(None, pl.String)
    columns = []
    for name in names:
        if name in _PAGE:
            columns.append(page.str.extract(_PAGE[name]).alias(name))
        elif name == "title":
            columns.append((pl.col("page_title") if "page_title" in has else pl.lit(None, pl.String)).alias(name))
        elif name in _OWN and name in has:
            columns.append(pl.col(name))
        else:
            columns.append(_member(name))
    return [*(pl.col(key) for key in _KEYS), *columns]


def _with_members(rows: pl.LazyFrame, column: str, names: Sequence[str]) -> pl.LazyFrame:
    """Take members of JSON objects as text, numbers with all their digits; one that is null or absent is null."""
    schema = pl.Struct(dict.fromkeys(names, pl.String()))
    if not names:
        return rows
    members = pl.col(column).map_batches(partial(_read_members, names), return_dtype=schema, is_elementwise=True)
    return rows.with_columns(members.alias(_MEMBERS))


def _member(name: str) -> pl.Expr:
    return pl.col(_MEMBERS).struct.field(name).alias(name)


def _read_members(names: Sequence[str], objects: pl.Series) -> pl.Series:
    read: list[dict[str, str | None]] = []
    for text in objects.to_list():
        members = _object(text)
        read.append({name: _as_text(members.get(name)) for name in names})
    return pl.Series(objects.name, read, pl.Struct(dict.fromkeys(names, pl.String())))


def _object(text: str | None) -> dict[str, Any]:
    """Read a JSON object; text that is none has no members."""
    try:
        document = json.loads(text or "{}", parse_float=Decimal, parse_int=Decimal)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _as_text(value: Any) -> str | None:
    return value if isinstance(value, str) or value is None else value_as_json(value)
