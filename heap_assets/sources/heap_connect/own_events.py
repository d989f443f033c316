"""Events that this platform sent to Heap come back in the next dump, and must prove nothing about people."""

from __future__ import annotations

import polars as pl

OWN_MARK, OWN_VALUE = "sent_by", "heap_assets"
"""The property on every event that `sync/heap_events` sends, and its value."""


def without_own(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Return the rows of an event table that Heap's own clients sent (design.md, Heap tables)."""
    if OWN_MARK not in rows.collect_schema():
        return rows
    return rows.filter(pl.col(OWN_MARK).ne_missing(pl.lit(OWN_VALUE)))
