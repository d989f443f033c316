"""Which rows a sync sends on a day, each with the key of the destination."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal

import polars as pl

from heap_assets import clock
from heap_assets.activation import (
    Addressed,
    AddressPolicy,
    EventMapping,
    addressed,
    addressed_events,
    anonymous_id,
    event_rows,
    identify_candidates,
    nobody,
    reidentify_rows,
)
from heap_assets.config import BaseSync, WarehouseTable
from heap_assets.config import sync as kinds
from heap_assets.errors import MissingInputError, SettingsError
from heap_assets.identity import (
    HEAP_IDENTITY,
    HEAP_USER_ID,
    assign,
    only_suppressed,
    suppressed_values,
    why_not,
    without_suppressed,
)
from heap_assets.pipelines.delivery_columns import own_columns
from heap_assets.pipelines.delivery_since import enabled_on, since_of
from heap_assets.pipelines.golden import standing_partition
from heap_assets.pipelines.suppression import suppressed_users
from heap_assets.project import Project
from heap_assets.sources.heap_connect import resynced_users
from heap_assets.tables import GRAPH, MIGRATIONS, PROFILES, USERS, warehouse_asset
from heap_assets.values import PRIVATE, apart, read_times, set_apart

_PROFILE = f"{PRIVATE}profile_id"

Rows = pl.LazyFrame | Addressed


def rows_of(project: Project, name: str, day: date) -> Rows:
    """Return the rows of a day; of every kind but `segment_track`, whose tables have rows of their own."""
    sync = project.settings.sync[name]
    match sync:
        case kinds.HeapUserProperties(source="profiles"):
            profiles = project.lake.scan(PROFILES, str(day))
            refused = _refused(project, profiles)
            return addressed(profiles, newest_users(project), _policy(project, sync), refused)
        case kinds.HeapUserProperties():
            return _table_of_identities(project, sync, day)
        case kinds.HeapAccountProperties():
            return _keyed(project, sync, sync.key, day)
        case kinds.HeapEvents():
            return _events(project, name, sync, day)
        case kinds.HeapIdentify():
            return _identify(project, sync, day)
        case kinds.SegmentIdentify():
            return by_identifier(project, sync.user_id, sync.identities, day)
        case kinds.SegmentGroup():
            return _groups(project, sync, day)
        case kinds.SegmentReidentify():
            return _reidentify(project, name)
        case kinds.Webhook() | kinds.Custom():
            return _anywhere(project, name, sync, day)
    raise SettingsError(f"sync.{name}.kind is {sync.kind!r}, which has no rows of its own")


def newest(project: Project, asset: str) -> pl.LazyFrame:
    """Return how a snapshot table stands now."""
    found = standing_partition(project.lake, asset, clock.today())
    if found is None:
        raise MissingInputError(f"{asset} has no partition yet: nothing can be sent before it is materialized")
    return project.lake.scan(asset, str(found))


def newest_users(project: Project) -> pl.LazyFrame:
    """Return Heap's users as they stand now."""
    return newest(project, USERS)


def newest_profiles_day(project: Project) -> date | None:
    """Return the newest day that has both a graph and the profiles made of it."""
    both = set(project.lake.partitions(GRAPH)) & set(project.lake.partitions(PROFILES))
    days = [day for day in both if day <= clock.today().isoformat()]
    return date.fromisoformat(max(days)) if days else None


def by_identifier(
    project: Project, identifier_type: str, identities: Literal["all", "one", "none"], day: date
) -> Addressed:
    """Return profiles by identifiers of a type, new ones too: only Heap makes ghosts of unknown keys."""
    rows = project.lake.scan(PROFILES, str(day))
    if identifier_type != HEAP_IDENTITY:
        rows = rows.with_columns(heap_identities=_values(identifier_type)).drop("heap_identity", strict=False)
    users = newest_users(project) if identifier_type == HEAP_IDENTITY else _no_users()
    policy = AddressPolicy(
        identities=identities,
        allow_new=True,
        suppressed=_suppressed(project, identifier_type),
    )
    if identifier_type == HEAP_IDENTITY:
        return addressed(rows, users, policy, _refused(project, rows))
    return addressed(rows, users, replace(policy, missing=f"the profile has no {identifier_type} yet"))


def _refused(project: Project, profiles: pl.LazyFrame) -> pl.LazyFrame:
    """Return profile_id, reason: profiles of Heap users whose identity the rules take for none, and why."""
    why = why_not(pl.col("identity"), HEAP_IDENTITY, project.rules)
    refused = (
        newest_users(project)
        .filter(pl.col("identity").is_not_null(), pl.col("migrated_to").is_null())
        .select("user_id", why=why)
        .filter(pl.col("why").is_not_null())
    )
    return (
        profiles.select("profile_id", user_id="heap_user_ids")
        .explode("user_id", empty_as_null=False, keep_nulls=False)
        .join(refused, on="user_id")
        .group_by("profile_id")
        .agg(reason=pl.format("its Heap identity is no identifier: {}", pl.col("why").min()))
    )


def _values(identifier_type: str) -> pl.Expr:
    of_type = pl.element().struct.field("type") == identifier_type
    return (
        pl.col("identifiers")
        .list.filter(of_type)
        .list.eval(pl.element().struct.field("value"))
        .list.unique()
        .list.sort()
    )


def _no_users() -> pl.LazyFrame:
    moment = pl.Datetime("us", "UTC")
    return pl.LazyFrame(schema={"identity": pl.String(), "migrated_to": pl.Int64(), "last_modified": moment})


def _table_of_identities(project: Project, sync: kinds.HeapUserProperties, day: date) -> Addressed:
    """Rows of a table as if each were a profile: two rows of one identity are nobody's, unknown ones are held."""
    rows = _rows_of_table(project, sync, day)
    label = pl.concat_str(pl.lit(f"{sync.source} row "), pl.int_range(pl.len()).cast(pl.String))
    key = pl.col(apart(str(sync.key), own_columns(sync))).cast(pl.String)
    lists = pl.when(key.is_not_null()).then(pl.concat_list(key)).otherwise(pl.lit([], pl.List(pl.String)))
    rows = rows.with_columns(profile_id=label, heap_identities=lists)
    policy = replace(_policy(project, sync), missing=f"the row has no {sync.key}")
    return addressed(rows, newest_users(project), policy)


def _keyed(project: Project, sync: BaseSync, key: str | None, day: date) -> pl.LazyFrame:
    column = key or table_settings(project, sync.source).key
    under = apart(column, own_columns(sync))
    rows = _rows_of_table(project, sync, day)
    if under not in rows.collect_schema():
        raise SettingsError(f"{warehouse_asset(sync.source)} has no column {column!r} to be the destination's key")
    return rows.with_columns(pl.col(under).cast(pl.String).alias("key"))


def _keyed_people(project: Project, sync: kinds.Webhook | kinds.Custom, day: date) -> Addressed:
    """Rows of a table by key; those that name a suppressed person are held: neither sent nor cleared."""
    rows = _keyed(project, sync, sync.key, day)
    asset = warehouse_asset(sync.source)
    key = pl.col(sync.key or table_settings(project, sync.source).key).cast(pl.String)
    stored = project.lake.scan(asset, str(day))
    named = only_suppressed(stored, project.snapshot_sources[asset], project.rules).select(key=key).collect()["key"]
    held = named.drop_nulls().unique().sort().to_frame().select(
        profile_id=pl.lit(None, pl.String), key="key", reason=pl.lit("suppressed")
    )  # fmt: skip
    return Addressed(rows.filter(~pl.col("key").is_in(held["key"].implode())), held.lazy(), nobody())


def _rows_of_table(project: Project, sync: BaseSync, day: date) -> pl.LazyFrame:
    """Scan a warehouse table, its columns apart from those that addressing puts beside them."""
    rows = project.lake.scan(warehouse_asset(sync.source), str(day))
    return rows.rename(set_apart(rows.collect_schema(), own_columns(sync)))


def _events(project: Project, name: str, sync: kinds.HeapEvents, day: date) -> Addressed:
    """Rows of the day's table, each to the identity that its profile has in the newest graph."""
    asset = warehouse_asset(sync.source)
    graph_day = newest_profiles_day(project)
    if graph_day is None:
        raise MissingInputError(f"{PROFILES} has no partition yet: events go to people")
    table = project.snapshot_sources[asset]
    if not table.mappings:
        raise SettingsError(
            f"sync.{name}: warehouse.tables.{sync.source} maps no identifiers, so nobody is meant by it"
        )
    graph = project.lake.scan(GRAPH, str(graph_day))

    def belonging(rows: pl.LazyFrame) -> pl.LazyFrame:
        return assign(rows, table, graph, project.rules, under=_PROFILE)

    rows, since = _new_events(project, name, sync, day, belonging)
    profiles = project.lake.scan(PROFILES, str(graph_day))
    return addressed_events(
        rows.rename({_PROFILE: "profile_id"}),
        profiles,
        newest_users(project),
        _policy(project, sync),
        day=day,
        since=since,
        hold_days=sync.hold_days,
        refused=_refused(project, profiles),
    )


def _new_events(
    project: Project,
    name: str,
    sync: kinds.HeapEvents | kinds.Webhook | kinds.Custom,
    day: date,
    also: Callable[[pl.LazyFrame], pl.LazyFrame] = lambda rows: rows,
) -> tuple[pl.LazyFrame, datetime | None]:
    """Return a table's rows as events, and since when they are sent.

    Rows without a time are new if the newest partition before `since` does not have them.
    """
    asset, settings = warehouse_asset(sync.source), table_settings(project, sync.source)
    stamp = sync.timestamp_column or settings.created_at
    mapping = EventMapping(sync.event_name, sync.event_name_column, sync.event_key, stamp)
    scanned = project.lake.scan(asset, str(day))
    columns = scanned.collect_schema().names()
    scanned = without_suppressed(scanned, project.snapshot_sources[asset], project.rules)
    rows, since = event_rows(also(scanned), mapping, columns), since_of(project, name)
    if since is None or stamp is not None:
        return rows, since
    before = [key for key in project.lake.partitions(asset) if key < since.date().isoformat()]
    if not before:
        raise SettingsError(
            f"sync.{name}: {sync.source} has no timestamp_column (nor created_at) and no day before {since:%Y-%m-%d} "
            "to compare with, so its history cannot be told from news: name a column, or set since: beginning"
        )
    known = project.lake.scan(asset, before[-1])
    shared = [column for column in columns if column in known.collect_schema()]
    old = event_rows(known, mapping, shared).select("event_key")
    return rows.join(old, on="event_key", how="anti"), None


def _identify(project: Project, sync: kinds.HeapIdentify, day: date) -> pl.LazyFrame:
    lake = project.lake
    then = graph_then(project, sync, day)
    if then is None:
        raise MissingInputError(
            f"{GRAPH} has no partition of {sync.stands_days} days before {day}: joins must have stood"
        )
    return identify_candidates(
        lake.scan(GRAPH, str(day)),
        lake.scan(GRAPH, str(then)),
        lake.scan(PROFILES, str(day)),
        newest_users(project),
        user_id_type=HEAP_USER_ID,
        identity_type=HEAP_IDENTITY,
    )


def _reidentify(project: Project, name: str) -> pl.LazyFrame:
    """People whose history changed since the sync first ran: merged users, and those in a full resync."""
    resynced = None
    if project.settings.heap.source.kind != "bigquery":
        resynced = resynced_users(project.landing, enabled_on(project, name) or clock.today())
    app_id = project.settings.heap.app_id
    rows = reidentify_rows(newest(project, MIGRATIONS), newest_users(project), app_id, resynced)
    gone = suppressed_users(project)
    if gone.is_empty():
        return rows
    unnamed = gone.select(name=anonymous_id(app_id, pl.col("user_id")))["name"]
    identities = gone["identity"].drop_nulls()
    return rows.filter(~pl.col("key").is_in(identities.implode()), ~pl.col("anonymous_id").is_in(unnamed.implode()))


def graph_then(project: Project, sync: kinds.HeapIdentify, day: date) -> date | None:
    """Return the newest graph that is old enough to say which joins have stood."""
    return standing_partition(project.lake, GRAPH, date.fromordinal(day.toordinal() - sync.stands_days))


def _groups(project: Project, sync: kinds.SegmentGroup, day: date) -> pl.LazyFrame:
    """Accounts with one of their members: who it is does not count as a change."""
    rows = _keyed(project, sync, sync.key, day)
    if sync.member_column is not None:
        member = pl.col(apart(sync.member_column, own_columns(sync))).cast(pl.String)
        gone = sorted(_suppressed(project, sync.user_id))
        return rows.with_columns(user_id=pl.when(~member.is_in(gone)).then(member))
    people = by_identifier(project, sync.user_id, "all", day).rows
    members = people.group_by(_account=pl.col(str(sync.member_trait)).cast(pl.String)).agg(user_id=pl.col("key").min())
    return rows.join(members, left_on="key", right_on="_account", how="left")


def _anywhere(project: Project, name: str, sync: kinds.Webhook | kinds.Custom, day: date) -> Rows:
    if sync.source == PROFILES:
        return by_identifier(project, sync.key or HEAP_IDENTITY, sync.identities, day)
    if sync.event_name is None and sync.event_name_column is None:
        return _keyed_people(project, sync, day)
    rows, since = _new_events(project, name, sync, day)
    happened = read_times(pl.col("time"))
    kept = rows if since is None else rows.filter((happened >= since).fill_null(value=True))
    column = apart(sync.key or table_settings(project, sync.source).key, own_columns(sync))
    return kept.with_columns(pl.col(column).cast(pl.String).alias("key"))


def table_settings(project: Project, table: str) -> WarehouseTable:
    """Return the settings of a warehouse table."""
    tables = project.settings.warehouse.tables if project.settings.warehouse else {}
    return tables[table]


def _policy(project: Project, sync: kinds.HeapUserProperties | kinds.HeapEvents) -> AddressPolicy:
    """Return who may be written to: identities in the newest users, which must not be older than two cadences."""
    cadence = project.settings.heap.cadence
    as_of = users_as_of(project)
    policy = AddressPolicy(identities=sync.identities, users_as_of=as_of, cadence=cadence, now=clock.now())
    return replace(policy, suppressed=_suppressed(project, HEAP_IDENTITY))


def users_as_of(project: Project) -> datetime | None:
    """Return when the newest users were exported: what their partition notes, else the end of its day."""
    day = standing_partition(project.lake, USERS, clock.today())
    found = project.lake.find(USERS, str(day)) if day else None
    if day is None or found is None:
        return None
    noted = found.notes.get("as_of")
    if noted:
        moment = datetime.fromisoformat(str(noted))
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return datetime.combine(day, time.min, UTC) + timedelta(days=1)


def _suppressed(project: Project, identifier_type: str) -> frozenset[str]:
    listed = suppressed_values(project.rules, identifier_type)
    if identifier_type != HEAP_IDENTITY:
        return listed
    return listed | frozenset(suppressed_users(project)["identity"].drop_nulls())
