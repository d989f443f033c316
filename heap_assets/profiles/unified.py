"""The table of unified events: its contract, and rows of Heap's tables and of messages in its columns.

A row has the person it is of as its day's graph knew it. Identifiers of a row are its own; where it has none, the
profile's, if that has exactly one of the type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import polars as pl

from heap_assets.identity import HEAP_IDENTITY, HEAP_USER_ID, Rules, SourceTable, assign
from heap_assets.values import PRIVATE


class ContractColumn(NamedTuple):
    """A column of the contract; `required`: never null."""

    dtype: pl.DataType
    about: str
    required: bool = False
    personal: bool = False


_TEXT, _TIME = pl.String(), pl.Datetime("us", "UTC")
UNIFIED: Final[Mapping[str, ContractColumn]] = {
    "event_id": ContractColumn(_TEXT, "Heap's id of the event, or the message's id.", required=True),
    "source": ContractColumn(_TEXT, "`heap`, or which of `inbox.sources` posted it.", required=True),
    "event_table": ContractColumn(_TEXT, "Table that it is in: `sign_up` of Heap, `inbox/track`.", required=True),
    "event": ContractColumn(_TEXT, "What people call the event; of pages and screens their name.", required=True),
    "time": ContractColumn(_TIME, "When it happened.", required=True),
    "received_at": ContractColumn(_TIME, "When the message came; empty for Heap's events."),
    "profile_id": ContractColumn(_TEXT, "The person, by the graph of the day (docs/unified_events.md)."),
    "heap_user_id": ContractColumn(pl.Int64(), "Heap's user: the row's, else the profile's only one."),
    "anonymous_id": ContractColumn(_TEXT, "The visitor that the sender of a message knows.", personal=True),
    "identity": ContractColumn(_TEXT, "Heap's identity: the row's, else the profile's only one.", personal=True),
    "identifier_type": ContractColumn(_TEXT, "Type of the identifier that the row belongs to its profile by."),
    "identifier": ContractColumn(_TEXT, "That identifier: with its type, the key of identity/graph.", personal=True),
    "session_id": ContractColumn(_TEXT, "Heap's id of the session."),
    "page_url": ContractColumn(_TEXT, "Address of the page.", personal=True),
    "page_title": ContractColumn(_TEXT, "Title of the page."),
    "referrer": ContractColumn(_TEXT, "Where the visitor came from.", personal=True),
    "device_type": ContractColumn(_TEXT, "Mobile, Desktop or Tablet of Heap; what a message says."),
    "browser": ContractColumn(_TEXT, "Browser and version; of messages the user agent."),
    "platform": ContractColumn(_TEXT, "Operating system."),
    "country": ContractColumn(_TEXT, "By IP address, or as the message says."),
    "region": ContractColumn(_TEXT, "By IP address, or as the message says."),
    "city": ContractColumn(_TEXT, "By IP address, or as the message says."),
    "properties": ContractColumn(_TEXT, "All other properties of the event as a JSON object.", True, True),
}
"""Columns in their order. Adding one is a change that every reader sees; none is ever left out."""
UNIFIED_SCHEMA: Final = pl.Schema({name: column.dtype for name, column in UNIFIED.items()})
UNIFIED_KEY: Final = ("source", "event_table", "event_id", "identifier")

_PERSON, _OWNER = f"{PRIVATE}person", f"{PRIVATE}owner"
_ONLY: Final = {"identity": HEAP_IDENTITY, "heap_user_id": HEAP_USER_ID}
_CONTEXT: Final = {
    "page_url": ("$.context.page.url", "$.properties.url"),
    "page_title": ("$.context.page.title", "$.properties.title"),
    "referrer": ("$.context.page.referrer", "$.properties.referrer"),
    "device_type": ("$.context.device.type",),
    "browser": ("$.context.userAgent",),
    "platform": ("$.context.os.name",),
    "country": ("$.context.location.country",),
    "region": ("$.context.location.region",),
    "city": ("$.context.location.city",),
}
"""Where Segment's messages have what Heap has in columns (Segment's common fields)."""


def heap_events_unified(rows: pl.LazyFrame, graph: pl.LazyFrame) -> pl.LazyFrame:
    """Return rows of Heap's wide table of events (event_id, user_id, event_type, …: String) as unified events."""
    owners = _owned(graph).filter(pl.col("identifier_type") == HEAP_USER_ID)
    owned = rows.join(
        owners.select(pl.col("identifier").alias("user_id"), "profile_id"),
        on="user_id",
        how="left",
        maintain_order="left",
    )
    shaped = owned.with_columns(
        source=pl.lit("heap"),
        event="event_type",
        heap_user_id=pl.col("user_id").cast(pl.Int64, strict=False),
        identifier_type=pl.when(pl.col("user_id").is_not_null()).then(pl.lit(HEAP_USER_ID)),
        identifier="user_id",
        properties="event_properties",
    )
    return _in_contract(shaped, graph)


def messages_unified(
    rows: pl.LazyFrame, table: SourceTable, graph: pl.LazyFrame, rules: Rules, *, named: str, root: str
) -> pl.LazyFrame:
    """Return messages as unified events.

    Parameters
    ----------
    table
        How the table names people.
    named
        Column that the event is called by: `event`, or `name` of pages and screens; where it is null, the table's.
    root
        Member of the message that holds the properties; empty if the message itself does.
    """
    members = ("profile_id", "identifier_type", "identifier")
    people = _owned(graph).select(*members[1:], profile_id=pl.struct(members), shared=pl.lit(value=False))
    owned = assign(rows, table, people, rules, under=_PERSON)
    own = {name: _mapped(table, kind, rows.collect_schema()) for name, kind in _ONLY.items()}
    body = pl.col("body")
    shaped = owned.select(
        event_id="message_id",
        source="source",
        event_table=pl.lit(table.name),
        event=pl.coalesce(named, pl.lit(table.name)),
        time="time",
        received_at="received_at",
        anonymous_id="anonymous_id",
        **{name: pl.col(_PERSON).struct.field(name) for name in members},
        **{name: value.cast(UNIFIED_SCHEMA[name], strict=False) for name, value in own.items()},
        **{name: pl.coalesce(*map(body.str.json_path_match, paths)) for name, paths in _CONTEXT.items()},
        properties=pl.coalesce(body.str.json_path_match(f"$.{root}") if root else body, pl.lit("{}")),
    )
    return _in_contract(shaped, graph).sort("time", "event_id")


def _owned(graph: pl.LazyFrame) -> pl.LazyFrame:
    return graph.filter(pl.col("profile_id").is_not_null() & ~pl.col("shared"))


def _mapped(table: SourceTable, kind: str, schema: pl.Schema) -> pl.Expr:
    """Return the row's own identifier of a type, if one plain column holds it."""
    names = [mapping.columns[0] for mapping in table.mappings if mapping.type == kind and len(mapping.columns) == 1]
    return pl.coalesce(*(pl.col(name) for name in names if name in schema), pl.lit(None, pl.String))


def _in_contract(rows: pl.LazyFrame, graph: pl.LazyFrame) -> pl.LazyFrame:
    """Fill in the profile's only Heap user and identity, and give rows the columns of the contract."""
    singles = (
        _owned(graph)
        .filter(pl.col("identifier_type").is_in(list(_ONLY.values())))
        .group_by(pl.col("profile_id").alias(_OWNER))
        .agg(_only(kind).alias(f"{PRIVATE}{name}") for name, kind in _ONLY.items())
    )
    joined = rows.join(singles, left_on="profile_id", right_on=_OWNER, how="left", maintain_order="left")
    schema = joined.collect_schema()
    filled = {
        name: pl.coalesce(
            pl.col(name) if name in schema else pl.lit(None, UNIFIED_SCHEMA[name]),
            pl.col(f"{PRIVATE}{name}").cast(UNIFIED_SCHEMA[name], strict=False),
        )
        for name in _ONLY
    }
    return joined.with_columns(**filled).select(
        (pl.col(name) if name in schema or name in _ONLY else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in UNIFIED_SCHEMA.items()
    )


def _only(kind: str) -> pl.Expr:
    values = pl.col("identifier").filter(pl.col("identifier_type") == kind)
    return pl.when(values.n_unique() == 1).then(values.first())
