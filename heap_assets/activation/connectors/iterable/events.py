"""Events, up to 1,000 a call; an answer names people, and not their events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import polars as pl
from pydantic import Field

from heap_assets.activation.connectors.inputs import EventRowConnector, EventRowSettings
from heap_assets.activation.connectors.iterable.preflight import tried
from heap_assets.activation.connectors.iterable.project import IterableDeletion, IterableDestination, ToIterable
from heap_assets.activation.connectors.preflight import untried
from heap_assets.activation.engine.destination import Row
from heap_assets.activation.engine.events import derived_id, event_faults, unix_ms
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.spec import Mode
from heap_assets.activation.engine.verdict import RowVerdict
from heap_assets.sources.warehouse import Permission

_NAME = 255
"""No limit is documented."""


class IterableEventsSync(EventRowSettings, ToIterable):
    """Rows of a warehouse table as custom events of Iterable, each once.

    **To create there:** a server-side API key. **What is matched:** the key with `identifier`. Iterable may make users
    of people whom it does not have: `match: upsert` has to be said.

    **What can be refused:** events of people whom Iterable has forgotten, and events whose name the project does not
    take. The type of a property is fixed for ever; one value of another type refuses the whole call, and its row is
    told by splitting. An answer names people: where only some of a person's events failed, they are sent again until
    it is known which. A second event with the same id overwrites the first, so that nothing counts twice.

    **Never run against Iterable itself,** and not said in its documents: whether an event that is overwritten starts a
    journey once more.
    """

    kind: Literal["iterable_events"] = "iterable_events"
    match: Literal["upsert"] = Field(description="upsert: people whom Iterable does not have may be made")


class IterableEventsConnector(EventRowConnector[IterableEventsSync]):
    """Rows to events."""

    settings_model = IterableEventsSync
    untried = "names and properties of events: Iterable makes them as they come, and no call is known that lists them"
    deletes = IterableDeletion

    def destination(self, table: str = "") -> IterableEvents:
        return IterableEvents(self.settings, self.name)

    def preflight(self) -> Iterator[Permission]:
        with self.api() as api:
            yield from tried(api, self.destination(), None)
        yield untried("events", self.untried)


class IterableEvents(IterableDestination):
    """Sends events. `name`: of the sync, part of each event's id."""

    mode = Mode.INSERT
    required = ("event_key", "event")
    optional = ("time",)

    def __init__(self, settings: IterableEventsSync, name: str) -> None:
        super().__init__(settings, "events", 10)
        self._name = name

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        # a person has many events: no key is one too many
        return event_faults(rows, _NAME)

    def element(self, row: Row) -> dict[str, Any]:
        event = {
            self.key_field: row.person,
            "eventName": row.extra["event"],
            "id": derived_id(self._name, row.key),
            "dataFields": row.filled,
        }
        time = row.extra.get("time")
        return event if time is None else event | {"createdAt": unix_ms(time) // 1000}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        return Request(f"{self.url}/api/events/trackBulk", b'{"events":[' + b",".join(elements) + b"]}")

    def refused(self, answer: Mapping[str, Any], rows: Sequence[Row]) -> dict[int, RowVerdict]:
        names = set(answer.get("disallowedEventNames") or ())
        reason = RowVerdict("rejected", "the project does not take events of this name")
        return {i: reason for i, row in enumerate(rows) if row.extra["event"] in names}
