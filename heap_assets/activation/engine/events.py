"""Events: source rows that are sent once, to the identity their person has then."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta

import polars as pl

from heap_assets.activation.engine.addressing import NOT_IN_HEAP, Addressed, AddressPolicy, writable_users
from heap_assets.activation.engine.canonical import utf16_units
from heap_assets.activation.engine.event_keys import EventKey, KeyedEvents, event_time
from heap_assets.activation.engine.selection import addressed
from heap_assets.errors import SettingsError
from heap_assets.values import PRIVATE, apart, read_times

ISO_TIME = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$"
KEY_COLUMNS = ("key", "profile_id", "heap_identities")
EVENT_COLUMNS = (*KEY_COLUMNS, "event_key", "event", "time")
"""Columns that the delivery engine adds to those of a table whose rows are keyed, or are events."""
_KEY = f"{PRIVATE}event_key"


@dataclass(frozen=True)
class EventMapping:
    """How rows of a table become events."""

    key: EventKey
    """What tells events apart."""
    name: str | None = None
    name_column: str | None = None
    """`name` and `name_column`: The event's name: a constant, or a column."""
    timestamp_column: str | None = None
    """When it happened; without it the destination takes the time of arrival."""

    def __post_init__(self) -> None:
        if (self.name is None) == (self.name_column is None):
            raise SettingsError(
                "an event needs either a name or a column that holds it (event_name, event_name_column)"
            )


def event_rows(table: pl.LazyFrame, mapping: EventMapping, source_columns: Sequence[str]) -> pl.LazyFrame:
    """Add `event_key`, `event` and `time` to the rows of a table.

    `source_columns`: columns as the source has them: what identity resolution adds is no part of a key, so that a merge
    sends nothing again.

    `time` is ISO 8601 text in UTC where it could be read, and otherwise the source's text. Source columns that are
    called like one of :data:`EVENT_COLUMNS` are renamed (:mod:`heap_assets.values`).
    """
    schema = table.collect_schema()
    mapped_columns = (mapping.name_column, mapping.timestamp_column, *mapping.key.needed)
    for column in (*source_columns, *(c for c in mapped_columns if c is not None)):
        if column not in schema:
            raise SettingsError(f"events: the table has no column {column!r}")
    name = pl.lit(mapping.name) if mapping.name_column is None else pl.col(mapping.name_column).cast(pl.String)
    stamp = mapping.timestamp_column
    time = pl.lit(None, pl.String) if stamp is None else event_time(stamp, schema)
    columns = [pl.col(column).alias(apart(column, EVENT_COLUMNS)) for column in source_columns]
    added = [column for column in schema if column not in source_columns]
    keyed = mapping.key.of(table, source_columns, _KEY)
    return keyed.select(*columns, *added, event_key=_KEY, event=name, time=time)


def addressed_events(
    events: pl.LazyFrame,
    profiles: pl.LazyFrame,
    users: pl.LazyFrame,
    policy: AddressPolicy,
    *,
    day: date,
    since: datetime | None = None,
    hold_days: int = 7,
    refused: pl.LazyFrame | None = None,
    keyed: KeyedEvents | None = None,
) -> Addressed:
    """Give events the identity that their profile has now.

    Parameters
    ----------
    events
        As :func:`event_rows` makes them, with `profile_id` (null if nobody is known).
    profiles
        `profile_id`, `heap_identities`.
    since
        Events before it are left alone; counted as `before_since`.
    hold_days
        An event without a writable identity waits so many days after it happened and is then `expired`.
    refused
        `profile_id`, `reason` as for :func:`addressed`: their events are held for this reason.
    keyed
        What their keys are made of, if they are all events of a table.

    An event goes to one identity only, whatever `policy.identities` says, except `none`.
    """
    single = policy if policy.identities == "none" else replace(policy, identities="one")
    people = addressed(profiles.select("profile_id", "heap_identities"), users, single)
    every_event = events.drop("key", strict=False).collect()
    happened = read_times(pl.col("time"))
    early = every_event.select(early=(happened < since).fill_null(value=False))["early"] if since else None
    recent = every_event.filter(~early) if early is not None else every_event
    identities = people.rows.select("profile_id", "key").collect()
    joined = recent.join(identities, on="profile_id", how="left", maintain_order="left")
    end = datetime.combine(day, time.max).replace(tzinfo=None) - timedelta(days=hold_days)
    over = (happened.dt.replace_time_zone(None) < end).fill_null(value=False)
    keyless = joined.filter(pl.col("key").is_null()).select(
        "profile_id",
        key="event_key",
        reason=pl.when(over).then(pl.lit("expired: nobody to send it to")).otherwise(None),
    )
    waiting = keyless.filter(pl.col("reason").is_null())
    if refused is not None:
        why = refused.select("profile_id", refused="reason").collect()
        waiting = waiting.join(why, on="profile_id", how="left", maintain_order="left").with_columns(reason="refused")
    migrated = users.filter(pl.col("migrated_to").is_not_null()).select("identity")
    absent = people.held.filter(pl.col("reason") == NOT_IN_HEAP).select("profile_id", identity="key")
    unseen = absent.join(migrated, on="identity", how="anti").collect()
    in_wait = unseen.join(waiting, on="profile_id", how="semi")
    waiting = waiting.with_columns(
        pl.when(pl.col("reason").is_null(), pl.col("profile_id").is_in(unseen["profile_id"].implode()))
        .then(pl.lit("Heap has never seen its identity"))
        .otherwise("reason")
        .alias("reason")
    )
    waiting = waiting.select("profile_id", "key", pl.col("reason").fill_null("its person is not in Heap yet"))
    rows = joined.filter(pl.col("key").is_not_null())
    writable = writable_users(users, single).select(key="identity")
    created = rows.lazy().select("key").unique().join(writable, on="key", how="anti").select(pl.len()).collect().item()
    return Addressed(
        rows=rows.lazy(),
        held=waiting.lazy(),
        invalid=keyless.filter(pl.col("reason").is_not_null()).lazy(),
        counts={
            **people.counts,
            "would_create": created,
            "unknown_identities": in_wait["identity"].n_unique(),
            "before_since": len(every_event) - len(recent),
            "expired": len(keyless) - len(waiting),
        },
        keyed=keyed,
    )


def derived_id(source: str, event_key: str) -> str:
    """Return the id under which an event is known at a destination: the same on every resend, 40 hex digits."""
    return hashlib.sha256(f"{source}\x1f{event_key}".encode()).hexdigest()[:40]


def unix_ms(time: str) -> int:
    """Return milliseconds since 1970 of a time of an event, as :data:`ISO_TIME` spells it."""
    since = datetime.fromisoformat(time) - datetime(1970, 1, 1, tzinfo=UTC)
    return since // timedelta(milliseconds=1)


def event_faults(rows: pl.LazyFrame, name_units: int) -> dict[str, pl.Expr]:
    """Return reason to expression that is true for rows that are no valid event."""
    faults = {
        "event key is null": pl.col("event_key").is_null(),
        "event name is null or blank": pl.col("event").is_null() | (pl.col("event").str.strip_chars() == ""),
        f"event name is longer than {name_units} characters": utf16_units(pl.col("event")) > name_units,
    }
    if "time" in rows.collect_schema():
        faults["time cannot be read"] = pl.col("time").is_not_null() & ~pl.col("time").str.contains(ISO_TIME)
    return faults
