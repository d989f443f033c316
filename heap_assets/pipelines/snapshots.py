"""Warehouse tables by day, although a live source has no past (design.md, Heap tables)."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from heap_assets import clock
from heap_assets.config import WarehouseTable
from heap_assets.errors import MissingInputError, SettingsError
from heap_assets.pipelines.table import ERASED, MASKED, VALUES_LOST, VALUES_LOST_IN, BuiltTable, Task
from heap_assets.project import Project, masked_scan, rules_version, without_erased
from heap_assets.redaction import redact_error
from heap_assets.sources.warehouse import Observation, Refreshed, Shape, Tally, WarehouseError, refreshed
from heap_assets.storage import Inputs, state_keys
from heap_assets.tables import source_of, source_title, warehouse_asset

_log = logging.getLogger("heap_assets.sources.warehouse")


def snapshot_of_day(task: Task, name: str) -> BuiltTable | None:
    """Return a warehouse table as of a day, None if the day's partition is kept.

    Only the newest complete day and the running one are read from the source. An older partition that exists is kept
    (unless forced); a missing one is the nearest earlier observation carried forward, marked `observed: false`, or
    MissingInputError if there is none.
    """
    asset, table = warehouse_asset(name), task.project.settings.source_tables.get(name)
    if table is None:
        raise SettingsError(f"{asset} is an asset, but the settings do not map it any more: reload definitions")
    if is_over(task):
        return keep_or_carry(task, asset, source_title(source_of(asset)))
    return _observed(task, name, table)


def is_over(task: Task) -> bool:
    """Return whether a day is too old to be read from a live source."""
    return task.day < clock.newest_complete_day() and not task.force


def keep_or_carry(task: Task, asset: str, source: str) -> BuiltTable | None:
    """Return None for a day that is built already, else the nearest earlier observation, carried forward.

    Raises MissingInputError if there is none.
    """
    lake = task.project.lake
    if lake.find(asset, str(task.day)) is not None:
        return None
    earlier = lake.newest_partition(asset, task.day)
    if earlier is None:
        raise MissingInputError(
            f"{asset} {task.day} was never observed and nothing before it was: {source} only knows how things stand now"
        )
    inputs = Inputs({f"{asset}@{earlier}": lake.versions(asset)[str(earlier)]})
    return BuiltTable(lake.scan(asset, str(earlier)), inputs, {"observed": False, "carried_from": str(earlier)})


def _observed(task: Task, name: str, table: WarehouseTable) -> BuiltTable:
    asset, started = warehouse_asset(name), clock.now()
    warehouse = task.project.warehouse_of(name)
    last = _record_of(task.project, asset)
    full_read = last is None or task.force or started - last.whole_at >= timedelta(days=table.full_read_days, hours=-12)
    previous = (
        None
        if last is None or full_read or last.zone != table.time_zone
        else _previous_observation(task, asset, table.relation, last)
    )
    mapped = task.project.mapped_columns(name)
    existing = warehouse.columns(table.relation)
    # a mapped column that is gone must fail here, and not in identity resolution
    shape = Shape.of(existing, [*mapped, *(table.columns or ())], table.relation)
    shape.check_times(table.relation, created_at=table.created_at, updated_at=table.updated_at)
    mappings = task.project.snapshot_sources[asset].mappings
    shape.check_identifiers(table.relation, (column for mapping in mappings for column in mapping.columns))
    sync_columns = _columns_of_syncs(task.project, name, shape, table.relation)
    columns = None if table.columns is None else sorted({*table.columns, *mapped, *sync_columns})
    path = task.scratch / "snapshot.parquet"
    with refreshed(
        warehouse,
        table.relation,
        columns,
        key=table.key,
        updated_at=table.updated_at,
        previous=previous,
        spellings=[*mapped, *sync_columns],
        zone=table.time_zone if table.time_zone != "UTC" else None,
    ) as current:
        notes = {
            "observed": True,
            "observed_at": current.observed_at.isoformat(),
            "complete": task.day < clock.today(),
            "read": current.mode,
            "why": current.reason,
            "rows_read": current.rows_read,
            "bytes_billed": current.bytes_billed,
        }
        lost = _lost_values(current, last if previous else None)
        if lost:
            notes |= {VALUES_LOST: sum(lost.values()), VALUES_LOST_IN: lost}
        rules = rules_version(task.project)
        if current.mode == "unchanged" and previous is not None and last is not None and last.rules == rules:
            return BuiltTable(current.frame, Inputs({table.relation: last.digest}), notes)
        if current.file is not None:
            shutil.move(current.file, path)
        else:
            _write(current.frame, path, table.relation)
        read = pl.scan_parquet(path)
        remaining, erased = without_erased(task.project, asset, read)
        if remaining is not read:
            _write(remaining, path.with_name("remaining.parquet"), table.relation)
            path = path.with_name("remaining.parquet")
            notes[ERASED] = erased
        masked_rows, cells = masked_scan(task.project, asset, pl.scan_parquet(path), task.scratch)
        if cells:
            path = path.with_name("masked.parquet")
            _write(masked_rows, path, table.relation)
            notes[MASKED] = cells
        digest = _digest(path)
        whole_at = started if current.mode == "full" or last is None else last.whole_at
        types = {column.name: column.type for column in existing}
        observed = _LastRead(
            *(digest, current.observed_at, whole_at, current.version, current.tally, table.time_zone, lost, types),
            rules=rules,
        )
        _store_record(task, asset, observed)
    return BuiltTable(pl.scan_parquet(path), Inputs({table.relation: digest}), notes)


@dataclass(frozen=True)
class _LastRead:
    """The record of the last read; `digest` identifies the partition that holds its rows."""

    digest: str
    observed_at: datetime
    whole_at: datetime
    version: str | None
    tally: Tally | None
    zone: str = "UTC"
    lost: Mapping[str, int] = field(default_factory=dict)
    types: Mapping[str, str] | None = None
    rules: str = ""
    """Version of the rules of masking under which it was kept."""


def _previous_observation(task: Task, asset: str, relation: str, last: _LastRead) -> Observation | None:
    """Return the rows of the last read, if the newest partition still holds them, undamaged."""
    lake = task.project.lake
    day = lake.newest_partition(asset, task.day)
    is_intact = day is not None and lake.store.is_whole(lake.key(asset, str(day)))
    stored = lake.find(asset, str(day)) if is_intact else None
    if stored is None or stored.inputs.versions != {relation: last.digest}:
        return None
    return Observation(lake.scan(asset, str(day)), last.observed_at, last.version, last.tally, last.types)


def last_read(project: Project, asset: str) -> datetime | None:
    """Return when the source of a table was last read (UTC), None if it never was."""
    last = _record_of(project, asset)
    return last.observed_at if last else None


def _record_of(project: Project, asset: str) -> _LastRead | None:
    """Return the record of the last read; None if there is none or it is damaged, and then everything is read."""
    store, key = project.lake.store, f"{state_keys.OBSERVED}/{asset}.json"
    try:
        record = json.loads(store.read(key))
        tally = Tally(*record["tally"]) if record["tally"] else None
        observed_at, whole_at = (datetime.fromisoformat(record[name]) for name in ("observed_at", "whole_at"))
        zone, lost, types = record.get("zone", "UTC"), record.get("lost", {}), record.get("types")
        rules = record.get("rules", "")
        return _LastRead(record["digest"], observed_at, whole_at, record["version"], tally, zone, lost, types, rules)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        _log.warning("%s is damaged: the table is read whole", store.uri(key))
        return None


def _store_record(task: Task, asset: str, record_of_read: _LastRead) -> None:
    """Store the record of a read; a partition that is not stored after all is recognised by its digest."""
    record = {
        "digest": record_of_read.digest,
        "observed_at": record_of_read.observed_at.isoformat(),
        "whole_at": record_of_read.whole_at.isoformat(),
        "version": record_of_read.version,
        "tally": [record_of_read.tally.rows, record_of_read.tally.checksum] if record_of_read.tally else None,
        "zone": record_of_read.zone,
        "lost": dict(record_of_read.lost),
        "types": record_of_read.types,
        "rules": record_of_read.rules,
    }
    task.project.lake.store.write(f"{state_keys.OBSERVED}/{asset}.json", json.dumps(record).encode())


def _lost_values(current: Refreshed, last: _LastRead | None) -> dict[str, int]:
    """Count by column the values that became null for want of a type; a partial read keeps the former counts."""
    previous = {} if last is None or current.mode == "full" else dict(last.lost)
    return {name: max(previous.get(name, 0), current.lost.get(name, 0)) for name in {*previous, *current.lost}}


def _columns_of_syncs(project: Project, name: str, shape: Shape, relation: str) -> list[str]:
    """Return the columns that syncs name and that the table has; a wrong one stops only its sync."""
    columns: list[str] = []
    for column in sorted(project.settings.columns_of_syncs(name)):
        with suppress(WarehouseError):
            shape = shape.spelling(column, relation)
            columns.append(column)
    return columns


def _write(frame: pl.LazyFrame, path: Path, relation: str) -> None:
    try:
        frame.sink_parquet(path, engine="streaming")
    except pl.exceptions.PolarsError as error:
        raise WarehouseError(f"{relation}: what was read cannot be kept: {redact_error(error)}") from None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]
