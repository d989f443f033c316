"""The state of every table, sync and target of a deployment: pending, running, ok, failed, waiting, or not known.

Read from the lake; the caller asks Dagster what is running, and nobody asks the targets. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any

import polars as pl

from heap_assets import clock
from heap_assets.activation import Status as SyncStatus
from heap_assets.activation import runs
from heap_assets.errors import HeapAssetsError
from heap_assets.pipelines.publishing import last_published, open_publisher, published_tables, unpublished_days
from heap_assets.pipelines.readiness import graph_is_due, unbuilt_days, unbuilt_people
from heap_assets.pipelines.snapshots import last_read
from heap_assets.pipelines.sync_gate import ledger_folders
from heap_assets.pipelines.unified_events import unbuilt_unified_days
from heap_assets.pipelines.waiting import Wait, first_runs, next_tick, unread_tables, waits
from heap_assets.project import Project
from heap_assets.quality import Severity, StoredResult, result_store
from heap_assets.storage import ObjectInfo
from heap_assets.tables import (
    AUDIENCES,
    AUDIT,
    GRAPH,
    HEAP,
    PROFILES,
    RESOLVED,
    REVIEW,
    SNAPSHOT_TABLES,
    UNIFIED_EVENTS,
    analytics_asset,
    heap_asset,
    is_heap_table,
    is_model,
    is_sync,
    is_warehouse_table,
    model_asset,
    signal_asset,
    source_of,
    sync_asset,
    sync_name,
    warehouse_asset,
    warehouse_table,
)

READABLE = "readable"
_HOLES = 7
_FORGOTTEN = timedelta(days=31)
_LATELY = timedelta(minutes=10)
_TOO_FEW = 3
_BROKEN = (SyncStatus.STOPPED, SyncStatus.REFUSED, SyncStatus.BLOCKED, SyncStatus.KILLED)


def days_due(project: Project) -> dict[str, set[date]]:
    """Return asset to the days that are to be built, read or sent now."""
    due = {**unbuilt_days(project), **unbuilt_people(project), **unbuilt_unified_days(project)}
    for asset, days in (*unread_tables(project).items(), *first_runs(project).items()):
        due[asset] = set(days)
    if day := graph_is_due(project):
        due |= {asset: {day} for asset in RESOLVED}
    graphs = set(project.lake.partitions(GRAPH))
    for asset in (PROFILES, AUDIT, REVIEW, AUDIENCES):
        newest = max(graphs, default=None)
        if newest and newest not in project.lake.partitions(asset):
            due[asset] = {date.fromisoformat(newest)}
    return due


@dataclass(frozen=True)
class Backlog:
    """Remaining work (dumps or days), and the units finished per minute over ten minutes; None below three units."""

    left: int
    per_minute: float | None

    @property
    def remaining(self) -> timedelta | None:
        """The time that the remaining work takes at that rate."""
        return timedelta(minutes=self.left / self.per_minute) if self.left and self.per_minute else None


def backlog(left: int, done_at: Iterable[datetime]) -> Backlog:
    """Return a backlog of `left` units, with the rate by the times (UTC, wall clock) at which others were finished."""
    now = datetime.now(UTC)
    lately = [moment for moment in done_at if now - moment < _LATELY]
    if len(lately) < _TOO_FEW:
        return Backlog(left, None)
    return Backlog(left, len(lately) / max((now - min(lately)) / timedelta(minutes=1), 1 / 60))


def dump_backlog(project: Project, pending: int) -> Backlog:
    """Return the backlog of `pending` dumps."""
    landed = [
        max((table.landed_at for table in record.tables.values() if table.landed_at), default=None)
        for record in project.landing.records().values()
    ]
    return backlog(pending, (moment for moment in landed if moment))


def build_backlog(project: Project, assets: Iterable[AssetStatus]) -> Backlog:
    """Return the backlog of days of event tables to build."""
    snapshots = {heap_asset(table) for table in SNAPSHOT_TABLES}
    left = sum(status.days_due for status in assets if is_heap_table(status.asset) and status.asset not in snapshots)
    results = project.lake.store.list(f"{result_store.ROOT}/{HEAP}") if left else []
    return backlog(left, (info.last_modified for info in results if f"/{READABLE}/" in info.key))


def newest_results(project: Project) -> dict[str, list[StoredResult]]:
    """Return asset to the newest result of each check; of `readable`, whose failure leaves a gap, the last seven days'.

    Checks that the settings no longer have stop counting a month after their last result.
    """
    partitions: dict[tuple[str, str], list[str]] = {}
    for info in project.lake.store.list(result_store.ROOT):
        asset, check, partition = result_store.parts(info.key)
        if asset:
            partitions.setdefault((asset, check), []).append(partition)
    keys = [
        result_store.object_key(asset, check, partition)
        for (asset, check), days in partitions.items()
        for partition in sorted(days)[-_HOLES if check == READABLE else -1 :]
    ]
    results = result_store.read_keys(project.lake.store, keys)
    oldest = max((result.judged_at for result in results), default=clock.now()) - _FORGOTTEN
    by_asset: dict[str, list[StoredResult]] = {}
    for result in results:
        if result.judged_at >= oldest:
            by_asset.setdefault(result.asset, []).append(result)
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
    """Return the syncs whose last run failed, with the reason."""
    return {
        asset: f"its last run ended as {run['status']}: {run['reason'] or 'no reason is known'}"
        for asset, run in last.items()
        if run["status"] in _BROKEN
    }


def newest_day(project: Project, asset: str, results: Sequence[StoredResult]) -> tuple[str | None, datetime | None]:
    """Return the newest day of an asset and when it was written; of a sync, the newest that was delivered."""
    if is_sync(asset):
        sent = [v for v in results if v.check == "delivered" and v.passed]
        return (sent[-1].partition, sent[-1].judged_at) if sent else (None, None)
    stored: list[ObjectInfo] = [
        i for i in project.lake.store.list(f"{asset}/") if i.key.count("/") == asset.count("/") + 1
    ]
    if not stored:
        return None, None
    return stored[-1].key.rpartition("/")[2].removesuffix(".parquet"), stored[-1].last_modified


def next_scheduled(project: Project, asset: str) -> datetime | None:
    """Return when the schedule of an asset ticks next (UTC), None without a schedule that runs."""
    if project.settings.run.automation != "running":
        return None
    if is_warehouse_table(asset):
        if project.settings.source_tables[warehouse_table(asset)].upstream:
            return None
        return next_tick(project.settings.read_schedule(source_of(asset)))
    if is_sync(asset) and project.settings.sync[sync_name(asset)].scheduled:
        return next_tick(str(project.settings.sync_schedule(sync_name(asset))))
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


class State(StrEnum):
    """The state of an asset; of several the first that applies."""

    RUNNING = "running"
    FAILED = "failed"
    WAITING = "waiting"
    PENDING = "pending"
    NOT_JUDGED = "not judged"
    NOT_ASKED = "not asked"
    """By the records in the lake all of a table was published; whether the target still has it is not known."""
    OK = "ok"


@dataclass(frozen=True)
class Activity:
    """The newest run of an asset in Dagster: `queued`, `running` or `failed`; none if it succeeded."""

    state: str
    run_id: str


@dataclass(frozen=True)
class AssetStatus:
    """The state of one asset."""

    asset: str
    state: State
    newest_day: str | None = None
    written_at: datetime | None = None
    """`newest_day` and `written_at`: The newest partition in the lake, and when it was last written (UTC)."""
    days_due: int = 0
    """Days that are to be built, read, sent or published."""
    reason: str = ""
    """Why it is not ok: what failed, what it waits for."""
    until: datetime | None = None
    next_at: datetime | None = None
    """`until` and `next_at`: When the wait ends, if that is known; when its schedule ticks next (UTC)."""
    last_at: datetime | None = None
    last: str = ""
    """`last_at` and `last`: Of warehouse tables the last read; of syncs the last run, and how it ended, with the rows
    that were sent; of published tables when `newest_day` was published."""
    failed_checks: Sequence[str] = ()
    not_judged: Sequence[str] = ()


@dataclass(frozen=True)
class _Snapshot:
    """Facts about all assets, read once."""

    waits: Mapping[str, Wait]
    due: Mapping[str, set[date]]
    results: Mapping[str, list[StoredResult]]
    broken: Mapping[str, str]
    runs: Mapping[str, Mapping[str, Any]]
    activity: Mapping[str, Activity] = field(default_factory=dict)


def asset_statuses(project: Project, activity: Mapping[str, Activity] | None = None) -> list[AssetStatus]:
    """Return the state of every asset, in the order of the pipeline: tables, identity, profiles, syncs, targets.

    `activity` has asset to its newest run in Dagster; without, nothing is running and no run has failed.
    """
    waits_by_asset = {wait.asset: wait for wait in waits(project)}
    if GRAPH in waits_by_asset:
        waits_by_asset |= dict.fromkeys(RESOLVED, waits_by_asset[GRAPH])
    runs = last_runs(project)
    snapshot = _Snapshot(
        waits_by_asset,
        days_due(project),
        newest_results(project),
        {**not_landed(project), **not_sent(runs)},
        runs,
        activity or {},
    )
    statuses = [_of_lake(project, asset, snapshot) for asset in _assets(project)]
    return [*statuses, *_published(project, snapshot)]


def shown_assets(project: Project) -> list[str]:
    """Return the assets of :func:`asset_statuses`."""
    published = [table.asset for target in project.settings.publish for table in published_tables(project, target)]
    return [*_assets(project), *published]


def _assets(project: Project) -> list[str]:
    warehouse = project.settings.source_tables
    audiences = [AUDIENCES] if project.settings.profiles.audiences else []
    audiences += project.settings.account_assets
    audiences += [signal_asset(name) for name in project.settings.signals]
    audiences += [analytics_asset(name) for name in project.settings.analytics]
    audiences += [model_asset(name) for name in project.settings.models]
    return [
        *(heap_asset(table) for table in (*SNAPSHOT_TABLES, *project.event_tables)),
        *(warehouse_asset(name) for name in warehouse if not is_model(name)),
        *(*RESOLVED, REVIEW, PROFILES, AUDIT, *audiences),
        *([UNIFIED_EVENTS] if project.settings.unified_events else []),
        *(sync_asset(name) for name in project.settings.sync),
    ]


def _of_lake(project: Project, asset: str, snapshot: _Snapshot) -> AssetStatus:
    results = snapshot.results.get(asset, [])
    failed = [v for v in results if v.failed and v.severity is Severity.ERROR]
    unjudged = [v for v in results if v.not_judged and not v.passed]
    newest, written_at = newest_day(project, asset, results)
    due = len(snapshot.due.get(asset, ()))
    state, reason = _state(asset, snapshot, failed, unjudged, due, built=newest is not None)
    wait = snapshot.waits.get(asset)
    return AssetStatus(
        asset,
        state,
        newest,
        written_at,
        due,
        reason,
        wait.until if wait and state is State.WAITING else None,
        next_scheduled(project, asset),
        *last_time(project, asset, snapshot.runs),
        tuple(f"{v.check} {v.partition}" for v in failed),
        tuple(f"{v.check} {v.partition}" for v in unjudged),
    )


def _state(
    asset: str,
    snapshot: _Snapshot,
    failed: Sequence[StoredResult],
    unjudged: Sequence[StoredResult],
    due: int,
    *,
    built: bool,
) -> tuple[State, str]:
    activity, wait = snapshot.activity.get(asset), snapshot.waits.get(asset)
    if activity is not None and activity.state == "running":
        return State.RUNNING, f"run {activity.run_id[:8]}"
    # a sync that waits for confirmation has failed its check of delivery for no other reason
    if failed and not (wait and is_sync(asset)):
        text = "; ".join(map(_failure, failed[:3]))
        return State.FAILED, text + (f"; and {len(failed) - 3} more" if len(failed) > 3 else "")
    if asset in snapshot.broken:
        return State.FAILED, snapshot.broken[asset]
    if activity is not None and activity.state == "failed" and wait is None:
        return State.FAILED, f"its newest run failed: {activity.run_id[:8]} in the UI"
    if wait is not None:
        return State.WAITING, wait.reason
    if activity is not None or due or not built:
        queued = f"run {activity.run_id[:8]} is queued" if activity else ""
        return State.PENDING, queued or _due_in_words(asset, due)
    if unjudged:
        return State.NOT_JUDGED, "; ".join(f"{v.check} {v.partition}: {v.not_judged}" for v in unjudged[:3])
    return State.OK, ""


def _due_in_words(asset: str, due: int) -> str:
    verb = {"sync": "sent", "publish": "published"}.get(asset.partition("/")[0], "built")
    verb = "read" if is_warehouse_table(asset) else verb
    days = "1 day is" if due == 1 else f"{due} days are"
    return f"{days} to be {verb}" if due else f"nothing was {verb} yet"


def _failure(result: StoredResult) -> str:
    where = "" if result.partition == result_store.ALL_PARTITIONS else f" on {result.partition}"
    reason = str(result.notes.get("reason", ""))
    return f"check {result.check} failed{where}{f': {reason}' if reason else ''}"


def _published(project: Project, snapshot: _Snapshot) -> Iterator[AssetStatus]:
    """Yield the published tables by the records of what was published: `not asked` where by them all is well."""
    for target in project.settings.publish:
        try:
            publisher = open_publisher(project, target)
            tables = published_tables(project, target)
        except HeapAssetsError as error:
            yield AssetStatus(f"publish/{target}", State.FAILED, reason=str(error))
            continue
        for table in tables:
            published_on, at = last_published(publisher, table)
            due = len(unpublished_days(project, publisher, table))
            state, reason = _state(table.asset, snapshot, (), (), due, built=published_on is not None)
            yield AssetStatus(
                table.asset,
                State.NOT_ASKED if state is State.OK else state,
                str(published_on) if published_on else None,
                days_due=due,
                reason=reason,
                last_at=at,
                last="published" if at else "",
            )
