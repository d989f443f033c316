"""Days of Heap's tables: built from what landed, or read from Heap's export."""

from __future__ import annotations

from dataclasses import replace

from heap_assets.pipelines import exports
from heap_assets.pipelines.functions import transformed
from heap_assets.pipelines.table import UNREADABLE, Table, Task, without_left_out
from heap_assets.sources.heap_connect import build_event_day, build_user_migrations, build_users
from heap_assets.tables import USERS


def event_day(task: Task, table: str) -> Table:
    """Return a day of an event table, without the rows that the settings leave out, as its function makes it."""
    return transformed(task, table, without_left_out(task, table, _unfiltered_day(task, table)))


def _unfiltered_day(task: Task, table: str) -> Table:
    project = task.project
    if exports.is_exported(project):
        return exports.event_day(task, table)
    built = build_event_day(project.landing, table, task.day, project.catalogue.columns(table))
    records = project.landing.records()
    failed = [why for dump, why in built.notes["failed"].items() if records[dump].day == task.day]
    return replace(built, notes={**built.notes, UNREADABLE: failed[-1]}) if failed else built


def users_of_day(task: Task) -> Table | None:
    """Return Heap's users as they stood at the end of a day; None if the day's partition is kept."""
    if exports.is_exported(task.project):
        return exports.users_of_day(task)
    project = task.project
    return build_users(project.landing, task.day, project.catalogue.columns("users"), lake=project.lake, asset=USERS)


def migrations_of_day(task: Task) -> Table | None:
    """Return Heap's user migrations up to the end of a day; None if the day's partition is kept."""
    if exports.is_exported(task.project):
        return exports.migrations_of_day(task)
    return build_user_migrations(task.project.landing, task.day)
