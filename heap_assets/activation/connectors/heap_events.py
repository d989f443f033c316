"""Heap's server-side API: events (heap.md 1.2, 1.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from heap_assets.activation.connectors.base import Limits, Rate, Request, Row
from heap_assets.activation.connectors.heap_properties import (
    BULK_ROWS,
    EVENT_UNITS,
    IDENTITY_UNITS,
    JUNK_IDENTITIES,
    NAME_UNITS,
    SINGLE,
    VALUE_UNITS,
    HeapApp,
    HeapDestination,
)
from heap_assets.activation.engine.canonical import utf16_units
from heap_assets.activation.engine.events import ISO_TIME, derived_id
from heap_assets.activation.engine.spec import Mode
from heap_assets.sources.heap_connect import OWN_MARK, OWN_VALUE

BULK_RATES = (Rate(15_000, 60), Rate(1000, 60, per_key=True))
"""Events a minute per app, and per identity (heap.md 1.4)."""
SENT_BY = {OWN_MARK: OWN_VALUE}
"""Marks our events, so that they are not taken for the customer's when they come back in an export."""


class HeapEvents(HeapDestination):
    """Sends each new row as one event, up to 1000 a call.

    Rows need `key` (the identity), `event_key`, `event`; `time` is optional ISO 8601 text.

    Parameters
    ----------
    source
        Name of the table. With the event key it makes the idempotency key, so a resend changes nothing at Heap.
    bulk
        Many events per call; otherwise one.
    """

    kind = "heap_events"
    mode = Mode.INSERT
    path = "/api/track"
    required = ("event_key", "event")
    optional = ("time",)

    def __init__(self, app: HeapApp, *, source: str, bulk: bool = True, batch_rows: int = BULK_ROWS) -> None:
        super().__init__(app)
        self._source = source
        self._bulk = bulk
        self.limits = Limits(
            batch_rows=min(batch_rows, BULK_ROWS) if bulk else 1,
            key_units=IDENTITY_UNITS,
            name_units=NAME_UNITS,
            value_units=VALUE_UNITS,
            rates=BULK_RATES if bulk else (SINGLE,),
            junk_keys=JUNK_IDENTITIES,
            forbidden_names=frozenset(SENT_BY),
        )

    def unusable(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        return event_faults(rows, EVENT_UNITS)

    def element(self, row: Row) -> dict[str, Any]:
        event = {"identity": row.person, "event": row.extra["event"]}
        if row.extra.get("time") is not None:
            event["timestamp"] = row.extra["time"]
        event["idempotency_key"] = derived_id(self._source, row.key)
        return {**event, "properties": {**self.properties(row), **SENT_BY}}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        return self._post("events" if self._bulk else None, elements)


def event_faults(rows: pl.LazyFrame, name_units: int) -> dict[str, pl.Expr]:
    """Return what makes a row unusable as an event, by reason."""
    faults = {
        "event key is null": pl.col("event_key").is_null(),
        "event name is null or blank": pl.col("event").is_null() | (pl.col("event").str.strip_chars() == ""),
        f"event name is longer than {name_units} characters": utf16_units(pl.col("event")) > name_units,
    }
    if "time" in rows.collect_schema():
        faults["time cannot be read"] = pl.col("time").is_not_null() & ~pl.col("time").str.contains(ISO_TIME)
    return faults
