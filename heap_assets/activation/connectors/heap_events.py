"""Rows of a warehouse table as events of Heap users (heap.md 1.2, 1.3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any, ClassVar, Literal

import polars as pl
from pydantic import Field, model_validator

from heap_assets.activation.connectors.base import Connector, Requirement
from heap_assets.activation.connectors.consent import belonging, newest_profiles_day, people_day
from heap_assets.activation.connectors.heap import BULK_ROWS, EVENT_UNITS, HeapApp, HeapDestination, ToHeap, call_limits
from heap_assets.activation.connectors.rows import (
    address_policy,
    newest_users,
    refused_profiles,
    table_events,
)
from heap_assets.activation.engine.addressing import Addressed
from heap_assets.activation.engine.destination import Row
from heap_assets.activation.engine.events import EVENT_COLUMNS, addressed_events, derived_id, event_faults
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.limits import Rate
from heap_assets.activation.engine.spec import Mode
from heap_assets.config import EventSettings
from heap_assets.sources.heap_connect import OWN_MARK, OWN_VALUE
from heap_assets.tables import GRAPH, PROFILES, USERS

BULK_RATES = (Rate(15_000, 60), Rate(1000, 60, per_key=True))
"""Events a minute per app, and per identity (heap.md 1.4)."""
SENT_BY = {OWN_MARK: OWN_VALUE}
"""Marks our events, so that they are recognised when they come back in an export."""


class HeapEventsSync(ToHeap, EventSettings):
    """Rows of a warehouse table as events, each once, to the identity its person has then."""

    by_heap_identity: ClassVar[bool] = True

    kind: Literal["heap_events"] = "heap_events"
    mode: Literal["insert"] = "insert"
    source: str = Field(description="A warehouse table whose identifiers are mapped")
    identities: Literal["one", "none"] = Field(
        default="one", description="A person on several identities: the one Heap changed last, or none"
    )
    unknown_identity: Literal["hold", "create"] = Field(
        default="hold",
        description="An event whose identity Heap has never seen waits until a dump has the identity, or is sent, and "
        "Heap creates a user",
    )
    hold_days: int = Field(default=30, ge=0, description="Days an event waits for its person to appear in Heap")

    @model_validator(mode="after")
    def _has_event_name(self) -> HeapEventsSync:
        if (self.event_name is None) == (self.event_name_column is None):
            raise ValueError("either event_name (a constant) or event_name_column (a column that holds it)")
        return self


class HeapEventsConnector(Connector[HeapEventsSync]):
    """Rows of the day's table, each to the identity that its profile has in the newest graph."""

    settings_model = HeapEventsSync
    own_columns = EVENT_COLUMNS

    def destination(self, table: str = "") -> HeapEvents:
        return HeapEvents(HeapApp.of(self.deployment.settings.heap), source=self.settings.source)

    def inputs(self) -> list[str]:
        return [self.source_asset, PROFILES, GRAPH, USERS]

    def requirements(self, day: date) -> Iterator[Requirement | str]:
        yield from super().requirements(day)
        people = newest_profiles_day(self.deployment)
        yield Requirement(PROFILES, str(people)) if people else f"{PROFILES} has not been built"

    def rows(self, day: date, table: str = "") -> Addressed:
        deployment, sync = self.deployment, self.settings
        events = table_events(self, sync, day, belonging(self, deployment.table_sources[self.source_asset]))
        profiles = deployment.lake.scan(PROFILES, str(people_day(deployment)))
        policy = address_policy(deployment, sync.identities)
        creates = sync.unknown_identity == "create"
        return addressed_events(
            events.rows,
            profiles,
            newest_users(deployment),
            replace(policy, allow_new=creates, hold_migrated=creates),
            day=day,
            since=events.since,
            hold_days=sync.hold_days,
            refused=refused_profiles(deployment, profiles),
            keyed=events.keyed,
        )


class HeapEvents(HeapDestination):
    """Sends each new row as one event, up to 1000 a call.

    Rows need `key` (the identity), `event_key`, `event`; `time` is optional ISO 8601 text.

    `source`: name of the table. With the event key it makes the idempotency key, so a resend changes nothing at Heap.
    `bulk`: many events per call; otherwise one.
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
        self.limits = call_limits(batch_rows, SENT_BY, bulk=bulk, rates=BULK_RATES)

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        return event_faults(rows, EVENT_UNITS)

    def element(self, row: Row) -> dict[str, Any]:
        event = {"identity": row.person, "event": row.extra["event"]}
        if row.extra.get("time") is not None:
            event["timestamp"] = row.extra["time"]
        event["idempotency_key"] = derived_id(self._source, row.key)
        return {**event, "properties": {**self.properties(row), **SENT_BY}}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        return self._post("events" if self._bulk else None, elements)
