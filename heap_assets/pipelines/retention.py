"""Retention: days of snapshots and of events that are no longer kept (`keep:` in the settings; design.md, Storage)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

import polars as pl

from heap_assets import clock
from heap_assets.pipelines.suites import required_checks
from heap_assets.project import Project
from heap_assets.quality import result_store
from heap_assets.sources.heap_connect import expired_rows, forget_before
from heap_assets.sources.inbox import stored_parts, stored_tables
from heap_assets.storage import remove_scratch_folders
from heap_assets.tables import (
    ACCOUNT_AUDIENCES,
    ACCOUNT_PROFILES,
    AUDIENCES,
    AUDIT,
    CONFLICTS,
    GRAPH,
    HEAP,
    INBOX,
    LINKS,
    PROFILES,
    RETENTION,
    REVIEW,
    SHARED,
    SIGNALS,
    UNIFIED_EVENTS,
    heap_asset,
    inbox_asset,
    is_kept_for_years,
)

_MADE_OF_ALL = (
    *(LINKS, GRAPH, CONFLICTS, SHARED, PROFILES, AUDIENCES, AUDIT, REVIEW),
    *(ACCOUNT_PROFILES, ACCOUNT_AUDIENCES),
)
"""Tables that hold a whole snapshot each day; `identity/changes` is history and is kept."""
_OF_EVENTS = (HEAP, INBOX, SIGNALS, UNIFIED_EVENTS)
"""What the paths of tables of events start with."""
_TRIED = "readable"
_DAY_LENGTH = len("2026-01-01")


SCHEMA: Final = pl.Schema(
    {
        "table": pl.String(),
        "oldest_day": pl.Date(),
        "days": pl.Int64(),
        "expired_days": pl.Int64(),
        "expired_sources": pl.Int64(),
    }
)


@dataclass(frozen=True)
class Expired:
    """A day of a table that is no longer kept."""

    asset: str
    partition: str


def expired(project: Project) -> list[Expired]:
    """Return the days that are older than `keep.snapshot_days` and no month ends.

    The newest day of a table is always kept, because later days are carried forward from it. So are all days of a table
    with identifiers and without a record time: its links are as old as the first day that has them.
    """
    keep = project.settings.keep
    first = clock.today() - timedelta(days=keep.snapshot_days)
    return [
        Expired(asset, partition)
        for asset in _snapshots(project)
        for partition in sorted(_past(project.lake.partitions(asset), first, month_ends=keep.month_ends))
    ]


def expired_events(project: Project) -> list[Expired]:
    """Return the days of tables of events, and of what is made of them by day, that are older than `keep.event_years`.

    Tables that the settings or the catalogue do not name any more are among them. Messages that say who people are,
    such as Segment's Identify, are no events.
    """
    first = project.settings.keep.events_from(clock.today())
    if first is None:
        return []
    return [
        Expired(asset, partition)
        for asset in _event_assets(project)
        for partition in project.lake.partitions(asset)
        if partition < str(first)
    ]


def expired_sources(project: Project) -> dict[str, int]:
    """Return what the days of :func:`expired_events` would be built from again: asset to rows that landed, or messages'
    files.
    """
    first = project.settings.keep.events_from(clock.today())
    if first is None:
        return {}
    landed = {heap_asset(one.table): one.rows + one.set_aside for one in expired_rows(project.landing, first)}
    return landed | {asset: len(keys) for asset, keys in _expired_parts(project, first).items()}


def retention_table(project: Project) -> pl.DataFrame:
    """Return what of each table is kept, and what has expired and is still there: :data:`SCHEMA`."""
    days = Counter(day.asset for day in [*expired(project), *expired_events(project)])
    sources = expired_sources(project)
    assets = sorted({*_snapshots(project), *_event_assets(project), *sources})
    rows = []
    for asset in assets:
        partitions = [key for key in project.lake.partitions(asset) if _is_day(key)]
        oldest = date.fromisoformat(partitions[0]) if partitions else None
        rows.append((asset, oldest, len(partitions), days.get(asset, 0), sources.get(asset, 0)))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def write_retention(project: Project) -> pl.DataFrame:
    """Write :func:`retention_table` as the table `privacy/retention` of the lake; returns it."""
    table = retention_table(project)
    project.lake.write(RETENTION, None, table)
    return table


def forget_sources(project: Project) -> None:
    """Delete what :func:`expired_sources` counts. It comes before the days: what is gone cannot be built again."""
    first = project.settings.keep.events_from(clock.today())
    if first is None:
        return
    forget_before(project.landing, first)
    for keys in _expired_parts(project, first).values():
        for key in keys:
            project.lake.store.delete(key)


@dataclass(frozen=True)
class Retained:
    """What a run of retention deleted, or would delete.

    Attributes
    ----------
    sources
        As :func:`expired_sources`.
    results
        Number of check results.
    leftovers
        Number of files and folders of killed processes; None if nothing was deleted.
    """

    days: list[Expired]
    sources: dict[str, int]
    results: int
    leftovers: int | None

    @property
    def counts(self) -> Counter[str]:
        """Days by asset."""
        return Counter(day.asset for day in self.days)


def retain(project: Project, *, dry_run: bool) -> Retained:
    """Delete what `keep` no longer asks for, and what killed processes left; `dry_run`: only say what that is."""
    sources = expired_sources(project)
    if not dry_run:
        forget_sources(project)
    days, results = [*expired(project), *expired_events(project)], expired_results(project)
    leftovers = None
    if not dry_run:
        forget(project, days)
        delete_results(project, results)
        leftovers = tidy(project)
    return Retained(days, sources, len(results), leftovers)


def _expired_parts(project: Project, first: date) -> dict[str, list[str]]:
    """Return the stored parts of messages of old days, by the asset of their table.

    The first day that is kept is built from those of the day before it, too.
    """
    keys: dict[str, list[str]] = {}
    for table in stored_tables(project.lake.store):
        asset = inbox_asset(table)
        if is_kept_for_years(asset):
            for part in stored_parts(project.lake.store, table):
                if part.day < first - timedelta(days=1):
                    keys.setdefault(asset, []).append(part.info.key)
    return keys


def _event_assets(project: Project) -> list[str]:
    """Return the stored tables that `keep.event_years` is about."""
    folders = {info.key.rpartition("/")[0] for root in _OF_EVENTS for info in project.lake.store.list(root)}
    return sorted(asset for asset in folders if is_kept_for_years(asset))


def forget(project: Project, days: Iterable[Expired]) -> Counter[str]:
    """Delete days and the results on them; return how many of each table went."""
    lake = project.lake
    by_asset: dict[str, set[str]] = {}
    for day in days:
        by_asset.setdefault(day.asset, set()).add(day.partition)
    for asset, partitions in by_asset.items():
        # Days last: after an interruption the days that are left show what is still to be deleted.
        for info in lake.store.list(f"{result_store.ROOT}/{asset}/"):
            if info.key.rpartition("/")[2].removesuffix(".json") in partitions:
                lake.store.delete(info.key)
        for partition in sorted(partitions):
            lake.delete(asset, partition)
    return Counter({asset: len(partitions) for asset, partitions in by_asset.items()})


def expired_results(project: Project) -> list[str]:
    """Return the keys of check results older than `keep.verdict_days`; those on dumps by the time they were stored.

    Results that are still read are kept: whether a build was attempted (`readable`), and those of blocking checks.
    """
    keep = project.settings.keep.verdict_days
    first, created_before = str(clock.today() - timedelta(days=keep)), clock.now() - timedelta(days=keep)
    required_by_asset: dict[str, set[str]] = {}
    keys = []
    for info in project.lake.store.list(result_store.ROOT):
        asset, check, partition = result_store.parts(info.key)
        old = partition < first if _is_day(partition) else partition.isdigit() and info.last_modified < created_before
        if not old or check == _TRIED:
            continue
        if asset not in required_by_asset:
            required_by_asset[asset] = set(required_checks(project, asset)) if _has_checks(project, asset) else set()
        if check not in required_by_asset[asset]:
            keys.append(info.key)
    return keys


def delete_results(project: Project, keys: Iterable[str]) -> None:
    """Delete the check results of :func:`expired_results`."""
    for key in keys:
        project.lake.store.delete(key)


def tidy(project: Project) -> int:
    """Remove what killed processes left (files of the lake that nothing reads, this machine's scratch); count them."""
    return project.lake.store.tidy() + project.lake.tidy_parts() + len(remove_scratch_folders())


def _has_checks(project: Project, asset: str) -> bool:
    return asset in project.sources or asset in _MADE_OF_ALL


def _is_day(partition: str) -> bool:
    return len(partition) == _DAY_LENGTH and partition[4] == "-"


def _snapshots(project: Project) -> list[str]:
    of_sources = [
        asset
        for asset, table in project.snapshot_sources.items()
        if table.time_column is not None or not table.mappings
    ]
    return [*of_sources, *_MADE_OF_ALL]


def _past(partitions: Collection[str], first: date, *, month_ends: bool) -> set[str]:
    newest = max(partitions, default="")
    return {
        key
        for key in partitions
        if key != newest
        and (day := date.fromisoformat(key)) < first
        and not (month_ends and (day + timedelta(days=1)).day == 1)
    }
