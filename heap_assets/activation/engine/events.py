"""Events: source rows that are sent once, to the identity their person has then."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from typing import Any

import polars as pl

from heap_assets.activation.engine.addressing import Addressed, AddressPolicy, addressed
from heap_assets.activation.engine.canonical import decimal_is_number, iso_text, sendable, utf16_units
from heap_assets.errors import SettingsError
from heap_assets.values import apart, json_or_exact, key_text, read_times

ISO_TIME = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$"
KEY_COLUMNS = ("key", "profile_id", "heap_identities")
EVENT_COLUMNS = (*KEY_COLUMNS, "event_key", "event", "time")
"""Columns that the delivery engine adds to those of a table whose rows are keyed, or are events."""
_FIELD, _RECORD, _NULL = "\x1f", "\x1e", "\x00"


@dataclass(frozen=True)
class EventMapping:
    """How rows of a table become events."""

    name: str | None = None
    name_column: str | None = None
    """`name` and `name_column`: The event's name: a constant, or a column."""
    key_column: str | None = None
    """The table's own key of a row; without it, the hash of all source columns and an ordinal among equals."""
    timestamp_column: str | None = None
    """When it happened; without it the destination takes the time of arrival."""

    def __post_init__(self) -> None:
        if (self.name is None) == (self.name_column is None):
            raise SettingsError(
                "an event needs either a name or a column that holds it (event_name, event_name_column)"
            )


def event_rows(table: pl.LazyFrame, mapping: EventMapping, source_columns: Sequence[str]) -> pl.LazyFrame:
    """Add `event_key`, `event` and `time` to the rows of a table.

    `source_columns`: columns as the source has them. Only they make the key: what identity resolution adds never does,
    so that a merge sends nothing again.

    `time` is ISO 8601 text in UTC where it could be read, and otherwise the source's text. Source columns that are
    called like one of :data:`EVENT_COLUMNS` are renamed (:mod:`heap_assets.values`).
    """
    schema = table.collect_schema()
    mapped_columns = (mapping.name_column, mapping.key_column, mapping.timestamp_column)
    for column in (*source_columns, *(c for c in mapped_columns if c is not None)):
        if column not in schema:
            raise SettingsError(f"events: the table has no column {column!r}")
    name = pl.lit(mapping.name) if mapping.name_column is None else pl.col(mapping.name_column).cast(pl.String)
    if mapping.key_column is not None:
        key = key_text(pl.col(mapping.key_column), schema[mapping.key_column])
    else:
        key = _row_hash(source_columns, schema)
    stamp = pl.lit(None, pl.String) if mapping.timestamp_column is None else _time(mapping.timestamp_column, schema)
    columns = [pl.col(column).alias(apart(column, EVENT_COLUMNS)) for column in source_columns]
    added = [column for column in schema if column not in source_columns]
    rows = table.select(*columns, *added, event_key=key, event=name, time=stamp)
    return _numbered(rows, mapping)


def _numbered(rows: pl.LazyFrame, mapping: EventMapping) -> pl.LazyFrame:
    if mapping.key_column is not None:
        return rows
    ordinal = pl.int_range(pl.len()).over("event_key")
    suffix = pl.when(ordinal > 0).then(pl.format("-{}", ordinal + 1)).otherwise(pl.lit(""))
    return rows.with_columns(event_key=pl.col("event_key") + suffix)


def canonical_text(columns: Sequence[str], schema: pl.Schema) -> pl.Expr:
    """Return a row as one text: sorted columns, each `name 0x1F value`, joined by 0x1E; null is 0x00."""
    parts = [
        pl.concat_str(pl.lit(column + _FIELD), _text(column, schema[column]).fill_null(_NULL))
        for column in sorted(columns)
    ]
    return pl.concat_str(parts, separator=_RECORD)


def _text(column: str, dtype: pl.DataType) -> pl.Expr:
    value = pl.col(column)
    if isinstance(dtype, pl.Datetime):
        utc = value.dt.convert_time_zone("UTC") if dtype.time_zone else value
        return utc.dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    if _holds_bytes(dtype) and dtype != pl.Binary:
        return json_or_exact(value, dtype)  # Polars has no JSON for bytes; other keys stay what they were
    if isinstance(dtype, pl.Struct):
        return value.struct.json_encode()
    if isinstance(dtype, pl.List):
        return pl.struct(value).struct.json_encode()
    if dtype == pl.Float32:
        return value.cast(pl.Float64).cast(pl.String)  # keys made of it stay what they were
    text = sendable(value, dtype, f"events: column {column!r}").cast(pl.String)
    if isinstance(dtype, pl.Decimal):
        return (
            pl.when(decimal_is_number(value, dtype.scale)).then(value.cast(pl.Float64).cast(pl.String)).otherwise(text)
        )
    return text


def _holds_bytes(dtype: Any) -> bool:
    if isinstance(dtype, pl.Struct):
        return any(_holds_bytes(field.dtype) for field in dtype.fields)
    return _holds_bytes(dtype.inner) if isinstance(dtype, pl.List) else dtype == pl.Binary


def _row_hash(columns: Sequence[str], schema: pl.Schema) -> pl.Expr:
    def sha256(texts: pl.Series) -> pl.Series:
        return pl.Series([hashlib.sha256(text.encode()).hexdigest()[:32] for text in texts], dtype=pl.String)

    return canonical_text(columns, schema).map_batches(sha256, return_dtype=pl.String)


def _time(column: str, schema: pl.Schema) -> pl.Expr:
    if schema[column] == pl.String:
        text = pl.col(column).str.strip_chars()
        return pl.coalesce(iso_text(read_times(text), pl.Datetime("us", "UTC")), text)
    if schema[column] == pl.Date:
        return pl.col(column).dt.strftime("%Y-%m-%dT00:00:00.000Z")
    return sendable(pl.col(column), schema[column], f"events: timestamp column {column!r}").cast(pl.String)


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
    waiting = waiting.select("profile_id", "key", pl.col("reason").fill_null("its person is not in Heap yet"))
    return Addressed(
        rows=joined.filter(pl.col("key").is_not_null()).lazy(),
        held=waiting.lazy(),
        invalid=keyless.filter(pl.col("reason").is_not_null()).lazy(),
        counts={
            **people.counts,
            "before_since": len(every_event) - len(recent),
            "expired": len(keyless) - len(waiting),
        },
    )


def derived_id(source: str, event_key: str) -> str:
    """Return the id under which an event is known at a destination: the same on every resend, 40 hex digits."""
    return hashlib.sha256(f"{source}{_FIELD}{event_key}".encode()).hexdigest()[:40]


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
