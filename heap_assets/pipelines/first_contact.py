"""What a new deployment does without waiting for its schedules: read the warehouse, and send for the first time."""

from __future__ import annotations

from datetime import date, datetime, timedelta

from croniter import croniter  # type: ignore[import-untyped]

from heap_assets import clock
from heap_assets.identity import EMAIL, HEAP_IDENTITY, identity_values
from heap_assets.pipelines.sync_checks import unknown_destinations
from heap_assets.pipelines.sync_gate import sync_gate
from heap_assets.pipelines.sync_schedule import has_run, newest_day, waits_for_confirmation, was_shown
from heap_assets.project import Project
from heap_assets.quality import result_store
from heap_assets.tables import USERS, source_of, sync_asset, warehouse_asset


def identity_proposal(project: Project) -> str | None:
    """Return one sentence if many Heap identities are email addresses that nothing maps to emails; else None.

    The newest `heap/users` is looked at; before it is built there is nothing to judge by.
    """
    days = project.lake.partitions(USERS)
    mapped = {mapping.type for mapping in project.snapshot_sources[USERS].mappings if mapping.columns == ("identity",)}
    if not days or EMAIL in mapped or EMAIL not in project.rules.types:
        return None
    identities = project.lake.scan(USERS, days[-1]).select("identity").collect()["identity"]
    values = identity_values(identities)
    return values.summary if values.types != (HEAP_IDENTITY,) else None


_GRACE = timedelta(minutes=15)
"""How long the schedule has for itself before its time counts as missed."""


def unread_tables(project: Project) -> dict[str, list[date]]:
    """Return warehouse table to the newest complete day, if it must be read without waiting for the schedule.

    That is so for a table that has never been read, and for one that nobody read when its time had come. A read that
    was tried and failed is not asked for again: the schedule does that.
    """
    settings, day = project.settings, clock.newest_complete_day()
    if day < settings.start_date:
        return {}
    unread = {}
    for asset in map(warehouse_asset, settings.source_tables):
        known = project.lake.partitions(asset)
        is_missed = _last_tick(settings.read_schedule(source_of(asset))).date() > day
        is_due = not known or (is_missed and str(day) not in known)
        if is_due and not project.lake.store.exists(f"{result_store.ROOT}/{asset}/readable/{day}.json"):
            unread[asset] = [day]
    return unread


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
    """Return when a schedule last had its turn, leaving it some minutes to take it."""
    tick: datetime = croniter(cron, clock.now() - _GRACE).get_prev(datetime)
    return tick
