"""Assets that wait, for what and until when; the first reads and runs of a new deployment. Reads the lake alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from croniter import croniter  # type: ignore[import-untyped]

from heap_assets import clock
from heap_assets.activation import Status as SyncStatus
from heap_assets.activation import connector_of, runs
from heap_assets.identity import EMAIL, HEAP_IDENTITY, identity_values
from heap_assets.pipelines import exports
from heap_assets.pipelines.landing import stopped_by_quota
from heap_assets.pipelines.readiness import identity_inputs
from heap_assets.pipelines.sync_checks import unknown_destinations
from heap_assets.pipelines.sync_gate import (
    confirmation_hint,
    due_days,
    has_run,
    newest_day,
    sync_gate,
    waits_for_confirmation,
    was_shown,
)
from heap_assets.project import Project
from heap_assets.quality import result_store
from heap_assets.tables import (
    AUDIENCES,
    AUDIT,
    DUMPS,
    GRAPH,
    PROFILES,
    REVIEW,
    SNAPSHOT_TABLES,
    USERS,
    heap_asset,
    source_of,
    sync_asset,
    warehouse_asset,
)

_SHOWN = 5
_COUNTERS = re.compile(r"\d+ (days|more|dumps)\b")


@dataclass(frozen=True)
class Wait:
    """An asset that is not up to date yet, why, and until when (UTC) if that is known."""

    asset: str
    reason: str
    until: datetime | None = None

    def __str__(self) -> str:
        return f"{self.reason}, until {self.until:%Y-%m-%d %H:%M} UTC" if self.until else self.reason

    @property
    def cause(self) -> str:
        """The reason without its counters, which change while the wait stays the same."""
        return _COUNTERS.sub("", str(self))


def waits(project: Project) -> list[Wait]:
    """Return all waits, in the order of the pipeline; empty if everything is up to date or being built."""
    warehouse = list(_warehouse(project))
    people = [*dump_waits(project), *_snapshots(project), *warehouse]
    identity = list(_identity(project, {wait.asset: wait for wait in people}))
    return [*people, *identity, *_syncs(project)]


def next_tick(cron: str) -> datetime:
    """Return when a schedule ticks next (UTC)."""
    tick: datetime = croniter(cron, clock.now()).get_next(datetime)
    return tick


def dump_waits(project: Project) -> Iterator[Wait]:
    """Yield why dumps, or tables of them, do not land now: the quota of the month, or the back-off after a failure."""
    if exports.is_exported(project):
        return
    if full := stopped_by_quota(project):
        until = datetime.combine(full.resumes, time.min, UTC)
        yield Wait(DUMPS, f"the month's quota of {full.limit:,} rows is used up and heap.quota.stop is set", until)
        return
    retries: dict[str, datetime | None] = {}
    for record in project.landing.records().values():
        if record.failure is not None:
            retries[f"manifest of dump {record.dump_id}"] = record.retry_at
        for name, table in record.tables.items():
            if table.failure is not None and project.landing.config.tables.takes_table(name):
                retries[f"{name} of dump {record.dump_id}"] = table.retry_at
    retries_ahead = {
        subject: moment for subject, moment in retries.items() if moment is not None and moment > clock.now()
    }
    if retries_ahead:
        reason = f"what could not be landed is tried again by itself: {_some(list(retries_ahead))}"
        yield Wait(DUMPS, reason, min(retries_ahead.values()))


def _snapshots(project: Project) -> Iterator[Wait]:
    """Yield Heap's users and migrations while no dump has brought them; an export always has them."""
    if exports.is_exported(project):
        return
    landed = {
        name
        for record in project.landing.records().values()
        for name, table in record.tables.items()
        if table.landed_at is not None
    }
    for table in SNAPSHOT_TABLES:
        if table not in landed and not project.landing.lacks(table):
            why = f"no dump that has landed holds {table}" if landed else "no dump has landed yet"
            yield Wait(heap_asset(table), why)


def _warehouse(project: Project) -> Iterator[Wait]:
    """Yield the tables that wait for the schedule to read the newest complete day."""
    settings, day = project.settings, clock.newest_complete_day()
    if day < settings.first_day:
        return
    unread = unread_tables(project)
    for name, table in settings.read_tables.items():
        asset = warehouse_asset(name)
        if asset in unread or str(day) in project.lake.partitions(asset):
            continue
        last_attempt = result_store.read(project.lake.store, asset, "readable", str(day))
        if table.upstream:
            trigger = f"when {'/'.join(table.upstream)} materializes"
            if last_attempt:
                yield Wait(asset, f"{day} could not be read; it is read again {trigger}")
            else:
                yield Wait(asset, f"{day} is read {trigger}; without that as it stands then", upstream_deadline())
            continue
        schedule = f"the schedule read_{source_of(asset)}"
        why = f"{day} could not be read; {schedule} reads it again" if last_attempt else f"{schedule} reads {day}"
        yield Wait(asset, why, next_tick(settings.read_schedule(source_of(asset))))


def _identity(project: Project, upstream_waits: dict[str, Wait]) -> Iterator[Wait]:
    """Yield the graph of the newest complete day while it lacks inputs, and the tables that depend on it."""
    day = clock.newest_complete_day()
    if day < project.settings.first_day or str(day) in project.lake.partitions(GRAPH):
        return
    missing = identity_inputs(project, day).waiting_for
    if not missing:
        return
    moments = [
        wait.until for asset, wait in upstream_waits.items() if wait.until and any(asset in why for why in missing)
    ]
    until = max(moments, default=None)
    yield Wait(GRAPH, f"the graph of {day} waits: {_some(missing)}", until)
    for asset in (PROFILES, AUDIT, REVIEW, *([AUDIENCES] if project.settings.profiles.audiences else [])):
        yield Wait(asset, f"{GRAPH} {day} is not resolved", until)


def _syncs(project: Project) -> Iterator[Wait]:
    for name, sync in project.settings.sync.items():
        asset = sync_asset(name)
        if waits_for_confirmation(project, name) and was_shown(project, name):
            yield Wait(asset, f"nothing was ever sent to this destination: {confirmation_hint(name)}")
            continue
        if question := _question(project, name):
            yield Wait(asset, f"its last run asks for confirmation ({question}): {confirmation_hint(name)}")
            continue
        day = newest_day(project, name)
        if day is None:
            read = ["a table of events"] if sync.by_table else connector_of(project, name).read_by_day()
            yield Wait(asset, f"{' and '.join(read)} has not been built yet")
        elif not sync.scheduled:
            if not has_run(project, name):
                yield Wait(asset, f"it has no schedule and never ran: `heap-assets sync run {name}`")
        elif not has_run(project, name):
            if shut := sync_gate(project, name, day):
                yield Wait(asset, f"its first run waits: {_some(shut)}")
        elif _is_due(project, name, day):
            yield Wait(
                asset, f"the schedule send_{name} sends {day}", next_tick(str(project.settings.sync_schedule(name)))
            )


def _question(project: Project, name: str) -> str:
    """Return why the last run of a sync asked for confirmation; nothing if it did not."""
    if project.settings.sync[name].by_table:
        return ""
    last = runs(project.lake.store, connector_of(project, name).ledger_folder(), last=1)
    asks = last.height and last["status"][0] == SyncStatus.NEEDS_CONFIRMATION
    return str(last["reason"][0] or "an unusual number of changes") if asks else ""


def _is_due(project: Project, name: str, day: date) -> bool:
    """Return whether no run has evaluated the day yet; of Heap's events, whether any day is due."""
    if project.settings.sync[name].by_table:
        return bool(due_days(project, name))
    return result_store.read(project.lake.store, sync_asset(name), "delivered", str(day)) is None


def _some(reasons: list[str]) -> str:
    return "; ".join(reasons[:_SHOWN]) + (f"; and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else "")


def identity_proposal(project: Project) -> str | None:
    """Return one sentence if many identities of the newest `heap/users` are emails that nothing maps; else None."""
    days = project.lake.partitions(USERS)
    mapped = {mapping.type for mapping in project.snapshot_sources[USERS].mappings if mapping.columns == ("identity",)}
    if not days or EMAIL in mapped or EMAIL not in project.rules.types:
        return None
    identities = project.lake.scan(USERS, days[-1]).select("identity").collect()["identity"]
    values = identity_values(identities)
    return values.summary if values.types != (HEAP_IDENTITY,) else None


_GRACE = timedelta(minutes=15)
"""How long after its tick a schedule counts as missed."""


def unread_tables(project: Project) -> dict[str, list[date]]:
    """Return warehouse table to the newest complete day, if it must be read without waiting for the schedule.

    That is a table that has never been read, or one whose scheduled read was missed. One with an `upstream` is due at
    the :func:`upstream_deadline`. A read that failed is left to the schedule, or to the next update of its upstream.
    """
    settings, day = project.settings, clock.newest_complete_day()
    if day < settings.first_day:
        return {}
    unread = {}
    for name, table in settings.read_tables.items():
        asset = warehouse_asset(name)
        partitions = project.lake.partitions(asset)
        if table.upstream:
            is_due = str(day) not in partitions and clock.now() >= upstream_deadline()
        else:
            is_missed = _last_tick(settings.read_schedule(source_of(asset))).date() > day
            is_due = not partitions or (is_missed and str(day) not in partitions)
        if is_due and not _was_tried(project, asset, day):
            unread[asset] = [day]
    return unread


def never_read_upstreams(project: Project) -> dict[str, list[date]]:
    """Return tables with an `upstream` that have no day yet, to the newest complete day, unless reading it failed."""
    settings, day = project.settings, clock.newest_complete_day()
    tables = [warehouse_asset(name) for name, table in settings.read_tables.items() if table.upstream]
    return {
        asset: [day]
        for asset in tables
        if day >= settings.first_day and not project.lake.partitions(asset) and not _was_tried(project, asset, day)
    }


def upstream_deadline() -> datetime:
    """Return when today (UTC) a table is read although its `upstream` did not materialize: at noon.

    Until then a dump of the night counts as yesterday's (design.md, Heap tables); identity would wait for ever for a
    model that is built once a week.
    """
    return datetime.combine(clock.today(), time(12), UTC)


def _was_tried(project: Project, asset: str, day: date) -> bool:
    return project.lake.store.exists(f"{result_store.ROOT}/{asset}/readable/{day}.json")


def first_runs(project: Project) -> dict[str, list[date]]:
    """Return sync to the day of its first run, if it never ran, has a schedule, and may send that day."""
    first = {}
    unknown = unknown_destinations(project)
    for name, sync in project.settings.sync.items():
        if not sync.scheduled or sync.by_table or name in unknown:
            continue  # the events of every day are due: the schedule asks for all of them
        day = newest_day(project, name)
        if day is None or has_run(project, name):
            continue
        if waits_for_confirmation(project, name) and was_shown(project, name):
            continue
        if not sync_gate(project, name, day):
            first[sync_asset(name)] = [day]
    return first


def _last_tick(cron: str) -> datetime:
    """Return the last tick of a schedule that is at least `_GRACE` ago."""
    tick: datetime = croniter(cron, clock.now() - _GRACE).get_prev(datetime)
    return tick
