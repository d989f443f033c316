"""Behaviour and audiences of a day: the events of their windows, joined to profiles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl

from heap_assets.errors import SettingsError
from heap_assets.pipelines.functions import with_enriched
from heap_assets.profiles import (
    Accounts,
    Audience,
    Facts,
    event_stream,
    event_table,
    events_needed,
    events_of_profiles,
    in_order,
    with_audience,
)
from heap_assets.profiles import with_behaviour as joined
from heap_assets.project import Project
from heap_assets.signals import FIRED, FIRINGS
from heap_assets.sources.heap_connect import without_own
from heap_assets.tables import BEHAVIOUR_COLUMNS, heap_asset, is_signal, warehouse_asset
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
    """The events that the profiles of a day depend on: event table to the days that are built, oldest first."""

    day: date
    days: dict[str, list[str]]

    @property
    def as_of(self) -> datetime:
        """The end of the day, from which windows count back."""
        return datetime(self.day.year, self.day.month, self.day.day, tzinfo=UTC) + timedelta(days=1)


def window(project: Project, day: date) -> Window:
    """Return the event days that behaviour and audiences of a day depend on; none if the settings have neither.

    Raises SettingsError if an audience or a feature names an event that no table of the catalogue holds. While the
    catalogue has no event table at all, every event counts as one that never happened.
    """
    profile_settings = project.settings.profiles
    reach = look_back_days(project)
    return Window(day, days_of(project, day, reach) if profile_settings.columns else {table: [] for table in reach})


def look_back_days(project: Project) -> dict[str, int | None]:
    """Return for each event table the number of days to read before the end of a day; None reads all built days."""
    profile_settings = project.settings.profiles
    days_back: dict[str, int | None] = {}
    if not project.event_tables:
        return days_back
    if profile_settings.behaviour:
        for flag, event in profile_settings.behaviour.features.items():
            table_of_event(project, event, f"profiles.behaviour.features.{flag}")
        days_back = dict.fromkeys(project.event_tables, profile_settings.behaviour.days)
    for name, score in profile_settings.scores.items():
        for event in score.weights:
            table = table_of_event(project, event, f"profiles.scores.{name}.weights")
            days_back[table] = max(days_back.get(table) or 0, score.within_days)
    for table, days in audience_reach(project, project.audiences).items():
        longest = days_back.get(table, 0)
        days_back[table] = None if days is None or longest is None else max(longest, days)
    return days_back


def audience_reach(project: Project, audiences: Sequence[Audience]) -> dict[str, int | None]:
    """Return for each event table that audiences name the number of days to read, None for all; signals are not in it.

    Raises SettingsError for an event that no table holds.
    """
    days_back: dict[str, int | None] = {}
    for event, days in events_needed(audiences).items():
        if is_signal(event):
            continue
        table = table_of_event(project, event, "profiles.audiences")
        longest = days_back.get(table, 0)
        # a window that is not whole days reaches into one day more
        days_back[table] = None if days is None or longest is None else max(longest, -int(-days // 1))
    return days_back


def with_behaviour_and_audiences(
    project: Project, profiles: pl.LazyFrame, graph: pl.LazyFrame, events_window: Window
) -> tuple[pl.LazyFrame, dict[str, str], dict[str, Any]]:
    """Add the columns of `profiles.behaviour`, those of functions, and one true/false column per audience.

    Also returns the audiences whose conditions cannot be evaluated, with the reason (their column is null), and the
    notes of functions.
    """
    profile_settings = project.settings.profiles
    if profile_settings.behaviour:
        features = {
            flag: table_of_event(project, event, f"profiles.behaviour.features.{flag}")
            for flag, event in profile_settings.behaviour.features.items()
        }
        stream = {table: _rows(project, table, days, _STREAM) for table, days in events_window.days.items() if days}
        events = event_stream(stream, graph)
        profiles = joined(profiles, graph, events, events_window.as_of, features, profile_settings.behaviour.days)
    profiles = _with_scores(project, profiles, graph, events_window)
    profiles, notes = with_enriched(project, profiles, events_window.day)
    if not profile_settings.audiences:
        return profiles, {}, notes
    facts = audience_facts(project, project.audiences, graph, events_window)
    set_aside: dict[str, str] = {}
    for audience in in_order(project.audiences):
        named = {name for part in audience.parts for name in part.audiences}
        try:
            if waits := sorted(named & set_aside.keys()):
                raise SettingsError(f"it names the audience {waits[0]!r}: {set_aside[waits[0]]}")
            profiles = with_audience(profiles, audience, facts)
        except SettingsError as error:
            set_aside[audience.name] = str(error)
            profiles = profiles.with_columns(pl.lit(None, pl.Boolean).alias(audience.name))
    columns = [name for name in profiles.collect_schema() if name not in profile_settings.audiences]
    return profiles.select(*columns, *profile_settings.audiences), set_aside, notes


def windows_of(project: Project, day: date, audiences: Sequence[Audience]) -> Window:
    """Return the event days that some audiences depend on."""
    return Window(day, days_of(project, day, audience_reach(project, audiences)))


def days_of(project: Project, day: date, reach: Mapping[str, int | None]) -> dict[str, list[str]]:
    """Return the built days of event tables up to a day, as many of each as `reach` says; None for all."""
    days = {}
    for table, back in reach.items():
        first = date.min if back is None else day - timedelta(days=back)
        partitions = project.lake.partitions(heap_asset(table))
        days[table] = [key for key in partitions if str(first) < key <= str(day)]
    return days


def event_schema(project: Project, table: str) -> pl.Schema:
    """Return the columns of an event table: those of its newest day, else the catalogue's."""
    keys = project.lake.partitions(heap_asset(table))
    return _rows(project, table, keys[-1:]).collect_schema()


def audience_facts(
    project: Project, audiences: Sequence[Audience], graph: pl.LazyFrame, events_window: Window
) -> Facts:
    """Return what audiences are evaluated on: events of the window, accounts, and signals that fired before the day.

    Raises SettingsError for an event that no table holds.
    """
    signals = [event for event in events_needed(audiences) if is_signal(event)]
    events = event_frames(project, [*audience_reach(project, audiences), *signals], graph, events_window)
    return Facts(events, events_window.as_of, accounts_of_day(project, events_window.day))


def event_frames(
    project: Project, tables: Iterable[str], graph: pl.LazyFrame, events_window: Window
) -> dict[str, pl.LazyFrame]:
    """Return event tables by name, each with the profile of every row; of signals, what fired before the day."""
    return {
        table: _firings(project, table, graph, events_window.day)
        if is_signal(table)
        else events_of_profiles(_rows(project, table, events_window.days.get(table, ())), graph)
        for table in tables
    }


def _firings(project: Project, asset: str, graph: pl.LazyFrame, day: date) -> pl.LazyFrame:
    """Return the firings of a signal before a day, under the profile ids of its graph."""
    keys = [key for key in project.lake.partitions(asset) if key < str(day)]
    frames = [project.lake.scan(asset, key) for key in keys]
    rows = pl.concat([pl.LazyFrame(schema=FIRINGS), *frames], how="diagonal_relaxed")
    owners = graph.filter(~pl.col("shared")).select("identifier_type", "identifier", owner="profile_id")
    return (
        rows.filter(pl.col("status") == FIRED)
        .join(owners, on=["identifier_type", "identifier"], how="left")
        .with_columns(profile_id=pl.coalesce("owner", "profile_id"), event_id=pl.lit(None, pl.Int64))
        .drop("owner")
    )


def accounts_of_day(project: Project, day: date) -> Accounts | None:
    """Return the accounts as they stood at the end of a day; None if the settings name none or none were read yet."""
    settings = project.settings.accounts
    if settings is None:
        return None
    asset = warehouse_asset(settings.table)
    newest = project.lake.newest_partition(asset, day)
    if newest is None:
        return None
    return Accounts(project.lake.scan(asset, str(newest)), settings.key, settings.member_of)


def _with_scores(project: Project, profiles: pl.LazyFrame, graph: pl.LazyFrame, events_window: Window) -> pl.LazyFrame:
    """Add the columns of `profiles.scores`: the weighted number of events of the window, 0 for who did none."""
    for name, score in project.settings.profiles.scores.items():
        since = events_window.as_of - timedelta(days=score.within_days)
        counts = []
        for event, weight in score.weights.items():
            table = table_of_event(project, event, f"profiles.scores.{name}.weights")
            rows = _rows(project, table, events_window.days.get(table, ()), ("user_id", "time"))
            in_window = (pl.col("time") >= since) & (pl.col("time") < events_window.as_of)
            count = pl.len().cast(pl.Float64).clip(upper_bound=score.most) * weight
            recent = events_of_profiles(rows.filter(in_window), graph)
            counts.append(recent.group_by("profile_id").agg(count.alias(name)))
        total = pl.concat(counts).group_by("profile_id").agg(pl.col(name).sum())
        profiles = profiles.join(total, on="profile_id", how="left", maintain_order="left").with_columns(
            pl.col(name).fill_null(0.0)
        )
    return profiles


def column_sources(project: Project) -> dict[str, set[tuple[str, str]]]:
    """Return for each column of behaviour and audiences the (event table, column) pairs that it is computed from."""
    profile_settings = project.settings.profiles
    if not project.event_tables:
        return {name: set() for name in profile_settings.columns if name not in profile_settings.traits}
    sources: dict[str, set[tuple[str, str]]] = {}
    if profile_settings.behaviour:
        stream_columns = {(table, column) for table in project.event_tables for column in _STREAM}
        sources = dict.fromkeys(BEHAVIOUR_COLUMNS, stream_columns)
        for flag, event in profile_settings.behaviour.features.items():
            table = table_of_event(project, event, f"profiles.behaviour.features.{flag}")
            sources[flag] = {(table, "user_id"), (table, "time")}
    for name, score in profile_settings.scores.items():
        tables = {table_of_event(project, event, f"profiles.scores.{name}.weights") for event in score.weights}
        sources[name] = {(table, column) for table in tables for column in ("user_id", "time")}
    for audience in project.audiences:
        sources[audience.name] = {
            (table_of_event(project, criterion.type, criterion.where), column)
            for criterion in audience.criteria
            if not is_signal(criterion.type)
            for column in ("user_id", "time", *(name for name, _ in criterion.properties))
        }
    return sources


def check_events(project: Project) -> list[str]:
    """Check that the catalogue has the events and properties that behaviour and audiences name.

    Returns one message for each check that must wait, since a new lake has no event table. Raises SettingsError, naming
    the key of an event or property that Heap's tables do not have.
    """
    profile_settings = project.settings.profiles
    if not project.event_tables:
        features = profile_settings.behaviour.features.values() if profile_settings.behaviour else ()
        forwarded = [f"sync.{name}" for name, sync in project.settings.sync.items() if sync.by_table]
        needed = [*sorted({*features, *events_needed(project.audiences)}), *forwarded]
        if not needed:
            return []
        listed = ", ".join(needed)
        return [f"no event table is known yet: whether Heap has what is asked for ({listed}) shows with the first dump"]
    look_back_days(project)
    for audience in project.audiences:
        for criterion in audience.criteria:
            if is_signal(criterion.type):
                continue
            table = table_of_event(project, criterion.type, criterion.where)
            columns = project.catalogue.columns(table) or []
            for column, condition in criterion.properties:
                if column not in columns:
                    raise SettingsError(
                        f"{condition.where}: {table} has no column {column!r}. Columns: {', '.join(columns)}"
                    )
    return []


def table_of_event(project: Project, event: str, where: str) -> str:
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
    """Scan days of a table, without the events that we sent to Heap ourselves.

    A table without days has the catalogue's columns; one that the catalogue does not know, those that audiences name.
    """
    keys = list(days)
    if not keys:
        names = project.catalogue.columns(table) or _columns_of_audiences(project, table)
        return pl.LazyFrame(schema={name: _TYPES.get(name, pl.String()) for name in (*_TYPES, *names)})
    frames = [without_own(project.lake.scan(heap_asset(table), key)) for key in keys]
    return pl.concat([frame.select(columns) for frame in frames] if columns else _alike(frames), how="diagonal")


def _alike(frames: Sequence[pl.LazyFrame]) -> list[pl.LazyFrame]:
    """Return days of a table with columns of equal types: text where the types of a property differ by day."""
    schemas = [frame.collect_schema() for frame in frames]
    types: dict[str, set[pl.DataType]] = {}
    for schema in schemas:
        for name, dtype in schema.items():
            types.setdefault(name, set()).add(dtype)
    differing = {name for name, dtypes in types.items() if len(dtypes) > 1}
    return [
        frame.with_columns(
            as_text(pl.col(name), schema[name]).alias(name) for name in sorted(differing & schema.keys())
        )
        for frame, schema in zip(frames, schemas, strict=True)
    ]


def _columns_of_audiences(project: Project, event: str) -> list[str]:
    criteria = [criterion for audience in project.audiences for criterion in audience.criteria]
    return [column for criterion in criteria if criterion.type == event for column, _ in criterion.properties]
