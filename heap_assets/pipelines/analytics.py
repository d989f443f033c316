"""Queries over the lake: the relations that they read, their statements, and their results by day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from datetime import UTC, date, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

import polars as pl

from heap_assets.analytics import Dialect, Query, Statement, chart_of, parse_query
from heap_assets.errors import MissingInputError, SettingsError
from heap_assets.identity import HEAP_USER_ID
from heap_assets.pipelines.events import event_schema, table_of_event
from heap_assets.pipelines.relations import Relations
from heap_assets.pipelines.table import BuiltTable
from heap_assets.project import Project
from heap_assets.sources.heap_connect import OWN_MARK, OWN_VALUE
from heap_assets.storage import Inputs, LakeSql
from heap_assets.tables import GRAPH, PROFILE_COLUMNS, PROFILES, event_asset, is_heap_event, is_model
from heap_assets.values import sql_identifier, sql_literal
from heap_assets.versions import version_of

CHART = "chart"
"""Note of a stored result: its bars."""
_NAMES_OF_EVENTS = ("steps", "only", "goal", "conversion", "touch", "exposure")
_EVENT_COLUMNS = {"user_id": "BIGINT", "session_id": "BIGINT", "event_id": "BIGINT", "time": "TIMESTAMPTZ"}


def query_of(project: Project, name: str, parameters: Mapping[str, Any] | None = None) -> Query:
    """Return a query of the settings, or of a kind with its defaults, with other parameters in place.

    Raises SettingsError: there is none of the name, an event that no table holds, or a trait that there is not.
    """
    settings = project.settings.analytics
    definition = {**settings.get(name, {"kind": name}), **(parameters or {})}
    query = parse_query(definition, f"analytics.{name}")
    traits = {*PROFILE_COLUMNS, *project.settings.profile_columns}
    for trait in query.traits:
        if trait not in traits:
            raise SettingsError(
                f"analytics.{name} reads the trait {trait!r}: there is no trait of this name. "
                f"Traits: {', '.join(sorted(traits))}"
            )
    return _with_tables(project, query, f"analytics.{name}")


def check_analytics(project: Project) -> None:
    """Check the queries of the settings; SettingsError names the key of the first mistake."""
    for name in project.settings.analytics:
        query = query_of(project, name)
        for column, table in query.properties.items():
            if is_heap_event(table) and not project.event_tables:
                continue
            if is_model(table) and not project.lake.partitions(table):
                continue  # what it has shows when it is computed
            columns = project.catalogue.columns(table) if is_heap_event(table) else [*event_schema(project, table)]
            if columns is not None and column not in columns:
                raise SettingsError(
                    f"analytics.{name}: {table} has no column {column!r}. Columns: {', '.join(columns)}"
                )


def statement_of(project: Project, query: Query, day: date, dialect: Dialect = "lake") -> Statement:
    """Return the SQL of a query as of the end of a day, over the tables of `heap-assets sql` or published ones."""
    end = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    statement, relations = query.statement(end), Relations(project, day, dialect)
    begins = [value for value in statement.parameters.values() if isinstance(value, datetime)]
    first = min([*begins, end]).date()
    users = (
        f"SELECT CAST(identifier AS BIGINT) AS user_id, profile_id FROM {relations.snapshot(GRAPH)} AS g "
        f"WHERE identifier_type = {sql_literal(HEAP_USER_ID)} AND NOT shared AND profile_id IS NOT NULL"
    )
    built = [table for table, days in _days(project, query, first, day).items() if days]
    rows = [_event_rows(project, query, table, relations) for table in built if is_heap_event(table)]
    messages = [_event_rows(project, query, table, relations) for table in built if not is_heap_event(table)]
    events = " UNION ALL ".join(rows) or _no_events(query)
    of_people = f"SELECT u.profile_id, e.* FROM ({events}) AS e JOIN users AS u ON u.user_id = e.user_id"
    of_people = " UNION ALL ".join([of_people, *messages])
    parts = {"users": users, "events": of_people}
    parameters = {**statement.parameters}
    if built:
        parameters["first_day"] = str(first)
    if "people" in statement.sql:
        parts["people"] = relations.snapshot(PROFILES)
    if query.compares:
        before = project.lake.newest_partition(PROFILES, day - timedelta(days=1))
        none = f"{relations.snapshot(PROFILES)} AS p WHERE FALSE"
        parts["people_before"] = relations.snapshot(PROFILES, before) if before else f"SELECT * FROM {none}"
    heads = ", ".join(f"{name} AS ({_select(text)})" for name, text in parts.items())
    body = statement.sql.strip()
    sql = f"WITH {heads}, {body.removeprefix('WITH ')}" if body.startswith("WITH ") else f"WITH {heads} {body}"
    return Statement(sql, {**relations.parameters, **parameters})


def result_of(project: Project, query: Query, day: date) -> pl.DataFrame:
    """Return the result of a query as of the end of a day.

    Raises MissingInputError: the profiles of the day are not built.
    """
    for path in (PROFILES, GRAPH):
        if project.lake.find(path, str(day)) is None:
            raise MissingInputError(f"{path} {day} is not built")
    statement, lake = statement_of(project, query, day), project.settings.lake
    assets = [PROFILES, GRAPH, *(event_asset(table) for table in query.events or project.event_tables)]
    with LakeSql(lake.url, lake.options, assets=assets) as sql:
        return sql.sql(statement.text(), statement.parameters)


def analytics_of_day(project: Project, name: str, day: date) -> BuiltTable:
    """Return the result of a query of the settings on a day, with its chart as a note."""
    query = query_of(project, name)
    frame = result_of(project, query, day)
    end = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    parameters = query.statement(end).parameters
    first = min([*(value for value in parameters.values() if isinstance(value, datetime)), end]).date()
    lake = project.lake
    versions = {f"{path}@{day}": lake.versions(path)[str(day)] for path in (PROFILES, GRAPH)}
    for table, days in _days(project, query, first, day).items():
        stored = lake.versions(event_asset(table))
        versions |= {f"{event_asset(table)}@{key}": stored[key] for key in days}
    versions["settings"] = version_of([query.kind, asdict(query)])
    chart = chart_of(query, frame)
    figures = {f"bar_{label}"[:60]: value for label, value in chart.bars.items()} if query.kind == "funnel" else {}
    notes = {"result_rows": frame.height, **figures, CHART: asdict(chart)}
    return BuiltTable(frame.lazy(), Inputs(versions), notes)


def _with_tables(project: Project, query: Query, where: str) -> Query:
    """Return the query with tables for names of events; a pattern such as `feature_*` stands for all that match."""
    changes: dict[str, Any] = {}
    for one in fields(query):
        value = getattr(query, one.name)
        names = [value] if isinstance(value, str) else value
        if one.name not in _NAMES_OF_EVENTS or not (project.event_tables or not all(map(is_heap_event, names or ()))):
            continue
        if isinstance(value, str):
            changes[one.name] = table_of_event(project, value, f"{where}.{one.name}")
        elif value:
            tables: list[str] = []
            for name in value:
                matching = [table for table in project.event_tables if fnmatchcase(table, name)]
                is_pattern = any(sign in name for sign in "*?[") and one.name == "only"
                tables += matching if is_pattern else [table_of_event(project, name, f"{where}.{one.name}")]
            changes[one.name] = tuple(tables if one.name == "steps" else dict.fromkeys(tables))
    return replace(query, **changes)


def _days(project: Project, query: Query, first: date, day: date) -> dict[str, list[str]]:
    tables = query.events or project.event_tables
    built = {table: project.lake.partitions(event_asset(table)) for table in tables}
    return {
        table: [key for key in keys if key <= str(day)][-1:]
        if is_model(table)
        else [key for key in keys if str(first) <= key <= str(day)]
        for table, keys in built.items()
    }


def _event_rows(project: Project, query: Query, table: str, relations: Relations) -> str:
    schema = event_schema(project, table)
    own_names = ("time", "event_id") if is_model(table) else tuple(schema)  # its user_id need not be one of Heap
    columns = [
        f"CAST({name if name in own_names and name in schema else 'NULL'} AS {kind}) AS {name}"
        for name, kind in _EVENT_COLUMNS.items()
    ]
    for column, of in query.properties.items():
        value = sql_identifier(column) if of == table and column in schema else "NULL"
        columns.append(f"CAST({value} AS VARCHAR) AS {sql_identifier(column)}")
    if not is_heap_event(table):
        days = "CAST(t.time AS DATE) >= CAST($first_day AS DATE) AND CAST(t.time AS DATE) <= CAST($day AS DATE)"
        source = f"{relations.events(table, schema).sql} AS t WHERE {days}"
        return f"SELECT t.profile_id, {', '.join(columns)}, {sql_literal(table)} AS event_type FROM {source}"
    own = f" AND ({OWN_MARK} IS NULL OR {OWN_MARK} <> {sql_literal(OWN_VALUE)})" if OWN_MARK in schema else ""
    source = f"{relations.table(event_asset(table))} AS t WHERE {relations.days_between('first_day', 'day')}{own}"
    return f"SELECT {', '.join(columns)}, {sql_literal(table)} AS event_type FROM {source}"


def _no_events(query: Query) -> str:
    columns = [f"CAST(NULL AS {kind}) AS {name}" for name, kind in _EVENT_COLUMNS.items()]
    columns += [f"CAST(NULL AS VARCHAR) AS {sql_identifier(name)}" for name in (*query.properties, "event_type")]
    return f"SELECT {', '.join(columns)} WHERE FALSE"


def _select(text: str) -> str:
    return text[1:-1] if text.startswith("(") else text
