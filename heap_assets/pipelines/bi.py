"""What BI tools are told of a publish target: the tables that have a day, their columns, joins and readers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date

from heap_assets.activation import connector_of
from heap_assets.bi import Column, Exposure, Join, Kind, Layer, Table
from heap_assets.config import SqlLocation
from heap_assets.errors import SettingsError
from heap_assets.pipelines.column_docs import column_docs
from heap_assets.pipelines.publishing import (
    EVENTS,
    PublishedTable,
    day_of,
    open_publisher,
    published_tables,
    resolvable,
)
from heap_assets.profiles import UNIFIED_KEY
from heap_assets.project import Project
from heap_assets.sources.warehouse import DAY_COLUMN, Publisher
from heap_assets.tables import (
    GRAPH,
    PROFILES,
    SESSIONS,
    SNAPSHOT_TABLES,
    UNIFIED_EVENTS,
    USERS,
    is_heap_table,
    is_warehouse_table,
    source_of,
    warehouse_table,
)

_KEYS: Mapping[str, tuple[str, ...]] = {
    USERS: ("user_id",),
    PROFILES: ("profile_id",),
    GRAPH: ("identifier_type", "identifier"),
    UNIFIED_EVENTS: UNIFIED_KEY,
}
_DAY = Column(DAY_COLUMN, Kind.DATE, "Day of the lake's partition that the row is of, UTC.")
_VIEWED = (
    Column("resolved_user_id", Kind.INTEGER, "Heap's number of the user, with today's migrations applied."),
    Column("profile_id", Kind.TEXT, "The person as of today; empty if nobody knows the user."),
)


def target_of(project: Project, target: str | None) -> str:
    """Return the target that is meant: the only one unless named.

    Raises
    ------
    SettingsError
        If there is none of the name, none at all, or several and no name.
    """
    targets = project.settings.publish
    if not targets:
        raise SettingsError("there is no `publish:` section in the settings: BI tools read tables that are published")
    if target is None and len(targets) > 1:
        raise SettingsError(f"publish has several targets: {', '.join(targets)}; name one with --target")
    if target is not None and target not in targets:
        raise SettingsError(f"publish has no target {target!r}. Targets: {', '.join(targets)}")
    return target or next(iter(targets))


def layer_of(project: Project, target: str) -> tuple[Layer, list[str]]:
    """Return what is known of a target's tables, and the assets that have no day yet, which tell no columns.

    The target itself is not queried. Event rows are those of the `heap_resolved` views where there are any.
    """
    settings, publisher = project.settings.publish[target], open_publisher(project, target)
    location: SqlLocation = settings.sql_location
    views = {table.publication.table for table in resolvable(project, target)}
    tables: dict[str, Table] = {}
    by_asset: dict[str, str] = {}
    unbuilt = []
    for published in published_tables(project, target):
        if published.of is not None:
            continue  # the same rows as by day
        day, name = _newest_day(project, published), published.publication.table
        asset = EVENTS if name == EVENTS else published.sources[0]
        if day is None:
            unbuilt.append(asset)
            continue
        into = str(settings.resolved_views) if name in views else None
        tables[name] = _table(project, publisher, published, day, location, into)
        by_asset[asset] = name
    joins = tuple(_joins(tables, by_asset, location))
    spelled = tuple(tables.values())
    return Layer(target, location, spelled, joins, tuple(_exposures(project, tables, by_asset, target))), unbuilt


def _newest_day(project: Project, table: PublishedTable) -> date | None:
    sources = table.sources[:-1] if table.publication.table == EVENTS else table.sources
    days = [day for asset in sources if (day := project.lake.newest_partition(asset, date.max)) is not None]
    return max(days, default=None)


def _table(
    project: Project, publisher: Publisher, table: PublishedTable, day: date, location: SqlLocation, view: str | None
) -> Table:
    frame, asset = day_of(project, table, day).frame, table.sources[0]
    names = publisher.column_names(table.publication, frame)
    is_wide = table.publication.table == EVENTS
    docs = {} if is_wide else column_docs(project, asset)
    columns = list(_VIEWED) if view else []
    columns.append(_DAY)
    for column, dtype in frame.collect_schema().items():
        if column in names:
            doc = docs.get(column)
            text = doc.text if doc else table.publication.descriptions.get(column, "")
            columns.append(Column(names[column], Kind.of(dtype), text, bool(doc and doc.personal)))
    is_of_heap = is_wide or (is_heap_table(asset) and project.heap_tables[asset] not in SNAPSHOT_TABLES)
    is_event = is_of_heap or asset == UNIFIED_EVENTS
    key = ("event_id", "user_id") if is_of_heap else _key(project, asset)
    spelled = tuple(Column(location.spelled(c.name), c.kind, c.description, c.personal) for c in columns)
    present = {column.name for column in spelled}
    key = tuple(location.spelled(names.get(column, column)) for column in key)
    time = location.spelled("time" if is_event else DAY_COLUMN)
    return Table(
        location.spelled(table.publication.table),
        location.spelled(view) if view else location.schema,
        table.publication.description,
        spelled,
        newest=not is_event,
        key=key if set(key) <= present else (),
        time=time if time in present else None,
    )


def _key(project: Project, asset: str) -> tuple[str, ...]:
    if is_warehouse_table(asset) and source_of(asset):
        return (project.settings.source_tables[warehouse_table(asset)].key,)
    return _KEYS.get(asset, ())


def _joins(tables: Mapping[str, Table], by_asset: Mapping[str, str], location: SqlLocation) -> Iterator[Join]:
    """Yield the joins whose columns are there on both sides, of one kind, to one row of the right side each."""
    of_users = {"resolved_user_id": "user_id"}, {"user_id": "user_id"}
    ways = {
        PROFILES: ({"profile_id": "profile_id"},),
        USERS: of_users,
        SESSIONS: ({"session_id": "session_id", "user_id": "user_id"},),
    }
    for left in tables.values():
        for asset, choices in ways.items():
            right = tables.get(by_asset.get(asset, ""))
            if right is None or right is left or (left.newest and asset != PROFILES):
                continue
            for pairs in choices:
                on = tuple((location.spelled(one), location.spelled(other)) for one, other in pairs.items())
                if all(_are_equal(left, right, *pair) for pair in on):
                    yield Join(left.name, right.name, on)
                    break


def _are_equal(left: Table, right: Table, one: str, other: str) -> bool:
    return left.has(one) and right.has(other) and left.column(one).kind is right.column(other).kind


def _exposures(
    project: Project, tables: Mapping[str, Table], by_asset: Mapping[str, str], target: str
) -> Iterator[Exposure]:
    for name, sync in project.settings.sync.items():
        read = [by_asset[asset] for asset in connector_of(project, name).all_inputs if asset in by_asset]
        if read:
            description = f"Sync of kind {sync.kind_name()} by heap_assets, which reads the tables that {target} has"
            owner = project.settings.run.owner or "team:data"
            yield Exposure(f"sync_{name}", description, tuple(tables[table].name for table in read), owner)
