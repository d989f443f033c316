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
from heap_assets.pipelines.table import VALUES_LOST, VALUES_LOST_IN, Made, Task
from heap_assets.project import Project
from heap_assets.redaction import redact_error
from heap_assets.sources.warehouse import Observation, Refreshed, Shape, Tally, WarehouseError, refreshed
from heap_assets.storage import Inputs, state_keys
from heap_assets.tables import source_of, source_title, warehouse_asset

_log = logging.getLogger("heap_assets.sources.warehouse")


def snapshot_of_day(task: Task, name: str) -> Made | None:
    """Return a warehouse table as of a day, None if the day's partition stays as it is.

    Only the newest complete day and the running one are read from the source. An older partition that exists is kept
    (unless forced); one that is missing carries the nearest earlier observation forward, marked `observed: false`.

    Raises
    ------
    MissingInputError
        An older day with nothing before it that could be carried forward.
    """
    asset, table = warehouse_asset(name), task.project.settings.source_tables.get(name)
    if table is None:
        raise SettingsError(f"{asset} is an asset, but the settings do not map it any more: reload definitions")
    if is_over(task):
        return kept_or_carried(task, asset, source_title(source_of(asset)))
    return _observed(task, name, table)


def is_over(task: Task) -> bool:
    """Say whether a live source can tell no more how things stood on a day."""
    return task.day < clock.newest_complete_day() and not task.force


def kept_or_carried(task: Task, asset: str, source: str) -> Made | None:
    """Return what becomes of a day that is over: None if it is there and stays, else the nearest earlier observation.

    Raises
    ------
    MissingInputError
        If there is nothing that could be carried forward.
    """
    lake = task.project.lake
    if lake.find(asset, str(task.day)) is not None:
        return None
    earlier = lake.newest_partition(asset, task.day)
    if earlier is None:
        raise MissingInputError(
            f"{asset} {task.day} was never observed and nothing before it was: {source} only knows how things stand now"
        )
    carried = Inputs({f"{asset}@{earlier}": lake.versions(asset)[str(earlier)]})
    return Made(lake.scan(asset, str(earlier)), carried, {"observed": False, "carried_from": str(earlier)})


def _observed(task: Task, name: str, table: WarehouseTable) -> Made:
    asset, started = warehouse_asset(name), clock.now()
    warehouse = task.project.warehouse_of(name)
    seen = _record_of(task.project, asset)
    due = seen is None or task.force or started - seen.whole_at >= timedelta(days=table.full_read_days, hours=-12)
    before = None if seen is None or due or seen.zone != table.time_zone else _before(task, asset, table.relation, seen)
    mapped = task.project.mapped_columns(name)
    existing = warehouse.columns(table.relation)
    # a mapped column that is gone would come to light where nobody looks for it: when identities are resolved
    shape = Shape.of(existing, [*mapped, *(table.columns or ())], table.relation)
    shape.check_times(table.relation, created_at=table.created_at, updated_at=table.updated_at)
    named = task.project.snapshot_sources[asset].mappings
    shape.check_identifiers(table.relation, (column for one in named for column in one.columns))
    sent = _sent(task.project, name, shape, table.relation)
    columns = None if table.columns is None else sorted({*table.columns, *mapped, *sent})
    path = task.scratch / "snapshot.parquet"
    with refreshed(
        warehouse,
        table.relation,
        columns,
        key=table.key,
        updated_at=table.updated_at,
        before=before.observation if before else None,
        spelled=[*mapped, *sent],
        zone=table.time_zone if table.time_zone != "UTC" else None,
    ) as found:
        notes = {
            "observed": True,
            "observed_at": found.observed_at.isoformat(),
            "complete": task.day < clock.today(),
            "read": found.mode,
            "why": found.reason,
            "rows_read": found.rows_read,
            "bytes_billed": found.bytes_billed,
        }
        lost = _lost(found, seen if before else None)
        if lost:
            notes |= {VALUES_LOST: sum(lost.values()), VALUES_LOST_IN: lost}
        if found.mode == "unchanged" and before is not None:
            return Made(found.frame, Inputs({table.relation: before.digest}), notes)
        if found.file is not None:
            shutil.move(found.file, path)
        else:
            _write(found.frame, path, table.relation)
        digest = _digest(path)
        whole_at = started if found.mode == "full" or seen is None else seen.whole_at
        observed = _Seen(digest, found.observed_at, whole_at, found.version, found.tally, table.time_zone, lost)
        _remember(task, asset, observed)
    return Made(pl.scan_parquet(path), Inputs({table.relation: digest}), notes)


@dataclass(frozen=True)
class _Seen:
    """What the last observation found; `digest` tells the partition that holds it."""

    digest: str
    observed_at: datetime
    whole_at: datetime
    version: str | None
    tally: Tally | None
    zone: str = "UTC"
    lost: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Before:
    observation: Observation
    digest: str


def _before(task: Task, asset: str, relation: str, seen: _Seen) -> _Before | None:
    """Return the rows of the last observation, if the newest partition still holds them, undamaged."""
    lake = task.project.lake
    day = lake.newest_partition(asset, task.day)
    whole = day is not None and lake.store.is_whole(lake.key(asset, str(day)))
    stored = lake.find(asset, str(day)) if whole else None
    if stored is None or stored.inputs.versions != {relation: seen.digest}:
        return None
    rows = lake.scan(asset, str(day))
    return _Before(Observation(rows, seen.observed_at, seen.version, seen.tally), seen.digest)


def last_read(project: Project, asset: str) -> datetime | None:
    """Return when the source of a table was last read (UTC), None if it never was."""
    seen = _record_of(project, asset)
    return seen.observed_at if seen else None


def _record_of(project: Project, asset: str) -> _Seen | None:
    """Return what was written down of the last observation; a damaged record tells nothing: everything is read."""
    store, key = project.lake.store, f"{state_keys.OBSERVED}/{asset}.json"
    try:
        known = json.loads(store.read(key))
        tally = Tally(*known["tally"]) if known["tally"] else None
        observed_at, whole_at = (datetime.fromisoformat(known[name]) for name in ("observed_at", "whole_at"))
        zone, lost = known.get("zone", "UTC"), known.get("lost", {})
        return _Seen(known["digest"], observed_at, whole_at, known["version"], tally, zone, lost)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        _log.warning("%s is damaged: the table is read whole", store.uri(key))
        return None


def _remember(task: Task, asset: str, seen: _Seen) -> None:
    """Write down what was seen; a partition that is not stored after all is told by its digest."""
    record = {
        "digest": seen.digest,
        "observed_at": seen.observed_at.isoformat(),
        "whole_at": seen.whole_at.isoformat(),
        "version": seen.version,
        "tally": [seen.tally.rows, seen.tally.checksum] if seen.tally else None,
        "zone": seen.zone,
        "lost": dict(seen.lost),
    }
    task.project.lake.store.write(f"{state_keys.OBSERVED}/{asset}.json", json.dumps(record).encode())


def _lost(found: Refreshed, seen: _Seen | None) -> dict[str, int]:
    """Count by column the values that are null for want of a type; of changes alone at least what was known before."""
    known = {} if seen is None or found.mode == "full" else dict(seen.lost)
    return {name: max(known.get(name, 0), found.lost.get(name, 0)) for name in {*known, *found.lost}}


def _sent(project: Project, name: str, shape: Shape, relation: str) -> list[str]:
    """Return the columns that syncs name and that the table has: one that is wrong stops its sync and nobody else."""
    found: list[str] = []
    for column in sorted(project.settings.columns_of_syncs(name)):
        with suppress(WarehouseError):
            shape = shape.spelling(column, relation)
            found.append(column)
    return found


def _write(frame: pl.LazyFrame, path: Path, relation: str) -> None:
    try:
        frame.sink_parquet(path, engine="streaming")
    except pl.exceptions.PolarsError as error:
        raise WarehouseError(f"{relation}: what was read cannot be kept: {redact_error(error)}") from None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]
