"""Behaviour and audiences of a day: the events of their windows, joined to profiles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import polars as pl

from heap_assets.config import Behaviour, Score
from heap_assets.errors import SettingsError
from heap_assets.pipelines.events import (
    Window,
    days_of,
    event_frames,
    event_schema,
    heap_events_by_user,
    heap_rows_of_all,
    messages_named,
    table_of_event,
)
from heap_assets.pipelines.functions import OpenPools, with_enriched
from heap_assets.profiles import (
    Accounts,
    Audience,
    EventCriterion,
    Facts,
    event_stream,
    events_needed,
    in_order,
    users_of_graph,
    with_audience,
    with_behaviour,
    with_top_pages,
    with_trends,
)
from heap_assets.project import Project
from heap_assets.tables import (
    BEHAVIOUR_COLUMNS,
    TOP_PAGES_COLUMN,
    TREND_COLUMNS,
    is_heap_event,
    is_inbox_table,
    is_model,
    is_signal,
    warehouse_asset,
)

_STREAM = ("user_id", "time", "session_id")
_PAGEVIEWS = "pageviews"


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
    return reach_of(project, profile_settings.behaviour, profile_settings.scores, project.audiences, section="profiles")


def reach_of(
    project: Project,
    behaviour: Behaviour | None,
    scores: Mapping[str, Score],
    audiences: Sequence[Audience],
    *,
    section: str,
) -> dict[str, int | None]:
    """Return for each event table the number of days to read for these columns; None reads all built days.

    Raises SettingsError, naming a key below `section`, for an event that no table holds.
    """
    days_back: dict[str, int | None] = {}
    if behaviour:
        days_back = dict.fromkeys(project.event_tables, behaviour.days)
        for flag, event in behaviour.features.items():
            table = table_of_event(project, event, f"{section}.behaviour.features.{flag}")
            if not is_heap_event(table):
                days_back[table] = behaviour.days
        for name in behaviour.messages:
            days_back[table_of_event(project, name, f"{section}.behaviour.messages")] = None  # first and last seen
    for name, score in scores.items():
        for event in score.weights:
            table = table_of_event(project, event, f"{section}.scores.{name}.weights")
            longest = days_back.get(table, 0)
            days_back[table] = None if longest is None else max(longest, score.within_days)
    for table, days in audience_reach(project, audiences).items():
        longest = days_back.get(table, 0)
        days_back[table] = None if days is None or longest is None else max(longest, days)
    if project.event_tables:
        return days_back
    return {table: days for table, days in days_back.items() if not is_heap_event(table)}


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
    project: Project,
    profiles: pl.LazyFrame,
    graph: pl.LazyFrame,
    events_window: Window,
    pools: OpenPools | None = None,
) -> tuple[pl.LazyFrame, dict[str, str], dict[str, Any]]:
    """Add the columns of `profiles.behaviour`, those of functions, and one true/false column per audience.

    `pools`: processes of functions that stay open.

    Also returns the audiences whose conditions cannot be evaluated, with the reason (their column is null), and the
    notes of functions.
    """
    profile_settings = project.settings.profiles
    if profile_settings.behaviour:
        profiles = with_activity(project, profile_settings.behaviour, profiles, graph, events_window)
    profiles = with_scores(project, profile_settings.scores, profiles, graph, events_window)
    profiles, notes = with_enriched(project, profiles, events_window.day, pools)
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


def with_activity(
    project: Project, behaviour: Behaviour, profiles: pl.LazyFrame, graph: pl.LazyFrame, events_window: Window
) -> pl.LazyFrame:
    """Add the columns of `behaviour`: of Heap's events, and of the tables of messages that it names."""
    features = {
        flag: table_of_event(project, event, f"profiles.behaviour.features.{flag}")
        for flag, event in behaviour.features.items()
    }
    events = heap_stream(project, events_window, events_window.days, graph)
    posted = event_frames(project, behaviour.messages, graph, events_window)
    counted = [
        _as_stream(rows, pl.lit(table) if is_model(table) else messages_named(table)) for table, rows in posted.items()
    ]
    of_features = [name for name in features.values() if not is_heap_event(name)]
    proofs = [
        _as_stream(rows, pl.lit(name))
        for name, rows in event_frames(project, of_features, graph, events_window).items()
    ]
    stream_of_all, days = pl.concat([events, *counted]), behaviour.days
    profiles = with_behaviour(
        profiles,
        graph,
        stream_of_all,
        events_window.as_of,
        features,
        days,
        proofs=pl.concat([events, *proofs]) if proofs else None,
        further=pl.concat(counted) if counted else None,
    )
    if behaviour.trends:
        profiles = with_trends(profiles, stream_of_all, events_window.as_of, features, days)
    if page := behaviour.top_pages:
        [rows] = event_frames(project, [_PAGEVIEWS], graph, events_window).values()
        if page not in rows.collect_schema():
            rows = rows.with_columns(pl.lit(None, pl.String).alias(page))
        profiles = with_top_pages(profiles, rows, page, events_window.as_of, days)
    return profiles.collect(engine="streaming").lazy()  # else each plan made of them reads the events again


def heap_stream(project: Project, events_window: Window, tables: Iterable[str], graph: pl.LazyFrame) -> pl.LazyFrame:
    """Return the events of Heap tables as :func:`heap_assets.profiles.event_stream` does; other tables are left out."""
    days = {table: events_window.days.get(table, []) for table in tables if is_heap_event(table)}
    return event_stream(heap_rows_of_all(project, days, _STREAM), graph)


def _as_stream(rows: pl.LazyFrame, event_type: pl.Expr) -> pl.LazyFrame:
    """Return messages as :func:`heap_assets.profiles.event_stream` returns events; they are of no session."""
    return rows.select("time", pl.lit(None, pl.Int64).alias("session_id"), event_type.alias("event_type"), "profile_id")


def windows_of(project: Project, day: date, audiences: Sequence[Audience]) -> Window:
    """Return the event days that some audiences depend on."""
    return Window(day, days_of(project, day, audience_reach(project, audiences)))


def audience_facts(
    project: Project, audiences: Sequence[Audience], graph: pl.LazyFrame, events_window: Window
) -> Facts:
    """Return what audiences are evaluated on: events of the window, accounts, and signals that fired before the day.

    Raises SettingsError for an event that no table holds.
    """
    signals = [event for event in events_needed(audiences) if is_signal(event)]
    tables = audience_reach(project, audiences)
    by_user = heap_events_by_user(project, tables, events_window)
    users = users_of_graph(graph).collect(engine="streaming").lazy() if by_user else None  # once for all audiences
    elsewhere = [name for name in (*tables, *signals) if name not in by_user]
    return Facts(
        event_frames(project, elsewhere, graph, events_window)
        | {name: rows.join(users, on="user_id") for name, rows in by_user.items() if users is not None},
        events_window.as_of,
        accounts_of_day(project, events_window.day),
        by_user,
        users,
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


def with_scores(
    project: Project,
    scores: Mapping[str, Score],
    profiles: pl.LazyFrame,
    graph: pl.LazyFrame,
    events_window: Window,
) -> pl.LazyFrame:
    """Add a column for each score: the weighted number of events of its window, 0 for who did none."""
    for name, score in scores.items():
        since = events_window.as_of - timedelta(days=score.within_days)
        in_window = (pl.col("time") >= since) & (pl.col("time") < events_window.as_of)
        of_events = [
            (table_of_event(project, event, f"profiles.scores.{name}.weights"), float(weight))
            for event, weight in score.weights.items()
        ]
        weights = pl.LazyFrame(of_events, schema={"event_type": pl.String, "weight": pl.Float64}, orient="row")
        outside_heap = [table for table, _ in of_events if not is_heap_event(table)]
        rows = [
            heap_stream(project, events_window, [table for table, _ in of_events], graph),
            *(
                _as_stream(frame, pl.lit(table))
                for table, frame in event_frames(project, outside_heap, graph, events_window).items()
            ),
        ]
        counts = (
            pl.concat([frame.select("profile_id", "time", "event_type") for frame in rows])
            .filter(in_window)
            .group_by("profile_id", "event_type")
            .agg(count=pl.len().cast(pl.Float64).clip(upper_bound=score.most))
        )
        total = (
            counts.join(weights, on="event_type")
            .group_by("profile_id")
            .agg((pl.col("count") * pl.col("weight")).sum().alias(name))
            .collect(engine="streaming")  # a plan of all scores would read as many tables as they have weights
        )
        profiles = profiles.join(total.lazy(), on="profile_id", how="left", maintain_order="left").with_columns(
            pl.col(name).fill_null(0.0)
        )
    return profiles


def column_sources(project: Project) -> dict[str, set[tuple[str, str]]]:
    """Return for each column of behaviour and audiences the (event table, column) pairs that it is computed from."""
    profile_settings = project.settings.profiles
    sources: dict[str, set[tuple[str, str]]] = {}
    if profile_settings.behaviour:
        tables = {*project.event_tables, *profile_settings.behaviour.messages}
        columns = {(table, column) for table in tables for column in _columns_of_person(table)}
        columns |= {(table, "session_id") for table in project.event_tables}
        sources = dict.fromkeys(
            (*BEHAVIOUR_COLUMNS, *(TREND_COLUMNS if profile_settings.behaviour.trends else ())), columns
        )
        if page := profile_settings.behaviour.top_pages:
            sources[TOP_PAGES_COLUMN] = {(_PAGEVIEWS, column) for column in (*_columns_of_person(_PAGEVIEWS), page)}
        for flag, event in profile_settings.behaviour.features.items():
            table = table_of_event(project, event, f"profiles.behaviour.features.{flag}")
            sources[flag] = {(table, column) for column in _columns_of_person(table)}
    for name, score in profile_settings.scores.items():
        tables = {table_of_event(project, event, f"profiles.scores.{name}.weights") for event in score.weights}
        sources[name] = {(table, column) for table in tables for column in _columns_of_person(table)}
    for audience in project.audiences:
        sources[audience.name] = {
            (table_of_event(project, criterion.type, criterion.where), column)
            for criterion in audience.criteria
            if not is_signal(criterion.type)
            for column in (*_columns_of_person(criterion.type), *(name for name, _ in criterion.properties))
        }
    if project.event_tables:
        return sources
    return {name: {pair for pair in pairs if not is_heap_event(pair[0])} for name, pairs in sources.items()}


def _columns_of_person(table: str) -> tuple[str, ...]:
    if is_model(table):
        return ()
    return ("user_id", "time", "anonymous_id") if is_inbox_table(table) else ("user_id", "time")


def check_events(project: Project) -> list[str]:
    """Check that there are the events and properties that behaviour and audiences name.

    Returns one message for each check that must wait, since a new lake has no event table of Heap. Raises
    SettingsError, naming the key of an event or property that there is not.
    """
    profile_settings = project.settings.profiles
    look_back_days(project)
    page = profile_settings.behaviour.top_pages if profile_settings.behaviour else None
    columns = project.catalogue.columns(_PAGEVIEWS) if page else None
    if columns is not None and page not in columns:
        raise SettingsError(
            f"profiles.behaviour.top_pages is {page!r}, which {_PAGEVIEWS} does not have. Columns: {', '.join(columns)}"
        )
    for audience in project.audiences:
        for criterion in audience.criteria:
            if not is_signal(criterion.type):
                _check_properties(project, criterion)
    if project.event_tables:
        return []
    features = profile_settings.behaviour.features.values() if profile_settings.behaviour else ()
    forwarded = [f"sync.{name}" for name, sync in project.settings.sync.items() if sync.by_table]
    events = sorted(event for event in {*features, *events_needed(project.audiences)} if not is_inbox_table(event))
    listed = ", ".join([*events, *forwarded])
    if not listed:
        return []
    return [f"no event table is known yet: whether Heap has what is asked for ({listed}) shows with the first dump"]


def _check_properties(project: Project, criterion: EventCriterion) -> None:
    table = table_of_event(project, criterion.type, criterion.where)
    if is_model(table) and not project.lake.partitions(table):
        return
    if not is_heap_event(table):
        columns = list(event_schema(project, table))
    elif project.event_tables:
        columns = project.catalogue.columns(table) or []
    else:
        return
    for column, condition in criterion.properties:
        if column not in columns:
            raise SettingsError(f"{condition.where}: {table} has no column {column!r}. Columns: {', '.join(columns)}")
