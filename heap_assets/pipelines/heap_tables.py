"""Days of Heap's tables: built from what landed, or read from Heap's export."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path

from heap_assets.errors import no_such
from heap_assets.pipelines import exports
from heap_assets.pipelines.functions import Trial, transformed, try_profiles, try_rows
from heap_assets.pipelines.inbox import untransformed_day
from heap_assets.pipelines.table import UNREADABLE, Table, Task, check_is_kept, without_left_out
from heap_assets.project import Project
from heap_assets.sources.heap_connect import build_event_day, build_user_migrations, build_users
from heap_assets.tables import PROFILES, USERS, heap_asset, is_inbox_table


def event_day(task: Task, table: str) -> Table:
    """Return a day of an event table, without the rows that the settings leave out, as its function makes it."""
    check_is_kept(task.project, heap_asset(table), task.day)
    return transformed(task, table, without_left_out(task, table, _unfiltered_day(task, table)))


def try_function(project: Project, file: str, table: str, day: date, count: int) -> list[Trial]:
    """Return what a file of the folder of functions makes of the first rows of a day; nothing is written.

    Raises
    ------
    MissingInputError
        The table has not landed.
    FunctionFailedError
        The file cannot be run.
    """
    tables = [*project.event_tables, *project.message_tables, PROFILES]
    if table not in tables:
        raise no_such("event table", table, tables)
    with tempfile.TemporaryDirectory(prefix="heap-assets-") as scratch:
        task = Task(project, day, Path(scratch))
        if table == PROFILES:
            return try_profiles(project, day, file, count)
        if is_inbox_table(table):
            rows = untransformed_day(task, table).frame
        else:
            rows = without_left_out(task, table, _unfiltered_day(task, table)).frame
        return try_rows(task, table, file, rows.head(count))


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
