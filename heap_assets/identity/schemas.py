"""Schemas of the tables that go in and out of the engines (design.md, "Call and tables")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import polars as pl

from heap_assets.identity.rules import LinksError
from heap_assets.values import TIME

_Types = dict[str, pl.DataType | type[pl.DataType]]

ENDS: Final = ("type_a", "value_a", "type_b", "value_b")

_LINKS: _Types = {
    "type_a": pl.String, "value_a": pl.String, "type_b": pl.String, "value_b": pl.String, "source": pl.String,
    "first_seen": TIME, "last_seen": TIME, "count": pl.Int64, "authoritative": pl.Boolean,
}  # fmt: skip
LINKS: Final = pl.Schema(_LINKS)
"""`type_a` is the stronger end; a sighting has `type_b` and `value_b` null. One row per link and source."""

_GRAPH: _Types = {
    "identifier_type": pl.String, "identifier": pl.String, "profile_id": pl.String,
    "first_seen": TIME, "last_seen": TIME, "shared": pl.Boolean,
}  # fmt: skip
GRAPH: Final = pl.Schema(_GRAPH)

_CONFLICTS: _Types = {
    "type_a": pl.String, "value_a": pl.String, "type_b": pl.String, "value_b": pl.String,
    "sources": pl.List(pl.String), "first_seen": TIME, "limited_type": pl.String, "limit": pl.Int64,
    "count_a": pl.Int64, "count_b": pl.Int64, "profile_a": pl.String, "profile_b": pl.String,
    "decision": pl.String,
}  # fmt: skip
CONFLICTS: Final = pl.Schema(_CONFLICTS)
"""`decision`: id of the `apart` decision that refused a link; then `limited_type`, `limit` and the counts are null."""

SHARED: Final = pl.Schema(
    {"identifier_type": pl.String, "identifier": pl.String, "stronger_type": pl.String, "groups": pl.Int64}
)

CHANGES: Final = pl.Schema(
    {
        "old_profile_id": pl.String, "new_profile_id": pl.String, "kind": pl.String, "identifiers": pl.Int64,
        "decision": pl.String,
    }
)  # fmt: skip

REFUSED: Final = pl.Schema({"column": pl.String, "identifier_type": pl.String, "reason": pl.String, "rows": pl.Int64})

EXCLUDED: Final = pl.Schema({"identifier_type": pl.String, "identifier": pl.String})

_DEFAULTS: Final[Mapping[str, pl.Expr]] = {
    "source": pl.lit("", pl.String),
    "first_seen": pl.lit(None, TIME),
    "last_seen": pl.lit(None, TIME),
    "count": pl.lit(1, pl.Int64),
    "authoritative": pl.lit(False, pl.Boolean),
}


def as_links(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Return a frame with the schema of links: missing optional columns are filled, others left out.

    Raises LinksError if an end is missing or a column has another type.
    """
    schema = frame.collect_schema()
    if missing := [name for name in ENDS if name not in schema]:
        raise LinksError(f"links have no column {', '.join(missing)}; found {', '.join(schema)}")
    columns = []
    for name, dtype in LINKS.items():
        if name not in schema:
            columns.append(_DEFAULTS[name].alias(name))
            continue
        own = schema[name]
        fits = own in (dtype, pl.Null) or (dtype.is_integer() and own.is_integer())
        if not fits and not (dtype == TIME and isinstance(own, pl.Datetime) and own.time_zone == "UTC"):
            raise LinksError(f"links.{name} is {own}, expected {dtype}")
        columns.append(pl.col(name) if own == dtype else pl.col(name).cast(dtype))
    return frame.select(columns)


def aggregated(links: pl.LazyFrame) -> pl.LazyFrame:
    """Bring links to one row per link and source: min first seen, max last seen, sum of counts, any authoritative."""
    return links.group_by(*ENDS, "source").agg(
        pl.col("first_seen").min(),
        pl.col("last_seen").max(),
        pl.col("count").sum(),
        pl.col("authoritative").any(ignore_nulls=True),
    )
