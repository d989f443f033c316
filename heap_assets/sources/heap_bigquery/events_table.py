"""The one wide `events` table of Heap's BigQuery export guides: their 16 columns, everything else as JSON.

`event_type` is what people call the event, as the guides' queries expect ('Signup Started'); `event_table`, the one
column besides theirs, is Heap's name for its table ('signup_started').
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from heap_assets.sources.warehouse import Publication
from heap_assets.values import PRIVATE, json_lost, json_safe

JSON_COLUMNS = frozenset({"event_properties", "user_properties"})
COLUMNS: Mapping[str, str] = {
    "event_id": "Heap's id of the event",
    "session_id": "Heap's id of the session",
    "user_id": "Heap's id of the user as exported; heap_resolved.events has today's",
    "time": "When it happened, UTC",
    "event_type": "What people call the event, such as Signup Started; the display name of the catalogue",
    "event_properties": "All other columns of the event table that are not null",
    "user_properties": "The columns of the user's row in heap/users that are not null",
    "page_url": "Domain, path, query and hash of the page",
    "page_title": "Title of the page",
    "referrer": "Where the session came from",
    "device_type": "Mobile, Desktop or Tablet",
    "browser": "Browser and version",
    "platform": "Operating system",
    "country": "By IP address",
    "region": "By IP address",
    "city": "By IP address",
    "event_table": "Heap's name of the event's table, such as signup_started",
}
PUBLICATION = Publication(
    "events",
    description="All Heap events in one table, one row per event_id and user_id",
    descriptions=COLUMNS,
    cluster_by=("event_type", "user_id"),
    json_columns=JSON_COLUMNS,
)

_OWN = ("referrer", "device_type", "browser", "platform", "country", "region", "city")
_PAGE = ("domain", "path", "query", "hash")
_LOST = f"{PRIVATE}lost"


def events_table(
    tables: Mapping[str, pl.LazyFrame],
    users: pl.LazyFrame | None = None,
    names: Mapping[str, str] | None = None,
) -> pl.LazyFrame:
    """Bring the event tables of a day into one.

    Parameters
    ----------
    tables
        Table name (`signup`, `pageviews`, `sessions`) to rows: event_id, user_id, session_id: Int64; time: Datetime.
    users
        user_id: Int64 and properties; joined by the user_id that the event carries.
    names
        Table name to what people call the event; by default the table's name.

    Returns exactly :data:`COLUMNS` in their order, String but `time`; event_properties and user_properties are JSON
    text.
    """
    display = names or {}
    rows = pl.concat([_rows(name, frame, display.get(name, name)) for name, frame in sorted(tables.items())])
    if users is None:
        return rows.with_columns(user_properties=pl.lit(None, pl.String)).select(COLUMNS.keys())
    schema = users.collect_schema()
    properties = [name for name in schema.names() if name != "user_id"]
    by_user = users.select(pl.col("user_id").cast(pl.String), user_properties=_json_object(properties, schema))
    return rows.join(by_user, on="user_id", how="left", maintain_order="left").select(COLUMNS.keys())


def values_lost(tables: Mapping[str, pl.LazyFrame], users: pl.LazyFrame | None = None) -> dict[str, int]:
    """Count the values of :func:`events_table` that JSON has no form for and that are null in it, by column.

    A user's are counted with each of the user's events, as the table repeats them.
    """
    of_events = [_json_lost(rows, _properties(rows.collect_schema())) for rows in tables.values()]
    counts = [rows.select(pl.col(_LOST).sum()) for rows in of_events]
    lost = {"event_properties": sum(count.item() for count in pl.collect_all(counts))}
    if users is not None:
        properties = [name for name in users.collect_schema() if name != "user_id"]
        of_users = _json_lost(users, properties, "user_id").filter(pl.col(_LOST) > 0)
        user_ids = pl.concat([rows.select("user_id") for rows in tables.values()])
        lost["user_properties"] = user_ids.join(of_users, on="user_id").select(pl.col(_LOST).sum()).collect().item()
    return {column: count for column, count in lost.items() if count}


def _json_lost(rows: pl.LazyFrame, columns: Sequence[str], *keys: str) -> pl.LazyFrame:
    schema = rows.collect_schema()
    doubtful = [name for name in columns if schema[name].is_float() or schema[name].is_nested()]
    counts = [json_lost(pl.col(name), schema[name]) for name in doubtful]
    return rows.select(*keys, (pl.sum_horizontal(*counts) if counts else pl.lit(0)).cast(pl.Int64).alias(_LOST))


def _properties(schema: pl.Schema) -> list[str]:
    """Return the columns of an event table that go into `event_properties`."""
    placed = {"event_id", "session_id", "user_id", "time", "title", *_OWN, *_PAGE}
    return [column for column in schema if column not in placed]


def _rows(name: str, frame: pl.LazyFrame, event_type: str) -> pl.LazyFrame:
    schema = frame.collect_schema()
    has = schema.names()
    return frame.select(
        *(_string(column, has) for column in ("event_id", "session_id", "user_id")),
        pl.col("time"),
        pl.lit(event_type).alias("event_type"),
        _json_object(_properties(schema), schema).alias("event_properties"),
        _url(has).alias("page_url"),
        _string("title", has).alias("page_title"),
        *(_string(column, has) for column in _OWN),
        pl.lit(name).alias("event_table"),
    )


def _string(column: str, has: list[str]) -> pl.Expr:
    return (pl.col(column).cast(pl.String) if column in has else pl.lit(None, pl.String)).alias(column)


def _url(has: list[str]) -> pl.Expr:
    """Heap keeps query and hash with their `?` and `#`."""
    parts = [pl.col(part).cast(pl.String).fill_null("") for part in _PAGE if part in has]
    if "domain" not in has:
        return pl.lit(None, pl.String)
    return pl.when(pl.col("domain").is_not_null()).then(pl.concat_str(parts))


def _json_object(columns: Sequence[str], schema: pl.Schema) -> pl.Expr:
    """Write a JSON object of the columns that are not null."""
    members = [
        pl.when(pl.col(name).is_not_null()).then(
            pl.struct(json_safe(pl.col(name), schema[name]).alias(name))
            .struct.json_encode()
            .str.strip_prefix("{")
            .str.strip_suffix("}")
        )
        for name in columns
    ]
    if not members:
        return pl.lit("{}")
    return pl.concat_str(pl.lit("{"), pl.concat_str(members, separator=",", ignore_nulls=True), pl.lit("}"))
