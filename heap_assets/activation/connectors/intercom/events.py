"""Events, one a call; Intercom takes a second one of the same person, name and second for the first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import polars as pl
from pydantic import field_validator

from heap_assets.activation.connectors.inputs import EventRowConnector, EventRowSettings
from heap_assets.activation.connectors.intercom.workspace import (
    NOT_THERE,
    VALUES,
    IntercomApi,
    IntercomDeletion,
    ToIntercom,
    why,
)
from heap_assets.activation.connectors.preflight import untried
from heap_assets.activation.engine.destination import Row, RowByRowDestination
from heap_assets.activation.engine.events import event_faults, unix_ms
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.spec import Mode
from heap_assets.activation.engine.verdict import Response, RowVerdict, Verdict
from heap_assets.sources.warehouse import Permission

_AT_ONCE, _MOST_PROPERTIES, _NAME = 15, 10, 255


class IntercomEventsSync(EventRowSettings, ToIntercom):
    """Rows of a warehouse table as events of Intercom's contacts, each once.

    **To create there:** an app with the permission to write events. Every event needs a time: `timestamp_column`, or
    the table's `created_at`. **What is matched:** the key with `identifier`; leads are known by `id` only. Events of
    people whom Intercom does not have are `no_match`, and tried again after some days.

    **What can be refused:** Intercom tells events of a person apart by name and second: of two in one second the one
    with the lower key is sent, and the other is `invalid`. It keeps ten properties of an event, so that no more can be
    mapped. It answers without a word: rows are `sent`. **Never run against Intercom itself.**
    """

    kind: Literal["intercom_events"] = "intercom_events"

    @field_validator("properties")
    @classmethod
    def _are_kept(cls, value: dict[str, str]) -> dict[str, str]:
        if len(value) > _MOST_PROPERTIES:
            raise ValueError(f"Intercom keeps {_MOST_PROPERTIES} properties of an event and drops others in silence")
        return value


class IntercomEventsConnector(EventRowConnector[IntercomEventsSync]):
    """Rows to events."""

    settings_model = IntercomEventsSync
    untried = "names and metadata of events: Intercom makes them as they come"
    deletes = IntercomDeletion

    def destination(self, table: str = "") -> IntercomEvents:
        return IntercomEvents(self.settings)

    def preflight(self) -> Iterator[Permission]:
        with self.api() as api:
            api.call(self.destination().call("/data_attributes?model=contact", method="GET"))
        yield Permission("login", True, "attributes can be read")
        yield untried("events", self.untried)


class IntercomEvents(IntercomApi, RowByRowDestination):
    """Sends events; a repeat is ignored there."""

    mode = Mode.INSERT
    divisible = False  # what counts as one event there is told by person, name and second
    values = VALUES
    accepted = "sent"
    required = ("event_key", "event", "time")

    def __init__(self, settings: IntercomEventsSync) -> None:
        super().__init__(settings, batch_rows=_AT_ONCE)
        self._person = "user_id" if settings.identifier == "external_id" else settings.identifier

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        second = pl.col("time").str.slice(0, len("2026-11-30T12:00:00"))
        first = pl.col("event_key").min().over("key", "event", second)
        return {
            **event_faults(rows, _NAME),
            "it has no time": pl.col("time").is_null(),
            "Intercom takes it for another event of this person, name and second": pl.col("event_key") != first,
        }

    def element(self, row: Row) -> dict[str, Any]:
        when = unix_ms(row.extra["time"]) // 1000
        event = {"event_name": row.extra["event"], "created_at": when, self._person: row.person}
        return event | ({"metadata": row.filled} if row.filled else {})

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        return self.call("/events", elements[0], reads=frozenset({NOT_THERE}))

    def verdict(self, response: Response, rows: Sequence[Row]) -> Verdict:
        if response.accepted:
            return Verdict()
        no_contact = response.status == NOT_THERE
        reason = "Intercom has no contact with this key" if no_contact else why(response)
        return Verdict({0: RowVerdict("no_match" if no_contact else "rejected", reason)})
