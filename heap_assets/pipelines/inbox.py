"""Tables of the inbox: days of messages, and who identified and grouped themselves up to a day."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import polars as pl

from heap_assets import clock
from heap_assets.errors import MissingInputError
from heap_assets.pipelines.catalogue import columns_since
from heap_assets.pipelines.functions import transformed, with_function
from heap_assets.pipelines.readiness import last_attempts
from heap_assets.pipelines.table import ERASED, BuiltTable, Table, Task, check_is_kept
from heap_assets.project import Project, without_erased
from heap_assets.sources.inbox import (
    InboxDay,
    Part,
    build_message_day,
    day_inputs,
    fold_accounts,
    fold_users,
    parts_by_day,
    parts_version,
    stored_parts,
)
from heap_assets.storage import Inputs
from heap_assets.tables import INBOX_ACCOUNTS, INBOX_USERS, inbox_asset
from heap_assets.versions import version_of

_IDENTIFY, _GROUP = inbox_asset("identify"), inbox_asset("group")
_FOLDED_FROM = {INBOX_USERS: (_IDENTIFY, _GROUP), INBOX_ACCOUNTS: (_GROUP,)}
_MARGIN = timedelta(minutes=10)
"""Parts that came so long before the last attempt at a day are in it: several machines' clocks differ by less."""
_NEVER = datetime.min.replace(tzinfo=UTC)


def message_day(task: Task, asset: str) -> Table:
    """Return a day of a table of messages, as its function makes it."""
    check_is_kept(task.project, asset, task.day)
    return transformed(task, asset, untransformed_day(task, asset))


def untransformed_day(task: Task, asset: str) -> InboxDay:
    """Return a day of a table of messages before its function, without erased people."""
    inbox = task.project.settings.inbox
    assert inbox is not None
    table = task.project.message_tables[asset]
    built = build_message_day(task.project.lake.store, table, task.day, timedelta(hours=inbox.ahead_hours))
    rows, erased = without_erased(task.project, asset, built.frame)
    return replace(built, frame=rows, notes={**built.notes, ERASED: erased} if erased else built.notes)


def message_inputs(project: Project, asset: str, day: date) -> Inputs:
    """Return what a day of a table of messages would be built from now."""
    return with_function(project, asset, day_inputs(project.lake.store, project.message_tables[asset], day))


def folded_day(task: Task, asset: str) -> Table:
    """Return who identified themselves, or the accounts, as of the end of a day.

    Raises
    ------
    MissingInputError
        If no day of a table that it is folded from is built.
    """
    project, day = task.project, task.day
    rows = {source: _rows_until(project, source, day) for source in _FOLDED_FROM[asset]}
    if asset == INBOX_ACCOUNTS:
        frame = fold_accounts(rows[_GROUP], _columns(project, _GROUP))
    else:
        frame = fold_users(rows[_IDENTIFY], rows[_GROUP], _columns(project, _IDENTIFY))
    return BuiltTable(frame, folded_inputs(project, asset, day), {"observed": True})


def _columns(project: Project, asset: str) -> list[str]:
    return project.message_tables[asset].own_columns


def _rows_until(project: Project, asset: str, day: date) -> pl.LazyFrame:
    days = _days_until(project, asset, day)
    if not days:
        raise MissingInputError(f"{asset} has no day up to {day}: nothing was posted, or it is not built yet")
    schema = project.message_tables[asset].schema
    return project.lake.scan(asset, days, schema=schema).drop("body")


def _days_until(project: Project, asset: str, day: date) -> list[str]:
    first = str(project.settings.start_date)
    return [key for key in project.lake.partitions(asset) if first <= key <= str(day)]


def folded_inputs(project: Project, asset: str, day: date) -> Inputs:
    """Return what a folded table would be built from now."""
    versions = {
        f"{source}@{key}": version
        for source in _FOLDED_FROM[asset]
        for key, version in project.lake.versions(source).items()
        if str(project.settings.start_date) <= key <= str(day)
    }
    columns = [project.message_tables[source].version for source in _FOLDED_FROM[asset]]
    return Inputs({**versions, "columns": version_of(columns)})


def newest_messages(project: Project) -> str:
    """Return a version of all messages, late ones of earlier days too; empty without any."""
    tables = project.message_tables.values()
    parts = [part for table in tables for part in stored_parts(project.lake.store, table.name)]
    return parts_version(parts) if parts else ""


def unbuilt_inbox_days(project: Project) -> dict[str, set[date]]:
    """Return the tables of the inbox with their days whose messages are others than those that were built.

    The running day is built anew every `inbox.rebuild_seconds` while messages come. Quiet tables get empty days.
    """
    inbox = project.settings.inbox
    if inbox is None:
        return {}
    parts = {asset: parts_by_day(project.lake.store, table.name) for asset, table in project.message_tables.items()}
    start = project.settings.first_day
    posted_days = [day for by_day in parts.values() for day in by_day if start <= day <= clock.today()]
    if not posted_days:
        return {}
    every = [min(posted_days) + timedelta(days=n) for n in range((clock.today() - min(posted_days)).days + 1)]
    unbuilt = {asset: set(_due(project, asset, parts[asset], every)) for asset in parts}
    for asset in _FOLDED_FROM:
        unbuilt[asset] = set(_folded_due(project, asset))
    return {asset: days for asset, days in unbuilt.items() if days}


def _due(project: Project, asset: str, parts: dict[date, list[Part]], every: list[date]) -> Iterator[date]:
    lake, since = project.lake, columns_since(project).get(asset, _NEVER)
    stored, attempts = lake.partitions(asset), last_attempts(project, asset)
    for day in every:
        tried = attempts.get(str(day), _NEVER)
        if str(day) not in stored:
            if tried == _NEVER or _newest(parts, day) > tried:
                yield day
            continue
        if _rests(project, day, tried) or max(_newest(parts, day) + _MARGIN, since) < tried:
            continue
        partition = lake.find(asset, str(day))
        if partition is None or partition.inputs.versions != dict(message_inputs(project, asset, day).versions):
            yield day


def _newest(parts: dict[date, list[Part]], day: date) -> datetime:
    both = [*parts.get(day, ()), *parts.get(day - timedelta(days=1), ())]
    return max((part.info.last_modified for part in both), default=_NEVER)


def _rests(project: Project, day: date, tried: datetime) -> bool:
    """Return whether the running day was built lately enough."""
    assert project.settings.inbox is not None
    pause = timedelta(seconds=project.settings.inbox.rebuild_seconds)
    return day == clock.today() and datetime.now(UTC) - tried < pause


def _folded_due(project: Project, asset: str) -> Iterator[date]:
    attempts = last_attempts(project, asset)
    for day in (clock.newest_complete_day(), clock.today()):
        if day < project.settings.start_date or not all(_days_until(project, s, day) for s in _FOLDED_FROM[asset]):
            continue
        inputs = folded_inputs(project, asset, day)
        partition = project.lake.find(asset, str(day))
        if partition is not None and partition.inputs.versions == dict(inputs.versions):
            continue
        newest = max(
            (info.last_modified for source in _FOLDED_FROM[asset] for info in project.lake.store.list(f"{source}/")),
            default=_NEVER,
        )
        if newest > attempts.get(str(day), _NEVER):
            yield day
