"""The task of building a partition, its result before it is stored, and the filter `heap.tables.leave_out`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from heap_assets.errors import MissingInputError, SettingsError
from heap_assets.profiles import Condition, holds
from heap_assets.project import Project
from heap_assets.storage import FileWriter, Inputs, Parts
from heap_assets.tables import heap_asset
from heap_assets.versions import version_of

UNREADABLE = "unreadable"
"""Note of a partition that lacks rows which could not be read: the reason. Its check `readable` fails."""

ERASED = "erased"
"""Note of a partition: the number of rows of erased people that came again and were left out."""

MASKED = "masked"
"""Note of a partition: the number of cells that rules of masking have changed while it was read."""

VALUES_LOST, VALUES_LOST_IN = "values_lost", "values_lost_in"
"""Notes of a partition: the number of values that no type of the lake holds, in all and by column (docs/values.md)."""


def check_is_kept(project: Project, asset: str, day: date) -> None:
    """Raise MissingInputError for a day of events that `keep.event_years` no longer keeps: nothing brings it back."""
    first = project.first_day_of(asset)
    if day < first:
        raise MissingInputError(f"{asset} {day} is before {first}: older events are not kept (keep.event_years)")


@dataclass(frozen=True)
class Task:
    """Build one day of one table; files below `scratch` live until the partition is stored."""

    project: Project
    day: date
    scratch: Path
    force: bool = False


class Table(Protocol):
    """A partition about to be stored: its rows, their inputs, and notes.

    `writer`, if there is one, writes `frame` faster.
    """

    @property
    def frame(self) -> pl.LazyFrame: ...
    @property
    def inputs(self) -> Inputs | None: ...
    @property
    def notes(self) -> Mapping[str, Any]: ...
    @property
    def writer(self) -> FileWriter | None: ...


@dataclass(frozen=True)
class BuiltTable:
    """A partition made by a step.

    `writer`, if there is one, writes `frame` faster; `parts`, if there are any, are its stored files.
    """

    frame: pl.LazyFrame
    inputs: Inputs | None
    notes: Mapping[str, Any] = field(default_factory=dict)
    writer: FileWriter | None = None
    parts: Parts | None = None


Rule = Mapping[str, tuple[Condition, ...]]
"""Column to conditions; a row for which all of them hold is left out."""


def rules_of(project: Project, table: str) -> list[Rule]:
    """Return the rules of `heap.tables.leave_out` for an event table; a row that one of them matches is dropped."""
    rules_by_pattern = project.leave_out
    return [rule for pattern, rules in rules_by_pattern.items() if fnmatchcase(table, pattern) for rule in rules]


def without_left_out(task: Task, table: str, table_day: Table) -> Table:
    """Filter out the rows of a day that `heap.tables.leave_out` matches; the note `left_out` counts them.

    The rules are part of the partition's input versions, so a changed rule rewrites the day at its next build.
    """
    rules = rules_of(task.project, table)
    if not rules:
        return table_day
    inputs_before = table_day.inputs or Inputs({})
    version = version_of(rules)
    inputs = Inputs({**inputs_before.versions, "left_out": version}, inputs_before.observed)
    lake, asset, day = task.project.lake, heap_asset(table), str(task.day)
    stored = lake.find(asset, day)
    if stored is not None and stored.inputs.versions == dict(inputs.versions):
        return BuiltTable(
            lake.scan(asset, day), inputs, {**table_day.notes, "left_out": stored.notes.get("left_out", 0)}
        )
    out = _is_left_out(rules, table_day.frame.collect_schema())
    count = table_day.frame.select(out.sum()).collect(engine="streaming").item()
    return BuiltTable(table_day.frame.filter(~out), inputs, {**table_day.notes, "left_out": int(count or 0)})


def check_columns(project: Project) -> None:
    """Check that tables have the columns that their rules name; those of a pattern may be missing in some tables.

    Raises SettingsError, naming the key of the first column that its table does not have.
    """
    for table, rules in project.leave_out.items():
        columns = project.catalogue.columns(table)
        for column in (name for rule in rules for name in rule):
            if columns is not None and column not in columns:
                raise SettingsError(
                    f"heap.tables.leave_out.{table} names the column {column!r}, which {table} does not have. "
                    f"Columns: {', '.join(columns)}"
                )


def _is_left_out(rules: list[Rule], schema: pl.Schema) -> pl.Expr:
    """Return a Boolean expression, never null; a value that is missing meets no condition but `exists: false`."""
    missing = pl.lit(None, pl.String)
    return pl.any_horizontal(
        pl.all_horizontal(
            holds(condition, pl.col(column) if column in schema else missing, schema.get(column, pl.String()))
            for column, conditions in rule.items()
            for condition in conditions
        )
        for rule in rules
    )
