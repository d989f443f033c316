"""Publishing: the tables of each target in `publish:`, the days of them that are due, and their rows."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from fnmatch import fnmatchcase
from typing import Final

import polars as pl

from heap_assets.errors import MissingInputError, SettingsError
from heap_assets.pipelines.unified_events import unified_sources
from heap_assets.profiles import UNIFIED
from heap_assets.project import Project, check_publish_hosts
from heap_assets.sources.heap_bigquery import events_table as wide
from heap_assets.sources.warehouse import (
    DAY_COLUMN,
    RESOLVED_COLUMNS,
    Preview,
    Publication,
    Published,
    Publisher,
    PublishError,
    PublishStatus,
    ResolvedOn,
    table_name,
    table_names,
)
from heap_assets.tables import (
    AUDIENCES,
    AUDIT,
    CHANGES,
    CONFLICTS,
    GRAPH,
    INBOX_ACCOUNTS,
    INBOX_USERS,
    LINKS,
    MIGRATIONS,
    PROFILES,
    REVIEW,
    SHARED,
    SNAPSHOT_TABLES,
    UNIFIED_EVENTS,
    USERS,
    analytics_asset,
    heap_asset,
    is_heap_table,
    is_warehouse_table,
    model_asset,
    publish_asset,
    signal_asset,
    warehouse_asset,
    warehouse_table,
)

EVENTS = "events"
"""The name in `assets` of the wide table of all event tables."""

_CLUSTERED = {
    USERS: ("user_id",),
    MIGRATIONS: ("from_user_id",),
    LINKS: ("type_a", "value_a"),
    GRAPH: ("identifier_type", "identifier"),
    CONFLICTS: ("type_a", "value_a"),
    SHARED: ("identifier_type", "identifier"),
    CHANGES: ("kind",),
    REVIEW: ("kind",),
    PROFILES: ("profile_id",),
    AUDIT: (),
}


@dataclass(frozen=True)
class PublishedTable:
    """A table of a target, and the assets of the lake that it is made of.

    `of`: of a table that is published whole, the one by day that it has all days of, or the newest of a snapshot.
    """

    target: str
    publication: Publication
    sources: tuple[str, ...]
    of: PublishedTable | None = None

    @property
    def asset(self) -> str:
        return publish_asset(self.target, self.publication.table)


@dataclass(frozen=True)
class PublishedDay:
    """One day to publish: its rows, the version of its inputs, and a function that counts nulled values by column."""

    frame: pl.LazyFrame
    version: str
    lost: Callable[[], Mapping[str, int]] = dict


def publishable(project: Project) -> list[str]:
    """Return the assets that can be published, in the order of the pipeline."""
    tables = project.settings.read_tables
    events = [heap_asset(table) for table in project.event_tables]
    messages = [*project.message_tables, *((INBOX_USERS, INBOX_ACCOUNTS) if project.settings.inbox else ())]
    unified = [UNIFIED_EVENTS] if unified_sources(project) else []
    settings = project.settings
    derived = [AUDIENCES] if settings.profiles.audiences else []
    derived += settings.account_assets
    derived += [*map(signal_asset, settings.signals), *map(analytics_asset, settings.analytics)]
    own = [*list(_CLUSTERED)[2:], *unified, *derived, *map(model_asset, settings.models), EVENTS]
    return [*events, USERS, MIGRATIONS, *map(warehouse_asset, tables), *messages, *own]


def published_tables(project: Project, target: str) -> list[PublishedTable]:
    """Return the tables that a target of the settings asks for.

    Raises
    ------
    SettingsError
        If it names an asset that there is not.
    """
    settings, assets = project.settings.publish[target], publishable(project)
    for index, pattern in enumerate(settings.assets):
        if not any(sign in pattern for sign in "*?[") and pattern not in assets:
            raise SettingsError(
                f"publish.{target}.assets[{index}] is {pattern!r}, which is no asset. Assets: {', '.join(assets)}"
            )

    def is_selected(asset: str) -> bool:
        is_included = any(fnmatchcase(asset, pattern) for pattern in settings.assets)
        return is_included and not any(fnmatchcase(asset, pattern) for pattern in settings.exclude)

    names = table_names(assets)
    by_day = [_table(project, target, asset, names[asset]) for asset in assets if is_selected(asset)]
    return [*by_day, *map(_full_table, by_day)] if settings.full else by_day


def _full_table(table: PublishedTable) -> PublishedTable:
    """Return the table that is published whole beside one by day."""
    one = table.publication
    description = f"All of {one.table}, replaced whole: {one.description}"
    publication = replace(one, table=f"{one.table}{_FULL}", by_day=False, description=description)
    return PublishedTable(table.target, publication, table.sources, table)


def resolvable(project: Project, target: str) -> list[PublishedTable]:
    """Return the tables that get a `heap_resolved` view; none unless graph and migrations are published too."""
    tables = {table.publication.table: table for table in published_tables(project, target) if table.of is None}
    settings = project.settings.publish[target]
    if not settings.resolved_views or not {_MIGRATIONS, _GRAPH} <= set(tables):
        return []
    # compared without case: engines and Dagster's storage may
    owners = {name.casefold(): f"the table {name}" for name in tables}
    owners[settings.container.rpartition(".")[2].casefold()] = f"where its tables are, {settings.container}"
    if other := owners.get(settings.resolved_views.casefold()):
        raise SettingsError(
            f"publish.{target}.resolved_views is {settings.resolved_views!r}, the name of {other}: expected another"
        )
    events = {heap_asset(table) for table in project.event_tables}
    return [table for name, table in tables.items() if name == EVENTS or table.sources[0] in events]


def open_publisher(project: Project, target: str) -> Publisher:
    """Return the publisher of a target; it connects only while something is published."""
    check_publish_hosts(project.settings, target)
    publisher: Publisher = project.settings.publish[target].open(project.lake.store, f"publish.{target}")
    return publisher


def publish_day(
    project: Project, publisher: Publisher, table: PublishedTable, day: date, *, force: bool = False
) -> Published:
    """Publish one day of a table; `unchanged` if what it is made of was published already.

    Raises
    ------
    MissingInputError
        If the day has not been built: a missing day is never published as an empty one.
    """
    rows_of_day = day_of(project, table, day)
    version_day = None if table.of else day
    published = publisher.publish(table.publication, version_day, rows_of_day.frame, rows_of_day.version, force=force)
    if published.status is not PublishStatus.LOADED:
        return published
    return replace(published, lost=dict(Counter(published.lost) + Counter(rows_of_day.lost())))


def preview_day(project: Project, publisher: Publisher, table: PublishedTable, day: date) -> Preview:
    """Return what publishing a day would change in its table; writes nothing."""
    return publisher.preview(table.publication, day_of(project, table, day).frame, None if table.of else day)


def due_days(project: Project, publisher: Publisher, table: PublishedTable) -> list[date]:
    """Return the built days whose current version is not in the target, oldest first.

    Raises
    ------
    WarehouseError
        If the target cannot be reached, which is queried for the days that it still holds.
    """
    name = table.publication.table
    if table.of is None:
        return unpublished_days(project, publisher, table, intact_days=publisher.intact_days(name))
    if publisher.is_intact(name, None):
        return unpublished_days(project, publisher, table)
    days = _built_days(table, {asset: project.lake.versions(asset) for asset in table.sources})
    return [date.fromisoformat(day) for day in days[-1:]]


def unpublished_days(
    project: Project, publisher: Publisher, table: PublishedTable, *, intact_days: Container[date | None] | None = None
) -> list[date]:
    """Return the built days whose current version the publish log does not have, oldest first; queries no target.

    Of a table that is published whole it is the newest day, if any of its days is not in there as it is now.

    Parameters
    ----------
    intact_days
        The days that the target still holds; others are to be published again. Without it, it holds all that it got.
    """
    versions = {asset: project.lake.versions(asset) for asset in table.sources}
    names = _event_names(project, table)
    days = _built_days(table, versions)
    if table.of is not None:
        version = _whole_version(project, table.of, versions)
        is_published = not days or publisher.is_published(table.publication.table, None, version)
        return [] if is_published else [date.fromisoformat(days[-1])]
    return [
        day
        for day in map(date.fromisoformat, days)
        if (intact_days is not None and day not in intact_days)
        or not publisher.is_published(
            table.publication.table, day, _version(_source_partitions(versions, table, day), names)
        )
    ]


def make_views(project: Project, publisher: Publisher, target: str) -> list[str] | None:
    """Create the `heap_resolved` views of all published tables; returns the names of those that changed.

    None if no table was published, or not the graph and the migrations that the views join.

    Raises
    ------
    PublishError
        If the published graph or migrations are gone from the target, or a view could not be created.
    """
    into = project.settings.publish[target].resolved_views
    graph, migrations = _newest(publisher, _GRAPH), _newest(publisher, _MIGRATIONS)
    tables = [table.publication.table for table in resolvable(project, target)]
    published = [name for name in tables if publisher.newest_published(name)]
    if into is None or not (graph and migrations and published):
        return None
    return publisher.resolve_views(published, into=into, on=ResolvedOn(migrations, graph))


def read_only_role(project: Project, target: str, role: str, *, execute: bool) -> list[str]:
    """Return the statements that let a role read what a target has, and nothing else; run them if asked to."""
    views = project.settings.publish[target].resolved_views if resolvable(project, target) else None
    return open_publisher(project, target).read_only_role(role, views, execute=execute)


def _newest(publisher: Publisher, table: str) -> date | None:
    day = publisher.newest_intact(table)
    if day is None and (published_on := publisher.newest_published(table)):
        raise PublishError(
            f"{table} of {published_on} was published to {publisher.target} and is no longer there: publish it"
        )
    return day


def last_published(publisher: Publisher, table: PublishedTable) -> tuple[date | None, datetime | None]:
    """Return the newest day of a table that was published, and when (UTC); of one that is whole, the day of that."""
    name = table.publication.table
    if table.of is not None:
        at = publisher.published_at(name, None)
        return (at.date() if at else None), at
    newest = publisher.newest_published(name)
    return newest, publisher.published_at(name, newest) if newest else None


def _built_days(table: PublishedTable, versions: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return the days that a table is built of, sorted: users only join the rows of the wide table."""
    sources = table.sources[:-1] if (table.of or table).publication.table == EVENTS else table.sources
    return sorted({day for asset in sources for day in versions[asset]})


def _whole_days(project: Project, table: PublishedTable, versions: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return the days whose rows a whole table has: all of events and messages, the newest of a snapshot."""
    days = _built_days(table, versions)
    return days if _adds_up(project, table) else days[-1:]


def _adds_up(project: Project, table: PublishedTable) -> bool:
    """Whether a table is of its days together; of the others a day is how things stood at its end."""
    asset = table.sources[0]
    is_of_events = asset in map(heap_asset, project.event_tables) or asset in project.message_tables
    return table.publication.table == EVENTS or is_of_events or asset in (UNIFIED_EVENTS, CHANGES)


def _whole_version(project: Project, table: PublishedTable, versions: dict[str, dict[str, str]]) -> str:
    names = _event_names(project, table)
    days = [date.fromisoformat(day) for day in _whole_days(project, table, versions)]
    parts = [_version(_source_partitions(versions, table, day), names) for day in days]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _whole_of(project: Project, table: PublishedTable) -> PublishedDay:
    """Return the rows of all days of a table, or of the newest of a snapshot, with their day as by day."""
    versions = {asset: project.lake.versions(asset) for asset in table.sources}
    days = [date.fromisoformat(day) for day in _whole_days(project, table, versions)]
    if not days:
        raise MissingInputError(f"{table.sources[0]} has no partition: materialize it first")
    parts = {day: day_of(project, table, day) for day in days}
    frames = [_dated(part.frame, day) for day, part in parts.items()]

    def lost() -> Mapping[str, int]:
        return sum((Counter(part.lost()) for part in parts.values()), Counter())

    rows = pl.concat(frames, how="diagonal_relaxed")
    return PublishedDay(rows, _whole_version(project, table, versions), lost)


def _dated(rows: pl.LazyFrame, day: date) -> pl.LazyFrame:
    """Put the day before the columns; a property that is called like it gets the name that it has by day."""
    if DAY_COLUMN in rows.collect_schema():
        rows = rows.rename({DAY_COLUMN: f"property_{DAY_COLUMN}"})
    return rows.select(pl.lit(day, pl.Date).alias(DAY_COLUMN), pl.all())


def day_of(project: Project, table: PublishedTable, day: date) -> PublishedDay:
    """Return the rows of a day, or of all of a whole table; see :func:`publish_day`."""
    if table.of is not None:
        return _whole_of(project, table.of)
    lake = project.lake
    versions = {asset: lake.versions(asset) for asset in table.sources}
    partitions = _source_partitions(versions, table, day)
    if not set(partitions) & set(table.sources[: max(1, len(table.sources) - 1)]):
        raise MissingInputError(f"{table.sources[0]} has no partition {day}: materialize it first")
    frames = {asset: lake.scan(asset, key) for asset, (key, _) in partitions.items()}
    if table.publication.table != EVENTS:
        return PublishedDay(frames[table.sources[0]], _version(partitions))
    users = frames.pop(USERS, None)
    events = {project.heap_tables[asset]: frame for asset, frame in frames.items()}
    names = _event_names(project, table)
    rows = wide.events_table(events, users, names)
    return PublishedDay(rows, _version(partitions, names), lambda: wide.values_lost(events, users))


_ABOUT_MESSAGES: Final = {
    "message_id": "What the sender calls the message; equal ones are one row",
    "received_at": "When it was taken in",
    "source": "Which source of the inbox posted it",
    "body": "The whole message as JSON",
}
_FULL = "_full"
"""Ending of the tables that are published whole."""
_GRAPH, _MIGRATIONS = table_name(GRAPH), table_name(MIGRATIONS)


def _table(project: Project, target: str, asset: str, name: str) -> PublishedTable:
    if asset == EVENTS:
        sources = (*(heap_asset(table) for table in project.event_tables), USERS)
        return PublishedTable(target, wide.PUBLICATION, sources)
    description, descriptions = _described(project, asset)
    cluster = _CLUSTERED.get(asset) or (("user_id",) if is_heap_table(asset) or asset in project.message_tables else ())
    if asset == UNIFIED_EVENTS:
        cluster = ("event", "profile_id")
    json_columns = frozenset({"properties"}) if asset == UNIFIED_EVENTS else frozenset[str]()
    reserved = RESOLVED_COLUMNS if asset in map(heap_asset, project.event_tables) else frozenset[str]()
    return PublishedTable(
        target,
        Publication(
            name,
            description=description,
            descriptions=descriptions,
            cluster_by=cluster,
            json_columns=json_columns,
            reserved=reserved,
        ),
        (asset,),
    )


def _described(project: Project, asset: str) -> tuple[str, dict[str, str]]:
    """Return what a table and its columns mean, from the catalogue and the settings."""
    name = asset.rpartition("/")[2]
    if is_heap_table(asset):
        name = project.heap_tables[asset]
        heap_table = project.catalogue.tables.get(name)
        columns = {column: about.description for column, about in heap_table.columns.items()} if heap_table else {}
        kind = "as they stood at the end of partition_day" if name in SNAPSHOT_TABLES else "of partition_day"
        return f"Heap's {heap_table.display_name if heap_table else name}, {kind}", columns
    if is_warehouse_table(asset):
        table = project.settings.source_tables[warehouse_table(asset)]
        return table.description or f"{table.relation} as it stood at the end of partition_day", {}
    if asset in project.message_tables:
        return f"Messages that happened on partition_day, of {asset}", _ABOUT_MESSAGES
    if asset == UNIFIED_EVENTS:
        about = {name: column.about for name, column in UNIFIED.items()}
        return "Events of Heap and of the inbox in the same columns, that happened on partition_day", about
    if asset == PROFILES:
        traits = project.settings.profiles.traits
        about = {name: trait.description for name, trait in traits.items() if trait.description}
        return "One row per person, as of the end of partition_day", about
    return f"{asset} as of the end of partition_day", {}


def _source_partitions(
    versions: dict[str, dict[str, str]], table: PublishedTable, day: date
) -> dict[str, tuple[str, str]]:
    """Return asset to partition and version of what a day is made of.

    Users join the wide table as they stood that day; for days before the first that was kept, as they first stood.
    """
    partitions = {asset: (str(day), by_day[str(day)]) for asset, by_day in versions.items() if str(day) in by_day}
    if table.publication.table == EVENTS and (user_days := sorted(versions[USERS])):
        earlier = [key for key in user_days if key <= str(day)]
        key = earlier[-1] if earlier else user_days[0]
        partitions[USERS] = (key, versions[USERS][key])
    return partitions


def _event_names(project: Project, table: PublishedTable) -> dict[str, str]:
    """Return what people call the events of the wide table; nothing for other tables."""
    if table.publication.table != EVENTS:
        return {}
    tables = project.catalogue.tables
    return {name: tables[name].display_name for name in project.event_tables if name in tables}


def _version(partitions: dict[str, tuple[str, str]], names: Mapping[str, str] | None = None) -> str:
    """Return the version of a day: of its sources, and of the names of events that are written into it."""
    digest_input = "\n".join(f"{asset}@{key} {version}" for asset, (key, version) in sorted(partitions.items()))
    digest_input += "".join(f"\n{table} is {name}" for table, name in sorted((names or {}).items()))
    return hashlib.sha256(digest_input.encode()).hexdigest()[:32]
