"""Heap's tables from its export in a warehouse: the same assets and columns as from dumps, by changed days."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import polars as pl

from heap_assets import clock
from heap_assets.config import BigQuerySource, ExportedSource, WarehouseSource
from heap_assets.errors import MissingInputError, SettingsError, SourceError
from heap_assets.pipelines.snapshots import is_over, keep_or_carry
from heap_assets.pipelines.table import ERASED, MASKED, UNREADABLE, BuiltTable, Task
from heap_assets.project import Project, masked, masked_scan, without_erased
from heap_assets.sources.heap_bigquery import (
    ExportLog,
    ExportState,
    HeapExport,
    LookBack,
    LowerCaseWarehouse,
    TableLook,
    WideExport,
)
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
class ExportChanges:
    """The changes since the last comparison: a result per table, and the days to rebuild with their tables."""

    tables: list[TableLook]
    days: dict[date, frozenset[str]]


def is_exported(project: Project) -> bool:
    """Whether Heap's tables come from its export in a warehouse and not from dumps."""
    return isinstance(project.settings.heap.source, ExportedSource)


def engine_of_export(project: Project) -> str:
    """Return the kind of warehouse that Heap's export is in."""
    source = project.settings.heap.source
    return project.settings.all_sources[source.source].kind if source.kind == "warehouse" else source.kind


def open_export(project: Project) -> HeapExport:
    """Return Heap's dataset; it connects only while it is queried."""
    source = _source(project)
    if isinstance(source, BigQuerySource):
        account = source.model_dump(include=_ACCOUNT)
        warehouse = warehouse_of({**account, "datasets": [source.dataset]}, "heap.source")
    else:
        warehouse = LowerCaseWarehouse(project.warehouse(source.source))
    if source.events_table is not None:
        return WideExport(warehouse, source.dataset, source.events_table)
    return HeapExport(warehouse, source.dataset)


_TYPE_NAMES: Mapping[pl.DataType, str] = {
    pl.Int64(): "Int64",
    pl.String(): "String",
    pl.Datetime("us", "UTC"): "Datetime(time_unit='us', time_zone='UTC')",
}
"""Types of the columns of Heap's export: ids, properties, times."""


def export_log(project: Project) -> ExportLog:
    """Return the record of what the export last held."""
    source = _source(project)
    project_name = source.project if isinstance(source, BigQuerySource) else f"{source.kind}/{source.source}"
    return ExportLog(project.lake.store, source.dataset, project_name)


def version_and_state(project: Project) -> tuple[str, ExportState]:
    """Return the version of the export and its state at the last look.

    An export whose metadata has no `_sync_info` gets a new version with every cadence.
    """
    version = open_export(project).version()
    if not version:
        every = int(project.settings.heap.cadence.total_seconds())
        version = f"at {int(clock.now().timestamp()) // every}"
    return version, export_log(project).state()


def changed_days(project: Project, since: date | None = None) -> ExportChanges:
    """Compare every selected table with its stored fingerprints and store the new ones; return the days to rebuild.

    The newest complete day and the running one are always among them. Tables that cannot be queried are reported in
    `tables`; SourceError if none can.
    """
    source = _source(project)
    back = LookBack(
        timedelta(days=source.overlap_days),
        timedelta(days=source.look_back_days),
        timedelta(days=source.look_back_every_days),
    )
    start, now = project.settings.first_day, clock.now()
    version, _ = version_and_state(project)
    looks = export_log(project).inspect(open_export(project), project.event_tables, start, now, version, back, since)
    failures = [table_look.failure for table_look in looks if table_look.failure]
    if failures and len(failures) == len(looks):
        raise SourceError(failures[0])
    days: dict[date, set[str]] = {day: set() for day in (clock.newest_complete_day(), clock.today()) if day >= start}
    for table_look in looks:
        for day in table_look.changed:
            days.setdefault(day, set()).add(table_look.table)
    return ExportChanges(looks, {day: frozenset(tables) for day, tables in days.items()})


def touched(project: Project) -> dict[str, dict[date, datetime]]:
    """Return for each table its days, each with the time (UTC) at which a change was last detected."""
    record = export_log(project)
    return {
        table: {day: state.since for day, state in record.table(table).days.items()} for table in project.event_tables
    }


def event_day(task: Task, table: str) -> BuiltTable:
    """Build one day of an event table; nothing is read if the day has not changed since it was last built.

    Raises MissingInputError before the first comparison of the export.
    """
    project, asset = task.project, heap_asset(table)
    state = export_log(project).table(table)
    if state.looked_at is None:
        why = state.failure or "materialize heap_connect/exports first"
        raise MissingInputError(f"{table} was not looked at in Heap's export yet: {why}")
    columns = project.catalogue.columns(table) or []
    schema = _schema(table, _EVENT_KEYS, columns)
    day = state.days.get(task.day)
    version = "none" if day is None or not day.rows else f"{day.fingerprint:016x}"
    inputs = Inputs({f"{_source(project).dataset}.{table}": version, "columns": columns_version(schema)})
    notes = {"complete": (state.synced_to or state.looked_at).date() > task.day, "user_id": _MODE}
    if state.failure:
        notes[UNREADABLE] = state.failure
    if (unchanged := _unchanged(task, asset, inputs, notes)) is not None:
        return unchanged
    if day is None or not day.rows:
        return BuiltTable(pl.LazyFrame(schema=schema), inputs, {**notes, "bytes_billed": 0})
    rows, reading = open_export(project).read_day(table, task.day, columns, task.scratch / "day.parquet")
    read, erased = without_erased(project, asset, conform(rows.frame, pl.Schema(schema)))
    read, cells = masked_scan(project, asset, read, task.scratch)
    notes |= ({ERASED: erased} if erased else {}) | ({MASKED: cells} if cells else {})
    frame = read.sort("time", "event_id", "user_id")
    return BuiltTable(frame, inputs, {**notes, **rows.notes(), "bytes_billed": reading.bytes_billed or 0})


def users_of_day(task: Task) -> BuiltTable | None:
    """Return the current users, for the newest days only; see `snapshots.snapshot_of_day`."""
    if is_over(task):
        return keep_or_carry(task, USERS, "the export")
    project = task.project
    own_columns = OWN_COLUMNS["users"]
    schema = _schema(
        "users", _USER_KEYS, [original(name, own_columns) for name in project.catalogue.columns("users") or []]
    )
    export = open_export(project)
    rows, reading = export.read_users(list(schema), task.scratch / "users.parquet")
    moves, moves_reading = export.read_user_migrations(task.scratch / "moves.parquet")
    kept_moves = without_erased(project, MIGRATIONS, moves.frame)[0]
    ends = _migrations(kept_moves).filter(pl.col("from_user_id") != pl.col("resolved_to"))
    users_read = conform(rows.frame, pl.Schema(schema)).rename(set_apart(schema, own_columns))
    users = users_read.unique("user_id", keep="first").join(
        ends.select(user_id="from_user_id", migrated_to="resolved_to").lazy(), on="user_id", how="left"
    )  # fmt: skip
    users, erased = without_erased(project, USERS, users)
    rows_of_day, cells = masked(project, USERS, users.sort("user_id").collect(engine="streaming"))
    billed = (reading.bytes_billed or 0) + (moves_reading.bytes_billed or 0)
    notes = {**_observed(task.day, reading.observed_at, billed), **rows.notes()} | ({ERASED: erased} if erased else {})
    notes |= {MASKED: cells} if cells else {}
    return _live_table(task, USERS, rows_of_day, notes)


def migrations_of_day(task: Task) -> BuiltTable | None:
    """Return the current user_migrations, for the newest days only, each followed to its end."""
    if is_over(task):
        return keep_or_carry(task, MIGRATIONS, "the export")
    rows, reading = open_export(task.project).read_user_migrations(task.scratch / "moves.parquet")
    notes = {**_observed(task.day, reading.observed_at, reading.bytes_billed or 0), **rows.notes()}
    moves, erased = without_erased(task.project, MIGRATIONS, rows.frame)
    return _live_table(task, MIGRATIONS, _migrations(moves), notes | ({ERASED: erased} if erased else {}))


def missing(project: Project) -> Missing:
    """Compare the export's tables and columns with the catalogue."""
    export, columns = open_export(project), {}
    for name in [*export.tables(), "users", "user_migrations"]:
        try:
            columns[name] = [apart(column, OWN_COLUMNS.get(name, ())) for column in export.columns(name)]
        except WarehouseError as error:  # a view that cannot be described is for its own table to tell
            _log.warning("left out of the comparison: %s", error)
    return project.catalogue.compare(columns)


def _source(project: Project) -> BigQuerySource | WarehouseSource:
    source = project.settings.heap.source
    if not isinstance(source, BigQuerySource | WarehouseSource):
        raise SettingsError("heap.source is not Heap's export in a warehouse")
    return source


def _schema(table: str, keys: Sequence[str], columns: Sequence[str]) -> dict[str, pl.DataType]:
    return {name: key_dtype(table, name) or pl.String() for name in dict.fromkeys([*keys, *columns])}


def columns_version(schema: Mapping[str, pl.DataType]) -> str:
    """Return the version of a table's columns, from their names and our own names of types.

    Days are read again, and paid for, when it changes, so it must not depend on how a version of Polars spells types.
    """
    digest_input = ", ".join(f"({name!r}, {_TYPE_NAMES[dtype]})" for name, dtype in schema.items())
    return hashlib.sha256(f"[{digest_input}]".encode()).hexdigest()[:16]


def _unchanged(task: Task, asset: str, inputs: Inputs, notes: dict[str, object]) -> BuiltTable | None:
    """Return what is stored if it was built from the same inputs, so that nothing is read."""
    stored = task.project.lake.find(asset, str(task.day))
    if task.force or stored is None or stored.inputs.versions != dict(inputs.versions):
        return None
    return BuiltTable(task.project.lake.scan(asset, str(task.day)), inputs, {**notes, "bytes_billed": 0})


def _migrations(rows: pl.LazyFrame) -> pl.DataFrame:
    schema = rows.collect_schema()
    moment = pl.col("time") if "time" in schema else pl.lit(None, MIGRATIONS_SCHEMA["time"]).alias("time")
    moves = rows.select("from_user_id", "to_user_id", moment).collect()
    order = ["from_user_id", "time", "to_user_id"]
    newest = moves.sort(order, descending=[False, True, True], nulls_last=True)
    return resolved(newest.unique("from_user_id", keep="first", maintain_order=True))


def _live_table(task: Task, asset: str, rows: pl.DataFrame, notes: dict[str, object]) -> BuiltTable:
    """Return a live table's rows; their version is their content, so that equal rows are not written again."""
    source = f"{_source(task.project).dataset}.{asset}"
    stored = task.project.lake.find(asset, str(task.day))
    previous_version = stored.inputs.versions.get(source, "") if stored else ""
    if previous_version and not previous_version.startswith(CONTENT_SCHEME):
        notes = {
            **notes,
            "rewritten": "its version is computed in a new way: written once more, whether changed or not",
        }
    return BuiltTable(rows.lazy(), Inputs({source: content_digest(rows), "columns": ",".join(rows.columns)}), notes)


def _observed(day: date, at: datetime, billed: int) -> dict[str, object]:
    return {
        "observed": True,
        "observed_at": at.isoformat(),
        "complete": day < clock.today(),
        "bytes_billed": billed,
        "user_id": _MODE,
    }
