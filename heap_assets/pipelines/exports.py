"""Heap's tables from its export in BigQuery: the same assets and columns as from dumps, a day read when it changed."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import polars as pl

from heap_assets import clock
from heap_assets.config import BigQuerySource
from heap_assets.errors import MissingInputError, SettingsError, SourceError
from heap_assets.pipelines.snapshots import is_over, kept_or_carried
from heap_assets.pipelines.table import UNREADABLE, Made, Task
from heap_assets.project import Project
from heap_assets.sources.heap_bigquery import ExportLog, ExportState, HeapExport, LookBack, TableLook, WideExport
from heap_assets.sources.heap_connect import MIGRATIONS_SCHEMA, OWN_COLUMNS, Missing, key_dtype, resolved
from heap_assets.sources.warehouse import CONTENT_SCHEME, WarehouseError, content_digest, warehouse_of
from heap_assets.storage import Inputs, conform
from heap_assets.tables import MIGRATIONS, USERS, heap_asset
from heap_assets.values import apart, original, set_apart

_log = logging.getLogger("heap_assets.exports")

_EVENT_KEYS = ("event_id", "user_id", "session_id", "time")
_USER_KEYS = ("user_id", "identity", "handle", "email", "joindate", "last_modified")
_ACCOUNT = {"kind", "project", "location", "credentials", "max_bytes_billed", "endpoint", "storage_endpoint"}
"""Keys of `heap.source` that a warehouse in BigQuery has too."""
_MODE = "migrations applied by the view"


@dataclass(frozen=True)
class Looked:
    """What a look found: for each table, and the days to build again."""

    tables: list[TableLook]
    days: dict[date, frozenset[str]]


def is_exported(project: Project) -> bool:
    """Whether Heap's tables come from its export in a warehouse and not from dumps."""
    return project.settings.heap.source.kind == "bigquery"


def open_export(project: Project) -> HeapExport:
    """Return Heap's dataset; it is connected to only while something is asked of it."""
    source = _source(project)
    account = source.model_dump(include=_ACCOUNT)
    warehouse = warehouse_of({**account, "datasets": [source.dataset]}, "heap.source")
    if source.events_table is not None:
        return WideExport(warehouse, source.dataset, source.events_table)
    return HeapExport(warehouse, source.dataset)


_SPELLED: Mapping[pl.DataType, str] = {
    pl.Int64(): "Int64",
    pl.String(): "String",
    pl.Datetime("us", "UTC"): "Datetime(time_unit='us', time_zone='UTC')",
}
"""Types of the columns of Heap's export: ids, properties, times."""


def export_log(project: Project) -> ExportLog:
    """Return what was last seen of the export."""
    source = _source(project)
    return ExportLog(project.lake.store, source.dataset, source.project)


def news(project: Project) -> tuple[str, ExportState]:
    """Return the version of the export, from metadata where that tells, and what was last looked at.

    An export without `_sync_info` has a new version with every cadence.
    """
    version = open_export(project).version()
    if not version:
        every = int(project.settings.heap.cadence.total_seconds())
        version = f"at {int(clock.now().timestamp()) // every}"
    return version, export_log(project).state()


def look(project: Project, since: date | None = None) -> Looked:
    """Look at every selected table, and say which days are to be built; the newest ones always are.

    Raises
    ------
    SourceError
        If no table could be looked at.
    """
    source = _source(project)
    back = LookBack(
        timedelta(days=source.overlap_days),
        timedelta(days=source.look_back_days),
        timedelta(days=source.look_back_every_days),
    )
    start, now = project.settings.start_date, clock.now()
    version, _ = news(project)
    found = export_log(project).look(open_export(project), project.event_tables, start, now, version, back, since)
    failures = [one.failure for one in found if one.failure]
    if failures and len(failures) == len(found):
        raise SourceError(failures[0])
    days: dict[date, set[str]] = {day: set() for day in (clock.newest_complete_day(), clock.today()) if day >= start}
    for one in found:
        for day in one.changed:
            days.setdefault(day, set()).add(one.table)
    return Looked(found, {day: frozenset(tables) for day, tables in days.items()})


def touched(project: Project) -> dict[str, dict[date, datetime]]:
    """Return table to day to when it was last found changed."""
    log = export_log(project)
    return {table: {day: seen.since for day, seen in log.table(table).days.items()} for table in project.event_tables}


def event_day(task: Task, table: str) -> Made:
    """Build one day of an event table; nothing is read if the day looks as it did when it was last built.

    Raises
    ------
    MissingInputError
        Before the first look at the export.
    """
    project, asset = task.project, heap_asset(table)
    seen = export_log(project).table(table)
    if seen.looked_at is None:
        why = seen.failure or "materialize heap_connect/exports first"
        raise MissingInputError(f"{table} was not looked at in Heap's export yet: {why}")
    columns = project.catalogue.columns(table) or []
    schema = _schema(table, _EVENT_KEYS, columns)
    day = seen.days.get(task.day)
    inputs = _inputs(project, table, "none" if day is None or not day.rows else f"{day.fingerprint:016x}", schema)
    notes = {"complete": _is_complete(seen.synced_to or seen.looked_at, task.day), "user_id": _MODE}
    if seen.failure:
        notes[UNREADABLE] = seen.failure
    if (same := _unchanged(task, asset, inputs, notes)) is not None:
        return same
    if day is None or not day.rows:
        return Made(pl.LazyFrame(schema=schema), inputs, {**notes, "bytes_billed": 0})
    rows, reading = open_export(project).read_day(table, task.day, columns, task.scratch / "day.parquet")
    frame = conform(rows.frame, pl.Schema(schema)).sort("time", "event_id", "user_id")
    return Made(frame, inputs, {**notes, **rows.notes(), "bytes_billed": reading.bytes_billed or 0})


def users_of_day(task: Task) -> Made | None:
    """Return users as they stand, for the newest days only.

    See :func:`heap_assets.pipelines.snapshots.snapshot_of_day`.
    """
    if is_over(task):
        return kept_or_carried(task, USERS, "the export")
    project = task.project
    own = OWN_COLUMNS["users"]
    schema = _schema("users", _USER_KEYS, [original(name, own) for name in project.catalogue.columns("users") or []])
    export = open_export(project)
    rows, reading = export.read_users(list(schema), task.scratch / "users.parquet")
    moves, moved = export.read_user_migrations(task.scratch / "moves.parquet")
    ends = _migrations(moves.frame).filter(pl.col("from_user_id") != pl.col("resolved_to"))
    named = conform(rows.frame, pl.Schema(schema)).rename(set_apart(schema, own))
    users = named.unique("user_id", keep="first").join(
        ends.select(user_id="from_user_id", migrated_to="resolved_to").lazy(), on="user_id", how="left"
    )  # fmt: skip
    made = users.sort("user_id").collect(engine="streaming")
    billed = (reading.bytes_billed or 0) + (moved.bytes_billed or 0)
    notes = {**_observed(task.day, reading.observed_at, billed), **rows.notes()}
    return _made(task, USERS, made, notes)


def migrations_of_day(task: Task) -> Made | None:
    """Return user_migrations as they stand, for the newest days only, each followed to its end."""
    if is_over(task):
        return kept_or_carried(task, MIGRATIONS, "the export")
    rows, reading = open_export(task.project).read_user_migrations(task.scratch / "moves.parquet")
    notes = {**_observed(task.day, reading.observed_at, reading.bytes_billed or 0), **rows.notes()}
    return _made(task, MIGRATIONS, _migrations(rows.frame), notes)


def missing(project: Project) -> Missing:
    """Compare the export's tables and columns with the catalogue."""
    export, found = open_export(project), {}
    for name in [*export.tables(), "users", "user_migrations"]:
        try:
            found[name] = [apart(column, OWN_COLUMNS.get(name, ())) for column in export.columns(name)]
        except WarehouseError as error:  # a view that cannot be described is for its own table to tell
            _log.warning("left out of the comparison: %s", error)
    return project.catalogue.compare(found)


def _source(project: Project) -> BigQuerySource:
    source = project.settings.heap.source
    if source.kind != "bigquery":
        raise SettingsError("heap.source is not Heap's export in BigQuery")
    return source


def _schema(table: str, keys: Sequence[str], columns: Sequence[str]) -> dict[str, pl.DataType]:
    return {name: key_dtype(table, name) or pl.String() for name in dict.fromkeys([*keys, *columns])}


def _inputs(project: Project, table: str, version: str, schema: dict[str, pl.DataType]) -> Inputs:
    return Inputs({f"{_source(project).dataset}.{table}": version, "columns": columns_version(schema)})


def columns_version(schema: Mapping[str, pl.DataType]) -> str:
    """Return the version of a table's columns, from names and types as spelled here.

    Days are read again, and paid for, when it changes: no other spelling, such as that of another Polars, may do that.
    """
    spelled = ", ".join(f"({name!r}, {_SPELLED[dtype]})" for name, dtype in schema.items())
    return hashlib.sha256(f"[{spelled}]".encode()).hexdigest()[:16]


def _unchanged(task: Task, asset: str, inputs: Inputs, notes: dict[str, object]) -> Made | None:
    """Return what is stored if it was built from the same, so that nothing is read."""
    stored = task.project.lake.find(asset, str(task.day))
    if task.force or stored is None or stored.inputs.versions != dict(inputs.versions):
        return None
    return Made(task.project.lake.scan(asset, str(task.day)), inputs, {**notes, "bytes_billed": 0})


def _migrations(rows: pl.LazyFrame) -> pl.DataFrame:
    there = rows.collect_schema()
    moment = pl.col("time") if "time" in there else pl.lit(None, MIGRATIONS_SCHEMA["time"]).alias("time")
    found = rows.select("from_user_id", "to_user_id", moment).collect()
    order = ["from_user_id", "time", "to_user_id"]
    newest = found.sort(order, descending=[False, True, True], nulls_last=True)
    return resolved(newest.unique("from_user_id", keep="first", maintain_order=True))


def _made(task: Task, asset: str, rows: pl.DataFrame, notes: dict[str, object]) -> Made:
    """Return a live table's rows; their version is their content, so that equal rows are not written again."""
    source = f"{_source(task.project).dataset}.{asset}"
    stored = task.project.lake.find(asset, str(task.day))
    before = stored.inputs.versions.get(source, "") if stored else ""
    if before and not before.startswith(CONTENT_SCHEME):
        notes = {
            **notes,
            "rewritten": "its version is computed in a new way: written once more, whether changed or not",
        }
    return Made(rows.lazy(), Inputs({source: content_digest(rows), "columns": ",".join(rows.columns)}), notes)


def _observed(day: date, at: datetime, billed: int) -> dict[str, object]:
    return {
        "observed": True,
        "observed_at": at.isoformat(),
        "complete": day < clock.today(),
        "bytes_billed": billed,
        "user_id": _MODE,
    }


def _is_complete(synced_to: datetime, day: date) -> bool:
    return synced_to.date() > day
