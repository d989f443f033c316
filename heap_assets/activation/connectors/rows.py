"""Rows of the lake as connectors take them: profiles by an identifier, tables by key, tables as events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal

import polars as pl

from heap_assets import clock
from heap_assets.activation.connectors.base import Connector, Deployment
from heap_assets.activation.connectors.consent import PERSON, belonging, column_of_events
from heap_assets.activation.engine.addressing import Addressed, AddressPolicy, no_addresses
from heap_assets.activation.engine.event_keys import EventKey, KeyedEvents, recorded_key
from heap_assets.activation.engine.events import EventMapping, event_rows
from heap_assets.activation.engine.selection import addressed
from heap_assets.activation.engine.tables import runs
from heap_assets.config import EventSettings
from heap_assets.errors import MissingInputError, SettingsError
from heap_assets.identity import HEAP_IDENTITY, only_suppressed, suppressed_values, why_not, without_suppressed
from heap_assets.tables import MIGRATIONS, PROFILES, USERS, is_inbox_table, is_signal
from heap_assets.values import PRIVATE, apart, key_text, read_times, set_apart

Identities = Literal["all", "one", "none"]
"""Whether a profile with several identities is sent to all, to one, or to none of them."""
_LATE_DAYS = 31
"""Days back from which messages that came late are sent."""
_SENT_PARTITIONS = 2
"""So many partitions, up to the day that was delivered last, say which keys its events had."""
_NEW_KEY, _FORMER_KEY = f"{PRIVATE}key", f"{PRIVATE}former_key"


def newest(deployment: Deployment, asset: str) -> pl.LazyFrame:
    """Return the newest day of a snapshot table."""
    day = deployment.lake.newest_partition(asset, clock.today())
    if day is None:
        raise MissingInputError(f"{asset} has no partition yet: nothing can be sent before it is materialized")
    return deployment.lake.scan(asset, str(day))


def newest_users(deployment: Deployment) -> pl.LazyFrame:
    """Return the newest day of Heap's users."""
    return newest(deployment, USERS)


def profiles_by_heap_identity(deployment: Deployment, identities: Identities, day: date) -> Addressed:
    """Return profiles by the Heap identities that Heap knows: it would create a new user for any other."""
    profiles = deployment.lake.scan(PROFILES, str(day))
    policy = address_policy(deployment, identities)
    return addressed(profiles, newest_users(deployment), policy, refused_profiles(deployment, profiles))


def profiles_by_identifier(
    deployment: Deployment, identifier_type: str, identities: Identities, day: date
) -> Addressed:
    """Return profiles by identifiers of a type, new ones too: only Heap creates users for unknown keys."""
    rows = deployment.lake.scan(PROFILES, str(day))
    policy = AddressPolicy(
        identities=identities, allow_new=True, suppressed=suppressed_keys(deployment, identifier_type)
    )
    if identifier_type == HEAP_IDENTITY:
        return addressed(rows, newest_users(deployment), policy, refused_profiles(deployment, rows))
    rows = rows.with_columns(heap_identities=_values(identifier_type)).drop("heap_identity", strict=False)
    return addressed(rows, _no_users(), replace(policy, missing=f"the profile has no {identifier_type} yet"))


def refused_profiles(deployment: Deployment, profiles: pl.LazyFrame) -> pl.LazyFrame:
    """Return profile_id, reason: profiles of Heap users whose identity the rules refuse as an identifier."""
    why = why_not(pl.col("identity"), HEAP_IDENTITY, deployment.rules)
    refused = (
        newest_users(deployment)
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


def table_rows(connector: Connector[Any], day: date) -> pl.LazyFrame:
    """Scan a sync's warehouse table; columns that are called like those of addressing are renamed."""
    rows = stored_rows(connector.deployment, connector.source_asset, day)
    return rows.rename(set_apart(rows.collect_schema(), connector.own_columns))


def stored_rows(deployment: Deployment, asset: str, day: date) -> pl.LazyFrame:
    """Return a table as it stood at the end of a day; of a signal, all firings up to it that are to be delivered."""
    lake = deployment.lake
    if not is_signal(asset):
        return lake.scan(asset, _days_read(deployment, asset, day))
    if lake.find(asset, str(day)) is None:
        raise MissingInputError(f"{asset} has no partition {day}: materialize it first")
    partitions = [partition for partition in lake.partitions(asset) if partition <= str(day)]
    rows = pl.concat(lake.scans(asset, partitions), how="diagonal_relaxed")
    return rows.filter((pl.col("status") == "fired") & pl.col("live"))


def keyed_rows(connector: Connector[Any], key: str | None, day: date) -> pl.LazyFrame:
    """Return the rows of a sync's warehouse table by a column, the table's own key unless given."""
    column = _key_column(connector, key)
    under = apart(column, connector.own_columns)
    rows = table_rows(connector, day)
    schema = rows.collect_schema()
    if under not in schema:
        raise SettingsError(f"{connector.source_asset} has no column {column!r} to be the destination's key")
    return rows.with_columns(key_text(pl.col(under), schema[under]).alias("key"))


def keyed_people(connector: Connector[Any], key: str | None, day: date) -> Addressed:
    """Return keyed rows; those that name a suppressed person are held: neither sent nor cleared."""
    deployment, asset = connector.deployment, connector.source_asset
    rows = keyed_rows(connector, key, day)
    stored, name = stored_rows(deployment, asset, day), _key_column(connector, key)
    column = key_text(pl.col(name), stored.collect_schema()[name])
    suppressed = only_suppressed(stored, deployment.table_sources[asset], deployment.rules).select(key=column)
    held = suppressed.collect()["key"].drop_nulls().unique().sort().to_frame().select(
        profile_id=pl.lit(None, pl.String), key="key", reason=pl.lit("suppressed")
    )  # fmt: skip
    return Addressed(rows.filter(~pl.col("key").is_in(held["key"].implode())), held.lazy(), no_addresses())


def _key_column(connector: Connector[Any], key: str | None) -> str:
    return key or connector.warehouse_tables[connector.settings.source].key


@dataclass(frozen=True)
class TableEvents:
    """The rows of a warehouse table as events."""

    rows: pl.LazyFrame
    since: datetime | None
    """Events before it are left alone."""
    keyed: KeyedEvents


def keyed_events(connector: Connector[Any], events: TableEvents, key: str | None) -> Addressed:
    """Return events that go to what a column of their row holds."""
    column = apart(_key_column(connector, key), connector.own_columns)
    happened = read_times(pl.col("time"))
    rows = events.rows
    if events.since is not None:
        rows = rows.filter((happened >= events.since).fill_null(value=True))
    rows = rows.with_columns(key_text(pl.col(column), rows.collect_schema()[column]).alias("key"))
    return Addressed(rows, no_addresses(), no_addresses(), keyed=events.keyed)


def table_events(
    connector: Connector[Any],
    sync: EventSettings,
    day: date,
    also: Callable[[pl.LazyFrame], pl.LazyFrame] | None = None,
) -> TableEvents:
    """Return the rows of a sync's warehouse table as events, and since when they are sent.

    `also`: adds columns to the rows; whose they are, unless given, where the sync asks for consent.

    Rows without a time are new if the newest partition before `since` does not have them.
    """
    deployment, asset = connector.deployment, connector.source_asset
    created_at = connector.warehouse_tables[sync.source].created_at
    stamp = sync.timestamp_column or created_at
    key = EventKey((sync.event_key,)) if sync.event_key else _key_of_rows(connector, sync, created_at)
    mapping = EventMapping(key, sync.event_name, sync.event_name_column, stamp)
    scanned = stored_rows(deployment, asset, day)
    columns = scanned.collect_schema().names()
    scanned = without_suppressed(scanned, deployment.table_sources[asset], deployment.rules)
    if also is None and column_of_events(connector):
        also = belonging(connector, deployment.table_sources[asset])
    rows, since = event_rows(also(scanned) if also else scanned, mapping, columns), connector.since()
    rows = rows.rename({PERSON: "profile_id"}, strict=False)
    keyed = KeyedEvents(key, _former_keys(connector, key, day))
    if since is None or stamp is not None:
        return TableEvents(rows, since, keyed)
    before = [partition for partition in deployment.lake.partitions(asset) if partition < since.date().isoformat()]
    if not before:
        raise SettingsError(
            f"sync.{connector.name}: {sync.source} has no timestamp_column (nor created_at) and no day before "
            f"{since:%Y-%m-%d} to compare with, so its history cannot be told from news: name a column, or set "
            "since: beginning"
        )
    landed = deployment.lake.scan(asset, before[-1])
    old = event_rows(landed, mapping, landed.collect_schema().names()).select("event_key")
    return TableEvents(rows.join(old, on="event_key", how="anti"), None, keyed)


def _days_read(deployment: Deployment, asset: str, day: date) -> list[str]:
    """Return the days of a table whose rows are sent on a day: of messages, whose days add up, late ones too."""
    if not is_inbox_table(asset):
        return [str(day)]
    first = str(day - timedelta(days=_LATE_DAYS))
    return [partition for partition in deployment.lake.partitions(asset) if first <= partition <= str(day)]


def _key_of_rows(connector: Connector[Any], sync: EventSettings, created_at: str | None) -> EventKey:
    """Return what tells events apart: the table's key, with the name and the time where a row may get new ones."""
    key = connector.warehouse_tables[sync.source].key
    named = (sync.event_name_column,) if sync.event_name_column else ()
    return EventKey((key, *named), sync.timestamp_column if sync.timestamp_column != created_at else None)


def _former_keys(connector: Connector[Any], key: EventKey, day: date) -> pl.LazyFrame | None:
    """Return `key`, `former` of the events that were sent last, None if the ledger has them by the same key.

    Those of the day's partition, too: a lake that was lost and built anew has no other.
    """
    lake, asset, folder = connector.deployment.lake, connector.source_asset, connector.ledger_folder()
    former = recorded_key(lake.store, folder)
    if former is None or former == key:
        return None
    sent = runs(lake.store, folder, last=1)["newest_day"].max() or day
    partitions = [partition for partition in lake.partitions(asset) if partition <= str(sent)][-_SENT_PARTITIONS:]
    pairs = [pl.LazyFrame(schema={"key": pl.String, "former": pl.String})]
    for partition in dict.fromkeys([*reversed(partitions), str(day)]):
        rows = lake.scan(asset, partition)
        columns, schema = rows.collect_schema().names(), rows.collect_schema()
        if key.fits(schema) and former.fits(schema):
            new = key.of(rows, columns, _NEW_KEY)
            pairs.append(former.of(new, columns, _FORMER_KEY).select(key=_NEW_KEY, former=_FORMER_KEY))
    return pl.concat(pairs)


def address_policy(deployment: Deployment, identities: Identities) -> AddressPolicy:
    """Return the policy for Heap: write to identities in the newest users, no older than two cadences."""
    return AddressPolicy(
        identities=identities,
        users_as_of=users_as_of(deployment),
        cadence=deployment.settings.heap.cadence,
        now=clock.now(),
        suppressed=suppressed_keys(deployment, HEAP_IDENTITY),
    )


def users_as_of(deployment: Deployment) -> datetime | None:
    """Return when the newest users were exported: the note `as_of` of the partition, else the end of its day."""
    day = deployment.lake.newest_partition(USERS, clock.today())
    partition = deployment.lake.find(USERS, str(day)) if day else None
    if day is None or partition is None:
        return None
    as_of = partition.notes.get("as_of")
    if as_of:
        moment = datetime.fromisoformat(str(as_of))
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return datetime.combine(day, time.min, UTC) + timedelta(days=1)


def suppressed_keys(deployment: Deployment, identifier_type: str) -> frozenset[str]:
    """Return the identifiers of a type that nothing is sent to."""
    listed = suppressed_values(deployment.rules, identifier_type)
    if identifier_type != HEAP_IDENTITY:
        return listed
    return listed | frozenset(suppressed_users(deployment)["identity"].drop_nulls())


def suppressed_users(deployment: Deployment) -> pl.DataFrame:
    """Return the Heap users that are suppressed people: `user_id` Int64, `identity` String (null for anonymous ones).

    Those are users whose row has a suppressed identifier, and all users that migrated from or to one of them.
    """
    no_users = pl.DataFrame(schema={"user_id": pl.Int64(), "identity": pl.String()})
    if not deployment.rules.suppressed:
        return no_users
    users = _newest_or_none(deployment, USERS)
    if users is None:
        return no_users
    suppressed = only_suppressed(users, deployment.snapshot_sources[USERS], deployment.rules)
    ids = set(suppressed.select("user_id").collect()["user_id"].drop_nulls())
    migrations = _newest_or_none(deployment, MIGRATIONS)
    if migrations is not None:
        migrated = migrations.select("from_user_id", "resolved_to").drop_nulls().collect()
        ends = set(migrated.filter(pl.col("from_user_id").is_in(list(ids)))["resolved_to"]) | ids
        ids = ends | set(migrated.filter(pl.col("resolved_to").is_in(list(ends)))["from_user_id"])
    rows = users.filter(pl.col("user_id").is_in(list(ids))).select("user_id", "identity").collect()
    without_row = pl.DataFrame({"user_id": sorted(ids - {*rows["user_id"]})}, schema={"user_id": pl.Int64()})
    return pl.concat([rows, without_row], how="diagonal")


def _newest_or_none(deployment: Deployment, asset: str) -> pl.LazyFrame | None:
    day = deployment.lake.newest_partition(asset, clock.today())
    return deployment.lake.scan(asset, str(day)) if day else None
