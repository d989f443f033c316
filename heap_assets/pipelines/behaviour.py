"""What people did, joined to their profiles: behaviour and audiences of a day, from the events of their windows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import polars as pl

from heap_assets.errors import SettingsError
from heap_assets.profiles import event_stream, event_table, events_needed, events_of_profiles, with_audiences
from heap_assets.profiles import with_behaviour as joined
from heap_assets.project import Project
from heap_assets.sources.heap_connect import without_own
from heap_assets.tables import BEHAVIOUR_COLUMNS, heap_asset
from heap_assets.values import as_text

_STREAM = ("user_id", "time", "session_id")
_TYPES: dict[str, pl.DataType] = {
    "event_id": pl.Int64(),
    "user_id": pl.Int64(),
    "session_id": pl.Int64(),
    "time": pl.Datetime("us", "UTC"),
}


@dataclass(frozen=True)
class Window:
    """The events that profiles of a day look at: event table to the days that are built, oldest first."""

    day: date
    days: dict[str, list[str]]

    @property
    def as_of(self) -> datetime:
        """The end of the day, from which windows count back."""
        return datetime(self.day.year, self.day.month, self.day.day, tzinfo=UTC) + timedelta(days=1)


def window(project: Project, day: date) -> Window:
    """Find the event days that behaviour and audiences of a day look at; none if the settings ask for neither.

    Raises
    ------
    SettingsError
        An audience or a feature names an event that the catalogue does not know; where it knows no event table at all,
        such an event has never happened.
    """
    chosen = project.settings.profiles
    reach = reaches(project)
    days = {}
    for table, back in reach.items():
        first = date.min if back is None else day - timedelta(days=back)
        there = project.lake.partitions(heap_asset(table))
        days[table] = [key for key in there if str(first) < key <= str(day)] if chosen.columns else []
    return Window(day, days)


def reaches(project: Project) -> dict[str, int | None]:
    """Return how many days back each event table is looked at; None is all of them."""
    chosen = project.settings.profiles
    found: dict[str, int | None] = {}
    if not project.event_tables:
        return found
    if chosen.behaviour:
        for flag, event in chosen.behaviour.features.items():
            _known(project, event, f"profiles.behaviour.features.{flag}")
        found = dict.fromkeys(project.event_tables, chosen.behaviour.days)
    for event, within in events_needed(project.audiences).items():
        table = _known(project, event, "profiles.audiences")
        longest = found.get(table, 0)
        # a window that is not whole days reaches into one day more
        found[table] = None if within is None or longest is None else max(longest, -int(-within // 1))
    return found


def with_what_they_did(
    project: Project, profiles: pl.LazyFrame, graph: pl.LazyFrame, seen: Window
) -> tuple[pl.LazyFrame, dict[str, str]]:
    """Add the columns of `profiles.behaviour` and one true/false column per audience.

    Returns
    -------
    The profiles, and of audiences whose conditions cannot be judged (their column is null) why not.
    """
    chosen = project.settings.profiles
    if chosen.behaviour:
        features = {
            flag: _known(project, event, f"profiles.behaviour.features.{flag}")
            for flag, event in chosen.behaviour.features.items()
        }
        stream = {table: _rows(project, table, days, _STREAM) for table, days in seen.days.items() if days}
        events = event_stream(stream, graph)
        profiles = joined(profiles, graph, events, seen.as_of, features, chosen.behaviour.days)
    if not chosen.audiences:
        return profiles, {}
    needed = {_known(project, event, "profiles.audiences") for event in events_needed(project.audiences)}
    tables = {table: events_of_profiles(_rows(project, table, seen.days.get(table, ())), graph) for table in needed}
    set_aside = {}
    for audience in project.audiences:
        try:
            profiles = with_audiences(profiles, [audience], tables, seen.as_of)
        except SettingsError as error:
            set_aside[audience.name] = str(error)
            profiles = profiles.with_columns(pl.lit(None, pl.Boolean).alias(audience.name))
    return profiles, set_aside


def column_sources(project: Project) -> dict[str, set[tuple[str, str]]]:
    """Return every column of behaviour and audiences to the (event table, column) pairs that it is made of."""
    chosen = project.settings.profiles
    if not project.event_tables:
        return {name: set() for name in chosen.columns if name not in chosen.traits}
    found: dict[str, set[tuple[str, str]]] = {}
    if chosen.behaviour:
        everything = {(table, column) for table in project.event_tables for column in _STREAM}
        found = dict.fromkeys(BEHAVIOUR_COLUMNS, everything)
        for flag, event in chosen.behaviour.features.items():
            table = _known(project, event, f"profiles.behaviour.features.{flag}")
            found[flag] = {(table, "user_id"), (table, "time")}
    for audience in project.audiences:
        found[audience.name] = {
            (_known(project, criterion.type, criterion.where), column)
            for criterion in (*audience.events, *audience.exclude_events)
            for column in ("user_id", "time", *(name for name, _ in criterion.properties))
        }
    return found


def check_events(project: Project) -> list[str]:
    """Hold the events and properties that behaviour and audiences name against the catalogue.

    Returns
    -------
    list of str
        What could not be held against it yet, a sentence each: in a new lake no event table is known.

    Raises
    ------
    SettingsError
        Naming the key of what Heap's tables do not have.
    """
    chosen = project.settings.profiles
    if not project.event_tables:
        features = chosen.behaviour.features.values() if chosen.behaviour else ()
        forwarded = [f"sync.{name}" for name, sync in project.settings.sync.items() if sync.by_table]
        named = [*sorted({*features, *events_needed(project.audiences)}), *forwarded]
        if not named:
            return []
        asked = ", ".join(named)
        return [f"no event table is known yet: whether Heap has what is asked for ({asked}) shows with the first dump"]
    reaches(project)
    for audience in project.audiences:
        for criterion in (*audience.events, *audience.exclude_events):
            table = _known(project, criterion.type, criterion.where)
            columns = project.catalogue.columns(table) or []
            for column, condition in criterion.properties:
                if column not in columns:
                    raise SettingsError(
                        f"{condition.where}: {table} has no column {column!r}. Columns: {', '.join(columns)}"
                    )
    return []


def _known(project: Project, event: str, where: str) -> str:
    """Return the table of an event; where no event table is known at all, the event by its own name."""
    if not project.event_tables:
        return event
    table = event_table(event, dict.fromkeys(project.event_tables))
    if table is None:
        raise SettingsError(
            f"{where} names the event {event!r}, which no table holds. Tables: {', '.join(project.event_tables)}"
        )
    return table


def _rows(project: Project, table: str, days: Iterable[str], columns: Iterable[str] = ()) -> pl.LazyFrame:
    """Scan days of a table without what we sent to Heap ourselves.

    A table without days has the catalogue's columns; one that the catalogue does not know, those that audiences name.
    """
    keys = list(days)
    if not keys:
        names = project.catalogue.columns(table) or _asked_for(project, table)
        return pl.LazyFrame(schema={name: _TYPES.get(name, pl.String()) for name in (*_TYPES, *names)})
    frames = [without_own(project.lake.scan(heap_asset(table), key)) for key in keys]
    return pl.concat([frame.select(columns) for frame in frames] if columns else _alike(frames), how="diagonal")


def _alike(frames: Sequence[pl.LazyFrame]) -> list[pl.LazyFrame]:
    """Return days of a table with columns of equal types: as text where the types of a property differ by day.

    A property that is asked for before it was first sent is text without values until then.
    """
    schemas = [frame.collect_schema() for frame in frames]
    types: dict[str, set[pl.DataType]] = {}
    for schema in schemas:
        for name, dtype in schema.items():
            types.setdefault(name, set()).add(dtype)
    differing = {name for name, found in types.items() if len(found) > 1}
    return [
        frame.with_columns(as_text(pl.col(name), schema[name]) for name in sorted(differing & schema.keys()))
        for frame, schema in zip(frames, schemas, strict=True)
    ]


def _asked_for(project: Project, event: str) -> list[str]:
    criteria = [
        criterion for audience in project.audiences for criterion in (*audience.events, *audience.exclude_events)
    ]
    return [column for criterion in criteria if criterion.type == event for column, _ in criterion.properties]
