"""Events, uploaded in batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import polars as pl
from pydantic import Field

from heap_assets.activation.connectors.amplitude.project import (
    LONGEST_TEXT,
    SHORTEST_ID,
    UNTRIED,
    AmplitudeDeletion,
    AmplitudeDestination,
    ToAmplitude,
)
from heap_assets.activation.connectors.inputs import EventRowConnector, EventRowSettings
from heap_assets.activation.engine.destination import Dedupe, Row
from heap_assets.activation.engine.events import derived_id, event_faults, unix_ms
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.limits import Rate
from heap_assets.activation.engine.spec import Mode

_EVENTS, _EVENT_BYTES, _PER_USER = 2_000, 19 << 20, 1_000
_WEEK = 7 * 86_400.0


class AmplitudeEventsSync(EventRowSettings, ToAmplitude):
    """Rows of a table as events of Amplitude, each once.

    **To create there:** nothing; the project's API key.

    **What is matched:** nothing. For 7 days Amplitude drops a second event with the same `insert_id`.

    **What can be refused:** ids below `min_id_length` and placeholders are not sent. Events of a user who has too many
    wait: 30 seconds, or until the next day (UTC) after 500,000 in one.

    **Never run against Amplitude itself.**
    """

    kind: Literal["amplitude_events"] = "amplitude_events"
    min_id_length: int = Field(default=SHORTEST_ID, ge=1, description="Fewest characters of a user id")


class AmplitudeEventsConnector(EventRowConnector[AmplitudeEventsSync]):
    """Rows to events."""

    settings_model = AmplitudeEventsSync
    untried = UNTRIED
    deletes = AmplitudeDeletion

    def destination(self, table: str = "") -> AmplitudeEvents:
        return AmplitudeEvents(self.settings)


class AmplitudeEvents(AmplitudeDestination):
    """Uploads events; one with the same `insert_id` counts once within a week."""

    mode = Mode.INSERT
    required = ("event_key", "event")
    optional = ("time",)
    dedupe = Dedupe("window", _WEEK)

    def __init__(self, settings: AmplitudeEventsSync) -> None:
        rates = (Rate(_PER_USER, 1, per_key=True),)
        super().__init__(settings, settings.min_id_length, batch_rows=_EVENTS, batch_bytes=_EVENT_BYTES, rates=rates)
        self._source = settings.source

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        return {**event_faults(rows, LONGEST_TEXT), **super().invalid_rows(rows)}

    def element(self, row: Row) -> dict[str, Any]:
        event = {
            "user_id": row.person,
            "event_type": row.extra["event"],
            "insert_id": derived_id(self._source, row.key),
        }
        if row.extra.get("time") is not None:
            event["time"] = unix_ms(row.extra["time"])
        return {**event, "event_properties": row.filled}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        options = b'],"options":{"min_id_length":%d}}' % self._shortest_id
        return Request(f"{self.url}/batch", b'{"events":[' + b",".join(elements) + options)
