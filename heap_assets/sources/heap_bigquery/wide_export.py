"""The one wide `events` table of Heap's BigQuery guides as the source of Heap's tables (16 columns, rest as JSON).

It has no user_migrations and no users: users are the newest `user_properties` that each user's events carry. Event
properties become columns again by name; page_url is taken apart into domain, path, query and hash.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from heap_assets.sources.heap_bigquery.export import Fingerprints, HeapExport, fingerprints_of, midnight
from heap_assets.sources.heap_bigquery.values import HeapRows, heap_rows, only_once
from heap_assets.sources.warehouse import Newer, Permission, Reading, Snapshot
from heap_assets.values import PRIVATE, value_as_json

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

    Parameters
    ----------
    table
        What it is called.
    """

    table: str = "events"

    def tables(self) -> list[str]:
        """Return the event types of the last 90 days."""
        kind = self._kind()
        with self._events([kind], Newer("time", datetime.now(UTC) - _RECENT)) as found:
            return sorted(found.frame.select(pl.col(kind).drop_nulls().unique()).collect()[kind])

    def columns(self, table: str) -> list[str]:
        """Return a type's columns: the common ones, and the properties of a sample of its events."""
        if table == "user_migrations":
            return []
        wanted = "user_properties" if table == "users" else "event_properties"
        newer = Newer("time", _EVER, equals=None if table == "users" else (self._kind(), table))
        with self._events([wanted], newer, limit=_SAMPLE) as found:
            properties = _names(found.frame.collect()[wanted])
        common = ("user_id",) if table == "users" else (*_KEYS, *_PAGE, "title", *_OWN)
        return list(dict.fromkeys([*common, *properties]))

    def version(self) -> str | None:
        return self.warehouse.version(f"{self.dataset}.{self.table}")

    def synced_to(self) -> dict[str, datetime]:
        """Return nothing: the table does not tell up to when it is complete."""
        return {}

    def fingerprints(self, table: str, since: date) -> Fingerprints:
        newer = Newer("time", midnight(since), equals=(self._kind(), table))
        with self._events(["event_id", "user_id", "time"], newer) as found:
            return Fingerprints(fingerprints_of(found.frame), found.reading)

    def read_day(self, table: str, day: date, columns: Sequence[str] | None, path: Path) -> tuple[HeapRows, Reading]:
        within = Newer("time", midnight(day), midnight(day + timedelta(days=1)), (self._kind(), table))
        reading = self.warehouse.read(f"{self.dataset}.{self.table}", None, path, newer=within)
        rows = pl.scan_parquet(path)
        names = self.columns(table) if columns is None else columns
        others = [name for name in dict.fromkeys(names) if name not in _KEYS]
        found = heap_rows(_with_members(rows, "event_properties", others).select(_event_columns(rows, others)))
        return replace(found, frame=only_once(found.frame, ["event_id", "user_id"])), reading

    def read_users(self, columns: Sequence[str] | None, path: Path) -> tuple[HeapRows, Reading]:
        """Read the newest properties of every user that any event has."""
        wanted = ["user_id", "time", "user_properties"]
        newer = Newer("time", _EVER)
        reading = self.warehouse.read(f"{self.dataset}.{self.table}", wanted, path, newer=newer)
        newest = pl.scan_parquet(path).drop_nulls(["user_id", "user_properties"]).sort("time").unique(
            "user_id", keep="last"
        )  # fmt: skip
        names = [name for name in (self.columns("users") if columns is None else columns) if name != "user_id"]
        people = _with_members(newest, "user_properties", names)
        return heap_rows(people.select("user_id", *map(_member, names)), "users"), reading

    def read_user_migrations(self, path: Path) -> tuple[HeapRows, Reading]:
        """Return none: whoever writes this table has applied them."""
        empty = pl.LazyFrame(
            schema={"from_user_id": pl.Int64, "to_user_id": pl.Int64, "time": pl.Datetime("us", "UTC")}
        )
        return HeapRows(empty), Reading(f"{self.dataset}.{self.table}", (), 0, datetime.now(UTC), 0.0)

    def preflight(self) -> list[Permission]:
        tried = self.warehouse.preflight()
        if not all(permission.passed for permission in tried):
            return tried
        own = {column.name for column in self.warehouse.columns(f"{self.dataset}.{self.table}")}
        lacking = sorted({*_KEYS, "event_type", "event_properties", "user_properties"} - own)
        detail = f"{self.dataset}.{self.table}" + (f" without {', '.join(lacking)}" if lacking else "")
        return [*tried, Permission("events table", not lacking, detail, "is heap.source.events_table the wide table?")]

    def _kind(self) -> str:
        """Return the column that tells events apart: the table's name where there is one, as in what we publish."""
        columns = {column.name for column in self.warehouse.columns(f"{self.dataset}.{self.table}")}
        return "event_table" if "event_table" in columns else "event_type"

    @contextmanager
    def _events(self, columns: Sequence[str], newer: Newer, limit: int | None = None) -> Iterator[Snapshot]:
        relation = f"{self.dataset}.{self.table}"
        with self.warehouse.snapshot(relation, columns, newer=newer, limit=limit) as snapshot:
            yield snapshot


def _event_columns(rows: pl.LazyFrame, names: Iterable[str]) -> list[pl.Expr]:
    has = set(rows.collect_schema().names())
    page = pl.col("page_url") if "page_url" in has else pl.lit(None, pl.String)
    found = []
    for name in names:
        if name in _PAGE:
            found.append(page.str.extract(_PAGE[name]).alias(name))
        elif name == "title":
            found.append((pl.col("page_title") if "page_title" in has else pl.lit(None, pl.String)).alias(name))
        elif name in _OWN and name in has:
            found.append(pl.col(name))
        else:
            found.append(_member(name))
    return [*(pl.col(key) for key in _KEYS), *found]


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
        found = _object(text)
        read.append({name: _as_text(found.get(name)) for name in names})
    return pl.Series(objects.name, read, pl.Struct(dict.fromkeys(names, pl.String())))


def _object(text: str | None) -> dict[str, Any]:
    """Read a JSON object; what is none has no members."""
    try:
        found = json.loads(text or "{}", parse_float=Decimal, parse_int=Decimal)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _as_text(value: Any) -> str | None:
    return value if isinstance(value, str) or value is None else value_as_json(value)


def _names(objects: pl.Series) -> list[str]:
    found: dict[str, None] = {}
    for text in objects.drop_nulls().to_list():
        found.update(dict.fromkeys(_object(text)))
    return list(found)
