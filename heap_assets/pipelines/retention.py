"""Retention: days of snapshot-sized tables that are no longer kept (`keep:` in the settings; design.md, Storage)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date, timedelta

from heap_assets import clock
from heap_assets.pipelines.suites import required_checks
from heap_assets.project import Project
from heap_assets.quality import result_store
from heap_assets.storage import remove_scratch_folders
from heap_assets.tables import AUDIENCES, AUDIT, CONFLICTS, GRAPH, LINKS, PROFILES, SHARED

_MADE_OF_ALL = (LINKS, GRAPH, CONFLICTS, SHARED, PROFILES, AUDIENCES, AUDIT)
"""Tables that state each day how everything stood; `identity/changes` is history and stays."""
_TRIED = "readable"
_DAY_LENGTH = len("2026-01-01")


@dataclass(frozen=True)
class Expired:
    """A day of a table that is no longer kept."""

    asset: str
    partition: str


def expired(project: Project) -> list[Expired]:
    """Return the days that are older than `keep.snapshot_days` and no month ends.

    The newest day of a table always stays: it stands for the days after it. So do all days of a table that names
    people and has no record time: a link of it is as old as the first day that it stood on.
    """
    keep = project.settings.keep
    first = clock.today() - timedelta(days=keep.snapshot_days)
    return [
        Expired(asset, partition)
        for asset in _snapshots(project)
        for partition in sorted(_past(project.lake.partitions(asset), first, month_ends=keep.month_ends))
    ]


def forget(project: Project, days: Iterable[Expired]) -> Counter[str]:
    """Delete days and the results on them; return how many of each table went."""
    lake = project.lake
    by_asset: dict[str, set[str]] = {}
    for day in days:
        by_asset.setdefault(day.asset, set()).add(day.partition)
    for asset, partitions in by_asset.items():
        # Days last: what is stopped in between finds by the days that are left what it has still to do.
        for info in lake.store.list(f"{result_store.ROOT}/{asset}/"):
            if info.key.rpartition("/")[2].removesuffix(".json") in partitions:
                lake.store.delete(info.key)
        for partition in sorted(partitions):
            lake.delete(asset, partition)
    return Counter({asset: len(partitions) for asset, partitions in by_asset.items()})


def expired_results(project: Project) -> list[str]:
    """Return the results that nobody asks for any more: older than `keep.verdict_days`, on days that stand.

    Those stay that say more than how it was: whether a day was tried (`readable`), and whether anything may be sent
    from it (blocking rules). Results on dumps go by when they were given.
    """
    keep = project.settings.keep.verdict_days
    first, given = str(clock.today() - timedelta(days=keep)), clock.now() - timedelta(days=keep)
    awaited: dict[str, set[str]] = {}
    found = []
    for info in project.lake.store.list(result_store.ROOT):
        asset, check, partition = result_store.parts(info.key)
        old = partition < first if _is_day(partition) else partition.isdigit() and info.last_modified < given
        if not old or check == _TRIED:
            continue
        if asset not in awaited:
            awaited[asset] = set(required_checks(project, asset)) if _has_checks(project, asset) else set()
        if check not in awaited[asset]:
            found.append(info.key)
    return found


def delete_results(project: Project, keys: Iterable[str]) -> None:
    """Delete results."""
    for key in keys:
        project.lake.store.delete(key)


def tidy(project: Project) -> int:
    """Remove what killed processes left (partial files of the lake, scratch folders of this machine); count them."""
    return project.lake.store.tidy() + len(remove_scratch_folders())


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
        if key != newest and (day := date.fromisoformat(key)) < first and not (month_ends and _ends_month(day))
    }


def _ends_month(day: date) -> bool:
    return (day + timedelta(days=1)).day == 1
