"""`unified_events`: Heap's events and messages of the inbox in one table, a day at a time.

A day is made of the day of each table, and of the graph of that day: who a person was at its end. A day before the
first graph that is kept takes that one. Retention that deletes an old graph makes nothing due.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from fnmatch import fnmatchcase

import polars as pl

from heap_assets import clock
from heap_assets.errors import MissingInputError, SettingsError
from heap_assets.pipelines.events import name_of_messages
from heap_assets.pipelines.readiness import graph_is_due, last_attempts
from heap_assets.pipelines.table import BuiltTable, Task
from heap_assets.profiles import heap_events_unified, messages_unified
from heap_assets.project import Project
from heap_assets.sources.heap_bigquery import events_table as wide
from heap_assets.sources.heap_connect import without_own
from heap_assets.storage import Inputs
from heap_assets.tables import GRAPH, UNIFIED_EVENTS, heap_asset
from heap_assets.versions import version_of

_RULES = 1
"""Version of the rules by which a day is made."""


def unified_sources(project: Project) -> list[str]:
    """Return the assets that unified events are made of; none unless the settings ask for the table.

    Raises
    ------
    SettingsError
        If a name among them is no table of events.
    """
    chosen = project.settings.unified_events
    if chosen is None:
        return []
    tables = [*map(heap_asset, project.event_tables), *project.message_tables]
    for index, pattern in enumerate(chosen.assets):
        if not any(sign in pattern for sign in "*?[") and pattern not in tables:
            raise SettingsError(
                f"unified_events.assets[{index}] is {pattern!r}, which is no table of events. "
                f"Tables: {', '.join(tables) or 'none'}"
            )
    return [asset for asset in tables if _fits(asset, chosen.assets) and not _fits(asset, chosen.exclude)]


def _fits(asset: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(asset, pattern) for pattern in patterns)


def unified_day(task: Task) -> BuiltTable:
    """Return the unified events of a day.

    Raises
    ------
    MissingInputError
        If no table has the day, or no graph is resolved yet.
    """
    project, lake, day = task.project, task.project.lake, str(task.day)
    sources = unified_sources(project)
    graph_day = _graph_of(project, task.day)
    if graph_day is None:
        raise MissingInputError(f"{GRAPH} has not been built yet: materialize the identity group first")
    inputs = _inputs(project, task.day, graph_day)
    built = [asset for asset in sources if f"{asset}@{day}" in inputs.versions]
    if not built:
        raise MissingInputError(f"no table of events has {day}: materialize it first")
    graph = lake.scan(GRAPH, graph_day)
    frames = []
    if events := {project.heap_tables[a]: without_own(lake.scan(a, day)) for a in built if a in project.heap_tables}:
        frames.append(heap_events_unified(wide.events_table(events, None, _names(project)), graph))
    for asset in built:
        if (table := project.message_tables.get(asset)) is not None:
            rows = without_own(lake.scan(asset, day, schema=table.schema))
            column, _ = name_of_messages(asset)
            source = project.event_sources[asset]
            frames.append(messages_unified(rows, source, graph, project.rules, named=column, root=table.root))
    return BuiltTable(pl.concat(frames), inputs, {"graph": graph_day, "tables": len(built)})


def unbuilt_unified_days(project: Project) -> dict[str, set[date]]:
    """Return the days of `unified_events` whose inputs are others than those they were built from.

    A day whose graph is about to be resolved waits for it.
    """
    sources = unified_sources(project)
    if not sources or not project.lake.partitions(GRAPH):
        return {}
    resolving = graph_is_due(project)
    return {UNIFIED_EVENTS: {day for day in _changed_days(project, sources) if day != resolving}}


def _changed_days(project: Project, sources: list[str]) -> Iterator[date]:
    lake, first = project.lake, str(project.settings.first_day)
    versions = {asset: lake.versions(asset) for asset in sources}
    graphs, own = lake.versions(GRAPH), lake.versions(UNIFIED_EVENTS)
    attempts = last_attempts(project, UNIFIED_EVENTS)
    settings = _settings_version(project)
    for key in sorted({key for by_day in versions.values() for key in by_day if key >= first}):
        day = date.fromisoformat(key)
        if day > clock.today():
            continue
        if key not in own:
            if key not in attempts:
                yield day
            continue
        partition = lake.find(UNIFIED_EVENTS, key)
        built = dict(partition.inputs.versions) if partition else {}
        current = {f"{asset}@{key}": by_day[key] for asset, by_day in versions.items() if key in by_day}
        before = {name: version for name, version in built.items() if not name.startswith(("settings", f"{GRAPH}@"))}
        if before != current or built.get("settings") != settings or _has_newer_graph(built, graphs, key):
            yield day


def _has_newer_graph(built: dict[str, str], graphs: dict[str, str], day: str) -> bool:
    """Return whether the day has a graph that it was not built with; one that was deleted since is none."""
    return day in graphs and built.get(f"{GRAPH}@{day}") != graphs[day]


def _graph_of(project: Project, day: date) -> str | None:
    """Return the day of the graph that says who people were: of the day, else the first later one, else the newest."""
    days = project.lake.partitions(GRAPH)
    later = [key for key in days if key >= str(day)]
    return later[0] if later else (days[-1] if days else None)


def _inputs(project: Project, day: date, graph_day: str) -> Inputs:
    lake, key = project.lake, str(day)
    stored = {asset: lake.versions(asset) for asset in unified_sources(project)}
    versions = {f"{asset}@{key}": by_day[key] for asset, by_day in stored.items() if key in by_day}
    versions[f"{GRAPH}@{graph_day}"] = lake.versions(GRAPH)[graph_day]
    return Inputs({**versions, "settings": _settings_version(project)})


def _settings_version(project: Project) -> str:
    people = {asset: project.event_sources[asset].mappings for asset in project.message_tables}
    return version_of([_RULES, _names(project), people])


def _names(project: Project) -> dict[str, str]:
    """Return what people call Heap's events."""
    tables = project.catalogue.tables
    return {name: tables[name].display_name for name in project.event_tables if name in tables}
