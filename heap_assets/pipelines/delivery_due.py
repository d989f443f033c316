"""Which days of a sync are due: what a schedule asks for."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from datetime import date, timedelta

from heap_assets import clock
from heap_assets.config import sync as kinds
from heap_assets.pipelines.delivery_destinations import ledger_folder
from heap_assets.pipelines.delivery_gate import table_gate
from heap_assets.pipelines.delivery_since import since_of
from heap_assets.pipelines.delivery_tables import Forwarding
from heap_assets.project import Project
from heap_assets.storage import Store, state_keys
from heap_assets.tables import PROFILES, USERS, heap_asset, warehouse_asset

_log = logging.getLogger("heap_assets.delivery")

_LATE_DAYS = 31
"""How far back events of Heap are looked for that landed late; older days are sent by a backfill."""


@dataclass(frozen=True)
class SentDay:
    """What was last delivered of a day of a table: its version, and rows that are still to be answered or taken."""

    version: str
    unfinished: int = 0


def due_days(project: Project, name: str) -> list[date]:
    """Return the days that a scheduled run sends: the newest there is, and of Heap's events all that are new."""
    sync = project.settings.sync[name]
    if isinstance(sync, kinds.SegmentTrack):
        return _due_days_of_events(project, name, sync)
    newest = newest_day(project, name)
    return [] if newest is None else [newest]


def newest_day(project: Project, name: str) -> date | None:
    """Return the newest day on which everything that a sync reads by day is there; None if there is none."""
    past = [day for day in built_days(project, name) if day <= str(clock.today())]
    return date.fromisoformat(max(past)) if past else None


def built_days(project: Project, name: str) -> set[str]:
    """Return the days of which everything that a sync reads by day is there, of Heap's events at least one table."""
    sync, lake = project.settings.sync[name], project.lake
    if isinstance(sync, kinds.SegmentTrack):
        tables = [heap_asset(table) for table in Forwarding(project, name, sync).tables]
        return {day for asset in tables for day in lake.partitions(asset)}
    return set.intersection(*(set(lake.partitions(asset)) for asset in read_by_day(project, name)))


def read_by_day(project: Project, name: str) -> list[str]:
    """Return the assets of which a sync reads the very day that it sends; not for Heap's events."""
    sync = project.settings.sync[name]
    own = {PROFILES: PROFILES, "heap": USERS}.get(sync.source) or warehouse_asset(sync.source)
    members = isinstance(sync, kinds.SegmentGroup) and sync.member_trait
    return [own, PROFILES] if members else [own]


def _due_days_of_events(project: Project, name: str, sync: kinds.SegmentTrack) -> list[date]:
    """Return days with a table that changed and may be sent; the newest one also if it may not, so that it is told."""
    since = since_of(project, name)
    oldest = max(clock.today() - timedelta(days=_LATE_DAYS), since.date() if since else date.min)
    due: dict[str, list[str]] = {}
    forwarding = Forwarding(project, name, sync)
    for table in forwarding.tables:
        known = known_days(project, name, table)
        for day, version in project.lake.versions(heap_asset(table)).items():
            in_time = str(oldest) <= day <= str(clock.today())
            if in_time and SentDay(forwarding.version(version)) != known.get(day):
                due.setdefault(day, []).append(table)
    return sorted(
        date.fromisoformat(day)
        for day, tables in due.items()
        if day == max(due) or any(not table_gate(project, heap_asset(table), day) for table in tables)
    )


def known_days(project: Project, name: str, table: str) -> dict[str, SentDay]:
    """Return day to what was last delivered of it, of one table of `segment_track`."""
    prefix = f"{state_keys.SYNC}/{ledger_folder(project, name, table)}/days/"
    store = project.lake.store
    found = {info.key.removeprefix(prefix): _sent_day(store, info.key) for info in store.list(prefix)}
    return {day: sent for day, sent in found.items() if sent is not None}


def _sent_day(store: Store, key: str) -> SentDay | None:
    try:
        return SentDay(**json.loads(store.read(key)))
    except (ValueError, TypeError):
        _log.warning("%s is damaged: the day is due again, and what was sent of it is not sent twice", store.uri(key))
        return None


def remember_day(project: Project, name: str, table: str, day: date, sent: SentDay) -> None:
    """Write down what was delivered of a table's day, so that one that changes later shows."""
    key = f"{state_keys.SYNC}/{ledger_folder(project, name, table)}/days/{day}"
    project.lake.store.write(key, json.dumps(asdict(sent)).encode())
