"""Segment's Track: rows of Heap's event tables, and what is sent of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from heap_assets.activation.connectors.segment import SegmentDestination, SegmentSource, anonymous_id
from heap_assets.activation.engine.destination import Row
from heap_assets.activation.engine.events import derived_id, event_faults
from heap_assets.activation.engine.spec import Mode
from heap_assets.functions import ORDINAL
from heap_assets.sources.heap_connect import without_own


class SegmentTrack(SegmentDestination):
    """Sends events as Track, each once; a resend has the same messageId and is dropped by Segment.

    Rows need `key` or `anonymous_id`, `event_key`, `event`; `time` is optional ISO 8601 text.

    `table`: name of the event table; with the event key it makes the messageId.
    """

    kind = "segment_track"
    mode = Mode.INSERT
    required = ("event_key", "event")
    optional = ("anonymous_id", "time")

    def __init__(self, source: SegmentSource, *, table: str) -> None:
        super().__init__(source)
        self._table = table

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        return {**super().invalid_rows(rows), **event_faults(rows, 1024)}

    def element(self, row: Row) -> dict[str, Any]:
        message_id = "heap_assets-" + derived_id(self._table, row.key)
        message = {**self._addressed("track", row, message_id), "event": row.extra["event"]}
        if row.extra.get("time") is not None:
            message["timestamp"] = row.extra["time"]
        return {**message, "properties": dict(row.values), "integrations": {"Heap": False}}


def track_rows(events: pl.LazyFrame, name: str, identities: pl.LazyFrame, app_id: str) -> pl.LazyFrame:
    """Turn rows of a Heap event table into Track rows, without the events that we sent to Heap ourselves.

    `events`: `event_id`, `user_id`, `time`, then properties. `identities`: `user_id` Int64, `identity` String: who a
    user is today, migrations followed.

    `key` is the identity, null for anonymous users; `anonymous_id` is the original user_id, named by environment
    (heap.md 4), so that Segment can join it later.
    """
    people = (
        identities.select("user_id", key="identity").drop_nulls().unique("user_id", keep="first", maintain_order=True)
    )
    joined = without_own(events).drop("key", strict=False).join(people, on="user_id", how="left", maintain_order="left")
    return joined.with_columns(
        anonymous_id=anonymous_id(app_id, pl.col("user_id")),
        event_key=event_key(joined),
        event=pl.lit(name),
        time=pl.col("time").dt.strftime("%Y-%m-%dT%H:%M:%S%.3fZ"),
    ).unique("event_key", keep="first", maintain_order=True)


def event_key(events: pl.LazyFrame) -> pl.Expr:
    """Return the key of an event: its id, and the ordinal of further rows that a function made of it."""
    event_id = pl.col("event_id").cast(pl.String)
    if ORDINAL not in events.collect_schema():
        return event_id.alias("event_key")
    further = pl.when(pl.col(ORDINAL) > 0).then(pl.concat_str(event_id, pl.lit("-"), pl.col(ORDINAL).cast(pl.String)))
    return pl.coalesce(further, event_id).alias("event_key")
