"""What the lake knows that the status of a deployment is made of: days due, verdicts, runs of syncs, times of reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl

from heap_assets import clock
from heap_assets.activation import Status as SyncStatus
from heap_assets.activation import runs
from heap_assets.pipelines.first_contact import first_runs, unread_tables
from heap_assets.pipelines.readiness import graph_is_due, unbuilt_days, unbuilt_people
from heap_assets.pipelines.snapshots import last_read
from heap_assets.pipelines.sync_schedule import ledger_folders
from heap_assets.pipelines.waiting import next_tick
from heap_assets.project import Project
from heap_assets.quality import StoredVerdict, result_store
from heap_assets.storage import ObjectInfo
from heap_assets.tables import (
    AUDIENCES,
    AUDIT,
    GRAPH,
    PROFILES,
    RESOLVED,
    heap_asset,
    is_sync,
    is_warehouse_table,
    sync_asset,
    sync_name,
)

READABLE = "readable"
_HOLES = 7
_FORGOTTEN = timedelta(days=31)
_BROKEN = (SyncStatus.STOPPED, SyncStatus.REFUSED, SyncStatus.BLOCKED, SyncStatus.KILLED)


def days_due(project: Project) -> dict[str, set[date]]:
    due = {**unbuilt_days(project), **unbuilt_people(project)}
    for asset, days in (*unread_tables(project).items(), *first_runs(project).items()):
        due[asset] = set(days)
    if day := graph_is_due(project):
        due |= {asset: {day} for asset in RESOLVED}
    graphs = set(project.lake.partitions(GRAPH))
    for asset in (PROFILES, AUDIT, AUDIENCES):
        newest = max(graphs, default=None)
        if newest and newest not in project.lake.partitions(asset):
            due[asset] = {date.fromisoformat(newest)}
    return due


def newest_verdicts(project: Project) -> dict[str, list[StoredVerdict]]:
    """Return asset to the newest verdict of each check; of `readable`, which leaves holes, the last seven days'.

    Checks that the settings no longer ask for stop counting a month after they were last made.
    """
    partitions: dict[tuple[str, str], list[str]] = {}
    for info in project.lake.store.list(result_store.ROOT):
        asset, check, partition = result_store.parts(info.key)
        if asset:
            partitions.setdefault((asset, check), []).append(partition)
    keys = [
        result_store.object_key(asset, check, partition)
        for (asset, check), found in partitions.items()
        for partition in sorted(found)[-_HOLES if check == READABLE else -1 :]
    ]
    read = result_store.read_keys(project.lake.store, keys)
    oldest = max((verdict.judged_at for verdict in read), default=clock.now()) - _FORGOTTEN
    by_asset: dict[str, list[StoredVerdict]] = {}
    for verdict in read:
        if verdict.judged_at >= oldest:
            by_asset.setdefault(verdict.asset, []).append(verdict)
    return by_asset


def not_landed(project: Project) -> dict[str, str]:
    """Return Heap's tables that the newest dump with them could not land, and why."""
    why: dict[str, str] = {}
    for record in project.landing.records().values():
        for name, table in record.tables.items():
            asset = heap_asset(name)
            why.pop(asset, None)
            if table.failure is not None:
                why[asset] = f"dump {record.dump_id} could not be landed: {table.failure.reason}"
    return why


def last_runs(project: Project) -> dict[str, dict[str, Any]]:
    """Return sync to its newest recorded run, over all its ledgers; without those that never ran."""
    last = {sync_asset(name): _last_run(project, name) for name in project.settings.sync}
    return {asset: run for asset, run in last.items() if run}


def not_sent(last: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return syncs whose last run ended otherwise than it should, by whomever it was started."""
    return {
        asset: f"its last run ended as {run['status']}: {run['reason'] or 'no reason is known'}"
        for asset, run in last.items()
        if run["status"] in _BROKEN
    }


def newest_day(project: Project, asset: str, found: Sequence[StoredVerdict]) -> tuple[str | None, datetime | None]:
    """Return the newest day of an asset and when it was written; of a sync, the newest that was delivered."""
    if is_sync(asset):
        sent = [v for v in found if v.check == "delivered" and v.passed]
        return (sent[-1].partition, sent[-1].judged_at) if sent else (None, None)
    stored: list[ObjectInfo] = [
        i for i in project.lake.store.list(f"{asset}/") if i.key.count("/") == asset.count("/") + 1
    ]
    if not stored:
        return None, None
    return stored[-1].key.rpartition("/")[2].removesuffix(".parquet"), stored[-1].last_modified


def next_turn(project: Project, asset: str) -> datetime | None:
    if project.settings.run.automation != "running":
        return None
    if is_warehouse_table(asset):
        return next_tick(project.settings.run.warehouse_schedule)
    if is_sync(asset) and (sync := project.settings.sync[sync_name(asset)]).scheduled:
        return next_tick(str(sync.schedule))
    return None


def last_time(project: Project, asset: str, last: Mapping[str, Mapping[str, Any]]) -> tuple[datetime | None, str]:
    """Return when a warehouse table was last read or a sync last ran, and how that ended."""
    if is_warehouse_table(asset):
        return last_read(project, asset), ""
    if (run := last.get(asset)) is None:
        return None, ""
    return run["started_at"], f"{run['status']}, {run['sent']:,} of {run['planned']:,} rows sent"


def _last_run(project: Project, name: str) -> dict[str, Any]:
    """Return the newest recorded run of a sync, over all its ledgers; empty if it never ran."""
    newest_each = [runs(project.lake.store, folder, last=1) for folder in ledger_folders(project, name)]
    newest = pl.concat(newest_each).sort("started_at").tail(1).to_dicts() if newest_each else []
    return newest[0] if newest else {}
